//! Parts of a tree, in its order, of which the middle is written.
//!
//! Where segments end depends on the entries alone (see `tree.rs`), so that a part of a tree can be grouped before it is
//! known what comes before and after it: only its first entries, up to where a segment ends, and its last ones have to
//! wait. Two parts that follow each other make one, whatever is in them.

use super::super::segment::{Lines, SEGMENT_LIMIT, SEGMENT_MAX, SEGMENT_TARGET, Segment};
use super::super::sink::Sink;
use super::super::tree::{INLINE_MAX, weight};
use crate::catalogue::{self, boundary};
use crate::list::{Entry, EntryKind};
use crate::member::{self, Extra};
use crate::{Error, Id, Result, bytes};

/// Finished lines are compressed from this size on: a million files have 300 MB of them.
const PACK_LINES: usize = 1 << 20;

/// Where what is to be in a segment is.
#[derive(Debug)]
pub(super) enum Place {
    /// In memory.
    Held { extra: Extra, data: Vec<u8> },
    /// In a segment that is written, of so many bytes.
    Written { segment: Id, raw: u64 },
}

/// An entry on its way to a segment.
#[derive(Debug)]
pub(super) struct Item {
    pub entry: Entry,
    pub place: Place,
}

impl Item {
    pub(super) fn path(&self) -> &[u8] {
        bytes::of(&self.entry.path)
    }

    /// As the walker of a tree weighs it.
    fn weight(&self) -> u64 {
        let inline = self.entry.kind == EntryKind::File && self.entry.size <= INLINE_MAX;
        weight(self.path(), if inline { self.entry.size } else { 0 })
    }

    /// Does a segment end after it?
    fn ends(&self) -> bool {
        boundary(Id::of(self.path()).leading(), self.weight(), SEGMENT_TARGET)
    }

    /// Bytes of memory that writing it frees.
    pub(super) fn held(&self) -> usize {
        match &self.place {
            Place::Held { extra, data } => {
                let attributes = extra.xattrs.iter().map(|(n, v)| n.len() + v.len() + 64);
                // The entry itself stays, but should not be all that there is.
                data.capacity() + attributes.sum::<usize>() + 256
            }
            Place::Written { .. } => 0,
        }
    }

    fn encode(&self, extra: &Extra, data: &[u8], segment: &mut Vec<u8>) {
        member::push_header(segment, &self.entry, extra, data.len() as u64);
        segment.extend_from_slice(data);
        member::pad(segment, data.len() as u64);
    }
}

/// Writes segments, and knows how much waits for that.
pub(super) struct Writer<'s> {
    pub sink: &'s Sink,
    /// Bytes of memory.
    pub held: usize,
    segment: Vec<u8>,
}

