//! Reading master boot records and the chain of records of logical partitions.
//!
//! The crate `mbrman` decodes single records. Its own walk along the chain is not used: it multiplies block numbers by
//! the sector size in 32 bits, so that from 4 GiB on it reads, and would write, the wrong place; and it knows neither
//! empty records nor chains that lead backwards, which the kernel follows.

use std::collections::BTreeSet;
use std::io::{Cursor, SeekFrom};

use mbrman::{MBRHeader, MBRPartitionEntry};

use super::gpt::Entry;
use crate::model::{ACTIVE, MbrTable};
use crate::system::ReadSeek;
use crate::units::{Lba, SectorSize};

/// Records that a chain has at most: the kernel gives up after a hundred as well (block/partitions/msdos.c).
const MOST_RECORDS: usize = 100;

/// Type of the one entry that protects a GPT from tools that do not know it.
const PROTECTIVE: u8 = 0xee;

/// A table with its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub signature: String,
    pub records: Vec<Lba>,
    /// By number; the extended partition is one of them.
    pub partitions: Vec<Entry>,
}

impl Table {
    pub fn header(&self) -> MbrTable {
        MbrTable {
            signature: self.signature.clone(),
            records: self.records.clone(),
        }
    }
}

/// What the kernel takes for the container of logical partitions.
pub(crate) fn is_extended(sys: u8) -> bool {
    matches!(sys, 0x05 | 0x0f | 0x85)
}

/// Decodes the record in a sector.
fn record(device: &mut dyn ReadSeek, at: Lba, sector: SectorSize) -> Result<MBRHeader, String> {
    let mut bytes = [0u8; 512];
    device
        .seek(SeekFrom::Start(at.offset(sector).0))
        .and_then(|_| device.read_exact(&mut bytes))
        .map_err(|e| format!("the record in block {at} cannot be read: {e}"))?;
    MBRHeader::read_from(&mut Cursor::new(bytes))
        .map_err(|e| format!("the record in block {at}: {e}"))
}

/// The entries that the kernel counts: those with a length.
fn used(header: &MBRHeader) -> impl Iterator<Item = (u32, &MBRPartitionEntry)> {
    header
        .iter()
        .filter(|(_, entry)| entry.sectors > 0)
        .map(|(slot, entry)| (slot as u32, entry))
}

fn entry(signature: &str, number: u32, base: u64, found: &MBRPartitionEntry) -> Entry {
    let start = base.saturating_add(found.starting_lba.into());
    let table = MbrTable {
        signature: signature.to_owned(),
        records: Vec::new(),
    };
    Entry {
        number,
        type_guid: format!("{:#04x}", found.sys),
        partuuid: table.partuuid(number),
        name: String::new(),
        attributes: if found.is_active() { ACTIVE } else { 0 },
        start: Lba(start),
        end: Lba(start.saturating_add(found.sectors.into()).saturating_sub(1)),
    }
}

