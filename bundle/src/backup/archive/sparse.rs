//! Where the data of a sparse file is: GNU tar's maps in all their forms.

use std::ops::Range;

use super::blocks::{BLOCK, Blocks, bad};
use super::numbers;
use crate::{Result, pax};

/// A file of more pieces than this is refused; each takes 16 bytes of memory.
const MAX_EXTENTS: usize = 1 << 22;
/// The form without a map before the data, as a PAX record or in the header.
const NO_ORDER: &str = "a map of data that is not in order";

/// Extents of data in order, and the size of the file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Map {
    pub extents: Vec<Range<u64>>,
    pub size: u64,
}

impl Map {
    /// All of a file is data.
    pub(super) fn whole(size: u64) -> Map {
        let all = (size > 0).then_some(0..size);
        Map {
            extents: all.into_iter().collect(),
            size,
        }
    }

    /// Adds an extent. Neighbours become one, as they are in a file.
    fn push(&mut self, start: u64, length: u64) -> Result<()> {
        let end = start
            .checked_add(length)
            .filter(|end| *end <= self.size)
            .ok_or_else(|| bad("a map of data beyond the end of the file"))?;
        let full = self.extents.len() >= MAX_EXTENTS;
        match self.extents.last_mut() {
            Some(last) if start < last.end => return Err(bad(NO_ORDER)),
            _ if length == 0 => {}
            Some(last) if start == last.end => last.end = end,
            _ if full => return Err(bad("a sparse file of too many pieces")),
            _ => self.extents.push(start..end),
        }
        Ok(())
    }

    /// Bytes of data.
    pub(super) fn stored(&self) -> u64 {
        self.extents.iter().map(|e| e.end - e.start).sum()
    }

    pub(super) fn has_holes(&self) -> bool {
        self.stored() != self.size
    }
}

/// Of an old header of type `S`, with the blocks that continue its map.
pub(super) fn old(header: &tar::GnuHeader, blocks: &mut Blocks<'_>) -> Result<Map> {
    let mut map = Map {
        extents: Vec::new(),
        size: numbers::within(&header.realsize, "the size of a sparse file")?,
    };
    let mut goes_on = add(&mut map, &header.sparse)?;
    let mut more = header.isextended[0] != 0;
    while more {
        let block = blocks.block()?;
        // 21 pairs of numbers, and whether another block follows.
        let pairs: Vec<_> = block[..504].chunks_exact(24).map(pair).collect();
        goes_on = goes_on && add(&mut map, &pairs)?;
        more = block[504] != 0;
    }
    Ok(map)
}

fn pair(bytes: &[u8]) -> tar::GnuSparseHeader {
    let mut pair = tar::GnuSparseHeader {
        offset: [0; 12],
        numbytes: [0; 12],
    };
    pair.offset.copy_from_slice(&bytes[..12]);
    pair.numbytes.copy_from_slice(&bytes[12..24]);
    pair
}

/// Adds the pairs up to the first empty one, if there is one.
fn add(map: &mut Map, pairs: &[tar::GnuSparseHeader]) -> Result<bool> {
    for pair in pairs {
        if pair.numbytes[0] == 0 {
            return Ok(false);
        }
        map.push(
            numbers::within(&pair.offset, "a place of data")?,
            numbers::within(&pair.numbytes, "a length of data")?,
        )?;
    }
    Ok(true)
}

/// `GNU.sparse.*` of a PAX header.
#[derive(Default)]
pub(super) struct Records {
    version: (Option<u64>, Option<u64>),
    size: Option<u64>,
    count: Option<u64>,
    /// 0.0 has a record for each number, 0.1 one for all.
    numbers: Vec<u64>,
    /// Where it really is; the header has a name for those who do not understand the form.
    pub name: Option<Vec<u8>>,
}

