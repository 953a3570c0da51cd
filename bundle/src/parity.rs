//! Parity: a file beside each file of the store, from which damage up to its size is repaired.
//!
//! `<name>.par` holds Reed-Solomon shards of `<name>`. The file is cut into shards; shard number `i` belongs to group
//! `i % groups`, so that a burst of damage is spread over all groups and memory is needed for one group only. Each
//! shard has a short hash, which tells the damaged ones; the SHA-256 of the whole file tells whether the repair is right.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::format::{FORMAT, Versioned, parse};
use crate::fsutil::{self, Temporary};
use crate::{Error, Id, Result};

/// What the names of parity files end with.
const SUFFIX: &str = ".par";
/// Where the store records how much parity its writers make.
const SETTING: &str = "parity.json";
/// The most a group holds of the file.
const GROUP: u64 = 16 << 20;
/// The largest shard: a page of the medium.
const MAX_SHARD: u64 = 4096;
/// Small files have at least this many recovery shards.
const MIN_RECOVERY: u64 = 4;
/// The most that can be asked for.
pub const MAX_PERCENT: u32 = 50;
/// Bytes of a shard's hash in the table.
const HASH: usize = 8;
/// The header, at the beginning and again at the end.
const HEADER: usize = 210;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    format: u32,
    percent: u32,
}

impl Versioned for Setting {
    fn format(&self) -> u32 {
        self.format
    }
}

/// How a file is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    size: u64,
    shard: u64,
    groups: u64,
    /// Recovery shards of each group.
    recovery: u64,
    percent: u32,
    file: Id,
    /// SHA-256 of what is between the two headers.
    body: Id,
}

impl Header {
    fn new(size: u64, file: Id, percent: u32) -> Header {
        let shard = if size >= 1 << 20 {
            MAX_SHARD
        } else {
            size.div_ceil(256).next_multiple_of(64).clamp(64, MAX_SHARD)
        };
        let shards = size.div_ceil(shard).max(1);
        let groups = shards.div_ceil(GROUP / shard);
        let largest = shards.div_ceil(groups);
        Header {
            size,
            shard,
            groups,
            recovery: (largest * u64::from(percent))
                .div_ceil(100)
                .max(MIN_RECOVERY),
            percent,
            file,
            body: Id::of(b""),
        }
    }

    fn shards(&self) -> u64 {
        self.size.div_ceil(self.shard).max(1)
    }

    /// Data shards of a group.
    fn data(&self, group: u64) -> u64 {
        (self.shards() - group).div_ceil(self.groups)
    }

    fn recovery_shards(&self) -> u64 {
        self.groups * self.recovery
    }

    fn table(&self) -> u64 {
        (self.shards() + self.recovery_shards()) * HASH as u64
    }

    fn parity_size(&self) -> u64 {
        2 * HEADER as u64 + self.table() + self.recovery_shards() * self.shard
    }

    fn line(&self) -> String {
        let text = format!(
            "LIFEBOAT-PARITY 1 {:020} {:07} {:05} {:05} {:03} {} {}",
            self.size, self.shard, self.groups, self.recovery, self.percent, self.file, self.body
        );
        let check = &Id::of(text.as_bytes()).to_string()[..16];
        format!("{text} {check}\n")
    }

    /// A header that is whole and describes what a writer makes.
    fn parse(line: &[u8]) -> Option<Header> {
        let text = std::str::from_utf8(line).ok()?;
        let mut fields = text.strip_prefix("LIFEBOAT-PARITY 1 ")?.split(' ');
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (size, shard, groups) = (number()?, number()?, number()?);
        let (recovery, percent) = (number()?, u32::try_from(number()?).ok()?);
        let file = fields.next()?.parse().ok()?;
        let body = fields.next()?.parse().ok()?;
        if size > u64::from(u32::MAX) || percent > MAX_PERCENT {
            return None;
        }
        let header = Header {
            body,
            ..Header::new(size, file, percent)
        };
        let same = (header.shard, header.groups, header.recovery) == (shard, groups, recovery);
        // Also compares the check digits, and that nothing follows.
        (same && header.line().as_bytes() == line).then_some(header)
    }
}

fn short_hash(bytes: &[u8]) -> [u8; HASH] {
    let mut short = [0; HASH];
    short.copy_from_slice(&Id::of(bytes).as_bytes()[..HASH]);
    short
}

