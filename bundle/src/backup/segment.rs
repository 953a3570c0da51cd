//! Segments that are being filled, and the lines of the catalogue that say what is in them.

use super::sink::Sink;
use crate::catalogue;
use crate::format::Kind;
use crate::list::Entry;
use crate::{Error, Id, Result, member};

/// Segments have about this size.
pub(super) const SEGMENT_TARGET: u64 = 2 << 20;
/// And not more than this, as far as can be told beforehand.
pub(super) const SEGMENT_MAX: u64 = 8 << 20;
/// A segment that has grown to this (files grew since the walk) is ended by who fills it.
pub(super) const SEGMENT_LIMIT: usize = 12 << 20;

/// A line of the catalogue, and the segment that it is about.
pub(super) struct Segment {
    pub id: Id,
    pub line: Vec<u8>,
}

/// Entries that follow each other and are in one segment.
struct Listed {
    /// The earlier segment that they are in, with its bytes; `None`: the one at hand.
    from: Option<(Id, u64)>,
    entries: Vec<Entry>,
}

/// What the next lines of the catalogue list.
#[derive(Default)]
pub(super) struct Lines(Vec<Listed>);

impl Lines {
    /// Adds an entry to the catalogue: of the segment at hand, or of an earlier one.
    pub(super) fn list(&mut self, from: Option<(Id, u64)>, entry: Entry) {
        match self.0.last_mut() {
            Some(run) if run.from == from => run.entries.push(entry),
            _ => self.0.push(Listed {
                from,
                entries: vec![entry],
            }),
        }
    }

    /// Is nothing listed?
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The earlier segments that entries are in.
    pub(super) fn earlier(&self) -> impl Iterator<Item = Id> {
        self.0.iter().filter_map(|run| Some(run.from?.0))
    }

    /// Stores the segment at hand, if it is needed, and writes the lines of what was listed since the last one.
    pub(super) fn end(&mut self, segment: &mut Vec<u8>, sink: &Sink) -> Result<Vec<Segment>> {
        let runs = std::mem::take(&mut self.0);
        let mut new = None;
        let new_runs = runs.iter().filter(|r| r.from.is_none()).count();
        if new_runs > 0 {
            member::push_end(segment);
            let raw = segment.len() as u64;
            new = Some((sink.put(Kind::Segment, segment)?, raw));
        }
        let mut ended = Vec::with_capacity(runs.len());
        for Listed { from, entries } in runs {
            let Some((id, raw)) = from.or(new) else {
                return Err(Error::Internal("entries without a segment"));
            };
            let line = if from.is_some() || new_runs > 1 {
                catalogue::line_of_part(id, raw, &entries)
            } else {
                catalogue::line(id, raw, &entries)
            }
            .map_err(|e| Error::malformed("a new catalogue", e))?;
            ended.push(Segment { id, line });
        }
        Ok(ended)
    }
}
