//! Block devices and what the low-level probe says is on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::CaptureError;
use crate::system::{BlockDevice, Cmd, System};
use crate::units::{Bytes, SectorSize};

/// Kernel names that are never part of a host's layout: memory, loops, optical and network drives, and the block devices
/// of guests (zd: zvols, rbd, nbd, drbd).
const IGNORED: [&str; 10] = [
    "loop", "ram", "zram", "sr", "fd", "zd", "rbd", "nbd", "drbd", "mtdblock",
];

/// What a device is signed as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Probe {
    /// `ext4`, `LVM2_member`...
    pub fstype: Option<String>,
    pub uuid: Option<String>,
    pub label: Option<String>,
    /// `FAT32`, `1.0`...
    pub version: Option<String>,
    /// `gpt`, `dos`...
    pub table: Option<String>,
    /// Why nothing is known; `None` when the device could be read.
    pub unreadable: Option<String>,
}

/// The type of what has signatures of several kinds.
pub(crate) const AMBIGUOUS: &str = "ambiguous";

/// The machine's block devices and a cache of probes.
pub(crate) struct Devices<'a> {
    pub sys: &'a dyn System,
    pub list: Vec<BlockDevice>,
    /// Disks to look at; `None`: all.
    pub only: Option<Vec<PathBuf>>,
}

fn is_ignored(name: &str) -> bool {
    IGNORED.iter().any(|prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.chars().next().is_none_or(|c| c.is_ascii_digit()))
    })
}

