//! Extracting as a tar stream.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::plan::{Filter, Plan, pieces, wants};
use super::tar_out::{Form, Stream, regular};
use super::{ExtractReport, FileProblem, Selection, gnu};
use crate::cache::Cache;
use crate::catalogue::{Catalogue, Finder};
use crate::document::Tree;
use crate::document::guest::GuestConfig;
use crate::events::Events;
use crate::list::{Entry, EntryKind};
use crate::member::{self, Extra};
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Id, Result, bytes};

/// Bytes of segments that are kept: lines that list parts of a few take turns.
const SEGMENTS: usize = 64 << 20;
pub(super) fn to_tar(
    stores: &[&Store],
    tree: &Tree,
    selection: &Selection,
    out: &mut dyn Write,
    events: &dyn Events,
) -> Result<ExtractReport> {
    tar(
        stores,
        tree,
        selection,
        (&[], (0, 0)),
        Form::Plain,
        out,
        events,
    )
}

/// `first` are the files before the tree, and their time.
pub(super) fn tar(
    stores: &[&Store],
    tree: &Tree,
    selection: &Selection,
    first: (&[GuestConfig], (i64, u32)),
    form: Form,
    out: &mut dyn Write,
    events: &dyn Events,
) -> Result<ExtractReport> {
    let filter = Filter::new(selection);
    let mut plan = Plan::new(stores, tree, &filter);
    events.phase(&format!("files of {}", tree.mount_point), Some(plan.bytes));
    let report = ExtractReport {
        missing: std::mem::take(&mut plan.lost),
        doubtful: std::mem::take(&mut plan.doubtful),
        not_found: std::mem::take(&mut plan.not_found),
        ..ExtractReport::default()
    };
    let mut writer = Writer {
        stores,
        tree,
        plan: &plan,
        stream: Stream::new(out, events, form),
        report,
        absent: HashSet::new(),
        homes: HashMap::new(),
        segments: Cache::new(SEGMENTS),
        readers: Readers::new(stores),
    };
    let written = writer.all(first);
    if let Err(error) = written {
        if matches!(form, Form::Guest { .. }) {
            writer.stream.break_off();
        }
        return Err(error);
    }
    let healed = writer.readers.healed;
    let mut report = writer.report;
    report.healed += healed;
    Ok(report)
}

struct Writer<'w> {
    stores: &'w [&'w Store],
    tree: &'w Tree,
    plan: &'w Plan,
    stream: Stream<'w>,
    report: ExtractReport,
    /// First names that did not make it into the archive: links to them would fail on reading it.
    absent: HashSet<PathBuf>,
    /// First names whose content is in the archive under the name of a link, as that comes before them.
    homes: HashMap<PathBuf, PathBuf>,
    segments: Cache<Id, Vec<u8>>,
    readers: Readers<'w>,
}

