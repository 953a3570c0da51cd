//! Packs: blobs one after the other, a footer that lists them, a trailer that finds the footer.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::codec::{Encoding, MAX_BLOB, pack_json, unpack_json};
use crate::crypt::{self, FileCipher, FileKind, Part, StoreCipher};
use crate::format::{BlobEntry, FORMAT, Kind, Versioned, parse};
use crate::fsutil::{self, Temporary};
use crate::index::Location;
use crate::store::{Scratch, Store};
use crate::{Error, Id, Result, parity};

/// The first line of every pack.
pub(crate) const MAGIC: &[u8] = b"LIFEBOAT-PACK 1\n";
/// `LIFEBOAT-FOOTER 1 <length, 10 digits> <SHA-256 of the stored footer>\n`
pub(crate) const TRAILER_SIZE: u64 = 94;
/// The most a footer may expand to: a pack of 4 GiB of one-kilobyte blobs stays below.
const MAX_FOOTER: u64 = 1 << 30;
/// How much may be written before the kernel is told to begin writing back, so that the final sync is short.
const WRITEBACK_STEP: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    format: u32,
    blobs: Vec<BlobEntry>,
}

impl Versioned for Footer {
    fn format(&self) -> u32 {
        self.format
    }
}

/// A pack as the index lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackEntry {
    /// SHA-256 of the whole file.
    pub id: Id,
    /// Size of the whole file.
    pub size: u64,
    pub blobs: Vec<BlobEntry>,
}

/// Where a pack of this id lies below `lifeboat/`.
pub(crate) fn pack_name(id: &Id) -> String {
    let hex = id.to_string();
    format!("packs/{}/{hex}.pack", &hex[..2])
}

/// A pack that is being written, under a temporary name.
pub(crate) struct PackWriter {
    root: PathBuf,
    temporary: Temporary,
    file: File,
    hasher: Sha256,
    size: u64,
    started: u64,
    blobs: Vec<BlobEntry>,
    cipher: Option<FileCipher>,
    sealed: Vec<u8>,
}

impl PackWriter {
    pub(crate) fn create(root: &Path, cipher: Option<&StoreCipher>) -> Result<PackWriter> {
        let key = cipher.map(|c| c.create(FileKind::Pack)).transpose()?;
        let (temporary, file) = Temporary::create(root)?;
        let mut writer = PackWriter {
            root: root.to_path_buf(),
            temporary,
            file,
            hasher: Sha256::new(),
            size: 0,
            started: 0,
            blobs: Vec::new(),
            cipher: None,
            sealed: Vec::new(),
        };
        match key {
            Some((cipher, header)) => {
                writer.write(&header)?;
                writer.cipher = Some(cipher);
            }
            None => writer.write(MAGIC)?,
        }
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(Error::io("write a pack to", &self.root))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Blobs written so far.
    pub(crate) fn blobs(&self) -> usize {
        self.blobs.len()
    }

    /// Bytes written so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn append(
        &mut self,
        id: Id,
        kind: Kind,
        codec: Encoding,
        stored: &[u8],
        raw: u64,
    ) -> Result<()> {
        let offset = self.size;
        let length = match &self.cipher {
            Some(cipher) => {
                let mut sealed = std::mem::take(&mut self.sealed);
                sealed.clear();
                sealed.extend_from_slice(stored);
                cipher.seal(Part::Blob(offset, id), &mut sealed)?;
                let written = self.write(&sealed);
                self.sealed = sealed;
                written?;
                stored.len() + crypt::TAG
            }
            None => {
                self.write(stored)?;
                stored.len()
            }
        };
        self.blobs.push(BlobEntry {
            id,
            kind,
            codec,
            offset,
            stored: length as u64,
            raw,
        });
        if self.size - self.started >= WRITEBACK_STEP {
            begin_writeback(&self.file, self.started, self.size - self.started);
            self.started = self.size;
        }
        Ok(())
    }

    /// Ends the pack: afterwards only the sync and the name are missing.
    pub(crate) fn finish(mut self) -> Result<FinishedPack> {
        let footer = Footer {
            format: FORMAT,
            blobs: std::mem::take(&mut self.blobs),
        };
        let json = serde_json::to_vec(&footer)
            .map_err(|e| Error::malformed("the footer of a new pack", e))?;
        let mut stored =
            pack_json(&json).map_err(Error::io("compress the footer of a pack for", &self.root))?;
        if let Some(cipher) = &self.cipher {
            cipher.seal(Part::Footer, &mut stored)?;
        }
        let trailer = format!(
            "LIFEBOAT-FOOTER 1 {:010} {}\n",
            stored.len(),
            Id::of(&stored)
        );
        self.write(&stored)?;
        self.write(trailer.as_bytes())?;
        let PackWriter {
            root,
            temporary,
            file,
            hasher,
            size,
            ..
        } = self;
        let entry = PackEntry {
            id: Id::from_bytes(hasher.finalize().into()),
            size,
            blobs: footer.blobs,
        };
        Ok(FinishedPack {
            root,
            temporary,
            file,
            entry,
        })
    }
}

