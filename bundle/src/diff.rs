//! What changed between two snapshots.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cache::Cache;
use crate::catalogue::{Catalogue, Finder};
use crate::document::{Image, Snapshot, Tree};
use crate::events::Events;
use crate::list::{self, Entry, EntryKind};
use crate::member::{self, Extra};
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Id, Result, bytes};

/// Bytes of segments' attributes and hashes that are kept, and about what each member takes.
const SEGMENTS: usize = 64 << 20;
const MEMBER: usize = 160;

/// What is different about an entry that both snapshots have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Another kind of file, or another device.
    Type,
    /// The content of a file, or where its holes are.
    Content,
    /// Permissions.
    Mode,
    /// Owner or group.
    Owner,
    /// Time of last modification.
    Times,
    /// Where a symbolic link leads, or of which file a hard link is another name.
    Links,
    /// Extended attributes (ACLs and capabilities among them) or inode flags.
    Attributes,
    /// How far the backup could read it.
    State,
}

/// One difference. Paths are those of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
#[allow(clippy::large_enum_variant, reason = "made one at a time, never kept")]
pub enum Change {
    /// Only the second snapshot has it.
    Added {
        /// Where.
        #[serde(serialize_with = "lossy")]
        path: PathBuf,
        /// The entry.
        after: Entry,
    },
    /// Only the first snapshot has it.
    Removed {
        /// Where.
        #[serde(serialize_with = "lossy")]
        path: PathBuf,
        /// The entry.
        before: Entry,
    },
    /// Both have it, not the same.
    Changed {
        /// Where.
        #[serde(serialize_with = "lossy")]
        path: PathBuf,
        /// In which respects.
        what: Vec<What>,
        /// The entry in the first snapshot.
        before: Entry,
        /// The entry in the second.
        after: Entry,
    },
    /// The image of a block device, in one snapshot only or in both.
    Image {
        /// The layout's node.
        node: String,
        /// Its size in the first snapshot.
        before: Option<u64>,
        /// Its size in the second.
        after: Option<u64>,
    },
}

/// JSON has no bytes; the exact path inside the tree is in the entry.
fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// What came of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DiffReport {
    /// Entries and images that only the second snapshot has.
    pub added: u64,
    /// Entries and images that only the first has.
    pub removed: u64,
    /// Entries and images that are not the same.
    pub changed: u64,
    /// Parts that could not be compared, with the reason.
    pub lost: Vec<String>,
}

/// Compares two snapshots, at and below `path` or wholly, and tells `each` every difference in the order of the trees;
/// where `each` returns false, it ends. Holds attributes and hashes of a few segments at a time. Parts of the catalogue and segments
/// that both have are passed over unread.
pub fn diff(
    readers: &[&Store],
    a: &Snapshot,
    b: &Snapshot,
    path: Option<&Path>,
    events: &dyn Events,
    each: &mut dyn FnMut(Change) -> bool,
) -> Result<DiffReport> {
    let mut diff = Diff {
        stores: readers,
        report: DiffReport::default(),
        events,
        each,
        segments: Cache::new(SEGMENTS),
        go_on: true,
    };
    let mut mount_points: Vec<&str> = Vec::new();
    for tree in a.trees.iter().chain(&b.trees) {
        if !mount_points.contains(&tree.mount_point.as_str()) {
            mount_points.push(&tree.mount_point);
        }
    }
    for mount_point in mount_points {
        let of = |s: &'_ Snapshot| s.trees.iter().position(|t| t.mount_point == mount_point);
        let trees = [of(a).map(|i| &a.trees[i]), of(b).map(|i| &b.trees[i])];
        let within = match path {
            None => b".".to_vec(),
            Some(path) if Path::new(mount_point).starts_with(path) => b".".to_vec(),
            Some(path) => match path.strip_prefix(mount_point) {
                Ok(rest) => list::inside(rest),
                Err(_) => continue,
            },
        };
        diff.trees(Path::new(mount_point), trees, &within)?;
    }
    if path.is_none() {
        diff.images(&a.images, &b.images);
    }
    Ok(diff.report)
}

/// Attributes and hashes of the content of a segment's members.
type Members = HashMap<Vec<u8>, (Extra, Id)>;

/// Of a segment, with about the memory that they take.
fn members(stores: &[&Store], id: &Id) -> Result<(Members, usize)> {
    let content = Readers::new(stores).blob(id)?;
    let (mut members, mut cost) = (Members::new(), 0);
    member::read(&content, &mut |m| {
        let path = bytes::of(&m.entry.path).to_vec();
        let attributes = m.extra.xattrs.iter().map(|(n, v)| n.len() + v.len());
        cost += MEMBER + path.len() + attributes.sum::<usize>();
        members.insert(path, (m.extra, Id::of(m.data)));
    })
    .map_err(|reason| Error::malformed(format!("segment {}", id.short()), reason))?;
    Ok((members, cost))
}

