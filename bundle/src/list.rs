//! What a tree holds, from its catalogue.

use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use crate::catalogue::{Catalogue, Line, WireEntry};
use crate::document::Tree;
use crate::read::Readers;
use crate::store::Store;
use crate::{Id, Result};

/// What kind of file an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Another name of a file met earlier, see [`Entry::target`].
    Hardlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// How an entry's content in the snapshot relates to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryState {
    /// It changed while it was read.
    Changed,
    /// It was listed, but gone when it was to be read; not in the snapshot.
    Vanished,
    /// It could not be read at all; not in the snapshot.
    Unreadable,
    /// It could not be read completely: the rest is zeroes.
    Partial,
}

impl EntryState {
    pub(crate) fn word(self) -> &'static str {
        match self {
            EntryState::Changed => "changed",
            EntryState::Vanished => "vanished",
            EntryState::Unreadable => "unreadable",
            EntryState::Partial => "partial",
        }
    }

    pub(crate) fn from_word(word: &[u8]) -> Option<EntryState> {
        [
            EntryState::Changed,
            EntryState::Vanished,
            EntryState::Unreadable,
            EntryState::Partial,
        ]
        .into_iter()
        .find(|state| state.word().as_bytes() == word)
    }
}

/// One entry of a tree. Serialises as the catalogue writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path inside the tree, without a leading slash; `.` is the tree's root.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes of a regular file (of a hard link: of the file).
    pub size: u64,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last modification: seconds since 1970, nanoseconds.
    pub mtime: (i64, u32),
    /// Time of last change of the inode.
    pub ctime: (i64, u32),
    /// Inode number.
    pub ino: u64,
    /// Device number of a device node: major, minor.
    pub rdev: Option<(u32, u32)>,
    /// Target of a symbolic link, or the first path of a hard link.
    pub target: Option<PathBuf>,
    /// Content list of a large or sparse file.
    pub content: Option<Id>,
    /// Not as it was.
    pub state: Option<EntryState>,
}

impl Entry {
    /// Is it in the snapshot, or only recorded as something that could not be kept?
    pub fn is_kept(&self) -> bool {
        !matches!(
            self.state,
            Some(EntryState::Vanished | EntryState::Unreadable)
        )
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        WireEntry::from(self).serialize(serializer)
    }
}

/// The entries of a tree, directories before their contents, in byte order.
pub fn entries<'s>(
    readers: &'s [&'s Store],
    tree: &'s Tree,
) -> impl Iterator<Item = Result<Entry>> + 's {
    let mut lines = Catalogue::new(Readers::new(readers), tree);
    let mut current: std::vec::IntoIter<Entry> = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if let Some(entry) = current.next() {
                return Some(Ok(entry));
            }
            match lines.next()? {
                Ok(Line { entries, .. }) => current = entries.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    })
}
