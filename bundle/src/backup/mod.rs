//! Writing a snapshot to one or more stores.
//!
//! One read feeds all targets: walker → readers (segments and chunks, hashed and looked up) → compressors → one
//! writer per target. Every stage waits only for the one after it, so that they cannot block each other in a circle.

mod archive;
mod attributes;
mod chunks;
mod devices;
pub(crate) mod level;
mod limit;
mod links;
mod previous;
#[cfg(test)]
mod previous_tests;
mod reader;
mod reuse;
mod segment;
mod sink;
mod target;
#[cfg(test)]
pub(crate) mod tests;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::bounded;

use crate::document::{Image, SNAPSHOT_FORMAT, Snapshot, SnapshotDraft, Stats, Summary, Tree};
use crate::events::Events;
use crate::exclude::Exclusions;
use crate::store::Store;
use crate::{Error, Id, Result, bytes, index, time};
#[cfg(any(test, fuzzing))]
pub(crate) use archive::in_memory;
pub use devices::{CLUSTER, Devices};
use level::Watch;
pub use level::{LevelUse, Levels};
use sink::{Mask, Shared, Sink};
use target::Written;

/// How blobs are compressed; raw is used anyway where compression does not pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Zstandard, level 1 to 19.
    Zstd(i32),
    /// Zstandard, with the level that keeps the slower of processor and slowest target busy.
    Auto,
    /// xz, level 0 to 9: small and slow.
    Xz(u32),
    /// None.
    Raw,
}

/// How a backup is made.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Compression, `Zstd(3)` unless set.
    pub compression: Codec,
    /// Threads that compress; as many again read. The number of CPUs unless set.
    pub workers: usize,
    /// Packs end at the first blob beyond this many bytes; 128 MiB unless set.
    pub pack_size: u64,
    /// The `machine_id` whose newest restore point on the targets spares the reading of files that have not changed
    /// since; without it, everything is read.
    pub since: Option<String>,
    /// Bytes per second that are read of files and block devices at most.
    pub io_limit: Option<u64>,
    /// Which moment the state is of that is read, in milliseconds since 1970: of snapshots that were made before; none: of
    /// now. A file that changed after it is read again by the next backup, even if its times cannot tell.
    pub began: Option<i64>,
    /// The writer of the first target takes one of these for each blob, until no more can come.
    #[cfg(test)]
    pub(crate) permits: Option<crossbeam_channel::Receiver<()>>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism()
            .map_or(2, usize::from)
            .min(16);
        BackupOptions {
            compression: Codec::Zstd(3),
            workers,
            pack_size: 128 << 20,
            since: None,
            io_limit: None,
            began: None,
            #[cfg(test)]
            permits: None,
        }
    }
}

/// A file system to read.
#[derive(Debug, Clone)]
pub struct TreeSource {
    /// Where its files are read: the mount point, or the mount of a snapshot of it.
    pub root: PathBuf,
    /// Where it belongs on the host: `/`, `/var`.
    pub mount_point: PathBuf,
    /// Which file system it is: its UUID. Files are spared the reading only where an earlier snapshot saw the same one.
    pub filesystem: Option<String>,
    /// What is left out; patterns see paths on the host (below `mount_point`).
    pub exclude: Exclusions,
    /// Regular files whose content and times are another file's: their paths on the host, and that file, a consistent copy of
    /// what programs write to. Owner, mode and attributes stay the file's own. They are always read.
    pub instead: BTreeMap<PathBuf, PathBuf>,
}

impl TreeSource {
    /// [`TreeSource::instead`] by paths below the root.
    fn instead_in_tree(&self) -> HashMap<Vec<u8>, PathBuf> {
        let below = |(path, file): (&PathBuf, &PathBuf)| {
            let path = path.strip_prefix(&self.mount_point).ok()?;
            Some((bytes::of(path).to_vec(), file.clone()))
        };
        self.instead.iter().filter_map(below).collect()
    }
}

/// A block device to read.
#[derive(Debug, Clone)]
pub struct ImageSource {
    /// The layout's node.
    pub node: String,
    /// The device, or a file.
    pub path: PathBuf,
}

/// What became of one target.
#[derive(Debug)]
pub struct TargetResult {
    /// The target.
    pub dir: PathBuf,
    /// The snapshot's id, or why there is none.
    pub snapshot: Result<Id>,
    /// Bytes written to it: packs, index and document.
    pub bytes_written: u64,
    /// Blobs that were new to it.
    pub new_blobs: u64,
    /// Blobs that it held already.
    pub known_blobs: u64,
    /// The packs that were written, to be read again.
    pub packs: Vec<Id>,
}

/// Called between the examination and the reading of a file.
#[cfg(test)]
type Hook<'h> = &'h (dyn Fn(&[u8]) + Sync);

