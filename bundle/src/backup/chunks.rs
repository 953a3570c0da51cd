//! Large content: cut into chunks where the content says so, holes and zeroes left out.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use fastcdc::v2020::FastCDC;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::sink::Sink;
use crate::content::{self, Piece};
use crate::events::Events;
use crate::format::Kind;
use crate::{Error, Id, Result};

/// FastCDC (2020, normalization level 1) parameters. Part of no format: only of how well runs deduplicate.
const MIN: usize = 256 << 10;
const AVERAGE: usize = 1 << 20;
const MAX: usize = 4 << 20;
/// Two chunks at least, so that bytes are moved rarely.
const BUFFER: usize = 2 * MAX;
/// What one read asks for at most.
const READ: usize = 1 << 20;
/// What is given up when it cannot be read.
const BLOCK: usize = 4096;
/// Unreadable blocks after which the rest is not tried: a dead disk answers each with a timeout.
const MAX_BAD_BLOCKS: u64 = 1000;

/// What came of reading a content.
pub(super) struct Content {
    pub id: Id,
    /// The file ended early; the rest is zeroes.
    pub short: bool,
    /// Why parts could not be read; they are zeroes.
    pub unreadable: Option<String>,
}

/// Cuts contents; keeps its buffer.
#[derive(Default)]
pub(super) struct Chunker {
    buffer: Vec<u8>,
}

impl Chunker {
    /// Stores `size` bytes of `file`. `sparse` asks the file system for holes first.
    pub(super) fn store(
        &mut self,
        file: &File,
        size: u64,
        sparse: bool,
        sink: &Sink,
        events: &dyn Events,
    ) -> Result<Content> {
        if self.buffer.is_empty() {
            // Pages that are zeroes already, and of which a small file touches few.
            self.buffer = vec![0; BUFFER];
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut source = Padded {
            file,
            state: ReadState::default(),
        };
        let mut position = 0;
        while position < size {
            let (start, end) = if sparse {
                next_data(file, position, size)
            } else {
                (0, size)
            };
            push_hole(&mut pieces, start - position);
            self.extent(&mut source, start..end, sink, events, &mut pieces)?;
            position = end;
        }
        let put = &mut |mut json| sink.put(Kind::Content, &mut json);
        let (id, _) = content::write(&pieces, put)?;
        let state = source.state;
        let unreadable = state
            .first_error
            .map(|e| format!("{e} ({} blocks of {BLOCK} bytes)", state.bad_blocks));
        Ok(Content {
            id,
            short: state.short,
            unreadable,
        })
    }

    /// Stores a content of `size` bytes whose data is in these extents, in order; the rest is holes. Gives the same as
    /// [`Chunker::store`] of such a file.
    pub(super) fn store_extents(
        &mut self,
        source: &mut dyn Source,
        extents: &[Range<u64>],
        size: u64,
        sink: &Sink,
        events: &dyn Events,
    ) -> Result<Id> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER];
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut position = 0;
        for extent in extents {
            push_hole(&mut pieces, extent.start.saturating_sub(position));
            self.extent(source, extent.clone(), sink, events, &mut pieces)?;
            position = extent.end;
        }
        push_hole(&mut pieces, size.saturating_sub(position));
        let put = &mut |mut json| sink.put(Kind::Content, &mut json);
        content::write(&pieces, put).map(|(id, _)| id)
    }

    fn extent(
        &mut self,
        source: &mut dyn Source,
        Range { start, end }: Range<u64>,
        sink: &Sink,
        events: &dyn Events,
        pieces: &mut Vec<Piece>,
    ) -> Result<()> {
        let mut read_to = start;
        // Unread bytes of the buffer: from..to.
        let (mut from, mut to) = (0, 0);
        loop {
            if to - from < MAX && read_to < end {
                self.buffer.copy_within(from..to, 0);
                (from, to) = (0, to - from);
                while to < BUFFER && read_to < end {
                    let want = READ
                        .min(BUFFER - to)
                        .min(usize::try_from(end - read_to).unwrap_or(usize::MAX));
                    sink.reading(want as u64, events);
                    source.fill(read_to, &mut self.buffer[to..to + want])?;
                    events.bytes(want as u64);
                    if events.cancelled() {
                        return Err(Error::Cancelled);
                    }
                    to += want;
                    read_to += want as u64;
                }
            }
            if from == to {
                return Ok(());
            }
            let cutter = FastCDC::new(
                &self.buffer[from..to],
                MIN as u32,
                AVERAGE as u32,
                MAX as u32,
            );
            // Only what cannot grow by further reading is cut here.
            let mut cut = 0;
            while cut < to - from && (read_to == end || to - from - cut >= MAX) {
                let (_, next) = cutter.cut(cut, to - from - cut);
                let chunk = &self.buffer[from + cut..from + next];
                if is_zero(chunk) {
                    push_hole(pieces, chunk.len() as u64);
                } else {
                    let id = sink.put_slice(Kind::Chunk, chunk)?;
                    pieces.push(Piece::Blob {
                        id,
                        size: chunk.len() as u64,
                    });
                }
                cut = next;
            }
            from += cut;
        }
    }
}

