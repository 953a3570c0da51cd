//! The directories that are open while an archive is read, and what is known of those that it has left.
//!
//! An archive has a directory's entries in any order, but all of them one after the other. When it leaves a directory,
//! they are sorted and become one [`Run`]. Where several directories were named to `tar`, as the mount points of a
//! container are, it comes back to one: that one, and those above it, are taken apart again and stay so until the end.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::blocks::bad;
use super::run::{Item, Place, Run, Writer};
use super::seen::{Seen, What};
use crate::list::EntryKind;
use crate::member::Extra;
use crate::{Error, Result, bytes};

/// Directories lie in directories so deep at most; a path that the kernel takes at once has no more.
const MAX_DEPTH: usize = 2048;

/// What a directory holds.
enum Node {
    /// Anything but a directory.
    Leaf(Box<Item>),
    /// A directory that the archive came back to.
    Open(Box<Dir>),
    /// A directory with all below it.
    Done(Box<Run>),
}

type Children = std::collections::btree_map::IntoIter<Vec<u8>, Node>;

struct Dir {
    item: Item,
    children: BTreeMap<Vec<u8>, Node>,
    /// The archive came back to it.
    again: bool,
}

impl Dir {
    fn new(item: Item, again: bool) -> Dir {
        Dir {
            item,
            children: BTreeMap::new(),
            again,
        }
    }

    /// Bytes held in it, without directories that are open in turn.
    fn held(&self) -> usize {
        let held = |node: &Node| match node {
            Node::Leaf(item) => item.held(),
            Node::Open(_) => 0,
            Node::Done(run) => run.waiting().map(Item::held).sum(),
        };
        self.children.values().map(held).sum()
    }
}

/// The way to where the archive is.
pub(super) struct Dirs {
    /// The root first; each is taken out of the one before it.
    stack: Vec<(Vec<u8>, Dir)>,
    seen: Seen,
    /// Files that are linked to from other directories: they stay where they are.
    elsewhere: HashSet<Vec<u8>>,
    /// Files that became links, and the names that became files.
    moved: HashMap<Vec<u8>, Vec<u8>>,
    /// More than this is not held.
    limit: usize,
}

impl Dirs {
    pub(super) fn new(limit: usize) -> Dirs {
        Dirs {
            stack: Vec::new(),
            seen: Seen::default(),
            elsewhere: HashSet::new(),
            moved: HashMap::new(),
            limit,
        }
    }

    /// Has the root been met?
    pub(super) fn has_root(&self) -> bool {
        !self.stack.is_empty()
    }

    /// Could this be added? Said before its content is read. The size of a link becomes that of its file.
    pub(super) fn check(&mut self, item: &mut Item) -> Result<()> {
        let path = item.path();
        let dir = item.entry.kind == EntryKind::Dir;
        if path == b"." {
            return match dir {
                true => Ok(()),
                false => Err(bad("the root of the tree is no directory")),
            };
        }
        if path.split(|b| *b == b'/').count() > MAX_DEPTH {
            return Err(bad(format!(
                "it lies more than {MAX_DEPTH} directories deep"
            )));
        }
        let (parent, _) = bytes::split(path);
        match self.seen.get(parent) {
            _ if self.stack.is_empty() => {
                return Err(bad("the archive does not begin with the root, ./"));
            }
            _ if parent.is_empty() => {}
            Some(What::Dir) => {}
            Some(_) => return Err(bad("it lies in something that is no directory")),
            None => return Err(bad("the directory that it lies in is not in the archive")),
        }
        match self.seen.get(path) {
            None => {}
            // The root of a mounted file system: once where it is mounted, and once as what was to be saved.
            Some(What::Dir) if dir => {}
            Some(_) => return Err(bad("there are two of this name")),
        }
        if item.entry.kind == EntryKind::Hardlink {
            let target = item.entry.target.take().unwrap_or_default();
            let mut target = bytes::of(&target);
            while let Some(moved) = self.moved.get(target) {
                target = moved;
            }
            let size = match self.seen.get(target) {
                Some(What::File(size)) => size,
                Some(What::Other) => 0,
                Some(What::Dir) => return Err(bad("it is a link to a directory")),
                Some(What::Link) => return Err(bad("it is a link to another link")),
                None => {
                    return Err(bad(
                        "it is a link to something that does not come before it",
                    ));
                }
            };
            item.entry.size = size;
            item.entry.target = Some(bytes::path(target));
        }
        Ok(())
    }

