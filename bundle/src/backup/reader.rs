//! Reading files into segments.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};

use super::attributes::{XattrSource, inode_flags};
use super::chunks::{Chunker, advise_once, has_holes};
use super::links::Role;
use super::previous::OldLine;
use super::reuse::{Judge, Kept, link_fits};
use super::sink::Sink;
use super::tree::{INLINE_MAX, Run};
use crate::catalogue::{self, Line};
use crate::document::{Problem, Summary};
use crate::format::Kind;
use crate::list::{Entry, EntryKind, EntryState};
use crate::member::{self, Extra, FLAGS};
use crate::walk::{Stat, open_dir, open_quiet, stat_fd};
use crate::{Error, Id, Result, bytes};

/// A segment that has grown to this (files grew since the walk) is ended by the reader.
const SEGMENT_LIMIT: usize = 12 << 20;
/// The most that one file's xattrs may hold together; more is left out and reported.
const XATTR_MAX: usize = 4 << 20;

/// An entry that the walker found.
pub(super) struct Item {
    pub path: Vec<u8>,
    pub stat: Stat,
    pub role: Role,
}

/// A line of the catalogue, and the segment that it is about.
pub(super) struct Segment {
    pub id: Id,
    pub line: Vec<u8>,
}

/// What reading a batch of entries gave.
#[derive(Default)]
pub(super) struct Batch {
    pub segments: Vec<Segment>,
    pub summary: Summary,
    pub entries: u64,
    pub files: u64,
    pub bytes: u64,
    /// Bytes of these, and segments, that an earlier snapshot holds: they were not read.
    pub referenced: u64,
    pub reused: u64,
}

impl Batch {
    fn count(&mut self, entry: &Entry) {
        self.entries += 1;
        if entry.kind == EntryKind::File {
            self.files += 1;
            self.bytes += entry.size;
        }
    }
}

/// Entries that follow each other and are in one segment.
struct Listed {
    /// The earlier segment that they are in, with its bytes; `None`: the one at hand.
    from: Option<(Id, u64)>,
    entries: Vec<Entry>,
}

/// One reader thread's state.
pub(super) struct Reader<'r> {
    run: &'r Run<'r>,
    root: BorrowedFd<'r>,
    sink: Sink,
    segment: Vec<u8>,
    /// What the next lines of the catalogue list.
    runs: Vec<Listed>,
    chunker: Chunker,
    names: Vec<u8>,
    value: Vec<u8>,
    directory: Option<(Vec<u8>, OwnedFd)>,
    batch: Batch,
    /// Extended attributes of the entry at hand could not be read.
    lost: bool,
}

/// Why an entry has no member.
enum Missed {
    Vanished(String),
    Unreadable(String),
    /// The whole backup ends.
    Fatal(Error),
}

impl From<Errno> for Missed {
    fn from(error: Errno) -> Missed {
        match error {
            // ELOOP: a link took the file's place; ENOTDIR: a parent was replaced.
            Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR | Errno::ESTALE => {
                Missed::Vanished(error.desc().to_string())
            }
            other => Missed::Unreadable(other.desc().to_string()),
        }
    }
}

