//! Making a damaged store whole again: from the parity beside its files, and from other stores.
//!
//! Parity gives back the very files. What it cannot give is taken from other stores blob by blob, into new packs that
//! replace the damaged ones, in an order in which it may be cut short anywhere: the new packs, read back; a new index;
//! then the indexes that list what goes, and last the damaged packs. Nothing is removed as long as it holds anything
//! that could not be written anew.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::events::Events;
use crate::index::{self, Location};
use crate::pack::{self, PackEntry, PackWriter, pack_name};
use crate::read::Readers;
use crate::store::{Scratch, Store};
use crate::verify::refs::{Owner, Visitor, follow};
use crate::verify::{Survey, VerifyReport, Which, survey, worker_count};
use crate::{Error, Id, Result, fsutil, parity, time};

/// Packs of blobs that were in no pack end at the first blob beyond this many bytes.
const PACK_SIZE: u64 = 128 << 20;

/// A file that was made whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Healed {
    /// The file of the store, relative to `lifeboat/`.
    pub file: String,
    /// How, in words.
    pub how: String,
}

/// What was wrong, what was done, and what is wrong now.
#[derive(Debug, Clone, Serialize)]
pub struct HealReport {
    /// The verification before.
    pub before: VerifyReport,
    /// What was done.
    pub healed: Vec<Healed>,
    /// The verdict after it: of what was changed and what stayed damaged read again, and the rest as it was before.
    pub after: VerifyReport,
}

/// Verifies a store that was opened for writing and repairs what can be repaired. Its lock is released at the end.
pub fn heal(
    store: Store,
    others: &[&Store],
    workers: usize,
    events: &dyn Events,
) -> Result<HealReport> {
    if !store.writable() {
        return Err(Error::Internal("the store was opened for reading only"));
    }
    let workers = worker_count(workers);
    let first = survey(&store, Which::All, None, true, workers, events)?;
    let before = first.report.clone();
    let mut good = first.good.clone();
    let mut healed = Vec::new();
    let mut store = store;
    let mut now = first;
    let again = |store: &Store, good: &mut HashSet<Id>| -> Result<Survey> {
        let found = survey(store, Which::Except(good), None, true, workers, events)?;
        good.extend(found.good.iter().copied());
        Ok(found)
    };
    if from_parity(&store, &now.report, &mut healed)? {
        store = store.reload()?;
        now = again(&store, &mut good)?;
    }
    if documents(&store, others, &mut healed)? {
        store = store.reload()?;
        now = again(&store, &mut good)?;
    }
    if !now.report.ok() {
        let mut work = Work {
            store: &store,
            others,
            now: &now,
            events,
            healed: Vec::new(),
            new: Vec::new(),
            written: HashSet::new(),
        };
        let changed = work.run()?;
        healed.append(&mut work.healed);
        if changed {
            store = store.reload()?;
            now = again(&store, &mut good)?;
        }
    }
    // Parity of new files was written with them; of older ones it may be damaged or missing.
    let recorded = parity::recorded(store.root()).is_err();
    if recorded {
        let percent = store.parity();
        store.set_parity(percent)?;
        healed.push(Healed {
            file: "parity.json".into(),
            how: "written anew".into(),
        });
    }
    let parity = parity::complete(store.root(), true)?;
    let renewed = recorded || parity != parity::Completed::default();
    for (files, how) in [
        (parity.written, "parity made anew"),
        (
            parity.removed,
            "damaged parity removed: none is made any more",
        ),
    ] {
        healed.extend(files.iter().map(|file| Healed {
            file: relative(&store, file),
            how: how.into(),
        }));
    }
    if renewed {
        now = again(&store, &mut good)?;
    }
    let mut after = now.report;
    // Read a moment ago, and untouched since.
    after.packs = store.packs().len() as u64;
    after.blobs = store.stats().blobs;
    after.bytes = after.bytes.max(before.bytes);
    Ok(HealReport {
        before,
        healed,
        after,
    })
}

fn relative(store: &Store, file: &Path) -> String {
    let relative = file.strip_prefix(store.root()).unwrap_or(file);
    relative.display().to_string()
}

