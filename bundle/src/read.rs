//! Several stores read as one.

use crate::index::Location;
use crate::store::{Scratch, Store};
use crate::{Error, Id, Result};

/// The stores at hand, with a thread's buffers.
pub(crate) struct Readers<'s> {
    stores: &'s [&'s Store],
    scratch: Scratch,
    /// Blobs that were bad or missing in one place and good in another.
    pub healed: u64,
}

impl<'s> Readers<'s> {
    pub(crate) fn new(stores: &'s [&'s Store]) -> Readers<'s> {
        Readers {
            stores,
            scratch: Scratch::default(),
            healed: 0,
        }
    }

    /// Where the blob is read first: store and place in it. `None` when no store knows it.
    pub(crate) fn place(stores: &[&Store], id: &Id) -> Option<(usize, Location)> {
        let places = || {
            stores
                .iter()
                .enumerate()
                .flat_map(|(i, s)| s.map().find(id).iter().map(move |l| (i, *l)))
        };
        // A place that opening already found wanting is tried last.
        places()
            .find(|(i, l)| stores[*i].packs()[l.pack as usize].problem.is_none())
            .or_else(|| places().next())
    }

    /// The blob's content, verified, from the first place that has it whole.
    pub(crate) fn blob(&mut self, id: &Id) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.blob_into(id, &mut out)?;
        Ok(out)
    }

    /// The same into a buffer.
    pub(crate) fn blob_into(&mut self, id: &Id, out: &mut Vec<u8>) -> Result<()> {
        let mut reasons = Vec::new();
        let first = Readers::place(self.stores, id);
        let others = self
            .stores
            .iter()
            .enumerate()
            .flat_map(|(i, s)| s.map().find(id).iter().map(move |l| (i, *l)));
        for (i, place) in first
            .into_iter()
            .chain(others.filter(|other| Some(*other) != first))
        {
            match self.stores[i].read_at(&place, &mut self.scratch, out) {
                Ok(()) => {
                    if !reasons.is_empty() {
                        self.healed += 1;
                        tracing::warn!(blob = %id, "taken from another place: {}", reasons.join("; "));
                    }
                    return Ok(());
                }
                Err(reason) => reasons.push(reason),
            }
        }
        if reasons.is_empty() {
            let dirs: Vec<_> = self
                .stores
                .iter()
                .map(|s| s.dir().display().to_string())
                .collect();
            reasons.push(format!("no index lists it (looked in {})", dirs.join(", ")));
        }
        Err(Error::Blob {
            id: *id,
            reason: reasons.join("; "),
        })
    }
}
