//! Reading whole packs, from front to back.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::codec::Decoder;
use crate::events::Events;
use crate::format::BlobEntry;
use crate::index::Location;
use crate::pack::{PackFile, footer_of};
use crate::store::{PackInfo, SWAPPED, Scratch, Store};
use crate::{Error, Id, fsutil};

use super::sample::Slice;

const STEP: usize = 1 << 20;

/// What was found in a pack.
#[derive(Default)]
pub(super) struct PackCheck {
    pub bytes: u64,
    pub blobs: u64,
    /// What is wrong with the pack as a whole.
    pub reason: Option<String>,
    /// Blobs that are lost, with the reason when it is their own.
    pub bad: Vec<(Location, Option<String>)>,
}

impl PackCheck {
    /// The whole pack is of no use.
    fn nothing(reason: String, blobs: &[Location]) -> PackCheck {
        PackCheck {
            reason: Some(reason),
            bad: blobs.iter().map(|l| (*l, None)).collect(),
            ..PackCheck::default()
        }
    }
}

/// Reads a pack; `blobs` are those that the index lists for it, in order of their offsets.
pub(super) fn check(
    store: &Store,
    pack: &PackInfo,
    blobs: &[Location],
    cold: bool,
    events: &dyn Events,
) -> PackCheck {
    let path = &store.pack_path(pack);
    let opened = match PackFile::open(path, store.cipher()) {
        Ok(opened) => opened,
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return PackCheck::nothing("the pack is missing".to_string(), blobs);
        }
        Err(Error::Malformed { reason, .. }) => return PackCheck::nothing(reason, blobs),
        Err(error) => {
            return PackCheck::nothing(format!("the pack cannot be opened: {error}"), blobs);
        }
    };
    let file = &opened.file;
    if cold {
        fsutil::forget_cached(file);
    }
    let size = file.metadata().map_or(0, |m| m.len());
    let mut check = PackCheck::default();
    let mut reader = Sequential {
        file,
        hasher: Sha256::new(),
        at: 0,
        complete: true,
        events,
    };
    let mut decoder = Decoder::default();
    let (mut stored, mut plain) = (Vec::new(), Vec::new());
    for place in blobs {
        if events.cancelled() {
            // The caller throws the result away.
            return check;
        }
        let offset = u64::from(place.offset);
        if reader.skip_to(offset).is_err() {
            check
                .bad
                .push((*place, Some("the pack cannot be read up to it".to_string())));
            continue;
        }
        stored.resize(place.stored as usize, 0);
        // Overlapping entries are no writer's work; they are read apart, and the pack's hash tells the rest.
        let read = if reader.at == offset {
            reader.read(&mut stored)
        } else {
            std::os::unix::fs::FileExt::read_exact_at(file, &mut stored, offset)
        };
        let verdict = match read {
            Ok(()) => opened
                .unseal(offset, &place.id, &mut stored)
                .and_then(|()| {
                    decoder.decode(place.codec, &stored, u64::from(place.raw), &mut plain)
                })
                .and_then(|()| same(&place.id, &plain)),
            // Beyond the end: the pack's own reason says it all.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                check.bad.push((*place, None));
                continue;
            }
            Err(error) => Err(format!("it cannot be read: {error}")),
        };
        check.blobs += 1;
        if let Err(reason) = verdict {
            check.bad.push((*place, Some(reason)));
        }
    }
    let rest = reader.skip_to(size);
    check.bytes = reader.at;
    let complete = reader.complete && rest.is_ok();
    let hash = Id::from_bytes(reader.hasher.finalize().into());
    let other = hash != pack.id && is_another(store, &hash, file, path, size, blobs);
    check.reason = if other {
        // One reason says it for all of its blobs.
        check.bad.iter_mut().for_each(|(_, reason)| *reason = None);
        Some(SWAPPED.to_string())
    } else if size != pack.size {
        Some(format!(
            "the pack has {size} bytes instead of {}: it is truncated or was overwritten",
            pack.size
        ))
    } else if !complete {
        Some("parts of the pack cannot be read".to_string())
    } else if hash != pack.id {
        Some("the pack does not have the hash that is its name".to_string())
    } else {
        compare_footer(store, file, path, size, blobs).err()
    };
    if cold {
        // Also afterwards: a verification should not push the host's working set out of memory.
        fsutil::forget_cached(file);
    }
    check
}