impl<'a> Devices<'a> {
    pub fn new(sys: &'a dyn System) -> Result<Devices<'a>, CaptureError> {
        let mut list = sys.block_devices()?;
        list.retain(|d| !is_ignored(d.parent.as_deref().unwrap_or(&d.name)));
        Ok(Devices {
            sys,
            list,
            only: None,
        })
    }

    /// Whole disks, without what is made of others, without empty card readers.
    pub fn disks(&self) -> impl Iterator<Item = &BlockDevice> {
        self.list.iter().filter(|d| {
            d.parent.is_none()
                && !is_virtual(&d.name)
                && !self.is_multipath_component(d)
                && self.size(d).0 > 0
                && self.only.as_ref().is_none_or(|only| only.contains(&d.node))
        })
    }

    /// Arrays, device-mapper and bcache devices.
    pub fn virtuals(&self) -> impl Iterator<Item = &BlockDevice> {
        self.list
            .iter()
            .filter(|d| d.parent.is_none() && is_virtual(&d.name))
    }

    fn is_multipath_component(&self, device: &BlockDevice) -> bool {
        // NVMe namespaces behind native multipath appear as nvme0c0n1 too.
        device
            .properties
            .get("DM_MULTIPATH_DEVICE_PATH")
            .is_some_and(|v| v == "1")
            || (device.name.starts_with("nvme") && device.name.matches('c').count() == 1)
    }

    pub fn partitions(&self, disk: &str) -> impl Iterator<Item = &BlockDevice> {
        let disk = disk.to_owned();
        self.list
            .iter()
            .filter(move |d| d.parent.as_deref() == Some(&disk))
    }

    pub fn by_node(&self, node: &Path) -> Option<&BlockDevice> {
        let real = self
            .sys
            .canonicalize(node)
            .unwrap_or_else(|_| node.to_owned());
        self.list.iter().find(|d| d.node == real || d.node == node)
    }

    pub fn by_number(&self, major_minor: &str) -> Option<&BlockDevice> {
        self.list.iter().find(|d| {
            let number = match (d.properties.get("MAJOR"), d.properties.get("MINOR")) {
                (Some(major), Some(minor)) => format!("{major}:{minor}"),
                _ => self.sysfs(d, "dev").unwrap_or_default(),
            };
            number == major_minor
        })
    }

    /// A file below `/sys/class/block/<name>`; empty is none.
    pub fn sysfs(&self, device: &BlockDevice, file: &str) -> Option<String> {
        let path = PathBuf::from("/sys/class/block")
            .join(&device.name)
            .join(file);
        // Some drivers print a missing string as the kernel's printf does.
        self.sys
            .text(&path)
            .filter(|text| !text.is_empty() && text != "(null)")
    }

    pub fn size(&self, device: &BlockDevice) -> Bytes {
        // sysfs counts in 512 bytes, whatever the sector size is.
        Bytes(
            self.sysfs(device, "size")
                .and_then(|s| s.parse::<u64>().ok())
                .unwrap_or(0)
                .saturating_mul(512),
        )
    }

    pub fn sector_size(&self, device: &BlockDevice) -> SectorSize {
        let text = self.sysfs(device, "queue/logical_block_size");
        SectorSize(text.and_then(|s| s.parse().ok()).unwrap_or(512))
    }

    /// Devices that lie on this one, by kernel name.
    pub fn holders(&self, device: &BlockDevice) -> Vec<String> {
        self.sys
            .list_dir(
                &PathBuf::from("/sys/class/block")
                    .join(&device.name)
                    .join("holders"),
            )
            .unwrap_or_default()
    }

    /// These disks with their partitions, and what lies on them except for LVM's own.
    pub fn stack(&self, disks: &[PathBuf]) -> Vec<PathBuf> {
        let mut found: Vec<&BlockDevice> = self
            .list
            .iter()
            .filter(|d| disks.contains(&d.node))
            .collect();
        let mut at = 0;
        while let Some(device) = found.get(at).copied() {
            at += 1;
            let holders = self.holders(device);
            let above = self.list.iter().filter(|d| {
                let lvm = self
                    .sysfs(d, "dm/uuid")
                    .is_some_and(|uuid| uuid.starts_with("LVM-"));
                d.parent.as_ref() == Some(&device.name) || (holders.contains(&d.name) && !lvm)
            });
            let new: Vec<&BlockDevice> = above
                .filter(|d| !found.iter().any(|f| f.name == d.name))
                .collect();
            found.extend(new);
        }
        found.into_iter().map(|d| d.node.clone()).collect()
    }

    /// Devices that this one lies on, by kernel name.
    pub fn slaves(&self, device: &BlockDevice) -> Vec<String> {
        self.sys
            .list_dir(
                &PathBuf::from("/sys/class/block")
                    .join(&device.name)
                    .join("slaves"),
            )
            .unwrap_or_default()
    }

    /// What is on a device: udev's answer, else the probe of the device itself.
    pub fn probe(&self, device: &BlockDevice) -> Probe {
        let udev = &device.properties;
        // A partition inherits this from its disk (systemd: rules.d/60-persistent-storage.rules), so that it says nothing there.
        let table = device.parent.is_none() && udev.contains_key("ID_PART_TABLE_TYPE");
        // What was just made is looked at itself: udev may not have come to it yet.
        if self.only.is_none() && (table || udev.contains_key("ID_FS_TYPE")) {
            return Probe {
                fstype: udev.get("ID_FS_TYPE").cloned(),
                // Outside the _ENC form udev replaces characters that are unsafe in file names.
                uuid: udev
                    .get("ID_FS_UUID_ENC")
                    .map(|s| unescape(s))
                    .or_else(|| udev.get("ID_FS_UUID").cloned()),
                label: udev
                    .get("ID_FS_LABEL_ENC")
                    .map(|s| unescape(s))
                    .or_else(|| udev.get("ID_FS_LABEL").cloned()),
                version: udev.get("ID_FS_VERSION").cloned(),
                table: table
                    .then(|| udev.get("ID_PART_TABLE_TYPE").cloned())
                    .flatten(),
                unreadable: None,
            };
        }
        self.probe_now(&device.node)
    }

    /// Reads the signatures, not udev's memory of them.
    pub fn probe_now(&self, node: &Path) -> Probe {
        let command = Cmd::new("blkid").args(["-p", "-o", "udev"]);
        self.probe_by(command.path(node))
    }

    /// Reads the signatures of a part of a device.
    pub fn probe_region(&self, node: &Path, start: Bytes, size: Bytes) -> Probe {
        let command = Cmd::new("blkid").args(["-p", "-o", "udev"]).args([
            "-O".to_owned(),
            start.0.to_string(),
            "-S".to_owned(),
            size.0.to_string(),
        ]);
        self.probe_by(command.path(node))
    }

    fn probe_by(&self, command: Cmd) -> Probe {
        // Status 2: nothing found; 8: ambivalent, several signatures.
        match self.sys.run(&command.accept(2).accept(8)) {
            Ok(output) if output.status == 8 => Probe {
                fstype: Some(AMBIGUOUS.to_owned()),
                ..Probe::default()
            },
            // Status 2 is also what an unreadable device gives; then there is a message.
            Ok(output) if output.status == 2 && !output.stderr.is_empty() => Probe {
                unreadable: Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                ..Probe::default()
            },
            Ok(output) => parse_blkid(&output.text()),
            Err(error) => Probe {
                unreadable: Some(error.to_string()),
                ..Probe::default()
            },
        }
    }
}

fn find(sys: &dyn System, node: &Path) -> Result<BlockDevice, CaptureError> {
    let devices = Devices::new(sys)?;
    devices
        .by_node(node)
        .cloned()
        .ok_or_else(|| CaptureError::parse(node.display().to_string(), "no such block device"))
}

/// The size of a block device.
pub(crate) fn size_of(sys: &dyn System, node: &Path) -> Result<Bytes, CaptureError> {
    let device = find(sys, node)?;
    Ok(Devices {
        sys,
        list: Vec::new(),
        only: None,
    }
    .size(&device))
}

/// The logical sector size of a block device; a partition has that of its disk.
pub(crate) fn sector_size_of(sys: &dyn System, node: &Path) -> Result<SectorSize, CaptureError> {
    let device = find(sys, node)?;
    let disk = BlockDevice {
        name: device.parent.clone().unwrap_or_else(|| device.name.clone()),
        ..device
    };
    Ok(Devices {
        sys,
        list: Vec::new(),
        only: None,
    }
    .sector_size(&disk))
}

/// What the kernel makes of other devices.
fn is_virtual(name: &str) -> bool {
    let bcache = name
        .strip_prefix("bcache")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    name.starts_with("dm-") || is_md(name) || bcache
}

fn is_md(name: &str) -> bool {
    name.strip_prefix("md")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '_'))
}

