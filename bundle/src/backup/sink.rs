//! Where read content goes: hash, look up what each target needs, compress once, hand to the targets' writers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender};

use crate::backup::Codec;
use crate::backup::level::{Fill, Levels};
use crate::backup::limit::Limiter;
use crate::codec::{Encoder, Encoding};
use crate::events::Events;
use crate::format::Kind;
use crate::store::Store;
use crate::{Error, Id, Result};

/// Buffers that are kept for reuse; larger ones are given back.
const POOL: usize = 12;
const POOL_BUFFER: usize = 6 << 20;

/// One bit per target.
pub(super) type Mask = u64;

/// A blob on its way to the compressors.
pub(super) struct Job {
    id: Id,
    kind: Kind,
    wanted: Mask,
    data: Vec<u8>,
}

/// A blob on its way to the targets.
pub(super) struct Stored {
    pub id: Id,
    pub kind: Kind,
    pub codec: Encoding,
    pub raw: u64,
    pub bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.bytes));
    }
}

/// Buffers go round instead of being mapped and unmapped by the allocator for every blob.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    pub(super) fn take(&self) -> Vec<u8> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() == 0 || buffer.capacity() > POOL_BUFFER {
            return;
        }
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < POOL {
            pool.push(buffer);
        }
    }
}

/// A target as the readers see it.
pub(super) struct Target {
    pub store: Store,
    /// Set by its writer when it cannot go on.
    pub failed: AtomicBool,
    pub known: AtomicU64,
    pub new: AtomicU64,
    #[cfg(test)]
    pub permits: Option<Receiver<()>>,
}

/// What the stages share.
pub(super) struct Shared {
    pub targets: Vec<Target>,
    /// Blobs that are new in this run, with the targets they were sent to.
    sent: Mutex<HashMap<Id, Mask>>,
    pub pool: Arc<Pool>,
    pub limit: Option<Limiter>,
    /// Everything that is stored, for who has no target.
    #[cfg(any(test, fuzzing))]
    pub kept: Option<Mutex<HashMap<Id, Vec<u8>>>>,
}

impl Shared {
    pub(super) fn new(stores: Vec<Store>, io_limit: Option<u64>) -> Shared {
        let target = |store| Target {
            store,
            failed: AtomicBool::new(false),
            known: AtomicU64::new(0),
            new: AtomicU64::new(0),
            #[cfg(test)]
            permits: None,
        };
        Shared {
            targets: stores.into_iter().map(target).collect(),
            sent: Mutex::default(),
            pool: Arc::default(),
            limit: io_limit.map(Limiter::new),
            #[cfg(any(test, fuzzing))]
            kept: None,
        }
    }

    /// Is there still a target to write to?
    pub(super) fn alive(&self) -> bool {
        self.targets
            .iter()
            .any(|t| !t.failed.load(Ordering::Relaxed))
    }

    /// Which targets lack the blob; from now on it counts as sent to them.
    fn claim(&self, id: &Id) -> Mask {
        let mut wanted: Mask = 0;
        for (i, target) in self.targets.iter().enumerate() {
            if !target.failed.load(Ordering::Relaxed) && !target.store.holds(id) {
                wanted |= 1 << i;
            }
        }
        if wanted != 0 {
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            let before = sent.entry(*id).or_default();
            wanted &= !*before;
            *before |= wanted;
        }
        for (i, target) in self.targets.iter().enumerate() {
            let count = if wanted >> i & 1 == 1 {
                &target.new
            } else {
                &target.known
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        wanted
    }
}

/// The readers' end of the pipeline.
#[derive(Clone)]
pub(super) struct Sink {
    pub shared: Arc<Shared>,
    jobs: Sender<Job>,
}

impl Sink {
    pub(super) fn new(shared: Arc<Shared>, jobs: Sender<Job>) -> Sink {
        Sink { shared, jobs }
    }

    /// Keeps what is stored in memory.
    #[cfg(any(test, fuzzing))]
    pub(super) fn in_memory() -> Sink {
        let mut shared = Shared::new(Vec::new(), None);
        shared.kept = Some(Mutex::default());
        Sink::new(Arc::new(shared), crossbeam_channel::bounded(0).0)
    }

    #[cfg(any(test, fuzzing))]
    fn keep(&self, id: Id, data: &[u8]) -> bool {
        let kept = self.shared.kept.as_ref();
        let kept = kept.map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner));
        kept.map(|mut kept| kept.insert(id, data.to_vec()))
            .is_some()
    }

