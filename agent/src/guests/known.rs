//! Where the newest dump of each guest is: what the stores at hand hold, and what this host remembers of others.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::Id;
use bundle::document::guest::{GuestRef, StoreRef};
use bundle::store::Store;
use bundle::verify::verdicts;

use super::choice::in_start_order;
use crate::proxmox::Guest;

/// The newest dumps that are known.
#[derive(Debug, Default)]
pub struct Known(Vec<GuestRef>);

fn file(state: &Path) -> PathBuf {
    state.join("guests.json")
}

impl Known {
    /// What this host remembers. Nothing hangs on it but how soon a dump on another drive is found again.
    pub fn remembered(state: &Path) -> Known {
        let json = fs::read(file(state)).unwrap_or_default();
        Known(serde_json::from_slice(&json).unwrap_or_default())
    }

    /// Remembers it.
    pub fn remember(&self, state: &Path) -> anyhow::Result<()> {
        let path = file(state);
        let json = serde_json::to_vec_pretty(&self.0)?;
        crate::state::write(state, &path, &json)
            .with_context(|| format!("cannot note the dumps of guests in {}", path.display()))
    }

    /// Takes in what a store holds of this machine, and forgets what it holds no longer, or was found to hold damaged.
    pub fn look(&mut self, store: &Store, place: &Path, machine_id: &str) -> anyhow::Result<()> {
        let headers = store.snapshots()?;
        let verdicts = verdicts(store)?;
        let damaged = |id: &Id| verdicts.get(id).is_some_and(|v| !v.good);
        for known in &mut self.0 {
            let there = headers.iter().any(|h| h.id == known.snapshot);
            let whole = there && !damaged(&known.snapshot);
            known.stores.retain(|s| s.id != store.id() || whole);
        }
        self.0.retain(|known| !known.stores.is_empty());
        let own = headers.iter().filter(|h| h.host.machine_id == machine_id);
        let dumps = own.filter_map(|header| {
            let guest = header.guest.as_ref()?;
            let dump = GuestRef {
                id: guest.id,
                kind: guest.kind,
                name: guest.name.clone(),
                snapshot: header.id,
                dumped: guest.dumped.clone(),
                stores: vec![StoreRef {
                    id: store.id().to_owned(),
                    place: place.display().to_string(),
                }],
            };
            Some((dump, damaged(&header.id)))
        });
        self.take_in(dumps);
        Ok(())
    }

    /// Takes in dumps, and whether they are damaged: those count only where there is no other one.
    fn take_in(&mut self, dumps: impl Iterator<Item = (GuestRef, bool)>) {
        let (damaged, whole): (Vec<_>, Vec<_>) = dumps.partition(|(_, damaged)| *damaged);
        whole.into_iter().for_each(|(dump, _)| self.add(dump));
        let known: BTreeSet<_> = self.0.iter().map(|k| (k.kind, k.id)).collect();
        let only = damaged.into_iter().map(|(dump, _)| dump);
        only.filter(|dump| !known.contains(&(dump.kind, dump.id)))
            .for_each(|dump| self.add(dump));
    }

    /// Takes in a dump: it replaces an older one, and adds its stores to the same one.
    fn add(&mut self, new: GuestRef) {
        let same = |known: &&mut GuestRef| (known.kind, known.id) == (new.kind, new.id);
        let Some(known) = self.0.iter_mut().find(same) else {
            self.0.push(new);
            return;
        };
        if known.snapshot == new.snapshot {
            for store in new.stores {
                match known.stores.iter_mut().find(|s| s.id == store.id) {
                    Some(known) => *known = store,
                    None => known.stores.push(store),
                }
            }
        } else if known.dumped < new.dumped {
            *known = new;
        }
    }

    /// The dump of a guest.
    pub fn of(&self, guest: &Guest) -> Option<&GuestRef> {
        let mut all = self.0.iter();
        all.find(|known| (known.kind, known.id) == (guest.kind, guest.id))
    }

    /// For the host's restore point: those of its guests, in the order in which they are started.
    pub fn of_all(&self, guests: &[Guest]) -> Vec<GuestRef> {
        let guests = in_start_order(guests).into_iter();
        guests.filter_map(|g| self.of(g).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox::guests::{Kind, parse};

    fn dump(id: u32, dumped: &str, store: &str) -> GuestRef {
        GuestRef {
            id,
            kind: Kind::Qemu,
            name: None,
            snapshot: Id::of(dumped.as_bytes()),
            dumped: dumped.into(),
            stores: vec![StoreRef {
                id: store.into(),
                place: format!("/mnt/{store}"),
            }],
        }
    }

    #[test]
    fn the_newest_counts_and_all_its_stores_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut known = Known::remembered(dir.path());
        for new in [
            dump(100, "2026-11-20", "a"),
            dump(100, "2026-11-21", "a"),
            dump(100, "2026-11-21", "b"),
            dump(100, "2026-11-19", "c"),
            dump(101, "2026-11-01", "c"),
        ] {
            known.add(new);
        }
        known.remember(dir.path()).unwrap();
        let known = Known::remembered(dir.path());
        let guests = [
            parse(101, Kind::Qemu, ""),
            parse(100, Kind::Qemu, "startup: order=1\n"),
            parse(101, Kind::Lxc, ""),
        ];
        let found = known.of_all(&guests);
        let ids: Vec<u32> = found.iter().map(|g| g.id).collect();
        assert_eq!(ids, [100, 101]);
        assert_eq!(found[0].dumped, "2026-11-21");
        let stores: Vec<&str> = found[0].stores.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(stores, ["a", "b"]);
        fs::write(file(dir.path()), "{").unwrap();
        assert!(Known::remembered(dir.path()).of_all(&guests).is_empty());
    }

    #[test]
    fn a_damaged_dump_is_named_only_where_there_is_no_other() {
        let mut known = Known::default();
        let all = [
            (dump(100, "2026-11-19", "a"), false),
            (dump(100, "2026-11-20", "a"), true),
            (dump(101, "2026-11-17", "a"), true),
            (dump(101, "2026-11-18", "a"), true),
        ];
        known.take_in(all.into_iter());
        let dumped: Vec<&str> = known.0.iter().map(|k| k.dumped.as_str()).collect();
        assert_eq!(dumped, ["2026-11-19", "2026-11-18"]);
    }
}
