//! A disk in memory that knows what is on the medium and what only in the caches, and so what a crash may leave.
//!
//! What counts as being on the medium is what the standards promise and nothing more, so that what holds here holds on
//! every file system:
//!
//! - `write` and `truncate` reach the medium with an `fsync` of that file (POSIX.1-2024, `fsync`), and before that
//!   perhaps, in any order and in parts: an unsynced file may be found empty, of its full length and full of zeroes
//!   (ext4 with `noauto_da_alloc` or `data=writeback`, xfs: the length is written before the data), or complete.
//! - Names (`create`, `mkdir`, `rename`, `unlink`, `rmdir`) reach it with an `fsync` of the directory: "calling fsync()
//!   does not necessarily ensure that the entry in the directory containing the file has also reached disk. For that an
//!   explicit fsync() on a file descriptor for the directory is also needed" (fsync(2)). ext4 syncs more than that, as
//!   its journal has one order for all names; btrfs's log tree, f2fs and exfat do not.
//! - Before that, each change of a name may reach it alone, in any order (the file systems checked by Pillai et al., "All
//!   File Systems Are Not Created Equal", OSDI 2014, differ in just this).
//! - `rename` is atomic for the name that it gives (POSIX.1-2024, `rename`; ext4(5)): it is the old file or the new one.
//!   The old name goes with its own directory: where only the new one's was synced, both may be there.
//! - An `fsync` that failed has lost what it should have written: a second one says nothing about it (the Linux kernel
//!   marks the pages clean, <https://lwn.net/Articles/752063/>).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub type Ino = u64;
/// The number that FUSE gives to the top directory.
pub const TOP: Ino = 1;
/// Directories of this name hold unfinished files. What a crash leaves in them, in which combination, is not followed
/// name by name: every state has all or none of it.
const UNFINISHED: &str = "tmp";

type Bytes = Arc<Vec<u8>>;
type Names = BTreeMap<OsString, Ino>;

/// A change of the disk.
#[derive(Debug, Clone)]
pub enum Op {
    Create(Ino, OsString, u32),
    Mkdir(Ino, OsString, u32),
    Write(Ino, u64, Vec<u8>),
    Truncate(Ino, u64),
    Rename(Ino, OsString, Ino, OsString),
    Unlink(Ino, OsString),
    Rmdir(Ino, OsString),
    Attributes(Ino, Option<u32>, Option<SystemTime>),
    Sync(Ino),
}

impl Op {
    /// Can it fail for want of room? A sync can: with delayed allocation, quotas and on network file systems.
    pub fn allocates(&self) -> bool {
        !matches!(self, Op::Unlink(..) | Op::Rmdir(..) | Op::Attributes(..))
    }
}

#[derive(Debug, Clone)]
pub struct Node {
    pub mode: u32,
    pub modified: SystemTime,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    File {
        data: Bytes,
        /// What is on the medium; empty before the first sync.
        synced: Bytes,
        /// A sync has failed.
        lost: bool,
    },
    Dir {
        names: Names,
        /// What is on the medium.
        synced: Names,
    },
}

/// A name that is not on the medium yet.
#[derive(Debug, Clone)]
struct Pending {
    /// The operation that changed it, counted from 0; a rename has two names.
    op: usize,
    dir: Ino,
    name: OsString,
    to: Option<Ino>,
}

/// Which unsynced names a crash leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    None,
    /// Only those of this operation.
    Only(usize),
    AllBut(usize),
}

/// What a crash leaves of unsynced data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    All,
    None,
    /// The length without the bytes.
    Zeroes,
}

/// A directory tree as it is found after a crash; directories have no content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found(pub BTreeMap<PathBuf, Option<(Bytes, SystemTime)>>);

#[derive(Debug, Clone)]
pub struct Disk {
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    /// Operations so far.
    pub ops: usize,
    pending: Vec<Pending>,
}

impl Disk {
    pub fn new() -> Disk {
        let top = Node {
            mode: 0o755,
            modified: SystemTime::now(),
            kind: Kind::dir(),
        };
        Disk {
            nodes: BTreeMap::from([(TOP, top)]),
            next: TOP + 1,
            ops: 0,
            pending: Vec::new(),
        }
    }

    pub fn node(&self, ino: Ino) -> Result<&Node, i32> {
        self.nodes.get(&ino).ok_or(libc::ENOENT)
    }

    pub fn names(&self, ino: Ino) -> Result<&Names, i32> {
        match &self.node(ino)?.kind {
            Kind::Dir { names, .. } => Ok(names),
            Kind::File { .. } => Err(libc::ENOTDIR),
        }
    }

    pub fn lookup(&self, dir: Ino, name: &OsStr) -> Result<Ino, i32> {
        self.names(dir)?.get(name).copied().ok_or(libc::ENOENT)
    }

    /// Everything is on the medium, as after an unmount.
    pub fn settle(&mut self) {
        self.pending.clear();
        self.ops = 0;
        for node in self.nodes.values_mut() {
            match &mut node.kind {
                Kind::File { data, synced, lost } => (*synced, *lost) = (data.clone(), false),
                Kind::Dir { names, synced } => *synced = names.clone(),
            }
        }
    }

