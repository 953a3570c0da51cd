//! What is still needed: which blobs, in which of the packs that hold them.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::document::Snapshot;
use crate::events::Events;
use crate::index::Location;
use crate::read::Readers;
use crate::store::{DamagedDocument, Scratch, Store};
use crate::verify::refs::{Owner, Visitor, follow};
use crate::{Error, Id, Result};

/// What becomes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays as it is.
    Stays,
    /// Nothing in it is needed.
    Dead,
    /// Little in it is needed: that is copied into a new pack.
    MostlyDead,
}

/// What the snapshots need of each pack.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Of each location of the map: it is the one that stays of a blob that is needed.
    pub alive: Vec<bool>,
    /// Of each pack: bytes of blobs that stay.
    pub alive_bytes: Vec<u64>,
    /// Of each pack.
    pub fates: Vec<Fate>,
    /// Why it is not known what is needed: then nothing may be removed.
    pub blocked: Option<DamagedDocument>,
    /// Needed, and in no pack.
    pub lost: u64,
    /// Packs of a backup that was cut short, which the next one reuses.
    pub unfinished: u64,
}

struct Marker<'s> {
    store: &'s Store,
    needed: Vec<bool>,
    followed: HashSet<Id>,
    lost: HashSet<Id>,
    snapshot: Id,
    blocked: Option<DamagedDocument>,
}

impl Visitor for Marker<'_> {
    fn needs(&mut self, id: Id, _: &Owner<'_>) {
        let range = self.store.map().range(&id);
        if range.is_empty() {
            self.lost.insert(id);
        }
        self.needed[range].fill(true);
    }

    fn followed(&mut self, id: &Id) -> bool {
        !self.followed.insert(*id)
    }

    fn broken(&mut self, _: &Id, error: &Error) {
        if self.blocked.is_none() {
            self.blocked = Some(DamagedDocument {
                file: self.store.root().join("packs"),
                reason: format!(
                    "what the restore point {} needs is not known: {error}",
                    self.snapshot.short()
                ),
            });
        }
    }
}

/// Marks what `snapshots`, which are all that will stay, need.
pub(super) fn mark(
    store: &Store,
    snapshots: &[(Id, &Snapshot)],
    newest: Option<&str>,
    events: &dyn Events,
) -> Result<Marks> {
    events.phase("what is still needed", None);
    let mut marker = Marker {
        store,
        needed: vec![false; store.map().all().len()],
        followed: HashSet::new(),
        lost: HashSet::new(),
        snapshot: Id::of(b""),
        blocked: None,
    };
    let stores = [store];
    let mut readers = Readers::new(&stores);
    for (id, snapshot) in snapshots {
        marker.snapshot = *id;
        follow(&mut readers, snapshot, &mut marker);
        if events.cancelled() {
            return Err(Error::Cancelled);
        }
        if marker.blocked.is_some() {
            return Ok(Marks {
                blocked: marker.blocked,
                ..Marks::default()
            });
        }
    }
    let mut alive = marker.needed;
    one_copy_each(store, &mut alive);
    let alive_bytes = bytes_held(store, |at| alive[at]);
    // Without footers: that of a pack with one small blob is larger than the blob, in a new pack, too.
    let held = bytes_held(store, |_| true);
    let mut unfinished = 0;
    let mut fates = Vec::new();
    for ((pack, alive), held) in store.packs().iter().zip(&alive_bytes).zip(held) {
        // A backup that was cut short leaves packs that nothing refers to yet, in no index, after the last snapshot.
        let unreferenced = pack.unindexed && *alive == 0;
        let fate = if unreferenced && newest.is_none_or(|t| written_after(store, pack, t)) {
            unfinished += 1;
            Fate::Stays
        } else if *alive == 0 {
            Fate::Dead
        } else if alive.saturating_mul(2) < held && pack.problem.is_none() {
            Fate::MostlyDead
        } else {
            Fate::Stays
        };
        fates.push(fate);
    }
    Ok(Marks {
        alive,
        alive_bytes,
        fates,
        blocked: None,
        lost: marker.lost.len() as u64,
        unfinished,
    })
}

/// Bytes of the blobs, chosen by their place in the map, in each pack.
fn bytes_held(store: &Store, chosen: impl Fn(usize) -> bool) -> Vec<u64> {
    let mut bytes = vec![0; store.packs().len()];
    for (at, place) in store.map().all().iter().enumerate() {
        if chosen(at) {
            bytes[place.pack as usize] += u64::from(place.stored);
        }
    }
    bytes
}

/// A blob may be in several packs, of a repacking that was cut short for example, or because one copy was damaged.
/// Only one stays: in the pack of which the most is needed. As the other copies may go, that one is read first.
fn one_copy_each(store: &Store, alive: &mut [bool]) {
    let places = store.map().all();
    let held = bytes_held(store, |_| true);
    let needed = bytes_held(store, |at| alive[at]);
    let rank = |place: &Location| {
        let pack = &store.packs()[place.pack as usize];
        let share = u128::from(needed[place.pack as usize]) << 64;
        let share = share / u128::from(held[place.pack as usize].max(1));
        (pack.problem.is_some(), std::cmp::Reverse(share), place.pack)
    };
    let mut scratch = Scratch::default();
    let mut content = Vec::new();
    let mut start = 0;
    while start < places.len() {
        let copies = start..store.map().range(&places[start].id).end;
        start = copies.end;
        if copies.len() == 1 || !alive[copies.start] {
            continue;
        }
        let mut order: Vec<usize> = copies.clone().collect();
        order.sort_by_key(|at| rank(&places[*at]));
        let whole = order.iter().find(|at| {
            store
                .read_at(&places[**at], &mut scratch, &mut content)
                .is_ok()
        });
        // Where none can be read, all stay: another program may read more of one of them.
        if let Some(whole) = whole {
            alive[copies].fill(false);
            alive[*whole] = true;
        }
    }
}

/// Was the pack's file written after this time? When that cannot be told, yes.
fn written_after(store: &Store, pack: &crate::store::PackInfo, time: &str) -> bool {
    let Ok(modified) = fs::metadata(store.pack_path(pack)).and_then(|m| m.modified()) else {
        return true;
    };
    let since = modified
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    crate::time::rfc3339(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)).as_str() > time
        || modified > SystemTime::now()
}
