//! A store on a target.

mod keys;
mod open;

#[cfg(any(test, fuzzing))]
pub(crate) use open::StoreFile;
pub use open::StoreInfo;

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::Flock;
use serde::Serialize;

use crate::codec::Decoder;
use crate::crypt::{FileKind, StoreCipher};
use crate::document::guest::KIND;
use crate::document::{SNAPSHOT_FORMAT, Snapshot, SnapshotHeader};
use crate::format::{Versioned, parse};
use crate::index::{Location, Map};
use crate::pack::{self, PackEntry, PackFile};
use crate::{Error, Id, Result, bytes, fsutil, parity, time};

/// The store's directory on a target.
const ROOT: &str = "lifeboat";
/// The directories in it.
const DIRS: [&str; 5] = ["tmp", "packs", "index", "snapshots", "reports"];
/// Packs that are kept open for reading.
const OPEN_PACKS: usize = 16;
/// The most a snapshot document may have: of a large host it takes a few MB.
const MAX_DOCUMENT: u64 = 256 << 20;

/// How a store is made.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StoreOptions {}

impl Versioned for Snapshot {
    fn format(&self) -> u32 {
        self.format
    }
}

/// What opening found out about a pack.
#[derive(Debug)]
pub(crate) struct PackInfo {
    pub id: Id,
    /// Size that the index or the footer gives.
    pub size: u64,
    /// Why it cannot be relied upon: missing, another size.
    pub problem: Option<String>,
    /// Found by its footer only: the next writer lists it in an index.
    pub unindexed: bool,
}

