//! What an extraction needs, from the catalogue: which entries, which segments, which chunks.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{FileProblem, Selection};
use crate::catalogue::{Catalogue, Finder};
use crate::content::{self, Piece};
use crate::document::Tree;
use crate::list::{Entry, EntryKind, EntryState};
use crate::read::Readers;
use crate::store::Store;
use crate::{Id, Result, bytes};

/// A selection, prepared for look-ups.
pub(super) struct Filter {
    /// `None`: everything.
    paths: Option<HashSet<Vec<u8>>>,
    /// Directories above the selected paths.
    above: HashSet<Vec<u8>>,
}

impl Filter {
    pub(super) fn new(selection: &Selection) -> Filter {
        let Selection::Paths(selected) = selection else {
            return Filter {
                paths: None,
                above: HashSet::new(),
            };
        };
        let (mut paths, mut above) = (HashSet::new(), HashSet::new());
        for path in selected {
            let names: Vec<&[u8]> = bytes::of(path)
                .split(|b| *b == b'/')
                .filter(|n| !matches!(*n, b"" | b"."))
                .collect();
            if names.is_empty() {
                return Filter {
                    paths: None,
                    above: HashSet::new(),
                };
            }
            for n in 1..names.len() {
                above.insert(names[..n].join(&b'/'));
            }
            paths.insert(names.join(&b'/'));
        }
        Filter {
            paths: Some(paths),
            above,
        }
    }

    /// The selected path that this entry is, or lies below.
    fn selected<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let Some(paths) = &self.paths else {
            return Some(path);
        };
        let mut end = path.len();
        loop {
            if paths.contains(&path[..end]) {
                return Some(&path[..end]);
            }
            end = path[..end].iter().rposition(|b| *b == b'/')?;
        }
    }
}

/// A large or sparse file.
pub(super) struct Large {
    pub entry: Entry,
    /// Where it goes: its path, or a selected link's.
    pub out: PathBuf,
}

/// Everything that is to be made.
#[derive(Default)]
pub(super) struct Plan {
    /// In order: parents first.
    pub dirs: Vec<Entry>,
    pub large: Vec<Large>,
    /// Where the link goes, and the path of its first name.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Segments that hold something selected, in order, with the paths of their wanted members; `None`: all.
    pub segments: Vec<(Id, Option<HashSet<Vec<u8>>>)>,
    /// First names that are not selected themselves, with the selected link that takes their place.
    pub alias: HashMap<Vec<u8>, PathBuf>,
    pub doubtful: Vec<FileProblem>,
    pub not_found: Vec<PathBuf>,
    pub bytes: u64,
    /// Numbers of the catalogue blobs that can hold something selected.
    parts: BTreeSet<usize>,
    /// Catalogue blobs that cannot be read: what they list is unknown.
    pub lost: Vec<FileProblem>,
}