    /// Adds what was checked; false where it only takes the place of what was there.
    pub(super) fn add(&mut self, item: Item, writer: &mut Writer<'_>) -> Result<bool> {
        let path = item.path().to_vec();
        let new = self.seen.get(&path).is_none();
        writer.held += item.held();
        if item.entry.kind == EntryKind::Dir {
            self.dir(&path, item, writer)?;
        } else {
            let what = match item.entry.kind {
                EntryKind::File => What::File(item.entry.size),
                EntryKind::Hardlink => What::Link,
                _ => What::Other,
            };
            let (parent, name) = bytes::split(&path);
            if let (What::Link, Some(target)) = (what, &item.entry.target) {
                let target = bytes::of(target);
                if bytes::split(target).0 != parent {
                    self.elsewhere.insert(target.to_vec());
                }
            }
            self.enter(parent, writer)?;
            self.top()?
                .children
                .insert(name.to_vec(), Node::Leaf(Box::new(item)));
            self.seen.insert(&path, what);
        }
        while writer.held > self.limit {
            self.flush(writer)?;
        }
        Ok(new)
    }

    fn dir(&mut self, path: &[u8], item: Item, writer: &mut Writer<'_>) -> Result<()> {
        let root = path == b".";
        if self.seen.get(path).is_some() {
            self.enter(if root { b"" } else { path }, writer)?;
            let known = std::mem::replace(&mut self.top()?.item, item);
            writer.release(&known);
            return Ok(());
        }
        let (parent, name) = bytes::split(path);
        let name = if root { &b""[..] } else { name };
        if !root {
            self.enter(parent, writer)?;
        }
        self.stack.push((name.to_vec(), Dir::new(item, false)));
        self.seen.insert(path, What::Dir);
        Ok(())
    }

    fn top(&mut self) -> Result<&mut Dir> {
        let top = self.stack.last_mut().map(|(_, dir)| dir);
        top.ok_or(Error::Internal("no directory is open"))
    }

    /// Goes to a directory that was met before; the root is empty.
    fn enter(&mut self, path: &[u8], writer: &mut Writer<'_>) -> Result<()> {
        let names: Vec<&[u8]> = path
            .split(|b| *b == b'/')
            .filter(|name| !name.is_empty())
            .collect();
        let open = self.stack.iter().skip(1);
        let same = open
            .zip(&names)
            .take_while(|((open, _), name)| open == *name)
            .count();
        while self.stack.len() > same + 1 {
            self.leave(writer)?;
        }
        for name in &names[same..] {
            let dir = match self.top()?.children.remove(*name) {
                Some(Node::Open(dir)) => *dir,
                Some(Node::Done(run)) => unfold(*run)?,
                _ => return Err(Error::Internal("a directory was lost")),
            };
            for (_, above) in &mut self.stack {
                above.again = true;
            }
            self.stack.push((name.to_vec(), dir));
        }
        Ok(())
    }

    /// Leaves the directory at hand.
    fn leave(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        let Some((name, dir)) = self.stack.pop() else {
            return Err(Error::Internal("no directory is open"));
        };
        let node = match dir.again {
            true => Node::Open(Box::new(dir)),
            false => Node::Done(Box::new(self.fold(dir, writer)?)),
        };
        self.top()?.children.insert(name, node);
        Ok(())
    }

    /// Ends the tree.
    pub(super) fn finish(mut self, writer: &mut Writer<'_>) -> Result<Run> {
        while self.stack.len() > 1 {
            self.leave(writer)?;
        }
        match self.stack.pop() {
            Some((_, root)) => self.fold(root, writer),
            None => Err(bad("it holds no files")),
        }
    }

    /// Makes one run of a directory with all below it.
    fn fold(&mut self, dir: Dir, writer: &mut Writer<'_>) -> Result<Run> {
        // Of its own: directories may lie deeper in each other than calls may.
        let mut stack = vec![self.begin_fold(dir, writer)?];
        loop {
            let Some((run, children)) = stack.last_mut() else {
                return Err(Error::Internal("a directory was lost"));
            };
            match children.next() {
                Some((_, Node::Leaf(item))) => run.push(*item, writer)?,
                Some((_, Node::Done(part))) => run.append(*part, writer)?,
                Some((_, Node::Open(dir))) => stack.push(self.begin_fold(*dir, writer)?),
                None => {
                    let Some((run, _)) = stack.pop() else {
                        continue;
                    };
                    match stack.last_mut() {
                        Some((above, _)) => above.append(run, writer)?,
                        None => return Ok(run),
                    }
                }
            }
        }
    }

    fn begin_fold(&mut self, mut dir: Dir, writer: &mut Writer<'_>) -> Result<(Run, Children)> {
        self.first_names(&mut dir);
        let children = std::mem::take(&mut dir.children);
        let mut run = Run::default();
        run.push(dir.item, writer)?;
        Ok((run, children.into_iter()))
    }

