//! VMA, the archive format of virtual machines on Proxmox VE: what `vzdump` writes, and what `qmrestore` takes.
//!
//! ```text
//! header   magic, version, uuid, time, MD5 │ names and places of ≤ 256 blobs │ ≤ 254 devices │ blob buffer
//! extent   magic, uuid, MD5, ≤ 59 × (device, cluster, which of its 16 blocks follow) │ those blocks, 4 KiB each
//! extent   ...
//! ```
//!
//! The facts (offsets, limits, what the writer of Proxmox VE does) are those of its `vma_spec.txt` and of what its
//! `vma` command was seen to write and take; each module cites the part that it reads. There is no index, no trailer and
//! no length: an archive ends where an extent ends. The clusters of all devices (64 KiB each) come in any order, each
//! exactly once; blocks of zeroes are left out.
//!
//! [`Reader`] takes an archive from a pipe, once and in order, and checks all that the format can prove; that the last
//! cluster was seen is known at the end only, so nothing that was read counts before [`Reader::finish`]. The sums cover
//! the headers: **the blocks have none**, so whoever keeps an archive as a file keeps a hash of it.
//! [`Writer`] makes an archive of the same content again. Neither seeks, and neither knows of stores or processes.

mod error;
mod extent;
mod header;
mod reader;
mod seen;
mod writer;

#[cfg(any(test, fuzzing))]
pub mod fuzz;

pub use error::{Error, ExtentFault, HeaderFault, Part, Result};
pub use header::{Config, Device, Header};
pub use reader::{Cluster, Content, Piece, Reader, Totals};
pub use writer::Writer;

/// The bytes of a block, which is stored or left out as a whole.
pub const BLOCK: usize = 4096;
/// The bytes of a cluster: the unit in which devices are read and written.
pub const CLUSTER: usize = 16 * BLOCK;

/// The length of the cluster at `offset` of a device: the last one may be shorter.
fn cluster_length(size: u64, offset: u64) -> usize {
    size.saturating_sub(offset).min(CLUSTER as u64) as usize
}