/// The parity file that belongs to a file.
pub(crate) fn path_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_os_string();
    name.push(SUFFIX);
    name.into()
}

/// Removes a file on purpose: its parity first, which alone would say that the file was lost. That there is none, or no
/// file any more, is no error.
pub(crate) fn remove_with(file: &Path) -> Result<()> {
    fsutil::remove(&path_of(file))?;
    fsutil::remove(file)
}

/// To be called before snapshot documents of a directory are removed on purpose: removes their parity, and syncs that.
/// Otherwise a power cut could undo it and leave the parity alone, which says that the document was lost.
pub(crate) fn remove_of_documents(dir: &Path, documents: &[&Path]) -> Result<()> {
    let parity = documents.iter().map(|document| path_of(document));
    let parity: Vec<PathBuf> = parity.filter(|parity| parity.exists()).collect();
    if parity.is_empty() {
        return Ok(());
    }
    parity
        .iter()
        .try_for_each(|parity| fsutil::remove(parity))?;
    fsutil::sync_dir(dir)
}

/// How much parity writers of this store make, in percent; 0 when none.
pub(crate) fn percent(root: &Path) -> u32 {
    match recorded(root) {
        Ok(percent) => percent,
        Err(error) => {
            tracing::warn!("{error}");
            // Parity that was made before says the same.
            let beside = |name: &str| fsutil::names(&root.join(name)).unwrap_or_default();
            let found = ["snapshots", "index"].into_iter().find_map(|dir| {
                let names = beside(dir).into_iter().filter(|n| n.ends_with(SUFFIX));
                names
                    .filter_map(|name| open(&root.join(dir).join(name)).ok())
                    .map(|(_, header)| header.percent)
                    .next()
            });
            found.unwrap_or(0)
        }
    }
}