    /// Stores the content of a buffer, which is empty afterwards.
    pub(super) fn put(&self, kind: Kind, data: &mut Vec<u8>) -> Result<Id> {
        let id = Id::of(data);
        #[cfg(any(test, fuzzing))]
        if self.keep(id, data) {
            data.clear();
            return Ok(id);
        }
        let wanted = self.shared.claim(&id);
        if wanted == 0 {
            data.clear();
            return self.check(id);
        }
        let data = std::mem::replace(data, self.shared.pool.take());
        self.send(Job {
            id,
            kind,
            wanted,
            data,
        })
    }

    /// Stores a slice, copied only when a target lacks it.
    pub(super) fn put_slice(&self, kind: Kind, data: &[u8]) -> Result<Id> {
        let id = Id::of(data);
        #[cfg(any(test, fuzzing))]
        if self.keep(id, data) {
            return Ok(id);
        }
        let wanted = self.shared.claim(&id);
        if wanted == 0 {
            return self.check(id);
        }
        let mut copy = self.shared.pool.take();
        copy.extend_from_slice(data);
        self.send(Job {
            id,
            kind,
            wanted,
            data: copy,
        })
    }

    /// Called before so many bytes of the host are read.
    pub(super) fn reading(&self, bytes: u64, events: &dyn Events) {
        if let Some(limit) = &self.shared.limit {
            limit.wait(bytes, &|| events.cancelled());
        }
    }

    /// Counts a blob that every target is known to hold.
    pub(super) fn reference(&self) -> Result<()> {
        for target in &self.shared.targets {
            target.known.fetch_add(1, Ordering::Relaxed);
        }
        self.alive()
    }

    /// How full the queue to the compressors is.
    pub(super) fn fill(&self) -> Fill {
        Fill::of(&self.jobs)
    }

    fn send(&self, job: Job) -> Result<Id> {
        let id = job.id;
        self.jobs
            .send(job)
            .map_err(|_| Error::Internal("the compressors have ended"))?;
        self.check(id)
    }

    fn check(&self, id: Id) -> Result<Id> {
        self.alive().map(|()| id)
    }

    fn alive(&self) -> Result<()> {
        // The targets' own errors are in their results.
        if self.shared.alive() {
            Ok(())
        } else {
            Err(Error::NoTarget("all of them have failed".to_string()))
        }
    }
}

/// A compressor thread: one context, reused.
pub(super) fn compress(
    shared: &Shared,
    codec: Codec,
    levels: &Levels,
    jobs: &Receiver<Job>,
    writers: &[Sender<Arc<Stored>>],
) -> Result<()> {
    let mut encoder = Encoder::new(codec).map_err(Error::io(
        "set up compression for",
        shared.targets[0].store.dir(),
    ))?;
    for Job {
        id,
        kind,
        wanted,
        data,
    } in jobs
    {
        let raw = data.len() as u64;
        let mut out = shared.pool.take();
        let level = levels.now();
        let encoded = encoder.set_level(level).and_then(|zstd| {
            if zstd {
                levels.count(level, raw);
            }
            encoder.encode(&data, &mut out)
        });
        let codec = match encoded {
            Ok(codec) => codec,
            // Nothing but memory can be short here, and raw is always right.
            Err(error) => {
                tracing::warn!(%error, "a blob could not be compressed and is stored as it is");
                Encoding::Raw
            }
        };
        let (bytes, spare) = if codec == Encoding::Raw {
            (data, out)
        } else {
            (out, data)
        };
        shared.pool.give(spare);
        let stored = Arc::new(Stored {
            id,
            kind,
            codec,
            raw,
            bytes,
            pool: shared.pool.clone(),
        });
        for (i, writer) in writers.iter().enumerate() {
            if wanted >> i & 1 == 1 {
                // A writer that has failed took its receiver with it; the others go on.
                let _ = writer.send(stored.clone());
            }
        }
    }
    Ok(())
}
