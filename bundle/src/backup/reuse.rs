//! What of a batch need not be read again: decided by a reader, entry by entry.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::links::{Inode, Role};
use super::previous::{OldLine, Previous};
use super::reader::{Item, describe};
use super::sink::Shared;
use super::tree::weight;
use crate::catalogue::Line;
use crate::content::{self, Piece};
use crate::list::{Entry, EntryKind};
use crate::read::Readers;
use crate::store::Store;
use crate::walk::Stat;
use crate::{Id, bytes, time};

/// A batch whose entries are in more earlier segments than this is read again but for the largest of them: else each
/// day's few changes would add a small segment for ever.
const MAX_SEGMENTS: usize = 8;

/// Decides for the readers of one tree what need not be read.
pub(super) struct Judge<'r> {
    previous: &'r Previous,
    shared: &'r Shared,
    stores: Vec<&'r Store>,
    /// The device of the tree's root.
    device: (u32, u32),
    /// Times must be before this, in milliseconds since 1970.
    settled: i64,
}

/// An entry that need not be read.
pub(super) struct Kept {
    /// The segment it is in, and that segment's bytes.
    pub segment: Id,
    pub raw: u64,
    pub entry: Entry,
}

impl<'r> Judge<'r> {
    pub(super) fn new(
        previous: &'r Previous,
        shared: &'r Shared,
        device: (u32, u32),
        racy: i64,
    ) -> Judge<'r> {
        Judge {
            previous,
            shared,
            stores: shared.targets.iter().map(|t| &t.store).collect(),
            device,
            settled: previous.began.min(time::now()) - racy,
        }
    }

    /// Takes the lines apart; what is damaged is left out, its files are read.
    pub(super) fn lines(&self, old: &[OldLine]) -> Vec<Line> {
        old.iter().filter_map(OldLine::parse).collect()
    }

    /// Are these lines what the batch would give? The files are what they were and every target holds all of it. The
    /// names of inodes with several names are settled then.
    pub(super) fn all(&self, items: &[Item], lines: &[Line]) -> bool {
        let entries = || lines.iter().flat_map(|line| &line.entries);
        if entries().count() != items.len()
            // Everything but links first: waiting for other readers is for what may be reused.
            || !items.iter().zip(entries()).all(|(i, e)| self.unchanged(i, e))
            || !self.linked_as_before(items, entries())
            || !lines.iter().all(|line| self.held(&line.segment))
            || !entries().all(|e| self.content_held(e))
        {
            return false;
        }
        for item in items {
            if let Role::First(first) = &item.role {
                first.kept(&item.path);
            }
        }
        true
    }

    /// The entries that stay where they are, one place for each item. Whether links are what they were is not decided
    /// yet, see [`Judge::link_fits`].
    pub(super) fn some(&self, items: &[Item], lines: Vec<Line>) -> Vec<Option<Kept>> {
        let mut old = lines.into_iter().flat_map(|line| {
            let (segment, raw) = (line.segment, line.raw);
            let kept = move |entry| Kept {
                segment,
                raw,
                entry,
            };
            line.entries.into_iter().map(kept)
        });
        let mut next = old.next();
        let mut held = HashMap::new();
        let mut kept: Vec<Option<Kept>> = items
            .iter()
            .map(|item| {
                let found = loop {
                    let path = bytes::of(&next.as_ref()?.entry.path);
                    match bytes::tree_order(path, &item.path) {
                        Ordering::Less => next = old.next(),
                        Ordering::Equal => break std::mem::replace(&mut next, old.next())?,
                        Ordering::Greater => return None,
                    }
                };
                let stays = self.unchanged(item, &found.entry)
                    && *held
                        .entry(found.segment)
                        .or_insert_with(|| self.held(&found.segment))
                    && self.content_held(&found.entry);
                stays.then_some(found)
            })
            .collect();
        let leave = not_worth_it(&kept);
        for place in &mut kept {
            if place.as_ref().is_some_and(|k| leave.contains(&k.segment)) {
                *place = None;
            }
        }
        kept
    }

    fn unchanged(&self, item: &Item, entry: &Entry) -> bool {
        same(&item.path, &item.stat, entry, self.device)
            && self.settled(entry.mtime)
            && self.settled(entry.ctime)
    }

    fn linked_as_before<'e>(
        &self,
        items: &[Item],
        entries: impl Iterator<Item = &'e Entry>,
    ) -> bool {
        let mut own: Vec<(&Arc<Inode>, &[u8])> = Vec::new();
        for (item, entry) in items.iter().zip(entries) {
            let linked = entry.kind == EntryKind::Hardlink;
            let fits = match &item.role {
                Role::First(first) => {
                    own.push((first.inode(), &item.path));
                    !linked
                }
                Role::Later(inode) => {
                    // Of this batch itself nothing is settled yet, and nobody else will do it.
                    match own.iter().find(|(known, _)| Arc::ptr_eq(known, inode)) {
                        Some((_, path)) => {
                            linked && entry.target.as_deref().map(bytes::of) == Some(path)
                        }
                        None => link_fits(item, entry),
                    }
                }
                Role::Only => !linked,
            };
            if !fits {
                return false;
            }
        }
        true
    }

    /// Was the time over when the earlier backup began, and is it not yet to come?
    fn settled(&self, (seconds, nanoseconds): (i64, u32)) -> bool {
        let ms = seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(nanoseconds / 1_000_000));
        ms < self.settled
    }

    /// The targets that still take part, with their numbers.
    fn targets(&self) -> impl Iterator<Item = (usize, &Store)> {
        let alive = |t: &super::sink::Target| !t.failed.load(std::sync::atomic::Ordering::Relaxed);
        let targets = self.shared.targets.iter().enumerate();
        targets
            .filter(move |(_, t)| alive(t))
            .map(|(number, t)| (number, &t.store))
    }

    fn held(&self, segment: &Id) -> bool {
        self.targets().all(|(_, store)| store.holds(segment))
    }

    fn content_held(&self, entry: &Entry) -> bool {
        let Some(id) = &entry.content else {
            return true;
        };
        self.targets().all(|(number, store)| {
            let complete = self.previous.complete >> number & 1 == 1;
            store.holds(id) && (complete || self.holds_pieces(store, id, entry.size))
        })
    }

    fn holds_pieces(&self, store: &Store, id: &Id, size: u64) -> bool {
        let mut readers = Readers::new(&self.stores);
        let (mut lists, mut pieces) = (true, true);
        let read = content::read(
            &mut readers,
            id,
            size,
            &mut |list| lists &= store.holds(&list),
            &mut |_, piece| {
                if let Piece::Blob { id, .. } = piece {
                    pieces &= store.holds(&id);
                }
                Ok(())
            },
        );
        read.is_ok() && lists && pieces
    }
}

