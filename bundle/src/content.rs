//! Content lists: the pieces of a large file or of a block image.

use serde::{Deserialize, Serialize};

use crate::read::Readers;
use crate::{Error, Id, Result};

/// Lists longer than this are split into lists of lists.
const SPLIT_ABOVE: usize = 8192;
/// A part of a split list ends at a piece whose id leads with this many zero bits: every 4096th on average.
const SPLIT_BITS: u32 = 12;
/// How deep lists may lie in lists; writers make one level.
const MAX_DEPTH: u32 = 3;
/// The most pieces of a content, in all its lists: 32 TiB of chunks. Lists that name one another a thousand times over
/// would else fill the memory from a few bytes.
pub(crate) const MAX_PIECES: usize = 1 << 25;
/// Reading a list costs as much as so many pieces; parts of a split list have no fewer, but the last one, and five times
/// as many on average.
const LIST_COST: usize = 1024;

const TOO_MANY: &str = "it has more pieces than any reader takes";

/// One piece of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    Blob {
        id: Id,
        size: u64,
    },
    Hole(u64),
    /// Further pieces in a list of their own.
    List {
        id: Id,
        size: u64,
    },
}

impl Piece {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Piece::Blob { size, .. } | Piece::Hole(size) | Piece::List { size, .. } => *size,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePiece {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    list: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hole: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireContent {
    size: u64,
    pieces: Vec<WirePiece>,
}

/// What a list of so many pieces, without those of lists in it, costs who reads it.
pub(crate) fn cost(pieces: usize) -> usize {
    pieces.max(LIST_COST)
}

/// What [`read`] takes of a list and of all lists in it, or an error.
pub(crate) fn affordable(cost: usize) -> Result<()> {
    match cost <= MAX_PIECES {
        true => Ok(()),
        false => Err(Error::malformed("a new content list", TOO_MANY)),
    }
}

/// Writes a list; `put` stores a blob and gives its id. Returns the id of the whole, and what it costs to read.
pub(crate) fn write(
    pieces: &[Piece],
    put: &mut dyn FnMut(Vec<u8>) -> Result<Id>,
) -> Result<(Id, usize)> {
    affordable(pieces.len())?;
    if pieces.len() <= SPLIT_ABOVE {
        return Ok((put(encode(pieces)?)?, cost(pieces.len())));
    }
    let mut total = 0;
    let ends = |piece: &Piece| matches!(piece, Piece::Blob { id, .. } if id.leading().leading_zeros() >= SPLIT_BITS);
    let mut parts = Vec::new();
    let mut start = 0;
    for at in 0..pieces.len() {
        let length = at + 1 - start;
        // Whoever chooses the content can choose ids, too, and have a list end after every piece.
        let ends = length >= LIST_COST && ends(&pieces[at]);
        if at + 1 == pieces.len() || ends || length >= 2 * SPLIT_ABOVE {
            let part = &pieces[start..=at];
            total += cost(part.len());
            let size = part.iter().map(Piece::size).sum();
            parts.push(Piece::List {
                id: put(encode(part)?)?,
                size,
            });
            start = at + 1;
        }
    }
    total += cost(parts.len());
    affordable(total)?;
    Ok((put(encode(&parts)?)?, total))
}

fn encode(pieces: &[Piece]) -> Result<Vec<u8>> {
    let wire = pieces.iter().map(|piece| match *piece {
        Piece::Blob { id, size } => WirePiece {
            blob: Some(id),
            list: None,
            size: Some(size),
            hole: None,
        },
        Piece::Hole(size) => WirePiece {
            blob: None,
            list: None,
            size: None,
            hole: Some(size),
        },
        Piece::List { id, size } => WirePiece {
            blob: None,
            list: Some(id),
            size: Some(size),
            hole: None,
        },
    });
    let content = WireContent {
        size: pieces.iter().map(Piece::size).sum(),
        pieces: wire.collect(),
    };
    serde_json::to_vec(&content).map_err(|e| Error::malformed("a new content list", e))
}

pub(crate) fn decode(id: &Id, json: &[u8], size: u64) -> Result<Vec<Piece>> {
    let damaged = |reason: &str| Error::malformed(format!("content list {}", id.short()), reason);
    let content: WireContent = serde_json::from_slice(json).map_err(|e| damaged(&e.to_string()))?;
    let mut sum = 0u64;
    let mut pieces = Vec::with_capacity(content.pieces.len());
    for wire in content.pieces {
        let piece = match wire {
            WirePiece {
                blob: Some(id),
                list: None,
                size: Some(size),
                hole: None,
            } => Piece::Blob { id, size },
            WirePiece {
                blob: None,
                list: Some(id),
                size: Some(size),
                hole: None,
            } => Piece::List { id, size },
            WirePiece {
                blob: None,
                list: None,
                size: None,
                hole: Some(size),
            } => Piece::Hole(size),
            _ => return Err(damaged("a piece is neither a blob nor a list nor a hole")),
        };
        sum = sum
            .checked_add(piece.size())
            .ok_or_else(|| damaged("its size overflows"))?;
        pieces.push(piece);
    }
    if sum != content.size || sum != size {
        return Err(damaged("its pieces do not add up to the size of the file"));
    }
    Ok(pieces)
}

/// Reads a list with the lists in it. `seen` is told every list blob that is needed, `read` or not.
pub(crate) fn read(
    readers: &mut Readers<'_>,
    id: &Id,
    size: u64,
    seen: &mut dyn FnMut(Id),
    out: &mut dyn FnMut(u64, Piece) -> Result<()>,
) -> Result<()> {
    let mut left = MAX_PIECES;
    read_level(readers, id, size, (0, 0), &mut left, seen, out)
}

fn read_level(
    readers: &mut Readers<'_>,
    id: &Id,
    size: u64,
    (mut offset, depth): (u64, u32),
    left: &mut usize,
    seen: &mut dyn FnMut(Id),
    out: &mut dyn FnMut(u64, Piece) -> Result<()>,
) -> Result<()> {
    seen(*id);
    if depth > MAX_DEPTH {
        return Err(Error::malformed(
            format!("content list {}", id.short()),
            "lists lie too deep in lists",
        ));
    }
    let json = readers.blob(id)?;
    let pieces = decode(id, &json, size)?;
    *left = left
        .checked_sub(cost(pieces.len()))
        .ok_or_else(|| Error::malformed(format!("content list {}", id.short()), TOO_MANY))?;
    for piece in pieces {
        match piece {
            Piece::List { id, size } => {
                read_level(readers, &id, size, (offset, depth + 1), left, seen, out)?
            }
            other => out(offset, other)?,
        }
        offset += piece.size();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn long_lists_are_split_and_change_locally() {
        let piece = |n: u32| Piece::Blob {
            id: Id::of(&n.to_le_bytes()),
            size: 3,
        };
        let mut pieces: Vec<_> = (0..40_000).map(piece).collect();
        let mut blobs = HashMap::new();
        let first = write(&pieces, &mut |json| {
            Ok(*blobs.entry(Id::of(&json)).insert_entry(json).key())
        })
        .unwrap();
        let before = blobs.len();
        assert!(before > 4, "{before}");
        pieces.insert(20_000, Piece::Hole(4096));
        let second = write(&pieces, &mut |json| {
            Ok(*blobs.entry(Id::of(&json)).insert_entry(json).key())
        })
        .unwrap();
        assert_ne!(first, second);
        assert!(blobs.len() <= before + 3, "{} of {before}", blobs.len());
    }

    #[test]
    fn wrong_sums_and_unknown_pieces_are_refused() {
        let id = Id::of(b"x");
        assert!(decode(&id, br#"{"size":5,"pieces":[{"hole":5}]}"#, 5).is_ok());
        for bad in [
            r#"{"size":5,"pieces":[{"hole":6}]}"#,
            r#"{"size":4,"pieces":[{"hole":4}]}"#,
            r#"{"size":5,"pieces":[{"hole":5,"size":5}]}"#,
            r#"{"size":5,"pieces":[{"hole":5}],"more":1}"#,
            r#"{"size":5,"pieces":[{"hole":18446744073709551615},{"hole":6}]}"#,
        ] {
            assert!(decode(&id, bad.as_bytes(), 5).is_err(), "{bad}");
        }
    }
}
