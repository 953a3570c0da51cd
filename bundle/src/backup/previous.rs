//! What an earlier snapshot knows about a tree: an unchanged part of it is referenced instead of read.
//!
//! The earlier catalogue is streamed beside the walk, in the same order, so that only a few lines are in memory. A
//! reader compares a batch with the lines that reach into it: where all is the same, the lines are taken over as they
//! are; where something has changed, the entries that have not stay in the segments they are in, of which only a part
//! counts then. See [`super::reuse`].

use std::cmp::Ordering;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::sink::{Mask, Shared};
use super::tree::Run;
use crate::bytes::tree_order;
use crate::catalogue::{self, Line};
use crate::document::{Snapshot, Tree};
use crate::read::Readers;
use crate::store::Store;
use crate::{Id, Result, time};

/// Milliseconds. A file system's clock ticks more slowly than files can change: a file whose times are not older than this when a
/// backup begins may change again without getting other times.
pub(super) const RACY: i64 = 2000;

/// A tree of an earlier snapshot.
pub(super) struct Previous {
    tree: Tree,
    /// When its backup began: milliseconds since 1970.
    pub(super) began: i64,
    /// The targets that are known to hold all of it.
    pub(super) complete: Mask,
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
#[derive(Clone)]
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

    pub(super) fn parse(&self) -> Option<Line> {
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
    /// The first line beyond the last batch.
    pending: Option<OldLine>,
    /// The last line that begins before that: it may reach into the next batch.
    last: Option<OldLine>,
}

impl Cursor {
    pub(super) fn new(lines: Receiver<OldLine>) -> Cursor {
        Cursor {
            lines,
            pending: None,
            last: None,
        }
    }

    /// The lines that reach into a batch with these paths as its first and its last one. Batches are asked for in the
    /// walk's order.
    pub(super) fn over(&mut self, first: &[u8], last: &[u8]) -> Vec<OldLine> {
        let mut found = Vec::new();
        while let Some(line) = self.pending.take().or_else(|| self.lines.recv().ok()) {
            if tree_order(&line.first, last).is_gt() {
                self.pending = Some(line);
                break;
            }
            match tree_order(&line.first, first) {
                Ordering::Less => self.last = Some(line),
                Ordering::Equal | Ordering::Greater => found.push(line),
            }
        }
        if found.first().is_none_or(|line| line.first != first) {
            found.splice(0..0, self.last.clone());
        }
        if let Some(line) = found.last() {
            self.last = Some(line.clone());
        }
        found
    }
}
