//! Listing, searching, comparing and extracting a part, judged by the model's trees.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bundle::Id;
use bundle::diff::{Change, What, diff};
use bundle::document::Snapshot;
use bundle::events::Silent;
use bundle::extract::Selection;
use bundle::find::find;
use bundle::list::{Entry, EntryKind, below, entries, matching};
use bundle::pattern::Pattern;
use bundle::store::Store;

use super::tree::{Kind, Node, Tree, part, same};
use super::world::{Shot, World};

/// A pattern, and what it fits.
enum Fits {
    /// Names that begin like this.
    Prefix(Vec<u8>),
    /// All below this directory of the host.
    Below(PathBuf),
    /// This path of the host.
    Path(PathBuf),
}

impl Fits {
    fn text(&self) -> PathBuf {
        let escaped = |text: &[u8]| {
            let mut out = Vec::new();
            for byte in text {
                if b"*?[\\".contains(byte) {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
            out
        };
        let bytes = match self {
            Fits::Prefix(name) => [&escaped(name)[..], b"*"].concat(),
            Fits::Below(dir) if dir.as_os_str() == "/" => b"/**".to_vec(),
            Fits::Below(dir) => [&escaped(dir.as_os_str().as_bytes())[..], b"/**"].concat(),
            Fits::Path(path) => escaped(path.as_os_str().as_bytes()),
        };
        std::ffi::OsString::from_vec(bytes).into()
    }

    fn fits(&self, path: &Path) -> bool {
        match self {
            Fits::Prefix(start) => path
                .file_name()
                .is_some_and(|n| n.as_bytes().starts_with(start)),
            // The root's path ends with a slash already, with nothing after it.
            Fits::Below(dir) if dir.as_os_str() == "/" => true,
            Fits::Below(dir) => path != dir && path.starts_with(dir),
            Fits::Path(one) => path == one,
        }
    }
}

impl Shot {
    fn on_host(&self, path: &Path) -> PathBuf {
        match path.as_os_str().is_empty() {
            true => self.mount_point.clone().into(),
            false => Path::new(&self.mount_point).join(path),
        }
    }
}

fn path_of(entry: &Entry) -> PathBuf {
    match entry.path == Path::new(".") {
        true => PathBuf::new(),
        false => entry.path.clone(),
    }
}

/// Does a catalogue say of a file what the model does?
fn is(entry: &Entry, node: &Node) -> bool {
    let kind = match (&node.first, &node.kind) {
        (Some(_), _) => EntryKind::Hardlink,
        (None, Kind::File(..)) => EntryKind::File,
        (None, Kind::Dir) => EntryKind::Dir,
        (None, Kind::Symlink(_)) => EntryKind::Symlink,
        (None, Kind::Fifo) => EntryKind::Fifo,
    };
    let target = match (&node.first, &node.kind) {
        (Some(first), _) => Some(first),
        (None, Kind::Symlink(target)) => Some(target),
        _ => None,
    };
    let size = match node.kind {
        Kind::File(size, _) => size,
        _ => 0,
    };
    (entry.kind, entry.size, entry.mode) == (kind, size, node.mode)
        && (entry.uid, entry.gid) == node.owner
        && (entry.mtime.0, i64::from(entry.mtime.1)) == node.mtime
        && entry.target.as_ref() == target
        && entry.state.is_none()
}

fn listed(entries: Vec<Entry>, expected: &Tree, what: &str) -> Result<()> {
    let paths: Vec<_> = entries.iter().map(path_of).collect();
    let known: Vec<_> = expected.keys().cloned().collect();
    ensure!(paths == known, "{what}: {paths:?} instead of {known:?}");
    for entry in &entries {
        let node = &expected[&path_of(entry)];
        ensure!(is(entry, node), "{what}: {entry:?} instead of {node:?}");
    }
    Ok(())
}

impl World {
    pub fn look(&self, target: usize, a: u16, b: u16, path: u16, pattern: u8) -> Result<()> {
        let ids = self.targets[target].in_order();
        if ids.is_empty() {
            return Ok(());
        }
        let (a, b) = (
            ids[usize::from(a) % ids.len()],
            ids[usize::from(b) % ids.len()],
        );
        let store = self.targets[target].read()?;
        let shots = &self.targets[target].shots;
        let tree = &shots[&a].tree;
        let chosen = tree
            .keys()
            .nth(usize::from(path) % tree.len())
            .context("an empty tree")?;
        let (_, snapshot) = store.snapshot(&a.to_string())?;
        self.list(&store, &snapshot, tree, chosen)?;
        let on_host = shots[&a].on_host(chosen);
        let fits = match pattern % 3 {
            0 => {
                let name = on_host.file_name().unwrap_or_default().as_bytes();
                Fits::Prefix(name[..name.len().min(1 + usize::from(pattern) % 5)].to_vec())
            }
            1 => Fits::Below(on_host.parent().unwrap_or(&on_host).to_path_buf()),
            _ => Fits::Path(on_host),
        };
        if fits.text().as_os_str() != "*" && fits.text().as_os_str() != "/" {
            self.search(target, &store, &fits).context("find")?;
            self.extract_part(target, &a, &store, &snapshot, &fits)?;
        }
        let (report, found) =
            self.extract(&[target], &a, &Selection::Paths(vec![chosen.clone()]))?;
        ensure!(report.missing.is_empty(), "{report:?}");
        without_root(&part(tree, std::slice::from_ref(chosen)), found, "a part")?;
        let (_, other) = store.snapshot(&b.to_string())?;
        self.differ(&store, (&shots[&a], &snapshot), (&shots[&b], &other))
            .context("diff")
    }

    fn list(&self, store: &Store, snapshot: &Snapshot, tree: &Tree, path: &Path) -> Result<()> {
        let readers = [store];
        let all = entries(&readers, &snapshot.trees[0]).collect::<bundle::Result<_>>()?;
        listed(all, tree, "ls")?;
        let some =
            below(&readers, &snapshot.trees[0], path, true).collect::<bundle::Result<_>>()?;
        let within = tree.iter().filter(|(p, _)| p.starts_with(path));
        listed(
            some,
            &within.map(|(p, n)| (p.clone(), n.clone())).collect(),
            "ls of a path",
        )
    }

    /// Finds in all restore points of a target.
    fn search(&self, target: usize, store: &Store, fits: &Fits) -> Result<()> {
        let target = &self.targets[target];
        let order = target.in_order();
        let snapshots = order.iter().map(|id| store.snapshot(&id.to_string()));
        let snapshots = snapshots.collect::<bundle::Result<Vec<_>>>()?;
        let text = fits.text();
        let found = find(
            &[store],
            &snapshots,
            &Pattern::new(text.as_os_str().as_bytes())?,
            &Silent,
        )?;
        ensure!(found.lost.is_empty(), "{:?}", found.lost);
        let mut expected: BTreeSet<(String, PathBuf, Id)> = BTreeSet::new();
        for id in &order {
            let shot = &target.shots[id];
            let paths = shot
                .tree
                .keys()
                .map(|p| shot.on_host(p))
                .filter(|p| fits.fits(p));
            expected.extend(paths.map(|p| (shot.host.machine_id.clone(), p, *id)));
        }
        let mut seen = BTreeSet::new();
        for found in &found.found {
            let own = order
                .iter()
                .filter(|id| target.shots[id].host == found.host);
            let own: Vec<&Id> = own.collect();
            for version in &found.versions {
                let at = |id: &Id| {
                    own.iter()
                        .position(|o| *o == id)
                        .context("a restore point of nobody")
                };
                let (first, last) = (at(&version.first.id)?, at(&version.last.id)?);
                ensure!(
                    first <= last && version.snapshots == (last - first + 1) as u64,
                    "{version:?}"
                );
                for id in &own[first..=last] {
                    let shot = &target.shots[*id];
                    let mut inside = found
                        .path
                        .strip_prefix(&shot.mount_point)
                        .unwrap_or(Path::new("?"));
                    if inside == Path::new(".") {
                        inside = Path::new("");
                    }
                    let node = shot.tree.get(inside).context("a version of nothing")?;
                    ensure!(is(&version.entry, node), "{version:?} of {node:?}");
                    seen.insert((found.host.machine_id.clone(), found.path.clone(), **id));
                }
            }
        }
        ensure!(
            seen == expected,
            "{text:?}: too many {:?}, missing {:?}",
            seen.difference(&expected).take(3).collect::<Vec<_>>(),
            expected.difference(&seen).take(3).collect::<Vec<_>>()
        );
        Ok(())
    }

    fn extract_part(
        &self,
        target: usize,
        id: &Id,
        store: &Store,
        snapshot: &Snapshot,
        fits: &Fits,
    ) -> Result<()> {
        let shot = &self.targets[target].shots[id];
        // The exact path of a file means it, whatever else it would mean as a pattern.
        let text = match fits {
            Fits::Path(path) => path.clone(),
            other => other.text(),
        };
        let (found, nothing) = matching(&[store], &snapshot.trees, std::slice::from_ref(&text))?;
        let mut expected: Vec<PathBuf> = Vec::new();
        for path in shot
            .tree
            .keys()
            .map(|p| shot.on_host(p))
            .filter(|p| fits.fits(p))
        {
            if !expected.last().is_some_and(|last| path.starts_with(last)) {
                expected.push(path);
            }
        }
        ensure!(
            found == expected,
            "{text:?}: {found:?} instead of {expected:?}"
        );
        ensure!(
            nothing.is_empty() != expected.is_empty(),
            "{text:?}: {nothing:?}"
        );
        if found.is_empty() {
            return Ok(());
        }
        let inside = found
            .iter()
            .map(|p| Ok(p.strip_prefix(&shot.mount_point)?.to_path_buf()));
        let inside = inside.collect::<Result<Vec<_>>>()?;
        let (report, found) = self.extract(&[target], id, &Selection::Paths(inside.clone()))?;
        ensure!(
            report.missing.is_empty() && report.not_found.is_empty(),
            "{report:?}"
        );
        without_root(&part(&shot.tree, &inside), found, "what fits a pattern")
    }

    fn differ(&self, store: &Store, a: (&Shot, &Snapshot), b: (&Shot, &Snapshot)) -> Result<()> {
        let mut said: BTreeMap<PathBuf, Vec<(char, Vec<What>)>> = BTreeMap::new();
        let report = diff(&[store], a.1, b.1, None, &Silent, &mut |change| {
            let (path, change) = match change {
                Change::Added { path, .. } => (path, ('+', Vec::new())),
                Change::Removed { path, .. } => (path, ('-', Vec::new())),
                Change::Changed { path, what, .. } => (path, ('~', what)),
                Change::Image { node, .. } => (node.into(), ('i', Vec::new())),
            };
            said.entry(path).or_default().push(change);
            true
        })?;
        ensure!(report.lost.is_empty(), "{report:?}");
        let same_place = a.0.mount_point == b.0.mount_point;
        for (path, node) in a.0.tree.iter() {
            let on_host = a.0.on_host(path);
            let mut take = |mark: char| -> Option<Vec<What>> {
                let changes = said.get_mut(&on_host)?;
                let at = changes.iter().position(|(m, _)| *m == mark)?;
                Some(changes.remove(at).1)
            };
            let Some(after) = b.0.tree.get(path).filter(|_| same_place) else {
                ensure!(take('-').is_some(), "{on_host:?} was removed");
                continue;
            };
            let (must, may) = differences(node, after);
            let what: BTreeSet<What> = take('~').unwrap_or_default().into_iter().collect();
            let allowed: BTreeSet<What> = must.union(&may).copied().collect();
            ensure!(
                must.is_subset(&what) && what.is_subset(&allowed),
                "{on_host:?}: {what:?} instead of {must:?} and perhaps {may:?}, {node:?}, {after:?}"
            );
        }
        for path in
            b.0.tree
                .keys()
                .filter(|p| !same_place || !a.0.tree.contains_key(*p))
        {
            let changes = said.get_mut(&b.0.on_host(path));
            let at = changes
                .as_ref()
                .and_then(|c| c.iter().position(|(mark, _)| *mark == '+'));
            ensure!(at.is_some(), "{path:?} was added");
            if let (Some(changes), Some(at)) = (changes, at) {
                changes.remove(at);
            }
        }
        said.retain(|_, changes| !changes.is_empty());
        ensure!(said.is_empty(), "not different: {said:?}");
        Ok(())
    }
}

/// What a comparison must say of two files at one path, and what it may.
fn differences(a: &Node, b: &Node) -> (BTreeSet<What>, BTreeSet<What>) {
    let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
    let mut note = |differs: bool, what| differs.then(|| must.insert(what));
    let links = [a.first.is_some(), b.first.is_some()];
    let one_kind = std::mem::discriminant(&a.kind) == std::mem::discriminant(&b.kind);
    note(!one_kind, What::Type);
    if let (Kind::File(size, hash), Kind::File(other, other_hash)) = (&a.kind, &b.kind) {
        // Of a link, the first name tells the content.
        let of_link = links != [false, false] && size == other;
        match of_link {
            true => drop(may.insert(What::Content)),
            false => drop(note((size, hash) != (other, other_hash), What::Content)),
        }
        // Where the holes are counts, as far as they are seen.
        if a.data != b.data {
            may.insert(What::Content);
        }
        note(links[0] != links[1], What::Links);
        note(links == [true, true] && a.first != b.first, What::Links);
    }
    if let (Kind::Symlink(to), Kind::Symlink(other)) = (&a.kind, &b.kind) {
        note(to != other, What::Links);
    }
    note(a.mode != b.mode, What::Mode);
    note(a.owner != b.owner, What::Owner);
    note(a.mtime != b.mtime, What::Times);
    if one_kind && links == [false, false] {
        note(a.xattrs != b.xattrs, What::Attributes);
    } else {
        may.insert(What::Attributes);
    }
    (must, may)
}

/// Of a part, the root's own metadata is not restored.
fn without_root(expected: &Tree, mut found: Tree, what: &str) -> Result<()> {
    let mut expected = expected.clone();
    expected.remove(Path::new(""));
    found.remove(Path::new(""));
    same(&expected, &found, what)
}
