//! The entries of one snapshot by number, directory and name.

use std::collections::HashMap;
use std::path::Path;

use crate::catalogue::{Catalogue, Line};
use crate::document::Tree;
use crate::list::{Entry, EntryKind};
use crate::read::Readers;
use crate::store::Store;
use crate::{Id, Result, bytes};

/// The root of what is browsed.
pub(super) const ROOT: u32 = 0;

/// An entry, smaller than [`Entry`]: a host has hundreds of thousands.
pub(super) struct Node {
    pub name: Box<[u8]>,
    pub parent: u32,
    pub kind: EntryKind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub rdev: (u32, u32),
    /// Where a symbolic link leads.
    pub target: Option<Box<[u8]>>,
    pub content: Option<Box<Id>>,
    /// Number of the segment in [`Index::segments`]; `None`: a directory that only leads to a mount point.
    pub segment: Option<u32>,
    /// Of a hard link: the node of the first name.
    pub same: Option<u32>,
    /// Names of the inode; of a directory: 2 and its directories.
    pub links: u32,
    /// Root of a tree.
    pub root: bool,
}

pub(super) struct Index {
    pub nodes: Vec<Node>,
    /// In order of the names.
    children: HashMap<u32, Vec<u32>>,
    pub segments: Vec<Id>,
    /// What is not shown, and why.
    pub lost: Vec<String>,
}

impl Index {
    /// Puts the trees together at their mount points. The numbers depend on the snapshot only, so that an index that was
    /// dropped and built again gives the same ones.
    pub(super) fn new(stores: &[&Store], trees: &[Tree]) -> Index {
        let mut index = Index::empty();
        let mut order: Vec<&Tree> = trees.iter().collect();
        // A tree before those that are mounted in it.
        order.sort_by_key(|t| Path::new(&t.mount_point).components().count());
        for tree in order {
            let lines = Catalogue::new(Readers::new(stores), tree);
            index.tree(&tree.mount_point, lines);
        }
        index.count_links();
        index
    }

    fn empty() -> Index {
        let mut index = Index {
            nodes: Vec::new(),
            children: HashMap::new(),
            segments: Vec::new(),
            lost: Vec::new(),
        };
        index.synthetic(ROOT, b"");
        index
    }

    /// Of directories.
    fn count_links(&mut self) {
        for node in 0..self.nodes.len() {
            let (parent, kind) = (self.nodes[node].parent, self.nodes[node].kind);
            if kind == EntryKind::Dir && node as u32 != ROOT {
                self.nodes[parent as usize].links += 1;
            }
        }
    }

