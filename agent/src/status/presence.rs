//! Whether a target is at hand, and how much room it has: looked at from outside, nothing is mounted.

use std::os::unix::fs::FileTypeExt;

use serde::Serialize;

use crate::evaluation::TargetState;
use crate::history::Space;
use crate::targets::Kind;

/// What is found under the name of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// It is there: a device, an image file, a directory with a store.
    There,
    /// A directory without a store: the drive that belongs there may not be mounted.
    Empty,
    /// A directory with another store than the one that backups went to.
    Other,
    /// Nothing.
    Absent,
}

/// Looks at a target. Of a directory, the room on it is known at once; of a stick only as it was last.
pub fn look(target: &TargetState) -> (Presence, Option<Space>) {
    let Ok(meta) = std::fs::metadata(&target.target) else {
        return (Presence::Absent, None);
    };
    if meta.file_type().is_block_device() || meta.is_file() {
        return (Presence::There, None);
    }
    let Ok(Kind::Directory(dir)) = Kind::of(&target.target) else {
        return (Presence::Absent, None);
    };
    match (super::store_id(&dir), &target.store) {
        (None, _) => (Presence::Empty, None),
        (Some(found), Some(known)) if found != *known => (Presence::Other, None),
        (Some(_), _) => (Presence::There, Space::of(&dir)),
    }
}
