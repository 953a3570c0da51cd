//! Block images in the order in which their blobs lie on the media.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::bounded;

use crate::content::{self, Piece};
use crate::document::Image;
use crate::events::Events;
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Id, Result};

/// Threads that read; more would make of one pass over the medium several.
const WORKERS: usize = 4;

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block<'a> {
    /// Content, verified.
    Data(&'a [u8]),
    /// So many zeroes.
    Zeroes(u64),
}

impl Block<'_> {
    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Block::Data(data) => data.len() as u64,
            Block::Zeroes(size) => *size,
        }
    }
}

/// A place that a blob goes to.
#[derive(Debug, Clone, Copy)]
struct Use {
    id: Id,
    image: usize,
    offset: u64,
    size: u64,
}

type Each<'e> = &'e mut dyn FnMut(usize, u64, Block<'_>) -> Result<()>;

pub(super) fn blocks(
    stores: &[&Store],
    images: &[Image],
    unit: u64,
    events: &dyn Events,
    each: Each<'_>,
) -> Result<()> {
    let total = images.iter().map(|i| i.size).sum();
    events.phase("images", Some(total));
    let mut readers = Readers::new(stores);
    let (mut anywhere, mut in_order) = (Vec::new(), Vec::new());
    for (n, image) in images.iter().enumerate() {
        let (uses, holes) = pieces(&mut readers, n, image)?;
        let whole = |at: u64| at % unit == 0 || at == image.size;
        let fits = |offset: u64, size: u64| whole(offset) && whole(offset + size);
        let all_fit = uses.iter().all(|u| fits(u.offset, u.size))
            && holes.iter().all(|(offset, size)| fits(*offset, *size));
        if !all_fit {
            in_order.push(n);
            continue;
        }
        anywhere.extend(uses);
        for (offset, size) in holes {
            each(n, offset, Block::Zeroes(size))?;
            events.bytes(size);
        }
    }
    anywhere.sort_by_cached_key(|u| {
        // What no store knows comes last, and fails. One blob of several places is read once.
        let place = Readers::place(stores, &u.id);
        let place = place.map_or((usize::MAX, 0, 0), |(store, l)| (store, l.pack, l.offset));
        (place, u.image, u.offset)
    });
    let healed = read_all(stores, images, &anywhere, events, each)?;
    drop(anywhere);
    for n in in_order {
        merged(&mut readers, images, n, unit, events, each)?;
    }
    let healed = healed + readers.healed;
    if healed > 0 {
        events.warn(&format!(
            "{} damaged in one place and taken from another",
            match healed {
                1 => "1 blob was".to_owned(),
                n => format!("{n} blobs were"),
            }
        ));
    }
    Ok(())
}

/// Reads blobs in this order with a few threads, which check and decompress them; each blob is read once for all places
/// that follow each other. Gives back how many were healed.
fn read_all(
    stores: &[&Store],
    images: &[Image],
    uses: &[Use],
    events: &dyn Events,
    each: Each<'_>,
) -> Result<u64> {
    let groups: Vec<&[Use]> = uses.chunk_by(|a, b| a.id == b.id).collect();
    let next = AtomicUsize::new(0);
    let healed = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let (done, ready) = bounded(2 * WORKERS);
        for _ in 0..workers.min(WORKERS) {
            let done = done.clone();
            let (groups, next, healed) = (&groups, &next, &healed);
            scope.spawn(move || {
                let mut readers = Readers::new(stores);
                while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut content = Vec::new();
                    let read = read(&mut readers, images, &group[0], &mut content);
                    // Nobody takes it: another one has failed, or it was cancelled.
                    if done.send((*group, read.map(|()| content))).is_err() {
                        break;
                    }
                }
                healed.fetch_add(readers.healed, Ordering::Relaxed);
            });
        }
        drop(done);
        for (group, content) in ready {
            let content = content?;
            for one in group {
                if events.cancelled() {
                    return Err(Error::Cancelled);
                }
                if content.len() as u64 != one.size {
                    return Err(damaged(images, one, &OTHER_LENGTH));
                }
                each(one.image, one.offset, Block::Data(&content))?;
                events.bytes(one.size);
            }
        }
        Ok(())
    })?;
    Ok(healed.into_inner())
}

