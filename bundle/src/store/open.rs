//! Making and opening a store.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{DIRS, DamagedDocument, PackInfo, ROOT, Store, StoreOptions};
use crate::crypt::{Encryption, KeyRing, SlotInfo, StoreCipher, Tried};
use crate::format::{FORMAT, Versioned, parse};
use crate::index::{self, Map};
use crate::pack::{self, PackEntry};
use crate::{Error, Id, Result, fsutil, time, verify};

/// Readers hold a shared lock of it, who removes packs an exclusive one.
const READERS: &str = "readers";

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreFile {
    format: u32,
    id: String,
    created: String,
    /// Nothing in a plain store.
    pub(crate) encryption: Option<Encryption>,
    /// Of an encrypted store: the SHA-256 of the file without this field, so that damage is not taken for a wrong key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<Id>,
}

/// A second one of an encrypted store: with the keys, all would be lost.
const COPY: &str = "store.json.copy";
const SUM: &[u8] = b",\"sum\":\"";

/// What can be said of a store without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreInfo {
    /// The store's id, a UUID.
    pub id: String,
    /// Is a key needed?
    pub encrypted: bool,
    /// What opens it.
    pub keys: Vec<SlotInfo>,
}

impl StoreFile {
    /// Gives the store this file and, if it is encrypted, its copy. The file comes first: with its name, the change is
    /// made. A plug pulled in between leaves a copy with the keys of before, which the next writer replaces.
    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let file = root.join("store.json");
        let json = self
            .to_json()
            .map_err(|e| Error::malformed(file.display(), e))?;
        fsutil::write_file(root, &file, json.as_bytes())?;
        if self.encryption.is_some() {
            fsutil::write_file(root, &root.join(COPY), json.as_bytes())?;
        }
        Ok(())
    }

    /// What is written.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        let plain = StoreFile {
            sum: None,
            ..self.clone()
        };
        let mut json = serde_json::to_string(&plain)?;
        if self.encryption.is_some() {
            let sum = Some(Id::of(json.as_bytes()));
            json = serde_json::to_string(&StoreFile { sum, ..plain })?;
        }
        json.push('\n');
        Ok(json)
    }

    pub(crate) fn parse(path: &Path, json: &[u8]) -> Result<StoreFile> {
        let file: StoreFile = parse(path, json, FORMAT)?;
        if file.encryption.is_none() && file.sum.is_some() {
            let reason = "it gives a hash as encrypted stores do, and no keys: they were taken out";
            return Err(Error::malformed(path.display(), reason));
        }
        if let Some(encryption) = &file.encryption {
            // The last field, written without spaces: what is before it is what was hashed.
            let at = json.windows(SUM.len()).rposition(|w| w == SUM).unwrap_or(0);
            if file.sum != Some(Id::of(&[&json[..at], b"}"].concat())) {
                let reason = "it does not have the hash that it gives";
                return Err(Error::malformed(path.display(), reason));
            }
            encryption
                .examine()
                .map_err(|e| Error::malformed(path.display(), e))?;
        }
        Ok(file)
    }

    /// Finds what opens the store in the ring; nothing for a plain store.
    pub(crate) fn unlock(&self, dir: &Path, keys: &KeyRing) -> Result<Option<StoreCipher>> {
        let Some(encryption) = &self.encryption else {
            // Whoever can write to the target could else have the next backup written in the clear.
            if keys.has_data_key(&self.id) {
                return Err(Error::NoLongerEncrypted { dir: dir.into() });
            }
            return Ok(None);
        };
        let words = |kinds: Vec<String>| {
            let mut seen: Vec<String> = Vec::new();
            for kind in kinds {
                if !seen.contains(&kind) {
                    seen.push(kind);
                }
            }
            seen.join(" or ")
        };
        let tried = encryption.open(keys, &self.id);
        match tried.map_err(|e| Error::malformed(dir.join(ROOT).join("store.json").display(), e))? {
            Tried::Opened(key) => Ok(Some(StoreCipher::new(key, &self.id))),
            Tried::Nothing => Err(Error::KeyNeeded {
                dir: dir.into(),
                opens: words(
                    encryption
                        .slots()
                        .iter()
                        .map(|s| s.kind.to_string())
                        .collect(),
                ),
            }),
            Tried::Wrong(kinds) => Err(Error::WrongKey {
                dir: dir.into(),
                tried: words(kinds.iter().map(ToString::to_string).collect()),
            }),
        }
    }
}

