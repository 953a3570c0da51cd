//! Doing what was planned, in an order in which it may be cut short anywhere.
//!
//! 1. The documents of the snapshots that go. From then on nothing refers to what is removed below.
//! 2. New packs with what is needed of mostly dead ones, read back.
//! 3. A new index that lists what stays; then the indexes that it replaces are removed.
//! 4. The packs.
//!
//! Cut short, packs stay behind that nobody needs, or copies of what is needed: [`super::mark`] finds both again.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::mark::Fate;
use super::{Plan, Prune};
use crate::events::Events;
use crate::format::BlobEntry;
use crate::index::{self, Location, PACKS_PER_INDEX};
use crate::pack::{self, PackEntry, PackWriter};
use crate::store::{Scratch, Store};
use crate::{Error, Id, Result, fsutil, parity};

/// Packs end at the first blob beyond this many bytes, as those of a backup.
const PACK_SIZE: u64 = 128 << 20;
/// What copying leaves free for indexes, and for others who write to the file system.
const RESERVE: u64 = 16 << 20;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Snapshots that were removed.
    pub snapshots: Vec<Id>,
    /// Packs that were removed.
    pub packs_removed: u64,
    /// Packs that were written.
    pub packs_written: u64,
    /// Bytes that are free again.
    pub freed: u64,
    /// What could not be done, and why.
    pub notes: Vec<String>,
}

/// Is asked before each change; an error is as if the plug were pulled there.
pub(super) type Step<'s> = &'s mut dyn FnMut(&str) -> Result<()>;

struct Work<'p> {
    store: &'p Store,
    plan: &'p Plan,
    alive: &'p [bool],
    /// Free space is taken for this; tests lie.
    free: &'p dyn Fn() -> Result<u64>,
    step: Step<'p>,
    events: &'p dyn Events,
    gone: HashSet<Id>,
    done: Done,
}

impl Prune {
    /// Does what the plan says.
    pub fn apply(self, events: &dyn Events) -> Result<Done> {
        let root = self.store.root().to_path_buf();
        self.apply_with(events, &|| fsutil::free_space(&root), &mut |_| Ok(()))
    }

    pub(super) fn apply_with(
        self,
        events: &dyn Events,
        free: &dyn Fn() -> Result<u64>,
        step: Step<'_>,
    ) -> Result<Done> {
        if let Some(blocked) = &self.plan.blocked {
            return Err(Error::NotPruned {
                dir: self.store.dir().to_path_buf(),
                file: blocked.file.clone(),
                reason: blocked.reason.clone(),
            });
        }
        if !self.store.writable() {
            return Err(Error::Internal("the store was opened for reading only"));
        }
        let _no_readers = self.store.lock_readers_out()?;
        let chosen = |fate: Fate| -> Vec<u32> {
            let packs = self.marks.fates.iter().zip(0u32..);
            packs.filter(|(f, _)| **f == fate).map(|(_, n)| n).collect()
        };
        let (dead, mut mostly) = (chosen(Fate::Dead), chosen(Fate::MostlyDead));
        // Where there is little room, the packs first that give the most for it.
        let alive_bytes = &self.marks.alive_bytes;
        let gain = |n: &u32| {
            let at = *n as usize;
            self.store.packs()[at].size.saturating_sub(alive_bytes[at])
        };
        mostly.sort_by_key(|n| std::cmp::Reverse(gain(n)));
        let mut work = Work {
            store: &self.store,
            plan: &self.plan,
            alive: &self.marks.alive,
            free,
            step: &mut |name| {
                if events.cancelled() {
                    return Err(Error::Cancelled);
                }
                step(name)
            },
            events,
            gone: HashSet::new(),
            done: Done::default(),
        };
        work.documents()?;
        events.phase(
            "removing what is not needed any more",
            Some(self.plan.copied),
        );
        let fits = |work: &Work<'_>, wanted: &[u32]| -> Result<usize> {
            let mut room = (work.free)()?.saturating_sub(RESERVE);
            let fit = wanted.iter().take_while(|n| {
                let needs = alive_bytes[**n as usize];
                let fits = needs <= room;
                room = room.saturating_sub(needs);
                fits
            });
            Ok(fit.count())
        };
        if fits(&work, &mostly)? == mostly.len() {
            work.round(&dead, &mostly)?;
        } else {
            // First what needs no room; then as much as fits, again and again.
            work.round(&dead, &[])?;
            while !mostly.is_empty() {
                let fit = fits(&work, &mostly)?;
                if fit == 0 {
                    work.done.notes.push(format!(
                        "{} packs of which little is needed stay: there is no room for a copy of that",
                        mostly.len()
                    ));
                    break;
                }
                let rest = mostly.split_off(fit);
                work.round(&[], &mostly)?;
                mostly = rest;
            }
        }
        Ok(work.done)
    }
}