/// A file of the store that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DamagedDocument {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// The deduplicated data on one target, in `<dir>/lifeboat`.
pub struct Store {
    dir: PathBuf,
    root: PathBuf,
    id: String,
    cipher: Option<StoreCipher>,
    lock: Option<Flock<File>>,
    /// Held until dropped.
    readers: Mutex<Option<Flock<File>>>,
    /// The names of the snapshots when the store was opened: of later ones, the packs are not known here.
    documents: HashSet<String>,
    packs: Vec<PackInfo>,
    map: Map,
    problems: Vec<DamagedDocument>,
    /// Copies of blobs (pack and blob) that a verification found damaged; a writer does not rely on them.
    suspects: HashSet<(Id, Id)>,
    open: Mutex<VecDeque<(u32, Arc<PackFile>)>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.dir)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The store's id, a UUID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The target directory, the one that holds `lifeboat/`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `<dir>/lifeboat`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What encrypts its files; nothing in a plain store.
    pub(crate) fn cipher(&self) -> Option<&StoreCipher> {
        self.cipher.as_ref()
    }

    pub(crate) fn writable(&self) -> bool {
        self.lock.is_some()
    }

    /// Is what lies at the store's path still the store that was opened? A medium can be unmounted by force and leave
    /// another store at the same place, and another writer may come in when the lock was removed.
    pub(crate) fn check_in_place(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let path = self.root.join("lock");
        let identity = |m: std::fs::Metadata| (m.dev(), m.ino());
        let found = std::fs::metadata(&path).map_err(Error::io("examine", &path))?;
        let held = match &self.lock {
            Some(lock) => Some(lock.metadata().map_err(Error::io("examine", &path))?),
            None => None,
        };
        if held.map(identity) == Some(identity(found)) {
            return Ok(());
        }
        Err(Error::Exchanged {
            dir: self.dir.clone(),
        })
    }

    /// The snapshots, oldest first. Damaged documents are not among them, see [`Store::damaged_documents`].
    pub fn snapshots(&self) -> Result<Vec<SnapshotHeader>> {
        let documents = self.documents()?;
        let mut headers: Vec<_> = documents
            .into_iter()
            .filter_map(|(_, d)| d.ok())
            .map(|(id, s)| SnapshotHeader::new(id, &s))
            .collect();
        headers.sort_by(|a, b| (&a.time, a.id).cmp(&(&b.time, b.id)));
        Ok(headers)
    }

    /// Snapshot documents that cannot be used, with the reason.
    pub fn damaged_documents(&self) -> Result<Vec<DamagedDocument>> {
        let documents = self.documents()?;
        let damaged = documents.into_iter().filter_map(|(file, document)| {
            let error = document.err()?;
            Some(DamagedDocument {
                file,
                reason: error.to_string(),
            })
        });
        Ok(damaged.collect())
    }

    /// The snapshot whose id begins with `wanted`, or for `latest` the newest that is no dump of a guest.
    pub fn snapshot(&self, wanted: &str) -> Result<(Id, Snapshot)> {
        let mut documents: Vec<(Id, Snapshot)> = Vec::new();
        let mut damaged = None;
        for (file, document) in self.documents()? {
            match document {
                Ok((id, snapshot)) if is_meant(wanted, &id, &snapshot) => {
                    documents.push((id, snapshot));
                }
                Ok(_) => {}
                // "latest" must not silently mean an older one; a prefix is looked for in the file's name.
                Err(error) => {
                    let name = file
                        .file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned();
                    let stem = name.split_once('-').map_or("", |(_, id)| id);
                    // The names of encrypted documents do not tell which snapshot they are.
                    if wanted != "latest" && (self.cipher.is_some() || stem.starts_with(wanted)) {
                        damaged = Some(error);
                    } else {
                        tracing::warn!("passed over: {error}");
                    }
                }
            }
        }
        documents.sort_by(|a, b| (&a.1.time, a.0).cmp(&(&b.1.time, b.0)));
        let count = documents.len();
        match (documents.pop(), damaged) {
            (Some(_), _) if wanted != "latest" && count > 1 => Err(Error::AmbiguousSnapshot {
                wanted: wanted.to_string(),
                count,
                dir: self.dir.clone(),
            }),
            (Some(found), _) => Ok(found),
            (None, Some(error)) => Err(error),
            (None, None) => Err(Error::NoSnapshot {
                wanted: wanted.to_string(),
                dir: self.dir.clone(),
            }),
        }
    }

    /// Every snapshot document, with what it holds or why it cannot be used.
    #[allow(clippy::type_complexity)]
    pub(crate) fn documents(&self) -> Result<Vec<(PathBuf, Result<(Id, Snapshot)>)>> {
        let dir = self.root.join("snapshots");
        let names = fsutil::names(&dir)?;
        let documents = names
            .iter()
            .filter(|name| name.ends_with(self.suffix()) && self.documents.contains(*name))
            .map(|name| {
                let path = dir.join(name);
                let document = read_snapshot(&path, name, self.cipher());
                (path, document)
            });
        Ok(documents.collect())
    }

    /// How the names of documents and reports end.
    fn suffix(&self) -> &'static str {
        if self.cipher.is_some() {
            ".sealed"
        } else {
            ".json"
        }
    }

    /// Writes the document that makes a snapshot exist; returns its id and the bytes written.
    pub(crate) fn write_snapshot(&self, time: &str, json: &[u8]) -> Result<(Id, u64)> {
        let sealed = match &self.cipher {
            Some(cipher) => Some(cipher.seal(FileKind::Snapshot, json)?),
            None => None,
        };
        let stored = sealed.as_deref().unwrap_or(json);
        let name = snapshot_name(time, &Id::of(stored), self.suffix());
        let path = self.root.join("snapshots").join(name);
        fsutil::write_file(&self.root, &path, stored)?;
        let parity = parity::protect(&self.root, &path)?;
        Ok((Id::of(json), stored.len() as u64 + parity))
    }

    /// Writes a verdict into `reports/`: of an encrypted store it names files of the host, and is encrypted as well.
    pub(crate) fn write_report(&self, time: &str, word: &str, json: &[u8]) -> Result<PathBuf> {
        let sealed = match &self.cipher {
            Some(cipher) => Some(cipher.seal(FileKind::Report, json)?),
            None => None,
        };
        let stored = sealed.as_deref().unwrap_or(json);
        let name = format!(
            "{}-{word}-{}{}",
            time::compact(time),
            Id::of(stored).short(),
            self.suffix()
        );
        let path = self.root.join("reports").join(name);
        fsutil::write_file(&self.root, &path, stored)?;
        Ok(path)
    }

    /// The verdicts in `reports/` that can be read, as JSON, with their names. Nothing depends on them.
    pub fn reports(&self) -> Vec<(String, Vec<u8>)> {
        let dir = self.root.join("reports");
        let names = fsutil::names(&dir).unwrap_or_default();
        names
            .into_iter()
            .filter(|name| name.ends_with(self.suffix()))
            .filter_map(|name| {
                let stored = fsutil::read_cold(&dir.join(&name), MAX_DOCUMENT).ok()?;
                let json = match &self.cipher {
                    Some(cipher) => cipher.open(FileKind::Report, &stored).ok()?,
                    None => stored,
                };
                Some((name, json))
            })
            .collect()
    }

    /// Index and pack files that opening could not use.
    pub(crate) fn problems(&self) -> &[DamagedDocument] {
        &self.problems
    }

    pub(crate) fn packs(&self) -> &[PackInfo] {
        &self.packs
    }

    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// Is every file there that should be, of the right size, and no damage known?
    pub(crate) fn looks_whole(&self) -> bool {
        self.problems.is_empty()
            && self.suspects.is_empty()
            && self.packs.iter().all(|p| p.problem.is_none())
    }

    /// Does a pack that looks whole, and in which it was not found damaged, hold this blob? Only then need it not be
    /// written again.
    pub(crate) fn holds(&self, id: &Id) -> bool {
        self.map.find(id).iter().any(|l| {
            let pack = &self.packs[l.pack as usize];
            pack.problem.is_none() && !self.suspects.contains(&(pack.id, *id))
        })
    }

    /// How much parity is made beside each file, in percent of it; 0 for none.
    pub fn parity(&self) -> u32 {
        parity::percent(&self.root)
    }

    /// Records how much parity this and every later writer makes, at most [`parity::MAX_PERCENT`]. The store was opened
    /// for writing.
    pub fn set_parity(&self, percent: u32) -> Result<()> {
        parity::record(&self.root, percent)
    }

    /// Makes what parity is missing, and removes indexes that are damaged and replaced: of every pack whose footer can
    /// be read, another one says what was in it.
    pub(crate) fn tidy(&self) -> Result<()> {
        parity::complete(&self.root, false)?;
        for problem in &self.problems {
            let path = &problem.file;
            let name = path.file_stem().and_then(|stem| stem.to_str());
            let id = name.and_then(|stem| stem.parse::<Id>().ok());
            let index = path.extension().is_some_and(|e| e == "idx");
            // One that is whole is of another version, or could only not be read.
            let damaged = |id| parity::hash_cold(path).is_ok_and(|hash| hash != id);
            if index && id.is_some_and(damaged) && parity::repair(&self.root, path).is_err() {
                tracing::info!(file = %path.display(), "a damaged index was replaced and is removed");
                parity::remove_with(path)?;
            }
        }
        Ok(())
    }

    /// The packs that the next index has to list.
    pub(crate) fn unindexed(&self) -> Vec<PackEntry> {
        let unindexed = self.packs.iter().filter(|p| p.unindexed);
        unindexed
            .filter_map(|p| {
                let (size, blobs) = pack::read_footer(&self.pack_path(p), self.cipher()).ok()?;
                Some(PackEntry {
                    id: p.id,
                    size,
                    blobs,
                })
            })
            .collect()
    }

    pub(crate) fn pack_path(&self, pack: &PackInfo) -> PathBuf {
        self.root.join(pack::pack_name(&pack.id))
    }

    /// Closes every file of a store that was opened for reading, so that the medium can be unmounted. Reading opens them
    /// again; what is removed until then is missed.
    pub fn release(&self) {
        self.close_packs();
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Closes the pack files that reading keeps open. Reading opens them again.
    pub(crate) fn close_packs(&self) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub(crate) fn pack_file(&self, pack: u32) -> Result<Arc<PackFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(p, _)| *p == pack) {
            return Ok(file.clone());
        }
        self.hold()?;
        let path = self.pack_path(&self.packs[pack as usize]);
        let file = Arc::new(PackFile::open(&path, self.cipher())?);
        if open.len() >= OPEN_PACKS {
            open.pop_front();
        }
        open.push_back((pack, file.clone()));
        Ok(file)
    }

    /// Reads one blob from one place and compares it with its id. The reason of a failure is in words and names
    /// the pack.
    pub(crate) fn read_at(
        &self,
        place: &Location,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let pack = &self.packs[place.pack as usize];
        let said = |e: &dyn std::fmt::Display| {
            format!("pack {} in {}: {e}", pack.id.short(), self.dir.display())
        };
        let file = self.pack_file(place.pack).map_err(|e| said(&e))?;
        scratch.stored.resize(place.stored as usize, 0);
        let decoded = file
            .file
            .read_exact_at(&mut scratch.stored, u64::from(place.offset))
            .map_err(|e| e.to_string())
            .and_then(|()| file.unseal(u64::from(place.offset), &place.id, &mut scratch.stored))
            .and_then(|()| {
                scratch
                    .decoder
                    .decode(place.codec, &scratch.stored, u64::from(place.raw), out)
            })
            .and_then(|()| {
                if Id::of(out) == place.id {
                    return Ok(());
                }
                Err("the content does not have the hash that is its id".to_string())
            });
        decoded.map_err(|reason| {
            let other = self.is_another_pack(pack, &file.file, place);
            said(&if other { SWAPPED } else { reason.as_str() })
        })
    }

    /// Is the file under this pack's name a whole pack, but not this one?
    fn is_another_pack(&self, pack: &PackInfo, file: &File, place: &Location) -> bool {
        let path = self.pack_path(pack);
        let size = file.metadata().map_or(0, |m| m.len());
        pack::footer_of(file, &path, size, self.cipher()).is_ok_and(|blobs| {
            blobs
                .iter()
                .all(|b| (b.id, b.offset) != (place.id, u64::from(place.offset)))
        })
    }

    /// Room on the file system that the store is on.
    pub fn space(&self) -> Result<Space> {
        Ok(Space {
            free: fsutil::free_space(&self.root)?,
            total: fsutil::total_space(&self.root)?,
        })
    }

    /// Sizes of the store.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            packs: self.packs.len() as u64,
            blobs: self.map.iter().count() as u64,
            raw_bytes: self.map.iter().map(|l| u64::from(l.raw)).sum(),
            stored_bytes: self.packs.iter().map(|p| p.size).sum(),
        }
    }
}

