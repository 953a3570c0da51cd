//! Writing master boot records and the records of logical partitions: rehearsed in memory, then written the same way to
//! the disk. The crate `mbrman` encodes single records; see [`crate::capture::mbr`] for why it does no more.

use std::io::{Cursor, SeekFrom};

use gpt::DiskDevice;
use mbrman::{BOOT_ACTIVE, BOOT_INACTIVE, CHS, MBRHeader, MBRPartitionEntry};

use super::table::DiskTable;
use crate::capture::mbr as reader;
use crate::model::{ACTIVE, MbrTable};
use crate::plan::PlannedPartition;
use crate::system::ReadSeek;
use crate::units::{Lba, SectorSize};

/// Heads and sectors per track of the geometry that every BIOS translates big disks to.
const GEOMETRY: (u64, u64) = (255, 63);

/// Type of the entry that leads to the next record.
const LINK: u8 = 0x05;

/// A table to be written.
pub(crate) struct Table<'a> {
    pub table: &'a MbrTable,
    pub sector: SectorSize,
    pub sectors: u64,
    pub partitions: &'a [PlannedPartition],
}

/// A block in the old way of counting; what lies behind cylinder 1023 is called by the last address there is.
fn chs(block: u64) -> CHS {
    let (heads, sectors) = GEOMETRY;
    let cylinder = block / (heads * sectors);
    if cylinder > 1023 {
        return CHS::new(1023, (heads - 1) as u8, sectors as u8);
    }
    CHS::new(
        cylinder as u16,
        (block / sectors % heads) as u8,
        (block % sectors + 1) as u8,
    )
}

/// An entry whose address counts from `base`.
fn entry(
    sys: u8,
    active: bool,
    base: u64,
    start: Lba,
    end: Lba,
) -> Result<MBRPartitionEntry, String> {
    let short = |n: Option<u64>| {
        n.and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| format!("blocks {start} to {end} do not fit into an MBR"))
    };
    let sectors = end.0.checked_sub(start.0).and_then(|n| n.checked_add(1));
    Ok(MBRPartitionEntry {
        boot: if active { BOOT_ACTIVE } else { BOOT_INACTIVE },
        first_chs: chs(start.0),
        sys,
        last_chs: chs(end.0),
        starting_lba: short(start.0.checked_sub(base))?,
        sectors: short(sectors)?,
    })
}

fn sys(part: &PlannedPartition) -> Result<u8, String> {
    let digits = part.type_guid.strip_prefix("0x");
    digits
        .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        .ok_or_else(|| format!("partition {} has type {:?}", part.number, part.type_guid))
}