const OTHER_LENGTH: &str = "it is not as long as its content list says";

fn damaged(images: &[Image], one: &Use, reason: &dyn std::fmt::Display) -> Error {
    Error::malformed(
        format!("the image of {}", images[one.image].node),
        format!(
            "bytes {} to {}: {reason}",
            one.offset,
            one.offset + one.size
        ),
    )
}

fn read(
    readers: &mut Readers<'_>,
    images: &[Image],
    one: &Use,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let read = readers.blob_into(&one.id, buffer);
    read.map_err(|error| damaged(images, one, &error))?;
    if buffer.len() as u64 != one.size {
        return Err(damaged(images, one, &OTHER_LENGTH));
    }
    Ok(())
}

/// The blobs and the holes of an image, in its order.
#[allow(clippy::type_complexity)]
fn pieces(
    readers: &mut Readers<'_>,
    n: usize,
    image: &Image,
) -> Result<(Vec<Use>, Vec<(u64, u64)>)> {
    let (mut uses, mut holes) = (Vec::new(), Vec::new());
    let listed = content::read(
        readers,
        &image.content,
        image.size,
        &mut |_| (),
        &mut |offset, piece| {
            match piece {
                Piece::Blob { id, size } => uses.push(Use {
                    id,
                    image: n,
                    offset,
                    size,
                }),
                Piece::Hole(size) => holes.push((offset, size)),
                Piece::List { .. } => {}
            }
            Ok(())
        },
    );
    let name = || format!("the image of {}", image.node);
    listed.map_err(|error| Error::malformed(name(), format!("its content list: {error}")))?;
    Ok((uses, holes))
}

/// Reads an image from its beginning to its end, and cuts it anew into parts of `unit` bytes.
fn merged(
    readers: &mut Readers<'_>,
    images: &[Image],
    n: usize,
    unit: u64,
    events: &dyn Events,
    each: Each<'_>,
) -> Result<()> {
    let (uses, holes) = pieces(readers, n, &images[n])?;
    let mut all: Vec<(u64, Option<Use>, u64)> = uses
        .into_iter()
        .map(|u| (u.offset, Some(u), u.size))
        .chain(holes.into_iter().map(|(offset, size)| (offset, None, size)))
        .collect();
    all.sort_by_key(|(offset, ..)| *offset);
    let mut buffer = Vec::new();
    // What is read and not given yet; it begins at a multiple of the unit.
    let mut open: Vec<u8> = Vec::new();
    let mut start = 0u64;
    for (_, blob, size) in all {
        if events.cancelled() {
            return Err(Error::Cancelled);
        }
        match blob {
            Some(one) => {
                read(readers, images, &one, &mut buffer)?;
                open.extend_from_slice(&buffer);
            }
            None => {
                let mut left = size;
                // Up to the next unit; then whole ones, however many; then what is left.
                let fill = ((unit - open.len() as u64 % unit) % unit).min(left);
                open.resize(open.len() + fill as usize, 0);
                left -= fill;
                give(&mut open, &mut start, unit, n, each)?;
                let whole = left - left % unit;
                if open.is_empty() && whole > 0 {
                    each(n, start, Block::Zeroes(whole))?;
                    start += whole;
                    left -= whole;
                }
                open.resize(open.len() + left as usize, 0);
            }
        }
        give(&mut open, &mut start, unit, n, each)?;
        events.bytes(size);
    }
    if !open.is_empty() {
        each(n, start, Block::Data(&open))?;
    }
    Ok(())
}

/// Gives the whole units of what is open.
fn give(open: &mut Vec<u8>, start: &mut u64, unit: u64, n: usize, each: Each<'_>) -> Result<()> {
    let whole = open.len() as u64 - open.len() as u64 % unit;
    if whole > 0 {
        each(n, *start, Block::Data(&open[..whole as usize]))?;
        open.drain(..whole as usize);
        *start += whole;
    }
    Ok(())
}
