//! The partition table of a medium.

use std::fs::File;

use gpt::DiskDevice;
use gpt::disk::LogicalBlockSize;
use gpt::header::HeaderBuilder;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{OperatingSystem, Type};
use uuid::Uuid;

use crate::grub::BOOT_CODE;

/// Partition type of a medium's data partition. A random GUID (version 4) that was drawn for Lifeboat; the udev rule and
/// [`super::Stick::open`] recognise a medium by it, together with the label.
pub const DATA_TYPE: Uuid = Uuid::from_u128(0xe9722b09_8bcf_4722_89a0_39878a9f1ead);
/// BIOS boot partition (GRUB manual, "BIOS installation").
pub(crate) const BIOS_TYPE: Uuid = Uuid::from_u128(0x21686148_6449_6e6f_744e_656564454649);
/// EFI system partition (UEFI specification, 5.3.3).
pub(crate) const ESP_TYPE: Uuid = Uuid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);

/// Number of each partition.
pub(crate) const ESP_NUMBER: u32 = 2;
pub(crate) const DATA_NUMBER: u32 = 3;

const MIB: u64 = 1 << 20;

/// Where everything lies, in logical sectors; ends are inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub sector: LogicalBlockSize,
    pub sectors: u64,
    pub disk: Uuid,
    /// First and last sector, GUID.
    pub bios: (u64, u64, Uuid),
    pub esp: (u64, u64, Uuid),
    pub data: (u64, u64, Uuid),
}

impl Table {
    /// Lays out a disk of `size` bytes; `None` when it is too small for any data.
    pub(crate) fn new(size: u64, sector: LogicalBlockSize, esp_size: u64) -> Option<Self> {
        let ss = sector.as_u64();
        let sectors = size / ss;
        let mib = MIB / ss;
        // Protective MBR, header, 128 entries of 128 bytes; at the end entries and header.
        let table = 128 * 128 / ss;
        let esp_end = mib + esp_size.div_ceil(MIB) * mib;
        let last = sectors.checked_sub(table + 2)?;
        // Whole MiB, and at least 64 of them.
        let data_end = (last + 1) / mib * mib;
        if data_end < esp_end + 64 * mib {
            return None;
        }
        Some(Self {
            sector,
            sectors,
            disk: Uuid::new_v4(),
            bios: (2 + table, mib - 1, Uuid::new_v4()),
            esp: (mib, esp_end - 1, Uuid::new_v4()),
            data: (esp_end, data_end - 1, Uuid::new_v4()),
        })
    }

    /// Offset and length in bytes.
    pub(crate) fn bytes(&self, range: (u64, u64, Uuid)) -> (u64, u64) {
        let ss = self.sector.as_u64();
        (range.0 * ss, (range.1 - range.0 + 1) * ss)
    }

    fn partitions(&self) -> [Partition; 3] {
        let part = |kind: Uuid, range: (u64, u64, Uuid), name: &str| Partition {
            part_type_guid: Type {
                guid: kind,
                os: OperatingSystem::None,
            },
            part_guid: range.2,
            first_lba: range.0,
            last_lba: range.1,
            flags: 0,
            name: name.to_owned(),
        };
        [
            part(BIOS_TYPE, self.bios, "LB-BIOS"),
            part(ESP_TYPE, self.esp, "LB-BOOT"),
            part(DATA_TYPE, self.data, super::DATA_LABEL),
        ]
    }

    /// Writes the backup copy, then the primary one, then the MBR with `boot_code`, with a sync after each: as long as the
    /// last is missing, the disk is plainly not a medium.
    pub(crate) fn write(
        &self,
        disk: &mut File,
        boot_code: Option<&[u8; BOOT_CODE]>,
    ) -> std::io::Result<()> {
        let other = |e: gpt::header::HeaderError| std::io::Error::other(e.to_string());
        for primary in [false, true] {
            let mut header = HeaderBuilder::new()
                .disk_guid(self.disk)
                .backup_lba(self.sectors - 1)
                .num_parts(128)
                .primary(primary)
                .build(self.sector)
                .map_err(other)?;
            Partition::write_zero_entries_to_device(
                disk,
                0,
                128,
                header.part_start,
                self.sector,
                128,
            )?;
            for (index, partition) in self.partitions().iter().enumerate() {
                partition.write_to_device(
                    disk,
                    index as u64,
                    header.part_start,
                    self.sector,
                    128,
                )?;
            }
            if primary {
                header.write_primary(disk, self.sector)
            } else {
                header.write_backup(disk, self.sector)
            }
            .map_err(other)?;
            disk.sync_data()?;
        }
        let rest = u32::try_from(self.sectors - 1).unwrap_or(u32::MAX);
        let mut mbr = ProtectiveMBR::with_lb_size(rest);
        if let Some(code) = boot_code {
            mbr.set_bootcode(*code);
        }
        mbr.overwrite_lba0(disk)
            .map_err(|e| std::io::Error::other(e.to_string()))?;
        disk.sync_data()
    }