    fn tree(&mut self, mount_point: &str, lines: impl Iterator<Item = Result<Line>>) {
        let path = crate::list::inside(Path::new(mount_point));
        let root = match bytes::is_inside(&path) {
            true => self.make_way(ROOT, &path),
            false => None,
        };
        let Some(root) = root else {
            self.lost.push(format!(
                "the files of {mount_point:?} are not shown: that is no place for a tree"
            ));
            return;
        };
        // What a tree is mounted on is hidden by it.
        self.children.remove(&root);
        let mut first_names: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut links: Vec<(u32, Vec<u8>)> = Vec::new();
        // The directory of the last entry: the next one is most often in it.
        let mut last = (Vec::new(), Some(root));
        for line in lines {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    self.lost.push(format!(
                        "a part of the catalogue of {mount_point} cannot be read, the files that it lists are not shown: {error}"
                    ));
                    continue;
                }
            };
            let segment = self.segments.len() as u32;
            self.segments.push(line.segment);
            for entry in line.entries {
                if !entry.is_kept() {
                    continue;
                }
                let path = bytes::of(&entry.path).to_vec();
                if path == b"." && entry.kind == EntryKind::Dir {
                    let old = &self.nodes[root as usize];
                    let (name, parent) = (old.name.clone(), old.parent);
                    self.nodes[root as usize] = node(entry, name, parent, segment);
                    self.nodes[root as usize].root = true;
                    continue;
                }
                let (kind, target) = (entry.kind, entry.target.clone());
                let Some(number) = self.add(root, &mut last, &path, entry, segment) else {
                    self.lost.push(format!(
                        "{}: it cannot be shown, as the catalogue has something else in its place",
                        bytes::on_host(mount_point, &path)
                    ));
                    continue;
                };
                match (kind, target) {
                    (EntryKind::Hardlink, Some(target)) => {
                        links.push((number, bytes::of(&target).to_vec()));
                    }
                    _ if kind != EntryKind::Dir => {
                        first_names.insert(path, number);
                    }
                    _ => {}
                }
            }
        }
        self.nodes[root as usize].root = true;
        for (link, target) in links {
            match first_names.get(&target) {
                Some(first) => {
                    self.nodes[link as usize].same = Some(*first);
                    self.nodes[*first as usize].links += 1;
                }
                None => self.lost.push(format!(
                    "{}: another name of {}, which is not there",
                    String::from_utf8_lossy(&self.nodes[link as usize].name),
                    String::from_utf8_lossy(&target)
                )),
            }
        }
    }

    /// Puts an entry of the tree at `root` in its place: none where that is taken, or in something that is no directory.
    /// `last` is the directory of the entry before.
    fn add(
        &mut self,
        root: u32,
        last: &mut (Vec<u8>, Option<u32>),
        path: &[u8],
        entry: Entry,
        segment: u32,
    ) -> Option<u32> {
        if path == b"." {
            return None;
        }
        let (dir, name) = bytes::split(path);
        if last.0 != dir {
            *last = (dir.to_vec(), self.make_way(root, dir));
        }
        let parent = last.1?;
        let new = node(entry, name.into(), parent, segment);
        let Some(old) = self.find(parent, name) else {
            return Some(self.push(parent, new));
        };
        // Made on the way to what is in it.
        let known = &mut self.nodes[old as usize];
        let made = known.segment.is_none() && !known.root && new.kind == EntryKind::Dir;
        made.then(|| {
            *known = new;
            old
        })
    }

    /// The directory at a path below `from`, with directories made where the catalogue has none; nothing where it has
    /// something else on the way.
    fn make_way(&mut self, from: u32, path: &[u8]) -> Option<u32> {
        let mut at = from;
        if path == b"." {
            return Some(at);
        }
        for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            at = match self.find(at, name) {
                Some(next) if self.nodes[next as usize].kind != EntryKind::Dir => return None,
                Some(next) => next,
                None => self.synthetic(at, name),
            };
        }
        Some(at)
    }

    fn synthetic(&mut self, parent: u32, name: &[u8]) -> u32 {
        let node = Node {
            name: name.into(),
            parent,
            kind: EntryKind::Dir,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            ctime: (0, 0),
            rdev: (0, 0),
            target: None,
            content: None,
            segment: None,
            same: None,
            links: 2,
            root: false,
        };
        if self.nodes.is_empty() {
            self.nodes.push(node);
            return ROOT;
        }
        self.push(parent, node)
    }

    fn push(&mut self, parent: u32, node: Node) -> u32 {
        let number = self.nodes.len() as u32;
        let siblings = self.children.entry(parent).or_default();
        let name = &node.name;
        // In a catalogue in order, the new one is the last.
        let at = siblings.partition_point(|s| self.nodes[*s as usize].name < *name);
        siblings.insert(at, number);
        self.nodes.push(node);
        number
    }

    /// The entry of this name in a directory.
    pub(super) fn find(&self, dir: u32, name: &[u8]) -> Option<u32> {
        let siblings = self.children.get(&dir)?;
        let at = siblings
            .binary_search_by(|s| (*self.nodes[*s as usize].name).cmp(name))
            .ok()?;
        Some(siblings[at])
    }

    /// The entries of a directory, by name.
    pub(super) fn children(&self, dir: u32) -> &[u32] {
        self.children.get(&dir).map_or(&[], Vec::as_slice)
    }

    /// The inode of an entry: itself, or the first name of a hard link.
    pub(super) fn inode(&self, node: u32) -> u32 {
        self.nodes[node as usize].same.unwrap_or(node)
    }

    /// The path inside its tree, as the members of segments have it.
    pub(super) fn path(&self, mut node: u32) -> Vec<u8> {
        let mut names: Vec<&[u8]> = Vec::new();
        while node != ROOT && !self.nodes[node as usize].root {
            names.push(&self.nodes[node as usize].name);
            node = self.nodes[node as usize].parent;
        }
        names.reverse();
        match names.is_empty() {
            true => b".".to_vec(),
            false => names.join(&b'/'),
        }
    }

    /// The path on the host.
    pub(super) fn on_host(&self, mut node: u32) -> String {
        let mut names = Vec::new();
        while node != ROOT {
            names.push(String::from_utf8_lossy(&self.nodes[node as usize].name));
            node = self.nodes[node as usize].parent;
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }

    /// Roughly what it takes, in bytes.
    pub(super) fn cost(&self) -> usize {
        self.nodes.len() * (size_of::<Node>() + 64)
    }
}

fn node(entry: Entry, name: Box<[u8]>, parent: u32, segment: u32) -> Node {
    let is_dir = entry.kind == EntryKind::Dir;
    let target = entry.target.filter(|_| entry.kind == EntryKind::Symlink);
    Node {
        name,
        parent,
        kind: entry.kind,
        mode: (entry.mode & 0o7777) as u16,
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        mtime: entry.mtime,
        ctime: entry.ctime,
        rdev: entry.rdev.unwrap_or_default(),
        target: target.map(|t| bytes::of(&t).into()),
        content: entry.content.map(Box::new),
        segment: Some(segment),
        same: None,
        links: if is_dir { 2 } else { 1 },
        root: false,
    }
}

/// Puts trees together of which the catalogues were read or not, and looks whether what the kernel may ask is answered.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_index(trees: Vec<(String, Result<Vec<Line>>)>) {
    let mut index = Index::empty();
    for (mount_point, lines) in trees {
        match lines {
            Ok(lines) => index.tree(&mount_point, lines.into_iter().map(Ok)),
            Err(error) => index.tree(&mount_point, std::iter::once(Err(error))),
        }
    }
    index.count_links();
    let mut todo = vec![ROOT];
    let mut seen = vec![false; index.nodes.len()];
    while let Some(dir) = todo.pop() {
        // Every directory is in one place only: who walks through them comes to an end.
        assert!(!std::mem::replace(&mut seen[dir as usize], true));
        assert_eq!(index.nodes[dir as usize].kind, EntryKind::Dir);
        let children = index.children(dir);
        let name = |n: &u32| index.nodes[*n as usize].name.clone();
        assert!(children.windows(2).all(|w| name(&w[0]) < name(&w[1])));
        for child in children {
            let node = &index.nodes[*child as usize];
            assert!(node.parent == dir && index.find(dir, &node.name) == Some(*child));
            assert!(!node.name.is_empty() && !node.name.contains(&b'/'));
            assert!(bytes::is_inside(&index.path(*child)));
            let same = &index.nodes[index.inode(*child) as usize];
            assert!(node.same.is_none() || same.kind != EntryKind::Hardlink);
            assert!(same.links > 0 && index.on_host(*child).starts_with('/'));
            if node.kind == EntryKind::Dir {
                todo.push(*child);
            } else {
                assert!(index.children(*child).is_empty());
            }
        }
    }
}
