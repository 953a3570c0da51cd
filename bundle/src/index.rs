//! Which blob is in which pack: index files, and the compact map in memory.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::codec::{Encoding, pack_json, unpack_json};
use crate::crypt::{FileKind, StoreCipher};
use crate::format::{BlobEntry, FORMAT, Kind, Versioned, parse};
use crate::pack::{PackEntry, check_entries};
use crate::{Error, Id, Result, fsutil, parity};

/// The most an index file may expand to.
const MAX_INDEX: u64 = 1 << 30;
/// Packs per index file, so that none grows beyond what is quickly parsed.
pub(crate) const PACKS_PER_INDEX: usize = 64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexFile {
    format: u32,
    packs: Vec<PackEntry>,
}

impl Versioned for IndexFile {
    fn format(&self) -> u32 {
        self.format
    }
}

/// Writes index files for these packs; returns the bytes written.
pub(crate) fn write(root: &Path, packs: &[PackEntry], cipher: Option<&StoreCipher>) -> Result<u64> {
    Ok(write_files(root, packs, cipher)?
        .iter()
        .map(|(_, n)| n)
        .sum())
}

/// The same; returns the files with their sizes.
pub(crate) fn write_files(
    root: &Path,
    packs: &[PackEntry],
    cipher: Option<&StoreCipher>,
) -> Result<Vec<(PathBuf, u64)>> {
    let mut written = Vec::new();
    for group in packs.chunks(PACKS_PER_INDEX) {
        let index = IndexFile {
            format: FORMAT,
            packs: group.to_vec(),
        };
        let json = serde_json::to_vec(&index).map_err(|e| Error::malformed("a new index", e))?;
        let mut stored = pack_json(&json).map_err(Error::io("compress an index for", root))?;
        if let Some(cipher) = cipher {
            stored = cipher.seal(FileKind::Index, &stored)?;
        }
        let name = root.join("index").join(format!("{}.idx", Id::of(&stored)));
        fsutil::write_file(root, &name, &stored)?;
        parity::protect(root, &name)?;
        written.push((name, stored.len() as u64));
    }
    Ok(written)
}

/// Reads an index file whose name is its hash.
pub(crate) fn read(path: &Path, id: &Id, cipher: Option<&StoreCipher>) -> Result<Vec<PackEntry>> {
    let mut stored = fsutil::read_cold(path, MAX_INDEX)?;
    if Id::of(&stored) != *id {
        return Err(Error::malformed(
            path.display(),
            "its content does not have the hash that is its name",
        ));
    }
    if let Some(cipher) = cipher {
        let opened = cipher.open(FileKind::Index, &stored);
        stored = opened.map_err(|e| Error::malformed(path.display(), e))?;
    }
    let json = unpack_json(&stored, MAX_INDEX).map_err(|e| Error::malformed(path.display(), e))?;
    let index: IndexFile = parse(path, &json, FORMAT)?;
    for pack in &index.packs {
        check_entries(&pack.blobs, pack.size).map_err(|e| Error::malformed(path.display(), e))?;
    }
    Ok(index.packs)
}

/// The index files of a store with the ids that their names give.
pub(crate) fn files(root: &Path) -> Result<Vec<(PathBuf, Option<Id>)>> {
    let dir = root.join("index");
    let names = fsutil::names(&dir)?;
    let indexes = names.iter().filter_map(|name| {
        let stem = name.strip_suffix(".idx")?;
        Some((dir.join(name), stem.parse().ok()))
    });
    Ok(indexes.collect())
}

/// Where a blob lies: 52 bytes, so that a million blobs take 52 MB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub id: Id,
    /// Position in the store's list of packs.
    pub pack: u32,
    pub offset: u32,
    pub stored: u32,
    pub raw: u32,
    pub kind: Kind,
    pub codec: Encoding,
}

/// All locations, sorted by id; a blob may have several.
#[derive(Debug, Default)]
pub(crate) struct Map(Vec<Location>);

impl Map {
    pub(crate) fn push_pack(&mut self, pack: u32, blobs: &[BlobEntry]) {
        // The entries were checked to lie inside a pack of less than 4 GiB: the conversions cannot lose anything.
        self.0.extend(blobs.iter().map(|b| Location {
            id: b.id,
            pack,
            offset: b.offset as u32,
            stored: b.stored as u32,
            raw: b.raw as u32,
            kind: b.kind,
            codec: b.codec,
        }));
    }

    pub(crate) fn sort(&mut self) {
        self.0.sort_unstable_by_key(|l| (l.id, l.pack, l.offset));
        self.0.shrink_to_fit();
    }

    /// Every place that holds the blob.
    pub(crate) fn find(&self, id: &Id) -> &[Location] {
        &self.0[self.range(id)]
    }

    /// Where in [`Map::all`] they are.
    pub(crate) fn range(&self, id: &Id) -> Range<usize> {
        let start = self.0.partition_point(|l| l.id < *id);
        let length = self.0[start..].iter().take_while(|l| l.id == *id).count();
        start..start + length
    }

    pub(crate) fn all(&self) -> &[Location] {
        &self.0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Location> {
        self.0.iter()
    }
}
