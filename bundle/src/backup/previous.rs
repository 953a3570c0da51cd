//! What an earlier snapshot knows about a tree: an unchanged part of it is referenced instead of read.
//!
//! The earlier catalogue is streamed beside the walk, in the same order, so that only a few lines are in memory. A
//! line and a batch that begin with the same path are compared by a reader; a line that no batch begins with is passed
//! over, so that the two run together again at the next boundary after a change.

use std::cmp::Ordering;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::links::{Inode, Role};
use super::reader::Item;
use super::sink::{Mask, Shared};
use super::tree::Run;
use crate::catalogue::{self, Line};
use crate::content::{self, Piece};
use crate::document::{Snapshot, Tree};
use crate::list::{Entry, EntryKind};
use crate::read::Readers;
use crate::store::Store;
use crate::walk::Stat;
use crate::{Id, Result, bytes, time};

/// Milliseconds. A file system's clock ticks more slowly than files can change: a file whose times are not older than this when a
/// backup begins may change again without getting other times.
pub(super) const RACY: i64 = 2000;

/// A tree of an earlier snapshot.
pub(super) struct Previous {
    tree: Tree,
    /// When its backup began: milliseconds since 1970.
    began: i64,
    /// The targets that are known to hold all of it.
    complete: Mask,
}

/// The newest trees of this machine among the targets, one for each mount point and file system.
pub(super) fn find(targets: &[Store], machine: &str, now: &str) -> Result<Vec<Previous>> {
    let mut found: Vec<(String, Id, Previous)> = Vec::new();
    for (number, target) in targets.iter().enumerate() {
        // Where something is missing, or is not what it should be, every piece is looked up.
        let whole = target.looks_whole();
        let documents = target.documents()?.into_iter();
        for (id, snapshot) in documents.filter_map(|(_, document)| document.ok()) {
            // One that a wrong clock has put into the future would stay the newest for years.
            if snapshot.host.machine_id != machine || snapshot.time.as_str() > now {
                continue;
            }
            let Some(began) = time::parse(&snapshot.time) else {
                continue;
            };
            let Snapshot { time, trees, .. } = snapshot;
            for tree in trees.into_iter().filter(|t| t.filesystem.is_some()) {
                let holder = if whole { 1 << number } else { 0 };
                let known = found.iter_mut().find(|(_, _, p)| {
                    (&p.tree.mount_point, &p.tree.filesystem)
                        == (&tree.mount_point, &tree.filesystem)
                });
                match known {
                    Some((_, other, p)) if *other == id => p.complete |= holder,
                    Some((newest, other, _)) if (&*newest, &*other) > (&time, &id) => {}
                    known => {
                        let previous = Previous {
                            tree,
                            began,
                            complete: holder,
                        };
                        let new = (time.clone(), id, previous);
                        match known {
                            Some(known) => *known = new,
                            None => found.push(new),
                        }
                    }
                }
            }
        }
    }
    Ok(found.into_iter().map(|(_, _, previous)| previous).collect())
}

impl Previous {
    pub(super) fn is_of(&self, mount_point: &str, filesystem: &str) -> bool {
        self.tree.mount_point == mount_point && self.tree.filesystem.as_deref() == Some(filesystem)
    }
}

/// A line of the earlier catalogue, not taken apart yet.
pub(super) struct OldLine {
    blob: Arc<Vec<u8>>,
    range: std::ops::Range<usize>,
    catalogue: Id,
    /// Path of its first entry.
    first: Vec<u8>,
}

impl OldLine {
    /// As it is in the catalogue, newline included.
    pub(super) fn text(&self) -> &[u8] {
        &self.blob[self.range.clone()]
    }

    fn parse(&self) -> Option<Line> {
        catalogue::parse(&self.catalogue, self.text()).ok()?.pop()
    }
}

/// Reads the earlier catalogue; ends when nobody wants more. What is damaged is passed over: its files are read.
pub(super) fn stream(previous: &Previous, shared: &Shared, run: &Run<'_>, lines: &Sender<OldLine>) {
    let stores: Vec<&Store> = shared.targets.iter().map(|t| &t.store).collect();
    let mut readers = Readers::new(&stores);
    let mut warned = false;
    for id in &previous.tree.catalogue {
        let blob = match readers.blob(id) {
            Ok(blob) => Arc::new(blob),
            Err(error) => {
                if !warned {
                    run.events.warn(&format!(
                        "the catalogue of the last restore point is damaged, more files of {} are read again: {error}",
                        run.mount_point
                    ));
                }
                warned = true;
                continue;
            }
        };
        let mut start = 0;
        for text in blob.split_inclusive(|b| *b == b'\n') {
            let range = start..start + text.len();
            start = range.end;
            let Some(first) = catalogue::first_path(text) else {
                continue;
            };
            let line = OldLine {
                blob: blob.clone(),
                range,
                catalogue: *id,
                first,
            };
            if lines.send(line).is_err() {
                return;
            }
        }
    }
}

/// The walker's place in the earlier catalogue.
pub(super) struct Cursor {
    lines: Receiver<OldLine>,
    pending: Option<OldLine>,
}

impl Cursor {
    pub(super) fn new(lines: Receiver<OldLine>) -> Cursor {
        Cursor {
            lines,
            pending: None,
        }
    }

