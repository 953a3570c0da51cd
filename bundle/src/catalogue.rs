//! The catalogue of a tree: JSON lines, one per segment, in blobs of their own.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::document::Tree;
use crate::list::{Entry, EntryKind, EntryState};
use crate::read::Readers;
use crate::{Error, Id, Result, bytes};

/// Catalogue blobs end about every so many bytes, at a line that its segment's id chooses.
const TARGET: u64 = 512 << 10;
/// A catalogue blob of this size takes no further line.
const MAX: usize = 4 << 20;

/// An entry as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    #[serde(rename = "type")]
    kind: EntryKind,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    ctime: (i64, u32),
    ino: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rdev: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<EntryState>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Text when it can be, base64 otherwise. Control characters would take six bytes each as JSON text.
fn to_text(raw: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(raw) {
        Ok(text) if !text.bytes().any(|b| b < b' ') => (Some(text.to_string()), None),
        _ => (None, Some(bytes::to_base64(raw))),
    }
}

fn from_text(
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Vec<u8>>, &'static str> {
    match (text, base64) {
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => bytes::from_base64(&base64)
            .map(Some)
            .ok_or("a path is not base64"),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err("a path is given twice"),
    }
}

impl From<&Entry> for WireEntry {
    fn from(entry: &Entry) -> WireEntry {
        let (path, path_b64) = to_text(bytes::of(&entry.path));
        let (target, target_b64) = entry
            .target
            .as_deref()
            .map_or((None, None), |t| to_text(bytes::of(t)));
        WireEntry {
            path,
            path_b64,
            kind: entry.kind,
            size: entry.size,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            ctime: entry.ctime,
            ino: entry.ino,
            rdev: entry.rdev,
            target,
            target_b64,
            content: entry.content,
            state: entry.state,
        }
    }
}

impl WireEntry {
    fn into_entry(self) -> Result<Entry, &'static str> {
        let path = from_text(self.path, self.path_b64)?.ok_or("an entry has no path")?;
        if !bytes::is_inside(&path) {
            return Err("a path leads out of the tree");
        }
        let target = from_text(self.target, self.target_b64)?;
        if self.kind == EntryKind::Hardlink && !target.as_deref().is_some_and(bytes::is_inside) {
            return Err("a hard link leads out of the tree");
        }
        Ok(Entry {
            path: bytes::path(&path),
            kind: self.kind,
            size: self.size,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            ctime: self.ctime,
            ino: self.ino,
            rdev: self.rdev,
            target: target.map(|t| bytes::path(&t)),
            content: self.content,
            state: self.state,
        })
    }
}

#[derive(Serialize)]
struct WireLineOut<'a> {
    segment: Id,
    raw: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    part: bool,
    entries: &'a [WireEntry],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLineIn {
    segment: Id,
    raw: u64,
    #[serde(default)]
    part: bool,
    entries: Vec<WireEntry>,
}

/// A segment and its entries.
#[derive(Debug)]
pub(crate) struct Line {
    pub segment: Id,
    /// Bytes of the segment.
    pub raw: u64,
    /// Only some of the segment's members count: those that the entries name. Other lines may name more of them.
    pub part: bool,
    pub entries: Vec<Entry>,
}

/// Writes the line of a segment whose members are all listed.
pub(crate) fn line(segment: Id, raw: u64, entries: &[Entry]) -> serde_json::Result<Vec<u8>> {
    write(segment, raw, false, entries)
}

/// Writes a line that lists some of a segment's members: the others do not count, or are in other lines.
pub(crate) fn line_of_part(
    segment: Id,
    raw: u64,
    entries: &[Entry],
) -> serde_json::Result<Vec<u8>> {
    write(segment, raw, true, entries)
}

fn write(segment: Id, raw: u64, part: bool, entries: &[Entry]) -> serde_json::Result<Vec<u8>> {
    let entries: Vec<_> = entries.iter().map(WireEntry::from).collect();
    let mut json = serde_json::to_vec(&WireLineOut {
        segment,
        raw,
        part,
        entries: &entries,
    })?;
    json.push(b'\n');
    Ok(json)
}

/// Collects lines into blobs.
#[derive(Default)]
pub(crate) struct Builder {
    pending: Vec<u8>,
}

