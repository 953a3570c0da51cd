//! Finds every bundle attached: on any file system, of any disk, at its root or one directory down.
//!
//! All stores that are found are read as one: a restore point that several of them hold is listed once, and what one
//! of them cannot deliver comes from another.

mod media;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bundle::Id;
use bundle::crypt::{KeyFile, KeyRing, Secret};
use bundle::document::{Snapshot, SnapshotHeader};
use bundle::store::Store;
use bundle::verify::{Verdict, verdicts};

pub use media::Medium;
pub(in crate::rescue) use media::{destinations, writable};

/// A store that was found and opened for reading.
#[derive(Debug)]
pub struct Attached {
    /// The store.
    pub store: Store,
    /// The medium it is on; none for a directory that was named by the operator.
    pub medium: Option<Medium>,
}

impl Attached {
    /// Where the store is, for people.
    pub fn place(&self) -> String {
        match &self.medium {
            Some(medium) => format!("{} ({})", medium.device.display(), medium.fs_type),
            None => self.store.dir().display().to_string(),
        }
    }
}

/// An encrypted store that nothing at hand opens.
#[derive(Debug)]
pub struct Locked {
    /// The directory that holds it.
    pub dir: PathBuf,
    /// The medium it is on; none for a directory that was named by the operator.
    pub medium: Option<Medium>,
    /// What it opens with, or why it did not.
    pub reason: String,
}

impl Locked {
    /// Where the store is, for people.
    pub fn place(&self) -> String {
        match &self.medium {
            Some(medium) => format!("{} ({})", medium.device.display(), medium.fs_type),
            None => self.dir.display().to_string(),
        }
    }
}

/// All that is attached.
#[derive(Debug, Default)]
pub struct Found {
    /// The stores, the booted medium first.
    pub stores: Vec<Attached>,
    /// Stores that need a key.
    pub locked: Vec<Locked>,
    /// What stores were opened with, and what else was given.
    pub keys: KeyRing,
    /// What was seen but could not be used, with reasons.
    pub warnings: Vec<String>,
    /// Whole disks with something that is, or was, a bundle, readable or not.
    disks: BTreeSet<PathBuf>,
    /// `store.json` of each store, by device and inode number.
    seen: BTreeSet<(u64, u64)>,
}

/// What is known about the state of a restore point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verified {
    /// Its last verification found nothing wrong.
    Good,
    /// Its last verification found damage.
    Damaged,
    /// No report on it.
    Never,
}

impl std::fmt::Display for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Good => "verified",
            Self::Damaged => "DAMAGED",
            Self::Never => "not verified",
        })
    }
}

/// A restore point, with the stores that hold it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Point {
    /// What it holds.
    pub header: SnapshotHeader,
    /// Indexes into [`Found::stores`].
    pub stores: Vec<usize>,
    /// Whether it was verified.
    pub verified: Verified,
}

/// Where to look, and how long.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Partition or file system UUID of the medium that was booted, which is waited for.
    pub medium: Option<String>,
    /// How long to wait for it, or (where none is named) for the first bundle.
    pub patience: Duration,
    /// What opens encrypted stores, besides the key files on media.
    pub keys: KeyRing,
    /// A key file on any medium, from its root, besides those in `lifeboat/keys`.
    pub key_file: Option<String>,
}

impl Found {
    /// Stores below directories named by the operator: each directory itself, and one level down.
    pub fn in_directories(dirs: &[PathBuf], keys: &KeyRing) -> Result<Self> {
        let mut found = Self {
            keys: keys.clone(),
            ..Self::default()
        };
        for dir in dirs {
            let places = store_dirs(dir);
            if places.is_empty() {
                bail!(
                    "{} holds no bundle: there is no lifeboat/store.json in it or one level down",
                    dir.display()
                );
            }
            for place in places {
                found.add(&place, None);
            }
        }
        Ok(found)
    }

    /// Everything attached to this machine. Waits for late USB media.
    pub fn on_media(search: &Search) -> Self {
        media::find(search)
    }

    fn add(&mut self, dir: &Path, medium: Option<Medium>) {
        // A bundle that cannot be used now is none to be erased either.
        self.disks
            .extend(medium.iter().flat_map(|m| m.disks.clone()));
        // A medium that is mounted twice is read once; a copy of a store on another medium is one more to read from.
        let file = fs::metadata(dir.join("lifeboat/store.json"));
        if file.is_ok_and(|file| !self.seen.insert((file.dev(), file.ino()))) {
            return;
        }
        self.open(dir, medium);
    }

