//! Which disk, and which partition on it, a stick is: as udev and sysfs show it, without reading a byte of it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use layout::system::{BlockDevice, System};
use rescue_image::stick::{DATA_LABEL, DATA_TYPE};

use crate::output::Usage;

/// A stick that is plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The whole disk, `/dev/sdX`.
    pub disk: PathBuf,
    /// GUID of its data partition, lower case.
    pub guid: String,
    /// Serial number; empty where it has none.
    pub serial: String,
    /// What it is called.
    pub model: String,
    /// Whether it, or the port, is write-protected.
    pub read_only: bool,
    /// Other disks with the same partition.
    pub twins: Vec<PathBuf>,
    /// A name that stays the same, where udev gives it one.
    pub stable_name: Option<PathBuf>,
    /// Microseconds from the start of the machine to when udev had seen it.
    pub seen_after: Option<u64>,
}

impl Medium {
    /// The stick that is meant: by its disk, one of its partitions, or a link to these.
    pub fn find(sys: &dyn System, path: &Path) -> anyhow::Result<Medium> {
        let node = sys
            .canonicalize(path)
            .with_context(|| format!("cannot find the stick {}", path.display()))?;
        let all = sys.block_devices()?;
        let meant = all
            .iter()
            .find(|d| d.node == node)
            .with_context(|| format!("{} is no block device", path.display()))?;
        let disk_name = meant.parent.as_deref().unwrap_or(&meant.name);
        let disk = all
            .iter()
            .find(|d| d.name == disk_name)
            .with_context(|| format!("the disk {disk_name} is gone"))?;
        let own = |d: &&BlockDevice| d.parent.as_deref() == Some(disk_name) && is_data(d);
        let data = all.iter().find(own).ok_or_else(|| {
            Usage(format!(
                "{} is no Lifeboat stick: it has no partition of our type with an ext4 file system labelled {DATA_LABEL}",
                disk.node.display()
            ))
        })?;
        let guid = guid_of(data).unwrap_or_default();
        let ro = |name: &str| {
            let path = Path::new("/sys/class/block").join(name).join("ro");
            sys.text(&path).is_some_and(|t| t == "1")
        };
        let twins = all
            .iter()
            .filter(|d| d.parent.as_deref().is_some_and(|p| p != disk_name))
            .filter(|d| is_ours(d) && guid_of(d).as_ref() == Some(&guid))
            .map(|d| Path::new("/dev").join(d.parent.as_deref().unwrap_or(&d.name)));
        Ok(Medium {
            twins: twins.collect(),
            read_only: ro(&disk.name) || ro(&data.name),
            serial: serial(disk),
            model: model(disk),
            stable_name: stable_name(disk),
            seen_after: property(disk, "USEC_INITIALIZED").parse().ok(),
            disk: disk.node.clone(),
            guid,
        })
    }

    /// For people.
    pub fn describe(&self) -> String {
        let what = match (self.model.trim(), self.serial.as_str()) {
            ("", "") => "no serial number".to_owned(),
            ("", serial) => format!("serial {serial}"),
            (model, "") => model.to_owned(),
            (model, serial) => format!("{model}, serial {serial}"),
        };
        format!("{} ({what})", self.disk.display())
    }

    /// How a backup names it: as the configuration does, else by a name that no other disk gets meanwhile.
    pub fn target(&self, sys: &dyn System, targets: &[PathBuf]) -> PathBuf {
        let configured = targets.iter().find(|t| leads_to(sys, t, &self.disk));
        let by_guid = self.by_guid();
        let by_guid = sys.exists(&by_guid).then_some(&by_guid);
        // Cheap sticks of one model share a serial, and so a name.
        let stable_name = self.stable_name.as_ref();
        let stable_name = stable_name.filter(|name| leads_to(sys, name, &self.disk));
        configured
            .or(by_guid)
            .or(stable_name)
            .unwrap_or(&self.disk)
            .clone()
    }

    /// The link that `udev-rules/70-lifeboat.rules` makes.
    fn by_guid(&self) -> PathBuf {
        Path::new("/dev/lifeboat").join(&self.guid)
    }

    /// Whether the configuration names this very stick among the targets, by the GUID of its partition. Names of disks prove
    /// nothing: anybody can give a stick that vendor, model and serial, and get all that is secret on the host.
    pub fn is_configured(&self, targets: &[PathBuf]) -> bool {
        targets.contains(&self.by_guid())
    }
}

/// Serial number and model of a disk, whatever is on it.
pub fn names(sys: &dyn System, disk: &Path) -> anyhow::Result<(String, String)> {
    let node = sys.canonicalize(disk)?;
    let all = sys.block_devices()?;
    let found = all.iter().find(|d| d.node == node);
    found
        .map(|d| (serial(d), model(d)))
        .with_context(|| format!("udev does not know the disk {}", disk.display()))
}

fn serial(disk: &BlockDevice) -> String {
    property(disk, "ID_SERIAL_SHORT")
}

fn model(disk: &BlockDevice) -> String {
    property(disk, "ID_MODEL").replace('_', " ")
}

/// Whether a name leads to a disk.
fn leads_to(sys: &dyn System, name: &Path, disk: &Path) -> bool {
    name.starts_with("/dev") && sys.canonicalize(name).is_ok_and(|node| node == disk)
}

fn property(device: &BlockDevice, name: &str) -> String {
    device.properties.get(name).cloned().unwrap_or_default()
}