impl Builder {
    /// Adds a line; returns a blob's content when one is complete. The end depends on the lines near it only, so that
    /// an unchanged part of a tree gives the same blobs again.
    pub(crate) fn push(&mut self, segment: &Id, line: &[u8]) -> Option<Vec<u8>> {
        self.pending.extend_from_slice(line);
        let ends =
            self.pending.len() >= MAX || boundary(segment.leading(), line.len() as u64, TARGET);
        ends.then(|| std::mem::take(&mut self.pending))
    }

    /// The last blob's content, if there is any.
    pub(crate) fn finish(self) -> Option<Vec<u8>> {
        (!self.pending.is_empty()).then_some(self.pending)
    }
}

/// Does something end here? True with probability `size / target` when `hash` is uniformly distributed, so that
/// boundaries are `target` bytes apart on average and each depends on one element only.
pub(crate) fn boundary(hash: u64, size: u64, target: u64) -> bool {
    u128::from(hash) * u128::from(target) < u128::from(size) << 64
}

/// Reads the lines of a tree's catalogue, one blob at a time.
pub(crate) struct Catalogue<'s> {
    readers: Readers<'s>,
    blobs: std::slice::Iter<'s, Id>,
    pending: std::vec::IntoIter<Line>,
}

impl<'s> Catalogue<'s> {
    pub(crate) fn new(readers: Readers<'s>, tree: &'s Tree) -> Catalogue<'s> {
        Catalogue::of(readers, &tree.catalogue)
    }

    /// Some of a tree's blobs.
    pub(crate) fn of(readers: Readers<'s>, blobs: &'s [Id]) -> Catalogue<'s> {
        Catalogue {
            readers,
            blobs: blobs.iter(),
            pending: Vec::new().into_iter(),
        }
    }
}

/// Finds the blobs of a catalogue that can hold a path, by halving: a tree is in order.
pub(crate) struct Finder<'s> {
    readers: Readers<'s>,
    blobs: &'s [Id],
    firsts: HashMap<usize, Vec<u8>>,
}