impl Versioned for StoreFile {
    fn format(&self) -> u32 {
        self.format
    }
}

impl Store {
    /// Makes an empty store in `<dir>/lifeboat` and opens it for writing.
    pub fn create(dir: &Path, _options: &StoreOptions) -> Result<Store> {
        let root = dir.join(ROOT);
        if root.join("store.json").exists() || root.join(COPY).exists() {
            return Err(Error::StoreExists {
                dir: dir.to_path_buf(),
            });
        }
        fsutil::make_dir(&root)?;
        for name in DIRS {
            fsutil::make_dir(&root.join(name))?;
        }
        let file = StoreFile {
            format: FORMAT,
            id: uuid::Uuid::new_v4().to_string(),
            created: time::rfc3339(time::now()),
            encryption: None,
            sum: None,
        };
        file.write(&root)?;
        Store::open(dir)
    }

    /// What can be said of the store in this directory without a key.
    pub fn info(dir: &Path) -> Result<StoreInfo> {
        let file = read_store_file(dir)?.0;
        Ok(StoreInfo {
            id: file.id,
            encrypted: file.encryption.is_some(),
            keys: file.encryption.map_or_else(Vec::new, |e| e.slots()),
        })
    }

    /// Opens a plain store for writing, see [`Store::open_with`].
    pub fn open(dir: &Path) -> Result<Store> {
        Store::open_with(dir, &KeyRing::default())
    }

