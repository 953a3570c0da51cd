//! Snapshots as a read-only file system: what `lifeboat mount` shows the kernel.
//!
//! Nothing is unpacked: directories come from an index of the catalogue that is built once, contents and extended
//! attributes from the blobs that hold them, when they are asked for. All caches have a bound.

mod index;

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::Cache;
use crate::content::{self, Piece};
use crate::document::{Snapshot, Tree};
use crate::list::EntryKind;
use crate::member::{self, Extra};
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Id, Result};

#[cfg(any(test, fuzzing))]
pub(crate) use index::check_index;
use index::{Index, Node, ROOT};

/// Bounds of the caches, in bytes.
const SEGMENTS: usize = 64 << 20;
const CHUNKS: usize = 64 << 20;
const LISTS: usize = 16 << 20;
/// With all restore points shown, a few of them are at hand at a time.
const INDEXES: usize = 256 << 20;

/// The number of the root directory.
pub const ROOT_INODE: u64 = 1;

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// Its number: the same for all names of a file.
    pub ino: u64,
    /// What it is; never [`EntryKind::Hardlink`].
    pub kind: EntryKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last modification: seconds since 1970, nanoseconds.
    pub mtime: (i64, u32),
    /// Time of last change of the inode.
    pub ctime: (i64, u32),
    /// Device number: major, minor.
    pub rdev: (u32, u32),
    /// Number of names.
    pub links: u32,
}

/// A snapshot that is shown.
struct Point {
    name: String,
    trees: Vec<Tree>,
}

struct Segment {
    bytes: Vec<u8>,
    /// By path: where the content is, its length, and the attributes.
    members: HashMap<Vec<u8>, (usize, usize, Extra)>,
}

/// Answers what a file system is asked.
pub struct Browser {
    stores: Vec<Arc<Store>>,
    points: Vec<Point>,
    /// The root is a directory of restore points.
    all: bool,
    indexes: Cache<usize, Index>,
    segments: Cache<Id, Segment>,
    chunks: Cache<Id, Vec<u8>>,
    lists: Cache<Id, Vec<(u64, Piece)>>,
}

impl Browser {
    fn new(stores: Vec<Arc<Store>>, points: Vec<Point>, all: bool) -> Browser {
        Browser {
            stores,
            points,
            all,
            indexes: Cache::new(INDEXES),
            segments: Cache::new(SEGMENTS),
            chunks: Cache::new(CHUNKS),
            lists: Cache::new(LISTS),
        }
    }

    /// Shows one snapshot.
    pub fn one(stores: Vec<Arc<Store>>, snapshot: &Snapshot) -> Browser {
        Browser::new(stores, vec![Point::new("", snapshot)], false)
    }

    /// Shows a directory per snapshot, named by its time and the beginning of its id.
    pub fn all(stores: Vec<Arc<Store>>, snapshots: &[(Id, Snapshot)]) -> Browser {
        let mut points: Vec<Point> = snapshots
            .iter()
            .map(|(id, s)| {
                // With milliseconds: the names sort by time.
                let time = s.time.replace([':', '/'], "");
                Point::new(&format!("{time}-{}", id.short()), s)
            })
            .collect();
        points.sort_by(|a, b| a.name.cmp(&b.name));
        points.dedup_by(|a, b| a.name == b.name);
        Browser::new(stores, points, true)
    }

