//! What earlier verifications found, out of `reports/`.

use std::collections::BTreeMap;
use std::fs;

use super::VerifyReport;
use crate::store::Store;
use crate::{Error, Id, Result, fsutil};

/// What the last verification of a snapshot found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// Nothing that the snapshot needs was damaged.
    pub good: bool,
}

/// The last verdict on each snapshot that was ever verified in this store. Reports that cannot be read are passed over:
/// nothing but this depends on them.
pub fn verdicts(store: &Store) -> Result<BTreeMap<Id, Verdict>> {
    let dir = store.root().join("reports");
    let mut verdicts: BTreeMap<Id, Verdict> = BTreeMap::new();
    for name in fsutil::names(&dir)? {
        if !name.contains("-verify-") || !name.ends_with(".json") {
            continue;
        }
        let path = dir.join(name);
        let report: VerifyReport =
            match fs::read(&path)
                .map_err(Error::io("read", &path))
                .and_then(|json| {
                    serde_json::from_slice(&json).map_err(|e| Error::malformed(path.display(), e))
                }) {
                Ok(report) => report,
                Err(error) => {
                    tracing::warn!("a report is passed over: {error}");
                    continue;
                }
            };
        // Of several stores read as one, none is proven alone.
        if report.store != store.id() {
            continue;
        }
        for id in &report.snapshots {
            let known = verdicts.get(id).is_some_and(|v| v.time > report.time);
            if !known {
                // What is damaged and cannot be attributed may be of any.
                let concerns =
                    |d: &super::Damage| d.snapshots.is_empty() || d.snapshots.contains(id);
                let good = !report.damaged.iter().any(concerns);
                let time = report.time.clone();
                verdicts.insert(*id, Verdict { time, good });
            }
        }
    }
    Ok(verdicts)
}