    /// Opens for writing: takes the store's lock until dropped, removes what a killed writer left unfinished.
    pub fn open_with(dir: &Path, keys: &KeyRing) -> Result<Store> {
        // Before a lock file is made where there is no store.
        read_store_file(dir)?;
        let root = dir.join(ROOT);
        let path = root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    nix::Error::EWOULDBLOCK => Error::Locked {
                        dir: dir.to_path_buf(),
                    },
                    other => Error::sys("lock", &path)(other),
                },
            )?;
        // Read under the lock, so that nobody changes the keys meanwhile.
        let (file, problems) = read_store_file(dir)?;
        let cipher = file.unlock(dir, keys)?;
        // Under the lock nobody else writes: what lies here is of a writer that was killed.
        for name in DIRS {
            fsutil::make_dir(&root.join(name))?;
        }
        let unfinished = root.join("tmp");
        for name in fsutil::names(&unfinished)? {
            let path = unfinished.join(name);
            match fs::remove_file(&path) {
                Ok(()) => {}
                // Reports are written without the lock: this one just got its name.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("remove", &path)(e)),
            }
        }
        let readers = root.join(READERS);
        if !readers.exists() {
            File::create(&readers).map_err(Error::io("create", &readers))?;
        }
        if !problems.is_empty() {
            file.write(&root)?;
        }
        let store = Store::load(dir, file.id, cipher, Vec::new(), Some(lock))?;
        store.sync_names()?;
        Ok(store)
    }

    /// Makes the names durable that a killed writer may have given or taken away without syncing their directories: what
    /// is written and removed from now on relies on them.
    fn sync_names(&self) -> Result<()> {
        let mut dirs = BTreeSet::from([self.dir.clone(), self.root.clone()]);
        dirs.extend(["packs", "index", "snapshots"].map(|name| self.root.join(name)));
        let packs = self.packs.iter().filter(|p| p.problem.is_none());
        dirs.extend(packs.filter_map(|p| Some(self.pack_path(p).parent()?.to_path_buf())));
        dirs.iter().try_for_each(|dir| fsutil::sync_dir(dir))
    }

    /// Opens a plain store for reading, see [`Store::open_read_only_with`].
    pub fn open_read_only(dir: &Path) -> Result<Store> {
        Store::open_read_only_with(dir, &KeyRing::default())
    }

    /// Opens for reading; needs no write permission. Others may read and write meanwhile, but nothing is removed.
    pub fn open_read_only_with(dir: &Path, keys: &KeyRing) -> Result<Store> {
        let (file, problems) = read_store_file(dir)?;
        let cipher = file.unlock(dir, keys)?;
        let shared = lock_as_reader(dir)?;
        let mut store = Store::load(dir, file.id, cipher, problems, None)?;
        store.readers = Mutex::new(shared);
        Ok(store)
    }

    /// Takes the readers' lock again after [`Store::release`].
    pub(super) fn hold(&self) -> Result<()> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lock.is_none() && readers.is_none() {
            *readers = lock_as_reader(&self.dir)?;
        }
        Ok(())
    }

    /// Keeps readers out until dropped: what they are about to read may be removed.
    pub(crate) fn lock_readers_out(&self) -> Result<Flock<File>> {
        let path = self.root.join(READERS);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::Error::EWOULDBLOCK => Error::BeingRead {
                dir: self.dir.clone(),
            },
            other => Error::sys("lock", &path)(other),
        })
    }

    /// Looks at the store again after files in it were changed, keeping its lock.
    pub(crate) fn reload(self) -> Result<Store> {
        Store::load(&self.dir, self.id, self.cipher, Vec::new(), self.lock)
    }

    fn load(
        dir: &Path,
        id: String,
        cipher: Option<StoreCipher>,
        problems: Vec<DamagedDocument>,
        lock: Option<Flock<File>>,
    ) -> Result<Store> {
        let root = dir.join(ROOT);
        let mut store = Store {
            dir: dir.to_path_buf(),
            root,
            id,
            cipher,
            lock,
            readers: Mutex::default(),
            documents: Default::default(),
            packs: Vec::new(),
            map: Map::default(),
            problems,
            suspects: HashSet::new(),
            open: Mutex::default(),
        };
        // First, as a backup may be ending meanwhile: its packs come before its snapshot.
        store.documents = fsutil::names(&store.root.join("snapshots"))?
            .into_iter()
            .collect();
        let mut known = HashMap::new();
        // What cannot be read costs what is in it, not the store: it is there for the day when media are bad.
        let indexes = index::files(&store.root).unwrap_or_else(|error| {
            store.problem(store.root.join("index"), error);
            Vec::new()
        });
        for (path, id) in indexes {
            let read = match id {
                Some(id) => index::read(&path, &id, store.cipher()),
                None => Err(Error::malformed(path.display(), "its name is not a hash")),
            };
            match read {
                Ok(packs) => packs.into_iter().for_each(|pack| {
                    known.entry(pack.id).or_insert((pack, false));
                }),
                // An index of a newer format may list what must not be read as if it were of this one.
                Err(error @ Error::UnknownFormat { .. }) => return Err(error),
                Err(error) => store.problem(path, error),
            }
        }
        let mut present = HashMap::new();
        for prefix in fsutil::names(&store.root.join("packs"))? {
            let sub = store.root.join("packs").join(prefix);
            let names = match fsutil::names(&sub) {
                Ok(names) => names,
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotADirectory => {
                    continue;
                }
                Err(error) => {
                    store.problem(sub, error);
                    continue;
                }
            };
            for name in names {
                let path = sub.join(&name);
                let Some(id) = name
                    .strip_suffix(".pack")
                    .and_then(|stem| stem.parse::<Id>().ok())
                else {
                    continue;
                };
                if path != store.root.join(pack::pack_name(&id)) {
                    let error = Error::malformed(path.display(), "it is in the wrong directory");
                    store.problem(path, error);
                    continue;
                }
                if known.contains_key(&id) {
                    let size = fs::metadata(&path).map(|m| m.len());
                    present.insert(id, size.map_err(|e| e.to_string()));
                    continue;
                }
                match pack::read_footer(&path, store.cipher()) {
                    Ok((size, blobs)) => {
                        present.insert(id, Ok(size));
                        known.insert(id, (PackEntry { id, size, blobs }, true));
                    }
                    Err(error) => store.problem(path, error),
                }
            }
        }
        let mut packs: Vec<_> = known.into_values().collect();
        packs.sort_unstable_by_key(|(pack, _)| pack.id);
        for (pack, unindexed) in packs {
            let problem = match present.get(&pack.id) {
                None => Some("the pack is missing".to_string()),
                Some(Err(error)) => Some(format!("the pack cannot be examined: {error}")),
                Some(Ok(size)) if *size != pack.size => Some(format!(
                    "the pack has {size} bytes instead of {}",
                    pack.size
                )),
                Some(Ok(_)) => None,
            };
            store.map.push_pack(store.packs.len() as u32, &pack.blobs);
            store.packs.push(PackInfo {
                id: pack.id,
                size: pack.size,
                problem,
                unindexed,
            });
        }
        store.map.sort();
        if store.writable() {
            store.suspects = verify::suspects(&store);
        }
        Ok(store)
    }

    fn problem(&mut self, file: PathBuf, error: Error) {
        let reason = match error {
            Error::Malformed { reason, .. } => reason,
            other => other.to_string(),
        };
        tracing::warn!(file = %file.display(), reason, "unusable file in store");
        self.problems.push(DamagedDocument { file, reason });
    }
}

