//! One tree through the pipeline: walker, readers, and the collector that keeps the catalogue in order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::TreeSource;
use super::links::{Links, Role};
use super::previous::{self, Cursor, OldLine, Previous};
use super::reader::{Batch, Item, Reader};
use super::reuse::Judge;
use super::segment::{SEGMENT_MAX, SEGMENT_TARGET};
use super::sink::Sink;
use crate::catalogue::{self, boundary};
use crate::document::{Problem, Summary, Tree};
use crate::events::Events;
use crate::format::Kind;
use crate::walk::stat_fd;
use crate::walk::{Visit, Walk, open_root};
use crate::{Error, Id, Result, bytes};

/// Larger files are cut into chunks of their own.
pub(super) const INLINE_MAX: u64 = 1 << 20;
/// What an entry takes in a segment beside its content: two headers and the PAX records.
const ENTRY_OVERHEAD: u64 = 1536;
/// Batches that are on their way at once, so that one that holds a huge file does not let the catalogue of all that
/// follows pile up in memory.
const WINDOW: usize = 128;

/// What walker, readers and collector of a tree share.
pub(super) struct Run<'r> {
    pub mount_point: String,
    pub events: &'r dyn Events,
    /// See [`previous::RACY`], which tests do not wait for.
    pub racy: i64,
    /// [`TreeSource::instead`], by paths in the tree.
    pub instead: HashMap<Vec<u8>, PathBuf>,
    #[cfg(test)]
    pub hook: Option<super::Hook<'r>>,
}

#[cfg(test)]
impl Run<'_> {
    /// Called between the examination and the reading of a file, so that tests can change it then.
    pub(super) fn hook(&self, path: &[u8]) {
        if let Some(hook) = self.hook {
            hook(path);
        }
    }
}

struct Job {
    number: u64,
    items: Vec<Item>,
    /// The lines of an earlier catalogue that reach into it.
    old: Vec<OldLine>,
}

/// What an earlier snapshot spared.
#[derive(Default)]
pub(super) struct Spared {
    pub bytes: u64,
    pub segments: u64,
}

/// Stores the files of one file system.
pub(super) fn store(
    source: &TreeSource,
    sink: &Sink,
    workers: usize,
    run: &Run<'_>,
    previous: Option<&Previous>,
) -> Result<(Tree, Spared)> {
    let root = open_root(&source.root)?;
    if source.filesystem.is_some() {
        // A page that a program has mapped and changed already can be changed again without a new time, until it was
        // written: from here on, every change gives one, and the next backup sees it.
        if let Err(error) = nix::unistd::syncfs(&root) {
            tracing::warn!(root = %source.root.display(), %error, "not synced before it is read");
        }
    }
    let top = stat_fd(root.as_fd()).map_err(Error::sys("examine", &source.root))?;
    let judge = previous.map(|previous| Judge::new(previous, &sink.shared, top.dev, run.racy));
    let (jobs, job_queue) = bounded::<Job>(workers * 2);
    let (done, results) = unbounded::<(u64, Result<Batch>)>();
    let (permits, returned) = bounded::<()>(WINDOW);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let cursor = previous.map(|previous| {
            let (lines, old) = bounded(WINDOW);
            scope.spawn(move || previous::stream(previous, &sink.shared, run, &lines));
            Cursor::new(old)
        });
        let walker = scope.spawn({
            let stop = &stop;
            move || walk(source, run, cursor, &jobs, &permits, stop)
        });
        for _ in 0..workers {
            let (queue, done, sink, root, stop, judge) = (
                job_queue.clone(),
                done.clone(),
                sink.clone(),
                &root,
                &stop,
                judge.as_ref(),
            );
            scope.spawn(move || {
                let mut reader = Reader::new(run, root.as_fd(), sink);
                for job in queue {
                    // After a failure the queue is only emptied.
                    if stop.load(Ordering::Relaxed) {
                        continue;
                    }
                    // A batch that never comes would let the others wait for it: a defect is an error like others.
                    let batch = catch_unwind(AssertUnwindSafe(|| match judge {
                        Some(judge) => reader.read_changed(job.items, judge, &job.old),
                        None => reader.read(job.items),
                    }))
                    .unwrap_or(Err(Error::Internal("a reader panicked")));
                    if done.send((job.number, batch)).is_err() {
                        return;
                    }
                }
            });
        }
        // Only the threads' own ends keep the channels open.
        drop((job_queue, done));
        let collected = collect(sink, &results, &returned);
        if collected.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        // Lets a walker that waits for a permit go on, and see that it should stop.
        drop(returned);
        let walked = walker
            .join()
            .map_err(|_| Error::Internal("the walker panicked"))?;
        let (mut tree, spared) = collected?;
        let seen = walked?;
        tree.filesystem.clone_from(&source.filesystem);
        tree.mount_point.clone_from(&run.mount_point);
        tree.summary.add(&seen);
        Ok((tree, spared))
    })
}

