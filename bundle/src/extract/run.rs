//! Extracting into a directory: directories, then one pass over the packs, then links and metadata.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::dest::{Dest, Lost, set_flags};
use super::plan::{Filter, Plan, pieces, wants};
use super::{ExtractOptions, ExtractReport, FileProblem, Selection};
use crate::catalogue::Catalogue;
use crate::document::Tree;
use crate::events::Events;
use crate::list::EntryKind;
use crate::member::{self, Extra, Member};
use crate::read::Readers;
use crate::store::Store;
use crate::walk::open_root;
use crate::{Error, Id, Result, bytes};

/// Blobs that a worker takes at once: neighbours in a pack, so that reading stays sequential.
const TAKE: usize = 4;

/// What a blob is needed for.
enum Use {
    /// Number of the segment in the plan.
    Segment(usize),
    /// Numbers of large files, and offsets in them.
    Chunk(Vec<(usize, u64)>),
}

/// What the workers share.
struct Shared<'s> {
    stores: &'s [&'s Store],
    plan: &'s Plan,
    work: Vec<(Id, Use)>,
    next: AtomicUsize,
    /// Why a large file cannot be completed.
    broken: Vec<Mutex<Option<String>>>,
    /// Temporary names of large files.
    parts: Vec<PathBuf>,
    /// Metadata that is set at the end: of directories and large files.
    extras: Mutex<HashMap<PathBuf, Extra>>,
    flags: Mutex<Vec<(PathBuf, u32)>>,
    lost_segments: Mutex<HashMap<Id, String>>,
    report: Mutex<ExtractReport>,
    entries: AtomicU64,
    bytes: AtomicU64,
    events: &'s dyn Events,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn problem(path: &Path, reason: impl ToString) -> FileProblem {
    FileProblem {
        path: path.to_path_buf(),
        reason: reason.to_string(),
    }
}

pub(super) fn extract(
    stores: &[&Store],
    tree: &Tree,
    selection: &Selection,
    dest: &Path,
    options: &ExtractOptions,
    events: &dyn Events,
) -> Result<ExtractReport> {
    let root = open_root(dest)?;
    let filter = Filter::new(selection);
    let mut plan = Plan::new(stores, tree, &filter);
    events.phase(&format!("files of {}", tree.mount_point), Some(plan.bytes));
    let mut report = ExtractReport {
        missing: std::mem::take(&mut plan.lost),
        doubtful: std::mem::take(&mut plan.doubtful),
        not_found: std::mem::take(&mut plan.not_found),
        ..ExtractReport::default()
    };
    if !options.privileged {
        report.incomplete_metadata.push(problem(
            Path::new("."),
            "owners and inode flags are kept only for root",
        ));
    }
    let mut to = Dest::new(root.as_fd(), options.privileged);
    for dir in plan.dirs.iter().filter(|d| d.path != Path::new(".")) {
        if let Err(error) = to.make_dir(&dir.path) {
            report
                .missing
                .push(problem(&dir.path, format!("cannot be made: {error}")));
        }
    }
    let mut readers = Readers::new(stores);
    let (work, broken) = schedule(&mut readers, stores, &plan);
    report.healed += readers.healed;
    let parts = plan
        .large
        .iter()
        .enumerate()
        .map(|(n, large)| part_name(&large.out, n))
        .collect();
    let shared = Shared {
        stores,
        plan: &plan,
        work,
        next: AtomicUsize::new(0),
        broken: broken.into_iter().map(Mutex::new).collect(),
        parts,
        extras: Mutex::default(),
        flags: Mutex::default(),
        lost_segments: Mutex::default(),
        report: Mutex::new(report),
        entries: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        events,
    };
    shared.begin_large(&mut to);
    std::thread::scope(|scope| {
        for _ in 0..options.workers.clamp(1, 64) {
            scope.spawn(|| shared.worker(root.as_fd(), options.privileged));
        }
    });
    if events.cancelled() {
        // What is complete stays; half-written files do not.
        for part in &shared.parts {
            let _ = to.remove(part);
        }
        return Err(Error::Cancelled);
    }
    shared.name_lost_entries(tree);
    shared.end_large(&mut to);
    shared.links(&mut to);
    shared.directories(&mut to, root.as_fd());
    if options.privileged {
        shared.set_flags(&mut to, root.as_fd());
    }
    let mut report = lock(&shared.report).clone();
    report.entries = shared.entries.load(Ordering::Relaxed);
    report.bytes = shared.bytes.load(Ordering::Relaxed);
    report.missing.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
}

