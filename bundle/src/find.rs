//! Files by name or pattern in all snapshots at hand.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::document::guest::GuestKind;
use crate::document::{HostIdentity, Snapshot, Tree};
use crate::events::Events;
use crate::list::{self, Entry, EntryKind};
use crate::pattern::Pattern;
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Id, Result, bytes};

/// A snapshot, as [`Found`] names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Its id.
    pub id: Id,
    /// When the backup began.
    pub time: String,
}

/// A file that was the same in one snapshot after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// The file.
    pub entry: Entry,
    /// The oldest of these snapshots.
    pub first: Point,
    /// The newest.
    pub last: Point,
    /// How many there are.
    pub snapshots: u64,
}

/// A path that fits, with its versions, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The machine.
    pub host: HostIdentity,
    /// The guest of it that the file is in.
    pub guest: Option<(GuestKind, u32)>,
    /// The path there.
    pub path: PathBuf,
    /// What it was when.
    pub versions: Vec<Version>,
}

/// What a search gave.
#[derive(Debug, Default)]
pub struct Search {
    /// In order of host and path.
    pub found: Vec<Found>,
    /// How many snapshots were searched.
    pub snapshots: u64,
    /// Parts that could not be read, with the reason.
    pub lost: Vec<String>,
}

/// Is it the same file, as far as a catalogue tells?
fn same(a: &Entry, b: &Entry) -> bool {
    let key = |e: &Entry| {
        (
            (e.kind, e.size, e.mode, e.uid, e.gid),
            (e.mtime, e.rdev, e.content, e.state),
        )
    };
    key(a) == key(b) && a.target == b.target
}

/// Whose files are versions of each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Machine<'s> {
    id: &'s str,
    name: &'s str,
    guest: Option<(GuestKind, u32)>,
}

/// Searches these snapshots (the readers hold them). Each part of a catalogue is read once, however many snapshots
/// share it; what fits is held in memory.
pub fn find(
    readers: &[&Store],
    snapshots: &[(Id, Snapshot)],
    pattern: &Pattern,
    events: &dyn Events,
) -> Result<Search> {
    let mut search = Search::default();
    let mut known: HashMap<(&str, Id), Vec<Entry>> = HashMap::new();
    let mut found: BTreeMap<(Machine<'_>, PathBuf), Vec<Version>> = BTreeMap::new();
    let mut order: Vec<&(Id, Snapshot)> = snapshots.iter().collect();
    order.sort_by(|a, b| (&a.1.time, a.0).cmp(&(&b.1.time, b.0)));
    order.dedup_by_key(|s| s.0);
    // The number of each snapshot among those of its machine: runs are broken by one that lacks the file.
    let mut counts: HashMap<Machine<'_>, u64> = HashMap::new();
    let mut seen: HashMap<(Machine<'_>, PathBuf), u64> = HashMap::new();
    for (id, snapshot) in order {
        search.snapshots += 1;
        let machine = Machine {
            id: &snapshot.host.machine_id,
            name: &snapshot.host.hostname,
            guest: snapshot.guest.as_ref().map(|g| (g.kind, g.id)),
        };
        let number = counts.entry(machine).or_default();
        *number += 1;
        for tree in &snapshot.trees {
            for blob in &tree.catalogue {
                if events.cancelled() {
                    return Err(Error::Cancelled);
                }
                let key = (tree.mount_point.as_str(), *blob);
                let hits = known.entry(key).or_insert_with(|| {
                    let (hits, lost) = scan(readers, tree, blob, pattern);
                    search.lost.extend(lost);
                    hits
                });
                for entry in hits.iter() {
                    let path = list::on_host(tree, &entry.path);
                    // What another tree is mounted on is not seen on the host.
                    let holder = list::holder(&snapshot.trees, &path);
                    if !holder.is_some_and(|h| std::ptr::eq(h, tree)) {
                        continue;
                    }
                    let key = (machine, path);
                    let before = seen.insert(key.clone(), *number);
                    let versions = found.entry(key).or_default();
                    let point = Point {
                        id: *id,
                        time: snapshot.time.clone(),
                    };
                    match versions.last_mut() {
                        Some(last) if before == Some(*number - 1) && same(&last.entry, entry) => {
                            last.last = point;
                            last.snapshots += 1;
                        }
                        _ => versions.push(Version {
                            entry: entry.clone(),
                            first: point.clone(),
                            last: point,
                            snapshots: 1,
                        }),
                    }
                }
            }
        }
    }
    search.found = found
        .into_iter()
        .map(|((machine, path), versions)| Found {
            host: HostIdentity {
                machine_id: machine.id.to_string(),
                hostname: machine.name.to_string(),
            },
            guest: machine.guest,
            path,
            versions,
        })
        .collect();
    Ok(search)
}

/// What fits in one part of a catalogue.
fn scan(
    readers: &[&Store],
    tree: &Tree,
    blob: &Id,
    pattern: &Pattern,
) -> (Vec<Entry>, Option<String>) {
    let mut hits = Vec::new();
    for line in Catalogue::of(Readers::new(readers), std::slice::from_ref(blob)) {
        let entries = match line {
            Ok(line) => line.entries,
            Err(error) => {
                let lost = format!(
                    "a part of the catalogue of {} is lost, and was not searched: {error}",
                    tree.mount_point
                );
                return (hits, Some(lost));
            }
        };
        hits.extend(entries.into_iter().filter(|e| {
            let path = list::on_host(tree, &e.path);
            e.is_kept() && pattern.fits(bytes::of(&path), e.kind == EntryKind::Dir)
        }));
    }
    (hits, None)
}