impl Writer<'_> {
    fn all(&mut self, (configs, time): (&[GuestConfig], (i64, u32))) -> Result<()> {
        if let Some(first) = self.report.missing.first().cloned() {
            self.refuse(first)?;
        }
        for config in configs {
            let size = config.data.len() as u64;
            let entry = regular(Path::new(&config.name), 0o640, time, size);
            self.small(&entry, &Extra::default(), &config.data)?;
        }
        let plan = self.plan;
        let wanted: HashMap<_, _> = plan.segments.iter().map(|(id, w)| (*id, w)).collect();
        let blobs = plan.catalogue(self.tree);
        for line in Catalogue::of(Readers::new(self.stores), &blobs).flatten() {
            let Some(wanted) = wanted.get(&line.segment) else {
                continue;
            };
            // Other members of the segment are of other lines, or of no line of this snapshot.
            let own: Option<HashSet<&Path>> = line
                .part
                .then(|| line.entries.iter().map(|e| e.path.as_path()).collect());
            let wanted = |path: &Path| {
                own.as_ref().is_none_or(|own| own.contains(path)) && wants(wanted, path)
            };
            let mut failure = None;
            let members = self.segment(&line.segment).and_then(|content| {
                member::read(&content, &mut |member| {
                    if failure.is_none() && wanted(&member.entry.path) {
                        failure = self.one(member).err();
                    }
                })
            });
            if let Some(error) = failure {
                return Err(error);
            }
            if let Err(reason) = members {
                for entry in line
                    .entries
                    .iter()
                    .filter(|e| e.is_kept() && wanted(&e.path))
                {
                    self.absent.insert(entry.path.clone());
                    self.lose(&entry.path, &reason)?;
                }
            }
        }
        self.stream.write(&[0; 1024])?;
        self.stream
            .out
            .flush()
            .map_err(Error::io("write the archive to", "its output"))
    }

    fn segment(&mut self, id: &Id) -> Result<Arc<Vec<u8>>, String> {
        let read = self.segments.get(id, || {
            let content = self.readers.blob(id)?;
            let cost = content.len();
            Ok::<_, Error>((content, cost))
        });
        read.map_err(|e| e.to_string())
    }

    fn lose(&mut self, path: &Path, reason: impl ToString) -> Result<()> {
        let problem = FileProblem {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        };
        self.report.missing.push(problem.clone());
        self.refuse(problem)
    }

    /// Of a guest, nothing may be missing unless somebody said that it may.
    fn refuse(&self, first: FileProblem) -> Result<()> {
        match self.stream.form.strict() {
            true => Err(Error::Incomplete {
                first: Box::new(first),
            }),
            false => Ok(()),
        }
    }

    /// Where the content of a first name is, or will be.
    fn home<'p>(&'p self, first: &'p Path) -> &'p Path {
        self.homes
            .get(first)
            .map_or_else(|| self.plan.out(first), PathBuf::as_path)
    }

    /// Writes one member.
    fn one(&mut self, member: member::Member<'_>) -> Result<()> {
        let member::Member {
            mut entry,
            extra,
            data,
        } = member;
        let first = entry.path.clone();
        if entry.kind == EntryKind::Hardlink {
            let Some(target) = entry.target.take() else {
                return Ok(());
            };
            let before = bytes::tree_order(bytes::of(&entry.path), bytes::of(&target)).is_lt();
            if before && !self.homes.contains_key(&target) && !self.absent.contains(&target) {
                return self.ahead(&target, &entry.path);
            }
            if self.home(&target) == entry.path {
                // This link has become the file.
                return Ok(());
            }
            return self.link(entry, &target);
        }
        if self.homes.contains_key(&first) {
            // A link to it came before it, and is the file now. Where it is not wanted itself, that is all.
            if self.plan.out(&first) != first {
                return Ok(());
            }
            entry.kind = EntryKind::Hardlink;
            (entry.content, entry.rdev, entry.state) = (None, None, None);
            return self.link(entry, &first);
        }
        if self.absent.contains(&first) {
            return Ok(());
        }
        entry.path = self.plan.out(&first).to_path_buf();
        if !self.file(entry, extra, data)? {
            self.absent.insert(first);
        }
        Ok(())
    }

    fn link(&mut self, mut entry: Entry, first: &Path) -> Result<()> {
        if self.absent.contains(first) {
            let reason = format!("it is a link to {}, which is missing", first.display());
            return self.lose(&entry.path, reason);
        }
        entry.target = Some(self.home(first).to_path_buf());
        self.small(&entry, &Extra::default(), &[])?;
        self.done(&entry);
        Ok(())
    }

    /// Writes a file in the place of a link to it, which comes first.
    fn ahead(&mut self, first: &Path, place: &Path) -> Result<()> {
        match self.find(first) {
            Ok((mut entry, extra, data)) => {
                entry.path = place.to_path_buf();
                if self.file(entry, extra, &data)? {
                    self.homes.insert(first.to_path_buf(), place.to_path_buf());
                } else {
                    self.absent.insert(first.to_path_buf());
                    self.lose(first, "see its other name")?;
                }
                Ok(())
            }
            Err(reason) => {
                self.absent.insert(first.to_path_buf());
                self.lose(place, &reason)?;
                if self.plan.out(first) == first {
                    self.lose(first, reason)?;
                }
                Ok(())
            }
        }
    }

    /// A member by its path, wherever it is.
    fn find(&mut self, path: &Path) -> Result<(Entry, Extra, Vec<u8>), String> {
        let mut finder = Finder::new(Readers::new(self.stores), self.tree);
        let blobs = finder.blobs(bytes::of(path), false);
        let blobs = self.tree.catalogue.get(blobs).unwrap_or_default();
        for line in Catalogue::of(Readers::new(self.stores), blobs).flatten() {
            let named = |e: &Entry| e.path == path && e.kind != EntryKind::Hardlink && e.is_kept();
            if !line.entries.iter().any(named) {
                continue;
            }
            let content = self.segment(&line.segment)?;
            let mut found = None;
            member::read(&content, &mut |member| {
                if member.entry.path == path && member.entry.kind != EntryKind::Hardlink {
                    found = Some((member.entry, member.extra, member.data.to_vec()));
                }
            })?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(format!(
            "its first name, {}, is not in the catalogue",
            path.display()
        ))
    }

    /// Writes anything but a link; false where its content is lost.
    fn file(&mut self, mut entry: Entry, mut extra: Extra, data: &[u8]) -> Result<bool> {
        entry.state = None;
        extra.flags = 0;
        if entry.content.is_some() {
            if let Err(error) = self.large(&entry, &extra) {
                return match error {
                    Large::Lost(error) => self.lose(&entry.path, error).map(|()| false),
                    Large::Ended(error) => Err(error),
                };
            }
            self.report.bytes += entry.size;
        } else {
            self.small(&entry, &extra, data)?;
            self.stream.events.bytes(data.len() as u64);
            self.report.bytes += data.len() as u64;
        }
        self.done(&entry);
        Ok(true)
    }

    fn done(&mut self, entry: &Entry) {
        self.stream.events.item(bytes::of(&entry.path));
        self.report.entries += 1;
    }

    fn small(&mut self, entry: &Entry, extra: &Extra, data: &[u8]) -> Result<()> {
        let size = data.len() as u64;
        let lost = self.stream.header(entry, extra, size, None)?;
        self.without(entry, lost);
        self.stream.write(data)?;
        self.stream.pad(size)
    }

    fn without(&mut self, entry: &Entry, lost: Vec<String>) {
        let problem = |reason| FileProblem {
            path: entry.path.clone(),
            reason,
        };
        let lost = lost.into_iter().map(problem);
        self.report.incomplete_metadata.extend(lost);
    }

    fn large(&mut self, entry: &Entry, extra: &Extra) -> Result<(), Large> {
        let pieces = pieces(&mut self.readers, entry).map_err(Large::Lost)?;
        if !self.stream.form.strict() {
            // All of it is read once before the header promises it.
            self.check(&pieces).map_err(Large::Lost)?;
        }
        let plain = Form::Plain == self.stream.form;
        let data: u64 = pieces.iter().map(|(_, _, size)| size).sum();
        let header = entry_without_content(entry);
        if plain || data == entry.size {
            let lost = self
                .stream
                .header(&header, extra, entry.size, None)
                .map_err(Large::Ended)?;
            self.without(entry, lost);
            self.expand(&pieces, true)?;
            let end = pieces.last().map_or(0, |(at, _, size)| at + size);
            self.stream.zeroes(entry.size - end).map_err(Large::Ended)?;
            return self.stream.pad(entry.size).map_err(Large::Ended);
        }
        let map = gnu::map(&extents(&pieces), entry.size);
        let size = map.len() as u64 + data;
        let lost = self
            .stream
            .header(&header, extra, size, Some(entry.size))
            .map_err(Large::Ended)?;
        self.without(entry, lost);
        self.stream.write(&map).map_err(Large::Ended)?;
        self.expand(&pieces, false)?;
        self.stream.pad(size).map_err(Large::Ended)
    }

    fn check(&mut self, pieces: &[(u64, Id, u64)]) -> Result<()> {
        let mut content = Vec::new();
        for (_, id, size) in pieces {
            self.piece(id, *size, &mut content)?;
        }
        Ok(())
    }

    fn piece(&mut self, id: &Id, size: u64, content: &mut Vec<u8>) -> Result<()> {
        self.readers.blob_into(id, content)?;
        match content.len() as u64 == size {
            true => Ok(()),
            false => Err(Error::malformed(
                format!("blob {}", id.short()),
                "it is not as long as its content list says",
            )),
        }
    }

    /// Writes the data, with the holes between it or without.
    fn expand(&mut self, pieces: &[(u64, Id, u64)], holes: bool) -> Result<(), Large> {
        let mut at = 0;
        let mut content = Vec::new();
        for (offset, id, length) in pieces {
            if holes {
                self.stream.zeroes(offset - at).map_err(Large::Ended)?;
            }
            self.piece(id, *length, &mut content).map_err(Large::Lost)?;
            self.stream.write(&content).map_err(Large::Ended)?;
            self.stream.events.bytes(*length);
            at = offset + length;
        }
        Ok(())
    }
}

/// Why a large file is not in the archive.
enum Large {
    /// It cannot be read.
    Lost(Error),
    /// The archive cannot be written.
    Ended(Error),
}

fn entry_without_content(entry: &Entry) -> Entry {
    Entry {
        content: None,
        ..entry.clone()
    }
}

/// Pieces that follow each other are one.
fn extents(pieces: &[(u64, Id, u64)]) -> Vec<Range<u64>> {
    let mut extents: Vec<Range<u64>> = Vec::new();
    for (offset, _, length) in pieces {
        match extents.last_mut() {
            Some(last) if last.end == *offset => last.end += length,
            _ => extents.push(*offset..offset + length),
        }
    }
    extents
}
