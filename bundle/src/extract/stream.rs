//! Extracting as a tar stream.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use super::plan::{Filter, Plan, pieces, wants};
use super::{ExtractReport, FileProblem, Selection};
use crate::cache::Cache;
use crate::catalogue::Catalogue;
use crate::document::Tree;
use crate::events::Events;
use crate::list::{Entry, EntryKind};
use crate::member::{self, Extra};
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Id, Result};

/// Bytes of segments that are kept: lines that list parts of a few take turns.
const SEGMENTS: usize = 64 << 20;
/// Zeroes for holes.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

struct Stream<'o> {
    out: &'o mut dyn Write,
    events: &'o dyn Events,
    header: Vec<u8>,
}

impl Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.events.cancelled() {
            return Err(Error::Cancelled);
        }
        self.out
            .write_all(bytes)
            .map_err(Error::io("write the archive to", "its output"))
    }

    fn header(&mut self, entry: &Entry, extra: &Extra, size: u64) -> Result<()> {
        self.header.clear();
        member::push_header(&mut self.header, entry, extra, size);
        let header = std::mem::take(&mut self.header);
        self.write(&header)?;
        self.header = header;
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        self.write(&ZEROES[..((512 - size % 512) % 512) as usize])
    }

    fn zeroes(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let step = count.min(ZEROES.len() as u64);
            self.write(&ZEROES[..step as usize])?;
            count -= step;
        }
        Ok(())
    }
}

pub(super) fn to_tar(
    stores: &[&Store],
    tree: &Tree,
    selection: &Selection,
    out: &mut dyn Write,
    events: &dyn Events,
) -> Result<ExtractReport> {
    let filter = Filter::new(selection);
    let plan = Plan::new(stores, tree, &filter);
    events.phase(&format!("files of {}", tree.mount_point), Some(plan.bytes));
    let mut report = ExtractReport {
        missing: plan.lost.clone(),
        doubtful: plan.doubtful.clone(),
        not_found: plan.not_found.clone(),
        ..ExtractReport::default()
    };
    let wanted: std::collections::HashMap<_, _> = plan
        .segments
        .iter()
        .map(|(id, wanted)| (*id, wanted))
        .collect();
    let mut readers = Readers::new(stores);
    let mut stream = Stream {
        out,
        events,
        header: Vec::new(),
    };
    // First names that did not make it into the archive: links to them would fail on reading it.
    let mut absent: HashSet<std::path::PathBuf> = HashSet::new();
    let segments: Cache<Id, Vec<u8>> = Cache::new(SEGMENTS);
    let blobs = plan.catalogue(tree);
    for line in Catalogue::of(Readers::new(stores), &blobs).flatten() {
        let Some(wanted) = wanted.get(&line.segment) else {
            continue;
        };
        // Other members of the segment are of other lines, or of no line of this snapshot.
        let own: Option<HashSet<&Path>> = line
            .part
            .then(|| line.entries.iter().map(|e| e.path.as_path()).collect());
        let wanted =
            |path: &Path| own.as_ref().is_none_or(|own| own.contains(path)) && wants(wanted, path);
        let read = segments.get(&line.segment, || {
            let content = readers.blob(&line.segment)?;
            let cost = content.len();
            Ok::<_, Error>((content, cost))
        });
        let mut failure = None;
        let members = read.map_err(|e| e.to_string()).and_then(|content| {
            member::read(&content, &mut |member| {
                if failure.is_none() && wanted(&member.entry.path) {
                    let result = one(stores, &plan, &mut stream, &mut report, &mut absent, member);
                    failure = result.err();
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
                absent.insert(entry.path.clone());
                report.missing.push(FileProblem {
                    path: entry.path.clone(),
                    reason: reason.clone(),
                });
            }
        }
    }
    stream.write(&[0; 1024])?;
    stream
        .out
        .flush()
        .map_err(Error::io("write the archive to", "its output"))?;
    report.healed += readers.healed;
    Ok(report)
}

/// Writes one member.
fn one(
    stores: &[&Store],
    plan: &Plan,
    stream: &mut Stream<'_>,
    report: &mut ExtractReport,
    absent: &mut HashSet<std::path::PathBuf>,
    member: member::Member<'_>,
) -> Result<()> {
    let member::Member {
        mut entry,
        mut extra,
        data,
    } = member;
    let first = entry.path.clone();
    let large = entry.clone();
    entry.path = plan.out(&first).to_path_buf();
    entry.state = None;
    entry.content = None;
    extra.flags = 0;
    if entry.kind == EntryKind::Hardlink {
        let Some(target) = entry.target.take() else {
            return Ok(());
        };
        if plan.out(&target) == entry.path {
            // This link has become the file.
            return Ok(());
        }
        if absent.contains(&target) {
            let reason = format!("it is a link to {}, which is missing", target.display());
            report.missing.push(FileProblem {
                path: entry.path,
                reason,
            });
            return Ok(());
        }
        entry.target = Some(plan.out(&target).to_path_buf());
    }
    if large.content.is_some() {
        let mut readers = Readers::new(stores);
        // All of it is read once before the header promises it.
        let checked = check(&mut readers, &large);
        match checked {
            Ok(pieces) => {
                stream.header(&entry, &extra, large.size)?;
                expand(&mut readers, stream, &pieces, large.size)?;
            }
            Err(error) => {
                absent.insert(first);
                report.missing.push(FileProblem {
                    path: entry.path,
                    reason: error.to_string(),
                });
                return Ok(());
            }
        }
        report.healed += readers.healed;
        report.bytes += large.size;
    } else {
        stream.header(&entry, &extra, data.len() as u64)?;
        stream.write(data)?;
        stream.pad(data.len() as u64)?;
        stream.events.bytes(data.len() as u64);
        report.bytes += data.len() as u64;
    }
    stream.events.item(crate::bytes::of(Path::new(&entry.path)));
    report.entries += 1;
    Ok(())
}

fn check(readers: &mut Readers<'_>, entry: &Entry) -> Result<Vec<(u64, Id, u64)>> {
    let pieces = pieces(readers, entry)?;
    let mut content = Vec::new();
    for (_, id, size) in &pieces {
        readers.blob_into(id, &mut content)?;
        if content.len() as u64 != *size {
            return Err(Error::malformed(
                format!("blob {}", id.short()),
                "it is not as long as its content list says",
            ));
        }
    }
    Ok(pieces)
}

fn expand(
    readers: &mut Readers<'_>,
    stream: &mut Stream<'_>,
    pieces: &[(u64, Id, u64)],
    size: u64,
) -> Result<()> {
    let mut at = 0;
    let mut content = Vec::new();
    for (offset, id, length) in pieces {
        stream.zeroes(offset - at)?;
        readers.blob_into(id, &mut content)?;
        stream.write(&content)?;
        stream.events.bytes(*length);
        at = offset + length;
    }
    stream.zeroes(size - at)?;
    stream.pad(size)
}