/// A complete pack that has no name yet.
pub(crate) struct FinishedPack {
    root: PathBuf,
    temporary: Temporary,
    file: File,
    entry: PackEntry,
}

impl FinishedPack {
    /// Syncs the pack and gives it its name; slow, so it runs beside the writing of the next pack.
    pub(crate) fn seal(self) -> Result<PackEntry> {
        let name = self.root.join(pack_name(&self.entry.id));
        self.file.sync_all().map_err(Error::io("sync", &name))?;
        fsutil::publish(&self.temporary, &name)?;
        parity::protect(&self.root, &name)?;
        // A backup should not push the host's working set out of memory.
        fsutil::forget_cached(&self.file);
        Ok(self.entry)
    }
}

/// Copies a blob into another pack as it is stored, its content compared with its id. The inner error says, in words,
/// why it cannot be read.
pub(crate) fn copy(
    from: &Store,
    place: &Location,
    scratch: &mut Scratch,
    content: &mut Vec<u8>,
    to: &mut PackWriter,
) -> Result<Result<u64, String>> {
    if let Err(reason) = from.read_at(place, scratch, content) {
        return Ok(Err(reason));
    }
    let raw = u64::from(place.raw);
    to.append(place.id, place.kind, place.codec, scratch.stored(), raw)?;
    Ok(Ok(u64::from(place.stored)))
}

fn begin_writeback(file: &File, offset: u64, length: u64) {
    use std::os::fd::AsRawFd;
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else {
        return;
    };
    // SAFETY: the call takes numbers and an open descriptor only. It is advice: errors show at the final sync.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset,
            length,
            libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}

/// An open pack, with the key to it if it is encrypted.
#[derive(Debug)]
pub(crate) struct PackFile {
    pub file: File,
    pub cipher: Option<FileCipher>,
}

impl PackFile {
    /// Opens a pack of a store with this cipher. What is wrong with its beginning shows when it is read.
    pub(crate) fn open(path: &Path, cipher: Option<&StoreCipher>) -> Result<PackFile> {
        let file = fsutil::open_file(path).map_err(Error::io("open", path))?;
        let cipher = match cipher {
            Some(cipher) => Some(key_of(&file, path, cipher)?),
            None => None,
        };
        Ok(PackFile { file, cipher })
    }

    /// Decrypts a blob in place.
    pub(crate) fn unseal(&self, offset: u64, id: &Id, stored: &mut Vec<u8>) -> Result<(), String> {
        match &self.cipher {
            Some(cipher) => cipher.open(Part::Blob(offset, *id), stored),
            None => Ok(()),
        }
    }
}

/// The key of an encrypted pack, out of its header.
fn key_of(file: &File, path: &Path, cipher: &StoreCipher) -> Result<FileCipher> {
    let mut header = [0; crypt::HEADER];
    file.read_exact_at(&mut header, 0)
        .map_err(Error::io("read", path))?;
    cipher
        .of_header(FileKind::Pack, &header)
        .map_err(|e| Error::malformed(path.display(), e))
}

/// Reads a pack's footer and checks that it fits the file.
pub(crate) fn read_footer(
    path: &Path,
    cipher: Option<&StoreCipher>,
) -> Result<(u64, Vec<BlobEntry>)> {
    let file = fsutil::open_file(path).map_err(Error::io("open", path))?;
    let size = file.metadata().map_err(Error::io("examine", path))?.len();
    footer_of(&file, path, size, cipher).map(|blobs| (size, blobs))
}

/// The same of an open file.
pub(crate) fn footer_of(
    file: &File,
    path: &Path,
    size: u64,
    cipher: Option<&StoreCipher>,
) -> Result<Vec<BlobEntry>> {
    let damaged = |reason: &str| Error::malformed(path.display(), reason);
    let magic = cipher.map_or(MAGIC.len(), |_| crypt::HEADER) as u64;
    if size < magic + TRAILER_SIZE {
        return Err(damaged("the pack is truncated: it has no trailer"));
    }
    let mut start = [0; MAGIC.len()];
    file.read_exact_at(&mut start, 0)
        .map_err(Error::io("read", path))?;
    let key = cipher.map(|c| key_of(file, path, c)).transpose()?;
    if key.is_none() && start != *MAGIC {
        return Err(match start.strip_prefix(b"LIFEBOAT-PACK ") {
            Some(version) => Error::UnknownFormat {
                path: path.to_path_buf(),
                found: String::from_utf8_lossy(version).trim_end().to_string(),
                known: FORMAT,
            },
            None => damaged("it does not begin like a pack"),
        });
    }
    let mut trailer = [0; TRAILER_SIZE as usize];
    file.read_exact_at(&mut trailer, size - TRAILER_SIZE)
        .map_err(Error::io("read", path))?;
    let fields = std::str::from_utf8(&trailer)
        .ok()
        .and_then(|t| t.strip_prefix("LIFEBOAT-FOOTER 1 "))
        .and_then(|t| t.strip_suffix('\n'))
        .and_then(|t| t.split_once(' '))
        .and_then(|(length, id)| Some((length.parse::<u64>().ok()?, id.parse::<Id>().ok()?)));
    let Some((length, id)) = fields else {
        return Err(damaged(
            "the pack is truncated or overwritten: its trailer is not one",
        ));
    };
    let end = size - TRAILER_SIZE;
    if length > (end - magic).min(MAX_FOOTER) {
        return Err(damaged("the trailer gives a footer longer than the pack"));
    }
    let mut stored = vec![0; length as usize];
    file.read_exact_at(&mut stored, end - length)
        .map_err(Error::io("read", path))?;
    if Id::of(&stored) != id {
        return Err(damaged(
            "the footer does not have the hash that the trailer gives",
        ));
    }
    if let Some(key) = key {
        key.open(Part::Footer, &mut stored)
            .map_err(|e| damaged(&format!("the footer: {e}")))?;
    }
    let json =
        unpack_json(&stored, MAX_FOOTER).map_err(|e| damaged(&format!("the footer: {e}")))?;
    let footer: Footer = parse(path, &json, FORMAT)?;
    check_entries(&footer.blobs, size).map_err(|e| damaged(&e))?;
    Ok(footer.blobs)
}

