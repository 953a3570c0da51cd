//! Files and images out of a snapshot.
use crate::document::{Image, Snapshot, Tree};
use crate::events::Events;
use crate::store::Store;
use crate::{Error, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Which entries of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// These paths, inside the tree (a leading slash is ignored), with everything below them.
    Paths(Vec<PathBuf>),
}

/// How files are extracted.
#[derive(Debug, Clone)]
pub struct ExtractOptions {
    /// Threads; the number of CPUs unless set.
    pub workers: usize,
    /// Keep owners, device nodes and inode flags; set when running as root.
    pub privileged: bool,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism()
            .map_or(2, usize::from)
            .min(16);
        ExtractOptions {
            workers,
            privileged: nix::unistd::geteuid().is_root(),
        }
    }
}

/// A file that is not, or not completely, as it was.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FileProblem {
    /// Path inside the tree.
    pub path: PathBuf,
    /// What went wrong.
    pub reason: String,
}

/// What came of an extraction.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ExtractReport {
    /// Entries of every kind that were made.
    pub entries: u64,
    /// Bytes of regular files that were written.
    pub bytes: u64,
    /// Files that are missing from the result: their data is damaged or could not be written.
    pub missing: Vec<FileProblem>,
    /// Files that are there, but without some of their metadata.
    pub incomplete_metadata: Vec<FileProblem>,
    /// Files whose content in the snapshot is doubtful: they changed or could not be read during the backup.
    pub doubtful: Vec<FileProblem>,
    /// Paths of the selection that the tree does not hold.
    pub not_found: Vec<PathBuf>,
    /// Blobs that were bad or missing in one store and taken from another.
    pub healed: u64,
}

impl ExtractReport {
    /// Was everything that was asked for restored, with its metadata?
    pub fn complete(&self) -> bool {
        self.missing.is_empty() && self.incomplete_metadata.is_empty() && self.not_found.is_empty()
    }
}

/// Extracts the selected entries of a tree into the directory `dest`, which exists. Several stores read as one.
pub fn extract(
    readers: &[&Store],
    _snapshot: &Snapshot,
    _tree: &Tree,
    _selection: &Selection,
    _dest: &Path,
    _options: &ExtractOptions,
    _events: &dyn Events,
) -> Result<ExtractReport> {
    let _ = readers;
    Err(Error::Internal("unfinished"))
}

/// Writes the selected entries as a tar archive with complete contents.
pub fn to_tar(
    _readers: &[&Store],
    _snapshot: &Snapshot,
    _tree: &Tree,
    _selection: &Selection,
    _out: &mut dyn Write,
    _events: &dyn Events,
) -> Result<ExtractReport> {
    Err(Error::Internal("unfinished"))
}

/// Writes a block image to a device or a file.
pub fn image_to(
    _readers: &[&Store],
    _image: &Image,
    _out: &std::fs::File,
    _events: &dyn Events,
) -> Result<()> {
    Err(Error::Internal("unfinished"))
}