/// A name beside the file, which it takes when it is complete.
fn part_name(out: &Path, number: usize) -> PathBuf {
    let (parent, _) = bytes::split(bytes::of(out));
    let name = format!(".lifeboat-{}-{number}.part", std::process::id());
    bytes::path(&bytes::join(parent, name.as_bytes()))
}

/// All blobs that are needed, in the order in which they lie on the media.
fn schedule(
    readers: &mut Readers<'_>,
    stores: &[&Store],
    plan: &Plan,
) -> (Vec<(Id, Use)>, Vec<Option<String>>) {
    let mut chunks: BTreeMap<Id, Vec<(usize, u64)>> = BTreeMap::new();
    let mut broken = Vec::new();
    for (n, large) in plan.large.iter().enumerate() {
        match pieces(readers, &large.entry) {
            Ok(pieces) => {
                for (offset, id, _) in pieces {
                    chunks.entry(id).or_default().push((n, offset));
                }
                broken.push(None);
            }
            Err(error) => broken.push(Some(error.to_string())),
        }
    }
    let segments = plan
        .segments
        .iter()
        .enumerate()
        .map(|(n, (id, _))| (*id, Use::Segment(n)));
    let mut work: Vec<_> = segments
        .chain(chunks.into_iter().map(|(id, uses)| (id, Use::Chunk(uses))))
        .collect();
    work.sort_by_cached_key(|(id, _)| {
        // What no store knows comes last, and fails.
        Readers::place(stores, id)
            .map_or((usize::MAX, 0, 0), |(store, l)| (store, l.pack, l.offset))
    });
    (work, broken)
}