impl Table<'_> {
    /// Every block to be written, with its record; the MBR last: until it is written, the disk is plainly without a table.
    fn records(&self) -> Result<Vec<(Lba, MBRHeader)>, String> {
        let signature = u32::from_str_radix(&self.table.signature, 16)
            .map_err(|e| format!("signature {:?}: {e}", self.table.signature))?;
        let mut header = MBRHeader::new(signature.to_le_bytes());
        let mut extended = None;
        let mut logical: Vec<&PlannedPartition> = Vec::new();
        for part in self.partitions {
            if part.start.0 == 0 || part.end < part.start || part.end.0 >= self.sectors {
                return Err(format!(
                    "partition {} lies outside of the disk",
                    part.number
                ));
            }
            if part.number > 4 {
                logical.push(part);
                continue;
            }
            let slot = header
                .get_mut(part.number as usize)
                .filter(|slot| slot.sectors == 0)
                .ok_or_else(|| format!("there is no place for partition {}", part.number))?;
            let kind = sys(part)?;
            *slot = entry(kind, part.attributes == ACTIVE, 0, part.start, part.end)?;
            if reader::is_extended(kind) && extended.replace(part).is_some() {
                return Err("there are two extended partitions".to_owned());
            }
        }
        let mut records = match extended {
            Some(extended) => self.chain(extended, &mut logical)?,
            None if logical.is_empty() => Vec::new(),
            None => return Err("there is no extended partition for the logical ones".to_owned()),
        };
        records.push((Lba(0), header));
        Ok(records)
    }

    /// The records of the logical partitions in the order of their numbers.
    fn chain(
        &self,
        extended: &PlannedPartition,
        logical: &mut Vec<&PlannedPartition>,
    ) -> Result<Vec<(Lba, MBRHeader)>, String> {
        logical.sort_by_key(|part| part.number);
        let numbers = logical.iter().map(|part| part.number);
        if !numbers.eq((5u32..).take(self.table.records.len())) {
            return Err(format!(
                "{} logical partitions have {} records",
                logical.len(),
                self.table.records.len()
            ));
        }
        // The first record is always where the extended partition starts: empty, if none was saved for that place.
        let mut chain: Vec<(Lba, Option<&PlannedPartition>)> = Vec::new();
        if self.table.records.first() != Some(&extended.start) {
            chain.push((extended.start, None));
        }
        chain.extend(
            self.table
                .records
                .iter()
                .copied()
                .zip(logical.iter().copied().map(Some)),
        );
        for (index, (at, part)) in chain.iter().enumerate() {
            let inside = |lba: &Lba| (extended.start..=extended.end).contains(lba);
            let twice = chain[..index].iter().any(|(other, _)| other == at);
            let over = logical.iter().any(|p| (p.start..=p.end).contains(at));
            let out = part.is_some_and(|p| p.start < *at || !inside(&p.end));
            if !inside(at) || twice || over || out {
                return Err(format!(
                    "the record of logical partitions in block {at} is in a wrong place"
                ));
            }
        }
        let mut records = Vec::new();
        for (index, (at, part)) in chain.iter().enumerate() {
            let mut record = MBRHeader::new([0; 4]);
            if let Some(part) = part {
                record.partition_1 = entry(
                    sys(part)?,
                    part.attributes == ACTIVE,
                    at.0,
                    part.start,
                    part.end,
                )?;
            }
            if let Some((next, Some(part))) = chain.get(index + 1) {
                // From the next record to the end of its partition, counted from the start of the extended partition.
                record.partition_2 = entry(LINK, false, extended.start.0, *next, part.end)?;
            }
            records.push((*at, record));
        }
        Ok(records)
    }
}

