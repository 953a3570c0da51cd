//! Is all that a snapshot needs listed, in packs that look whole? Reads its lists and none of its data.

use super::refs::{Owner, Visitor, follow};
use crate::document::Snapshot;
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Id};

struct Missing<'s> {
    stores: &'s [&'s Store],
    blobs: u64,
    /// The first one, for people.
    first: Option<String>,
}

impl Missing<'_> {
    fn note(&mut self, what: String) {
        self.blobs += 1;
        self.first.get_or_insert(what);
    }
}

impl Visitor for Missing<'_> {
    fn needs(&mut self, id: Id, owner: &Owner<'_>) {
        let place = Readers::place(self.stores, &id);
        let whole = place.is_some_and(|(store, l)| {
            let pack = &self.stores[store].packs()[l.pack as usize];
            pack.problem.is_none()
        });
        if !whole {
            let of = owner.files();
            let of = of.first().map_or("nothing that has a name", String::as_str);
            self.note(format!("blob {} of {of}", id.short()));
        }
    }

    fn broken(&mut self, id: &Id, error: &Error) {
        self.note(format!("list {}: {error}", id.short()));
    }
}

/// What is missing of a snapshot in all of the stores, in words; `None`: nothing that can be told without reading its data.
pub fn missing(stores: &[&Store], snapshot: &Snapshot) -> Option<String> {
    let mut missing = Missing {
        stores,
        blobs: 0,
        first: None,
    };
    let malformed = follow(&mut Readers::new(stores), snapshot, &mut missing);
    if let Some((id, reason)) = malformed.into_iter().next() {
        missing.note(format!("list {}: {reason}", id.short()));
    }
    let first = missing.first?;
    Some(match missing.blobs {
        1 => format!("{first} cannot be read"),
        n => format!("{n} blobs cannot be read, the first: {first}"),
    })
}
