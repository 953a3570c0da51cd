//! Is everything that the snapshots refer to there, and right?

mod packs;
pub(crate) mod refs;
mod verdicts;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::document::Snapshot;
use crate::events::Events;
use crate::index::Location;
use crate::pack::pack_name;
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Id, Result, fsutil, time};
use packs::PackCheck;
use refs::Owner;

pub use verdicts::{Verdict, verdicts};

/// What is verified.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Only what this snapshot (id prefix or `latest`) needs; else the whole store.
    pub snapshot: Option<String>,
    /// Read from the medium, past the page cache.
    pub cold: bool,
    /// Threads; the number of CPUs when 0.
    pub workers: usize,
}

/// One damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damage {
    /// The damaged file of the store, relative to `lifeboat/`; empty when a blob is in no pack at all.
    pub file: String,
    /// The pack, if it is one.
    pub pack: Option<Id>,
    /// The damaged blob, if it is one.
    pub blob: Option<Id>,
    /// What is wrong.
    pub reason: String,
    /// Paths on the host of every file that is lost by it; none when another copy is whole.
    pub files: Vec<String>,
    /// Ids of the snapshots that it affects.
    pub snapshots: Vec<Id>,
}

/// The verdict on a store or a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyReport {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// The store's id; of several, separated by commas.
    pub store: String,
    /// The snapshots whose references were followed.
    pub snapshots: Vec<Id>,
    /// Packs read.
    pub packs: u64,
    /// Blobs read and compared with their ids.
    pub blobs: u64,
    /// Bytes read from the medium.
    pub bytes: u64,
    /// Read past the page cache.
    pub cold: bool,
    /// Everything that is wrong.
    pub damaged: Vec<Damage>,
    /// What else the reader should know; nothing here is a damage.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Nothing is damaged.
    pub fn ok(&self) -> bool {
        self.damaged.is_empty()
    }
}

/// A damage while its files are being collected.
struct Open {
    damage: Damage,
    files: BTreeSet<String>,
    snapshots: BTreeSet<Id>,
}

/// The damages found so far, and which lost blob belongs to which.
#[derive(Default)]
struct Findings {
    open: Vec<Open>,
    lost: HashMap<Id, usize>,
}

impl Findings {
    fn add(&mut self, file: String, pack: Option<Id>, blob: Option<Id>, reason: String) -> usize {
        let damage = Damage {
            file,
            pack,
            blob,
            reason,
            files: Vec::new(),
            snapshots: Vec::new(),
        };
        self.open.push(Open {
            damage,
            files: BTreeSet::new(),
            snapshots: BTreeSet::new(),
        });
        self.open.len() - 1
    }

    /// Names the files and snapshots that need lost blobs, and the references that lead nowhere. Returns notes on
    /// what could not be named.
    fn attribute(&mut self, stores: &[&Store], snapshots: &[(Id, Snapshot)]) -> Vec<String> {
        let mut notes = Vec::new();
        for (snapshot_id, snapshot) in snapshots {
            let mut readers = Readers::new(stores);
            let mut catalogue_lost = false;
            let malformed =
                refs::follow(&mut readers, snapshot, &mut |id: Id, owner: &Owner<'_>| {
                    if !self.lost.contains_key(&id) {
                        if Readers::place(stores, &id).is_some() {
                            return;
                        }
                        let reason = "the snapshot needs a blob that no pack holds".to_string();
                        let number = self.add(String::new(), None, Some(id), reason);
                        self.lost.insert(id, number);
                    }
                    let open = &mut self.open[self.lost[&id]];
                    open.files.extend(owner.files());
                    open.snapshots.insert(*snapshot_id);
                    catalogue_lost |= matches!(owner, Owner::Catalogue { .. });
                });
            if catalogue_lost {
                notes.push(format!(
                    "a part of the catalogue of {} is lost: other damage may cost it more files than are named",
                    snapshot_id.short()
                ));
            }
            for (id, reason) in malformed {
                let number = self.add(String::new(), None, Some(id), reason);
                self.open[number].snapshots.insert(*snapshot_id);
            }
        }
        notes
    }

    fn finish(self) -> Vec<Damage> {
        let finish = |open: Open| Damage {
            files: open.files.into_iter().collect(),
            snapshots: open.snapshots.into_iter().collect(),
            ..open.damage
        };
        self.open.into_iter().map(finish).collect()
    }
}

fn worker_count(wanted: usize) -> usize {
    if wanted > 0 {
        wanted.min(64)
    } else {
        std::thread::available_parallelism()
            .map_or(2, usize::from)
            .min(16)
    }
}