/// What is recorded; an error when the record is damaged.
pub(crate) fn recorded(root: &Path) -> Result<u32> {
    let path = root.join(SETTING);
    let json = match fsutil::read_cold(&path, 1 << 16) {
        Ok(json) => json,
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let setting = parse::<Setting>(&path, &json, FORMAT)?;
    if setting.percent > MAX_PERCENT {
        return Err(Error::malformed(path.display(), "it asks for too much"));
    }
    Ok(setting.percent)
}

/// Records how much parity writers of this store make.
pub(crate) fn record(root: &Path, percent: u32) -> Result<()> {
    if recorded(root).is_ok_and(|known| known == percent) {
        return Ok(());
    }
    let path = root.join(SETTING);
    let setting = Setting {
        format: FORMAT,
        percent: percent.min(MAX_PERCENT),
    };
    let mut json = serde_json::to_vec(&setting).map_err(|e| Error::malformed(path.display(), e))?;
    json.push(b'\n');
    fsutil::write_file(root, &path, &json)
}

/// The hash that the name of a pack, index or snapshot document gives.
fn hash_in_name(file: &Path) -> Option<Id> {
    let stem = file.file_stem()?.to_str()?;
    stem.rsplit('-').next()?.parse().ok()
}

/// Writes the parity of a file that was just written, as far as the store makes any. Returns the bytes written.
pub(crate) fn protect(root: &Path, file: &Path) -> Result<u64> {
    match (percent(root), hash_in_name(file)) {
        (0, _) | (_, None) => Ok(0),
        (percent, Some(id)) => write(root, file, id, percent),
    }
}

fn write(root: &Path, path: &Path, id: Id, percent: u32) -> Result<u64> {
    let file = fsutil::open_file(path).map_err(Error::io("open", path))?;
    let size = file.metadata().map_err(Error::io("examine", path))?.len();
    let mut header = Header::new(size, id, percent);
    let parity = path_of(path);
    let failed = |e: reed_solomon_simd::Error| Error::malformed(parity.display(), e);
    let (temporary, out) = Temporary::create(root)?;
    let mut writer = BufWriter::with_capacity(1 << 20, &out);
    let start = HEADER as u64 + header.table();
    std::io::Seek::seek(&mut writer, std::io::SeekFrom::Start(start))
        .map_err(Error::io("write", &parity))?;
    let mut table = vec![0; header.table() as usize];
    let mut body = Sha256::new();
    let mut shards = Sha256::new();
    let mut buffer = vec![0; header.shard as usize];
    let mut encoder: Option<ReedSolomonEncoder> = None;
    let (recovery, shard) = (header.recovery as usize, header.shard as usize);
    let mut slot = header.shards() as usize;
    let mut put = |number: usize, bytes: &[u8]| {
        table[number * HASH..][..HASH].copy_from_slice(&short_hash(bytes));
    };
    let mut all = Vec::new();
    for group in 0..header.groups {
        let data = header.data(group) as usize;
        let encoder = match &mut encoder {
            Some(encoder) => {
                encoder.reset(data, recovery, shard).map_err(failed)?;
                encoder
            }
            none => none.insert(ReedSolomonEncoder::new(data, recovery, shard).map_err(failed)?),
        };
        for at in 0..data as u64 {
            let number = group + at * header.groups;
            read_shard(&file, &header, number, &mut buffer).map_err(Error::io("read", path))?;
            put(number as usize, &buffer);
            encoder.add_original_shard(&buffer).map_err(failed)?;
        }
        let encoded = encoder.encode().map_err(failed)?;
        for bytes in encoded.recovery_iter() {
            put(slot, bytes);
            slot += 1;
            all.extend_from_slice(bytes);
        }
        writer
            .write_all(&all)
            .map_err(Error::io("write", &parity))?;
        shards.update(&all);
        all.clear();
    }
    // The body's hash covers the hash of the shards, so that they need not be kept until the table is complete.
    body.update(&table);
    body.update(shards.finalize());
    header.body = Id::from_bytes(body.finalize().into());
    let line = header.line();
    writer
        .write_all(line.as_bytes())
        .and_then(|()| writer.flush())
        .map_err(Error::io("write", &parity))?;
    drop(writer);
    out.write_all_at(line.as_bytes(), 0)
        .and_then(|()| out.write_all_at(&table, HEADER as u64))
        .map_err(Error::io("write", &parity))?;
    out.sync_all().map_err(Error::io("sync", &parity))?;
    fsutil::publish(&temporary, &parity)?;
    fsutil::forget_cached(&out);
    Ok(header.parity_size())
}

/// Reads a data shard; beyond the end of the file it is zeroes, as when it was encoded.
fn read_shard(file: &File, header: &Header, number: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    let offset = number * header.shard;
    let length = header.size.saturating_sub(offset).min(header.shard) as usize;
    buffer[length..].fill(0);
    file.read_exact_at(&mut buffer[..length], offset)
}

/// Opens a parity file: one of its two headers is enough.
fn open(path: &Path) -> Result<(File, Header)> {
    let file = fsutil::open_file(path).map_err(Error::io("open", path))?;
    fsutil::forget_cached(&file);
    let size = file.metadata().map_err(Error::io("examine", path))?.len();
    let read = |offset: u64| {
        let mut line = [0; HEADER];
        file.read_exact_at(&mut line, offset).ok()?;
        Header::parse(&line)
    };
    let header = read(0).or_else(|| read(size.checked_sub(HEADER as u64)?));
    match header {
        Some(header) => Ok((file, header)),
        None => Err(Error::malformed(
            path.display(),
            "it has no whole header: there is nothing to repair with",
        )),
    }
}

/// Why a parity file would not help, or not fully.
fn flaw(parity: &Path, id: Id) -> Result<Option<&'static str>> {
    let (file, header) = open(parity)?;
    let size = file.metadata().map_err(Error::io("examine", parity))?.len();
    if header.file != id {
        return Ok(Some("it is the parity of another file"));
    }
    if size != header.parity_size() {
        return Ok(Some("it was truncated or overwritten"));
    }
    let line = header.line();
    let mut lines = [[0; HEADER]; 2];
    let mut table = vec![0; header.table() as usize];
    file.read_exact_at(&mut lines[0], 0)
        .and_then(|()| file.read_exact_at(&mut lines[1], size - HEADER as u64))
        .and_then(|()| file.read_exact_at(&mut table, HEADER as u64))
        .map_err(Error::io("read", parity))?;
    let mut shards = Sha256::new();
    let mut at = HEADER as u64 + header.table();
    let mut buffer = vec![0; 1 << 20];
    while at < size - HEADER as u64 {
        let length = (size - HEADER as u64 - at).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..length], at)
            .map_err(Error::io("read", parity))?;
        shards.update(&buffer[..length]);
        at += length as u64;
    }
    fsutil::forget_cached(&file);
    let mut body = Sha256::new();
    body.update(&table);
    body.update(shards.finalize());
    let whole = Id::from_bytes(body.finalize().into()) == header.body
        && lines.iter().all(|l| l == line.as_bytes());
    Ok((!whole).then_some("its content does not have the hash that its header gives"))
}