/// The newest restore point is the one with the greatest time: with a clock set back, that is not the one made last.
fn warn_of_future(targets: &[Store], time: &str, events: &dyn Events) -> Result<()> {
    for target in targets {
        let newest = target.snapshots()?.pop();
        if let Some(newest) = newest.filter(|newest| newest.time.as_str() > time) {
            events.warn(&format!(
                "the clock of this machine is set before the newest restore point on {} ({} of {}): that one stays \
                 the latest; set the clock and make another backup",
                target.dir().display(),
                newest.id.short(),
                newest.shown_time()
            ));
        }
    }
    Ok(())
}

/// A backup under way. Dropped without [`Backup::commit`], it leaves complete packs that the next one reuses.
pub struct Backup<'e> {
    events: &'e dyn Events,
    options: BackupOptions,
    shared: Arc<Shared>,
    sink: Option<Sink>,
    compressors: Vec<JoinHandle<Result<()>>>,
    levels: Levels,
    watch: Option<Watch>,
    writers: Vec<JoinHandle<Result<Written>>>,
    time: String,
    started: Instant,
    stats: Stats,
    previous: Vec<previous::Previous>,
    racy: i64,
    #[cfg(test)]
    hook: Option<Hook<'e>>,
}

impl<'e> Backup<'e> {
    /// Begins a backup to `targets`, which were opened for writing ([`Store::open`] or [`Store::create`]).
    pub fn start(
        targets: Vec<Store>,
        options: BackupOptions,
        events: &'e dyn Events,
    ) -> Result<Backup<'e>> {
        if targets.is_empty() || targets.len() > Mask::BITS as usize {
            return Err(Error::NoTarget(format!(
                "{} targets were given",
                targets.len()
            )));
        }
        if let Some(target) = targets.iter().find(|t| !t.writable()) {
            return Err(Error::NoTarget(format!(
                "{} was opened for reading only",
                target.dir().display()
            )));
        }
        let options = BackupOptions {
            workers: options.workers.clamp(1, 64),
            ..options
        };
        let time = time::rfc3339(options.began.unwrap_or_else(time::now));
        warn_of_future(&targets, &time, events)?;
        let previous = match &options.since {
            Some(machine) => previous::find(&targets, machine, &time)?,
            None => Vec::new(),
        };
        #[cfg_attr(not(test), allow(unused_mut))]
        let mut shared = Shared::new(targets, options.io_limit);
        #[cfg(test)]
        shared.targets[0].permits.clone_from(&options.permits);
        let shared = Arc::new(shared);
        let (jobs, queue) = bounded(options.workers * 2);
        let mut to_writers = Vec::new();
        let mut writers = Vec::new();
        for number in 0..shared.targets.len() {
            let (sender, receiver) = bounded(4);
            to_writers.push(sender);
            let (shared, pack_size) = (shared.clone(), options.pack_size);
            writers.push(std::thread::spawn(move || {
                target::write(&shared, number, pack_size, receiver)
            }));
        }
        let levels = Levels::new(options.compression);
        let compressors = (0..options.workers)
            .map(|_| {
                let (shared, queue, to_writers) =
                    (shared.clone(), queue.clone(), to_writers.clone());
                let (codec, levels) = (options.compression, levels.clone());
                std::thread::spawn(move || {
                    sink::compress(&shared, codec, &levels, &queue, &to_writers)
                })
            })
            .collect();
        let sink = Sink::new(shared.clone(), jobs);
        let watch =
            (options.compression == Codec::Auto).then(|| Watch::start(&levels, &sink, to_writers));
        Ok(Backup {
            events,
            sink: Some(sink),
            levels,
            watch,
            options,
            shared,
            compressors,
            writers,
            time,
            started: Instant::now(),
            stats: Stats::default(),
            previous,
            racy: previous::RACY,
            #[cfg(test)]
            hook: None,
        })
    }

    fn sink(&self) -> Result<&Sink> {
        self.sink
            .as_ref()
            .ok_or(Error::Internal("the backup has ended"))
    }

    /// When the backup began, as the snapshot will say.
    pub fn time(&self) -> &str {
        &self.time
    }

    /// Stores the files of one file system. Fails only when the tree's root cannot be read or no target is left; what
    /// cannot be read below is in the tree's summary.
    pub fn tree(&mut self, source: &TreeSource) -> Result<Tree> {
        let mount_point = source.mount_point.to_string_lossy().into_owned();
        self.events.phase(&format!("files of {mount_point}"), None);
        let run = tree::Run {
            mount_point,
            events: self.events,
            racy: self.racy,
            instead: source.instead_in_tree(),
            #[cfg(test)]
            hook: self.hook,
        };
        let previous = source.filesystem.as_deref().and_then(|filesystem| {
            let mut known = self.previous.iter();
            known.find(|p| p.is_of(&run.mount_point, filesystem))
        });
        let workers = self.options.workers;
        let (tree, spared) = tree::store(source, self.sink()?, workers, &run, previous)?;
        self.stats.bytes_read += tree.bytes.saturating_sub(spared.bytes);
        self.stats.bytes_referenced += spared.bytes;
        self.stats.segments_reused += spared.segments;
        Ok(tree)
    }

    /// Sizes and times so far.
    pub fn stats(&self) -> Stats {
        Stats {
            seconds: self.started.elapsed().as_secs(),
            ..self.stats.clone()
        }
    }

    /// The zstd levels that new content is compressed with; complete when the backup has ended.
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }

    /// Stores a block device's content.
    pub fn image(&mut self, source: &ImageSource) -> Result<Image> {
        let mut file = File::open(&source.path).map_err(Error::io("open", &source.path))?;
        let size = file
            .seek(SeekFrom::End(0))
            .map_err(Error::io("find the size of", &source.path))?;
        let regular = file
            .metadata()
            .map_err(Error::io("examine", &source.path))?
            .is_file();
        self.events
            .phase(&format!("image of {}", source.node), Some(size));
        chunks::advise_once(&file);
        let content =
            chunks::Chunker::default().store(&file, size, regular, self.sink()?, self.events)?;
        self.stats.bytes_read += size;
        let short = content.short.then(|| "it ended early".to_string());
        Ok(Image {
            node: source.node.clone(),
            size,
            content: content.id,
            error: content.unreadable.or(short),
        })
    }

    /// Writes index and snapshot document to every target; the stores are closed.
    pub fn commit(mut self, draft: SnapshotDraft) -> Vec<TargetResult> {
        let written = self.finish();
        let mut summary = Summary::default();
        draft.trees.iter().for_each(|t| summary.add(&t.summary));
        let snapshot = Snapshot {
            format: SNAPSHOT_FORMAT,
            host: draft.host,
            time: self.time.clone(),
            tool_version: draft.tool_version,
            kind: draft.kind,
            layout: draft.layout,
            trees: draft.trees,
            images: draft.images,
            guest: draft.guest,
            guests: draft.guests,
            summary,
            stats: self.stats(),
            facts: draft.facts,
        };
        let document = serde_json::to_vec_pretty(&snapshot);
        let targets = self.shared.targets.iter().zip(written);
        targets
            .map(|(target, written)| {
                let mut bytes_written = 0;
                let mut packs = Vec::new();
                let id = written.and_then(|written| {
                    bytes_written = written.bytes;
                    packs = written.packs.iter().map(|p| p.id).collect();
                    // Of a backup that was cut short, and not read back yet.
                    let reused = target.store.packs().iter().filter(|p| p.unindexed);
                    packs.extend(reused.map(|p| p.id));
                    let json = document
                        .as_ref()
                        .map_err(|e| Error::malformed("the new snapshot document", e))?;
                    conclude(
                        &target.store,
                        written,
                        json,
                        &snapshot.time,
                        &mut bytes_written,
                    )
                });
                if let Err(error) = &id {
                    self.events
                        .warn(&format!("target {}: {error}", target.store.dir().display()));
                } else if let Err(error) = target.store.tidy() {
                    // The restore point is there; the next writer tries again.
                    self.events
                        .warn(&format!("target {}: {error}", target.store.dir().display()));
                }
                TargetResult {
                    dir: target.store.dir().to_path_buf(),
                    snapshot: id,
                    bytes_written,
                    new_blobs: target.new.load(Ordering::Relaxed),
                    known_blobs: target.known.load(Ordering::Relaxed),
                    packs,
                }
            })
            .collect()
    }

    /// Ends without a snapshot, and says which targets have failed, and why: what the backup itself ended with may
    /// only be that no target was left. Complete packs stay, the next backup reuses them.
    pub fn abandon(mut self) -> Vec<(PathBuf, Result<()>)> {
        let written = self.finish();
        let targets = self.shared.targets.iter().zip(written);
        targets
            .map(|(t, written)| (t.store.dir().to_path_buf(), written.map(|_| ())))
            .collect()
    }

    /// Closes the pipeline from its beginning and waits for its end.
    fn finish(&mut self) -> Vec<Result<Written>> {
        self.sink = None;
        self.watch = None;
        let compressed: Vec<_> = self.compressors.drain(..).map(JoinHandle::join).collect();
        let broken = compressed
            .iter()
            .any(|result| !matches!(result, Ok(Ok(()))));
        let join = |writer: JoinHandle<Result<Written>>| {
            let written = writer
                .join()
                .map_err(|_| Error::Internal("the writer of a target panicked"))??;
            // Without every compressor, blobs are missing.
            if broken {
                Err(Error::Internal("a compressor has failed"))
            } else {
                Ok(written)
            }
        };
        self.writers.drain(..).map(join).collect()
    }
}

impl Drop for Backup<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Index first, then the document that makes the snapshot exist.
fn conclude(
    store: &Store,
    written: Written,
    json: &[u8],
    time: &str,
    bytes: &mut u64,
) -> Result<Id> {
    store.check_in_place()?;
    let mut packs = written.packs;
    packs.extend(store.unindexed());
    *bytes += index::write(store.root(), &packs, store.cipher())?;
    let (id, size) = store.write_snapshot(time, json)?;
    *bytes += size;
    Ok(id)
}