    /// Reads the table of a medium. `Err` says what is not ours. With `both`, the two copies must be sound.
    pub(crate) fn read<D: DiskDevice>(
        mut device: D,
        sector: LogicalBlockSize,
        both: bool,
    ) -> Result<Self, String> {
        layout::capture::check_gpt_entries(&mut device, sector.as_u64())?;
        let disk = gpt::GptConfig::new()
            .writable(false)
            .logical_block_size(sector)
            .only_valid_headers(both)
            .open_from_device(device)
            .map_err(|e| format!("no GPT on it ({e})"))?;
        let header = disk.header();
        let last = header.backup_lba.max(header.current_lba);
        let sectors = last
            .checked_add(1)
            .filter(|s| s.checked_mul(sector.as_u64()).is_some())
            .ok_or("its table is larger than any disk")?;
        let find = |number: u32, kind: Uuid, what: &str| {
            disk.partitions()
                .get(&number)
                .filter(|p| {
                    p.part_type_guid.guid == kind
                        && p.last_lba >= p.first_lba
                        && p.last_lba < sectors
                })
                .map(|p| (p.first_lba, p.last_lba, p.part_guid))
                .ok_or_else(|| format!("partition {number} is no {what}"))
        };
        Ok(Self {
            sector,
            sectors,
            disk: *disk.guid(),
            data: find(DATA_NUMBER, DATA_TYPE, "Lifeboat data partition")?,
            esp: find(ESP_NUMBER, ESP_TYPE, "EFI system partition")?,
            bios: find(1, BIOS_TYPE, "BIOS boot partition")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::system::{Cmd, Host, System};

    #[test]
    fn both_copies_satisfy_sgdisk_and_read_back() {
        for (sector, bios) in [(LogicalBlockSize::Lb512, 34), (LogicalBlockSize::Lb4096, 6)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("disk");
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .unwrap();
            file.set_len(200 << 20).unwrap();
            let table = Table::new(200 << 20, sector, 64 << 20).unwrap();
            assert_eq!(table.bios.0, bios);
            table.write(&mut file, Some(&[7; BOOT_CODE])).unwrap();
            assert_eq!(Table::read(&mut file, sector, true).unwrap(), table);
            if sector == LogicalBlockSize::Lb512 {
                let out = Host
                    .run(&Cmd::new("sgdisk").arg("-v").path(&path))
                    .unwrap()
                    .text();
                assert!(out.contains("No problems found"), "{out}");
                assert_eq!(table.bios.1, 2047);
            }
            // The backup alone is enough to find the medium again, and is noticed.
            use std::os::unix::fs::FileExt;
            file.write_all_at(&[0; 64], sector.as_u64()).unwrap();
            assert_eq!(Table::read(&mut file, sector, false).unwrap(), table);
            assert!(Table::read(&mut file, sector, true).is_err());
        }
    }

    #[test]
    fn the_udev_rule_knows_our_type_and_label() {
        let rule = include_str!("../../../udev-rules/70-lifeboat.rules");
        assert!(rule.contains(&format!("ENV{{ID_PART_ENTRY_TYPE}}==\"{DATA_TYPE}\"")));
        assert!(rule.contains(&format!(
            "ENV{{ID_FS_LABEL}}==\"{}\"",
            super::super::DATA_LABEL
        )));
        // The rescue system has this rule, too: nothing may start there.
        assert!(!rule.contains("SYSTEMD_WANTS"));
        let host = include_str!("../../../udev-rules/71-lifeboat-plug.rules");
        assert!(host.contains("ENV{LIFEBOAT_MEDIUM}==") && rule.contains("ENV{LIFEBOAT_MEDIUM}="));
        assert!(host.contains("lifeboat-plug@%k.service"));
    }

    #[test]
    fn a_disk_without_room_for_data_is_too_small() {
        assert!(Table::new(100 << 20, LogicalBlockSize::Lb512, 64 << 20).is_none());
        assert!(Table::new(0, LogicalBlockSize::Lb512, 64 << 20).is_none());
    }
}
