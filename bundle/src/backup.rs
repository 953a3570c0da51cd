//! Writing a snapshot to one or more stores.
use crate::document::{Image, SnapshotDraft, Tree};
use crate::events::Events;
use crate::exclude::Exclusions;
use crate::store::Store;
use crate::{Error, Id, Result};
use std::path::PathBuf;

/// How blobs are compressed; raw is used anyway where compression does not pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Zstandard, level 1 to 19.
    Zstd(i32),
    /// xz, level 0 to 9: small and slow.
    Xz(u32),
    /// None.
    Raw,
}

/// How a backup is made.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Compression, `Zstd(3)` unless set.
    pub compression: Codec,
    /// Threads that compress; as many again read. The number of CPUs unless set.
    pub workers: usize,
    /// Packs end at the first blob beyond this many bytes; 128 MiB unless set.
    pub pack_size: u64,
}

impl Default for BackupOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism()
            .map_or(2, usize::from)
            .min(16);
        BackupOptions {
            compression: Codec::Zstd(3),
            workers,
            pack_size: 128 << 20,
        }
    }
}

/// A file system to read.
#[derive(Debug, Clone)]
pub struct TreeSource {
    /// Where its files are read: the mount point, or the mount of a snapshot of it.
    pub root: PathBuf,
    /// Where it belongs on the host: `/`, `/var`.
    pub mount_point: PathBuf,
    /// What is left out; patterns see paths on the host (below `mount_point`).
    pub exclude: Exclusions,
}

/// A block device to read.
#[derive(Debug, Clone)]
pub struct ImageSource {
    /// The layout's node.
    pub node: String,
    /// The device, or a file.
    pub path: PathBuf,
}

/// What became of one target.
#[derive(Debug)]
pub struct TargetResult {
    /// The target.
    pub dir: PathBuf,
    /// The snapshot's id, or why there is none.
    pub snapshot: Result<Id>,
    /// Bytes written to it: packs, index and document.
    pub bytes_written: u64,
    /// Blobs that were new to it.
    pub new_blobs: u64,
    /// Blobs that it held already.
    pub known_blobs: u64,
}

/// A backup under way.
pub struct Backup<'e> {
    _events: &'e dyn Events,
}

impl<'e> Backup<'e> {
    /// Begins a backup to `targets`, which are opened for writing.
    pub fn start(
        _targets: Vec<Store>,
        _options: BackupOptions,
        events: &'e dyn Events,
    ) -> Result<Backup<'e>> {
        Ok(Backup { _events: events })
    }
    /// Stores the files of one file system.
    pub fn tree(&mut self, _source: &TreeSource) -> Result<Tree> {
        Err(Error::Internal("unfinished"))
    }
    /// Stores a block device's content.
    pub fn image(&mut self, _source: &ImageSource) -> Result<Image> {
        Err(Error::Internal("unfinished"))
    }
    /// Writes index and snapshot document to every target; the stores are closed.
    pub fn commit(self, _draft: SnapshotDraft) -> Vec<TargetResult> {
        Vec::new()
    }
}