impl Plan {
    pub(super) fn new(stores: &[&Store], tree: &Tree, filter: &Filter) -> Plan {
        let parts = match &filter.paths {
            None => (0..tree.catalogue.len()).collect(),
            Some(paths) => {
                // One file of many must not cost a look at all of them.
                let mut finder = Finder::new(Readers::new(stores), tree);
                let below = paths.iter().map(|p| (p.as_slice(), true));
                let above = filter.above.iter().map(|p| (p.as_slice(), false));
                below
                    .chain(above)
                    .chain([(&b"."[..], false)])
                    .flat_map(|(path, deep)| finder.blobs(path, deep))
                    .collect()
            }
        };
        let mut plan = Plan {
            parts,
            ..Plan::default()
        };
        let blobs = plan.catalogue(tree);
        let mut found: HashSet<Vec<u8>> = HashSet::new();
        let mut unresolved: HashSet<Vec<u8>> = HashSet::new();
        let mut places = HashMap::new();
        for line in Catalogue::of(Readers::new(stores), &blobs) {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    let reason = format!(
                        "a part of the catalogue, and so all files that it lists, is lost: {error}"
                    );
                    plan.lost.push(FileProblem {
                        path: ".".into(),
                        reason,
                    });
                    continue;
                }
            };
            // Of a segment that counts only in part, the rest is of an earlier snapshot.
            let chosen = line.part || filter.paths.is_some();
            let mut wanted = HashSet::new();
            let mut any = false;
            for entry in line.entries {
                let path = bytes::of(&entry.path);
                match filter.selected(path) {
                    Some(by) if filter.paths.is_some() => {
                        if !found.contains(by) {
                            found.insert(by.to_vec());
                        }
                    }
                    Some(_) => {}
                    None if entry.kind == EntryKind::Dir && filter.above.contains(path) => {}
                    None => continue,
                }
                if chosen {
                    wanted.insert(path.to_vec());
                }
                any = true;
                plan.add(entry, filter, &mut unresolved);
            }
            if any {
                let wanted = chosen.then_some(wanted);
                plan.want(&mut places, line.segment, wanted);
            }
        }
        if !unresolved.is_empty() {
            plan.resolve(stores, tree, &mut places);
        }
        if let Some(paths) = &filter.paths {
            let mut missing: Vec<_> = paths.difference(&found).map(|p| bytes::path(p)).collect();
            missing.sort();
            plan.not_found = missing;
        }
        plan
    }

    fn add(&mut self, entry: Entry, filter: &Filter, unresolved: &mut HashSet<Vec<u8>>) {
        if let Some(state) = entry.state {
            let reason = match state {
                EntryState::Changed => "it changed while the backup read it",
                EntryState::Vanished => "it vanished during the backup and is not in the snapshot",
                EntryState::Unreadable => {
                    "it could not be read during the backup and is not in the snapshot"
                }
                EntryState::Partial => {
                    "it could not be read completely during the backup; the rest is zeroes"
                }
            };
            self.doubtful.push(FileProblem {
                path: entry.path.clone(),
                reason: reason.to_string(),
            });
        }
        if !entry.is_kept() {
            return;
        }
        match entry.kind {
            EntryKind::Dir => self.dirs.push(entry),
            EntryKind::Hardlink => {
                let Some(first) = entry.target else { return };
                if filter.selected(bytes::of(&first)).is_none() {
                    let key = bytes::of(&first).to_vec();
                    if unresolved.insert(key.clone()) {
                        // This link becomes the file; its further names become links to it.
                        self.alias.insert(key, entry.path);
                        return;
                    }
                }
                self.links.push((entry.path, first));
            }
            EntryKind::File => {
                self.bytes = self.bytes.saturating_add(entry.size);
                if entry.content.is_some() {
                    self.large.push(Large {
                        out: entry.path.clone(),
                        entry,
                    });
                }
            }
            _ => {}
        }
    }

    /// Notes that members of a segment are wanted. Several lines may name one segment: it is read once.
    fn want(
        &mut self,
        places: &mut HashMap<Id, usize>,
        segment: Id,
        members: Option<HashSet<Vec<u8>>>,
    ) {
        match places.entry(segment) {
            Slot::Vacant(free) => {
                free.insert(self.segments.len());
                self.segments.push((segment, members));
            }
            Slot::Occupied(at) => match (&mut self.segments[*at.get()].1, members) {
                (Some(all), Some(more)) => all.extend(more),
                (all, _) => *all = None,
            },
        }
    }

    /// Finds the segments of first names that are not selected themselves.
    fn resolve(&mut self, stores: &[&Store], tree: &Tree, places: &mut HashMap<Id, usize>) {
        let mut finder = Finder::new(Readers::new(stores), tree);
        let parts: BTreeSet<usize> = self
            .alias
            .keys()
            .flat_map(|path| finder.blobs(path, false))
            .collect();
        let blobs: Vec<Id> = parts.iter().map(|i| tree.catalogue[*i]).collect();
        self.parts.extend(parts);
        for line in Catalogue::of(Readers::new(stores), &blobs).flatten() {
            let needed: Vec<Entry> = line
                .entries
                .into_iter()
                .filter(|e| {
                    e.kind != EntryKind::Hardlink && self.alias.contains_key(bytes::of(&e.path))
                })
                .collect();
            if needed.is_empty() {
                continue;
            }
            let paths = needed.iter().map(|e| bytes::of(&e.path).to_vec());
            self.want(places, line.segment, Some(paths.collect()));
            for entry in needed {
                let Some(out) = self.alias.get(bytes::of(&entry.path)).cloned() else {
                    continue;
                };
                self.bytes = self.bytes.saturating_add(entry.size);
                if entry.content.is_some() {
                    self.large.push(Large { entry, out });
                }
            }
        }
    }

    /// The catalogue blobs that can hold something selected, in order.
    pub(super) fn catalogue(&self, tree: &Tree) -> Vec<Id> {
        self.parts.iter().map(|i| tree.catalogue[*i]).collect()
    }

    /// Where a member goes.
    pub(super) fn out<'p>(&'p self, path: &'p Path) -> &'p Path {
        if self.alias.is_empty() {
            return path;
        }
        self.alias
            .get(bytes::of(path))
            .map_or(path, PathBuf::as_path)
    }
}

/// Is a member of a segment wanted?
pub(super) fn wants(wanted: &Option<HashSet<Vec<u8>>>, path: &Path) -> bool {
    wanted.as_ref().is_none_or(|w| w.contains(bytes::of(path)))
}

/// The data pieces of a large file with their offsets.
pub(super) fn pieces(readers: &mut Readers<'_>, entry: &Entry) -> Result<Vec<(u64, Id, u64)>> {
    let mut pieces = Vec::new();
    if let Some(content) = &entry.content {
        content::read(
            readers,
            content,
            entry.size,
            &mut |_| (),
            &mut |offset, piece| {
                if let Piece::Blob { id, size } = piece {
                    pieces.push((offset, id, size));
                }
                Ok(())
            },
        )?;
    }
    Ok(pieces)
}