impl Records {
    /// Takes a record; false where it is none of these.
    pub(super) fn take(&mut self, (key, value): pax::Record<'_>) -> Result<bool> {
        let number = || numbers::decimal(value, "a record of a sparse file");
        match key {
            b"GNU.sparse.major" => self.version.0 = Some(number()?),
            b"GNU.sparse.minor" => self.version.1 = Some(number()?),
            b"GNU.sparse.name" => self.name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.size = Some(number()?),
            b"GNU.sparse.numblocks" => self.count = Some(number()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let length = key == b"GNU.sparse.numbytes";
                if length != (self.numbers.len() % 2 == 1) || self.numbers.len() >= 2 * MAX_EXTENTS
                {
                    return Err(bad(NO_ORDER));
                }
                self.numbers.push(number()?);
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|b| *b == b',').take(2 * MAX_EXTENTS + 1);
                self.numbers = match value.is_empty() {
                    true => Vec::new(),
                    false => numbers
                        .map(|n| numbers::decimal(n, "a place of data"))
                        .collect::<Result<_>>()?,
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The map, if the file is sparse; that of form 1.0 stands before the data. `stored` is what the header says about
    /// bytes in the archive: afterwards, without those of the map.
    pub(super) fn map(self, blocks: &mut Blocks<'_>, stored: &mut u64) -> Result<Option<Map>> {
        let missing = || bad("a sparse file without its size");
        match self.version {
            (None, None) | (Some(0), _) => {
                if self.size.is_none() && self.count.is_none() && self.numbers.is_empty() {
                    return Ok(None);
                }
                let mut map = Map {
                    extents: Vec::new(),
                    size: self.size.ok_or_else(missing)?,
                };
                let pairs = self.numbers.len() / 2;
                let whole = self.numbers.len() % 2 == 0;
                if !whole || self.count.is_some_and(|count| count != pairs as u64) {
                    return Err(bad("a map of data that is not complete"));
                }
                for pair in self.numbers.chunks_exact(2) {
                    map.push(pair[0], pair[1])?;
                }
                Ok(Some(map))
            }
            (Some(1), Some(0)) => {
                let mut map = Map {
                    extents: Vec::new(),
                    size: self.size.ok_or_else(missing)?,
                };
                let mut text = Text {
                    blocks,
                    left: stored,
                    block: [0; BLOCK],
                    next: BLOCK,
                };
                let count = text.number()?;
                if count > MAX_EXTENTS as u64 {
                    return Err(bad("a sparse file of too many pieces"));
                }
                for _ in 0..count {
                    let start = text.number()?;
                    map.push(start, text.number()?)?;
                }
                Ok(Some(map))
            }
            (major, minor) => Err(bad(format!(
                "a sparse file in the form {}.{}, which is not known",
                major.unwrap_or_default(),
                minor.unwrap_or_default()
            ))),
        }
    }
}

/// Decimal numbers, each on a line.
struct Text<'b, 's> {
    blocks: &'b mut Blocks<'s>,
    left: &'b mut u64,
    block: [u8; BLOCK],
    next: usize,
}

impl Text<'_, '_> {
    fn number(&mut self) -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            if self.next == BLOCK {
                *self.left = self
                    .left
                    .checked_sub(BLOCK as u64)
                    .ok_or_else(|| bad("a map of data that is longer than the member"))?;
                self.block = self.blocks.block()?;
                self.next = 0;
            }
            let byte = self.block[self.next];
            self.next += 1;
            match byte {
                b'\n' => return numbers::decimal(&digits, "a place of data"),
                _ if digits.len() > 20 => return Err(bad("a map of data that is none")),
                byte => digits.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_in_order_and_inside() {
        let mut map = Map {
            size: 100,
            extents: Vec::new(),
        };
        for (start, length) in [(0, 10), (10, 5), (20, 0), (30, 70), (100, 0)] {
            map.push(start, length).unwrap();
        }
        assert_eq!(map.extents, [0..15, 30..100]);
        assert_eq!((map.stored(), map.has_holes()), (85, true));
        for (start, length) in [(99, 1), (0, 1), (100, 1), (u64::MAX, 2)] {
            assert!(map.push(start, length).is_err(), "{start} {length}");
        }
    }
}