    /// A sync that fails.
    pub fn fail_to_sync(&mut self, ino: Ino) {
        if let Some(Node {
            kind: Kind::File { lost, .. },
            ..
        }) = self.nodes.get_mut(&ino)
        {
            *lost = true;
        }
    }

    /// Does it, or says why it cannot be done. Returns the number of what was made.
    pub fn apply(&mut self, op: &Op, now: SystemTime) -> Result<Ino, i32> {
        let done = match op {
            Op::Create(dir, name, mode) => self.make(*dir, name, *mode, Kind::file(), now),
            Op::Mkdir(dir, name, mode) => self.make(*dir, name, *mode, Kind::dir(), now),
            Op::Write(ino, at, bytes) => self.change(*ino, now, |data| {
                let (start, end) = (*at as usize, *at as usize + bytes.len());
                data.resize(data.len().max(end), 0);
                data[start..end].copy_from_slice(bytes);
            }),
            Op::Truncate(ino, size) => {
                self.change(*ino, now, |data| data.resize(*size as usize, 0))
            }
            Op::Rename(from, name, to, new) => {
                let ino = self.lookup(*from, name)?;
                if self
                    .lookup(*to, new)
                    .is_ok_and(|old| self.names(old).is_ok())
                {
                    // Nothing here gives a directory another one's name.
                    return Err(libc::EISDIR);
                }
                self.set(*from, name, None);
                self.set(*to, new, Some(ino));
                Ok(ino)
            }
            Op::Unlink(dir, name) => {
                let ino = self.lookup(*dir, name)?;
                if self.names(ino).is_ok() {
                    return Err(libc::EISDIR);
                }
                self.set(*dir, name, None);
                Ok(ino)
            }
            Op::Rmdir(dir, name) => {
                let ino = self.lookup(*dir, name)?;
                if !self.names(ino)?.is_empty() {
                    return Err(libc::ENOTEMPTY);
                }
                self.set(*dir, name, None);
                Ok(ino)
            }
            Op::Attributes(ino, mode, modified) => {
                let node = self.nodes.get_mut(ino).ok_or(libc::ENOENT)?;
                node.mode = mode.unwrap_or(node.mode);
                node.modified = modified.unwrap_or(node.modified);
                Ok(*ino)
            }
            Op::Sync(ino) => {
                match &mut self.nodes.get_mut(ino).ok_or(libc::ENOENT)?.kind {
                    Kind::File { lost: true, .. } => {}
                    Kind::File { data, synced, .. } => *synced = data.clone(),
                    Kind::Dir { names, synced } => {
                        *synced = names.clone();
                        self.pending.retain(|p| p.dir != *ino);
                    }
                }
                Ok(*ino)
            }
        }?;
        self.ops += 1;
        Ok(done)
    }