/// Is a name to its inode what it was, now that all names before it are settled? Waits until they are.
pub(super) fn link_fits(item: &Item, entry: &Entry) -> bool {
    let linked = entry.kind == EntryKind::Hardlink;
    match &item.role {
        Role::Only | Role::First(_) => !linked,
        Role::Later(inode) => {
            linked && inode.kept().as_deref() == entry.target.as_deref().map(bytes::of)
        }
    }
}

/// Bytes of content in the entry's segment.
fn inline(entry: &Entry) -> u64 {
    match (entry.kind, entry.content) {
        (EntryKind::File, None) => entry.size,
        _ => 0,
    }
}

/// Segments that are better read again: of which less than half still counts, and all but the largest of too many.
fn not_worth_it(kept: &[Option<Kept>]) -> Vec<Id> {
    let mut counts: HashMap<Id, (u64, u64)> = HashMap::new();
    for kept in kept.iter().flatten() {
        let bytes = weight(bytes::of(&kept.entry.path), inline(&kept.entry));
        counts.entry(kept.segment).or_insert((0, kept.raw)).0 += bytes;
    }
    let poor = |(bytes, raw): (u64, u64)| bytes.saturating_mul(2) < raw;
    let mut leave: Vec<Id> = Vec::new();
    let mut rich: Vec<(u64, Id)> = Vec::new();
    for (id, count) in counts {
        match poor(count) {
            true => leave.push(id),
            false => rich.push((count.0, id)),
        }
    }
    if rich.len() > MAX_SEGMENTS {
        rich.sort_unstable();
        rich.pop();
        leave.extend(rich.into_iter().map(|(_, id)| id));
    }
    leave
}

/// Is the file what the entry says?
fn same(path: &[u8], stat: &Stat, entry: &Entry, device: (u32, u32)) -> bool {
    // What is mounted in the tree is of another file system, whose numbers say nothing here.
    let own = stat.dev == device && (!stat.mount_root || path == b".");
    let now = describe(path, stat);
    own && entry.state.is_none()
        && entry.path == now.path
        // Its role says whether it is a link; a link to a directory does not exist.
        && (entry.kind == now.kind || entry.kind == EntryKind::Hardlink)
        && (entry.size, entry.mode, entry.uid, entry.gid)
            == (now.size, now.mode, now.uid, now.gid)
        && (entry.mtime, entry.ctime, entry.ino) == (now.mtime, now.ctime, now.ino)
        && entry.rdev == now.rdev
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let root = crate::walk::open_root(dir.path()).unwrap();
        let stat = crate::walk::stat_fd(std::os::fd::AsFd::as_fd(&root)).unwrap();
        let entry = Entry {
            path: "a".into(),
            kind: EntryKind::Dir,
            size: 0,
            mode: stat.mode & 0o7777,
            uid: stat.uid,
            gid: stat.gid,
            mtime: stat.mtime,
            ctime: stat.ctime,
            ino: stat.ino,
            rdev: None,
            target: None,
            content: None,
            state: None,
        };
        let is = |entry: &Entry| same(b"a", &stat, entry, stat.dev);
        assert!(is(&entry));
        let changes: [fn(&mut Entry); 9] = [
            |e| e.path = "b".into(),
            |e| e.kind = EntryKind::Fifo,
            |e| e.mode ^= 0o4000,
            |e| e.uid += 1,
            |e| e.gid += 1,
            |e| e.mtime.1 ^= 1,
            |e| e.ctime.1 ^= 1,
            |e| e.ino += 1,
            |e| e.state = Some(crate::list::EntryState::Partial),
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut other = entry.clone();
            change(&mut other);
            assert!(!is(&other), "{n}");
        }
        assert!(!same(b"a", &stat, &entry, (9, 9)), "another file system");
        let mounted = Stat {
            mount_root: true,
            ..stat
        };
        assert!(!same(b"a", &mounted, &entry, stat.dev));
    }
}