/// Reads a table.
pub(crate) fn read(device: &mut dyn ReadSeek, sector: SectorSize) -> Result<Table, String> {
    let header = record(device, Lba(0), sector)?;
    let signature = format!("{:08x}", u32::from_le_bytes(header.disk_signature));
    let mut partitions = Vec::new();
    let mut extended = None;
    for (number, found) in used(&header) {
        if found.sys == PROTECTIVE {
            return Err("it protects a GUID partition table, which cannot be read".to_owned());
        }
        if found.starting_lba == 0 {
            return Err(format!("partition {number} starts at the table itself"));
        }
        let this = entry(&signature, number, 0, found);
        if is_extended(found.sys) && extended.replace((this.start, this.end)).is_some() {
            return Err("it has more than one extended partition".to_owned());
        }
        partitions.push(this);
    }
    let mut records = Vec::new();
    if let Some((first, last)) = extended {
        let mut met = BTreeSet::new();
        let mut next = Some(first);
        while let Some(at) = next {
            if at < first || at > last || !met.insert(at) || met.len() > MOST_RECORDS {
                return Err(format!(
                    "the chain of logical partitions is broken at block {at}"
                ));
            }
            let header = match record(device, at, sector) {
                Ok(header) => header,
                // An extended partition without any logical one need not have a record.
                Err(_) if at == first => break,
                Err(reason) => return Err(reason),
            };
            let mut data = used(&header).filter(|(_, found)| !is_extended(found.sys));
            if let Some((_, found)) = data.next() {
                let number = 5 + records.len() as u32;
                records.push(at);
                partitions.push(entry(&signature, number, at.0, found));
            }
            if data.next().is_some() {
                return Err(format!(
                    "the record in block {at} holds two logical partitions"
                ));
            }
            next = used(&header)
                .find(|(_, found)| is_extended(found.sys))
                .map(|(_, found)| Lba(first.0.saturating_add(found.starting_lba.into())));
        }
    }
    Ok(Table {
        signature,
        records,
        partitions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One entry at a slot of a record.
    fn put(disk: &mut [u8], at: usize, slot: usize, sys: u8, start: u32, sectors: u32) {
        let base = at * 512 + 446 + 16 * slot;
        disk[base + 4] = sys;
        disk[base + 8..base + 12].copy_from_slice(&start.to_le_bytes());
        disk[base + 12..base + 16].copy_from_slice(&sectors.to_le_bytes());
        disk[at * 512 + 510..at * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
    }

    fn disk() -> Vec<u8> {
        let mut disk = vec![0; 2000 * 512];
        disk[440..444].copy_from_slice(&0x5e0f_5a3c_u32.to_le_bytes());
        put(&mut disk, 0, 0, 0x83, 63, 100);
        disk[446] = 0x80;
        put(&mut disk, 0, 3, 0x05, 200, 1800);
        disk
    }

    fn read(disk: &[u8]) -> Result<Table, String> {
        super::read(&mut Cursor::new(disk), SectorSize::S512)
    }

    #[test]
    fn logical_partitions_are_numbered_along_the_chain() {
        let mut disk = disk();
        // An empty first record, then one far behind, then one before it.
        put(&mut disk, 200, 1, 0x05, 1000, 300);
        put(&mut disk, 1200, 0, 0x82, 63, 200);
        put(&mut disk, 1200, 1, 0x05, 100, 300);
        put(&mut disk, 300, 0, 0x8e, 10, 250);
        let table = read(&disk).unwrap();
        assert_eq!(table.signature, "5e0f5a3c");
        assert_eq!(table.records, [Lba(1200), Lba(300)]);
        let short: Vec<_> = table
            .partitions
            .iter()
            .map(|p| {
                (
                    p.number,
                    p.type_guid.as_str(),
                    p.start.0,
                    p.end.0,
                    p.attributes,
                )
            })
            .collect();
        assert_eq!(
            short,
            [
                (1, "0x83", 63, 162, ACTIVE),
                (4, "0x05", 200, 1999, 0),
                (5, "0x82", 1263, 1462, 0),
                (6, "0x8e", 310, 559, 0),
            ]
        );
        assert_eq!(table.partitions[3].partuuid, "5e0f5a3c-06");
    }

    #[test]
    fn what_leads_in_circles_or_outside_is_refused() {
        let mut circle = disk();
        put(&mut circle, 200, 0, 0x83, 10, 10);
        put(&mut circle, 200, 1, 0x05, 100, 100);
        put(&mut circle, 300, 0, 0x83, 10, 10);
        let mut outside = circle.clone();
        put(&mut circle, 300, 1, 0x05, 100, 100);
        assert!(read(&circle).unwrap_err().contains("block 300"));
        put(&mut outside, 300, 1, 0x05, u32::MAX, 100);
        assert!(read(&outside).unwrap_err().contains("broken"));
        let mut two = disk();
        put(&mut two, 200, 0, 0x83, 10, 10);
        put(&mut two, 200, 1, 0x83, 30, 10);
        assert!(read(&two).unwrap_err().contains("two logical"));
    }

    #[test]
    fn an_extended_partition_may_be_empty_and_a_gpt_is_none() {
        assert_eq!(read(&disk()).unwrap().partitions.len(), 2);
        let mut gpt = disk();
        put(&mut gpt, 0, 0, 0xee, 1, 1999);
        assert!(read(&gpt).unwrap_err().contains("GUID"));
        let mut two = disk();
        put(&mut two, 0, 2, 0x0f, 170, 10);
        assert!(read(&two).unwrap_err().contains("more than one"));
    }
}
