//! The 512 bytes before the blocks of an extent (Proxmox `vma_spec`, facts):
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | "VMAE" |
//! | 4 | 2 | reserved, 0 |
//! | 6 | 2 | how many blocks follow |
//! | 8 | 16 | UUID of the archive |
//! | 24 | 16 | MD5 of the 512 bytes, with zeroes here |
//! | 40 | 472 | 59 entries, a number of 64 bits each: which blocks are stored (16 bits, the lowest is the first block), reserved (8), device (8, 0: the entry is not in use), cluster (32) |
//!
//! All numbers are big-endian.

use md5::{Digest, Md5};
use uuid::Uuid;

use crate::ExtentFault;
use crate::header::{be16, sum_with_hole};

/// The length of an extent's header.
pub(crate) const HEADER: usize = 512;
/// How many clusters an extent can have.
pub(crate) const ENTRIES: usize = 59;

const MAGIC: [u8; 4] = *b"VMAE";
const SUM: usize = 24;
const TABLE: usize = 40;

/// A cluster in an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Which of the 59 it is.
    pub(crate) number: usize,
    pub(crate) device: u8,
    pub(crate) cluster: u32,
    /// The blocks that are stored, the lowest bit for the first; the others are zeroes.
    pub(crate) mask: u16,
}

/// Reads the header of an extent: its clusters, in the order of their blocks.
pub(crate) fn decode(bytes: &[u8; HEADER], uuid: Uuid) -> Result<Vec<Entry>, ExtentFault> {
    if bytes[..4] != MAGIC {
        return Err(ExtentFault::Magic);
    }
    if sum_with_hole(bytes, SUM) != bytes[SUM..SUM + 16] {
        return Err(ExtentFault::Sum);
    }
    if bytes[8..24] != *uuid.as_bytes() {
        return Err(ExtentFault::Uuid);
    }
    if bytes[4..6] != [0; 2] {
        return Err(ExtentFault::Reserved);
    }
    let mut entries = Vec::with_capacity(ENTRIES);
    let mut listed = 0;
    for (number, entry) in bytes[TABLE..].chunks_exact(8).enumerate() {
        let mask = be16(entry, 0);
        let (reserved, device) = (entry[2], entry[3]);
        let cluster = u32::from_be_bytes([entry[4], entry[5], entry[6], entry[7]]);
        if reserved != 0 {
            return Err(ExtentFault::Reserved);
        }
        if device == 0 {
            // An unused one between others is allowed, but blocks that nobody asks for would shift all that follow.
            if mask != 0 {
                return Err(ExtentFault::NoDevice { entry: number });
            }
            continue;
        }
        listed += mask.count_ones() as u16;
        entries.push(Entry {
            number,
            device,
            cluster,
            mask,
        });
    }
    let announced = be16(bytes, 6);
    if announced != listed {
        return Err(ExtentFault::Blocks { announced, listed });
    }
    Ok(entries)
}

/// The header of an extent with these clusters: as many as there is room for, at most.
pub(crate) fn encode(entries: &[Entry], uuid: Uuid) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..4].copy_from_slice(&MAGIC);
    let blocks: u32 = entries.iter().map(|entry| entry.mask.count_ones()).sum();
    bytes[6..8].copy_from_slice(&(blocks as u16).to_be_bytes());
    bytes[8..24].copy_from_slice(uuid.as_bytes());
    for (at, entry) in bytes[TABLE..].chunks_exact_mut(8).zip(entries) {
        at[..2].copy_from_slice(&entry.mask.to_be_bytes());
        at[3] = entry.device;
        at[4..].copy_from_slice(&entry.cluster.to_be_bytes());
    }
    let sum = Md5::digest(bytes);
    bytes[SUM..SUM + 16].copy_from_slice(&sum);
    bytes
}
