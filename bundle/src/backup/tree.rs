//! One tree through the pipeline: walker, readers, and the collector that keeps the catalogue in order.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::TreeSource;
use super::links::{Links, Role};
use super::reader::{Batch, Item, Reader};
use super::sink::Sink;
use crate::catalogue::{self, boundary};
use crate::document::{Problem, Summary, Tree};
use crate::events::Events;
use crate::format::Kind;
use crate::walk::{Stat, Visit, Walk, open_root};
use crate::{Error, Id, Result, bytes};

/// Larger files are cut into chunks of their own.
pub(super) const INLINE_MAX: u64 = 1 << 20;
/// Segments have about this size.
const SEGMENT_TARGET: u64 = 2 << 20;
/// And not more than this, as far as the walker can tell.
const SEGMENT_MAX: u64 = 8 << 20;
/// What an entry takes in a segment beside its content: two headers and the PAX records.
const ENTRY_OVERHEAD: u64 = 1536;
/// Batches that are on their way at once, so that one that holds a huge file does not let the catalogue of all that
/// follows pile up in memory.
const WINDOW: usize = 128;

/// What walker, readers and collector of a tree share.
pub(super) struct Run<'r> {
    pub mount_point: String,
    pub events: &'r dyn Events,
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
}

/// Stores the files of one file system.
pub(super) fn store(
    source: &TreeSource,
    sink: &Sink,
    workers: usize,
    run: &Run<'_>,
) -> Result<Tree> {
    let root = open_root(&source.root)?;
    let (jobs, job_queue) = bounded::<Job>(workers * 2);
    let (done, results) = unbounded::<(u64, Result<Batch>)>();
    let (permits, returned) = bounded::<()>(WINDOW);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let walker = scope.spawn({
            let stop = &stop;
            move || walk(source, run, &jobs, &permits, stop)
        });
        for _ in 0..workers {
            let (queue, done, sink, root, stop) =
                (job_queue.clone(), done.clone(), sink.clone(), &root, &stop);
            scope.spawn(move || {
                let mut reader = Reader::new(run, root.as_fd(), sink);
                for job in queue {
                    // After a failure the queue is only emptied.
                    if stop.load(Ordering::Relaxed) {
                        continue;
                    }
                    // A batch that never comes would let the others wait for it: a defect is an error like others.
                    let batch = catch_unwind(AssertUnwindSafe(|| reader.read(job.items)))
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
        let mut tree = collected?;
        let seen = walked?;
        tree.mount_point.clone_from(&run.mount_point);
        tree.summary.add(&seen);
        Ok(tree)
    })
}

/// The walker: groups entries into batches, each of which becomes a segment.
fn walk(
    source: &TreeSource,
    run: &Run<'_>,
    jobs: &Sender<Job>,
    permits: &Sender<()>,
    stop: &AtomicBool,
) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut links = Links::default();
    let (mut items, mut size, mut number) = (Vec::new(), 0, 0);
    let mut send = |items: Vec<Item>| {
        let sent = permits.send(()).is_ok() && jobs.send(Job { number, items }).is_ok();
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
            let weight = weight(path, stat, matches!(role, Role::Later(_)));
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

/// About how many bytes an entry takes in its segment.
fn weight(path: &[u8], stat: &Stat, link: bool) -> u64 {
    let content = if stat.is_file() && !link && stat.size <= INLINE_MAX {
        stat.size.next_multiple_of(512)
    } else {
        0
    };
    let long = if path.len() > 100 {
        2 * path.len() as u64
    } else {
        0
    };
    ENTRY_OVERHEAD + long + content
}

/// The collector: batches come in any order, the catalogue is written in theirs.
fn collect(
    sink: &Sink,
    results: &Receiver<(u64, Result<Batch>)>,
    returned: &Receiver<()>,
) -> Result<Tree> {
    let mut tree = Tree {
        mount_point: String::new(),
        catalogue: Vec::new(),
        entries: 0,
        files: 0,
        bytes: 0,
        segments: 0,
        summary: Summary::default(),
    };
    let mut builder = catalogue::Builder::default();
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for (number, batch) in results {
        waiting.insert(number, batch?);
        while let Some(batch) = waiting.remove(&next) {
            next += 1;
            let _ = returned.recv();
            tree.entries += batch.entries;
            tree.files += batch.files;
            tree.bytes += batch.bytes;
            tree.segments += batch.segments.len() as u64;
            tree.summary.add(&batch.summary);
            for segment in &batch.segments {
                if let Some(mut blob) = builder.push(&segment.id, &segment.line) {
                    tree.catalogue.push(sink.put(Kind::Catalogue, &mut blob)?);
                }
            }
        }
    }
    if let Some(mut blob) = builder.finish() {
        tree.catalogue.push(sink.put(Kind::Catalogue, &mut blob)?);
    }
    Ok(tree)
}
