//! Following what a snapshot refers to.

use std::collections::HashSet;

use crate::catalogue;
use crate::content::{self, Piece};
use crate::document::Snapshot;
use crate::list::Entry;
use crate::read::Readers;
use crate::{Error, Id, bytes};

/// Who needs a blob.
pub(crate) enum Owner<'a> {
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
    pub(crate) fn files(&self) -> Vec<String> {
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

/// Is told what a snapshot needs. A closure is one that only wants the ids.
pub(crate) trait Visitor {
    /// The snapshot needs this blob; some are told more than once.
    fn needs(&mut self, id: Id, owner: &Owner<'_>);

    /// Whether what this catalogue or content list refers to is known already: then it is not read again.
    fn followed(&mut self, _id: &Id) -> bool {
        false
    }

    /// A catalogue or content list cannot be read or understood: what it refers to is not told.
    fn broken(&mut self, _id: &Id, _error: &Error) {}
}

impl<F: FnMut(Id, &Owner<'_>)> Visitor for F {
    fn needs(&mut self, id: Id, owner: &Owner<'_>) {
        self(id, owner);
    }
}

/// Tells `visitor` every blob that the snapshot needs. Returns what has the right hash and is malformed nevertheless.
pub(crate) fn follow(
    readers: &mut Readers<'_>,
    snapshot: &Snapshot,
    visitor: &mut dyn Visitor,
) -> Vec<(Id, String)> {
    let mut malformed = Vec::new();
    for tree in &snapshot.trees {
        let mount_point = tree.mount_point.as_str();
        for id in &tree.catalogue {
            visitor.needs(*id, &Owner::Catalogue { mount_point });
            if visitor.followed(id) {
                continue;
            }
            let json = match readers.blob(id) {
                Ok(json) => json,
                Err(error) => {
                    visitor.broken(id, &error);
                    continue;
                }
            };
            let lines = match catalogue::parse(id, &json) {
                Ok(lines) => lines,
                Err(error) => {
                    visitor.broken(id, &error);
                    malformed.push((*id, error.to_string()));
                    continue;
                }
            };
            for line in &lines {
                visitor.needs(
                    line.segment,
                    &Owner::Segment {
                        mount_point,
                        entries: &line.entries,
                    },
                );
                for entry in &line.entries {
                    if let Some(list) = &entry.content {
                        let owner = Owner::Content { mount_point, entry };
                        list_of(readers, list, entry.size, &owner, visitor, &mut malformed);
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
            visitor,
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
    visitor: &mut dyn Visitor,
    malformed: &mut Vec<(Id, String)>,
) {
    if visitor.followed(list) {
        return visitor.needs(*list, owner);
    }
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
        visitor.needs(id, owner);
    }
    if let Err(error) = read {
        visitor.broken(list, &error);
        // A list that cannot be read was visited; one that can be read and is wrong is a damage of its own.
        if let Error::Malformed { .. } = error {
            malformed.push((*list, error.to_string()));
        }
    }
}