/// Reads a slice of a pack, and its footer; the whole of it when that finds anything.
pub(super) fn check_slice(
    store: &Store,
    number: usize,
    blobs: &[Location],
    slice: Slice,
    cold: bool,
    events: &dyn Events,
) -> PackCheck {
    let pack = &store.packs()[number];
    let path = store.pack_path(pack);
    let mut sample = PackCheck::default();
    let mut scratch = Scratch::default();
    let mut plain = Vec::new();
    let mut good = || {
        let file = fsutil::open_file(&path).map_err(|e| e.to_string())?;
        if cold {
            fsutil::forget_cached(&file);
        }
        compare_footer(store, &file, &path, pack.size, blobs)?;
        for (at, place) in blobs.iter().enumerate() {
            if events.cancelled() {
                break;
            }
            if slice.holds(&pack.id, at, blobs.len()) {
                store.read_at(place, &mut scratch, &mut plain)?;
                sample.blobs += 1;
                sample.bytes += u64::from(place.stored);
                events.bytes(u64::from(place.stored));
            }
        }
        if cold {
            fsutil::forget_cached(&file);
        }
        Ok::<(), String>(())
    };
    match good() {
        Ok(()) => sample,
        Err(_) => check(store, pack, blobs, cold, events),
    }
}

fn same(id: &Id, plain: &[u8]) -> Result<(), String> {
    if Id::of(plain) == *id {
        Ok(())
    } else {
        Err("its content does not have the hash that is its id".to_string())
    }
}

/// Is the file under this pack's name a whole pack, but not this one?
fn is_another(
    store: &Store,
    hash: &Id,
    file: &File,
    path: &Path,
    size: u64,
    blobs: &[Location],
) -> bool {
    if store.packs().iter().any(|p| p.id == *hash) {
        return true;
    }
    // Of a pack that the store does not know, only a footer that lists nothing of this one's tells.
    footer_of(file, path, size, store.cipher()).is_ok_and(|footer| {
        !footer.iter().any(|f| {
            let listed = |l: &Location| (l.id, u64::from(l.offset)) == (f.id, f.offset);
            blobs.iter().any(listed)
        })
    })
}

fn compare_footer(
    store: &Store,
    file: &File,
    path: &Path,
    size: u64,
    blobs: &[Location],
) -> Result<(), String> {
    let mut footer = footer_of(file, path, size, store.cipher()).map_err(|e| e.to_string())?;
    footer.sort_by_key(|b| (b.offset, b.id));
    let as_entry = |l: &Location| BlobEntry {
        id: l.id,
        kind: l.kind,
        codec: l.codec,
        offset: u64::from(l.offset),
        stored: u64::from(l.stored),
        raw: u64::from(l.raw),
    };
    if footer.len() == blobs.len() && footer.iter().zip(blobs).all(|(f, l)| *f == as_entry(l)) {
        return Ok(());
    }
    Err("the index lists other blobs for this pack than its footer".to_string())
}

struct Sequential<'f> {
    file: &'f File,
    hasher: Sha256,
    at: u64,
    /// Nothing was left out of the hash.
    complete: bool,
    events: &'f dyn Events,
}

impl Sequential<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let result = self.file.read_exact(buffer);
        match &result {
            Ok(()) => {
                self.hasher.update(&*buffer);
                self.at += buffer.len() as u64;
                self.events.bytes(buffer.len() as u64);
            }
            Err(_) => {
                self.complete = false;
                // What follows may still be readable.
                self.at += buffer.len() as u64;
                io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.at))?;
            }
        }
        result
    }

    fn skip_to(&mut self, offset: u64) -> io::Result<()> {
        let mut buffer = Vec::new();
        while self.at < offset {
            buffer.resize(
                usize::try_from(offset - self.at).unwrap_or(STEP).min(STEP),
                0,
            );
            self.read(&mut buffer)?;
        }
        Ok(())
    }
}