/// Verifies a store or one of its snapshots: packs, blobs, footers against indexes, documents, and that every
/// reference resolves. Damage is in the report; an error means that the verification itself could not be done.
pub fn verify(store: &Store, options: &VerifyOptions, events: &dyn Events) -> Result<VerifyReport> {
    let workers = worker_count(options.workers);
    if let Some(wanted) = &options.snapshot {
        let found = match store.snapshot(wanted) {
            Ok(found) => found,
            // The snapshot is there, and is lost.
            Err(Error::Malformed { what, reason }) => {
                let mut report = start(&[store], options.cold);
                let mut findings = Findings::default();
                findings.add(relative(store, Path::new(&what)), None, None, reason);
                report.damaged = findings.finish();
                return Ok(report);
            }
            Err(error) => return Err(error),
        };
        let mut report = needed(&[store], &[found], options.cold, workers, events)?;
        // Not needed by this snapshot, or replaced by the packs' footers.
        report.notes.extend(
            store
                .problems()
                .iter()
                .map(|problem| format!("{}: {}", relative(store, &problem.file), problem.reason)),
        );
        return Ok(report);
    }
    let mut report = start(&[store], options.cold);
    let mut findings = Findings::default();
    let mut snapshots = Vec::new();
    for (file, document) in store.documents()? {
        match document {
            Ok(found) => snapshots.push(found),
            Err(error) => {
                findings.add(relative(store, &file), None, None, reason_of(error));
            }
        }
    }
    for problem in store.problems() {
        let file = relative(store, &problem.file);
        findings.add(file, None, None, problem.reason.clone());
    }
    report.snapshots = snapshots.iter().map(|(id, _)| *id).collect();
    let unindexed = store.packs().iter().filter(|p| p.unindexed).count();
    if unindexed > 0 {
        report.notes.push(format!(
            "{unindexed} packs are in no index; the next backup lists them"
        ));
    }
    events.phase("verify", Some(store.packs().iter().map(|p| p.size).sum()));
    let checks = check_packs(store, options.cold, workers, events);
    if events.cancelled() {
        return Err(Error::Cancelled);
    }
    let bad_places: HashSet<(u32, u32)> = checks
        .iter()
        .flat_map(|(_, c)| c.bad.iter().map(|(l, _)| (l.pack, l.offset)))
        .collect();
    for (number, check) in checks {
        report.packs += 1;
        report.blobs += check.blobs;
        report.bytes += check.bytes;
        pack_findings(store, number, check, &bad_places, &mut findings);
    }
    report
        .notes
        .extend(findings.attribute(&[store], &snapshots));
    report.damaged = findings.finish();
    Ok(report)
}

fn start(stores: &[&Store], cold: bool) -> VerifyReport {
    let ids: Vec<_> = stores.iter().map(|s| s.id().to_string()).collect();
    VerifyReport {
        time: time::rfc3339(time::now()),
        store: ids.join(","),
        cold,
        ..VerifyReport::default()
    }
}

fn relative(store: &Store, file: &Path) -> String {
    file.strip_prefix(store.root())
        .unwrap_or(file)
        .display()
        .to_string()
}

fn reason_of(error: Error) -> String {
    match error {
        Error::Malformed { reason, .. } => reason,
        other => other.to_string(),
    }
}

fn check_packs(
    store: &Store,
    cold: bool,
    workers: usize,
    events: &dyn Events,
) -> Vec<(usize, PackCheck)> {
    let mut places: Vec<Vec<Location>> = vec![Vec::new(); store.packs().len()];
    for place in store.map().iter() {
        places[place.pack as usize].push(*place);
    }
    places
        .iter_mut()
        .for_each(|p| p.sort_by_key(|l| (l.offset, l.id)));
    let next = AtomicUsize::new(0);
    let checks = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if events.cancelled() {
                        return;
                    }
                    let Some(pack) = store.packs().get(number) else {
                        return;
                    };
                    let check =
                        packs::check(&store.pack_path(pack), pack, &places[number], cold, events);
                    checks
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((number, check));
                }
            });
        }
    });
    let mut checks = checks.into_inner().unwrap_or_else(PoisonError::into_inner);
    checks.sort_by_key(|(number, _)| *number);
    checks
}

/// One damage per blob that is bad for its own reason; one for all that is lost with the pack itself.
fn pack_findings(
    store: &Store,
    number: usize,
    check: PackCheck,
    bad_places: &HashSet<(u32, u32)>,
    findings: &mut Findings,
) {
    let id = store.packs()[number].id;
    let file = pack_name(&id);
    let whole_copy = |blob: &Id| {
        store
            .map()
            .find(blob)
            .iter()
            .any(|l| !bad_places.contains(&(l.pack, l.offset)))
    };
    let own = check.bad.iter().any(|(_, reason)| reason.is_some());
    // The pack's hash is wrong because a blob's is: one of the two is enough to say.
    let with_pack = check.bad.iter().any(|(_, reason)| reason.is_none());
    let mut for_pack = None;
    if let Some(reason) = check.reason.filter(|_| with_pack || !own) {
        for_pack = Some(findings.add(file.clone(), Some(id), None, reason));
    }
    for (place, reason) in check.bad {
        let number = match (reason, for_pack) {
            (Some(reason), _) => findings.add(file.clone(), Some(id), Some(place.id), reason),
            (None, Some(number)) => number,
            (None, None) => findings.add(
                file.clone(),
                Some(id),
                Some(place.id),
                "it cannot be read".to_string(),
            ),
        };
        if !whole_copy(&place.id) {
            findings.lost.insert(place.id, number);
        }
    }
}

