//! GUID partition tables for the fuzz targets of the crates that read them. An input is a byte of [`FLAGS`], the primary and
//! the backup header (92 bytes each), and the first entries; they are put over a whole table.
#![allow(dead_code, reason = "each crate uses a part of it")]

/// The disk has sectors of 4096 bytes, else of 512.
pub const LARGE_SECTORS: u8 = 1;
/// The sums of the headers are made right: behind a wrong one nothing is looked at.
pub const RIGHT_HEADERS: u8 = 2;
/// The sums of the entries, too.
pub const RIGHT_ENTRIES: u8 = 4;
/// All of the above.
pub const FLAGS: u8 = LARGE_SECTORS | RIGHT_HEADERS | RIGHT_ENTRIES;

pub const HEADER: usize = 92;
const ENTRY: usize = 128;
/// Entries in an input, and in a table.
const ENTRIES: (usize, usize) = (4, 128);

/// CRC-32 as GPT has it.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
        crc
    })
}

pub fn sector(data: &[u8]) -> u64 {
    match data.first() {
        Some(flags) if flags & LARGE_SECTORS != 0 => 4096,
        _ => 512,
    }
}

/// Where headers and entries of a disk lie: primary header, backup header, primary entries, backup entries.
fn places(sector: u64, sectors: u64) -> [u64; 4] {
    let entries = (ENTRY * ENTRIES.1) as u64;
    let last = (sectors - 1) * sector;
    [sector, last, 2 * sector, last - entries]
}

/// The input that is this whole table.
pub fn seed(flags: u8, sectors: u64, read: &mut dyn FnMut(u64, usize) -> Vec<u8>) -> Vec<u8> {
    let [primary, backup, entries, _] = places(sector(&[flags]), sectors);
    let mut seed = vec![flags];
    seed.extend(read(primary, HEADER));
    seed.extend(read(backup, HEADER));
    seed.extend(read(entries, ENTRY * ENTRIES.0));
    seed
}

/// Puts the input over the table of a disk.
pub fn put(data: &[u8], sectors: u64, write: &mut dyn FnMut(u64, &[u8])) {
    let (flags, mut rest) = data.split_first().unwrap_or((&0, &[]));
    let mut take = |length: usize| {
        let (head, tail) = rest.split_at(length.min(rest.len()));
        rest = tail;
        let mut piece = head.to_vec();
        piece.resize(length, 0);
        piece
    };
    let mut headers = [take(HEADER), take(HEADER)];
    let mut entries = take(ENTRY * ENTRIES.0);
    let [primary, backup, first, second] = places(sector(data), sectors);
    write(first, &entries);
    write(second, &entries);
    entries.resize(ENTRY * ENTRIES.1, 0);
    for (header, at) in headers.iter_mut().zip([primary, backup]) {
        if flags & RIGHT_ENTRIES != 0 {
            header[88..].copy_from_slice(&crc32(&entries).to_le_bytes());
        }
        if flags & RIGHT_HEADERS != 0 {
            let size = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
            header[16..20].fill(0);
            let sum = crc32(&header[..HEADER.min(size as usize)]);
            header[16..20].copy_from_slice(&sum.to_le_bytes());
        }
        write(at, header);
    }
}
