//! Whole disks, and what is not supported.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{NodeId, Table};
use crate::units::{Bytes, SectorSize};

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Device node at capture time: for people only, it changes from boot to boot.
    pub device: PathBuf,
    /// Model as the disk reports it.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Capacity.
    pub size: Bytes,
    /// Logical sector: the unit of the partition table.
    pub sector_size: SectorSize,
    /// `nvme`, `ata`, `usb`, `virtio`...
    pub transport: Option<String>,
    /// Whether the medium can be taken out.
    pub removable: bool,
    /// The partition table; `None` when the disk has none (a filesystem directly on the disk, or empty).
    pub table: Option<Table>,
}

/// Something that this version cannot rebuild.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsupported {
    /// What it lies on.
    pub on: Vec<NodeId>,
    /// Device node at capture time.
    pub device: PathBuf,
    /// What it is: `linux_raid_member`, `crypto_LUKS`, `zfs_member`, `dos partition table`...
    pub what: String,
    /// Its size.
    pub size: Bytes,
    /// What that means for a restore, in words.
    pub meaning: String,
}