    fn open(&mut self, dir: &Path, medium: Option<Medium>) {
        match Store::open_read_only_with(dir, &self.keys) {
            Ok(store) => self.stores.push(Attached { store, medium }),
            Err(error @ (bundle::Error::KeyNeeded { .. } | bundle::Error::WrongKey { .. })) => {
                self.locked.push(Locked {
                    dir: dir.to_owned(),
                    medium,
                    reason: error.to_string(),
                });
            }
            Err(error) => self.warnings.push(format!(
                "the bundle in {} cannot be used: {error}",
                dir.display()
            )),
        }
    }

    /// Closes every file that is open on the media, so that they can be mounted anew: by this wizard, or by the one of
    /// another console, whose restore ends first. Reading opens them again.
    pub fn release(&self) {
        self.stores.iter().for_each(|s| s.store.release());
    }

    /// The media that hold the stores.
    pub fn media(&self) -> impl Iterator<Item = &Medium> {
        let stores = self.stores.iter().map(|s| &s.medium);
        stores
            .chain(self.locked.iter().map(|l| &l.medium))
            .flatten()
    }

    /// Takes the key files of a medium into the ring: those in its `lifeboat/keys`, and the one that was named.
    fn take_keys(&mut self, root: &Path, named: Option<&str>) {
        let mut files: Vec<PathBuf> = fs::read_dir(root.join("lifeboat/keys"))
            .map(|dir| dir.flatten().map(|e| e.path()).collect())
            .unwrap_or_default();
        files.sort();
        let named = named
            .map(|name| Path::new(name.trim_start_matches('/')))
            .filter(|name| name.components().all(|c| matches!(c, Component::Normal(_))));
        files.extend(named.map(|name| root.join(name)));
        for file in files {
            // Other things may lie there: only what is a key is taken, and a pipe would never end.
            if fs::symlink_metadata(&file).is_ok_and(|m| m.is_file() && m.len() == 32) {
                match KeyFile::read(&file) {
                    Ok(key) => self.keys.add(Secret::KeyFile(key)),
                    Err(error) => self.warnings.push(error.to_string()),
                }
            }
        }
    }

    /// Tries everything in the ring at the locked stores again; says how many were opened.
    fn retry(&mut self) -> usize {
        let before = self.locked.len();
        for locked in std::mem::take(&mut self.locked) {
            self.open(&locked.dir, locked.medium);
        }
        before - self.locked.len()
    }

    /// Opens what a secret opens; the others stay locked. The error says why none was opened.
    pub fn unlock(&mut self, secret: Secret) -> Result<usize> {
        let before = self.keys.clone();
        self.keys.add(secret);
        match self.retry() {
            0 => {
                self.keys = before;
                let reasons: Vec<&str> = self.locked.iter().map(|l| l.reason.as_str()).collect();
                bail!("{}", reasons.join("; "))
            }
            opened => Ok(opened),
        }
    }

    /// The stores, to read from.
    pub fn readers(&self) -> Vec<&Store> {
        self.stores.iter().map(|s| &s.store).collect()
    }

    /// Disks that hold a bundle: never to be written to.
    pub fn media_disks(&self) -> Vec<PathBuf> {
        self.disks.iter().cloned().collect()
    }

    /// Restore points of hosts in all stores, the newest first. Stores whose list cannot be read are told in `warnings`.
    pub fn points(&self) -> (Vec<Point>, Vec<String>) {
        let (mut points, warnings) = self.all_points();
        points.retain(|p| p.header.guest.is_none());
        (points, warnings)
    }

    /// Dumps of guests in all stores, the newest first.
    pub fn dumps(&self) -> Vec<Point> {
        let (mut points, _) = self.all_points();
        points.retain(|p| p.header.guest.is_some());
        points
    }