impl<'s> Writer<'s> {
    pub(super) fn new(sink: &'s Sink) -> Writer<'s> {
        Writer {
            sink,
            held: 0,
            segment: Vec::new(),
        }
    }

    /// What this held is needed no longer.
    pub(super) fn release(&mut self, item: &Item) {
        debug_assert!(self.held >= item.held());
        self.held = self.held.saturating_sub(item.held());
    }

    /// Writes the entries between two places where segments end.
    fn stretch(&mut self, items: Vec<Item>) -> Result<Vec<Segment>> {
        let mut lines = Lines::default();
        let (mut ended, mut size) = (Vec::new(), 0);
        for item in items {
            let weight = item.weight();
            if size + weight > SEGMENT_MAX && !lines.is_empty() {
                ended.extend(lines.end(&mut self.segment, self.sink)?);
                size = 0;
            } else if self.segment.len() >= SEGMENT_LIMIT {
                ended.extend(lines.end(&mut self.segment, self.sink)?);
            }
            size += weight;
            self.release(&item);
            let from = match &item.place {
                Place::Held { extra, data } => {
                    item.encode(extra, data, &mut self.segment);
                    None
                }
                Place::Written { segment, raw } => Some((*segment, *raw)),
            };
            lines.list(from, item.entry);
        }
        ended.extend(lines.end(&mut self.segment, self.sink)?);
        Ok(ended)
    }

    /// Writes what is held of these, which are in order, before it is known what comes between them.
    pub(super) fn early(&mut self, items: Vec<&mut Item>) -> Result<()> {
        let mut batch: Vec<&mut Item> = Vec::new();
        let mut size = 0;
        for item in items {
            let Place::Held { extra, data } = &item.place else {
                continue;
            };
            let (weight, ends) = (item.weight(), item.ends());
            if (size + weight > SEGMENT_MAX || self.segment.len() >= SEGMENT_LIMIT)
                && !batch.is_empty()
            {
                self.end_early(std::mem::take(&mut batch))?;
                size = 0;
            }
            item.encode(extra, data, &mut self.segment);
            size += weight;
            batch.push(item);
            if ends {
                self.end_early(std::mem::take(&mut batch))?;
                size = 0;
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.end_early(batch)
    }

    fn end_early(&mut self, batch: Vec<&mut Item>) -> Result<()> {
        member::push_end(&mut self.segment);
        let raw = self.segment.len() as u64;
        let kind = crate::format::Kind::Segment;
        let segment = self.sink.put(kind, &mut self.segment)?;
        for item in batch {
            self.release(item);
            item.place = Place::Written { segment, raw };
        }
        Ok(())
    }
}

/// Finished lines of the catalogue, with the segment of each.
#[derive(Debug, Default)]
struct Finished {
    segments: Vec<Id>,
    /// Compressed, with the length of the text.
    packed: Vec<(usize, Vec<u8>)>,
    open: Vec<u8>,
}

impl Finished {
    fn push(&mut self, segment: Segment) -> Result<()> {
        self.segments.push(segment.id);
        self.open.extend_from_slice(&segment.line);
        if self.open.len() >= PACK_LINES {
            self.pack()?;
        }
        Ok(())
    }

    fn append(&mut self, other: Finished) -> Result<()> {
        self.segments.extend(other.segments);
        if !other.packed.is_empty() {
            self.pack()?;
            self.packed.extend(other.packed);
        }
        self.open.extend(other.open);
        if self.open.len() >= PACK_LINES {
            self.pack()?;
        }
        Ok(())
    }

    fn pack(&mut self) -> Result<()> {
        if !self.open.is_empty() {
            let packed = zstd::bulk::compress(&self.open, 1)
                .map_err(Error::io("keep in memory", "the new catalogue"))?;
            self.packed.push((self.open.len(), packed));
            self.open.clear();
        }
        Ok(())
    }

    fn each(self, line: &mut dyn FnMut(&Id, &[u8]) -> Result<()>) -> Result<()> {
        let mut segments = self.segments.iter();
        let mut part = |text: &[u8]| {
            let lines = text.split_inclusive(|b| *b == b'\n');
            lines
                .zip(segments.by_ref())
                .try_for_each(|(l, s)| line(s, l))
        };
        for (length, packed) in &self.packed {
            let text = zstd::bulk::decompress(packed, *length)
                .map_err(Error::io("read again from memory", "the new catalogue"))?;
            part(&text)?;
        }
        part(&self.open)
    }
}

/// A part of a tree.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Up to where the first segment ends.
    head: Vec<Item>,
    done: Finished,
    /// From where the last one ends.
    tail: Vec<Item>,
    /// Does one end in it at all?
    cut: bool,
}

impl Run {
    pub(super) fn push(&mut self, item: Item, writer: &mut Writer<'_>) -> Result<()> {
        let ends = item.ends();
        if !self.cut {
            self.head.push(item);
            self.cut = ends;
            return Ok(());
        }
        self.tail.push(item);
        if ends {
            self.end_tail(writer)?;
        }
        Ok(())
    }

    fn end_tail(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        for segment in writer.stretch(std::mem::take(&mut self.tail))? {
            self.done.push(segment)?;
        }
        Ok(())
    }

    /// Adds the part that follows.
    pub(super) fn append(&mut self, mut other: Run, writer: &mut Writer<'_>) -> Result<()> {
        if !self.cut {
            self.head.append(&mut other.head);
            self.done = other.done;
            self.tail = other.tail;
            self.cut = other.cut;
            return Ok(());
        }
        self.tail.append(&mut other.head);
        if other.cut {
            self.end_tail(writer)?;
            self.done.append(other.done)?;
            self.tail = other.tail;
        }
        Ok(())
    }

    /// Writes what is left, of a whole tree, and gives its lines.
    pub(super) fn finish(
        mut self,
        writer: &mut Writer<'_>,
        line: &mut dyn FnMut(&Id, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for segment in writer.stretch(std::mem::take(&mut self.head))? {
            line(&segment.id, &segment.line)?;
        }
        std::mem::take(&mut self.done).each(line)?;
        for segment in writer.stretch(std::mem::take(&mut self.tail))? {
            line(&segment.id, &segment.line)?;
        }
        Ok(())
    }

    /// Takes it apart again.
    pub(super) fn items(self) -> Result<Vec<Item>> {
        let mut items = self.head;
        self.done.each(&mut |segment, line| {
            for line in catalogue::parse(segment, line)? {
                let (segment, raw) = (line.segment, line.raw);
                let place = |entry| Item {
                    entry,
                    place: Place::Written { segment, raw },
                };
                items.extend(line.entries.into_iter().map(place));
            }
            Ok(())
        })?;
        items.extend(self.tail);
        Ok(items)
    }

    /// What may be held in it.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Item> {
        self.head.iter().chain(&self.tail)
    }

    pub(super) fn waiting_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.head.iter_mut().chain(&mut self.tail)
    }
}
