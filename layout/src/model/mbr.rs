//! Master boot records: the partition tables of disks that were set up for BIOS.

use serde::{Deserialize, Serialize};

use super::{GptTable, Partition};
use crate::units::Lba;

/// The partition table of a disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Table {
    /// A GUID partition table.
    Gpt(GptTable),
    /// A master boot record.
    Mbr(MbrTable),
}

/// What a master boot record and the records of logical partitions say beside the partitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MbrTable {
    /// Disk signature as PARTUUIDs begin with it: eight lower-case hexadecimal digits.
    pub signature: String,
    /// Where the records of the logical partitions lie: first that of number 5.
    pub records: Vec<Lba>,
}

/// Types of partitions on MBR disks, as [`Partition::type_guid`] has them.
pub mod mbr_types {
    /// Extended, for disks up to 8 GiB; what links records of logical partitions, too.
    pub const EXTENDED: &str = "0x05";
    /// Extended, addressed by block.
    pub const EXTENDED_LBA: &str = "0x0f";
    /// Extended, of early Linux.
    pub const EXTENDED_LINUX: &str = "0x85";
    /// NTFS and exFAT.
    pub const NTFS: &str = "0x07";
    /// FAT32, addressed by block.
    pub const FAT32: &str = "0x0c";
    /// Linux swap.
    pub const SWAP: &str = "0x82";
    /// Linux filesystem.
    pub const LINUX: &str = "0x83";
    /// Linux LVM.
    pub const LVM: &str = "0x8e";
    /// EFI system partition.
    pub const ESP: &str = "0xef";
    /// Linux RAID.
    pub const RAID: &str = "0xfd";
}

/// The attribute bit of a GPT partition that says the same as the active flag of an MBR one: legacy BIOS bootable (UEFI
/// specification 2.10, table 5.8).
pub const ACTIVE: u64 = 1 << 2;

impl MbrTable {
    /// The PARTUUID that the kernel makes of the signature and a partition's number.
    pub fn partuuid(&self, number: u32) -> String {
        format!("{}-{number:02x}", self.signature)
    }
}

impl Partition {
    /// Whether it is the container of the logical partitions of an MBR disk, and holds nothing of its own.
    pub fn is_extended(&self) -> bool {
        [
            mbr_types::EXTENDED,
            mbr_types::EXTENDED_LBA,
            mbr_types::EXTENDED_LINUX,
        ]
        .contains(&self.type_guid.as_str())
    }

    /// Whether it lies in the extended partition of an MBR disk.
    pub fn is_logical(&self) -> bool {
        self.type_guid.starts_with("0x") && self.number > 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_tables_are_told_apart() {
        let gpt = r#"{"disk_guid": "g", "first_usable": 34, "last_usable": 99, "entries": 128}"#;
        assert!(matches!(serde_json::from_str(gpt), Ok(Table::Gpt(_))));
        let mbr = r#"{"signature": "5e0f5a3c", "records": [4096]}"#;
        let Ok(Table::Mbr(table)) = serde_json::from_str(mbr) else {
            panic!("no MBR");
        };
        assert_eq!(table.partuuid(10), "5e0f5a3c-0a");
        assert!(
            serde_json::from_str::<Table>(r#"{"signature": "x", "records": [], "new": 1}"#)
                .is_err()
        );
    }
}
