//! What a store must be found to hold, and the looking.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bundle::events::Silent;
use bundle::extract::{ExtractOptions, Selection, extract};
use bundle::store::Store;
use bundle::verify::{Damage, VerifyOptions, verify};
use bundle::{Error, Id};

use super::store_support::ring;

/// Mode, time of modification, and the content of a file.
type Entry = (u32, i64, i64, Option<Vec<u8>>);
/// All that is in a tree of directories and files.
pub type Content = Arc<BTreeMap<PathBuf, Entry>>;

/// What a store holds, as far as anybody was told.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    /// Restore points that were reported as made: each is there and whole.
    pub must: BTreeMap<Id, Content>,
    /// Restore points that are being removed: gone, or whole.
    pub may: BTreeMap<Id, Content>,
    /// Restore points with a damage on the medium that is being healed: there, and whole with what the other store has.
    pub hurt: BTreeMap<Id, Content>,
    /// What is in a restore point that nobody was told of: of a backup that ended with an error, or not at all.
    pub fresh: Content,
    /// Passphrases, one of which opens it. None of a plain store.
    pub opens: Vec<&'static str>,
    /// Passphrases that no longer do.
    pub shut: Vec<&'static str>,
    /// Keys are being made or changed: until the next run, the copy of `store.json` may be missing or hold others.
    pub keyed: bool,
    /// Another store with the same restore points.
    pub other: Option<PathBuf>,
}

pub fn content(dir: &Path) -> Content {
    fn add(path: &Path, below: &Path, all: &mut BTreeMap<PathBuf, Entry>) {
        let meta = fs::symlink_metadata(path).unwrap();
        let bytes = meta.is_file().then(|| fs::read(path).unwrap());
        let entry = (meta.mode(), meta.mtime(), meta.mtime_nsec(), bytes);
        all.insert(below.into(), entry);
        if meta.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                let name = entry.unwrap().file_name();
                add(&path.join(&name), &below.join(&name), all);
            }
        }
    }
    let mut all = BTreeMap::new();
    add(dir, Path::new(""), &mut all);
    Arc::new(all)
}

/// Opens it for reading with whatever may open it.
fn open(dir: &Path, holds: &Holds) -> Result<Option<Store>, String> {
    let mut opened = match holds.opens.is_empty() {
        true => vec![Store::open_read_only(dir)],
        false => {
            let rings = holds.opens.iter().map(|text| ring(text));
            let tried = rings.map(|ring| Store::open_read_only_with(dir, &ring));
            tried
                .filter(|opened| !matches!(opened, Err(Error::WrongKey { .. })))
                .collect()
        }
    };
    for text in &holds.shut {
        if Store::open_read_only_with(dir, &ring(text)).is_ok() {
            return Err(format!("the passphrase {text:?} still opens it"));
        }
    }
    match opened.pop() {
        Some(Ok(store)) => Ok(Some(store)),
        // Before anybody was told of anything, there may be nothing.
        Some(Err(Error::NoStore { .. })) if holds.must.is_empty() && holds.hurt.is_empty() => {
            Ok(None)
        }
        Some(Err(error)) => Err(format!("it does not open: {error}")),
        None => Err("nothing opens it".into()),
    }
}

/// Looks whether the store in `dir` is what it must be, with the real readers; `out` is for what is extracted.
pub fn judge(dir: &Path, holds: &Holds, out: &Path) -> Result<(), String> {
    let Some(store) = open(dir, holds)? else {
        return Ok(());
    };
    let other = holds.other.as_ref();
    let other = other.map(|dir| Store::open_read_only(dir).unwrap());
    let said = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let listed = store.snapshots().map_err(|e| said("listing", &e))?;
    let damaged = store.damaged_documents().map_err(|e| said("listing", &e))?;
    if !damaged.is_empty() {
        return Err(format!("damaged documents: {damaged:?}"));
    }
    for id in holds.must.keys().chain(holds.hurt.keys()) {
        if listed.iter().all(|s| s.id != *id) {
            return Err(format!("the restore point {} is lost", id.short()));
        }
    }
    let options = VerifyOptions {
        cold: true,
        workers: 1,
        ..VerifyOptions::default()
    };
    let report = verify(&store, &options, &Silent).map_err(|e| said("verify", &e))?;
    let expected = |damage: &Damage| match damage.snapshots.is_empty() {
        true => !holds.hurt.is_empty() || holds.keyed && damage.file == "store.json.copy",
        false => damage
            .snapshots
            .iter()
            .all(|id| holds.hurt.contains_key(id)),
    };
    if let Some(damage) = report.damaged.iter().find(|damage| !expected(damage)) {
        return Err(format!("verify says: {damage:?}"));
    }
    for header in &listed {
        let id = header.id;
        let hurt = holds.hurt.get(&id);
        let known = holds.must.get(&id).or(holds.may.get(&id)).or(hurt);
        let expected = known.unwrap_or(&holds.fresh);
        let (_, snapshot) = store
            .snapshot(&id.to_string())
            .map_err(|e| said("snapshot", &e))?;
        let mut readers = vec![&store];
        if hurt.is_some() {
            readers.extend(&other);
        }
        if hurt.is_some() && other.is_none() {
            continue;
        }
        fs::create_dir_all(out).unwrap();
        let options = ExtractOptions {
            workers: 1,
            ..ExtractOptions::default()
        };
        let tree = &snapshot.trees[0];
        let all = Selection::All;
        let extracted = extract(&readers, &snapshot, tree, &all, out, &options, &Silent)
            .map_err(|e| said("extract", &e))?;
        if !extracted.complete() {
            return Err(format!("extracting {}: {extracted:?}", id.short()));
        }
        if content(out) != *expected {
            let what = if known.is_some() { "known" } else { "unknown" };
            return Err(format!(
                "the {what} restore point {} of {} gives another tree",
                id.short(),
                header.time
            ));
        }
        fs::remove_dir_all(out).unwrap();
    }
    Ok(())
}