/// Repairs files that have parity. Did it repair any?
fn from_parity(store: &Store, report: &VerifyReport, healed: &mut Vec<Healed>) -> Result<bool> {
    let files: BTreeSet<&str> = report.damaged.iter().map(|d| d.file.as_str()).collect();
    let before = healed.len();
    store.close_packs();
    for file in files.into_iter().filter(|f| !f.is_empty()) {
        let path = store.root().join(file);
        if !path.exists() || !parity::path_of(&path).exists() {
            continue;
        }
        match parity::repair(store.root(), &path) {
            Ok(()) => healed.push(Healed {
                file: file.to_string(),
                how: "repaired from its parity".into(),
            }),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    Ok(healed.len() > before)
}

/// Takes snapshot documents that are damaged, or missing though their parity is there, from other stores.
fn documents(store: &Store, others: &[&Store], healed: &mut Vec<Healed>) -> Result<bool> {
    let dir = store.root().join("snapshots");
    let mut known = HashSet::new();
    let mut wanted: Vec<PathBuf> = Vec::new();
    for (file, document) in store.documents()? {
        match document {
            Ok((id, _)) => {
                known.insert(id);
            }
            Err(Error::Malformed { .. } | Error::Io { .. }) => wanted.push(file),
            Err(_) => {}
        }
    }
    wanted.extend(parity::lost_documents(store.root())?);
    if wanted.is_empty() {
        return Ok(false);
    }
    let mut candidates = Vec::new();
    for other in others {
        for (_, document) in other.documents()? {
            if let Ok((id, snapshot)) = document {
                if !known.contains(&id) {
                    candidates.push((id, snapshot, other.dir()));
                }
            }
        }
    }
    let before = healed.len();
    for file in wanted {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let found = candidates.iter().find(|(id, snapshot, _)| {
            let time = time::compact(&snapshot.time);
            // The name of an encrypted document does not give the snapshot's id.
            let same = name.contains(&id.to_string()) || !name.ends_with(".json");
            name.starts_with(&format!("{time}-")) && same
        });
        let Some((id, snapshot, from)) = found else {
            continue;
        };
        let json = serde_json::to_vec_pretty(snapshot)
            .map_err(|e| Error::malformed("a snapshot document", e))?;
        if Id::of(&json) != *id {
            tracing::warn!(%id, "the document of the other store cannot be written as it was");
            continue;
        }
        store.write_snapshot(&snapshot.time, &json)?;
        let rewritten = parity::hash_cold(&file).is_ok_and(|hash| name.contains(&hash.to_string()));
        if !rewritten {
            parity::remove_of_documents(&dir, &[&file])?;
            fsutil::remove(&file)?;
            fsutil::sync_dir(&dir)?;
        }
        healed.push(Healed {
            file: relative(store, &file),
            how: format!("written anew from {}", from.display()),
        });
    }
    Ok(healed.len() > before)
}

/// Everything that the snapshots of a store need.
struct Needed {
    ids: BTreeSet<Id>,
    /// No document, catalogue or list was unreadable.
    complete: bool,
}

impl Visitor for Needed {
    fn needs(&mut self, id: Id, _: &Owner<'_>) {
        self.ids.insert(id);
    }

    fn broken(&mut self, _: &Id, _: &Error) {
        self.complete = false;
    }
}

struct Work<'a> {
    store: &'a Store,
    others: &'a [&'a Store],
    now: &'a Survey,
    events: &'a dyn Events,
    healed: Vec<Healed>,
    new: Vec<PackEntry>,
    /// Blobs in the new packs.
    written: HashSet<Id>,
}