/// Said of a pack under the name of another one.
pub(crate) const SWAPPED: &str =
    "the file is another pack under this one's name: packs were swapped";

/// Buffers and contexts for reading blobs, one per thread.
#[derive(Default)]
pub(crate) struct Scratch {
    stored: Vec<u8>,
    decoder: Decoder,
}

impl Scratch {
    /// The blob that was read last, as it is stored before it is encrypted.
    pub(crate) fn stored(&self) -> &[u8] {
        &self.stored
    }
}

/// Parses a document; `path` is for the error.
pub(crate) fn parse_snapshot(path: &Path, json: &[u8]) -> Result<Snapshot> {
    let snapshot: Snapshot = parse(path, json, SNAPSHOT_FORMAT)?;
    // Files are extracted to where a tree was mounted, below a directory: it must not lead out of that.
    for tree in &snapshot.trees {
        let below = tree.mount_point.strip_prefix('/');
        if !below.is_some_and(|b| b.is_empty() || bytes::is_inside(b.as_bytes())) {
            let reason = format!("{:?} is no place for a tree", tree.mount_point);
            return Err(Error::malformed(path.display(), reason));
        }
    }
    if (snapshot.kind == KIND) != snapshot.guest.is_some() {
        let reason = "it does not say of which guest it is, or is of none and names one";
        return Err(Error::malformed(path.display(), reason));
    }
    Ok(snapshot)
}

