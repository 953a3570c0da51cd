//! What this host remembers of each store: the restore point that it wrote last. A store cannot tell by itself that an
//! older state of it was put back; the host can.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::Id;
use bundle::store::Store;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Seen {
    snapshot: Id,
    time: String,
}

fn path_of(state: &Path, store: &str) -> Option<PathBuf> {
    let uuid = store.len() == 36 && store.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    uuid.then(|| state.join("seen").join(format!("{store}.json")))
}

/// Notes what was just written to a store.
pub fn remember(state: &Path, store: &str, snapshot: Id, time: &str) -> anyhow::Result<()> {
    let path = path_of(state, store).context("the store's id is not a UUID")?;
    let time = time.to_owned();
    let json = serde_json::to_vec(&Seen { snapshot, time })?;
    crate::state::write(state, &path, &json)
        .with_context(|| format!("cannot note the restore point in {}", path.display()))
}

/// Whether this host has ever written a restore point to a store.
pub fn wrote(state: &Path, store: &str) -> bool {
    path_of(state, store).is_some_and(|path| path.exists())
}

/// Says how the store lags behind what this host wrote to it; nothing when it does not, or when nothing is known.
pub fn rolled_back(state: &Path, named: &Path, store: &Store) -> Option<String> {
    let json = fs::read(path_of(state, store.id())?).ok()?;
    let seen: Seen = serde_json::from_slice(&json).ok()?;
    let snapshots = store.snapshots().ok()?;
    if snapshots.iter().any(|s| s.id == seen.snapshot) {
        return None;
    }
    let newest = snapshots.last();
    // It was removed since, and the store went on.
    if newest.is_some_and(|n| n.time > seen.time) {
        return None;
    }
    // A document that is there and damaged is said to be just that.
    let digits: String = seen
        .time
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let damaged = store.damaged_documents().ok()?;
    let name = |file: &Path| {
        file.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    if damaged
        .iter()
        .any(|d| name(&d.file).split('-').next() == Some(&digits))
    {
        return None;
    }
    let newest = newest.map_or("there is none at all".to_owned(), |n| {
        format!("the newest is {} of {}", n.id.short(), n.shown_time())
    });
    Some(format!(
        "{} was ROLLED BACK: the last restore point that this host wrote to it, {} of {}, is gone, and {newest}; somebody removed it or put an older state of the target back",
        named.display(),
        seen.snapshot.short(),
        seen.time
    ))
}
