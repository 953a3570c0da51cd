//! Disks and partitions.

use super::devices::Probe;
use super::{Capture, CaptureError, gpt, mbr};
use crate::model::{Disk, Ext4, Node, NodeId, Partition, Swap, Table};
use crate::system::BlockDevice;
use crate::units::{Bytes, SectorSize};

/// What identifies a disk, its table, its partitions.
type Found = (String, Table, Vec<gpt::Entry>);

impl Capture<'_> {
    /// Adds a disk and everything on it up to LVM.
    pub(super) fn disk(&mut self, device: &BlockDevice) -> Result<(), CaptureError> {
        let facts = disk_facts(self.devices, device);
        let mut disk = Disk {
            device: device.node.clone(),
            model: facts.model,
            serial: facts.serial,
            wwn: facts.wwn,
            size: self.devices.size(device),
            sector_size: self.devices.sector_size(device),
            transport: facts.transport,
            removable: facts.removable,
            table: None,
        };
        let probe = self.devices.probe(device);
        // Cheap sticks and virtual disks share serial numbers.
        let serial = disk
            .serial
            .clone()
            .filter(|s| !self.layout.nodes.contains_key(&NodeId::disk(s)));
        let key = serial.unwrap_or_else(|| device.name.clone());
        // A mirror of whole disks shows the table that is on the array on each of them.
        let member = probe.fstype.as_deref() == Some("linux_raid_member");
        // Some FAT boot sectors look like an MBR; with partitions it is one.
        let is_table =
            probe.fstype.is_none() || self.devices.partitions(&device.name).next().is_some();
        let is_mbr = is_table && probe.table.as_deref() == Some("dos");
        let sector = disk.sector_size;
        let read = match probe.table.as_deref().filter(|_| !member) {
            Some("gpt") => Some(self.gpt_table(device, sector)),
            Some("dos") if is_mbr => Some(self.mbr_table(device, sector)),
            _ => None,
        };
        match read {
            Some(Ok((name, table, entries))) => {
                let id = NodeId::disk(&name);
                if self.layout.nodes.contains_key(&id) {
                    let on = NodeId::disk(&key);
                    self.layout.nodes.insert(on.clone(), Node::Disk(disk));
                    self.unsupported(device, vec![on], "copied partition table", "the disk has the GUID or signature of another disk, as after cloning: it is not restored");
                    return Ok(());
                }
                disk.table = Some(table);
                self.layout.nodes.insert(id.clone(), Node::Disk(disk));
                return self.partitions(device, &id, entries, sector);
            }
            Some(Err(reason)) => {
                let id = NodeId::disk(&key);
                self.layout.nodes.insert(id.clone(), Node::Disk(disk));
                let meaning = format!(
                    "the partition table cannot be read ({reason}): the disk is not restored"
                );
                let what = if is_mbr {
                    "MBR"
                } else {
                    "GUID partition table"
                };
                self.unsupported(device, vec![id], what, &meaning);
                return Ok(());
            }
            None => {}
        }
        let id = NodeId::disk(&key);
        self.layout.nodes.insert(id.clone(), Node::Disk(disk));
        if let Some(table) = probe.table.as_ref().filter(|_| !member) {
            if is_table {
                let what = format!("{table} partition table");
                let meaning = "only GUID and MBR partition tables are supported: the disk's partitions are not restored";
                self.unsupported(device, vec![id], &what, meaning);
                return Ok(());
            }
        }
        self.content(device, &id)?;
        Ok(())
    }

    /// The GPT of a disk: its GUID, the header, the partitions.
    fn gpt_table(&mut self, device: &BlockDevice, sector: SectorSize) -> Result<Found, String> {
        let mut file = self.sys.open(&device.node).map_err(|e| e.to_string())?;
        let table = gpt::read(file.as_mut(), sector)?;
        if !table.both_headers {
            self.layout.warnings.push(format!(
                "{}: one of the two copies of the partition table is damaged or in the wrong place",
                device.node.display()
            ));
        }
        let header = Table::Gpt(table.header());
        Ok((table.disk_guid, header, table.partitions))
    }

    /// The MBR of a disk: its signature, the header, the partitions.
    fn mbr_table(&mut self, device: &BlockDevice, sector: SectorSize) -> Result<Found, String> {
        let mut file = self.sys.open(&device.node).map_err(|e| e.to_string())?;
        let table = mbr::read(file.as_mut(), sector)?;
        let header = Table::Mbr(table.header());
        Ok((table.signature, header, table.partitions))
    }

    fn partitions(
        &mut self,
        disk: &BlockDevice,
        on: &NodeId,
        entries: Vec<gpt::Entry>,
        sector_size: SectorSize,
    ) -> Result<(), CaptureError> {
        self.nested(disk, &entries);
        for entry in entries {
            let device = self
                .devices
                .partitions(&disk.name)
                .find(|d| {
                    self.devices.sysfs(d, "partition").as_deref() == Some(&entry.number.to_string())
                })
                .cloned();
            let id = NodeId::partition(&entry.partuuid);
            let node = device.as_ref().map_or_else(
                || crate::plan::partition_path(&disk.node, entry.number),
                |d| d.node.clone(),
            );
            if self.layout.nodes.contains_key(&id) {
                self.layout.warnings.push(format!(
                    "{}: another partition has the same PARTUUID: it is not restored",
                    node.display()
                ));
                continue;
            }
            let part = Partition {
                on: on.clone(),
                device: node.clone(),
                number: entry.number,
                type_guid: entry.type_guid,
                partuuid: entry.partuuid,
                name: entry.name,
                attributes: entry.attributes,
                start: entry.start,
                end: entry.end,
                sector_size,
            };
            let extended = part.is_extended();
            self.layout.nodes.insert(id.clone(), Node::Partition(part));
            match &device {
                // It holds the logical partitions, which are entries of their own.
                _ if extended => {}
                Some(device) => {
                    self.content(device, &id)?;
                }
                None => self.layout.warnings.push(format!(
                    "partition {} of {} is in the table but the kernel does not know it: its contents are not looked at",
                    entry.number,
                    disk.node.display()
                )),
            }
        }
        Ok(())
    }

    /// Names the partitions that the kernel found inside of others: slices of BSD, Solaris, Minix.
    fn nested(&mut self, disk: &BlockDevice, entries: &[gpt::Entry]) {
        for device in self.devices.partitions(&disk.name) {
            let number = self.devices.sysfs(device, "partition");
            if entries
                .iter()
                .any(|e| number.as_deref() == Some(&e.number.to_string()))
            {
                continue;
            }
            self.layout.warnings.push(format!(
                "{} comes from a partition table inside of another partition, which is not supported: what is on it is \
                 kept with the image of that partition at best",
                device.node.display()
            ));
        }
    }

    /// What is known of a device that cannot be opened: as much as the kernel tells about a mounted filesystem.
    pub(super) fn content_unreadable(
        &mut self,
        device: &BlockDevice,
        on: &NodeId,
        reason: &str,
    ) -> bool {
        let path = device.node.display();
        let number = |m: &&super::Mounted| {
            self.devices
                .by_number(&m.major_minor)
                .is_some_and(|d| d.name == device.name)
        };
        let Some(mounted) = self
            .mounted
            .iter()
            .find(|m| number(m) && m.subtree == "/")
            .cloned()
        else {
            self.layout.warnings.push(format!(
                "{path} cannot be read: what is on it is not known ({reason})"
            ));
            return false;
        };
        let at = self.root.join(
            mounted
                .mount_point
                .strip_prefix("/")
                .unwrap_or(&mounted.mount_point),
        );
        let uuid = self.sys.mounted_uuid(&at);
        let (Some(uuid), "ext2" | "ext3" | "ext4") = (uuid, mounted.fstype.as_str()) else {
            let meaning = format!(
                "the device cannot be read, and the kernel does not tell enough about the filesystem: {reason}"
            );
            self.unsupported(device, vec![on.clone()], &mounted.fstype, &meaning);
            return true;
        };
        self.layout.warnings.push(format!(
            "{path} cannot be read ({reason}): the {} filesystem's features are not known, a restore makes it with defaults",
            mounted.fstype
        ));
        let usage = self.sys.usage(&at).ok();
        self.layout.nodes.insert(
            NodeId::fs(&uuid),
            Node::Ext4(Ext4 {
                on: on.clone(),
                fstype: mounted.fstype,
                uuid,
                label: None,
                block_size: Bytes(0),
                cluster_size: None,
                inode_size: Bytes(0),
                inodes: 0,
                features: Vec::new(),
                default_options: Vec::new(),
                reserved_blocks: 0,
                // The bitmaps and inode tables are not in statvfs: the device is the upper bound.
                size: self.devices.size(device),
                used: usage.map(|u| u.used),
                inodes_used: None,
            }),
        );
        true
    }

    pub(super) fn swap(&self, device: &BlockDevice, on: &NodeId, probe: &Probe) -> Swap {
        let active = super::mount::active_swaps(self.sys).iter().any(|path| {
            self.devices
                .by_node(path)
                .is_some_and(|d| d.name == device.name)
        });
        let (page_size, size) =
            swap_header(self.sys, device).unwrap_or((Bytes(4096), self.devices.size(device)));
        Swap {
            on: on.clone(),
            uuid: probe.uuid.clone().unwrap_or_else(|| device.name.clone()),
            label: probe.label.clone(),
            page_size,
            size,
            active,
            fstab: None,
        }
    }
}

