//! The machine at hand: its disks, and in words what is on them now.

use std::collections::BTreeMap;
use std::io::{Read, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::capture::devices::Devices;
use crate::capture::disk::disk_facts;
use crate::capture::reach::reach;
use crate::capture::{CaptureError, boot, gpt, lvm, mbr, mount};
use crate::model::{Firmware, Layout, NodeId};
use crate::plan::{Choices, Mode, in_place};
use crate::system::{BlockDevice, ReadSeek, System};
use crate::units::{Bytes, Lba, SectorSize};

/// The machine at hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// How it was started.
    pub firmware: Firmware,
    /// Its disks, by device name.
    pub disks: Vec<InventoryDisk>,
    /// Main memory.
    pub memory: Bytes,
    /// A closer look, for what is done in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<Box<Present>>,
}

/// A closer look at the disks of the machine at hand. Nothing is started or mounted for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Present {
    /// The partition table of each disk that has one which can be read.
    pub tables: BTreeMap<PathBuf, FoundTable>,
    /// What is on the disks that take part.
    pub layout: Layout,
    /// What lies where the saved partitions were.
    pub regions: Vec<Region>,
    /// What would be overwritten by a partition table, by disk: a table of another kind, or something that takes the whole disk.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub in_the_way: BTreeMap<PathBuf, String>,
}

/// A partition table of a disk at hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundTable {
    /// GPT GUID or MBR signature.
    pub name: String,
    /// `false`: one of the two copies is damaged, or in the wrong place.
    pub whole: bool,
    /// Number, PARTUUID, first and last block of each partition.
    pub partitions: Vec<(u32, String, Lba, Lba)>,
}

/// A place of a saved partition on a disk at hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// The saved partition.
    pub partition: NodeId,
    /// The disk at hand.
    pub disk: PathBuf,
    /// Signature: `ext4`, `LVM2_member`...
    pub fstype: Option<String>,
    /// UUID of the signature.
    pub uuid: Option<String>,
    /// How much room it says that it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Bytes>,
    /// Why nothing is known.
    pub unreadable: Option<String>,
}

/// A disk of the machine at hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryDisk {
    /// Device node.
    pub device: PathBuf,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Capacity.
    pub size: Bytes,
    /// Logical sector.
    pub sector_size: SectorSize,
    /// Whether the medium can be taken out.
    pub removable: bool,
    /// `nvme`, `ata`, `usb`, `virtio`...
    pub transport: Option<String>,
    /// `SSD`, `hard disk`...: for people.
    pub media: Option<String>,
    /// Whether the kernel refuses writes.
    pub read_only: bool,
    /// What is on it now, in words.
    pub contents: Vec<String>,
    /// Names of the volume groups that have a physical volume on it.
    pub vgs: Vec<String>,
    /// Whether anything on it is mounted or swapped to.
    pub in_use: bool,
}

/// Bytes at either end of a disk that are looked at where no tool knows what is on it.
const LOOKED_AT: u64 = 1 << 20;

/// Lists the disks of the machine at hand.
pub fn inventory(sys: &dyn System) -> Result<Inventory, CaptureError> {
    let devices = Devices::new(sys)?;
    let lvm = lvm::report(sys)?;
    let mounted = mount::mounted(sys, Path::new("/"))?;
    let swaps = mount::active_swaps(sys);
    let look = Look {
        sys,
        devices: &devices,
        lvm: &lvm,
        mounted: &mounted,
        swaps: &swaps,
    };
    let mut disks: Vec<InventoryDisk> = devices.disks().map(|device| look.disk(device)).collect();
    disks.sort_by(|a, b| a.device.cmp(&b.device));
    Ok(Inventory {
        firmware: boot::firmware(sys),
        disks,
        memory: memory(sys),
        present: None,
    })
}

/// A directory that does not exist: nothing is mounted below it, so that disks are looked at as they are.
const NOWHERE: &str = "/run/lifeboat/nowhere";

/// Lists the disks, and looks closer where the mode needs to know what is on them now. Nothing is written.
pub fn inventory_for(
    sys: &dyn System,
    saved: &Layout,
    choices: &Choices,
) -> Result<Inventory, CaptureError> {
    let inventory = inventory(sys)?;
    look_closer(sys, inventory, saved, choices)
}

/// As [`inventory_for`], on the host itself: its disks as they will be when it is started from a stick.
pub fn inventory_at_rest(
    sys: &dyn System,
    saved: &Layout,
    choices: &Choices,
) -> Result<Inventory, CaptureError> {
    let mut inventory = inventory(sys)?;
    for disk in &mut inventory.disks {
        (disk.in_use, disk.read_only) = (false, false);
    }
    look_closer(sys, inventory, saved, choices)
}

