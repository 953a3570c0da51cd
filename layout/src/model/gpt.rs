//! GUID partition tables.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::NodeId;
use crate::units::{Bytes, Lba, SectorSize};

/// Partition type GUIDs (UEFI specification 2.10, table 5.7, and the Discoverable Partitions Specification).
pub mod types {
    /// EFI system partition.
    pub const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
    /// BIOS boot: GRUB's core image.
    pub const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";
    /// Linux LVM.
    pub const LVM: &str = "e6d6d379-f507-44c2-a23c-238f2a3df928";
    /// Linux RAID.
    pub const RAID: &str = "a19d880f-05fc-4d3b-a006-743f0f84911e";
    /// Linux filesystem.
    pub const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
    /// Linux swap.
    pub const SWAP: &str = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f";
    /// Solaris /usr, which ZFS uses.
    pub const ZFS: &str = "6a898cc3-1dd2-11b2-99a6-080020736631";
}

/// The header of a GUID partition table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GptTable {
    /// Disk GUID, lower case with hyphens.
    pub disk_guid: String,
    /// First block that a partition may use.
    pub first_usable: Lba,
    /// Last block that a partition may use.
    pub last_usable: Lba,
    /// Number of entries in the table, usually 128.
    pub entries: u32,
}

/// A partition of a GPT or MBR disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// The disk.
    pub on: NodeId,
    /// Device node at capture time.
    pub device: PathBuf,
    /// Number, from 1; gaps are kept. On an MBR disk the logical partitions begin with 5.
    pub number: u32,
    /// Type: the GUID, lower case; on an MBR disk the number, as `0x83`.
    pub type_guid: String,
    /// Unique GUID, lower case; on an MBR disk `signature-NN`.
    pub partuuid: String,
    /// Name, up to 36 UTF-16 units; empty on an MBR disk.
    pub name: String,
    /// Attribute bits; on an MBR disk only [`super::ACTIVE`] is met.
    pub attributes: u64,
    /// First block.
    pub start: Lba,
    /// Last block, inclusive.
    pub end: Lba,
    /// The unit of `start` and `end`.
    pub sector_size: SectorSize,
}

impl Partition {
    /// The size in bytes.
    pub fn size(&self) -> Bytes {
        Lba(self.end.0.saturating_add(1).saturating_sub(self.start.0)).offset(self.sector_size)
    }
}