/// Reads `store.json`, or its copy where it is lost; with what is wrong with the one or the other.
pub(super) fn read_store_file(dir: &Path) -> Result<(StoreFile, Vec<DamagedDocument>)> {
    let root = dir.join(ROOT);
    let read = |name: &str| {
        let path = root.join(name);
        match fsutil::read_cold(&path, 1 << 20) {
            Ok(json) => StoreFile::parse(&path, &json).map(Some),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    };
    let problem = |name: &str, reason: String| {
        let file = root.join(name);
        vec![DamagedDocument { file, reason }]
    };
    let copy = read(COPY);
    match (read("store.json"), copy) {
        (Ok(Some(file)), Ok(Some(copy))) if file == copy => Ok((file, Vec::new())),
        // A copy is written after the file only: it cannot know of keys of which the file does not.
        (Ok(Some(file)), Ok(Some(_))) if file.encryption.is_none() => {
            Err(Error::NoLongerEncrypted { dir: dir.into() })
        }
        (Ok(Some(file)), copy) if file.encryption.is_some() => {
            let reason = match copy {
                Ok(Some(_)) => "it holds other keys than store.json".to_string(),
                Ok(None) => "it is missing: store.json is the only place of the keys".to_string(),
                Err(error) => error.to_string(),
            };
            let advice = "; the next backup writes it anew";
            Ok((file, problem(COPY, reason + advice)))
        }
        (Ok(Some(file)), _) => Ok((file, Vec::new())),
        (Err(error @ Error::UnknownFormat { .. }), _) => Err(error),
        (Ok(None), Ok(Some(copy))) => {
            let reason = "it is missing; its copy is used, and the next backup writes it anew";
            Ok((copy, problem("store.json", reason.into())))
        }
        (Err(error), Ok(Some(copy))) => {
            let reason = format!("{error}; its copy is used, and the next backup writes it anew");
            Ok((copy, problem("store.json", reason)))
        }
        (Ok(None), Err(error)) => Err(error),
        (Ok(None), Ok(None)) => Err(Error::NoStore { dir: dir.into() }),
        (Err(error), _) => Err(error),
    }
}

/// Keeps everybody from removing what is read. None on a copy of a store without that file, and on a file system that
/// knows no locks.
fn lock_as_reader(dir: &Path) -> Result<Option<Flock<File>>> {
    let Ok(file) = File::open(dir.join(ROOT).join(READERS)) else {
        return Ok(None);
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(shared) => Ok(Some(shared)),
        Err((_, nix::Error::EWOULDBLOCK)) => Err(Error::Locked {
            dir: dir.to_path_buf(),
        }),
        Err(_) => Ok(None),
    }
}