impl Work<'_> {
    fn documents(&mut self) -> Result<()> {
        let dir = self.store.root().join("snapshots");
        let going = self.plan.restore_points.iter().filter(|r| !r.stays);
        let going: Vec<_> = going.collect();
        if going.is_empty() {
            return Ok(());
        }
        (self.step)("remove the parity of snapshot documents")?;
        let files: Vec<&Path> = going.iter().map(|row| row.file.as_path()).collect();
        parity::remove_of_documents(&dir, &files)?;
        for row in going {
            (self.step)("remove a snapshot document")?;
            fsutil::remove(&row.file)?;
            self.done.snapshots.push(row.id);
        }
        fsutil::sync_dir(&dir)
    }

    /// Removes dead packs, and mostly dead ones after copying what is needed of them.
    fn round(&mut self, dead: &[u32], mostly: &[u32]) -> Result<()> {
        let (mut new, mut going) = (Vec::new(), dead.to_vec());
        match self.copy(mostly) {
            Ok((written, copied)) => {
                new = written;
                going.extend(copied);
            }
            Err(error) if error.is_full() => self.done.notes.push(format!(
                "packs of which little is needed stay: there is no room for a copy of that ({error})"
            )),
            Err(error) => return Err(error),
        }
        // The copy of what a damaged pack should hold is that very pack, whole again.
        let renewed = |n: &u32| {
            let id = self.store.packs()[*n as usize].id;
            new.iter().any(|p| p.id == id)
        };
        going.retain(|n| !renewed(n));
        if going.is_empty() {
            return Ok(());
        }
        let ids: HashSet<Id> = going
            .iter()
            .map(|n| self.store.packs()[*n as usize].id)
            .collect();
        let old = self.old_indexes(&ids)?;
        let mut listed = new.clone();
        listed.extend(self.unlisted(&ids));
        for (_, packs) in &old {
            listed.extend(packs.iter().filter(|p| !ids.contains(&p.id)).cloned());
        }
        listed.retain(|p| !self.gone.contains(&p.id));
        listed.sort_by_key(|p| p.id);
        listed.dedup_by_key(|p| p.id);
        let mut fresh = BTreeSet::new();
        let written = (self.step)("write the new index")
            .and_then(|()| index::write_files(self.store.root(), &listed, self.store.cipher()));
        let unwritten = match written {
            Ok(files) => {
                fresh.extend(files.into_iter().map(|(file, _)| file));
                None
            }
            // Without room for an index there is still a way: a reader needs none, packs have footers. But what only
            // an index knows, of a pack that is not whole, must not be forgotten.
            Err(error) if error.is_full() && self.all_whole(&listed) => Some(error),
            Err(error) => return Err(error),
        };
        for (file, _) in &old {
            if !fresh.contains(file) {
                (self.step)("remove an old index")?;
                parity::remove_with(file)?;
            }
        }
        fsutil::sync_dir(&self.store.root().join("index"))?;
        self.store.close_packs();
        let mut dirs = BTreeSet::new();
        for number in going {
            let pack = &self.store.packs()[number as usize];
            let path = self.store.pack_path(pack);
            (self.step)("remove a pack")?;
            parity::remove_with(&path)?;
            dirs.extend(path.parent().map(Path::to_path_buf));
            self.gone.insert(pack.id);
            self.done.packs_removed += 1;
            self.done.freed += pack.size;
        }
        for dir in dirs {
            fsutil::sync_dir(&dir)?;
        }
        if unwritten.is_some() {
            (self.step)("write the new index")?;
            if let Err(error) = index::write_files(self.store.root(), &listed, self.store.cipher())
            {
                self.done.notes.push(format!(
                    "there is no room for an index; the next backup writes one, until then opening is slow ({error})"
                ));
            }
        }
        let written: u64 = new.iter().map(|p| p.size).sum();
        self.done.freed = self.done.freed.saturating_sub(written);
        self.done.packs_written += new.len() as u64;
        Ok(())
    }

    /// Copies what is needed of these packs. Returns the new packs, and which of the old ones are dispensable now.
    fn copy(&mut self, mostly: &[u32]) -> Result<(Vec<PackEntry>, Vec<u32>)> {
        let mut new = Vec::new();
        let copied = self.copy_into(mostly, &mut new);
        if copied.is_err() {
            // Copies that are in the way on a full disk; what they are copies of is still there.
            for pack in &new {
                let _ = parity::remove_with(&self.store.root().join(pack::pack_name(&pack.id)));
            }
        }
        copied.map(|copied| (new, copied))
    }

    fn copy_into(&mut self, mostly: &[u32], new: &mut Vec<PackEntry>) -> Result<Vec<u32>> {
        let mut writer: Option<PackWriter> = None;
        let mut scratch = Scratch::default();
        let mut content = Vec::new();
        let mut copied = Vec::new();
        let wanted: HashSet<u32> = mostly.iter().copied().collect();
        let mut places = self.places(|place, alive| alive && wanted.contains(&place.pack));
        places.sort_unstable_by_key(|p| (p.pack, p.offset));
        for of_pack in places.chunk_by(|a, b| a.pack == b.pack) {
            let mut whole = true;
            for place in of_pack {
                let to = match &mut writer {
                    Some(writer) => writer,
                    none => {
                        none.insert(PackWriter::create(self.store.root(), self.store.cipher())?)
                    }
                };
                match pack::copy(self.store, place, &mut scratch, &mut content, to)? {
                    Ok(bytes) => self.events.bytes(bytes),
                    Err(reason) => {
                        whole = false;
                        self.done.notes.push(format!(
                            "a pack of which little is needed stays, a part of that is damaged: {reason}"
                        ));
                        break;
                    }
                }
                if to.size() >= PACK_SIZE {
                    self.seal(&mut writer, new)?;
                }
            }
            if whole {
                copied.push(of_pack[0].pack);
            }
        }
        self.seal(&mut writer, new)?;
        Ok(copied)
    }

    /// Names the new pack, and reads it again: the only other copy is about to be removed.
    fn seal(&mut self, writer: &mut Option<PackWriter>, new: &mut Vec<PackEntry>) -> Result<()> {
        let Some(writer) = writer.take() else {
            return Ok(());
        };
        (self.step)("name a new pack")?;
        let pack = writer.finish()?.seal()?;
        let (id, path) = (pack.id, self.store.root().join(pack::pack_name(&pack.id)));
        new.push(pack);
        if parity::hash_cold(&path)? != id {
            return Err(Error::malformed(
                path.display(),
                "what was just written is read back as something else; replace this medium",
            ));
        }
        Ok(())
    }

    /// The indexes that the new one replaces: those that list what goes, and small ones, so that one does not stay for
    /// every backup there ever was. One that cannot be read is left to `verify`.
    fn old_indexes(&self, going: &HashSet<Id>) -> Result<Vec<(PathBuf, Vec<PackEntry>)>> {
        let mut old = Vec::new();
        for (path, id) in index::files(self.store.root())? {
            let Some(Ok(packs)) = id.map(|id| index::read(&path, &id, self.store.cipher())) else {
                continue;
            };
            let listed = packs.iter().any(|p| going.contains(&p.id));
            if listed || packs.len() < PACKS_PER_INDEX / 2 {
                old.push((path, packs));
            }
        }
        Ok(old)
    }

    /// Packs that are in no index and needed: of a prune that was cut short. (Those that are not needed are of a
    /// backup that was, and stay as it left them.)
    fn unlisted(&self, going: &HashSet<Id>) -> Vec<PackEntry> {
        let packs = self.store.packs().iter().zip(0u32..);
        let unlisted: Vec<u32> = packs
            .filter(|(p, _)| p.unindexed && p.problem.is_none() && !going.contains(&p.id))
            .map(|(_, n)| n)
            .collect();
        let needed = |n: &u32| {
            !self
                .places(|place, alive| alive && place.pack == *n)
                .is_empty()
        };
        let entry = |number: u32| {
            let pack = &self.store.packs()[number as usize];
            let mut places = self.places(|place, _| place.pack == number);
            places.sort_unstable_by_key(|p| p.offset);
            PackEntry {
                id: pack.id,
                size: pack.size,
                blobs: places.iter().map(blob_entry).collect(),
            }
        };
        unlisted.into_iter().filter(needed).map(entry).collect()
    }

    fn places(&self, wanted: impl Fn(&Location, bool) -> bool) -> Vec<Location> {
        let places = self.store.map().all().iter().zip(self.alive);
        places
            .filter(|(place, alive)| wanted(place, **alive))
            .map(|(place, _)| *place)
            .collect()
    }

    fn all_whole(&self, listed: &[PackEntry]) -> bool {
        let known = |id: &Id| self.store.packs().iter().find(|p| p.id == *id);
        listed
            .iter()
            .all(|p| known(&p.id).is_none_or(|p| p.problem.is_none()))
    }
}

fn blob_entry(place: &Location) -> BlobEntry {
    BlobEntry {
        id: place.id,
        kind: place.kind,
        codec: place.codec,
        offset: u64::from(place.offset),
        stored: u64::from(place.stored),
        raw: u64::from(place.raw),
    }
}
