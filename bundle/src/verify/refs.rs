//! Following what a snapshot refers to.

use std::collections::HashSet;

use crate::catalogue;
use crate::content::{self, Piece};
use crate::document::Snapshot;
use crate::list::Entry;
use crate::read::Readers;
use crate::{Id, bytes};

/// Who needs a blob.
pub(super) enum Owner<'a> {
    /// All files of the tree from here on are named by it.
    Catalogue {
        mount_point: &'a str,
    },
    Segment {
        mount_point: &'a str,
        entries: &'a [Entry],
    },
    Content {
        mount_point: &'a str,
        entry: &'a Entry,
    },
    Image {
        node: &'a str,
    },
}

impl Owner<'_> {
    /// The files on the host that suffer when the blob is lost.
    pub(super) fn files(&self) -> Vec<String> {
        match self {
            Owner::Catalogue { mount_point } => {
                vec![format!("{mount_point} (a part of its catalogue)")]
            }
            Owner::Segment {
                mount_point,
                entries,
            } => {
                let kept = entries.iter().filter(|e| e.is_kept());
                kept.map(|e| bytes::on_host(mount_point, bytes::of(&e.path)))
                    .collect()
            }
            Owner::Content { mount_point, entry } => {
                vec![bytes::on_host(mount_point, bytes::of(&entry.path))]
            }
            Owner::Image { node } => vec![format!("image of {node}")],
        }
    }
}

/// Calls `visit` for every blob that the snapshot needs, some more than once. Returns what has the right hash and is
/// malformed nevertheless; blobs that cannot be read are visited, and what they would refer to is not.
pub(super) fn follow(
    readers: &mut Readers<'_>,
    snapshot: &Snapshot,
    visit: &mut dyn FnMut(Id, &Owner<'_>),
) -> Vec<(Id, String)> {
    let mut malformed = Vec::new();
    for tree in &snapshot.trees {
        let mount_point = tree.mount_point.as_str();
        for id in &tree.catalogue {
            visit(*id, &Owner::Catalogue { mount_point });
            let Ok(json) = readers.blob(id) else { continue };
            let lines = match catalogue::parse(id, &json) {
                Ok(lines) => lines,
                Err(error) => {
                    malformed.push((*id, error.to_string()));
                    continue;
                }
            };
            for line in &lines {
                visit(
                    line.segment,
                    &Owner::Segment {
                        mount_point,
                        entries: &line.entries,
                    },
                );
                for entry in &line.entries {
                    if let Some(list) = &entry.content {
                        let owner = Owner::Content { mount_point, entry };
                        list_of(readers, list, entry.size, &owner, visit, &mut malformed);
                    }
                }
            }
        }
    }
    for image in &snapshot.images {
        let owner = Owner::Image { node: &image.node };
        list_of(
            readers,
            &image.content,
            image.size,
            &owner,
            visit,
            &mut malformed,
        );
    }
    malformed
}

fn list_of(
    readers: &mut Readers<'_>,
    list: &Id,
    size: u64,
    owner: &Owner<'_>,
    visit: &mut dyn FnMut(Id, &Owner<'_>),
    malformed: &mut Vec<(Id, String)>,
) {
    let mut needed = HashSet::new();
    let mut lists = HashSet::new();
    let read = content::read(
        readers,
        list,
        size,
        &mut |id| {
            lists.insert(id);
        },
        &mut |_, piece| {
            if let Piece::Blob { id, .. } = piece {
                needed.insert(id);
            }
            Ok(())
        },
    );
    for id in lists.into_iter().chain(needed) {
        visit(id, owner);
    }
    // A list that cannot be read was visited; one that can be read and is wrong is a damage of its own.
    if let Err(error @ crate::Error::Malformed { .. }) = read {
        malformed.push((*list, error.to_string()));
    }
}
