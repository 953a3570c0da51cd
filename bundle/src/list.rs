//! What a tree holds, from its catalogue.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use crate::catalogue::{Catalogue, Finder, Line, WireEntry};
use crate::document::Tree;
use crate::pattern::Pattern;
use crate::read::Readers;
use crate::store::Store;
use crate::{Id, Result, bytes};

/// What kind of file an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Another name of a file met earlier, see [`Entry::target`].
    Hardlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// How an entry's content in the snapshot relates to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryState {
    /// It changed while it was read.
    Changed,
    /// It was listed, but gone when it was to be read; not in the snapshot.
    Vanished,
    /// It could not be read at all; not in the snapshot.
    Unreadable,
    /// It could not be read completely: the rest is zeroes.
    Partial,
}

impl EntryState {
    pub(crate) fn word(self) -> &'static str {
        match self {
            EntryState::Changed => "changed",
            EntryState::Vanished => "vanished",
            EntryState::Unreadable => "unreadable",
            EntryState::Partial => "partial",
        }
    }

    pub(crate) fn from_word(word: &[u8]) -> Option<EntryState> {
        [
            EntryState::Changed,
            EntryState::Vanished,
            EntryState::Unreadable,
            EntryState::Partial,
        ]
        .into_iter()
        .find(|state| state.word().as_bytes() == word)
    }
}

/// One entry of a tree. Serialises as the catalogue writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path inside the tree, without a leading slash; `.` is the tree's root.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes of a regular file (of a hard link: of the file).
    pub size: u64,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last modification: seconds since 1970, nanoseconds.
    pub mtime: (i64, u32),
    /// Time of last change of the inode.
    pub ctime: (i64, u32),
    /// Inode number.
    pub ino: u64,
    /// Device number of a device node: major, minor.
    pub rdev: Option<(u32, u32)>,
    /// Target of a symbolic link, or the first path of a hard link.
    pub target: Option<PathBuf>,
    /// Content list of a large or sparse file.
    pub content: Option<Id>,
    /// Not as it was.
    pub state: Option<EntryState>,
}

impl Entry {
    /// Is it in the snapshot, or only recorded as something that could not be kept?
    pub fn is_kept(&self) -> bool {
        !matches!(
            self.state,
            Some(EntryState::Vanished | EntryState::Unreadable)
        )
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        WireEntry::from(self).serialize(serializer)
    }
}

/// The entries of a tree, directories before their contents, in byte order.
pub fn entries<'s>(
    readers: &'s [&'s Store],
    tree: &'s Tree,
) -> impl Iterator<Item = Result<Entry>> + 's {
    flatten(Catalogue::new(Readers::new(readers), tree))
}

/// The entry at `path` inside the tree (`.`: its root) with, where `deep`, everything below it. Only the parts of the
/// catalogue that can hold it are read.
pub fn below<'s>(
    readers: &'s [&'s Store],
    tree: &'s Tree,
    path: &Path,
    deep: bool,
) -> impl Iterator<Item = Result<Entry>> + 's {
    let path = inside(path);
    let range = Finder::new(Readers::new(readers), tree).blobs(&path, deep);
    let lines = Catalogue::of(Readers::new(readers), &tree.catalogue[range]);
    flatten(lines).filter(move |entry| match entry {
        Ok(entry) => {
            let at = bytes::of(&entry.path);
            at == path || (deep && bytes::is_below(at, &path))
        }
        Err(_) => true,
    })
}

fn flatten(mut lines: impl Iterator<Item = Result<Line>>) -> impl Iterator<Item = Result<Entry>> {
    let mut current: std::vec::IntoIter<Entry> = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if let Some(entry) = current.next() {
                return Some(Ok(entry));
            }
            match lines.next()? {
                Ok(Line { entries, .. }) => current = entries.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

/// A path inside a tree as its entries have it: no slash at the ends, `.` for the root.
pub(crate) fn inside(path: &Path) -> Vec<u8> {
    let names: Vec<&[u8]> = bytes::of(path)
        .split(|b| *b == b'/')
        .filter(|n| !matches!(*n, b"" | b"."))
        .collect();
    match names.is_empty() {
        true => b".".to_vec(),
        false => names.join(&b'/'),
    }
}

/// The path on the host of an entry of a tree.
pub fn on_host(tree: &Tree, path: &Path) -> PathBuf {
    let mount_point = Path::new(&tree.mount_point);
    if path == Path::new(".") {
        mount_point.to_path_buf()
    } else {
        mount_point.join(path)
    }
}

/// How far [`Walk`] goes below its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The entry only.
    Itself,
    /// What is directly in it.
    Children,
    /// Everything below it.
    All,
}

/// One step of the way.
struct Stage<'s> {
    tree: &'s Tree,
    entries: Box<dyn Iterator<Item = Result<Entry>> + 's>,
}