/// Reads a document, whose name must give its time and hash.
pub(crate) fn read_snapshot(
    path: &Path,
    name: &str,
    cipher: Option<&StoreCipher>,
) -> Result<(Id, Snapshot)> {
    if let Some(cipher) = cipher {
        return read_sealed(path, name, cipher);
    }
    let json = fsutil::read_cold(path, MAX_DOCUMENT)?;
    let id = Id::of(&json);
    let snapshot = match parse_snapshot(path, &json) {
        Ok(snapshot) => snapshot,
        // Bytes that fit their name are of another version or another program; others are damaged.
        Err(error) if name.ends_with(&format!("-{id}.json")) => return Err(error),
        Err(_) => return Err(wrong_hash(path)),
    };
    if name != snapshot_name(&snapshot.time, &id, ".json") {
        return Err(wrong_hash(path));
    }
    Ok((id, snapshot))
}

/// Is this the snapshot that is meant, or may it be the latest?
fn is_meant(wanted: &str, id: &Id, snapshot: &Snapshot) -> bool {
    match wanted {
        "latest" => snapshot.guest.is_none(),
        _ => id.to_string().starts_with(wanted),
    }
}

/// The same of an encrypted document: only one that authenticates is looked at.
fn read_sealed(path: &Path, name: &str, cipher: &StoreCipher) -> Result<(Id, Snapshot)> {
    let stored = fsutil::read_cold(path, MAX_DOCUMENT)?;
    let json = cipher.open(FileKind::Snapshot, &stored).map_err(|_| {
        Error::malformed(
            path.display(),
            "it does not authenticate with the store's key: it was truncated, tampered with or damaged",
        )
    })?;
    let snapshot = parse_snapshot(path, &json)?;
    if name != snapshot_name(&snapshot.time, &Id::of(&stored), ".sealed") {
        return Err(Error::malformed(
            path.display(),
            format!(
                "it is the restore point of {} under another one's name: the one that belongs here was replaced",
                time::shown(&snapshot.time)
            ),
        ));
    }
    Ok((Id::of(&json), snapshot))
}

fn wrong_hash(path: &Path) -> Error {
    Error::malformed(
        path.display(),
        "its content does not have the time and hash that its name gives",
    )
}

/// `<time>-<SHA-256 of the file>` and `.json` or `.sealed`.
pub(crate) fn snapshot_name(time: &str, id: &Id, suffix: &str) -> String {
    format!("{}-{id}{suffix}", time::compact(time))
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Space {
    /// Free for writing.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// Sizes of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// Number of packs.
    pub packs: u64,
    /// Number of blobs.
    pub blobs: u64,
    /// Bytes of plain content of all blobs.
    pub raw_bytes: u64,
    /// Bytes on the medium of all packs.
    pub stored_bytes: u64,
}