    /// The line that begins with this path. Paths are asked for in the walk's order.
    pub(super) fn at(&mut self, path: &[u8]) -> Option<OldLine> {
        loop {
            let line = match self.pending.take() {
                Some(line) => line,
                None => self.lines.recv().ok()?,
            };
            match order(&line.first, path) {
                Ordering::Less => {}
                Ordering::Equal => return Some(line),
                Ordering::Greater => {
                    self.pending = Some(line);
                    return None;
                }
            }
        }
    }
}

/// The walk's order: names by their bytes, a directory before its contents, the root first.
fn order(a: &[u8], b: &[u8]) -> Ordering {
    let key = |path: &[u8]| path != b".";
    // No name holds a NUL: as one, the slash comes before every character.
    let bytes = |c: &u8| if *c == b'/' { 0 } else { *c };
    key(a)
        .cmp(&key(b))
        .then_with(|| a.iter().map(bytes).cmp(b.iter().map(bytes)))
}

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

/// A segment that is referenced.
pub(super) struct Reused {
    pub segment: Id,
    pub entries: u64,
    pub files: u64,
    pub bytes: u64,
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

    /// The segment of this line, when the files are what they were and every target holds all of it. The names of
    /// inodes with several names are settled then.
    pub(super) fn reuse(&self, items: &[Item], old: &OldLine) -> Option<Reused> {
        let line = old.parse()?;
        if line.entries.len() != items.len() || !self.unchanged(items, &line.entries) {
            return None;
        }
        if !self.held(&line) {
            return None;
        }
        for item in items {
            if let Role::First(first) = &item.role {
                first.kept(&item.path);
            }
        }
        let files = line.entries.iter().filter(|e| e.kind == EntryKind::File);
        Some(Reused {
            segment: line.segment,
            entries: line.entries.len() as u64,
            files: files.clone().count() as u64,
            bytes: files.map(|e| e.size).sum(),
        })
    }

    fn unchanged(&self, items: &[Item], entries: &[Entry]) -> bool {
        // Everything but links first: waiting for other readers is for what may be reused.
        let same = |(item, entry): (&Item, &Entry)| {
            same(&item.path, &item.stat, entry, self.device)
                && self.settled(entry.mtime)
                && self.settled(entry.ctime)
        };
        if !items.iter().zip(entries).all(same) {
            return false;
        }
        let mut own: Vec<(&Arc<Inode>, &[u8])> = Vec::new();
        for (item, entry) in items.iter().zip(entries) {
            let linked = entry.kind == EntryKind::Hardlink;
            let fits = match &item.role {
                Role::Only => !linked,
                Role::First(first) => {
                    own.push((first.inode(), &item.path));
                    !linked
                }
                Role::Later(inode) => {
                    let target = entry.target.as_deref().map(bytes::of);
                    // Of this batch itself nothing is settled yet, and nobody else will do it.
                    match own.iter().find(|(known, _)| Arc::ptr_eq(known, inode)) {
                        Some((_, path)) => linked && target == Some(path),
                        None => linked && inode.kept().as_deref() == target,
                    }
                }
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

    fn held(&self, line: &Line) -> bool {
        for number in 0..self.shared.targets.len() {
            let target = &self.shared.targets[number];
            if target.failed.load(std::sync::atomic::Ordering::Relaxed) {
                continue;
            }
            if !target.store.holds(&line.segment) {
                return false;
            }
            let complete = self.previous.complete >> number & 1 == 1;
            for entry in &line.entries {
                let Some(id) = &entry.content else { continue };
                if !target.store.holds(id)
                    || (!complete && !self.holds_pieces(&target.store, id, entry.size))
                {
                    return false;
                }
            }
        }
        true
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

/// Is the file what the entry says?
fn same(path: &[u8], stat: &Stat, entry: &Entry, device: (u32, u32)) -> bool {
    let kind = match entry.kind {
        EntryKind::File => libc::S_IFREG,
        EntryKind::Dir => libc::S_IFDIR,
        EntryKind::Symlink => libc::S_IFLNK,
        EntryKind::Char => libc::S_IFCHR,
        EntryKind::Block => libc::S_IFBLK,
        EntryKind::Fifo => libc::S_IFIFO,
        // Its role says whether it is one; a link to a directory does not exist.
        EntryKind::Hardlink => stat.kind(),
    };
    let size = if stat.is_file() { stat.size } else { 0 };
    let rdev = matches!(stat.kind(), libc::S_IFCHR | libc::S_IFBLK).then_some(stat.rdev);
    // What is mounted in the tree is of another file system, whose numbers say nothing here.
    let own = stat.dev == device && (!stat.mount_root || path == b".");
    own && entry.state.is_none()
        && bytes::of(&entry.path) == path
        && stat.kind() == kind
        && (entry.size, entry.mode, entry.uid, entry.gid)
            == (size, stat.mode & 0o7777, stat.uid, stat.gid)
        && (entry.mtime, entry.ctime, entry.ino) == (stat.mtime, stat.ctime, stat.ino)
        && entry.rdev == rdev
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_walk() {
        let walked: [&[u8]; 8] = [b".", b"!", b"a", b"a/b", b"a/b/c", b"a!", b"a-b", b"b"];
        for (i, a) in walked.iter().enumerate() {
            for (j, b) in walked.iter().enumerate() {
                assert_eq!(order(a, b), i.cmp(&j));
            }
        }
    }

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
