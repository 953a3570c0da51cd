//! Reading files into segments.

mod files;

pub(super) use files::describe;

use std::collections::HashSet;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::chunks::Chunker;
use super::links::Role;
use super::previous::OldLine;
use super::reuse::{Judge, Kept, link_fits};
use super::segment::{Lines, SEGMENT_LIMIT, Segment};
use super::sink::Sink;
use super::tree::Run;
use crate::catalogue::Line;
use crate::document::{Problem, Summary};
use crate::list::{Entry, EntryKind, EntryState};
use crate::member::{self, Extra};
use crate::walk::Stat;
use crate::{Error, Id, Result, bytes};

/// An entry that the walker found.
pub(super) struct Item {
    pub path: Vec<u8>,
    pub stat: Stat,
    pub role: Role,
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

/// One reader thread's state.
pub(super) struct Reader<'r> {
    run: &'r Run<'r>,
    root: BorrowedFd<'r>,
    sink: Sink,
    segment: Vec<u8>,
    /// What the next lines of the catalogue list.
    lines: Lines,
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
            lines: Lines::default(),
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
        self.lines.list(Some((kept.segment, kept.raw)), kept.entry);
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
        self.batch.reused += self.reference(self.lines.earlier())?;
        let ended = self.lines.end(&mut self.segment, &self.sink)?;
        self.batch.segments.extend(ended);
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
        self.lines.list(None, entry);
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
}
