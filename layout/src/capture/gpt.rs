//! Reading GUID partition tables.

use std::io::{self, Read, Seek, SeekFrom, Write};

use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;

use crate::model::GptTable;
use crate::system::ReadSeek;
use crate::units::{Lba, SectorSize};

/// Entries that a table may have here.
pub(crate) const MOST_ENTRIES: u32 = 4096;

/// A partition as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub number: u32,
    pub type_guid: String,
    pub partuuid: String,
    pub name: String,
    pub attributes: u64,
    pub start: Lba,
    pub end: Lba,
}

/// A table and where its backup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub disk_guid: String,
    pub first_usable: Lba,
    pub last_usable: Lba,
    pub entries: u32,
    pub partitions: Vec<Entry>,
    /// Whether both headers were readable.
    pub both_headers: bool,
}

impl Table {
    pub fn header(&self) -> GptTable {
        GptTable {
            disk_guid: self.disk_guid.clone(),
            first_usable: self.first_usable,
            last_usable: self.last_usable,
            entries: self.entries,
        }
    }
}

/// The crate asks for a writable device even when it only reads.
struct ReadOnly<T>(T);

impl<T> std::fmt::Debug for ReadOnly<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("device opened for reading")
    }
}
impl<T: Read> Read for ReadOnly<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}
impl<T: Seek> Seek for ReadOnly<T> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.0.seek(pos)
    }
}
impl<T> Write for ReadOnly<T> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::PermissionDenied))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The sector sizes that GPT and the crate know.
pub(crate) fn block_size(sector: SectorSize) -> Result<LogicalBlockSize, String> {
    LogicalBlockSize::try_from(u64::from(sector.0)).map_err(|e| e.to_string())
}

/// Reads a table.
pub(crate) fn read(device: &mut dyn ReadSeek, sector: SectorSize) -> Result<Table, String> {
    let lb = block_size(sector)?;
    // The crate panics at an entry size other than 128, and trusts the number of entries: look at both first.
    check_gpt_entries(device, u64::from(sector.0))?;
    let disk = GptConfig::new()
        .logical_block_size(lb)
        .writable(false)
        .open_from_device(ReadOnly(device))
        .map_err(|e| e.to_string())?;
    let header = disk.header();
    let mut partitions = Vec::new();
    for (number, part) in disk.partitions() {
        if !part.is_used() {
            continue;
        }
        if part.first_lba > part.last_lba {
            return Err(format!("partition {number} ends before it starts"));
        }
        partitions.push(Entry {
            number: *number,
            type_guid: part.part_type_guid.guid.to_string(),
            partuuid: part.part_guid.to_string(),
            name: part.name.trim_end_matches('\0').to_owned(),
            attributes: part.flags,
            start: Lba(part.first_lba),
            end: Lba(part.last_lba),
        });
    }
    Ok(Table {
        disk_guid: disk.guid().to_string(),
        first_usable: Lba(header.first_usable),
        last_usable: Lba(header.last_usable),
        entries: header.num_parts,
        partitions,
        both_headers: disk.primary_header().is_ok() && disk.backup_header().is_ok(),
    })
}

/// Looks at what the `gpt` crate trusts in a header whose checksum is right: at an entry size other than 128 it panics,
/// and the number of entries is how many it reads. `sector` in bytes. Leaves the device at its start.
pub fn check_gpt_entries(
    device: &mut (impl Read + Seek + ?Sized),
    sector: u64,
) -> Result<(), String> {
    let end = device.seek(SeekFrom::End(0)).map_err(|e| e.to_string())?;
    for offset in [sector, (end / sector.max(1)).saturating_sub(1) * sector] {
        let mut header = [0u8; 92];
        device
            .seek(SeekFrom::Start(offset))
            .map_err(|e| e.to_string())?;
        if device.read_exact(&mut header).is_err() || &header[..8] != b"EFI PART" {
            continue;
        }
        // UEFI specification 2.10, table 5.5: checksum at 16, number of entries at 80, size of an entry at 84.
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| header[at + n]));
        let (sum, number, entry) = (word(16), word(80), word(84));
        header[16..20].fill(0);
        if crc32(&header) == sum && (entry != 128 || number == 0 || number > MOST_ENTRIES) {
            return Err(format!(
                "a table of {number} entries of {entry} bytes is not supported"
            ));
        }
    }
    device.rewind().map_err(|e| e.to_string())
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
