//! Is everything that the snapshots refer to there, and right?

mod findings;
mod packs;
mod present;
pub(crate) mod refs;
pub(crate) mod sample;
pub(crate) mod verdicts;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::document::Snapshot;
use crate::events::Events;
use crate::index::Location;
use crate::pack::pack_name;
use crate::read::Readers;
use crate::store::{PackInfo, Store};
use crate::{Error, Id, Result, fsutil, parity, time};
use findings::{Findings, pack_findings};
use packs::PackCheck;
use refs::Owner;
use sample::Slice;

pub use present::missing;
pub(crate) use verdicts::suspects;
pub use verdicts::{How, Verdict, verdicts};

/// What is verified.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Only what this snapshot (id prefix or `latest`) needs; else the whole store.
    pub snapshot: Option<String>,
    /// Read from the medium, past the page cache.
    pub cold: bool,
    /// Threads; the number of CPUs when 0.
    pub workers: usize,
    /// Of the whole store, read only so many percent, another part in each run: in `100 / percent` runs all of it.
    pub sample: Option<u32>,
    /// With a snapshot: read only these packs, those that its backup wrote. Of the others, only that they are there.
    pub packs: Option<Vec<Id>>,
}

/// What a report is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Scope {
    /// The whole store.
    #[default]
    Whole,
    /// All that one snapshot needs.
    Snapshot,
    /// What a backup wrote.
    Written,
    /// A part of every pack.
    Sample {
        /// Which, from 0.
        slice: u32,
        /// Of how many.
        of: u32,
    },
}

impl Scope {
    /// Is it one that a verification can have had? Slices that are not must not add up to the whole.
    fn is_possible(&self) -> bool {
        match self {
            Scope::Sample { slice, of } => slice < of,
            Scope::Whole | Scope::Snapshot | Scope::Written => true,
        }
    }
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
    /// Blobs of the pack that cannot be read because of it.
    #[serde(default)]
    pub lost: Vec<Id>,
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
    /// What was read.
    #[serde(default)]
    pub scope: Scope,
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

pub(crate) fn worker_count(wanted: usize) -> usize {
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
        if let Some(packs) = &options.packs {
            let packs = packs.iter().copied().collect();
            let which = Which::Only(&packs);
            return Ok(survey(store, which, Some(found), options.cold, workers, events)?.report);
        }
        let mut report = needed(&[store], &[found], options.cold, workers, events)?;
        // Not needed by this snapshot, or replaced by the packs' footers.
        report.notes.extend(notes_of_problems(store));
        return Ok(report);
    }
    let which = match options.sample {
        Some(percent) => Which::Slice(sample::next(store, percent)),
        None => Which::All,
    };
    Ok(survey(store, which, None, options.cold, workers, events)?.report)
}

fn notes_of_problems(store: &Store) -> impl Iterator<Item = String> {
    let problems = store.problems().iter();
    problems.map(|p| format!("{}: {}", relative(store, &p.file), p.reason))
}

/// Which packs are read.
#[derive(Clone, Copy)]
pub(crate) enum Which<'a> {
    All,
    /// All but those that are known to be whole.
    Except(&'a HashSet<Id>),
    /// These, and those with which opening found something wrong.
    Only(&'a HashSet<Id>),
    Slice(Slice),
}

impl Which<'_> {
    fn reads(&self, pack: &Id) -> bool {
        match self {
            Which::All => true,
            Which::Except(good) => !good.contains(pack),
            Which::Only(wanted) => wanted.contains(pack),
            Which::Slice(slice) => slice.turn_of(pack),
        }
    }
}

/// A report, and what healing needs to know besides.
pub(crate) struct Survey {
    pub report: VerifyReport,
    /// Packs with anything wrong.
    pub damaged: BTreeSet<u32>,
    /// Blobs that cannot be read: pack and offset.
    pub bad_places: HashSet<(u32, u32)>,
    /// Packs that are whole.
    pub good: HashSet<Id>,
}