    /// The content of a file with several names in a directory is kept under the first of them, as it is of files on
    /// disk; in the archive, it has the one that was listed first.
    fn first_names(&mut self, dir: &mut Dir) {
        let base = match dir.item.path() {
            b"." => Vec::new(),
            path => path.to_vec(),
        };
        let mut groups: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        let mut fixed: HashSet<Vec<u8>> = HashSet::new();
        for (name, node) in &dir.children {
            let Node::Leaf(item) = node else { continue };
            let Some(target) = item.entry.target.as_deref().map(bytes::of) else {
                continue;
            };
            let (parent, target_name) = bytes::split(target);
            if item.entry.kind != EntryKind::Hardlink || parent != base {
                continue;
            }
            if matches!(item.place, Place::Written { .. }) {
                fixed.insert(target_name.to_vec());
            }
            let names = groups.entry(target_name.to_vec()).or_default();
            names.push(name.clone());
        }
        for (kept, links) in groups {
            // In order, as the children are.
            let Some(first) = links.first().filter(|first| **first < kept) else {
                continue;
            };
            if !fixed.contains(&kept) && !self.elsewhere.contains(&bytes::join(&base, &kept)) {
                self.exchange(dir, &base, &kept, first, &links);
            }
        }
    }

    fn exchange(
        &mut self,
        dir: &mut Dir,
        base: &[u8],
        kept: &[u8],
        first: &[u8],
        links: &[Vec<u8>],
    ) {
        let (kept_path, first_path) = (bytes::join(base, kept), bytes::join(base, first));
        let Some(Node::Leaf(file)) = dir.children.get_mut(kept) else {
            return;
        };
        if !matches!(file.place, Place::Held { .. }) {
            return;
        }
        let mut link = file.entry.clone();
        link.kind = EntryKind::Hardlink;
        link.target = Some(bytes::path(&first_path));
        (link.rdev, link.content, link.state) = (None, None, None);
        let place = Place::Held {
            extra: Extra::default(),
            data: Vec::new(),
        };
        let link = Item { entry: link, place };
        let mut file = std::mem::replace(file.as_mut(), link);
        file.entry.path = bytes::path(&first_path);
        let what = match file.entry.kind {
            EntryKind::File => What::File(file.entry.size),
            _ => What::Other,
        };
        for name in links {
            if let Some(Node::Leaf(item)) = dir.children.get_mut(name) {
                item.entry.target = Some(bytes::path(&first_path));
            }
        }
        if let Some(Node::Leaf(item)) = dir.children.get_mut(first) {
            **item = file;
        }
        self.seen.insert(&kept_path, What::Link);
        self.seen.insert(&first_path, what);
        self.moved.insert(kept_path, first_path);
    }

    /// Writes what the fullest directory holds, or everything where that is little.
    fn flush(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        let mut open: Vec<&mut Dir> = Vec::new();
        for (_, dir) in &mut self.stack {
            open.push(dir);
        }
        let mut fullest: (usize, Vec<Vec<&mut Item>>) = (0, Vec::new());
        let mut all: Vec<Vec<&mut Item>> = Vec::new();
        while let Some(dir) = open.pop() {
            let held = dir.held() + dir.item.held();
            let mut items = vec![&mut dir.item];
            for node in dir.children.values_mut() {
                match node {
                    Node::Leaf(item) => items.push(item),
                    Node::Open(dir) => open.push(dir),
                    Node::Done(run) => items.extend(run.waiting_mut()),
                }
            }
            items.retain(|item| matches!(item.place, Place::Held { .. }));
            if held > fullest.0 {
                all.extend(std::mem::replace(&mut fullest, (held, vec![items])).1);
            } else {
                all.push(items);
            }
        }
        let (held, mut items) = fullest;
        if held.saturating_mul(8) < writer.held {
            items.append(&mut all);
        }
        let mut items: Vec<&mut Item> = items.into_iter().flatten().collect();
        // A tar of the segment has a directory before what is in it.
        items.sort_by(|a, b| bytes::tree_order(a.path(), b.path()));
        if items.is_empty() {
            // Nothing that could be written is held: an error in the count must not keep it here for ever.
            writer.held = 0;
        }
        writer.early(items)
    }
}

/// Takes a directory apart into its entries.
fn unfold(run: Run) -> Result<Dir> {
    let mut items = run.items()?.into_iter();
    let missing = || Error::Internal("a directory without its entry");
    let mut stack = vec![(
        Vec::new(),
        Dir::new(items.next().ok_or_else(missing)?, true),
    )];
    let up = |stack: &mut Vec<(Vec<u8>, Dir)>| {
        if let Some((name, dir)) = stack.pop() {
            if let Some((_, above)) = stack.last_mut() {
                above.children.insert(name, Node::Open(Box::new(dir)));
            }
        }
    };
    for item in items {
        while stack.len() > 1
            && !stack
                .last()
                .is_some_and(|(_, dir)| bytes::is_below(item.path(), dir.item.path()))
        {
            up(&mut stack);
        }
        let name = bytes::split(item.path()).1.to_vec();
        if item.entry.kind == EntryKind::Dir {
            stack.push((name, Dir::new(item, true)));
        } else if let Some((_, dir)) = stack.last_mut() {
            dir.children.insert(name, Node::Leaf(Box::new(item)));
        }
    }
    while stack.len() > 1 {
        up(&mut stack);
    }
    stack.pop().map(|(_, dir)| dir).ok_or_else(missing)
}
