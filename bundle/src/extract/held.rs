//! Segments and parts of the catalogue that are at hand, as a stream of files comes back to them: lines that list parts
//! of a few segments take turns, and first names of links that come before them lie elsewhere.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::Cache;
use crate::catalogue::{self, Finder};
use crate::document::Tree;
use crate::list::{Entry, EntryKind};
use crate::member::{self, Extra, Member};
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Id, bytes};

/// Bytes of segments. A directory of some GiB in small files, which had no room in memory when it was saved, alternates
/// between as many segments as it has parts of 128 MiB.
const SEGMENTS: usize = 256 << 20;
/// Bytes of the catalogue.
const LISTS: usize = 64 << 20;
/// About what a member or an entry takes beside its path.
const MEMBER: usize = 512;
const PLACE: usize = 128;

/// A segment, taken apart.
pub(super) struct Segment {
    content: Vec<u8>,
    members: HashMap<PathBuf, (Entry, Extra, Range<usize>)>,
}

impl Segment {
    /// Reads one, or says why not.
    pub(super) fn read(readers: &mut Readers<'_>, id: &Id) -> Result<Segment, String> {
        let content = readers.blob(id).map_err(|e| e.to_string())?;
        let mut members = HashMap::new();
        let start = content.as_ptr() as usize;
        member::read(&content, &mut |m| {
            let at = m.data.as_ptr() as usize - start;
            let data = at..at + m.data.len();
            members.insert(m.entry.path.clone(), (m.entry, m.extra, data));
        })?;
        Ok(Segment { content, members })
    }

    /// The member of this path.
    pub(super) fn member(&self, path: &Path) -> Option<Member<'_>> {
        let (entry, extra, data) = self.members.get(path)?;
        Some(Member {
            entry: entry.clone(),
            extra: extra.clone(),
            data: self.content.get(data.clone())?,
        })
    }

    fn cost(&self) -> usize {
        let extra = |e: &Extra| {
            e.xattrs
                .iter()
                .map(|(n, v)| n.len() + v.len())
                .sum::<usize>()
        };
        let members = self.members.values();
        let rest = members.map(|(e, x, _)| MEMBER + 2 * bytes::of(&e.path).len() + extra(x));
        self.content.len() + rest.sum::<usize>()
    }
}

/// What was read of a tree last.
pub(super) struct Held<'h> {
    tree: &'h Tree,
    readers: Readers<'h>,
    finder: Finder<'h>,
    segments: Cache<Id, Segment>,
    /// Segments of what is no link, by path, of a blob of the catalogue.
    lists: Cache<Id, HashMap<PathBuf, Id>>,
}

impl<'h> Held<'h> {
    pub(super) fn new(stores: &'h [&'h Store], tree: &'h Tree) -> Held<'h> {
        Held {
            tree,
            readers: Readers::new(stores),
            finder: Finder::new(Readers::new(stores), tree),
            segments: Cache::new(SEGMENTS),
            lists: Cache::new(LISTS),
        }
    }

    /// A segment, or why it cannot be read.
    pub(super) fn segment(&mut self, id: &Id) -> Result<Arc<Segment>, String> {
        let readers = &mut self.readers;
        self.segments.get(id, || {
            let segment = Segment::read(readers, id)?;
            let cost = segment.cost();
            Ok((segment, cost))
        })
    }

    /// The segment that holds what is no link, wherever it is.
    pub(super) fn home(&mut self, path: &Path) -> Result<Arc<Segment>, String> {
        let range = self.finder.blobs(bytes::of(path), false);
        for id in self.tree.catalogue.get(range).unwrap_or_default() {
            let readers = &mut self.readers;
            let Ok(list) = self.lists.get(id, || list(readers, id)) else {
                continue;
            };
            if let Some(segment) = list.get(path) {
                return self.segment(segment);
            }
        }
        Err(format!(
            "its first name, {}, is not in the catalogue",
            path.display()
        ))
    }

    /// Blobs that were bad in one place and taken from another.
    pub(super) fn healed(&self) -> u64 {
        self.readers.healed
    }
}

fn list(readers: &mut Readers<'_>, id: &Id) -> Result<(HashMap<PathBuf, Id>, usize), Error> {
    let lines = catalogue::parse(id, &readers.blob(id)?)?;
    let mut list = HashMap::new();
    for line in lines {
        let kept = |e: &Entry| e.kind != EntryKind::Hardlink && e.is_kept();
        let entries = line.entries.into_iter().filter(kept);
        list.extend(entries.map(|e| (e.path, line.segment)));
    }
    let cost = list.keys().map(|p| PLACE + bytes::of(p).len()).sum();
    Ok((list, cost))
}
