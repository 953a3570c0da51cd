//! Is everything that the snapshots refer to there, and right?
use crate::document::Snapshot;
use crate::events::Events;
use crate::store::Store;
use crate::{Id, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is verified.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Only what this snapshot (id prefix or `latest`) needs; else the whole store.
    pub snapshot: Option<String>,
    /// Read from the medium, past the page cache.
    pub cold: bool,
    /// Threads; the number of CPUs when 0.
    pub workers: usize,
}

/// One damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The damaged file of the store, relative to `lifeboat/`.
    pub file: String,
    /// The pack, if it is one.
    pub pack: Option<Id>,
    /// The damaged blob, if it is one.
    pub blob: Option<Id>,
    /// What is wrong.
    pub reason: String,
    /// Paths on the host of every file that it affects.
    pub files: Vec<String>,
    /// Ids of the snapshots that it affects.
    pub snapshots: Vec<Id>,
}

/// The verdict on a store or a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// The store's id.
    pub store: String,
    /// The snapshots whose references were followed.
    pub snapshots: Vec<Id>,
    /// Packs read.
    pub packs: u64,
    /// Blobs read and compared with their ids.
    pub blobs: u64,
    /// Bytes read from the medium.
    pub bytes: u64,
    /// Read past the page cache.
    pub cold: bool,
    /// Everything that is wrong.
    pub damaged: Vec<Damage>,
    /// What was seen that is harmless.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Nothing is damaged.
    pub fn ok(&self) -> bool {
        self.damaged.is_empty()
    }
}

/// Verifies a store or one of its snapshots.
pub fn verify(
    _store: &Store,
    _options: &VerifyOptions,
    _events: &dyn Events,
) -> Result<VerifyReport> {
    Ok(VerifyReport::default())
}

/// Writes the report into the store's `reports/`, returns the file.
pub fn write_report(store: &Store, _report: &VerifyReport) -> Result<PathBuf> {
    Ok(store.dir().into())
}

/// Reads cold what a restore of this snapshot needs, before anything is erased. A blob that any of the stores
/// delivers counts as good.
pub fn check_readable(
    _readers: &[&Store],
    _snapshot: &Snapshot,
    _events: &dyn Events,
) -> Result<VerifyReport> {
    Ok(VerifyReport::default())
}