pub(super) fn push_hole(pieces: &mut Vec<Piece>, size: u64) {
    match pieces.last_mut() {
        _ if size == 0 => {}
        Some(Piece::Hole(before)) => *before += size,
        _ => pieces.push(Piece::Hole(size)),
    }
}

/// Whole-slice or-ing of 4 KiB at a time is vectorised; a plain `all` stops at every byte.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(4096)
        .all(|c| c.iter().fold(0, |or, b| or | b) == 0)
}

/// Where data begins and ends at or after `position`.
fn next_data(file: &File, position: u64, size: u64) -> (u64, u64) {
    let seek = |at: u64, whence| {
        i64::try_from(at)
            .map_err(|_| Errno::EOVERFLOW)
            .and_then(|at| lseek(file, at, whence))
    };
    let start = match seek(position, Whence::SeekData) {
        Ok(start) => u64::try_from(start)
            .unwrap_or(position)
            .clamp(position, size),
        // No data from here to the end.
        Err(Errno::ENXIO) => return (size, size),
        // Not known here: all of it is data.
        Err(_) => return (position, size),
    };
    let end = seek(start, Whence::SeekHole)
        .ok()
        .and_then(|e| u64::try_from(e).ok())
        .unwrap_or(size);
    (start, if end <= start { size } else { end.min(size) })
}

/// Does the file have holes at all?
pub(super) fn has_holes(file: &File, size: u64) -> bool {
    next_data(file, 0, size) != (0, size)
}

/// Where content is read, from front to back.
pub(super) trait Source {
    /// Fills the buffer with what is at this place of the content.
    fn fill(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()>;
}

/// A file, of which something may be unreadable.
struct Padded<'f> {
    file: &'f File,
    state: ReadState,
}

impl Source for Padded<'_> {
    fn fill(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        read_padded(self.file, offset, buffer, &mut self.state);
        Ok(())
    }
}

#[derive(Default)]
struct ReadState {
    short: bool,
    first_error: Option<std::io::Error>,
    bad_blocks: u64,
}

/// Reads a part of a file; what cannot be read, or lies beyond its end, is zeroes.
fn read_padded(file: &File, offset: u64, mut buffer: &mut [u8], state: &mut ReadState) {
    let mut at = offset;
    while !buffer.is_empty() {
        if state.bad_blocks >= MAX_BAD_BLOCKS {
            buffer.fill(0);
            return;
        }
        // After an error block by block, as far as the next good one.
        let step = if state.bad_blocks > 0 {
            BLOCK.min(buffer.len())
        } else {
            buffer.len()
        };
        let done = match file.read_at(&mut buffer[..step], at) {
            Ok(0) => {
                state.short = true;
                buffer.fill(0);
                return;
            }
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => 0,
            Err(error) => {
                state.first_error.get_or_insert(error);
                let block = (BLOCK - (at % BLOCK as u64) as usize).min(buffer.len());
                // The first failure may be anywhere in a large read: it is only counted, and read again in blocks.
                let skip = if state.bad_blocks == 0 && step > BLOCK {
                    0
                } else {
                    block
                };
                buffer[..skip].fill(0);
                state.bad_blocks += 1;
                skip
            }
        };
        at += done as u64;
        buffer = &mut buffer[done..];
    }
}

/// Tells the kernel that a large file is read once, from front to back.
pub(super) fn advise_once(file: &impl AsFd) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    let _ = posix_fadvise(
        file.as_fd(),
        0,
        0,
        PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL,
    );
}
