//! Writing GUID partition tables: rehearsed in memory, then written the same way to the disk.

use gpt::DiskDevice;
use gpt::header::HeaderBuilder;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{OperatingSystem, Type};
use uuid::Uuid;

use super::table::DiskTable;
use crate::capture::gpt as reader;
use crate::model::GptTable;
use crate::plan::PlannedPartition;
use crate::system::ReadSeek;
use crate::units::SectorSize;

/// A table to be written.
pub(crate) struct Table<'a> {
    pub table: &'a GptTable,
    pub sector: SectorSize,
    pub sectors: u64,
    pub partitions: &'a [PlannedPartition],
}

impl DiskTable for Table<'_> {
    /// Writes backup, primary and protective MBR, in this order: until the last, the disk is plainly without a table.
    fn write(&self, device: &mut dyn DiskDevice) -> Result<(), String> {
        let mut device = device;
        let lb = reader::block_size(self.sector)?;
        let guid = |text: &str| Uuid::parse_str(text).map_err(|e| format!("GUID {text}: {e}"));
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let backup_lba = self
            .sectors
            .checked_sub(1)
            .ok_or("the disk has no sectors")?;
        // The crate multiplies it by the size of an entry in 32 bits, and zeroes as many.
        if !(1..=reader::MOST_ENTRIES).contains(&self.table.entries) {
            return Err(format!(
                "a table of {} entries is not supported",
                self.table.entries
            ));
        }
        for primary in [false, true] {
            let mut header = HeaderBuilder::new()
                .backup_lba(backup_lba)
                .disk_guid(guid(&self.table.disk_guid)?)
                .first_usable(self.table.first_usable.0)
                .num_parts(self.table.entries)
                .primary(primary)
                .build(lb)
                .map_err(|e| text(&e))?;
            let (start, entries) = (header.part_start, header.num_parts);
            Partition::write_zero_entries_to_device(&mut device, 0, entries.into(), start, lb, 128)
                .map_err(|e| text(&e))?;
            for part in self.partitions {
                if part.number == 0
                    || part.number > entries
                    || part.start < self.table.first_usable
                    || part.end > self.table.last_usable
                {
                    return Err(format!(
                        "partition {} lies outside of the table",
                        part.number
                    ));
                }
                let entry = Partition {
                    part_type_guid: Type {
                        guid: guid(&part.type_guid)?,
                        os: OperatingSystem::None,
                    },
                    part_guid: guid(&part.partuuid)?,
                    first_lba: part.start.0,
                    last_lba: part.end.0,
                    flags: part.attributes,
                    name: part.name.clone(),
                };
                entry
                    .write_to_device(&mut device, u64::from(part.number - 1), start, lb, 128)
                    .map_err(|e| text(&e))?;
            }
            if primary {
                header
                    .write_primary(&mut device, lb)
                    .map_err(|e| text(&e))?;
            } else {
                header.write_backup(&mut device, lb).map_err(|e| text(&e))?;
            }
        }
        let size = u32::try_from(backup_lba).unwrap_or(u32::MAX);
        ProtectiveMBR::with_lb_size(size)
            .overwrite_lba0(&mut device)
            .map_err(|e| text(&e))?;
        device.flush().map_err(|e| text(&e))
    }

    /// Compares what is on the device with what is planned.
    fn check(&self, device: &mut dyn ReadSeek) -> Result<(), String> {
        let found = reader::read(device, self.sector)?;
        if !found.both_headers {
            return Err("one of the two headers cannot be read back".to_owned());
        }
        if found.header() != *self.table {
            return Err(format!(
                "the header is {:?} instead of {:?}",
                found.header(),
                self.table
            ));
        }
        if found.partitions.len() != self.partitions.len() {
            return Err(format!(
                "{} partitions instead of {}",
                found.partitions.len(),
                self.partitions.len()
            ));
        }
        for part in self.partitions {
            let same = found.partitions.iter().any(|p| {
                p.number == part.number
                    && p.type_guid.eq_ignore_ascii_case(&part.type_guid)
                    && p.partuuid.eq_ignore_ascii_case(&part.partuuid)
                    && p.name == part.name
                    && p.attributes == part.attributes
                    && (p.start, p.end) == (part.start, part.end)
            });
            if !same {
                return Err(format!("partition {} is not as planned", part.number));
            }
        }
        Ok(())
    }
    fn with_contents(&self) -> Vec<&PlannedPartition> {
        self.partitions.iter().collect()
    }

    fn size(&self) -> u64 {
        self.sectors.saturating_mul(u64::from(self.sector.0))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::table::Sparse;
    use super::*;
    use crate::model::{NodeId, types};
    use crate::units::Lba;

    fn part(number: u32, start: u64, end: u64) -> PlannedPartition {
        PlannedPartition {
            node: NodeId::new("x"),
            device: "/dev/x".into(),
            number,
            type_guid: types::LINUX.to_owned(),
            partuuid: format!("5e0f5a3c-0000-4000-8000-00000000000{number}"),
            name: format!("part {number} äöü"),
            attributes: 1 << 60 | 4,
            start: Lba(start),
            end: Lba(end),
        }
    }

    fn table(sectors: u64, sector: SectorSize) -> GptTable {
        let tail = 128 * 128 / u64::from(sector.0) + 1;
        GptTable {
            disk_guid: "5e0f5a3c-1111-4000-8000-000000000000".to_owned(),
            first_usable: Lba(tail + 1),
            last_usable: Lba(sectors - tail - 1),
            entries: 128,
        }
    }

    #[test]
    fn numbers_with_gaps_names_guids_and_attributes_are_kept() {
        for sector in [SectorSize::S512, SectorSize::S4096] {
            let partitions = [
                part(1, 2048, 4095),
                part(3, 8192, 9999),
                part(9, 4096, 8191),
            ];
            let header = table(20480, sector);
            let table = Table {
                table: &header,
                sector,
                sectors: 20480,
                partitions: &partitions,
            };
            let mut device = io::Cursor::new(vec![0u8; 20480 * sector.0 as usize]);
            table.write(&mut device).unwrap();
            table.check(&mut device).unwrap();
            let found = reader::read(&mut device, sector).unwrap();
            assert_eq!(
                found
                    .partitions
                    .iter()
                    .map(|p| p.number)
                    .collect::<Vec<_>>(),
                [1, 3, 9]
            );
            assert_eq!(found.partitions[2].name, "part 9 äöü");
            assert_eq!(&device.get_ref()[510..512], [0x55, 0xaa]);
            assert_eq!(device.get_ref()[450], 0xee);

            // Any byte of the entries counts.
            let at = 2 * sector.0 as usize + 8 * 128 + 20;
            device.get_mut()[at] ^= 1;
            assert!(table.check(&mut device).is_err());
        }
    }

    #[test]
    fn the_memory_device_behaves_like_a_disk() {
        let partitions = [part(2, 2048, 4095)];
        // 2 TiB: as a vector this would not fit.
        let sectors = 1 << 32;
        let header = table(sectors, SectorSize::S512);
        let table = Table {
            table: &header,
            sector: SectorSize::S512,
            sectors,
            partitions: &partitions,
        };
        let mut device = Sparse::new(sectors * 512);
        table.write(&mut device).unwrap();
        table.check(&mut device).unwrap();
        assert!(device.blocks() < 100);
    }

    #[test]
    fn partitions_that_overlap_are_refused() {
        let header = table(20480, SectorSize::S512);
        let rehearse = |start: u64| {
            let partitions = [part(1, 2048, 4095), part(2, start, 9999)];
            let table = Table {
                table: &header,
                sector: SectorSize::S512,
                sectors: 20480,
                partitions: &partitions,
            };
            table.rehearse()
        };
        rehearse(4096).unwrap();
        for start in [4095, 2048, 100] {
            assert!(rehearse(start).unwrap_err().contains("overlap"), "{start}");
        }
    }

    #[test]
    fn a_partition_outside_of_the_disk_is_refused() {
        let partitions = [part(1, 2048, 20470)];
        let header = table(20480, SectorSize::S512);
        let table = Table {
            table: &header,
            sector: SectorSize::S512,
            sectors: 20480,
            partitions: &partitions,
        };
        assert!(
            table
                .write(&mut Sparse::new(20480 * 512))
                .unwrap_err()
                .contains("partition 1")
        );
    }
}
