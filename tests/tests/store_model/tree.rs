//! What a tree is to the model: a plain map, made with nothing of this project.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Paths below the root, which is the empty path. In the order of paths: a directory before its contents.
pub type Tree = BTreeMap<PathBuf, Node>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Size and hash of the content.
    File(u64, [u8; 32]),
    Dir,
    Symlink(PathBuf),
    Fifo,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// The first name of the inode, when this is another one.
    pub first: Option<PathBuf>,
    /// Where a file has data. A copy may have it elsewhere.
    pub data: Vec<(i64, i64)>,
}

impl Node {
    /// In which respects a restored one is not the same.
    pub fn differences(&self, other: &Node) -> Vec<&'static str> {
        let respects = [
            ("kind or content", self.kind == other.kind),
            ("mode", self.mode == other.mode),
            ("owner", self.owner == other.owner),
            ("mtime", self.mtime == other.mtime),
            ("xattrs", self.xattrs == other.xattrs),
            ("links", self.first == other.first),
        ];
        let differ = respects.into_iter().filter(|(_, same)| !same);
        differ.map(|(name, _)| name).collect()
    }
}

/// Reads a directory.
pub fn scan(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut seen = HashMap::new();
    visit(root, Path::new(""), &mut tree, &mut seen)?;
    Ok(tree)
}

fn visit(
    root: &Path,
    path: &Path,
    tree: &mut Tree,
    seen: &mut HashMap<(u64, u64), PathBuf>,
) -> Result<()> {
    let at = root.join(path);
    let meta = fs::symlink_metadata(&at).with_context(|| at.display().to_string())?;
    let mut data = Vec::new();
    let kind = match meta.file_type() {
        t if t.is_dir() => Kind::Dir,
        t if t.is_symlink() => Kind::Symlink(fs::read_link(&at)?),
        t if t.is_fifo() => Kind::Fifo,
        t if t.is_file() => {
            data = extents(&at)?;
            Kind::File(meta.len(), hash_of(&at)?)
        }
        _ => bail!("{} is of an unexpected kind", at.display()),
    };
    let mut first = None;
    if meta.nlink() > 1 && !meta.is_dir() {
        let inode = (meta.dev(), meta.ino());
        first = seen.get(&inode).cloned();
        seen.entry(inode).or_insert_with(|| path.to_path_buf());
    }
    let mut xattrs = BTreeMap::new();
    for name in xattr::list(&at)? {
        let value = xattr::get(&at, &name)?.unwrap_or_default();
        xattrs.insert(name, value);
    }
    let is_dir = kind == Kind::Dir;
    let node = Node {
        kind,
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        xattrs,
        first,
        data,
    };
    tree.insert(path.to_path_buf(), node);
    if is_dir {
        for name in names(&at)? {
            visit(root, &path.join(name), tree, seen)?;
        }
    }
    Ok(())
}

/// The names in a directory, sorted by their bytes.
pub fn names(dir: &Path) -> Result<Vec<OsString>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut names = entries
        .map(|e| Ok(e?.file_name()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn hash_of(file: &Path) -> Result<[u8; 32]> {
    let mut content = Vec::new();
    File::open(file)?.read_to_end(&mut content)?;
    Ok(Sha256::digest(&content).into())
}

fn extents(file: &Path) -> Result<Vec<(i64, i64)>> {
    let file = File::open(file)?;
    let mut found = Vec::new();
    let mut end = 0;
    loop {
        // SAFETY: the descriptor is open; nothing is passed but numbers.
        let start = unsafe { libc::lseek(file.as_raw_fd(), end, libc::SEEK_DATA) };
        if start < 0 {
            return Ok(found);
        }
        // SAFETY: as above.
        end = unsafe { libc::lseek(file.as_raw_fd(), start, libc::SEEK_HOLE) };
        found.push((start, end));
    }
}

/// Fails with the first few differences.
pub fn same(expected: &Tree, found: &Tree, what: &str) -> Result<()> {
    let mut wrong = Vec::new();
    for (path, node) in expected {
        match found.get(path) {
            None => wrong.push(format!("{path:?} is missing")),
            Some(other) => {
                let differ = node.differences(other);
                if !differ.is_empty() {
                    wrong.push(format!(
                        "{path:?} differs in {differ:?}: {node:?}, {other:?}"
                    ));
                }
            }
        }
    }
    for path in found.keys().filter(|p| !expected.contains_key(*p)) {
        wrong.push(format!("{path:?} should not be there"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.truncate(5);
    bail!("{what}: {}", wrong.join("; "))
}

/// What extracting these paths gives: they, what is below them, and the directories above them.
pub fn part(tree: &Tree, selected: &[PathBuf]) -> Tree {
    let below = |p: &Path| selected.iter().any(|s| p.starts_with(s));
    let above = |p: &Path| selected.iter().any(|s| s.starts_with(p));
    let mut first: HashMap<PathBuf, PathBuf> = HashMap::new();
    let mut part = Tree::new();
    for (path, node) in tree {
        let wanted = below(path) || (node.kind == Kind::Dir && above(path));
        if !wanted {
            continue;
        }
        let mut node = node.clone();
        // The first name among those that are selected takes the place of the first one of all.
        let inode = node.first.clone().unwrap_or_else(|| path.clone());
        node.first = first.get(&inode).cloned();
        first.entry(inode).or_insert_with(|| path.clone());
        part.insert(path.clone(), node);
    }
    part
}
