//! Extracting as a tar stream.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::held::{Held, Segment};
use super::plan::{Filter, Plan, pieces, wants};
use super::tar_out::{Form, Stream, regular};
use super::{ExtractReport, FileProblem, Selection, gnu};
use crate::catalogue::Catalogue;
use crate::document::Tree;
use crate::document::guest::GuestConfig;
use crate::events::Events;
use crate::list::{Entry, EntryKind};
use crate::member::{self, Extra};
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Id, Result, bytes};

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
        held: Held::new(stores, tree),
        readers: Readers::new(stores),
    };
    let written = writer.all(first);
    if let Err(error) = written {
        if matches!(form, Form::Guest { .. }) {
            writer.stream.break_off();
        }
        return Err(error);
    }
    let healed = writer.readers.healed + writer.held.healed();
    let mut report = writer.report;
    report.healed += healed;
    Ok(report)
}

const NOT_THERE: &str = "the catalogue lists it, and its segment does not hold it";

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
    held: Held<'w>,
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
            let listed = line.entries.iter();
            let listed = listed.filter(|e| e.is_kept() && wants(wanted, &e.path));
            let segment = match line.part {
                true => self.held.segment(&line.segment),
                false => Segment::read(&mut self.readers, &line.segment).map(Arc::new),
            };
            for entry in listed {
                let member = match &segment {
                    Ok(segment) => segment.member(&entry.path).ok_or(NOT_THERE),
                    Err(reason) => Err(reason.as_str()),
                };
                match member {
                    Ok(member) => self.one(member)?,
                    Err(reason) => {
                        self.absent.insert(entry.path.clone());
                        self.lose(&entry.path, reason)?;
                    }
                }
            }
        }
        self.stream.write(&[0; 1024])?;
        self.stream
            .out
            .flush()
            .map_err(Error::io("write the archive to", "its output"))
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
        let found = self.held.home(first);
        let member = match &found {
            Ok(segment) => segment.member(first).ok_or(NOT_THERE),
            Err(reason) => Err(reason.as_str()),
        };
        match member {
            Ok(mut member) => {
                member.entry.path = place.to_path_buf();
                if self.file(member.entry, member.extra, member.data)? {
                    self.homes.insert(first.to_path_buf(), place.to_path_buf());
                } else {
                    self.absent.insert(first.to_path_buf());
                    self.lose(first, "see its other name")?;
                }
                Ok(())
            }
            Err(reason) => {
                self.absent.insert(first.to_path_buf());
                self.lose(place, reason)?;
                if self.plan.out(first) == first {
                    self.lose(first, reason)?;
                }
                Ok(())
            }
        }
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
