//! Which zstd level keeps the slower of processor and target busy (`Codec::Auto`).
//!
//! A thread looks at the pipeline's queues many times a second: blobs pile up before what is slow. Samples in time, not
//! one per blob: a stick takes a hundred blobs at once into memory, and then none for seconds while it syncs.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::Serialize;

use super::Codec;
use super::sink::{Sink, Stored};

/// zstd's own default, and that of a fixed level.
pub(crate) const START: i32 = 3;
/// Measured on a tar of `/usr`, in MB per second of a core: 550 at level 1, 310 at 3, 70 at 9, for a ratio of 2.32, 2.55
/// and 2.80. Below 1, files grow quickly.
const LOWEST: i32 = 1;
/// Beyond it, hardly anything is gained for the time.
const HIGHEST: i32 = 9;
/// zstd's highest level.
const LEVELS: usize = 22;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_millis(50);
/// A sample in which a writer has more than it can take. One in which the compressors have counts 1: they also do while a
/// target that takes a lot at once catches up, so that two of them weigh as much.
const WEIGHT: i32 = 2;
/// The sum of samples, less those of the contrary, that moves the level: a second of them up, two down.
const ENOUGH: i32 = 40;
/// The most that are asked for after the level went to and fro.
const MOST: i32 = 16 * ENOUGH;

/// How many blobs a queue holds, and how many it can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fill {
    pub len: usize,
    pub of: usize,
}

impl Fill {
    pub(super) fn of<T>(queue: &Sender<T>) -> Fill {
        Fill {
            len: queue.len(),
            of: queue.capacity().unwrap_or(0),
        }
    }

    fn is_full(self) -> bool {
        self.of > 0 && self.len * 4 >= self.of * 3
    }

    fn is_empty(self) -> bool {
        self.len * 4 <= self.of
    }
}

/// The queue of the slowest writer: the fullest of those that have not failed.
fn slowest(writers: impl Iterator<Item = (Fill, bool)>) -> Fill {
    writers
        .filter(|(_, failed)| !failed)
        .map(|(fill, _)| fill)
        .max_by_key(|fill| fill.len * 1000 / fill.of.max(1))
        .unwrap_or(Fill { len: 0, of: 0 })
}

/// Moves the level by what it is shown, and by nothing else.
#[derive(Debug)]
struct Controller {
    level: i32,
    /// Samples for more compression, less those for less.
    evidence: i32,
    /// How much of it moves the level.
    needed: i32,
    /// The last move: 1, -1, or 0 before the first.
    last: i32,
}

impl Controller {
    fn new() -> Controller {
        Controller {
            level: START,
            evidence: 0,
            needed: ENOUGH,
            last: 0,
        }
    }

    /// Gives the level after one more sample.
    fn observe(&mut self, compressors: Fill, writer: Fill) -> i32 {
        let sample = if writer.is_full() {
            WEIGHT
        } else if compressors.is_full() && writer.is_empty() {
            -1
        } else {
            // Both are busy, or both wait for the host to be read: good as it is, and older evidence fades.
            self.evidence -= self.evidence.signum();
            return self.level;
        };
        self.evidence += sample;
        if self.evidence.abs() < self.needed {
            return self.level;
        }
        self.evidence = 0;
        let towards = sample.signum();
        let level = (self.level + towards).clamp(LOWEST, HIGHEST);
        if level != self.level {
            // To and fro between two levels means that one is too low and the other too high: then ever more rarely.
            self.needed = match self.last * towards {
                -1 => (self.needed * 2).min(MOST),
                1 => (self.needed / 2).max(ENOUGH),
                _ => self.needed,
            };
            self.last = towards;
            self.level = level;
        }
        self.level
    }
}

/// How much was compressed with a zstd level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LevelUse {
    /// The level.
    pub level: i32,
    /// Bytes of plain content.
    pub bytes: u64,
}

/// The zstd levels of a backup, as it goes on.
#[derive(Debug, Clone)]
pub struct Levels(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    now: AtomicI32,
    used: [AtomicU64; LEVELS + 1],
}

impl Levels {
    pub(super) fn new(codec: Codec) -> Levels {
        let level = match codec {
            Codec::Zstd(level) => level,
            _ => START,
        };
        Levels(Arc::new(Inner {
            now: AtomicI32::new(level),
            used: Default::default(),
        }))
    }

    /// The level for the next blob.
    pub(super) fn now(&self) -> i32 {
        self.0.now.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, level: i32, bytes: u64) {
        let index = usize::try_from(level).unwrap_or(0).min(LEVELS);
        self.0.used[index].fetch_add(bytes, Ordering::Relaxed);
    }

    /// The levels that were used so far, lowest first; none where the codec is another.
    pub fn used(&self) -> Vec<LevelUse> {
        let used = self.0.used.iter().zip(0..).map(|(bytes, level)| LevelUse {
            level,
            bytes: bytes.load(Ordering::Relaxed),
        });
        used.filter(|u| u.bytes > 0).collect()
    }
}

/// The thread that sets the level. It holds the beginnings of the queues, which end only after it was dropped.
pub(super) struct Watch {
    stop: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(
        levels: &Levels,
        compressors: &Sink,
        writers: Vec<Sender<Arc<Stored>>>,
    ) -> Watch {
        let (stop, stopped) = bounded(0);
        let (levels, compressors) = (levels.clone(), compressors.clone());
        let thread = std::thread::spawn(move || watch(&levels, &compressors, &writers, &stopped));
        Watch {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Without it the level stays as it is; nothing else hangs on it.
            let _ = thread.join();
        }
    }
}

fn watch(
    levels: &Levels,
    compressors: &Sink,
    writers: &[Sender<Arc<Stored>>],
    stopped: &Receiver<Infallible>,
) {
    let mut controller = Controller::new();
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
        let targets = &compressors.shared.targets;
        let writers = writers.iter().zip(targets).map(|(queue, target)| {
            let failed = target.failed.load(Ordering::Relaxed);
            (Fill::of(queue), failed)
        });
        let before = controller.level;
        let level = controller.observe(compressors.fill(), slowest(writers));
        if level != before {
            tracing::debug!(level, "another compression level");
            levels.0.now.store(level, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[path = "level_tests.rs"]
mod tests;