fn guid_of(device: &BlockDevice) -> Option<String> {
    let guid = device.properties.get("ID_PART_ENTRY_UUID")?;
    Some(guid.to_lowercase())
}

fn is_ours(device: &BlockDevice) -> bool {
    let kind = property(device, "ID_PART_ENTRY_TYPE");
    kind.eq_ignore_ascii_case(&DATA_TYPE.to_string())
}

/// As `udev-rules/70-lifeboat.rules` has it.
fn is_data(device: &BlockDevice) -> bool {
    is_ours(device)
        && property(device, "ID_FS_TYPE") == "ext4"
        && property(device, "ID_FS_LABEL") == DATA_LABEL
}

fn stable_name(disk: &BlockDevice) -> Option<PathBuf> {
    let links = property(disk, "DEVLINKS");
    let mut names: Vec<&str> = links
        .split_ascii_whitespace()
        .filter(|l| l.starts_with("/dev/disk/by-id/"))
        .collect();
    // The one that people know, with model and serial number.
    names.sort_by_key(|name| (!name.contains("/usb-"), name.len()));
    names.first().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::system::Recorded;

    const GUID: &str = "0b2c3d4e-1111-2222-3333-444455556666";

    fn device(name: &str, parent: Option<&str>, properties: &[(&str, &str)]) -> BlockDevice {
        BlockDevice {
            name: name.to_owned(),
            node: Path::new("/dev").join(name),
            parent: parent.map(str::to_owned),
            properties: properties
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        }
    }

    /// A machine with sticks of these disks and serial numbers, all with the same partitions.
    fn machine(sticks: &[(&str, &str)]) -> Recorded {
        let kind = DATA_TYPE.to_string();
        let mut sys = Recorded::new().device(device("sda", None, &[("ID_SERIAL_SHORT", "HOST")]));
        for (disk, serial) in sticks {
            let data = format!("{disk}3");
            let link = format!("/dev/disk/by-id/usb-Some_Stick_{serial}-0:0");
            let links = format!("/dev/disk/by-path/pci-1 {link}");
            sys = sys
                .device(device(
                    disk,
                    None,
                    &[
                        ("ID_SERIAL_SHORT", *serial),
                        ("ID_MODEL", "Some_Stick"),
                        ("DEVLINKS", &links),
                        ("USEC_INITIALIZED", "12000000"),
                    ],
                ))
                .device(device(
                    &data,
                    Some(disk),
                    &[
                        ("ID_PART_ENTRY_TYPE", &kind),
                        ("ID_PART_ENTRY_UUID", &GUID.to_uppercase()),
                        ("ID_FS_LABEL", DATA_LABEL),
                        ("ID_FS_TYPE", "ext4"),
                    ],
                ))
                .link(format!("/dev/{disk}"), format!("/dev/{disk}"))
                .link(format!("/dev/{data}"), format!("/dev/{data}"))
                .link(link, format!("/dev/{disk}"));
        }
        sys.link("/dev/sda", "/dev/sda")
            .link(format!("/dev/lifeboat/{GUID}"), "/dev/sdb3")
    }

    #[test]
    fn a_stick_by_disk_partition_and_link() {
        let sys = machine(&[("sdb", "S1")]).file("/sys/class/block/sdb/ro", "0\n");
        let by_disk = Medium::find(&sys, Path::new("/dev/sdb")).unwrap();
        assert_eq!(by_disk.guid, GUID);
        assert_eq!(
            (by_disk.serial.as_str(), by_disk.model.as_str()),
            ("S1", "Some Stick")
        );
        assert_eq!(by_disk.seen_after, Some(12_000_000));
        assert!(!by_disk.read_only && by_disk.twins.is_empty());
        let link = format!("/dev/lifeboat/{GUID}");
        for path in ["/dev/sdb3", &link] {
            assert_eq!(Medium::find(&sys, Path::new(path)).unwrap(), by_disk);
        }
        let error = Medium::find(&sys, Path::new("/dev/sda")).unwrap_err();
        assert_eq!(crate::output::error_code(&error), 2);
    }

    #[test]
    fn a_copy_beside_it_and_a_switch_on_it_are_seen() {
        let sys = machine(&[("sdb", "S1"), ("sdc", "S2")]).file("/sys/class/block/sdc3/ro", "1\n");
        let one = Medium::find(&sys, Path::new("/dev/sdb")).unwrap();
        assert_eq!(one.twins, [PathBuf::from("/dev/sdc")]);
        let two = Medium::find(&sys, Path::new("/dev/sdc")).unwrap();
        assert_eq!(two.twins, [PathBuf::from("/dev/sdb")]);
        assert!(two.read_only && !one.read_only);
    }

    #[test]
    fn names_that_stay_are_preferred_and_others_prove_nothing() {
        let sys = machine(&[("sdb", "S1")]);
        let stick = Medium::find(&sys, Path::new("/dev/sdb")).unwrap();
        let by_id = PathBuf::from("/dev/disk/by-id/usb-Some_Stick_S1-0:0");
        let by_name = [PathBuf::from("/mnt/a"), "/dev/sdb".into()];
        // A name that two sticks of one model may share comes last.
        let by_guid = PathBuf::from(format!("/dev/lifeboat/{GUID}"));
        assert_eq!(stick.target(&sys, &[]), by_guid);
        assert_eq!(stick.target(&sys, &by_name), by_name[1]);
        assert!(!stick.is_configured(&by_name));
        assert!(!stick.is_configured(&[by_id]));
        assert!(stick.is_configured(&[by_guid]));
    }
}