/// Reads every blob that the snapshots need, from the first store that has it whole.
fn needed(
    stores: &[&Store],
    snapshots: &[(Id, Snapshot)],
    cold: bool,
    workers: usize,
    events: &dyn Events,
) -> Result<VerifyReport> {
    let mut report = start(stores, cold);
    report.snapshots = snapshots.iter().map(|(id, _)| *id).collect();
    let mut ids = HashSet::new();
    for (_, snapshot) in snapshots {
        let mut readers = Readers::new(stores);
        refs::follow(&mut readers, snapshot, &mut |id: Id, _: &Owner<'_>| {
            ids.insert(id);
        });
    }
    let mut work: Vec<_> = ids
        .iter()
        .filter_map(|id| Some((Readers::place(stores, id)?, *id)))
        .collect();
    work.sort_unstable_by_key(|((store, l), _)| (*store, l.pack, l.offset));
    let used: BTreeSet<(usize, u32)> = work
        .iter()
        .map(|((store, l), _)| (*store, l.pack))
        .collect();
    if cold {
        for (store, pack) in &used {
            if let Ok(file) = stores[*store].pack_file(*pack) {
                fsutil::forget_cached(&*file);
            }
        }
    }
    let total = work.iter().map(|((_, l), _)| u64::from(l.stored)).sum();
    events.phase("verify", Some(total));
    let next = AtomicUsize::new(0);
    let bad = Mutex::new((Vec::new(), 0));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut readers = Readers::new(stores);
                let mut content = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(((store, place), id)) = work.get(at) else {
                        break;
                    };
                    if events.cancelled() {
                        break;
                    }
                    if let Err(error) = readers.blob_into(id, &mut content) {
                        let mut bad = bad.lock().unwrap_or_else(PoisonError::into_inner);
                        bad.0.push((at, *store, *place, error));
                    }
                    events.bytes(u64::from(place.stored));
                }
                bad.lock().unwrap_or_else(PoisonError::into_inner).1 += readers.healed;
            });
        }
    });
    if events.cancelled() {
        return Err(Error::Cancelled);
    }
    let (mut bad, healed) = bad.into_inner().unwrap_or_else(PoisonError::into_inner);
    bad.sort_by_key(|(at, ..)| *at);
    let mut findings = Findings::default();
    for (_, store, place, error) in bad {
        let pack = &stores[store].packs()[place.pack as usize];
        let reason = match (&pack.problem, error) {
            (Some(problem), _) => problem.clone(),
            (None, Error::Blob { reason, .. }) => reason,
            (None, other) => other.to_string(),
        };
        let number = findings.add(pack_name(&pack.id), Some(pack.id), Some(place.id), reason);
        findings.lost.insert(place.id, number);
    }
    report.notes.extend(findings.attribute(stores, snapshots));
    if healed > 0 {
        report.notes.push(format!(
            "{healed} blobs are bad or missing in one place and whole in another"
        ));
    }
    report.packs = used.len() as u64;
    report.blobs = work.len() as u64;
    report.bytes = total;
    report.damaged = findings.finish();
    Ok(report)
}

/// Reads cold what a restore of this snapshot needs, before anything is erased. A blob that any of the stores
/// delivers counts as good.
pub fn check_readable(
    readers: &[&Store],
    snapshot: &Snapshot,
    events: &dyn Events,
) -> Result<VerifyReport> {
    let json = serde_json::to_vec_pretty(snapshot)
        .map_err(|e| Error::malformed("the snapshot document", e))?;
    needed(
        readers,
        &[(Id::of(&json), snapshot.clone())],
        true,
        worker_count(0),
        events,
    )
}

/// Writes the report into the store's `reports/`, returns the file.
pub fn write_report(store: &Store, report: &VerifyReport) -> Result<PathBuf> {
    let json =
        serde_json::to_vec_pretty(report).map_err(|e| Error::malformed("the new report", e))?;
    let name = format!(
        "{}-verify-{}.json",
        time::compact(&report.time),
        Id::of(&json).short()
    );
    let path = store.root().join("reports").join(name);
    fsutil::write_file(store.root(), &path, &json)?;
    Ok(path)
}
