//! Guests: VMs and containers, as their configuration files say.

use std::path::Path;

pub use bundle::document::guest::GuestKind as Kind;
use bundle::document::guest::title;
use layout::system::System;
use layout::units::Bytes;
use serde::{Deserialize, Serialize};

use super::TREE;

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its number.
    pub id: u32,
    /// What it is.
    pub kind: Kind,
    /// Its name; not every guest has one.
    pub name: Option<String>,
    /// Whether it is a template.
    pub template: bool,
    /// Tags.
    pub tags: Vec<String>,
    /// Whether it is started with the node.
    pub onboot: bool,
    /// Its place in the start order; those without one come last.
    pub order: Option<u32>,
    /// Why it is locked: `backup`, `migrate`...
    pub lock: Option<String>,
    /// Whether a container's users are others outside of it.
    pub unprivileged: bool,
    /// Its volumes.
    pub volumes: Vec<Volume>,
}

impl Guest {
    /// `VM 100 (web)`
    pub fn title(&self) -> String {
        title(self.kind, self.id, self.name.as_deref())
    }

    /// Sizes of the volumes that vzdump takes, as far as the configuration has them.
    pub fn dumped_bytes(&self) -> u64 {
        let dumped = self.volumes.iter().filter(|v| v.dumped);
        let sizes = dumped.filter_map(|v| v.size).map(|size| size.0);
        sizes.fold(0, u64::saturating_add)
    }
}

/// A disk of a VM, or a mount point of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// `scsi0`, `rootfs`, `mp1`, `unused0`.
    pub key: String,
    /// The storage.
    pub storage: String,
    /// Its name there: `vm-100-disk-0`.
    pub name: String,
    /// Size as the configuration has it.
    pub size: Option<Bytes>,
    /// Whether vzdump takes it along.
    pub dumped: bool,
}

/// The directory of the configuration files of guests of a kind.
fn config_dir(kind: Kind) -> &'static str {
    match kind {
        Kind::Qemu => "qemu-server",
        Kind::Lxc => "lxc",
    }
}

/// The guests of a node, by number. Files that cannot be read are left out.
pub fn collect(sys: &dyn System, node: &str) -> Vec<Guest> {
    let mut guests = Vec::new();
    for kind in [Kind::Qemu, Kind::Lxc] {
        let dir = Path::new(TREE)
            .join("nodes")
            .join(node)
            .join(config_dir(kind));
        for file in sys.list_dir(&dir).unwrap_or_default() {
            let id = file.strip_suffix(".conf").and_then(|id| id.parse().ok());
            let (Some(id), Some(text)) = (id, sys.text(&dir.join(&file))) else {
                continue;
            };
            guests.push(parse(id, kind, &text));
        }
    }
    guests.sort_by_key(|g| g.id);
    guests
}

/// Lines `key: value` up to the first section: `[snapshot]`, `[PENDING]`, `[special:...]`.
pub fn parse(id: u32, kind: Kind, text: &str) -> Guest {
    let mut guest = Guest {
        id,
        kind,
        name: None,
        template: false,
        tags: Vec::new(),
        onboot: false,
        order: None,
        lock: None,
        unprivileged: false,
        volumes: Vec::new(),
    };
    let current = text.lines().take_while(|line| !line.starts_with('['));
    for line in current.filter(|line| !line.starts_with('#')) {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match key {
            "name" | "hostname" => guest.name = Some(value.to_owned()),
            "template" => guest.template = value == "1",
            "onboot" => guest.onboot = value == "1",
            "unprivileged" => guest.unprivileged = value == "1",
            "lock" => guest.lock = Some(value.to_owned()),
            "tags" => {
                let tags = value.split([';', ',', ' ']).filter(|t| !t.is_empty());
                guest.tags = tags.map(str::to_owned).collect();
            }
            "startup" => guest.order = order(value),
            _ => guest.volumes.extend(volume(kind, key, value)),
        }
    }
    guest.volumes.sort_by(|a, b| a.key.cmp(&b.key));
    guest
}

/// `order=2,up=30`, or the number alone.
fn order(value: &str) -> Option<u32> {
    value.split(',').find_map(|word| {
        let number = word.strip_prefix("order=").unwrap_or(word);
        number.trim().parse().ok()
    })
}

/// Keys of disks and mount points: a name and a number, or a name alone.
fn is_volume_key(kind: Kind, key: &str) -> bool {
    let name = key.trim_end_matches(|c: char| c.is_ascii_digit());
    match kind {
        _ if name == "unused" => true,
        Kind::Qemu => {
            matches!(
                name,
                "ide" | "sata" | "scsi" | "virtio" | "efidisk" | "tpmstate"
            ) && name != key
        }
        Kind::Lxc => key == "rootfs" || name == "mp" && name != key,
    }
}