/// Goes through the lines of one side.
struct Cursor<'s> {
    lines: Catalogue<'s>,
    segment: Option<Id>,
    entries: std::iter::Peekable<std::vec::IntoIter<Entry>>,
    /// The line stands for all of its segment, and nothing of it was taken yet.
    whole: bool,
}

impl<'s> Cursor<'s> {
    fn new(stores: &'s [&'s Store], blobs: &'s [Id]) -> Cursor<'s> {
        Cursor {
            lines: Catalogue::of(Readers::new(stores), blobs),
            segment: None,
            entries: Vec::new().into_iter().peekable(),
            whole: false,
        }
    }

    /// Goes to the next entry that is kept and within the path; false at the end.
    fn settle(&mut self, within: &[u8], lost: &mut Vec<String>) -> bool {
        loop {
            while let Some(entry) = self.entries.peek() {
                if bytes::is_below(bytes::of(&entry.path), within) {
                    return true;
                }
                self.entries.next();
                self.whole = false;
            }
            match self.lines.next() {
                Some(Ok(line)) => {
                    self.segment = Some(line.segment);
                    self.entries = line.entries.into_iter().peekable();
                    self.whole = !line.part;
                }
                Some(Err(error)) => lost.push(format!(
                    "a part of the catalogue is lost, and what it lists seems added or removed: {error}"
                )),
                None => return false,
            }
        }
    }

    fn take(&mut self) -> Option<Entry> {
        self.whole = false;
        self.entries.next()
    }

    fn skip_line(&mut self) {
        self.entries = Vec::new().into_iter().peekable();
    }
}

struct Diff<'d> {
    stores: &'d [&'d Store],
    report: DiffReport,
    events: &'d dyn Events,
    each: &'d mut dyn FnMut(Change) -> bool,
    /// Lines that list parts of a few segments take turns.
    segments: Cache<Id, Members>,
    go_on: bool,
}