fn look_closer(
    sys: &dyn System,
    mut inventory: Inventory,
    saved: &Layout,
    choices: &Choices,
) -> Result<Inventory, CaptureError> {
    if !choices.mode.is_in_place() {
        return Ok(inventory);
    }
    let firmware = inventory.firmware;
    let mut tables = BTreeMap::new();
    for disk in &inventory.disks {
        if let Some(table) = found_table(sys, disk) {
            tables.insert(disk.device.clone(), table);
        }
    }
    inventory.present = Some(Box::new(Present {
        tables,
        layout: Layout::new(firmware),
        regions: Vec::new(),
        in_the_way: BTreeMap::new(),
    }));
    // Without disks to work on the planner says why.
    let Ok(assigned) = in_place::assign(saved, &inventory, choices) else {
        return Ok(inventory);
    };
    let (mut regions, mut layout) = (Vec::new(), Layout::new(firmware));
    let mut in_the_way = BTreeMap::new();
    if choices.mode == Mode::TableRepair {
        let devices = Devices::new(sys)?;
        for disk in &assigned {
            let readable = |p: &Present| p.tables.contains_key(&disk.device);
            if !inventory.present.as_deref().is_some_and(readable) {
                let found = obstacle(&devices, &disk.device, saved, &disk.saved);
                in_the_way.extend(found.map(|what| (disk.device.clone(), what)));
            }
            for (id, part) in saved.partitions(&disk.saved) {
                let start = part.start.offset(part.sector_size);
                let probe = devices.probe_region(&disk.device, start, part.size());
                let reach = probe.fstype.as_deref().and_then(|kind| {
                    let mut file = sys.open(&disk.device).ok()?;
                    reach(file.as_mut(), start, kind)
                });
                regions.push(Region {
                    partition: id.clone(),
                    disk: disk.device.clone(),
                    fstype: probe.fstype,
                    uuid: probe.uuid,
                    reach,
                    unreadable: probe.unreadable,
                });
            }
        }
    } else {
        let disks: Vec<PathBuf> = assigned.iter().map(|d| d.device.clone()).collect();
        layout = crate::capture::capture_disks(sys, Path::new(NOWHERE), &disks)?;
    }
    if let Some(present) = &mut inventory.present {
        present.regions = regions;
        present.layout = layout;
        present.in_the_way = in_the_way;
    }
    Ok(inventory)
}

/// What a disk without a table that can be read has in the place of one. In front of the first partition there is nothing
/// but boot code; whatever takes the whole disk has its header there.
fn obstacle(devices: &Devices<'_>, disk: &Path, saved: &Layout, id: &NodeId) -> Option<String> {
    // A table that was lost leaves an MBR without partitions, or the one that protected a GPT.
    let lost = |kind: &String| matches!(kind.as_str(), "dos" | "PMBR");
    let other = devices.probe_now(disk).table.filter(|kind| !lost(kind));
    if let Some(kind) = other {
        return Some(format!(
            "a partition table ({kind}) that cannot be understood"
        ));
    }
    let parts = saved.partitions(id).into_iter();
    let first = parts.map(|(_, p)| p.start.offset(p.sector_size)).min()?;
    let front = devices.probe_region(disk, Bytes(0), first);
    let uuid = front
        .uuid
        .map(|uuid| format!(" {uuid}"))
        .unwrap_or_default();
    front
        .fstype
        .map(|kind| format!("{kind}{uuid}, which takes the whole disk"))
}

/// A disk's partition table; `None`: there is none that can be read.
fn found_table(sys: &dyn System, disk: &InventoryDisk) -> Option<FoundTable> {
    let found = |name: String, whole: bool, entries: Vec<gpt::Entry>| FoundTable {
        name,
        whole,
        partitions: entries
            .into_iter()
            .map(|e| (e.number, e.partuuid, e.start, e.end))
            .collect(),
    };
    let mut file = sys.open(&disk.device).ok()?;
    if let Ok(table) = gpt::read(file.as_mut(), disk.sector_size) {
        return Some(found(table.disk_guid, table.both_headers, table.partitions));
    }
    let table = mbr::read(file.as_mut(), disk.sector_size).ok()?;
    (!table.partitions.is_empty()).then(|| found(table.signature, true, table.partitions))
}

fn memory(sys: &dyn System) -> Bytes {
    let text = sys.text(Path::new("/proc/meminfo")).unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    Bytes(kib.unwrap_or(0).saturating_mul(1024))
}

/// What [`InventoryDisk::contents`] says of a device in a ZFS pool.
pub(crate) fn pool_words(pool: &str) -> String {
    format!("member of ZFS pool '{pool}'")
}