/// The walker: groups entries into batches, each of which becomes a segment.
fn walk(
    source: &TreeSource,
    run: &Run<'_>,
    mut cursor: Option<Cursor>,
    jobs: &Sender<Job>,
    permits: &Sender<()>,
    stop: &AtomicBool,
) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut links = Links::default();
    let (mut items, mut size, mut number) = (Vec::new(), 0, 0);
    let mut send = |items: Vec<Item>| {
        let old = match (&mut cursor, items.first(), items.last()) {
            (Some(cursor), Some(first), Some(last)) => cursor.over(&first.path, &last.path),
            _ => Vec::new(),
        };
        let job = Job { number, items, old };
        let sent = permits.send(()).is_ok() && jobs.send(job).is_ok();
        number += 1;
        sent && !stop.load(Ordering::Relaxed)
    };
    let walk = Walk {
        root: &source.root,
        mount_point: &source.mount_point,
        exclude: &source.exclude,
        count_excluded: false,
    };
    walk.run(&mut |visit| match visit {
        Visit::Entry { stat, .. } if stat.kind() == libc::S_IFSOCK => {
            summary.sockets += 1;
            true
        }
        Visit::Entry { path, stat } => {
            let role = links.role(stat);
            let inline =
                stat.is_file() && !matches!(role, Role::Later(_)) && stat.size <= INLINE_MAX;
            let weight = weight(path, if inline { stat.size } else { 0 });
            let mut goes_on = true;
            if size + weight > SEGMENT_MAX && !items.is_empty() {
                goes_on = send(std::mem::take(&mut items));
                size = 0;
            }
            items.push(Item {
                path: path.to_vec(),
                stat: *stat,
                role,
            });
            size += weight;
            if boundary(Id::of(path).leading(), weight, SEGMENT_TARGET) {
                goes_on &= send(std::mem::take(&mut items));
                size = 0;
            }
            goes_on
        }
        Visit::Excluded { .. } => {
            summary.excluded += 1;
            true
        }
        Visit::Failed { path, error } => {
            let gone = error == nix::errno::Errno::ENOENT;
            let (count, what) = if gone {
                (&mut summary.vanished, "vanished")
            } else {
                (&mut summary.unreadable, "unreadable")
            };
            *count += 1;
            summary.note(Problem {
                path: bytes::on_host(&run.mount_point, path),
                what: what.to_string(),
                detail: error.desc().to_string(),
            });
            true
        }
    })?;
    if !items.is_empty() {
        send(items);
    }
    Ok(summary)
}

/// About how many bytes an entry takes in its segment, with `content` bytes of content in it.
pub(super) fn weight(path: &[u8], content: u64) -> u64 {
    let long = if path.len() > 100 {
        2 * path.len() as u64
    } else {
        0
    };
    ENTRY_OVERHEAD + long + content.next_multiple_of(512)
}

/// A tree of which the catalogue is being written.
pub(super) struct Growing<'s> {
    pub tree: Tree,
    builder: catalogue::Builder,
    sink: &'s Sink,
}

impl<'s> Growing<'s> {
    pub(super) fn new(sink: &'s Sink) -> Growing<'s> {
        Growing {
            tree: Tree {
                mount_point: String::new(),
                filesystem: None,
                catalogue: Vec::new(),
                entries: 0,
                files: 0,
                bytes: 0,
                segments: 0,
                summary: Summary::default(),
            },
            builder: catalogue::Builder::default(),
            sink,
        }
    }

    /// Adds a line, which is about this segment.
    pub(super) fn line(&mut self, segment: &Id, line: &[u8]) -> Result<()> {
        if let Some(mut blob) = self.builder.push(segment, line) {
            let id = self.sink.put(Kind::Catalogue, &mut blob)?;
            self.tree.catalogue.push(id);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Tree> {
        if let Some(mut blob) = self.builder.finish() {
            let id = self.sink.put(Kind::Catalogue, &mut blob)?;
            self.tree.catalogue.push(id);
        }
        Ok(self.tree)
    }
}

/// The collector: batches come in any order, the catalogue is written in theirs.
fn collect(
    sink: &Sink,
    results: &Receiver<(u64, Result<Batch>)>,
    returned: &Receiver<()>,
) -> Result<(Tree, Spared)> {
    let mut spared = Spared::default();
    let mut growing = Growing::new(sink);
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for (number, batch) in results {
        waiting.insert(number, batch?);
        while let Some(batch) = waiting.remove(&next) {
            next += 1;
            let _ = returned.recv();
            let tree = &mut growing.tree;
            tree.entries += batch.entries;
            tree.files += batch.files;
            tree.bytes += batch.bytes;
            let segments: HashSet<Id> = batch.segments.iter().map(|s| s.id).collect();
            tree.segments += segments.len() as u64;
            tree.summary.add(&batch.summary);
            spared.bytes += batch.referenced;
            spared.segments += batch.reused;
            for segment in &batch.segments {
                growing.line(&segment.id, &segment.line)?;
            }
        }
    }
    Ok((growing.finish()?, spared))
}