/// Looks at documents (or at one snapshot only), packs, parity and references.
pub(crate) fn survey(
    store: &Store,
    which: Which<'_>,
    snapshot: Option<(Id, Snapshot)>,
    cold: bool,
    workers: usize,
    events: &dyn Events,
) -> Result<Survey> {
    let mut report = start(&[store], cold);
    let mut findings = Findings::default();
    let mut snapshots = Vec::new();
    report.scope = match which {
        Which::All | Which::Except(_) => Scope::Whole,
        Which::Only(_) => Scope::Written,
        Which::Slice(Slice { number, of }) => Scope::Sample { slice: number, of },
    };
    if let Some(found) = snapshot {
        snapshots.push(found);
        report.notes.extend(notes_of_problems(store));
    } else {
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
        let unindexed = store.packs().iter().filter(|p| p.unindexed).count();
        if unindexed > 0 {
            report.notes.push(format!(
                "{unindexed} packs are in no index; the next backup lists them"
            ));
        }
    }
    report.snapshots = snapshots.iter().map(|(id, _)| *id).collect();
    let checks = check_packs(store, which, cold, workers, events);
    if events.cancelled() {
        return Err(Error::Cancelled);
    }
    let bad_places: HashSet<(u32, u32)> = checks
        .iter()
        .flat_map(|(_, c)| c.bad.iter().map(|(l, _)| (l.pack, l.offset)))
        .collect();
    let mut damaged = BTreeSet::new();
    let mut good = HashSet::new();
    for (number, check) in checks {
        report.packs += 1;
        report.blobs += check.blobs;
        report.bytes += check.bytes;
        if check.reason.is_some() || !check.bad.is_empty() {
            damaged.insert(number as u32);
        } else {
            good.insert(store.packs()[number].id);
        }
        pack_findings(store, number, check, &bad_places, &mut findings);
    }
    parity_findings(store, which, &mut findings, &mut report.notes)?;
    report
        .notes
        .extend(findings.attribute(&[store], &snapshots));
    report.damaged = findings.finish();
    if let Which::Only(wanted) = which {
        // Of what else is wrong with the store, only what this snapshot suffers from is a damage of it.
        let mut concerns = |d: &Damage| {
            let written = d.pack.is_some_and(|p| wanted.contains(&p));
            let parity = d.pack.is_none() && d.file.ends_with(".par");
            let own = !d.snapshots.is_empty() || written || parity;
            if !own {
                report.notes.push(format!("{}: {}", d.file, d.reason));
            }
            own
        };
        report.damaged.retain(&mut concerns);
    }
    Ok(Survey {
        report,
        damaged,
        bad_places,
        good,
    })
}

/// Damaged parity is a damage: the day it is needed, it does not help.
fn parity_findings(
    store: &Store,
    which: Which<'_>,
    findings: &mut Findings,
    notes: &mut Vec<String>,
) -> Result<()> {
    let root = store.root();
    if let Err(error) = parity::recorded(root) {
        findings.add("parity.json".into(), None, None, reason_of(error));
    }
    let mut without = 0;
    for (file, id) in parity::protected(root)? {
        let path = parity::path_of(&file);
        if !path.exists() {
            without += 1;
        } else if matches!(which, Which::Except(_)) || which.reads(&id) {
            if let Some(reason) = parity::check(&file) {
                findings.add(relative(store, &path), None, None, reason);
            }
        }
    }
    let partly = matches!(which, Which::Only(_));
    for file in parity::lost_documents(root)? {
        let reason = "the restore point is missing: only its parity is there".to_string();
        findings.add(relative(store, &file), None, None, reason);
    }
    if without > 0 && !partly && parity::percent(root) > 0 {
        notes.push(format!(
            "{without} files have no parity yet; the next backup makes it for those that are whole"
        ));
    }
    Ok(())
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
    which: Which<'_>,
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
    let full = |pack: &PackInfo| match which {
        // A sample of a pack that is not what it should be is not enough.
        Which::Slice(_) => pack.problem.is_some(),
        _ => which.reads(&pack.id) || pack.problem.is_some(),
    };
    let sizes = store.packs().iter().map(|p| match which {
        Which::Slice(slice) if !full(p) => p.size / u64::from(slice.of),
        _ if full(p) => p.size,
        _ => 0,
    });
    events.phase("verify", Some(sizes.sum()));
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
                    let check = match which {
                        _ if full(pack) => packs::check(store, pack, &places[number], cold, events),
                        Which::Slice(slice) => {
                            packs::check_slice(store, number, &places[number], slice, cold, events)
                        }
                        _ => continue,
                    };
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

/// Reads every blob that the snapshots need, from the first store that has it whole.
fn needed(
    stores: &[&Store],
    snapshots: &[(Id, Snapshot)],
    cold: bool,
    workers: usize,
    events: &dyn Events,
) -> Result<VerifyReport> {
    let mut report = start(stores, cold);
    report.scope = Scope::Snapshot;
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
                fsutil::forget_cached(&file.file);
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
    store.write_report(&report.time, "verify", &json)
}
