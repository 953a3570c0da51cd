//! Files and images out of a snapshot.

mod blocks;
mod dest;
mod gnu;
mod held;
mod image;
mod plan;
mod run;
mod stream;
mod tar_out;

pub use blocks::Block;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::document::guest::GuestKind;
use crate::document::{Image, Snapshot, Tree};
use crate::events::Events;
use crate::store::Store;
use crate::{Error, Result, bytes};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileProblem {
    /// Path inside the tree.
    pub path: PathBuf,
    /// What went wrong.
    pub reason: String,
}

/// What came of an extraction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ExtractReport {
    /// Entries of every kind that were made.
    pub entries: u64,
    /// Bytes of regular files that were written.
    pub bytes: u64,
    /// Files that are missing from the result: their data is damaged or could not be written.
    pub missing: Vec<FileProblem>,
    /// Files that are there, but without some of their metadata.
    pub incomplete_metadata: Vec<FileProblem>,
    /// Files whose content in the snapshot is doubtful: they changed, vanished or could not be read during the backup.
    pub doubtful: Vec<FileProblem>,
    /// Paths of the selection that the tree does not hold.
    pub not_found: Vec<PathBuf>,
    /// Blobs that were bad or missing in one place and taken from another.
    pub healed: u64,
}

impl ExtractReport {
    /// Was everything that the snapshot holds of the selection restored, with its metadata?
    pub fn complete(&self) -> bool {
        self.missing.is_empty() && self.incomplete_metadata.is_empty() && self.not_found.is_empty()
    }
}

/// Extracts the selected entries of a tree into the directory `dest`, which exists. Several stores read as one: a bad
/// or missing blob is taken from the next. A file whose data is damaged everywhere is left out and named in the report.
pub fn extract(
    readers: &[&Store],
    _snapshot: &Snapshot,
    tree: &Tree,
    selection: &Selection,
    dest: &Path,
    options: &ExtractOptions,
    events: &dyn Events,
) -> Result<ExtractReport> {
    run::extract(readers, tree, selection, dest, options, events)
}

/// Writes the selected entries as a tar archive (PAX, as GNU tar reads it) with complete contents. Inode flags are
/// not in it: tar has no place for them.
pub fn to_tar(
    readers: &[&Store],
    _snapshot: &Snapshot,
    tree: &Tree,
    selection: &Selection,
    out: &mut dyn Write,
    events: &dyn Events,
) -> Result<ExtractReport> {
    stream::to_tar(readers, tree, selection, out, events)
}

/// Writes the dump of a container as the archive that it came from: uncompressed, as `pct restore` takes it from its
/// standard input. When a file is lost, the archive ends with what GNU tar takes for a damage, and the error names the
/// file; of an archive that is not ended, GNU tar would not notice that something is missing.
pub fn guest_tar(
    readers: &[&Store],
    snapshot: &Snapshot,
    out: &mut dyn Write,
    events: &dyn Events,
) -> Result<ExtractReport> {
    guest(readers, snapshot, false, out, events)
}

/// The same without the files that are lost, which are named in the report.
pub fn guest_tar_with_losses(
    readers: &[&Store],
    snapshot: &Snapshot,
    out: &mut dyn Write,
    events: &dyn Events,
) -> Result<ExtractReport> {
    guest(readers, snapshot, true, out, events)
}

fn guest(
    readers: &[&Store],
    snapshot: &Snapshot,
    accept_losses: bool,
    out: &mut dyn Write,
    events: &dyn Events,
) -> Result<ExtractReport> {
    let no_container = |reason| Error::malformed("the dump of a container", reason);
    let dump = snapshot.guest.as_ref();
    let dump = dump
        .filter(|g| g.kind == GuestKind::Lxc)
        .ok_or_else(|| no_container("the restore point is not one"))?;
    let [tree] = &snapshot.trees[..] else {
        return Err(no_container("it has not one tree"));
    };
    if let Some(config) = dump.configs.iter().find(|c| !is_config(&c.name)) {
        return Err(no_container(&format!(
            "{:?} is no name of a configuration",
            config.name
        )));
    }
    let milliseconds = crate::time::parse(&dump.dumped).unwrap_or_default();
    let first = (&dump.configs[..], (milliseconds.div_euclid(1000), 0));
    let form = tar_out::Form::Guest { accept_losses };
    stream::tar(readers, tree, &Selection::All, first, form, out, events)
}

fn is_config(name: &str) -> bool {
    name != "." && bytes::is_inside(name.as_bytes())
}

/// Writes a block image to a device or a file. Holes become zeroes on a device and stay holes in a file. Damaged parts
/// are zeroes, and the result is an error that names the first of them.
pub fn image_to(
    readers: &[&Store],
    image: &Image,
    out: &std::fs::File,
    events: &dyn Events,
) -> Result<()> {
    image::image_to(readers, image, out, events)
}

/// Reads several images at once, in one pass over the packs: `each` gets the number of the image, an offset in it and what
/// is there. Parts come in any order, each exactly once; each begins at a multiple of `unit` (not 0) and ends at one, or
/// at the end of its image. An image that is stored in pieces of other lengths is read from its beginning to its end and
/// cut anew. The first blob that is damaged in every store is the error, which names image and offset; what was given
/// before is good.
pub fn blocks(
    readers: &[&Store],
    images: &[Image],
    unit: u64,
    events: &dyn Events,
    each: &mut dyn FnMut(usize, u64, Block<'_>) -> Result<()>,
) -> Result<()> {
    blocks::blocks(readers, images, unit.max(1), events, each)
}

#[cfg(test)]
mod tests;