impl Shared<'_> {
    fn missing(&self, path: &Path, reason: impl ToString) {
        lock(&self.report).missing.push(problem(path, reason));
    }

    fn made(&self, path: &Path, lost: Lost) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        if !lost.is_empty() {
            lock(&self.report)
                .incomplete_metadata
                .push(problem(path, lost.join("; ")));
        }
    }

    fn wrote(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.events.bytes(bytes);
    }

    /// Makes large files under temporary names, as one hole each.
    fn begin_large(&self, to: &mut Dest<'_>) {
        for (n, large) in self.plan.large.iter().enumerate() {
            let mut broken = lock(&self.broken[n]);
            if broken.is_some() {
                continue;
            }
            let made = to.create(&self.parts[n]).map_err(|e| e.to_string());
            *broken = made
                .and_then(|f| f.set_len(large.entry.size).map_err(|e| e.to_string()))
                .err();
        }
    }

    fn worker(&self, root: BorrowedFd<'_>, privileged: bool) {
        let mut to = Dest::new(root, privileged);
        let mut readers = Readers::new(self.stores);
        let mut content = Vec::new();
        let mut open: Option<(usize, std::fs::File)> = None;
        loop {
            let start = self.next.fetch_add(TAKE, Ordering::Relaxed);
            let end = self.work.len().min(start.saturating_add(TAKE));
            if start >= end {
                break;
            }
            for (id, needed_for) in &self.work[start..end] {
                if self.events.cancelled() {
                    return;
                }
                let read = readers.blob_into(id, &mut content);
                match (needed_for, read) {
                    (Use::Segment(n), Ok(())) => self.segment(*n, &content, &mut to),
                    (Use::Segment(_), Err(error)) => {
                        lock(&self.lost_segments).insert(*id, error.to_string());
                    }
                    (Use::Chunk(uses), Ok(())) => {
                        for (n, offset) in uses {
                            self.chunk(*n, *offset, &content, &mut to, &mut open);
                        }
                    }
                    (Use::Chunk(uses), Err(error)) => {
                        for (n, _) in uses {
                            lock(&self.broken[*n]).get_or_insert_with(|| error.to_string());
                        }
                    }
                }
            }
        }
        lock(&self.report).healed += readers.healed;
    }

    fn chunk(
        &self,
        n: usize,
        offset: u64,
        content: &[u8],
        to: &mut Dest<'_>,
        open: &mut Option<(usize, std::fs::File)>,
    ) {
        if lock(&self.broken[n]).is_some() {
            return;
        }
        // A piece that is longer than its list says would reach into the next one, or beyond the end.
        if offset.saturating_add(content.len() as u64) > self.plan.large[n].entry.size {
            lock(&self.broken[n])
                .get_or_insert_with(|| "a piece reaches beyond the end of the file".to_string());
            return;
        }
        if open.as_ref().is_none_or(|(number, _)| *number != n) {
            match to.reopen(&self.parts[n], OFlag::O_WRONLY) {
                Ok(file) => *open = Some((n, file)),
                Err(error) => {
                    lock(&self.broken[n]).get_or_insert_with(|| error.to_string());
                    return;
                }
            }
        }
        if let Some((_, file)) = open {
            match file.write_all_at(content, offset) {
                Ok(()) => self.wrote(content.len() as u64),
                Err(error) => {
                    lock(&self.broken[n]).get_or_insert_with(|| error.to_string());
                }
            }
        }
    }

    fn segment(&self, n: usize, content: &[u8], to: &mut Dest<'_>) {
        let (id, wanted) = &self.plan.segments[n];
        let read = member::read(content, &mut |member| {
            if wants(wanted, &member.entry.path) {
                self.member(member, to);
            }
        });
        if let Err(reason) = read {
            lock(&self.lost_segments).insert(*id, format!("segment {}: {reason}", id.short()));
        }
    }

    fn member(&self, member: Member<'_>, to: &mut Dest<'_>) {
        let Member {
            entry,
            mut extra,
            data,
        } = member;
        let out = self.plan.out(&entry.path);
        // Nothing else has flags, and opening a device node to set some would disturb the device.
        if extra.flags != 0 && matches!(entry.kind, EntryKind::File | EntryKind::Dir) {
            // An immutable file takes no further names, an immutable directory no contents.
            lock(&self.flags).push((out.to_path_buf(), extra.flags));
            extra.flags = 0;
        }
        let made = match entry.kind {
            EntryKind::Hardlink => return,
            EntryKind::Dir => {
                lock(&self.extras).insert(entry.path, extra);
                return;
            }
            EntryKind::File if entry.content.is_some() => {
                lock(&self.extras).insert(entry.path, extra);
                return;
            }
            EntryKind::File => {
                let made = to.file(out, &entry, &extra, data);
                if made.is_ok() {
                    self.wrote(data.len() as u64);
                }
                made
            }
            _ => to.special(out, &entry, &extra),
        };
        match made {
            Ok(lost) => self.made(out, lost),
            Err(error) => self.missing(out, format!("cannot be made: {error}")),
        }
    }

    /// Which files were in the segments that are lost? The catalogue knows.
    fn name_lost_entries(&self, tree: &Tree) {
        let lost = lock(&self.lost_segments);
        if lost.is_empty() {
            return;
        }
        let wanted: HashMap<_, _> = self
            .plan
            .segments
            .iter()
            .map(|(id, wanted)| (*id, wanted))
            .collect();
        let blobs = self.plan.catalogue(tree);
        for line in Catalogue::of(Readers::new(self.stores), &blobs).flatten() {
            let (Some(reason), Some(wanted)) = (lost.get(&line.segment), wanted.get(&line.segment))
            else {
                continue;
            };
            for entry in line
                .entries
                .iter()
                .filter(|e| e.is_kept() && wants(wanted, &e.path))
            {
                let out = self.plan.out(&entry.path);
                match entry.kind {
                    // These come from the catalogue and lack only their xattrs and flags.
                    EntryKind::Hardlink => {}
                    EntryKind::Dir => {
                        let reason =
                            format!("extended attributes and inode flags are lost: {reason}");
                        lock(&self.report)
                            .incomplete_metadata
                            .push(problem(out, reason));
                    }
                    EntryKind::File if entry.content.is_some() => {
                        let reason =
                            format!("extended attributes and inode flags are lost: {reason}");
                        lock(&self.report)
                            .incomplete_metadata
                            .push(problem(out, reason));
                    }
                    // A member before the damage may have been made; one that is there is right.
                    _ => self.missing(out, reason),
                }
            }
        }
    }

    fn end_large(&self, to: &mut Dest<'_>) {
        for (n, large) in self.plan.large.iter().enumerate() {
            let part = &self.parts[n];
            let result = match lock(&self.broken[n]).take() {
                Some(reason) => Err(reason),
                None => {
                    let extra = lock(&self.extras)
                        .remove(&large.entry.path)
                        .unwrap_or_default();
                    to.reopen(part, OFlag::O_RDONLY)
                        .map(|file| to.metadata(file.as_fd(), &large.entry, &extra))
                        .and_then(|lost| to.rename(part, &large.out).map(|()| lost))
                        .map_err(|e| e.to_string())
                }
            };
            match result {
                Ok(lost) => self.made(&large.out, lost),
                Err(reason) => {
                    let _ = to.remove(part);
                    self.missing(&large.out, reason);
                }
            }
        }
    }

    fn links(&self, to: &mut Dest<'_>) {
        for (path, first) in &self.plan.links {
            match to.link(self.plan.out(first), path) {
                Ok(()) => self.made(path, Lost::new()),
                Err(Errno::ENOENT) => {
                    self.missing(
                        path,
                        format!("it is a link to {}, which is missing", first.display()),
                    );
                }
                Err(error) => self.missing(
                    path,
                    format!("cannot be linked to {}: {error}", first.display()),
                ),
            }
        }
    }

    /// Deepest first, as making something in a directory changes its time.
    fn directories(&self, to: &mut Dest<'_>, root: BorrowedFd<'_>) {
        for dir in self.plan.dirs.iter().rev() {
            let extra = lock(&self.extras).remove(&dir.path).unwrap_or_default();
            let lost = match open(to, root, &dir.path) {
                Ok(fd) => to.metadata(fd.as_fd(), dir, &extra),
                // Already reported when it was to be made.
                Err(Errno::ENOENT) => continue,
                Err(error) => vec![format!("cannot be opened: {error}")],
            };
            self.made(&dir.path, lost);
        }
    }

    fn set_flags(&self, to: &mut Dest<'_>, root: BorrowedFd<'_>) {
        for (path, flags) in lock(&self.flags).iter() {
            let set = open(to, root, path).and_then(|file| set_flags(file.as_fd(), *flags));
            if let Err(error) = set {
                let reason = format!("inode flags: {}", error.desc());
                lock(&self.report)
                    .incomplete_metadata
                    .push(problem(path, reason));
            }
        }
    }
}

fn open(
    to: &mut Dest<'_>,
    root: BorrowedFd<'_>,
    path: &Path,
) -> std::result::Result<std::fs::File, Errno> {
    if path == Path::new(".") {
        let copy = root
            .try_clone_to_owned()
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
        return Ok(copy.into());
    }
    to.reopen(path, OFlag::O_RDONLY)
}