    fn make(
        &mut self,
        dir: Ino,
        name: &OsStr,
        mode: u32,
        kind: Kind,
        now: SystemTime,
    ) -> Result<Ino, i32> {
        if self.names(dir)?.contains_key(name) {
            return Err(libc::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        let node = Node {
            mode: mode & 0o7777,
            modified: now,
            kind,
        };
        self.nodes.insert(ino, node);
        self.set(dir, name, Some(ino));
        Ok(ino)
    }

    fn change(
        &mut self,
        ino: Ino,
        now: SystemTime,
        work: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Ino, i32> {
        let node = self.nodes.get_mut(&ino).ok_or(libc::ENOENT)?;
        let Kind::File { data, .. } = &mut node.kind else {
            return Err(libc::EISDIR);
        };
        work(Arc::make_mut(data));
        node.modified = now;
        Ok(ino)
    }

    fn set(&mut self, dir: Ino, name: &OsStr, to: Option<Ino>) {
        if let Some(Node {
            kind: Kind::Dir { names, .. },
            ..
        }) = self.nodes.get_mut(&dir)
        {
            put(names, name, to);
            self.pending.push(Pending {
                op: self.ops,
                dir,
                name: name.to_owned(),
                to,
            });
        }
    }

    /// The operations that changed names which are not on the medium yet.
    pub fn unsynced(&self) -> Vec<usize> {
        let unfinished = self.unfinished();
        let wanted = self.pending.iter().filter(|p| !unfinished.contains(&p.dir));
        let mut ops: Vec<usize> = wanted.map(|p| p.op).collect();
        ops.dedup();
        ops
    }

    fn unfinished(&self) -> Vec<Ino> {
        let dirs = self.nodes.values().filter_map(|node| match &node.kind {
            Kind::Dir { names, .. } => names.get(OsStr::new(UNFINISHED)).copied(),
            Kind::File { .. } => None,
        });
        dirs.collect()
    }

    /// What a crash leaves.
    pub fn crash(&self, which: Which, data: Data) -> Found {
        let mut dirs: BTreeMap<Ino, Names> = BTreeMap::new();
        for (ino, node) in &self.nodes {
            if let Kind::Dir { synced, .. } = &node.kind {
                dirs.insert(*ino, synced.clone());
            }
        }
        for pending in &self.pending {
            let survives = match which {
                Which::All => true,
                Which::None => false,
                Which::Only(op) => pending.op == op,
                Which::AllBut(op) => pending.op != op,
            };
            if survives {
                let names = dirs.entry(pending.dir).or_default();
                put(names, &pending.name, pending.to);
            }
        }
        let mut found = Found::default();
        self.collect(TOP, Path::new(""), &dirs, data, &mut found);
        found
    }

    fn collect(
        &self,
        dir: Ino,
        path: &Path,
        dirs: &BTreeMap<Ino, Names>,
        kept: Data,
        found: &mut Found,
    ) {
        for (name, ino) in dirs.get(&dir).into_iter().flatten() {
            let path = path.join(name);
            match self.nodes.get(ino).map(|node| (&node.kind, node.modified)) {
                Some((Kind::File { data, synced, .. }, modified)) => {
                    let bytes = match kept {
                        Data::All => data.clone(),
                        Data::None => synced.clone(),
                        Data::Zeroes if data == synced => data.clone(),
                        Data::Zeroes => {
                            let mut bytes = synced.to_vec();
                            bytes.resize(data.len(), 0);
                            Arc::new(bytes)
                        }
                    };
                    found.0.insert(path, Some((bytes, modified)));
                }
                Some((Kind::Dir { .. }, _)) => {
                    found.0.insert(path.clone(), None);
                    self.collect(*ino, &path, dirs, kept, found);
                }
                None => {}
            }
        }
    }
}

impl Kind {
    fn file() -> Kind {
        Kind::File {
            data: Bytes::default(),
            synced: Bytes::default(),
            lost: false,
        }
    }

    fn dir() -> Kind {
        Kind::Dir {
            names: Names::new(),
            synced: Names::new(),
        }
    }
}

fn put(names: &mut Names, name: &OsStr, to: Option<Ino>) {
    match to {
        Some(ino) => names.insert(name.to_owned(), ino),
        None => names.remove(name),
    };
}

impl Found {
    /// Makes the tree in an empty directory.
    pub fn write_to(&self, dir: &Path) {
        for (path, content) in &self.0 {
            let path = dir.join(path);
            match content {
                None => fs::create_dir(path).unwrap(),
                Some((bytes, modified)) => {
                    fs::write(&path, &**bytes).unwrap();
                    let file = fs::File::options().write(true).open(path).unwrap();
                    file.set_modified(*modified).unwrap();
                }
            }
        }
    }

    /// Tells trees apart by paths and contents.
    pub fn fingerprint(&self) -> bundle::Id {
        let mut text = String::new();
        for (path, content) in &self.0 {
            let content = content.as_ref().map(|(bytes, _)| bundle::Id::of(bytes));
            text += &format!("{} {content:?}\n", path.display());
        }
        bundle::Id::of(text.as_bytes())
    }
}

#[test]
fn only_what_was_synced_is_left_for_certain() {
    let mut disk = Disk::new();
    let now = SystemTime::now();
    let mut run = |op: Op| disk.apply(&op, now).unwrap();
    let dir = run(Op::Mkdir(TOP, "d".into(), 0o755));
    let file = run(Op::Create(TOP, "t".into(), 0o644));
    run(Op::Write(file, 0, b"abc".to_vec()));
    run(Op::Sync(file));
    run(Op::Write(file, 3, b"de".to_vec()));
    run(Op::Rename(TOP, "t".into(), dir, "f".into()));
    let shown = |disk: &Disk, which, data| {
        let found = disk.crash(which, data).0;
        let text = found.iter().map(|(path, content)| match content {
            Some((bytes, _)) => format!("{} {:?}", path.display(), String::from_utf8_lossy(bytes)),
            None => path.display().to_string(),
        });
        text.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(shown(&disk, Which::All, Data::All), "d, d/f \"abcde\"");
    assert_eq!(shown(&disk, Which::All, Data::None), "d, d/f \"abc\"");
    assert_eq!(
        shown(&disk, Which::All, Data::Zeroes),
        "d, d/f \"abc\\0\\0\""
    );
    assert_eq!(shown(&disk, Which::None, Data::All), "");
    assert_eq!(shown(&disk, Which::AllBut(5), Data::None), "d, t \"abc\"");
    disk.apply(&Op::Sync(dir), now).unwrap();
    assert_eq!(
        shown(&disk, Which::None, Data::All),
        "",
        "d has no name yet"
    );
    assert_eq!(shown(&disk, Which::Only(0), Data::None), "d, d/f \"abc\"");
    assert_eq!(shown(&disk, Which::Only(1), Data::None), "t \"abc\"");
    disk.fail_to_sync(file);
    disk.apply(&Op::Sync(file), now).unwrap();
    disk.apply(&Op::Sync(TOP), now).unwrap();
    assert_eq!(shown(&disk, Which::None, Data::None), "d, d/f \"abc\"");
    assert!(disk.unsynced().is_empty());
}