fn volume(kind: Kind, key: &str, value: &str) -> Option<Volume> {
    if !is_volume_key(kind, key) {
        return None;
    }
    let mut words = value.split(',');
    let place = words.next()?;
    let place = place.strip_prefix("file=").unwrap_or(place);
    let place = place.strip_prefix("volume=").unwrap_or(place);
    let option = |name: &str| {
        value
            .split(',')
            .find_map(|w| w.strip_prefix(name)?.strip_prefix('='))
    };
    // A directory or device of the host that is shown to the guest is no volume; nor is a CD.
    if place.starts_with('/') || option("media") == Some("cdrom") {
        return None;
    }
    let (storage, name) = place.split_once(':')?;
    // vzdump leaves out what is unused, VM disks with `backup=0`, and mount points without `backup=1`.
    let dumped = match (kind, option("backup")) {
        _ if key.starts_with("unused") => false,
        (Kind::Qemu, backup) => backup != Some("0"),
        (Kind::Lxc, backup) => key == "rootfs" || backup == Some("1"),
    };
    Some(Volume {
        key: key.to_owned(),
        storage: storage.to_owned(),
        name: name.to_owned(),
        size: option("size").and_then(size),
        dumped,
    })
}

/// `32G`, `528K`, `1T`, or bytes.
pub fn size(text: &str) -> Option<Bytes> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: u64 = whole.parse().ok()?;
    let unit = 1u64 << shift;
    // At most a few digits, as PVE writes them.
    let part: u64 = match part.get(..part.len().min(6)).unwrap_or_default() {
        "" => 0,
        digits => {
            let number: u64 = digits.parse().ok()?;
            number.checked_mul(unit)? / 10u64.pow(digits.len() as u32)
        }
    };
    Some(Bytes(whole.checked_mul(unit)?.checked_add(part)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_with_snapshots_and_a_cd() {
        let text = "#notes: with a colon\nagent: 1\nboot: order=scsi0\nefidisk0: local-lvm:vm-100-disk-1,efitype=4m,size=4M\n\
                    ide2: local:iso/debian.iso,media=cdrom,size=600M\nlock: backup\nname: web\nonboot: 1\nscsi0: \
                    local-lvm:vm-100-disk-0,iothread=1,size=32G\nscsi1: /dev/sdb,size=1T\nscsihw: virtio-scsi-single\nstartup: \
                    order=2,up=30\ntags: prod;web\nunused0: local-lvm:vm-100-disk-7\nvirtio3: \
                    nas:100/vm-100-disk-2.qcow2,backup=0,size=1.5G\n\n[before]\nname: old\nscsi5: local-lvm:x,size=1G\n";
        let guest = parse(100, Kind::Qemu, text);
        assert_eq!(guest.name.as_deref(), Some("web"));
        assert_eq!(guest.order, Some(2));
        assert!(guest.onboot && !guest.template);
        assert_eq!(guest.tags, ["prod", "web"]);
        assert_eq!(guest.lock.as_deref(), Some("backup"));
        let volumes: Vec<(&str, &str, Option<u64>, bool)> = guest
            .volumes
            .iter()
            .map(|v| {
                (
                    v.key.as_str(),
                    v.name.as_str(),
                    v.size.map(|s| s.0),
                    v.dumped,
                )
            })
            .collect();
        assert_eq!(
            volumes,
            [
                ("efidisk0", "vm-100-disk-1", Some(4 << 20), true),
                ("scsi0", "vm-100-disk-0", Some(32 << 30), true),
                ("unused0", "vm-100-disk-7", None, false),
                ("virtio3", "100/vm-100-disk-2.qcow2", Some(3 << 29), false),
            ]
        );
    }

    #[test]
    fn a_container_with_a_bind_mount() {
        let text = "arch: amd64\nhostname: db\nmp0: local-lvm:vm-101-disk-1,mp=/srv,backup=1,size=8G\nmp1: /mnt/data,mp=/data\nmp2: \
                    local-lvm:vm-101-disk-2,mp=/tmp,size=1G\nrootfs: local-lvm:vm-101-disk-0,size=4G\nstartup: 1\ntemplate: \
                    1\nunprivileged: 1\n";
        let guest = parse(101, Kind::Lxc, text);
        assert_eq!(guest.name.as_deref(), Some("db"));
        assert!(guest.unprivileged && guest.template);
        assert_eq!(guest.order, Some(1));
        let dumped: Vec<(&str, bool)> = guest
            .volumes
            .iter()
            .map(|v| (v.key.as_str(), v.dumped))
            .collect();
        assert_eq!(dumped, [("mp0", true), ("mp2", false), ("rootfs", true)]);
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("4M", Some(4 << 20)),
            ("528K", Some(528 << 10)),
            ("1.5T", Some(3 << 39)),
            ("100", Some(100)),
            ("", None),
            ("G", None),
            ("7X", None),
            ("99999999999T", None),
        ] {
            assert_eq!(size(text).map(|b| b.0), bytes, "{text}");
        }
    }
}