/// Do these entries describe places inside a pack of `size` bytes?
pub(crate) fn check_entries(blobs: &[BlobEntry], size: u64) -> Result<(), String> {
    // Offsets are kept in 32 bits in memory.
    if size > u64::from(u32::MAX) {
        return Err("a pack of 4 GiB or more is larger than any writer makes".to_string());
    }
    for blob in blobs {
        let end = blob.offset.checked_add(blob.stored);
        if end.is_none_or(|end| end > size)
            || blob.offset < MAGIC.len() as u64
            || blob.raw > MAX_BLOB
            // No writer keeps a compressed form that is not smaller.
            || blob.stored > MAX_BLOB
        {
            return Err(format!(
                "blob {} is said to lie where the pack has no room for it",
                blob.id
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn entries_that_would_exhaust_memory_are_refused() {
        let entry = |stored, raw| BlobEntry {
            id: Id::of(b""),
            kind: Kind::Chunk,
            codec: Encoding::Zstd,
            offset: 16,
            stored,
            raw,
        };
        assert!(check_entries(&[entry(MAX_BLOB, MAX_BLOB)], 1 << 31).is_ok());
        assert!(check_entries(&[entry(MAX_BLOB + 1, 5)], 1 << 31).is_err());
        assert!(check_entries(&[entry(5, MAX_BLOB + 1)], 1 << 31).is_err());
    }

    fn small(root: &Path) -> PackEntry {
        fs::create_dir_all(root.join("tmp")).unwrap();
        fs::create_dir_all(root.join("packs")).unwrap();
        let mut writer = PackWriter::create(root, None).unwrap();
        writer
            .append(Id::of(b"one"), Kind::Chunk, Encoding::Raw, b"one", 3)
            .unwrap();
        writer
            .append(Id::of(b""), Kind::Content, Encoding::Raw, b"", 0)
            .unwrap();
        writer.finish().unwrap().seal().unwrap()
    }

    #[test]
    fn name_is_hash_and_footer_returns() {
        let dir = tempfile::tempdir().unwrap();
        let entry = small(dir.path());
        let path = dir.path().join(pack_name(&entry.id));
        let bytes = fs::read(&path).unwrap();
        assert_eq!(Id::of(&bytes), entry.id);
        let last = bytes.len() - TRAILER_SIZE as usize;
        assert!(bytes[last..].starts_with(b"LIFEBOAT-FOOTER 1 ") && bytes.ends_with(b"\n"));
        assert_eq!(read_footer(&path, None).unwrap(), (entry.size, entry.blobs));
        assert!(fsutil::names(&dir.path().join("tmp")).unwrap().is_empty());
    }

    #[test]
    fn every_truncation_and_every_flip_of_the_end_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let entry = small(dir.path());
        let path = dir.path().join(pack_name(&entry.id));
        let bytes = fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            assert!(read_footer(&path, None).is_err(), "truncated to {length}");
        }
        for at in 19..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            fs::write(&path, &flipped).unwrap();
            assert!(read_footer(&path, None).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn an_unfinished_pack_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        small(dir.path());
        for finished in [false, true] {
            let mut writer = PackWriter::create(dir.path(), None).unwrap();
            writer
                .append(Id::of(b"two"), Kind::Chunk, Encoding::Raw, b"two", 3)
                .unwrap();
            if finished {
                drop(writer.finish().unwrap());
            } else {
                drop(writer);
            }
            assert!(fsutil::names(&dir.path().join("tmp")).unwrap().is_empty());
        }
    }

    #[test]
    fn another_version_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let entry = small(dir.path());
        let path = dir.path().join(pack_name(&entry.id));
        let mut bytes = fs::read(&path).unwrap();
        bytes[14] = b'2';
        fs::write(&path, &bytes).unwrap();
        assert!(
            matches!(read_footer(&path, None), Err(Error::UnknownFormat { found, .. }) if found == "2")
        );
    }
}
