//! A container's archive into the store, as the tree that its files would be on disk.
//!
//! What `vzdump` writes comes once, from front to back, in the order in which a file system lists directories. It is
//! stored as `tree.rs` stores files: the same files give the same segments, in whatever order they come.

mod blocks;
mod dirs;
mod members;
mod numbers;
mod run;
mod seen;
mod sparse;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io::Read;

use super::Backup;
use super::chunks::Chunker;
use super::sink::Sink;
use super::tree::{Growing, INLINE_MAX};
use crate::document::guest::GuestConfig;
use crate::document::{Problem, Tree};
use crate::events::Events;
use crate::list::{EntryKind, EntryState};
use crate::{Error, Id, Result, bytes};
use blocks::{Blocks, bad};
use dirs::Dirs;
use members::{Member, Members, about};
use run::{Item, Place, Writer};

/// What waits in memory for what comes before or after it.
const HELD_MAX: usize = 128 << 20;
/// Where the first members are, which are no files of the container.
const CONFIGS: &[u8] = b"etc/vzdump/";
const CONFIG_MAX: u64 = 1 << 20;
const CONFIGS_MAX: usize = 16;

impl Backup<'_> {
    /// Stores the archive of a container, as `vzdump` writes it, uncompressed: its files as a tree, and the files
    /// `etc/vzdump/...` before them. An archive that is not complete, or not understood in every part, is an error, and
    /// no snapshot may be made of it.
    pub fn archive(&mut self, stream: &mut dyn Read) -> Result<(Tree, Vec<GuestConfig>)> {
        self.archive_within(stream, HELD_MAX)
    }

    fn archive_within(
        &mut self,
        stream: &mut dyn Read,
        limit: usize,
    ) -> Result<(Tree, Vec<GuestConfig>)> {
        self.events.phase("files of the container", None);
        let stored = store(stream, self.sink()?, self.events, limit)?;
        self.stats.bytes_read += stored.0.bytes;
        Ok(stored)
    }
}

/// Stores an archive in memory: its tree, its configurations, and the blobs.
#[cfg(any(test, fuzzing))]
#[allow(clippy::type_complexity)]
pub(crate) fn in_memory(
    archive: &[u8],
    limit: usize,
) -> Result<(
    Tree,
    Vec<GuestConfig>,
    std::collections::HashMap<Id, Vec<u8>>,
)> {
    let sink = Sink::in_memory();
    let (tree, configs) = store(&mut &archive[..], &sink, &crate::events::Silent, limit)?;
    let kept = sink.shared.kept.as_ref().map(|kept| {
        std::mem::take(
            &mut *kept
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    });
    Ok((tree, configs, kept.unwrap_or_default()))
}

/// Stores an archive; about `limit` bytes of it are held in memory.
fn store(
    stream: &mut dyn Read,
    sink: &Sink,
    events: &dyn Events,
    limit: usize,
) -> Result<(Tree, Vec<GuestConfig>)> {
    let mut archive = Archive {
        blocks: Blocks::new(stream),
        chunker: Chunker::default(),
        dirs: Dirs::new(limit),
        growing: Growing::new(sink),
        writer: Writer::new(sink),
        configs: Vec::new(),
        sink,
        events,
    };
    let mut members = Members::new();
    archive
        .read(&mut members)
        .map_err(|error| about(error, &members))?;
    archive.finish()
}

struct Archive<'a> {
    blocks: Blocks<'a>,
    chunker: Chunker,
    dirs: Dirs,
    growing: Growing<'a>,
    writer: Writer<'a>,
    configs: Vec<GuestConfig>,
    sink: &'a Sink,
    events: &'a dyn Events,
}

