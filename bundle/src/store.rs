//! A store on a target.
use crate::document::{Snapshot, SnapshotHeader};
use crate::{Error, Id, Result};
use std::path::{Path, PathBuf};

/// How a store is made.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StoreOptions {}

/// The deduplicated data on one target, in `<dir>/lifeboat`.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    id: String,
}

/// A snapshot document that is not what its name says, or that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DamagedDocument {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl Store {
    /// Makes an empty store in `<dir>/lifeboat` and opens it for writing.
    pub fn create(dir: &Path, _options: &StoreOptions) -> Result<Store> {
        Err(Error::NoStore { dir: dir.into() })
    }
    /// Opens for writing: takes the store's lock until dropped, removes what a killed writer left.
    pub fn open(dir: &Path) -> Result<Store> {
        Err(Error::NoStore { dir: dir.into() })
    }
    /// Opens for reading; needs no write permission and no lock.
    pub fn open_read_only(dir: &Path) -> Result<Store> {
        Err(Error::NoStore { dir: dir.into() })
    }
    /// The store's id, a UUID.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// The target directory, the one that holds `lifeboat/`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The snapshots, oldest first. Damaged documents are not among them, see [`Store::damaged_documents`].
    pub fn snapshots(&self) -> Result<Vec<SnapshotHeader>> {
        Ok(Vec::new())
    }
    /// Snapshot documents that cannot be used, with the reason.
    pub fn damaged_documents(&self) -> Result<Vec<DamagedDocument>> {
        Ok(Vec::new())
    }
    /// The snapshot whose id begins with `wanted`, or the newest for `latest`.
    pub fn snapshot(&self, wanted: &str) -> Result<(Id, Snapshot)> {
        Err(Error::NoSnapshot {
            wanted: wanted.into(),
            dir: self.dir.clone(),
        })
    }
    /// Sizes of the store.
    pub fn stats(&self) -> StoreStats {
        StoreStats::default()
    }
}

/// Sizes of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct StoreStats {
    /// Number of packs.
    pub packs: u64,
    /// Number of blobs.
    pub blobs: u64,
    /// Bytes of plain content of all blobs.
    pub raw_bytes: u64,
    /// Bytes on the medium of all packs.
    pub stored_bytes: u64,
}