/// Parses `blkid -p -o udev`.
pub(crate) fn parse_blkid(text: &str) -> Probe {
    let map: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .collect();
    let get = |key: &str| {
        map.get(key)
            .filter(|v| !v.is_empty())
            .map(|v| (*v).to_owned())
    };
    Probe {
        fstype: get("ID_FS_TYPE"),
        uuid: get("ID_FS_UUID_ENC").map(|s| unescape(&s)),
        label: get("ID_FS_LABEL_ENC").map(|s| unescape(&s)),
        version: get("ID_FS_VERSION"),
        table: get("ID_PART_TABLE_TYPE"),
        unreadable: None,
    }
}

/// Decodes `\x20` as udev and blkid write it.
pub(crate) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let raw = text.as_bytes();
    let mut i = 0;
    while i < raw.len() {
        let code = (raw[i] == b'\\' && raw.get(i + 1) == Some(&b'x'))
            .then(|| raw.get(i + 2..i + 4))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                i += 4;
            }
            None => {
                bytes.push(raw[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_guest_devices_are_no_disks() {
        for name in ["loop0", "zram0", "ram3", "sr0", "zd16", "nbd4", "rbd0"] {
            assert!(is_ignored(name), "{name}");
        }
        for name in ["sda", "nvme0n1", "vda", "ubda", "sram"] {
            assert!(!is_ignored(name) && !is_virtual(name), "{name}");
        }
        for name in ["dm-0", "md127", "md_d0", "bcache0"] {
            assert!(is_virtual(name), "{name}");
        }
    }

    #[test]
    fn labels_come_back_unescaped() {
        let probe = parse_blkid(
            "ID_FS_LABEL=a_b\nID_FS_LABEL_ENC=a\\x20b\nID_FS_TYPE=ext4\nID_FS_UUID_ENC=x-y\n",
        );
        assert_eq!(probe.label.as_deref(), Some("a b"));
        assert_eq!(probe.fstype.as_deref(), Some("ext4"));
        assert_eq!(unescape("\\x"), "\\x");
    }
}