impl Diff<'_> {
    fn trees(&mut self, at: &Path, trees: [Option<&Tree>; 2], within: &[u8]) -> Result<()> {
        let stores = self.stores;
        let [a, b] = trees.map(|tree| {
            tree.map_or(&[][..], |tree| {
                &tree.catalogue[Finder::new(Readers::new(stores), tree).blobs(within, true)]
            })
        });
        for (a, b) in gaps(a, b) {
            self.merge(at, Cursor::new(stores, a), Cursor::new(stores, b), within)?;
        }
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Path,
        mut a: Cursor<'_>,
        mut b: Cursor<'_>,
        within: &[u8],
    ) -> Result<()> {
        use std::cmp::Ordering::{Equal, Greater, Less};
        while self.go_on {
            if self.events.cancelled() {
                return Err(Error::Cancelled);
            }
            let lost = &mut self.report.lost;
            let here = [a.settle(within, lost), b.settle(within, lost)];
            let order = match (a.entries.peek(), b.entries.peek()) {
                _ if here == [false, false] => break,
                (Some(a), Some(b)) => bytes::tree_order(bytes::of(&a.path), bytes::of(&b.path)),
                (Some(_), None) => Less,
                _ => Greater,
            };
            if order == Equal && a.whole && b.whole && a.segment == b.segment {
                a.skip_line();
                b.skip_line();
                continue;
            }
            let before = if order == Greater { None } else { a.take() };
            let after = if order == Less { None } else { b.take() };
            let segments = [a.segment, b.segment];
            self.entry(
                at,
                before.filter(Entry::is_kept),
                after.filter(Entry::is_kept),
                segments,
            );
        }
        Ok(())
    }

    fn entry(
        &mut self,
        at: &Path,
        before: Option<Entry>,
        after: Option<Entry>,
        segments: [Option<Id>; 2],
    ) {
        let path = |e: &Entry| match e.path == Path::new(".") {
            true => at.to_path_buf(),
            false => at.join(&e.path),
        };
        let change = match (before, after) {
            (None, None) => return,
            (None, Some(after)) => {
                self.report.added += 1;
                let path = path(&after);
                Change::Added { path, after }
            }
            (Some(before), None) => {
                self.report.removed += 1;
                let path = path(&before);
                Change::Removed { path, before }
            }
            (Some(before), Some(after)) => {
                let what = self.compare(&before, &after, segments);
                if what.is_empty() {
                    return;
                }
                self.report.changed += 1;
                Change::Changed {
                    path: path(&after),
                    what,
                    before,
                    after,
                }
            }
        };
        self.go_on = (self.each)(change);
    }

    fn compare(&mut self, a: &Entry, b: &Entry, segments: [Option<Id>; 2]) -> Vec<What> {
        let mut what = Vec::new();
        let mut note = |differs: bool, which| {
            if differs {
                what.push(which);
            }
        };
        let is_file = |e: &Entry| matches!(e.kind, EntryKind::File | EntryKind::Hardlink);
        let both_files = is_file(a) && is_file(b);
        note(
            (a.kind != b.kind && !both_files) || a.rdev != b.rdev,
            What::Type,
        );
        let one_kind = a.kind == b.kind;
        note(
            both_files && (a.size != b.size || (one_kind && a.content != b.content)),
            What::Content,
        );
        note(a.mode != b.mode, What::Mode);
        note((a.uid, a.gid) != (b.uid, b.gid), What::Owner);
        note(a.mtime != b.mtime, What::Times);
        note(
            (both_files && !one_kind) || (one_kind && a.target != b.target),
            What::Links,
        );
        note(a.state != b.state, What::State);
        // The kernel moves the ctime of an inode with everything else; only then the segments have to be read. Archives of
        // containers may have none.
        let touched = (a.ctime, a.ino) != (b.ctime, b.ino) || (a.ctime, a.ino) == ((0, 0), 0);
        if touched && one_kind && segments[0] != segments[1] {
            match self.members(a, b, segments) {
                Ok([Some((a_extra, a_content)), Some((b_extra, b_content))]) => {
                    let inline = a.kind == EntryKind::File && !what.contains(&What::Content);
                    if inline && a_content != b_content {
                        what.push(What::Content);
                    }
                    if a_extra != b_extra {
                        what.push(What::Attributes);
                    }
                }
                Ok(_) => {}
                Err(error) => self.report.lost.push(format!(
                    "{} could not be compared: {error}",
                    String::from_utf8_lossy(bytes::of(&a.path))
                )),
            }
        }
        what.sort();
        what
    }

    fn members(
        &self,
        a: &Entry,
        b: &Entry,
        [left, right]: [Option<Id>; 2],
    ) -> Result<[Option<(Extra, Id)>; 2]> {
        let member = |entry: &Entry, id: Option<Id>| {
            let Some(id) = id else { return Ok(None) };
            let segment = self.segments.get(&id, || members(self.stores, &id))?;
            Ok::<_, Error>(segment.get(bytes::of(&entry.path)).cloned())
        };
        Ok([member(a, left)?, member(b, right)?])
    }

    fn images(&mut self, a: &[Image], b: &[Image]) {
        let only_b = b
            .iter()
            .filter(|i| a.iter().all(|j| j.node != i.node))
            .map(|i| (None, Some(i)));
        let all: Vec<_> = a
            .iter()
            .map(|i| (Some(i), b.iter().find(|j| j.node == i.node)))
            .chain(only_b)
            .collect();
        for (before, after) in all {
            match (before, after) {
                (Some(x), Some(y)) if x == y => continue,
                (Some(_), Some(_)) => self.report.changed += 1,
                (Some(_), None) => self.report.removed += 1,
                _ => self.report.added += 1,
            }
            let Some(image) = before.or(after) else {
                continue;
            };
            self.go_on = self.go_on
                && (self.each)(Change::Image {
                    node: image.node.clone(),
                    before: before.map(|i| i.size),
                    after: after.map(|i| i.size),
                });
        }
    }
}

/// What lies between the blobs that both lists have. They are in the order of the tree, so a blob of both stands for the
/// same entries at the same place, and what is before it in one list belongs to what is before it in the other.
fn gaps<'s>(a: &'s [Id], b: &'s [Id]) -> Vec<(&'s [Id], &'s [Id])> {
    let at: HashMap<&Id, usize> = b.iter().enumerate().map(|(i, id)| (id, i)).collect();
    let mut used = HashSet::new();
    let (mut gaps, mut from) = (Vec::new(), (0, 0));
    for (i, id) in a.iter().enumerate() {
        // A list that is not in order, which no writer makes, is merged entry by entry from there.
        let Some(j) = at.get(id).filter(|j| **j >= from.1 && used.insert(**j)) else {
            continue;
        };
        gaps.push((&a[from.0..i], &b[from.1..*j]));
        from = (i + 1, j + 1);
    }
    gaps.push((&a[from.0..], &b[from.1..]));
    gaps.retain(|(a, b)| !a.is_empty() || !b.is_empty());
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_parts_of_catalogues_are_not_read() {
        let ids: Vec<Id> = (0u32..9).map(|n| Id::of(&n.to_le_bytes())).collect();
        let list = |of: &[usize]| of.iter().map(|i| ids[*i]).collect::<Vec<_>>();
        let (a, b) = (list(&[0, 1, 2, 3, 4]), list(&[0, 5, 6, 2, 3, 7]));
        let found = gaps(&a, &b);
        assert_eq!(found, [(&a[1..2], &b[1..3]), (&a[4..], &b[5..])]);
        assert!(gaps(&a, &a).is_empty());
        assert_eq!(gaps(&a, &[]), [(&a[..], &[][..])]);
    }
}