    fn all_points(&self) -> (Vec<Point>, Vec<String>) {
        let mut warnings = Vec::new();
        let mut points: BTreeMap<Id, Point> = BTreeMap::new();
        for (index, attached) in self.stores.iter().enumerate() {
            let headers = match attached.store.snapshots() {
                Ok(headers) => headers,
                Err(error) => {
                    warnings.push(format!(
                        "restore points on {} cannot be listed: {error}",
                        attached.place()
                    ));
                    continue;
                }
            };
            match attached.store.damaged_documents() {
                Ok(damaged) => warnings.extend(damaged.into_iter().map(|d| {
                    format!(
                        "restore point {} on {} is unusable: {}",
                        d.file.display(),
                        attached.place(),
                        d.reason
                    )
                })),
                Err(error) => warnings.push(format!("{}: {error}", attached.place())),
            }
            // Nothing depends on verdicts: where they cannot be read there are none.
            let verdicts = verdicts(&attached.store).unwrap_or_default();
            for header in headers {
                let verified = verdict(verdicts.get(&header.id));
                points
                    .entry(header.id)
                    .and_modify(|point| {
                        point.stores.push(index);
                        point.verified = better(point.verified, verified);
                    })
                    .or_insert(Point {
                        header,
                        stores: vec![index],
                        verified,
                    });
            }
        }
        let mut points: Vec<Point> = points.into_values().collect();
        points.sort_by(|a, b| {
            b.header
                .time
                .cmp(&a.header.time)
                .then(a.header.id.cmp(&b.header.id))
        });
        (points, warnings)
    }

    /// The document of one restore point: by the beginning of its id, or `latest` over all stores. The first store
    /// that can deliver it does.
    pub fn snapshot(&self, wanted: &str) -> Result<(Id, Snapshot)> {
        let (points, warnings) = self.points();
        // The latest may be in what cannot be read: an older one must not pass for it.
        if let Some(locked) = self.locked.first().filter(|_| wanted == "latest") {
            bail!(
                "the bundle on {} is locked, so the latest restore point is not known: {}; attach a medium with its key file in lifeboat/keys/, name one with lifeboat.key=PATH on the kernel command line, or type the passphrase or the recovery key in the wizard",
                locked.place(),
                locked.reason
            );
        }
        let point = choose(&points, wanted).with_context(|| {
            let where_ = self
                .stores
                .iter()
                .map(Attached::place)
                .collect::<Vec<_>>()
                .join(", ");
            let locked: Vec<_> = self
                .locked
                .iter()
                .map(|l| format!("; {} is locked: {}", l.place(), l.reason))
                .collect();
            format!(
                "looking for restore point {wanted:?} on {where_} {}{}",
                warnings.join("; "),
                locked.concat()
            )
        })?;
        let mut reasons = Vec::new();
        for &index in &point.stores {
            let attached = &self.stores[index];
            match attached.store.snapshot(&point.header.id.to_string()) {
                Ok(document) => return Ok(document),
                Err(error) => reasons.push(format!("{}: {error}", attached.place())),
            }
        }
        bail!(
            "restore point {} cannot be read: {}",
            point.header.id.short(),
            reasons.join("; ")
        )
    }
}

/// One of the points (newest first) by the beginning of its id, or `latest`.
fn choose<'p>(points: &'p [Point], wanted: &str) -> Result<&'p Point> {
    if wanted == "latest" {
        return points
            .first()
            .context("no attached bundle holds a restore point");
    }
    let wanted = wanted.to_ascii_lowercase();
    if wanted.is_empty() {
        bail!("no restore point was named");
    }
    let mut fitting = points
        .iter()
        .filter(|p| p.header.id.to_string().starts_with(&wanted));
    match (fitting.next(), fitting.next()) {
        (Some(point), None) => Ok(point),
        (Some(_), Some(_)) => {
            bail!("more than one restore point begins with {wanted:?}: give more digits")
        }
        (None, _) => bail!("no attached bundle holds a restore point {wanted:?}"),
    }
}

/// One good copy is enough, since all stores are read as one.
fn better(a: Verified, b: Verified) -> Verified {
    match (a, b) {
        (Verified::Good, _) | (_, Verified::Good) => Verified::Good,
        (Verified::Damaged, _) | (_, Verified::Damaged) => Verified::Damaged,
        _ => Verified::Never,
    }
}

fn verdict(verdict: Option<&Verdict>) -> Verified {
    match verdict.and_then(Verdict::proof) {
        Some(true) => Verified::Good,
        Some(false) => Verified::Damaged,
        None => Verified::Never,
    }
}

/// Directories that hold a store: this one, or those right below it.
pub fn store_dirs(dir: &Path) -> Vec<PathBuf> {
    // With the one damaged or lost, the other opens the store.
    let holds = |dir: &Path| {
        ["store.json", "store.json.copy"]
            .iter()
            .any(|name| dir.join("lifeboat").join(name).is_file())
    };
    let mut found = Vec::new();
    if holds(dir) {
        found.push(dir.to_owned());
    }
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    let mut below: Vec<PathBuf> = entries
        .flatten()
        // Not through symbolic links: they may lead out of the medium.
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .filter(|p| holds(p))
        .collect();
    below.sort();
    found.extend(below);
    found
}

#[cfg(test)]
mod tests;