impl Work<'_> {
    /// Did it change anything?
    fn run(&mut self) -> Result<bool> {
        let mut of_pack: BTreeMap<u32, Vec<Location>> = BTreeMap::new();
        for place in self.store.map().iter() {
            if self.now.damaged.contains(&place.pack) {
                of_pack.entry(place.pack).or_default().push(*place);
            }
        }
        let total = of_pack.values().flatten().map(|l| u64::from(l.stored));
        self.events
            .phase("writing damaged packs anew", Some(total.sum()));
        let needed = self.needed()?;
        let mut going = Vec::new();
        for number in &self.now.damaged {
            let places = of_pack.remove(number).unwrap_or_default();
            if self.replace(*number, places, &needed)? {
                going.push(*number);
            }
            if self.events.cancelled() {
                return Err(Error::Cancelled);
            }
        }
        let complete = self.missing(&needed)?;
        let damaged_files = |extension: &str| -> Vec<PathBuf> {
            let problems = self.store.problems().iter().map(|p| p.file.clone());
            problems
                .filter(|f| f.extension().is_some_and(|e| e == extension))
                .filter(|f| !is_whole(f))
                .collect()
        };
        let indexes = damaged_files("idx");
        // In no index, and without a footer: what they hold is not known, only that nothing is needed of it any more.
        let packs = if complete {
            damaged_files("pack")
        } else {
            Vec::new()
        };
        if self.new.is_empty() && going.is_empty() && indexes.is_empty() && packs.is_empty() {
            return Ok(false);
        }
        self.exchange(&going, &indexes, &packs)?;
        Ok(true)
    }

    fn is_bad(&self, place: &Location) -> bool {
        let place = (place.pack, place.offset);
        self.now.bad_places.contains(&place)
    }

    /// Copies of the blob that can be read: in this store outside of damaged places, or in another one.
    fn sources(&self, id: &Id) -> Vec<(&Store, Location)> {
        let own = self.store.map().find(id).iter();
        let own = own.filter(|l| !self.is_bad(l));
        let own = own.map(|l| (self.store, *l));
        let others = self.others.iter();
        let others = others.flat_map(|o| o.map().find(id).iter().map(|l| (*o, *l)));
        own.chain(others).collect()
    }

    /// Writes what a damaged pack should hold into a new one. True when nothing is in it that is not elsewhere.
    fn replace(&mut self, number: u32, mut places: Vec<Location>, needed: &Needed) -> Result<bool> {
        places.sort_unstable_by_key(|l| l.offset);
        let whole = |l: &Location| !self.now.damaged.contains(&l.pack);
        let elsewhere = |p: &Location| self.store.map().find(&p.id).iter().any(whole);
        // What is whole in another pack need not be there twice.
        places.retain(|p| !self.written.contains(&p.id) && !elsewhere(p));
        let (mut scratch, mut content) = (Scratch::default(), Vec::new());
        let mut lost = HashSet::new();
        let mut taken = BTreeSet::new();
        for place in places.iter().filter(|p| self.is_bad(p)) {
            let sources = self.sources(&place.id).into_iter();
            let mut sources =
                sources.filter(|(s, l)| s.read_at(l, &mut scratch, &mut content).is_ok());
            match sources.next() {
                Some((from, _)) if from.dir() == self.store.dir() => {}
                Some((from, _)) => {
                    taken.insert(from.dir().display().to_string());
                }
                None => {
                    lost.insert(place.id);
                }
            }
        }
        let dispensable = |id: &Id| needed.complete && !needed.ids.contains(id);
        let stays = !lost.iter().all(dispensable);
        let id = self.store.packs()[number as usize].id;
        if stays {
            // Only what can be healed; the rest may be healed another time, from what is attached then.
            tracing::warn!(pack = %id.short(), lost = lost.len(), "a damaged pack stays: blobs in it are nowhere else");
            places.retain(|p| self.is_bad(p));
        }
        places.retain(|p| !lost.contains(&p.id));
        let mut writer = None;
        let mut complete = true;
        for place in &places {
            self.events.bytes(u64::from(place.stored));
            complete &= self.take(&place.id, &mut writer)?.is_some();
        }
        self.seal(writer)?;
        if places.is_empty() && stays {
            return Ok(false);
        }
        let from = taken.into_iter().collect::<Vec<_>>().join(", ");
        self.healed.push(Healed {
            file: pack_name(&id),
            how: match (stays || !complete, places.is_empty(), from.is_empty()) {
                (true, ..) => {
                    format!("a part of its blobs written anew from {from}; it stays for the others")
                }
                (_, true, _) => "removed: all that is needed of it is in other packs".into(),
                (.., true) => "written anew from what is whole in this store".into(),
                _ => format!("written anew with blobs from {from}"),
            },
        });
        Ok(!stays && complete)
    }

    /// Copies a blob into the pack that is being written; says where it was found.
    fn take(&mut self, id: &Id, writer: &mut Option<PackWriter>) -> Result<Option<PathBuf>> {
        let (mut scratch, mut content) = (Scratch::default(), Vec::new());
        for (from, place) in self.sources(id) {
            let to = match &mut *writer {
                Some(writer) => writer,
                none => none.insert(PackWriter::create(self.store.root(), self.store.cipher())?),
            };
            match pack::copy(from, &place, &mut scratch, &mut content, to)? {
                Ok(_) => {
                    let dir = from.dir().to_path_buf();
                    self.written.insert(*id);
                    return Ok(Some(dir));
                }
                Err(reason) => tracing::warn!("{reason}"),
            }
        }
        Ok(None)
    }

    /// Names a new pack and reads it back: other copies of what is in it may be about to be removed.
    fn seal(&mut self, writer: Option<PackWriter>) -> Result<()> {
        let Some(writer) = writer.filter(|w| w.blobs() > 0) else {
            return Ok(());
        };
        self.store.check_in_place()?;
        // It may be the very pack that is damaged, whole again: then it takes its place.
        let pack = writer.finish()?.seal()?;
        let path = self.store.root().join(pack_name(&pack.id));
        if parity::hash_cold(&path)? != pack.id {
            return Err(Error::malformed(
                path.display(),
                "what was just written is read back as something else; replace this medium",
            ));
        }
        self.new.push(pack);
        Ok(())
    }

    /// What the snapshots need, as far as any of the stores tells.
    fn needed(&self) -> Result<Needed> {
        let mut stores = vec![self.store];
        stores.extend(self.others);
        // What a document needs that is gone, but was not removed on purpose, is not known.
        let mut needed = Needed {
            ids: BTreeSet::new(),
            complete: parity::lost_documents(self.store.root())?.is_empty(),
        };
        for (_, document) in self.store.documents()? {
            let Ok((_, snapshot)) = document else {
                needed.complete = false;
                continue;
            };
            follow(&mut Readers::new(&stores), &snapshot, &mut needed);
        }
        Ok(needed)
    }

    /// Fetches what snapshots need and no pack of this store is known to hold. True when they have everything now.
    fn missing(&mut self, needed: &Needed) -> Result<bool> {
        let mut complete = needed.complete;
        let mut writer = None;
        let mut from = HashMap::<PathBuf, u64>::new();
        for id in &needed.ids {
            if self.written.contains(id) {
                continue;
            }
            let places = self.store.map().find(id);
            if !places.is_empty() {
                complete &= !places.iter().all(|l| self.is_bad(l));
                continue;
            }
            match self.take(id, &mut writer)? {
                Some(dir) => *from.entry(dir).or_default() += 1,
                None => complete = false,
            }
            if writer.as_ref().is_some_and(|w| w.size() >= PACK_SIZE) {
                self.seal(writer.take())?;
            }
        }
        self.seal(writer)?;
        for (dir, count) in from {
            self.healed.push(Healed {
                file: "packs".into(),
                how: format!("{count} missing blobs fetched from {}", dir.display()),
            });
        }
        Ok(complete)
    }

    /// New index, then stale and damaged indexes, then the packs that are replaced.
    fn exchange(&mut self, going: &[u32], bad: &[PathBuf], unknown: &[PathBuf]) -> Result<()> {
        let root = self.store.root();
        let packs = self.store.packs();
        let gone: HashSet<Id> = going
            .iter()
            .map(|n| packs[*n as usize].id)
            .filter(|id| self.new.iter().all(|p| p.id != *id))
            .collect();
        let mut listed = self.new.clone();
        listed.extend(self.store.unindexed());
        let mut stale = Vec::new();
        for (path, id) in index::files(root)? {
            let Some(Ok(packs)) = id.map(|id| index::read(&path, &id, self.store.cipher())) else {
                continue;
            };
            if packs.iter().any(|p| gone.contains(&p.id)) {
                stale.push(path);
                listed.extend(packs);
            }
        }
        // A pack that is whole again under its name is listed where it was.
        let known = |p: &PackEntry| packs.iter().any(|k| k.id == p.id && !k.unindexed);
        listed.retain(|p| !stale.is_empty() || !known(p));
        listed.retain(|p| !gone.contains(&p.id));
        listed.sort_by_key(|p| p.id);
        listed.dedup_by_key(|p| p.id);
        self.store.check_in_place()?;
        index::write(root, &listed, self.store.cipher())?;
        // The new index may be the very one that was damaged.
        let damaged: Vec<&PathBuf> = bad.iter().filter(|f| !is_whole(f)).collect();
        for file in stale.iter().chain(damaged) {
            parity::remove_with(file)?;
        }
        fsutil::sync_dir(&root.join("index"))?;
        for file in bad {
            self.healed.push(Healed {
                file: relative(self.store, file),
                how: "replaced by what the packs' footers say".into(),
            });
        }
        self.store.close_packs();
        let files = gone.iter().map(|id| root.join(pack_name(id)));
        for file in files.chain(unknown.iter().cloned()) {
            parity::remove_with(&file)?;
            match file.parent() {
                // Its directory may never have been, when all of it was lost.
                Some(dir) if dir.exists() => fsutil::sync_dir(dir)?,
                _ => {}
            }
        }
        for file in unknown {
            self.healed.push(Healed {
                file: relative(self.store, file),
                how: "removed: it cannot be read, and nothing of it is needed any more".into(),
            });
        }
        Ok(())
    }
}

/// Does the file have the hash that its name gives? One that cannot be read is not removed for that.
fn is_whole(file: &Path) -> bool {
    let name = file.file_stem().and_then(|stem| stem.to_str());
    match name.and_then(|stem| stem.parse::<Id>().ok()) {
        Some(id) => parity::hash_cold(file).map_or(true, |hash| hash == id),
        None => true,
    }
}
