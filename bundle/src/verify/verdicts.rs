//! What earlier verifications found, out of `reports/`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::UNIX_EPOCH;

use super::{Scope, VerifyReport};
use crate::pack::pack_name;
use crate::store::Store;
use crate::{Id, Result, time};

/// How much of what a snapshot needs was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// All of it, at once or in slices.
    Whole,
    /// What its backup wrote; that the rest is there was looked at.
    Written,
    /// A slice.
    Sample,
}

/// What the verifications of a snapshot found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// Nothing that the snapshot needs was damaged.
    pub good: bool,
    /// How much was read.
    pub how: How,
    /// When a later sample found nothing.
    pub sampled: Option<String>,
}

impl Verdict {
    /// Whether the snapshot is good or damaged; nothing when only a sample found nothing, which proves nothing yet.
    pub fn proof(&self) -> Option<bool> {
        (!self.good || self.how != How::Sample).then_some(self.good)
    }
}

/// The last verdict on each snapshot that was ever verified in this store. Of samples, a good one does not replace a
/// verdict on the whole, and does not make a bad one good; when all slices were good it is one. Reports that cannot be
/// read are passed over: nothing but this depends on them.
pub fn verdicts(store: &Store) -> Result<BTreeMap<Id, Verdict>> {
    Ok(judge(&reports(store)))
}

/// The same of reports, oldest first.
pub(crate) fn judge(reports: &[VerifyReport]) -> BTreeMap<Id, Verdict> {
    let mut verdicts: BTreeMap<Id, Verdict> = BTreeMap::new();
    let mut slices: HashMap<Id, (u32, BTreeSet<u32>)> = HashMap::new();
    for report in reports {
        for id in &report.snapshots {
            let good = !report.damaged.iter().any(|d| d.snapshots.contains(id));
            let mut how = match report.scope {
                Scope::Whole | Scope::Snapshot => How::Whole,
                Scope::Written => How::Written,
                Scope::Sample { slice, of } => {
                    let seen = slices.entry(*id).or_default();
                    if !good || seen.0 != of {
                        *seen = (of, BTreeSet::new());
                    }
                    if good {
                        seen.1.insert(slice);
                    }
                    match seen.1.len() == of as usize {
                        true => How::Whole,
                        false => How::Sample,
                    }
                }
            };
            let known = verdicts.get_mut(id);
            match known {
                Some(known) if good && how == How::Sample => {
                    if known.good {
                        known.sampled = Some(report.time.clone());
                    }
                    continue;
                }
                // Read again after its backup, nothing more is known than before.
                Some(known) if good && how == How::Written && known.good => how = known.how,
                _ => {}
            }
            let verdict = Verdict {
                time: report.time.clone(),
                good,
                how,
                sampled: None,
            };
            verdicts.insert(*id, verdict);
        }
    }
    verdicts
}

/// The reports on this store, oldest first. Of several stores read as one, none is proven alone.
pub(super) fn reports(store: &Store) -> Vec<VerifyReport> {
    parse(store.id(), store.reports())
}

/// The same of files with these names and contents, which belong to a store of this id or another one.
pub(crate) fn parse(store: &str, files: Vec<(String, Vec<u8>)>) -> Vec<VerifyReport> {
    let mut reports: Vec<VerifyReport> = files
        .into_iter()
        .filter(|(name, _)| name.contains("-verify-"))
        .filter_map(|(name, json)| match serde_json::from_slice(&json) {
            Ok(report) => Some(report),
            Err(error) => {
                tracing::warn!("the report {name} is passed over: {error}");
                None
            }
        })
        .filter(|report: &VerifyReport| report.store == store && report.scope.is_possible())
        .collect();
    reports.sort_by(|a, b| a.time.cmp(&b.time));
    reports
}

/// Copies of blobs (pack and blob) that were found damaged, and not whole again by a verification of the whole store
/// since: the next backup does not rely on them. A pack that was written anew since then, under its old name as its
/// content is the same, is not among them.
pub(crate) fn suspects(store: &Store) -> HashSet<(Id, Id)> {
    let mut suspects: HashMap<(Id, Id), String> = HashMap::new();
    for report in reports(store) {
        if report.scope == Scope::Whole {
            suspects.clear();
        }
        for damage in report.damaged {
            let Some(pack) = damage.pack else { continue };
            for blob in damage.blob.into_iter().chain(damage.lost) {
                suspects.insert((pack, blob), report.time.clone());
            }
        }
    }
    let written = |pack: &Id| {
        let path = store.root().join(pack_name(pack));
        let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok()?;
        let since = modified.duration_since(UNIX_EPOCH).ok()?;
        Some(time::rfc3339(i64::try_from(since.as_millis()).ok()?))
    };
    suspects.retain(|(pack, _), found| written(pack).is_none_or(|time| time <= *found));
    suspects.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Damage, write_report};
    use super::*;
    use crate::store::StoreOptions;

    #[test]
    fn the_newest_report_counts_and_only_files_are_reports() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &StoreOptions::default()).unwrap();
        let id = |n: u8| Id::of(&[n]);
        let report = |day: u32, scope, snapshots: &[u8], damaged: &[u8]| {
            let damage = |n: &u8| Damage {
                file: "packs/aa".into(),
                pack: Some(id(9)),
                blob: Some(id(8)),
                lost: Vec::new(),
                reason: "flipped".into(),
                files: Vec::new(),
                snapshots: vec![id(*n)],
            };
            let report = VerifyReport {
                time: format!("2026-11-{day}T03:00:00.000Z"),
                store: store.id().into(),
                scope,
                snapshots: snapshots.iter().map(|n| id(*n)).collect(),
                damaged: damaged.iter().map(damage).collect(),
                ..VerifyReport::default()
            };
            write_report(&store, &report).unwrap()
        };
        report(20, Scope::Whole, &[1, 2], &[2]);
        report(19, Scope::Whole, &[1, 2], &[1]);
        report(21, Scope::Sample { slice: 3, of: 10 }, &[1, 2, 3], &[]);
        let reports_dir = report(22, Scope::Written, &[4], &[]);
        let reports_dir = reports_dir.parent().unwrap();
        let pipe = reports_dir.join("x-verify-b.json");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let endless = reports_dir.join("x-verify-c.json");
        std::os::unix::fs::symlink("/dev/zero", endless).unwrap();
        fs::write(reports_dir.join("x-verify-d.json"), "{").unwrap();
        let found = verdicts(&store).unwrap();
        let said = |n: u8| found.get(&id(n)).map(|v| (v.good, v.how));
        assert_eq!(said(1), Some((true, How::Whole)));
        assert_eq!(said(2), Some((false, How::Whole)));
        assert_eq!(said(3), Some((true, How::Sample)));
        assert_eq!(said(4), Some((true, How::Written)));
        assert_eq!(said(5), None);
        assert!(found[&id(1)].sampled.is_some() && found[&id(2)].sampled.is_none());
        assert_eq!(suspects(&store), HashSet::from([(id(9), id(8))]));
        report(23, Scope::Whole, &[1], &[]);
        assert!(suspects(&store).is_empty());
    }
}
