//! Making and opening a store.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{DIRS, DamagedDocument, PackInfo, ROOT, Store, StoreOptions};
use crate::format::{FORMAT, Versioned, parse};
use crate::index::{self, Map};
use crate::pack::{self, PackEntry};
use crate::{Error, Id, Result, fsutil, time, verify};

/// Readers hold a shared lock of it, who removes packs an exclusive one.
const READERS: &str = "readers";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreFile {
    format: u32,
    id: String,
    created: String,
    /// Key slots in a later version. The field is there so that this version refuses what it cannot decrypt.
    encryption: Option<serde_json::Value>,
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
        let file = root.join("store.json");
        if file.exists() {
            return Err(Error::StoreExists {
                dir: dir.to_path_buf(),
            });
        }
        fsutil::make_dir(&root)?;
        for name in DIRS {
            fsutil::make_dir(&root.join(name))?;
        }
        let document = StoreFile {
            format: FORMAT,
            id: uuid::Uuid::new_v4().to_string(),
            created: time::rfc3339(time::now()),
            encryption: None,
        };
        let mut json =
            serde_json::to_vec(&document).map_err(|e| Error::malformed(file.display(), e))?;
        json.push(b'\n');
        fsutil::write_file(&root, &file, &json)?;
        Store::open(dir)
    }

    /// Opens for writing: takes the store's lock until dropped, removes what a killed writer left unfinished.
    pub fn open(dir: &Path) -> Result<Store> {
        let id = read_store_file(dir)?;
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
        Store::load(dir, id, Some(lock))
    }

    /// Opens for reading; needs no write permission. Others may read and write meanwhile, but nothing is removed.
    pub fn open_read_only(dir: &Path) -> Result<Store> {
        let id = read_store_file(dir)?;
        let readers = File::open(dir.join(ROOT).join(READERS)).ok();
        let shared = match readers.map(|file| Flock::lock(file, FlockArg::LockSharedNonblock)) {
            Some(Err((_, nix::Error::EWOULDBLOCK))) => {
                return Err(Error::Locked {
                    dir: dir.to_path_buf(),
                });
            }
            Some(Ok(shared)) => Some(shared),
            // A copy of a store without that file, or a file system that knows no locks.
            Some(Err(_)) | None => None,
        };
        let mut store = Store::load(dir, id, None)?;
        store.readers = shared;
        Ok(store)
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
        Store::load(&self.dir, self.id, self.lock)
    }

    fn load(dir: &Path, id: String, lock: Option<Flock<File>>) -> Result<Store> {
        let root = dir.join(ROOT);
        let mut store = Store {
            dir: dir.to_path_buf(),
            root,
            id,
            lock,
            readers: None,
            documents: Default::default(),
            packs: Vec::new(),
            map: Map::default(),
            problems: Vec::new(),
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
                Some(id) => index::read(&path, &id),
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
                match pack::read_footer(&path) {
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

fn read_store_file(dir: &Path) -> Result<String> {
    let path = dir.join(ROOT).join("store.json");
    let json = match fsutil::read_cold(&path, 1 << 20) {
        Ok(json) => json,
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Err(Error::NoStore {
                dir: dir.to_path_buf(),
            });
        }
        Err(e) => return Err(e),
    };
    // Before anything else, as an encrypted store may have further fields.
    let encrypted = serde_json::from_slice::<serde_json::Value>(&json).is_ok_and(|v| {
        v.get("format") == Some(&FORMAT.into()) && v.get("encryption").is_some_and(|e| !e.is_null())
    });
    if encrypted {
        return Err(Error::Encrypted { path });
    }
    Ok(parse::<StoreFile>(&path, &json, FORMAT)?.id)
}