impl Archive<'_> {
    fn read(&mut self, members: &mut Members) -> Result<()> {
        let mut count = 0u64;
        while let Some(member) = members.next(&mut self.blocks)? {
            if self.events.cancelled() {
                return Err(Error::Cancelled);
            }
            if count % 256 == 0 {
                self.events.item(bytes::of(&member.entry.path));
            }
            count += 1;
            let stored = member.map.stored();
            let path = bytes::of(&member.entry.path);
            if !self.dirs.has_root() && path.starts_with(CONFIGS) {
                self.config(member)?;
            } else {
                self.member(member)?;
            }
            self.blocks.padding(stored)?;
        }
        if !self.dirs.has_root() {
            return Err(bad("it holds no files: its root, ./, is missing"));
        }
        Ok(())
    }

    fn config(&mut self, member: Member) -> Result<()> {
        let path = bytes::of(&member.entry.path);
        let name = std::str::from_utf8(path).map_err(|_| bad("its name is not text"))?;
        let name = name.to_string();
        if member.entry.kind != EntryKind::File || member.entry.size > CONFIG_MAX {
            return Err(bad(format!(
                "a configuration that is no file of at most {CONFIG_MAX} bytes"
            )));
        }
        if self.configs.len() >= CONFIGS_MAX || self.configs.iter().any(|c| c.name == name) {
            return Err(bad("a configuration too many"));
        }
        let data = self.small(&member)?;
        self.configs.push(GuestConfig { name, data });
        Ok(())
    }

    fn member(&mut self, member: Member) -> Result<()> {
        let place = Place::Held {
            extra: member.extra.clone(),
            data: Vec::new(),
        };
        let mut item = Item {
            entry: member.entry.clone(),
            place,
        };
        self.dirs.check(&mut item)?;
        if !member.lost.is_empty() {
            item.entry.state = Some(EntryState::Partial);
            let path = bytes::on_host("/", item.path());
            let summary = &mut self.growing.tree.summary;
            summary.unreadable += 1;
            for detail in &member.lost {
                summary.note(Problem {
                    path: path.clone(),
                    what: EntryState::Partial.word().to_string(),
                    detail: detail.clone(),
                });
            }
        }
        let size = item.entry.size;
        let tree = &mut self.growing.tree;
        if item.entry.kind == EntryKind::File {
            tree.files += 1;
            tree.bytes = tree.bytes.saturating_add(size);
            // As of files on disk: what is large or has holes is cut into chunks.
            if size > INLINE_MAX || member.map.has_holes() {
                let extents = &member.map.extents;
                let content = self.chunker.store_extents(
                    &mut self.blocks,
                    extents,
                    size,
                    self.sink,
                    self.events,
                )?;
                item.entry.content = Some(content);
            } else {
                self.sink.reading(size, self.events);
                let content = self.small(&member)?;
                self.events.bytes(size);
                if let Place::Held { data, .. } = &mut item.place {
                    *data = content;
                }
            }
        }
        if self.dirs.add(item, &mut self.writer)? {
            self.growing.tree.entries += 1;
        }
        Ok(())
    }

    /// The content of a small file.
    fn small(&mut self, member: &Member) -> Result<Vec<u8>> {
        let size = usize::try_from(member.entry.size.min(INLINE_MAX.max(CONFIG_MAX)));
        let mut content = Vec::new();
        for extent in &member.map.extents {
            content.resize(extent.start as usize, 0);
            let data = self
                .blocks
                .small(extent.end - extent.start, INLINE_MAX, "a file")?;
            content.extend(data);
        }
        content.resize(size.unwrap_or_default(), 0);
        content.shrink_to_fit();
        Ok(content)
    }

    fn finish(mut self) -> Result<(Tree, Vec<GuestConfig>)> {
        let run = self.dirs.finish(&mut self.writer)?;
        let mut segments: HashSet<Id> = HashSet::new();
        let growing = &mut self.growing;
        run.finish(&mut self.writer, &mut |segment, line| {
            segments.insert(*segment);
            growing.line(segment, line)
        })?;
        debug_assert_eq!(self.writer.held, 0, "what was held is written");
        let mut tree = self.growing.finish()?;
        tree.mount_point = "/".to_string();
        tree.segments = segments.len() as u64;
        Ok((tree, self.configs))
    }
}