/// The entries of a snapshot at and below a path of the host, with the trees put together as they were mounted: at a
/// mount point comes the root of what was mounted there, not the empty directory below it. In order, and holding a part of
/// one catalogue at a time.
pub struct Walk<'s> {
    readers: &'s [&'s Store],
    trees: &'s [Tree],
    path: PathBuf,
    depth: Depth,
    stages: Vec<Stage<'s>>,
    /// Trees that are still to come: where nothing leads to their mount points, they come at the end.
    waiting: Vec<&'s Tree>,
}

impl<'s> Walk<'s> {
    /// `path` is absolute, without `.` and `..`.
    pub fn new(readers: &'s [&'s Store], trees: &'s [Tree], path: &Path, depth: Depth) -> Walk<'s> {
        let mut walk = Walk {
            readers,
            trees,
            path: path.to_path_buf(),
            depth,
            stages: Vec::new(),
            waiting: Vec::new(),
        };
        let start = holder(trees, path);
        walk.waiting = trees
            .iter()
            .filter(|t| {
                let at = Path::new(&t.mount_point);
                let within =
                    |o: &Tree| at != Path::new(&o.mount_point) && at.starts_with(&o.mount_point);
                at.starts_with(path)
                    && start.is_none_or(|s| !std::ptr::eq(s, *t))
                    && (depth == Depth::All
                        || at.parent() == Some(path)
                        || !trees.iter().any(within))
            })
            .collect();
        if let Some(tree) = start {
            let rest = path.strip_prefix(&tree.mount_point).unwrap_or(path);
            let deep = depth != Depth::Itself;
            walk.stages.push(Stage {
                tree,
                entries: Box::new(below(readers, tree, rest, deep)),
            });
        }
        walk
    }

    /// Goes on with the tree that is mounted here.
    fn enter(&mut self, at: usize) {
        let tree = self.waiting.swap_remove(at);
        let deep = self.depth == Depth::All;
        self.stages.push(Stage {
            tree,
            entries: Box::new(below(self.readers, tree, Path::new("."), deep)),
        });
    }

    fn shown(&self, path: &Path) -> bool {
        match self.depth {
            Depth::Itself => path == self.path,
            Depth::Children => path.parent() == Some(&self.path),
            Depth::All => true,
        }
    }
}

impl Iterator for Walk<'_> {
    /// The path on the host, and the entry with its path inside its tree.
    type Item = Result<(PathBuf, Entry)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(stage) = self.stages.last_mut() else {
                let next = (0..self.waiting.len())
                    .min_by_key(|i| Path::new(&self.waiting[*i].mount_point))?;
                if self.depth == Depth::Itself {
                    return None;
                }
                self.enter(next);
                continue;
            };
            let Some(entry) = stage.entries.next() else {
                self.stages.pop();
                continue;
            };
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            let tree = stage.tree;
            let path = on_host(tree, &entry.path);
            let mounted = |t: &&Tree| Path::new(&t.mount_point) == path;
            if let Some(at) = self.waiting.iter().position(mounted) {
                if entry.path != Path::new(".") && self.shown(&path) {
                    self.enter(at);
                }
            }
            // What another tree is mounted on is not seen on the host.
            if !holder(self.trees, &path).is_some_and(|t| std::ptr::eq(t, tree)) {
                continue;
            }
            // A tree below no directory of another is listed where it begins, however deep that is.
            let lone = entry.path == Path::new(".") && self.stages.len() == 1;
            if self.shown(&path) || (lone && self.depth == Depth::Children && path != self.path) {
                return Some(Ok((path, entry)));
            }
        }
    }
}

/// The tree that holds this path of the host: the one with the longest mount point above it.
pub fn holder<'t>(trees: &'t [Tree], path: &Path) -> Option<&'t Tree> {
    trees
        .iter()
        .filter(|t| path.starts_with(&t.mount_point))
        .max_by_key(|t| Path::new(&t.mount_point).components().count())
}

/// Which paths of the host, of those that the snapshot keeps, the patterns fit; directories stand for what is below them.
/// A pattern that is the exact path of an entry means that entry alone. Returns the patterns that fit nothing, too.
pub fn matching(
    readers: &[&Store],
    trees: &[Tree],
    patterns: &[PathBuf],
) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut found, mut nothing) = (Vec::new(), Vec::new());
    for text in patterns {
        if text.is_absolute() {
            if let Some(exact) = Walk::new(readers, trees, text, Depth::Itself).next() {
                exact?;
                found.push(text.clone());
                continue;
            }
        }
        let pattern = Pattern::new(bytes::of(text))?;
        let before = found.len();
        let mut last: Option<PathBuf> = None;
        for entry in Walk::new(readers, trees, &pattern.base(), Depth::All) {
            let (path, entry) = entry?;
            let known = last.as_ref().is_some_and(|l| path.starts_with(l));
            if !known && pattern.fits(bytes::of(&path), entry.kind == EntryKind::Dir) {
                last = Some(path.clone());
                found.push(path);
            }
        }
        if found.len() == before {
            nothing.push(text.clone());
        }
    }
    Ok((found, nothing))
}