impl<'s> Finder<'s> {
    pub(crate) fn new(readers: Readers<'s>, tree: &'s Tree) -> Finder<'s> {
        Finder {
            readers,
            blobs: &tree.catalogue,
            firsts: HashMap::new(),
        }
    }

    /// The blobs that can hold `path` and, where `deep`, what is below it. All of them where one on the way cannot be
    /// read: who goes through them meets the damage and says so.
    pub(crate) fn blobs(&mut self, path: &[u8], deep: bool) -> Range<usize> {
        self.range(path, deep).unwrap_or(0..self.blobs.len())
    }

    fn range(&mut self, path: &[u8], deep: bool) -> Option<Range<usize>> {
        let after = self.search(|first| bytes::tree_order(first, path).is_le())?;
        let start = after.saturating_sub(1);
        let end = if deep {
            self.search(|first| {
                bytes::tree_order(first, path).is_le() || bytes::is_below(first, path)
            })?
        } else {
            after
        };
        Some(start..end.max(start))
    }

    /// The number of blobs, from the first, whose first path is one for which `before` holds.
    fn search(&mut self, before: impl Fn(&[u8]) -> bool) -> Option<usize> {
        let (mut low, mut high) = (0, self.blobs.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.first(middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(low)
    }

    fn first(&mut self, at: usize) -> Option<&[u8]> {
        if !self.firsts.contains_key(&at) {
            let json = self.readers.blob(&self.blobs[at]).ok()?;
            let line = json.split(|b| *b == b'\n').find(|t| !t.is_empty())?;
            let first = parse(&self.blobs[at], line).ok()?.pop()?.entries;
            let path = bytes::of(&first.first()?.path).to_vec();
            self.firsts.insert(at, path);
        }
        self.firsts.get(&at).map(Vec::as_slice)
    }
}

impl Iterator for Catalogue<'_> {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Result<Line>> {
        loop {
            if let Some(line) = self.pending.next() {
                return Some(Ok(line));
            }
            let id = self.blobs.next()?;
            let parsed = self.readers.blob(id).and_then(|json| parse(id, &json));
            match parsed {
                Ok(lines) => self.pending = lines.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The path of a line's first entry; `None` where that cannot be said without taking it apart.
pub(crate) fn first_path(line: &[u8]) -> Option<Vec<u8>> {
    const MARK: &[u8] = b"\"entries\":[";
    let at = line.windows(MARK.len()).take(200).position(|w| w == MARK)? + MARK.len();
    let mut entries = serde_json::Deserializer::from_slice(&line[at..]).into_iter::<WireEntry>();
    let entry = entries.next()?.ok()?;
    from_text(entry.path, entry.path_b64).ok()?
}

/// The lines of one catalogue blob.
pub(crate) fn parse(id: &Id, json: &[u8]) -> Result<Vec<Line>> {
    let damaged = |reason: String| Error::malformed(format!("catalogue {}", id.short()), reason);
    let mut lines = Vec::new();
    for text in json.split(|b| *b == b'\n').filter(|t| !t.is_empty()) {
        let wire: WireLineIn = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
        let entries = wire
            .entries
            .into_iter()
            .map(WireEntry::into_entry)
            .collect::<Result<_, _>>();
        lines.push(Line {
            segment: wire.segment,
            raw: wire.raw,
            part: wire.part,
            entries: entries.map_err(|e| damaged(e.to_string()))?,
        });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::{Backup, BackupOptions, TreeSource};
    use crate::events::Silent;
    use crate::exclude::Exclusions;
    use crate::list;
    use crate::store::{Store, StoreOptions};
    use std::path::Path;

    #[test]
    fn a_path_is_found_without_reading_the_whole_catalogue() {
        let dir = tempfile::tempdir().unwrap();
        let (root, target) = (dir.path().join("root"), dir.path().join("store"));
        std::fs::create_dir(&target).unwrap();
        // Long names fill a catalogue with few files.
        for outer in 0..24 {
            let sub = root.join(format!("{outer:02}/{}", "d".repeat(200)));
            std::fs::create_dir_all(&sub).unwrap();
            for inner in 0..500 {
                std::fs::write(
                    sub.join(format!("{inner:03}{}", "f".repeat(200))),
                    [1; 4000],
                )
                .unwrap();
            }
        }
        let store = Store::create(&target, &StoreOptions::default()).unwrap();
        let mut backup = Backup::start(vec![store], BackupOptions::default(), &Silent).unwrap();
        let source = TreeSource {
            root,
            mount_point: "/".into(),
            exclude: Exclusions::none(),
            filesystem: None,
            instead: Default::default(),
        };
        let tree = backup.tree(&source).unwrap();
        assert!(
            backup.commit(crate::backup::tests::draft(vec![tree.clone()]))[0]
                .snapshot
                .is_ok()
        );
        let store = Store::open_read_only(&target).unwrap();
        let stores = [&store];
        let blobs = tree.catalogue.len();
        assert!(blobs >= 5, "{blobs} blobs are too few to tell");

        let all: Vec<Entry> = list::entries(&stores, &tree)
            .collect::<Result<_>>()
            .unwrap();
        for entry in all.iter().step_by(397).chain(&all[..14]).chain(all.last()) {
            let mut finder = Finder::new(Readers::new(&stores), &tree);
            let found = finder.blobs(bytes::of(&entry.path), false);
            assert_eq!(found.len(), 1);
            assert!(
                finder.firsts.len() < blobs,
                "{} of {blobs}",
                finder.firsts.len()
            );
            for deep in [false, true] {
                let found: Vec<Entry> = list::below(&stores, &tree, &entry.path, deep)
                    .collect::<Result<_>>()
                    .unwrap();
                let expected = all.iter().filter(|e| {
                    let root = entry.path == Path::new(".");
                    e.path == entry.path || (deep && (root || e.path.starts_with(&entry.path)))
                });
                assert!(found.iter().eq(expected), "{:?} {deep}", entry.path);
            }
        }
        for nothing in ["0", "00/e", "zz", "05/no such file"] {
            assert_eq!(
                list::below(&stores, &tree, Path::new(nothing), true).count(),
                0
            );
        }
        // Where a blob on the way is lost, everything is looked at, and the loss is said.
        let mut damaged = tree.clone();
        damaged.catalogue[blobs / 2] = Id::of(b"lost");
        let found = list::below(&stores, &damaged, &all[1].path, false);
        let (good, bad): (Vec<_>, Vec<_>) = found.partition(Result::is_ok);
        assert_eq!((good.len(), bad.len()), (1, 1));
    }
}