struct Look<'a> {
    sys: &'a dyn System,
    devices: &'a Devices<'a>,
    lvm: &'a lvm::Report,
    mounted: &'a [mount::Mounted],
    swaps: &'a [PathBuf],
}

impl Look<'_> {
    fn disk(&self, device: &BlockDevice) -> InventoryDisk {
        let facts = disk_facts(self.devices, device);
        // block-utils matches devices loosely: what it says is shown, and identifies nothing.
        let shown = self.sys.disk_facts(&device.node);
        let mut contents = Vec::new();
        let mut vgs = Vec::new();
        let parts: Vec<&BlockDevice> = self.devices.partitions(&device.name).collect();
        let probe = self.devices.probe(device);
        if let Some(table) = &probe.table {
            let name = match table.as_str() {
                "gpt" => "GPT".to_owned(),
                "dos" => "MBR".to_owned(),
                _ => format!("{table} partition table"),
            };
            let plural = if parts.len() == 1 { "" } else { "s" };
            contents.push(format!("{name}, {} partition{plural}", parts.len()));
        }
        for part in std::iter::once(device).chain(parts.iter().copied()) {
            contents.extend(self.content(part, &mut vgs));
        }
        vgs.sort();
        vgs.dedup();
        // A damaged partition table, or encryption without a header, is not nothing.
        if contents.is_empty() {
            contents.extend(self.unknown_data(device));
        }
        InventoryDisk {
            device: device.node.clone(),
            model: facts.model,
            serial: facts.serial,
            wwn: facts.wwn,
            size: self.devices.size(device),
            sector_size: self.devices.sector_size(device),
            removable: facts.removable,
            transport: facts.transport,
            media: shown.media,
            read_only: self.devices.sysfs(device, "ro").as_deref() == Some("1"),
            contents,
            vgs,
            in_use: self.in_use(device) || parts.iter().any(|part| self.in_use(part)),
        }
    }

    /// What is at the ends of a disk where no tool knows anything; `None`: nothing but zeros. Not to know is not nothing.
    fn unknown_data(&self, device: &BlockDevice) -> Option<String> {
        let zeros = |file: &mut dyn ReadSeek, at: SeekFrom| -> std::io::Result<bool> {
            let mut bytes = Vec::new();
            file.seek(at)?;
            file.take(LOOKED_AT).read_to_end(&mut bytes)?;
            Ok(bytes.iter().all(|byte| *byte == 0))
        };
        let Ok(mut file) = self.sys.open(&device.node) else {
            return Some("cannot be read".to_owned());
        };
        let size = self.devices.size(device).0;
        // The backup of a partition table, and the labels of arrays and pools, are at the end.
        for at in [0, size.saturating_sub(LOOKED_AT)] {
            match zeros(file.as_mut(), SeekFrom::Start(at)) {
                Ok(true) => {}
                Ok(false) => return Some("data of an unknown kind".to_owned()),
                Err(error) => return Some(format!("cannot be read: {error}")),
            }
        }
        None
    }

    fn content(&self, device: &BlockDevice, vgs: &mut Vec<String>) -> Option<String> {
        let probe = self.devices.probe(device);
        if let Some(reason) = probe.unreadable {
            let mounted = self.mounted.iter().find(|m| self.is(device, m));
            return Some(match mounted {
                Some(m) => format!("{} mounted at {}", m.fstype, m.mount_point.display()),
                None => format!(
                    "cannot be read: {}",
                    reason.lines().last().unwrap_or_default()
                ),
            });
        }
        let fstype = probe.fstype?;
        if fstype == "LVM2_member" {
            let vg = self.lvm.pvs.iter().find(|row| {
                self.devices
                    .by_node(Path::new(row.text("pv_name")))
                    .is_some_and(|d| d.name == device.name)
            });
            return Some(
                match vg
                    .map(|row| row.text("vg_name"))
                    .filter(|name| !name.is_empty())
                {
                    Some(name) => {
                        vgs.push(name.to_owned());
                        format!("LVM PV of VG {name}")
                    }
                    None => "LVM PV".to_owned(),
                },
            );
        }
        let probe_label = probe.label.clone();
        let label = probe
            .label
            .map(|label| format!(" '{label}'"))
            .unwrap_or_default();
        if fstype == "linux_raid_member" {
            // The label of a member is the name of its array.
            return Some(format!("member of RAID array{label}"));
        }
        if let ("zfs_member", Some(pool)) = (fstype.as_str(), &probe_label) {
            return Some(pool_words(pool));
        }
        let at = self.mounted.iter().find(|m| self.is(device, m));
        let at = at
            .map(|m| format!(" mounted at {}", m.mount_point.display()))
            .unwrap_or_default();
        Some(format!("{fstype}{label}{at}"))
    }

    /// Whether it is what is mounted there. btrfs has numbers of its own: its device is found by name.
    fn is(&self, device: &BlockDevice, mounted: &mount::Mounted) -> bool {
        let source = Path::new(&mounted.source);
        self.devices
            .by_number(&mounted.major_minor)
            .or_else(|| {
                self.devices
                    .by_node(source)
                    .filter(|_| source.starts_with("/dev"))
            })
            .is_some_and(|d| d.name == device.name)
    }

    /// Mounted, swapped to, or below something that is.
    fn in_use(&self, device: &BlockDevice) -> bool {
        self.mounted.iter().any(|m| self.is(device, m))
            || self.swaps.iter().any(|path| {
                self.devices
                    .by_node(path)
                    .is_some_and(|d| d.name == device.name)
            })
            || self.devices.holders(device).iter().any(|name| {
                self.devices
                    .list
                    .iter()
                    .find(|d| d.name == *name)
                    .is_some_and(|holder| self.in_use(holder))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{Image, Recorded};

    /// What is said of a disk of 8 MiB that no tool knows anything of; `None`: it cannot be opened.
    fn contents(image: Option<Image>) -> Vec<String> {
        let mut sys = Recorded::new()
            .device(BlockDevice {
                name: "sda".to_owned(),
                node: "/dev/sda".into(),
                ..BlockDevice::default()
            })
            .file("/proc/self/mountinfo", "22 1 0:20 / / rw - tmpfs none rw\n")
            .file("/sys/class/block/sda/size", "16384")
            .command("blkid -p -o udev /dev/sda", "");
        sys.images
            .extend(image.map(|image| ("/dev/sda".into(), image)));
        inventory(&sys).unwrap().disks.remove(0).contents
    }

    #[test]
    fn a_disk_is_blank_only_when_zeros_are_read_at_both_ends() {
        let image = |at: Option<u64>| {
            let mut image = Image {
                size: 8 << 20,
                ..Image::default()
            };
            if let Some(at) = at {
                image.set(at, b"x");
            }
            Some(image)
        };
        assert!(contents(image(None)).is_empty());
        for at in [0, (1 << 20) - 1, 7 << 20, (8 << 20) - 1] {
            assert_eq!(
                contents(image(Some(at))),
                ["data of an unknown kind"],
                "{at}"
            );
        }
        assert_eq!(contents(None), ["cannot be read"]);
    }

    #[test]
    fn what_a_table_would_overwrite_is_found() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../vm-tests/layouts/pve-ext4-lvm.json"
        );
        let case: serde_json::Value =
            serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let saved = Layout::from_value(case["layout"].clone()).unwrap();
        let (id, _) = saved.disks().next().unwrap();
        let first = saved.partitions(id)[0].1;
        let first = first.start.offset(first.sector_size).0;
        let found = |whole: &str, front: &str| {
            let sys = Recorded::new()
                .command("blkid -p -o udev /dev/sda", whole)
                .command(&format!("blkid -p -o udev -O 0 -S {first} /dev/sda"), front);
            let devices = Devices::new(&sys).unwrap();
            obstacle(&devices, Path::new("/dev/sda"), &saved, id)
        };
        for lost in ["", "ID_PART_TABLE_TYPE=PMBR\n", "ID_PART_TABLE_TYPE=dos\n"] {
            assert_eq!(found(lost, lost), None);
            // What is seen of the whole disk only may be a part of its last partition.
            assert_eq!(found(&format!("{lost}ID_FS_TYPE=zfs_member\n"), lost), None);
        }
        let text = found("ID_PART_TABLE_TYPE=gpt\n", "").unwrap();
        assert!(text.contains("(gpt)"), "{text}");
        let text = found("", "ID_FS_TYPE=LVM2_member\nID_FS_UUID_ENC=a-b\n").unwrap();
        assert!(text.starts_with("LVM2_member a-b"), "{text}");
    }

    #[test]
    fn a_mounted_btrfs_is_in_use() {
        let device = |name: &str| BlockDevice {
            name: name.to_owned(),
            node: Path::new("/dev").join(name),
            ..BlockDevice::default()
        };
        let mut sys = Recorded::new().file(
            "/proc/self/mountinfo",
            "22 1 0:20 / / rw - tmpfs sdb rw\n30 22 0:45 / /mnt rw - btrfs /dev/sda rw\n",
        );
        for name in ["sda", "sdb"] {
            sys = sys
                .device(device(name))
                .file(format!("/sys/class/block/{name}/size"), "2048");
        }
        let disks = inventory(&sys).unwrap().disks;
        assert!(disks[0].in_use && !disks[1].in_use, "{disks:?}");
    }
}