impl<'r> Reader<'r> {
    pub(super) fn new(run: &'r Run<'r>, root: BorrowedFd<'r>, sink: Sink) -> Reader<'r> {
        Reader {
            run,
            root,
            sink,
            segment: Vec::new(),
            runs: Vec::new(),
            chunker: Chunker::default(),
            names: vec![0; 64 << 10],
            value: vec![0; 64 << 10],
            directory: None,
            batch: Batch::default(),
            lost: false,
        }
    }

    /// References in an earlier snapshot what has not changed since, and reads the rest.
    pub(super) fn read_changed(
        &mut self,
        items: Vec<Item>,
        judge: &Judge<'_>,
        old: &[OldLine],
    ) -> Result<Batch> {
        let lines = judge.lines(old);
        if lines.is_empty() {
            return self.read(items);
        }
        if self.run.events.cancelled() {
            return Err(Error::Cancelled);
        }
        // A line that could not be taken apart leaves entries out, which `all` notices.
        if lines.len() == old.len() && judge.all(&items, &lines) {
            return self.reuse(&items, &lines, old);
        }
        let kept = judge.some(&items, lines);
        self.read_but(items.into_iter().zip(kept))
    }

    /// The batch is in the earlier snapshot as it is.
    fn reuse(&mut self, items: &[Item], lines: &[Line], old: &[OldLine]) -> Result<Batch> {
        if let Some(item) = items.first() {
            self.run.events.item(&item.path);
        }
        let mut batch = Batch {
            reused: self.reference(lines.iter().map(|line| line.segment))?,
            ..Batch::default()
        };
        for (line, old) in lines.iter().zip(old) {
            batch.segments.push(Segment {
                id: line.segment,
                line: old.text().to_vec(),
            });
            for entry in &line.entries {
                batch.count(entry);
            }
        }
        batch.referenced = batch.bytes;
        self.run.events.bytes(batch.bytes);
        Ok(batch)
    }

    /// Counts segments that every target is known to hold; gives how many they are.
    fn reference(&self, segments: impl Iterator<Item = Id>) -> Result<u64> {
        let segments: HashSet<Id> = segments.collect();
        for _ in &segments {
            self.sink.reference()?;
        }
        Ok(segments.len() as u64)
    }

    /// Leaves an entry in the segment of an earlier snapshot that it is in.
    fn keep(&mut self, item: &Item, kept: Kept) {
        if let Role::First(first) = &item.role {
            first.kept(&item.path);
        }
        self.batch.count(&kept.entry);
        if kept.entry.kind == EntryKind::File {
            self.batch.referenced += kept.entry.size;
            self.run.events.bytes(kept.entry.size);
        }
        self.list(Some((kept.segment, kept.raw)), kept.entry);
    }

    /// Adds an entry to the catalogue: of the segment at hand, or of an earlier one.
    fn list(&mut self, from: Option<(Id, u64)>, entry: Entry) {
        match self.runs.last_mut() {
            Some(run) if run.from == from => run.entries.push(entry),
            _ => self.runs.push(Listed {
                from,
                entries: vec![entry],
            }),
        }
    }

    /// Reads a batch: one segment, or more when files grew meanwhile.
    pub(super) fn read(&mut self, items: Vec<Item>) -> Result<Batch> {
        self.read_but(items.into_iter().map(|item| (item, None)))
    }

    /// Reads the items that are not kept where they are.
    fn read_but(
        &mut self,
        items: impl ExactSizeIterator<Item = (Item, Option<Kept>)>,
    ) -> Result<Batch> {
        // A directory of this name may be another one by now.
        self.directory = None;
        let last = items.len();
        for (n, (item, kept)) in items.enumerate() {
            if n % 256 == 0 {
                self.run.events.item(&item.path);
            }
            match kept {
                Some(kept) if link_fits(&item, &kept.entry) => self.keep(&item, kept),
                _ => self.item(item)?,
            }
            if self.segment.len() >= SEGMENT_LIMIT && n + 1 < last {
                self.end_segment()?;
            }
        }
        self.end_segment()?;
        Ok(std::mem::take(&mut self.batch))
    }

    /// Stores the segment at hand, if it is needed, and writes the lines of what was listed since the last one.
    fn end_segment(&mut self) -> Result<()> {
        let runs = std::mem::take(&mut self.runs);
        let mut new = None;
        self.batch.reused += self.reference(runs.iter().filter_map(|r| Some(r.from?.0)))?;
        let new_runs = runs.iter().filter(|r| r.from.is_none()).count();
        if new_runs > 0 {
            member::push_end(&mut self.segment);
            let raw = self.segment.len() as u64;
            new = Some((self.sink.put(Kind::Segment, &mut self.segment)?, raw));
        }
        for Listed { from, entries } in runs {
            let Some((segment, raw)) = from.or(new) else {
                return Err(Error::Internal("entries without a segment"));
            };
            let line = if from.is_some() || new_runs > 1 {
                catalogue::line_of_part(segment, raw, &entries)
            } else {
                catalogue::line(segment, raw, &entries)
            }
            .map_err(|e| Error::malformed("a new catalogue", e))?;
            self.batch.segments.push(Segment { id: segment, line });
        }
        Ok(())
    }

    fn item(&mut self, item: Item) -> Result<()> {
        if self.run.events.cancelled() {
            return Err(Error::Cancelled);
        }
        let Item { path, stat, role } = item;
        let start = self.segment.len();
        let mut entry = describe(&path, &stat);
        let stored = match role.resolve() {
            Err(first) => {
                entry.kind = EntryKind::Hardlink;
                entry.target = Some(bytes::path(&first));
                member::push_header(&mut self.segment, &entry, &Extra::default(), 0);
                Ok(())
            }
            Ok(first) => {
                let stored = self.member(&path, &stat, &mut entry);
                // Another file that took the name is not what the further names stand for.
                if let Some(first) = first.filter(|_| stored.is_ok() && entry.ino == stat.ino) {
                    first.kept(&path);
                }
                stored
            }
        };
        match stored {
            Ok(()) => {}
            Err(Missed::Fatal(error)) => return Err(error),
            Err(missed) => {
                self.segment.truncate(start);
                let (state, detail) = match missed {
                    Missed::Vanished(detail) => (EntryState::Vanished, detail),
                    Missed::Unreadable(detail) => (EntryState::Unreadable, detail),
                    Missed::Fatal(error) => return Err(error),
                };
                entry.content = None;
                entry.state = Some(state);
                self.problem(&path, state, detail);
            }
        }
        self.batch.count(&entry);
        self.list(None, entry);
        Ok(())
    }

    fn problem(&mut self, path: &[u8], state: EntryState, detail: String) {
        let summary = &mut self.batch.summary;
        match state {
            EntryState::Changed => summary.changed += 1,
            EntryState::Vanished => summary.vanished += 1,
            EntryState::Unreadable | EntryState::Partial => summary.unreadable += 1,
        }
        let path = bytes::on_host(&self.run.mount_point, path);
        tracing::debug!(path, detail, state = state.word(), "not kept as it was");
        summary.note(Problem {
            path,
            what: state.word().to_string(),
            detail,
        });
    }

    /// The open directory that holds `path`.
    fn open_parent(&mut self, path: &[u8]) -> Result<(), Missed> {
        let (parent, _) = bytes::split(path);
        if self
            .directory
            .as_ref()
            .is_none_or(|(open, _)| open != parent)
        {
            self.directory = None;
            let opened = open_dir(self.root, parent)?;
            self.directory = Some((parent.to_vec(), opened));
        }
        Ok(())
    }

    fn member(&mut self, path: &[u8], seen: &Stat, entry: &mut Entry) -> Result<(), Missed> {
        self.open_parent(path)?;
        let (_, name) = bytes::split(path);
        let name =
            CString::new(name).map_err(|_| Missed::Vanished("its name holds a NUL".to_string()))?;
        // Taken out and put back, as the methods below need the rest of `self`.
        let Some((parent_path, parent)) = self.directory.take() else {
            return Err(Missed::Fatal(Error::Internal("no directory is open")));
        };
        let result = match seen.kind() {
            libc::S_IFREG => self.file(path, &name, parent.as_fd(), seen, entry),
            libc::S_IFDIR => self.directory(&name, parent.as_fd(), seen, entry),
            _ => self.special(&name, parent.as_fd(), entry),
        };
        self.directory = Some((parent_path, parent));
        result
    }

    fn directory(
        &mut self,
        name: &CString,
        parent: BorrowedFd<'_>,
        seen: &Stat,
        entry: &mut Entry,
    ) -> Result<(), Missed> {
        let extra = match open_quiet(parent, name, OFlag::O_DIRECTORY) {
            Ok(dir) => {
                let now = stat_fd(dir.as_fd())?;
                if (now.dev, now.ino) != (seen.dev, seen.ino) {
                    return Err(Missed::Vanished(
                        "another directory took its place".to_string(),
                    ));
                }
                self.extra_of(&entry.path.clone(), dir.as_fd())
            }
            // A directory that may not be read is still a directory.
            Err(Errno::EACCES) => Extra::default(),
            Err(error) => return Err(error.into()),
        };
        self.mark_lost(entry);
        member::push_header(&mut self.segment, entry, &extra, 0);
        Ok(())
    }

    fn special(
        &mut self,
        name: &CString,
        parent: BorrowedFd<'_>,
        entry: &mut Entry,
    ) -> Result<(), Missed> {
        if entry.kind == EntryKind::Symlink {
            let target = readlinkat(parent, name.as_c_str())?;
            entry.target = Some(target.into());
            entry.size = 0;
        }
        // Device nodes must not be opened for this: opening has effects. The link in /proc names the directory, so
        // that no path is too long and no other directory is met.
        let mut place = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        place.extend_from_slice(name.as_bytes());
        let extra = match CString::new(place) {
            Ok(place) => Extra {
                xattrs: self.xattrs(&entry.path.clone(), &XattrSource::Link(place)),
                flags: 0,
            },
            Err(_) => Extra::default(),
        };
        self.mark_lost(entry);
        member::push_header(&mut self.segment, entry, &extra, 0);
        Ok(())
    }

    fn file(
        &mut self,
        path: &[u8],
        name: &CString,
        parent: BorrowedFd<'_>,
        seen: &Stat,
        entry: &mut Entry,
    ) -> Result<(), Missed> {
        // O_NONBLOCK: a fifo that took the file's place must not block.
        let file = File::from(open_quiet(
            parent,
            name,
            OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
        )?);
        let before = stat_fd(file.as_fd())?;
        if !before.is_file() {
            return Err(Missed::Vanished(
                "something that is no file took its place".to_string(),
            ));
        }
        let mut changed = (before.dev, before.ino) != (seen.dev, seen.ino);
        *entry = describe(path, &before);
        let extra = self.extra_of(&entry.path.clone(), file.as_fd());
        self.mark_lost(entry);
        #[cfg(test)]
        self.run.hook(path);
        let start = self.segment.len();
        let mut unreadable = None;
        let sparse = before.looks_sparse() && has_holes(&file, before.size);
        if before.size > INLINE_MAX || sparse {
            advise_once(&file);
            let content = self
                .chunker
                .store(&file, before.size, sparse, &self.sink, self.run.events)
                .map_err(Missed::Fatal)?;
            entry.content = Some(content.id);
            changed |= content.short;
            unreadable = content.unreadable;
            member::push_header(&mut self.segment, entry, &extra, 0);
        } else {
            member::push_header(&mut self.segment, entry, &extra, before.size);
            self.sink.reading(before.size, self.run.events);
            let data = self.segment.len();
            self.segment.resize(data + before.size as usize, 0);
            match read_up_to(&file, &mut self.segment[data..]) {
                // What is missing stays zeroes: the header has announced the length.
                Ok(n) => changed |= n as u64 != before.size,
                Err(error) => unreadable = Some(error.to_string()),
            }
            member::pad(&mut self.segment, before.size);
            self.run.events.bytes(before.size);
        }
        if before.size > 0 {
            let after = stat_fd(file.as_fd())?;
            changed |=
                (after.size, after.mtime, after.ctime) != (before.size, before.mtime, before.ctime);
        }
        let state = match (&unreadable, changed) {
            (Some(_), _) => EntryState::Partial,
            (None, true) => EntryState::Changed,
            (None, false) => return Ok(()),
        };
        entry.state = Some(state);
        // The mark belongs into the header, which stands before the content.
        let content = self.segment.split_off(start);
        let old_header = content.len()
            - if entry.content.is_some() {
                0
            } else {
                padded(before.size)
            };
        let in_tar = if entry.content.is_some() {
            0
        } else {
            before.size
        };
        member::push_header(&mut self.segment, entry, &extra, in_tar);
        self.segment.extend_from_slice(&content[old_header..]);
        let detail = unreadable.unwrap_or_else(|| "it changed while it was read".to_string());
        self.problem(path, state, detail);
        Ok(())
    }

    /// What misses extended attributes is not complete, and must be read again by the next backup.
    fn mark_lost(&mut self, entry: &mut Entry) {
        if std::mem::take(&mut self.lost) {
            entry.state = Some(EntryState::Partial);
        }
    }

    fn extra_of(&mut self, path: &std::path::Path, fd: BorrowedFd<'_>) -> Extra {
        let xattrs = self.xattrs(path, &XattrSource::Open(fd.as_raw_fd()));
        Extra {
            xattrs,
            flags: inode_flags(fd).unwrap_or(0) & FLAGS.iter().map(|(_, bit)| bit).sum::<u32>(),
        }
    }

    fn xattrs(&mut self, path: &std::path::Path, source: &XattrSource) -> Vec<(Vec<u8>, Vec<u8>)> {
        let listed = match source.list(&mut self.names) {
            Ok(n) => n,
            // Not every file system has them.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Vec::new(),
            Err(error) => {
                self.lost_xattrs(path, "they cannot be listed", error.desc());
                return Vec::new();
            }
        };
        let mut xattrs = Vec::new();
        let mut total = 0;
        let names: Vec<Vec<u8>> = self.names[..listed]
            .split(|b| *b == 0)
            .filter(|n| !n.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        for name in names {
            let Ok(c_name) = CString::new(name.as_slice()) else {
                continue;
            };
            match source.get(&c_name, &mut self.value) {
                Ok(n) if total + n <= XATTR_MAX => {
                    total += n;
                    xattrs.push((name, self.value[..n].to_vec()));
                }
                Ok(_) => self.lost_xattr(
                    path,
                    &name,
                    "its extended attributes are too large together",
                ),
                // Removed since it was listed.
                Err(Errno::ENODATA) => {}
                Err(error) => self.lost_xattr(path, &name, error.desc()),
            }
        }
        // In a fixed order, so that an unchanged file gives the same bytes.
        xattrs.sort_unstable();
        xattrs
    }

    fn lost_xattr(&mut self, path: &std::path::Path, name: &[u8], reason: &str) {
        self.lost_xattrs(path, &String::from_utf8_lossy(name), reason);
    }

    fn lost_xattrs(&mut self, path: &std::path::Path, what: &str, reason: &str) {
        let detail = format!("extended attributes: {what}: {reason}");
        self.lost = true;
        self.problem(bytes::of(path), EntryState::Partial, detail);
    }
}

fn padded(size: u64) -> usize {
    size.next_multiple_of(512) as usize
}

/// The entry of what `stat` says.
pub(super) fn describe(path: &[u8], stat: &Stat) -> Entry {
    let kind = match stat.kind() {
        libc::S_IFDIR => EntryKind::Dir,
        libc::S_IFLNK => EntryKind::Symlink,
        libc::S_IFCHR => EntryKind::Char,
        libc::S_IFBLK => EntryKind::Block,
        libc::S_IFIFO => EntryKind::Fifo,
        _ => EntryKind::File,
    };
    Entry {
        path: bytes::path(path),
        kind,
        size: if stat.is_file() { stat.size } else { 0 },
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        ctime: stat.ctime,
        ino: stat.ino,
        rdev: matches!(kind, EntryKind::Char | EntryKind::Block).then_some(stat.rdev),
        target: None,
        content: None,
        state: None,
    }
}

/// From the beginning, wherever an earlier look for holes has left the file's position.
fn read_up_to(file: &File, mut buffer: &mut [u8]) -> io::Result<usize> {
    let mut total = 0;
    while !buffer.is_empty() {
        match file.read_at(buffer, total as u64) {
            Ok(0) => break,
            Ok(n) => {
                total += n;
                buffer = &mut buffer[n..];
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on ZFS, which compresses: fewer blocks than the size asks for, and no hole.
    #[test]
    fn a_file_that_was_looked_at_for_holes_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let content = vec![7; 9000];
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        assert!(!has_holes(&file, 9000));
        let mut read = vec![0; 9000];
        assert_eq!(read_up_to(&file, &mut read).unwrap(), 9000);
        assert!(read == content);
    }
}