/// Page size and usable size from `union swap_header` (kernel: include/linux/swap.h): the signature ends the first page, the
/// last page's number is at byte 1028.
fn swap_header(sys: &dyn crate::system::System, device: &BlockDevice) -> Option<(Bytes, Bytes)> {
    use std::io::Read;
    let mut head = Vec::new();
    sys.open(&device.node)
        .ok()?
        .take(65536)
        .read_to_end(&mut head)
        .ok()?;
    let page = [4096usize, 8192, 16384, 32768, 65536]
        .into_iter()
        .find(|page| head.get(page - 10..*page) == Some(b"SWAPSPACE2"))?;
    let last = u32::from_le_bytes(head.get(1028..1032)?.try_into().ok()?);
    Some((Bytes(page as u64), Bytes(u64::from(last) * page as u64)))
}

/// Identity of a disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DiskFacts {
    pub model: Option<String>,
    pub serial: Option<String>,
    pub wwn: Option<String>,
    pub transport: Option<String>,
    pub removable: bool,
}

/// From udev's properties, else from sysfs.
pub(crate) fn disk_facts(devices: &super::Devices<'_>, device: &BlockDevice) -> DiskFacts {
    let udev = |name: &str| {
        device
            .properties
            .get(name)
            .filter(|v| !v.is_empty())
            .cloned()
    };
    let sysfs = |file: &str| devices.sysfs(device, file);
    let transport = udev("ID_BUS").or_else(|| {
        [
            ("nvme", "nvme"),
            ("vd", "virtio"),
            ("mmcblk", "mmc"),
            ("ubd", "uml"),
        ]
        .iter()
        .find(|(prefix, _)| device.name.starts_with(prefix))
        .map(|(_, bus)| (*bus).to_owned())
    });
    DiskFacts {
        model: udev("ID_MODEL_ENC")
            .map(|m| super::devices::unescape(&m).trim().to_owned())
            .or_else(|| udev("ID_MODEL"))
            .or_else(|| sysfs("device/model")),
        // Mass storage behind USB bridges reports its own serial as ID_SERIAL_SHORT; SCSI disks have ID_SCSI_SERIAL.
        serial: udev("ID_SCSI_SERIAL")
            .or_else(|| udev("ID_SERIAL_SHORT"))
            .or_else(|| sysfs("device/serial"))
            .or_else(|| sysfs("serial"))
            .or_else(|| udev("ID_SERIAL")),
        wwn: udev("ID_WWN_WITH_EXTENSION")
            .or_else(|| udev("ID_WWN"))
            .or_else(|| sysfs("wwid"))
            .or_else(|| sysfs("device/wwid"))
            .map(|w| w.trim().to_owned()),
        transport,
        removable: sysfs("removable").as_deref() == Some("1"),
    }
}