    /// The names of the directories in the root, where all snapshots are shown.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.points.iter().map(|p| p.name.as_str())
    }

    /// Builds the index of a single snapshot beforehand; what it does not show, with the reason.
    pub fn prepare(&self) -> Vec<String> {
        match self.all {
            true => Vec::new(),
            false => self.index(0).lost.clone(),
        }
    }

    fn index(&self, point: usize) -> Arc<Index> {
        let made = self.indexes.get(&point, || {
            let stores = self.stores();
            let index = Index::new(&stores, &self.points[point].trees);
            if self.all {
                for lost in &index.lost {
                    tracing::error!("{}: {lost}", self.points[point].name);
                }
            }
            let cost = index.cost();
            Ok::<_, std::convert::Infallible>((index, cost))
        });
        match made {
            Ok(index) => index,
            Err(never) => match never {},
        }
    }

    fn stores(&self) -> Vec<&Store> {
        self.stores.iter().map(Arc::as_ref).collect()
    }

    /// Snapshot and node of an inode; `None` for the directory of all snapshots.
    fn locate(&self, ino: u64) -> Result<Option<(usize, u32)>> {
        let at = ino.checked_sub(1).ok_or_else(|| unknown(ino))?;
        let (slot, node) = ((at >> 32) as usize, at as u32);
        let point = match self.all {
            true if at == 0 => return Ok(None),
            true => slot.checked_sub(1).ok_or_else(|| unknown(ino))?,
            false => slot,
        };
        match point < self.points.len() {
            true => Ok(Some((point, node))),
            false => Err(unknown(ino)),
        }
    }

    fn number(&self, point: usize, node: u32) -> u64 {
        let slot = point as u64 + u64::from(self.all);
        (slot << 32) + u64::from(node) + 1
    }

    fn attr_of(&self, point: usize, index: &Index, node: u32) -> Attr {
        let inode = index.inode(node);
        let n = &index.nodes[inode as usize];
        Attr {
            ino: self.number(point, inode),
            // A hard link without its first name has nothing but its own name.
            kind: match n.kind {
                EntryKind::Hardlink => EntryKind::File,
                kind => kind,
            },
            size: match (&n.target, n.kind) {
                (Some(target), _) => target.len() as u64,
                _ => n.size,
            },
            mode: n.mode,
            uid: n.uid,
            gid: n.gid,
            mtime: n.mtime,
            ctime: n.ctime,
            rdev: n.rdev,
            links: n.links,
        }
    }

    fn top(&self) -> Attr {
        Attr {
            ino: ROOT_INODE,
            kind: EntryKind::Dir,
            size: 0,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            ctime: (0, 0),
            rdev: (0, 0),
            links: 2 + self.points.len() as u32,
        }
    }

    /// What an inode is.
    pub fn attr(&self, ino: u64) -> Result<Attr> {
        let Some((point, node)) = self.locate(ino)? else {
            return Ok(self.top());
        };
        let index = self.index(point);
        match (node as usize) < index.nodes.len() {
            true => Ok(self.attr_of(point, &index, node)),
            false => Err(unknown(ino)),
        }
    }

    /// The entry of this name in a directory.
    pub fn lookup(&self, dir: u64, name: &[u8]) -> Result<Option<Attr>> {
        let Some((point, node)) = self.locate(dir)? else {
            let found = self.points.iter().position(|p| p.name.as_bytes() == name);
            return found.map(|p| self.attr(self.number(p, ROOT))).transpose();
        };
        let index = self.index(point);
        let found = index.find(node, name);
        Ok(found.map(|n| self.attr_of(point, &index, n)))
    }

    /// The directory above.
    pub fn parent(&self, dir: u64) -> Result<u64> {
        let Some((point, node)) = self.locate(dir)? else {
            return Ok(ROOT_INODE);
        };
        if node == ROOT {
            return Ok(ROOT_INODE);
        }
        let index = self.index(point);
        let n = index.nodes.get(node as usize).ok_or_else(|| unknown(dir))?;
        Ok(self.number(point, n.parent))
    }

    /// Tells `each` the entries of a directory, from the `skip`-th on, in order of their names, until it returns false.
    pub fn read_dir(
        &self,
        dir: u64,
        skip: usize,
        each: &mut dyn FnMut(&[u8], u64, EntryKind) -> bool,
    ) -> Result<()> {
        let Some((point, node)) = self.locate(dir)? else {
            for (i, point) in self.points.iter().enumerate().skip(skip) {
                if !each(point.name.as_bytes(), self.number(i, ROOT), EntryKind::Dir) {
                    break;
                }
            }
            return Ok(());
        };
        let index = self.index(point);
        for child in index.children(node).iter().skip(skip) {
            let attr = self.attr_of(point, &index, *child);
            if !each(&index.nodes[*child as usize].name, attr.ino, attr.kind) {
                break;
            }
        }
        Ok(())
    }

    /// Where a symbolic link leads.
    pub fn read_link(&self, ino: u64) -> Result<Vec<u8>> {
        self.with(ino, |index, node| {
            let target = index.nodes[node as usize].target.clone();
            target.map(Vec::from).ok_or_else(|| unknown(ino))
        })
    }

    /// Extended attributes, ACLs and capabilities among them: name and value.
    pub fn xattrs(&self, ino: u64) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        if self.locate(ino)?.is_none() {
            return Ok(Vec::new());
        }
        self.with(ino, |index, node| {
            let n = &index.nodes[node as usize];
            let Some(segment) = self.segment(index, n)? else {
                return Ok(Vec::new());
            };
            let member = segment.members.get(&index.path(node));
            Ok(member.map(|m| m.2.xattrs.clone()).unwrap_or_default())
        })
    }

    /// Up to `size` bytes of a file from `offset` on; fewer only at its end. Holes are zeroes. An error names the file.
    pub fn read(&self, ino: u64, offset: u64, size: usize) -> Result<Vec<u8>> {
        self.with(ino, |index, node| {
            let n = &index.nodes[node as usize];
            let end = n.size.min(offset.saturating_add(size as u64));
            if offset >= end {
                return Ok(Vec::new());
            }
            match &n.content {
                Some(content) => self.read_large(content, n.size, offset, end),
                None => {
                    let missing = || {
                        Error::malformed(
                            "the segment",
                            "a file that the catalogue lists is not in it",
                        )
                    };
                    let segment = self.segment(index, n)?.ok_or_else(missing)?;
                    let (start, length, _) =
                        segment.members.get(&index.path(node)).ok_or_else(missing)?;
                    let data = &segment.bytes[*start..start + length];
                    data.get(offset as usize..end as usize)
                        .map(<[u8]>::to_vec)
                        .ok_or_else(missing)
                }
            }
        })
    }

    /// Where data, or a hole, begins at or after `offset`; `None` beyond the end. The end of a file is a hole.
    pub fn seek(&self, ino: u64, offset: u64, hole: bool) -> Result<Option<u64>> {
        self.with(ino, |index, node| {
            let n = &index.nodes[node as usize];
            if offset >= n.size {
                return Ok(None);
            }
            let Some(list) = &n.content else {
                return Ok(Some(if hole { n.size } else { offset }));
            };
            let pieces = self.pieces(list, n.size)?;
            let from = pieces.partition_point(|(at, piece)| at + piece.size() <= offset);
            let found = pieces[from..]
                .iter()
                .find(|(_, piece)| matches!(piece, Piece::Hole(_)) == hole);
            Ok(match found {
                Some((at, _)) => Some(offset.max(*at)),
                None => hole.then_some(n.size),
            })
        })
    }

    fn read_large(&self, list: &Id, size: u64, offset: u64, end: u64) -> Result<Vec<u8>> {
        let pieces = self.pieces(list, size)?;
        let mut out = vec![0; (end - offset) as usize];
        let from = pieces.partition_point(|(at, piece)| at + piece.size() <= offset);
        for (at, piece) in &pieces[from..] {
            if *at >= end {
                break;
            }
            let Piece::Blob { id, size } = piece else {
                continue;
            };
            let chunk = self.chunks.get(id, || {
                let chunk = Readers::new(&self.stores()).blob(id)?;
                let cost = chunk.len();
                Ok::<_, Error>((chunk, cost))
            })?;
            if chunk.len() as u64 != *size {
                return Err(Error::malformed(
                    format!("blob {}", id.short()),
                    "it is not as long as its content list says",
                ));
            }
            let (start, stop) = (offset.max(*at), end.min(at + size));
            out[(start - offset) as usize..(stop - offset) as usize]
                .copy_from_slice(&chunk[(start - at) as usize..(stop - at) as usize]);
        }
        Ok(out)
    }

    fn pieces(&self, list: &Id, size: u64) -> Result<Arc<Vec<(u64, Piece)>>> {
        self.lists.get(list, || {
            let mut pieces = Vec::new();
            let stores = self.stores();
            let mut readers = Readers::new(&stores);
            content::read(&mut readers, list, size, &mut |_| (), &mut |at, piece| {
                pieces.push((at, piece));
                Ok(())
            })?;
            let cost = pieces.len() * size_of::<(u64, Piece)>();
            Ok((pieces, cost))
        })
    }

    /// The segment that holds this entry.
    fn segment(&self, index: &Index, node: &Node) -> Result<Option<Arc<Segment>>> {
        let Some(id) = node.segment.map(|s| index.segments[s as usize]) else {
            return Ok(None);
        };
        let segment = self.segments.get(&id, || {
            let bytes = Readers::new(&self.stores()).blob(&id)?;
            let mut members = HashMap::new();
            let start = bytes.as_ptr() as usize;
            member::read(&bytes, &mut |m| {
                let at = m.data.as_ptr() as usize - start;
                let path = crate::bytes::of(&m.entry.path).to_vec();
                members.insert(path, (at, m.data.len(), m.extra));
            })
            .map_err(|reason| Error::malformed(format!("segment {}", id.short()), reason))?;
            let cost = bytes.len() + members.len() * 128;
            Ok::<_, Error>((Segment { bytes, members }, cost))
        })?;
        Ok(Some(segment))
    }

    /// Runs `work` for an inode of a snapshot; an error is given the path, which the caller does not know.
    fn with<T>(&self, ino: u64, work: impl FnOnce(&Index, u32) -> Result<T>) -> Result<T> {
        let (point, node) = self.locate(ino)?.ok_or_else(|| unknown(ino))?;
        let index = self.index(point);
        if node as usize >= index.nodes.len() {
            return Err(unknown(ino));
        }
        work(&index, node).map_err(|source| Error::File {
            path: match self.all {
                true => format!("{}{}", self.points[point].name, index.on_host(node)),
                false => index.on_host(node),
            },
            source: Box::new(source),
        })
    }
}

impl Point {
    fn new(name: &str, snapshot: &Snapshot) -> Point {
        Point {
            name: name.to_string(),
            trees: snapshot.trees.clone(),
        }
    }
}

fn unknown(ino: u64) -> Error {
    Error::malformed(format!("inode {ino}"), "there is no such file here")
}