/// What is wrong with the parity of a file; nothing when it is right or there is none.
pub(crate) fn check(file: &Path) -> Option<String> {
    let id = hash_in_name(file)?;
    match flaw(&path_of(file), id) {
        Ok(None) => None,
        Ok(Some(reason)) => Some(reason.to_string()),
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
        Err(Error::Malformed { reason, .. }) => Some(reason),
        Err(error) => Some(error.to_string()),
    }
}

/// Repairs a file from its parity: into a temporary file, whose hash is compared before it takes the name. The error
/// says why that is not possible.
pub(crate) fn repair(root: &Path, path: &Path) -> Result<()> {
    let id = hash_in_name(path)
        .ok_or_else(|| Error::malformed(path.display(), "its name is not a hash"))?;
    let parity_path = path_of(path);
    let (parity, header) = open(&parity_path)?;
    let wrong = |reason: String| Error::malformed(path.display(), reason);
    if header.file != id {
        return Err(wrong("its parity is of another file".into()));
    }
    let file = fsutil::open_file(path).map_err(Error::io("open", path))?;
    fsutil::forget_cached(&file);
    // A table that cannot be read makes all hashes wrong, and the repair impossible: that is said below.
    let mut table = vec![0; header.table() as usize];
    let _ = parity.read_exact_at(&mut table, HEADER as u64);
    let hash = |number: u64| &table[number as usize * HASH..][..HASH];
    let (temporary, out) = Temporary::create(root)?;
    let (recovery, shard) = (header.recovery as usize, header.shard as usize);
    let mut buffer = vec![0; shard];
    for group in 0..header.groups {
        let data = header.data(group);
        let mut bad = Vec::new();
        for at in 0..data {
            let number = group + at * header.groups;
            let whole = read_shard(&file, &header, number, &mut buffer).is_ok()
                && short_hash(&buffer)[..] == *hash(number);
            if !whole {
                bad.push(at as usize);
            } else {
                write_shard(&out, &header, number, &buffer)
                    .map_err(Error::io("write a repair of", path))?;
            }
        }
        if bad.is_empty() {
            continue;
        }
        let failed = |e: reed_solomon_simd::Error| {
            Error::malformed(
                path.display(),
                format!("it has more damage than its parity can repair ({e})"),
            )
        };
        let mut decoder =
            ReedSolomonDecoder::new(data as usize, recovery, shard).map_err(failed)?;
        for at in (0..data).filter(|at| bad.binary_search(&(*at as usize)).is_err()) {
            let number = group + at * header.groups;
            read_shard(&out, &header, number, &mut buffer)
                .map_err(Error::io("read a repair of", path))?;
            decoder
                .add_original_shard(at as usize, &buffer)
                .map_err(failed)?;
        }
        for at in 0..header.recovery {
            let number = group * header.recovery + at;
            let offset = HEADER as u64 + header.table() + number * header.shard;
            let whole = parity.read_exact_at(&mut buffer, offset).is_ok()
                && short_hash(&buffer)[..] == *hash(header.shards() + number);
            if whole {
                decoder
                    .add_recovery_shard(at as usize, &buffer)
                    .map_err(failed)?;
            }
        }
        let decoded = decoder.decode().map_err(failed)?;
        for at in bad {
            let number = group + at as u64 * header.groups;
            let bytes = decoded
                .restored_original(at)
                .ok_or(Error::Internal("a shard was not restored"))?;
            write_shard(&out, &header, number, bytes)
                .map_err(Error::io("write a repair of", path))?;
        }
    }
    out.sync_all()
        .map_err(Error::io("sync a repair of", path))?;
    fsutil::forget_cached(&out);
    if hash_of(&out).map_err(Error::io("read a repair of", path))? != id {
        return Err(wrong(
            "what its parity gives does not have the hash that is its name".into(),
        ));
    }
    fsutil::publish(&temporary, path)
}