impl DiskTable for Table<'_> {
    fn write(&self, device: &mut dyn DiskDevice) -> Result<(), String> {
        if !matches!(self.sector.0, 512 | 1024 | 2048 | 4096) {
            return Err(format!("sectors of {} are not supported", self.sector));
        }
        let text = |e: &dyn std::fmt::Display| e.to_string();
        for (at, record) in self.records()? {
            let mut bytes = Cursor::new(Vec::new());
            record.write_into(&mut bytes).map_err(|e| text(&e))?;
            let mut bytes = bytes.into_inner();
            // 4Kn disks take whole sectors; the signature stays at byte 510.
            bytes.resize((self.sector.0 as usize).max(512), 0);
            device
                .seek(SeekFrom::Start(at.offset(self.sector).0))
                .and_then(|_| device.write_all(&bytes))
                .map_err(|e| text(&e))?;
        }
        device.flush().map_err(|e| text(&e))
    }

    /// Compares what is on the device with what is planned.
    fn check(&self, device: &mut dyn ReadSeek) -> Result<(), String> {
        let found = reader::read(device, self.sector)?;
        if found.header() != *self.table {
            return Err(format!(
                "it reads as {:?} instead of {:?}",
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
                    && p.type_guid == part.type_guid
                    && p.partuuid == part.partuuid
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
        // The kernel's device of the extended partition is its first record.
        let own = |part: &&PlannedPartition| !sys(part).is_ok_and(reader::is_extended);
        self.partitions.iter().filter(own).collect()
    }

    fn size(&self) -> u64 {
        self.sectors.saturating_mul(u64::from(self.sector.0))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::super::table::Sparse;
    use super::*;
    use crate::model::NodeId;

    fn part(number: u32, kind: &str, start: u64, end: u64) -> PlannedPartition {
        PlannedPartition {
            node: NodeId::new("x"),
            device: "/dev/x".into(),
            number,
            type_guid: kind.to_owned(),
            partuuid: format!("5e0f5a3c-{number:02x}"),
            name: String::new(),
            attributes: if number == 2 { ACTIVE } else { 0 },
            start: Lba(start),
            end: Lba(end),
        }
    }

    fn header(records: &[u64]) -> MbrTable {
        MbrTable {
            signature: "5e0f5a3c".to_owned(),
            records: records.iter().map(|r| Lba(*r)).collect(),
        }
    }

    /// A boundary beyond 4 GiB, where 32 bits of bytes end.
    const FAR: u64 = 20_000_000;

    fn parts() -> Vec<PlannedPartition> {
        vec![
            part(2, "0x83", 63, 16_064),
            part(4, "0x0f", 16_065, FAR + 200_000),
            part(5, "0x82", 16_128, 48_194),
            part(6, "0x8e", FAR + 2048, FAR + 99_999),
            part(7, "0x83", 100_000, 199_999),
        ]
    }

    fn table<'a>(
        header: &'a MbrTable,
        partitions: &'a [PlannedPartition],
        sector: SectorSize,
    ) -> Table<'a> {
        Table {
            table: header,
            sector,
            sectors: FAR + 300_000,
            partitions,
        }
    }

    #[test]
    fn chains_out_of_order_and_beyond_four_gib_are_written_as_saved() {
        let parts = parts();
        let header = header(&[16_065, FAR, 98_000]);
        for sector in [SectorSize::S512, SectorSize::S4096] {
            let table = table(&header, &parts, sector);
            table.rehearse().unwrap();
            let mut disk = Sparse::new(table.sectors * u64::from(sector.0));
            table.write(&mut disk).unwrap();
            let found = reader::read(&mut disk, sector).unwrap();
            assert_eq!(found.records, header.records);
            assert_eq!(found.partitions.len(), 5);
            // Any byte counts.
            let at = FAR * u64::from(sector.0) + 446 + 4;
            disk.seek(SeekFrom::Start(at)).unwrap();
            disk.write_all(&[0x83]).unwrap();
            assert!(table.check(&mut disk).unwrap_err().contains("partition 6"));
        }
    }

    #[test]
    fn an_empty_record_leads_to_a_first_logical_partition_elsewhere() {
        let parts = [
            part(1, "0x05", 2048, 99_999),
            part(5, "0x83", 60_000, 70_000),
        ];
        let header = header(&[50_000]);
        table(&header, &parts, SectorSize::S512).rehearse().unwrap();
        let none = MbrTable {
            records: Vec::new(),
            ..header
        };
        table(&none, &parts[..1], SectorSize::S512)
            .rehearse()
            .unwrap();
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let whole = header(&[16_065, FAR, 98_000]);
        let change = |change: &dyn Fn(&mut Vec<PlannedPartition>)| {
            let mut parts = parts();
            change(&mut parts);
            table(&whole, &parts, SectorSize::S512).rehearse()
        };
        change(&|_| {}).unwrap();
        for (what, damaged) in [
            ("outside of the disk", change(&|p| p[0].end = Lba(1 << 40))),
            ("outside of the disk", change(&|p| p[0].start = Lba(0))),
            ("no place", change(&|p| p[0].number = 4)),
            ("type", change(&|p| p[0].type_guid = "8300".to_owned())),
            ("have 3 records", change(&|p| p[3].number = 9)),
            (
                "two extended",
                change(&|p| p[0].type_guid = "0x05".to_owned()),
            ),
            (
                "no extended",
                change(&|p| p[1].type_guid = "0x83".to_owned()),
            ),
            // Over the record of another.
            ("wrong place", change(&|p| p[2].end = Lba(98_000))),
            ("wrong place", change(&|p| p[1].end = Lba(FAR + 50_000))),
        ] {
            let error = damaged.unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn old_addresses_are_those_of_the_usual_geometry() {
        assert_eq!(chs(63), CHS::new(0, 1, 1));
        assert_eq!(chs(16_065), CHS::new(1, 0, 1));
        assert_eq!(chs(1 << 31), CHS::new(1023, 254, 63));
    }
}
