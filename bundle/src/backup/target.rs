//! The writer of one target: packs in sequence, each synced and named while the next is being written.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;

use super::sink::{Shared, Stored};
use crate::pack::{PackEntry, PackWriter};
use crate::{Error, Result};

/// What a writer leaves: the packs it made.
#[derive(Default)]
pub(super) struct Written {
    pub packs: Vec<PackEntry>,
    pub bytes: u64,
}

/// A writer thread. Ends when the compressors have ended, or at the first error.
pub(super) fn write(
    shared: &Shared,
    number: usize,
    pack_size: u64,
    blobs: Receiver<Arc<Stored>>,
) -> Result<Written> {
    let result = run(shared, number, pack_size, &blobs);
    if result.is_err() {
        shared.targets[number].failed.store(true, Ordering::Relaxed);
    }
    result
}

fn run(
    shared: &Shared,
    number: usize,
    pack_size: u64,
    blobs: &Receiver<Arc<Stored>>,
) -> Result<Written> {
    let store = &shared.targets[number].store;
    let mut written = Written::default();
    let mut open: Option<PackWriter> = None;
    let mut sealing = Sealing::default();
    for blob in blobs {
        #[cfg(test)]
        let _ = shared.targets[number].permits.as_ref().map(Receiver::recv);
        let pack = match &mut open {
            Some(pack) => pack,
            none => none.insert(PackWriter::create(store.root(), store.cipher())?),
        };
        pack.append(blob.id, blob.kind, blob.codec, &blob.bytes, blob.raw)?;
        if pack.size() >= pack_size {
            if let Some(pack) = open.take() {
                sealing.start(pack, &mut written)?;
            }
        }
    }
    if let Some(pack) = open.take() {
        sealing.start(pack, &mut written)?;
    }
    sealing.finish(&mut written)?;
    Ok(written)
}

/// At most one pack is being synced, so that a slow medium slows the pipeline down instead of filling memory.
#[derive(Default)]
struct Sealing(Option<JoinHandle<Result<PackEntry>>>);

impl Sealing {
    fn start(&mut self, pack: PackWriter, written: &mut Written) -> Result<()> {
        self.finish(written)?;
        let pack = pack.finish()?;
        self.0 = Some(std::thread::spawn(move || pack.seal()));
        Ok(())
    }

    fn finish(&mut self, written: &mut Written) -> Result<()> {
        if let Some(thread) = self.0.take() {
            let pack = thread
                .join()
                .map_err(|_| Error::Internal("the thread that syncs packs panicked"))??;
            written.bytes += pack.size;
            written.packs.push(pack);
        }
        Ok(())
    }
}

impl Drop for Sealing {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // Only after an error, which is being reported already.
            let _ = thread.join();
        }
    }
}