fn write_shard(out: &File, header: &Header, number: u64, bytes: &[u8]) -> std::io::Result<()> {
    let offset = number * header.shard;
    let length = header.size.saturating_sub(offset).min(header.shard) as usize;
    out.write_all_at(&bytes[..length], offset)
}

/// SHA-256 of a whole file.
fn hash_of(file: &File) -> std::io::Result<Id> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at)? {
            0 => return Ok(Id::from_bytes(hasher.finalize().into())),
            n => {
                hasher.update(&buffer[..n]);
                at += n as u64;
            }
        }
    }
}

/// SHA-256 of a whole file, read from the medium.
pub(crate) fn hash_cold(path: &Path) -> Result<Id> {
    let file = fsutil::open_file(path).map_err(Error::io("open", path))?;
    fsutil::forget_cached(&file);
    hash_of(&file).map_err(Error::io("read", path))
}

/// Files that have parity in a store that makes any, with their hashes.
pub(crate) fn protected(root: &Path) -> Result<Vec<(PathBuf, Id)>> {
    let files = listed(root)?.0.into_iter();
    Ok(files
        .filter_map(|f| Some((hash_in_name(&f)?, f)))
        .map(|(id, f)| (f, id))
        .collect())
}

/// The files to protect, and the parity files there are.
fn listed(root: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut dirs = vec![root.join("index"), root.join("snapshots")];
    let packs = root.join("packs");
    let sub = fsutil::names(&packs)?.into_iter().map(|n| packs.join(n));
    dirs.extend(sub.filter(|d| d.is_dir()));
    let (mut files, mut parity) = (Vec::new(), Vec::new());
    for dir in dirs {
        for name in fsutil::names(&dir)? {
            let path = dir.join(&name);
            if name.ends_with(SUFFIX) {
                parity.push(path);
            } else if hash_in_name(&path).is_some() {
                files.push(path);
            }
        }
    }
    Ok((files, parity))
}

/// Snapshot documents that are gone though their parity is there: they were not removed on purpose.
pub(crate) fn lost_documents(root: &Path) -> Result<Vec<PathBuf>> {
    let dir = root.join("snapshots");
    let names = fsutil::names(&dir)?;
    let lost = names.iter().filter_map(|name| name.strip_suffix(SUFFIX));
    Ok(lost.map(|n| dir.join(n)).filter(|f| !f.exists()).collect())
}

/// What [`complete`] changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Completed {
    /// Parity files that were written.
    pub written: Vec<PathBuf>,
    /// Damaged ones of whole files that were removed, since the store makes no parity any more.
    pub removed: Vec<PathBuf>,
}

/// Makes what parity is missing or damaged in a store that makes any, and removes what belongs to no file any more.
/// With `renew`, damaged parity is made anew, or removed where the store makes none. Files that are damaged themselves
/// keep what they have.
pub(crate) fn complete(root: &Path, renew: bool) -> Result<Completed> {
    let percent = percent(root);
    let (files, parity) = listed(root)?;
    for parity in parity {
        let file = parity.with_extension("");
        // A missing document's parity tells that it was not removed on purpose.
        let document = file.parent().is_some_and(|d| d.ends_with("snapshots"));
        if !document && !file.exists() {
            fsutil::remove(&parity)?;
        }
    }
    let mut done = Completed::default();
    for file in files {
        let Some(id) = hash_in_name(&file) else {
            continue;
        };
        let parity = path_of(&file);
        let missing = percent > 0 && !parity.exists();
        let wanted = missing || renew && check(&file).is_some();
        if !wanted || hash_cold(&file)? != id {
            continue;
        }
        if percent > 0 {
            write(root, &file, id, percent)?;
            done.written.push(parity);
        } else {
            // Synced: come back after the document was removed, it would say that that was lost.
            fsutil::remove(&parity)?;
            if let Some(dir) = parity.parent() {
                fsutil::sync_dir(dir)?;
            }
            done.removed.push(parity);
        }
    }
    Ok(done)
}

#[cfg(test)]
#[path = "parity_tests.rs"]
mod tests;
