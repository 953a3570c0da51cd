//! What can go wrong, said so that an administrator knows what to do next.

use std::io;
use std::path::{Path, PathBuf};

use crate::Id;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "read".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The directory holds no store.
    #[error("{} holds no store (there is no lifeboat/store.json); `lifeboat prepare` makes one", dir.display())]
    NoStore {
        /// The directory looked at.
        dir: PathBuf,
    },
    /// A store is to be created where one exists.
    #[error("{} already holds a store; open it instead, or choose another directory", dir.display())]
    StoreExists {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process writes to the store.
    #[error("the store in {} is in use by another writer; wait for it to end and try again", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The store that was opened is no longer at its place.
    #[error("the store in {} was exchanged or its lock removed while it was written to; no snapshot was made: look whether the target is still mounted, then run the backup again", dir.display())]
    Exchanged {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process reads the store, so nothing may be removed from it.
    #[error("the store in {} is being read (verified, extracted from, mounted); wait for that to end and try again", dir.display())]
    BeingRead {
        /// The directory.
        dir: PathBuf,
    },
    /// A file of a format that this version does not know.
    #[error("{} has format {found}, this version reads format {known}; use a newer lifeboat", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: String,
        /// The version known.
        known: u32,
    },
    /// The store is encrypted, and nothing was given that could open it.
    #[error("the store in {} is encrypted and locked; it opens with: {opens}", dir.display())]
    KeyNeeded {
        /// The directory.
        dir: PathBuf,
        /// What its key slots are opened with, in words.
        opens: String,
    },
    /// The store is encrypted, and what was given does not open it.
    #[error("wrong {tried} for the store in {}: none of its keys opens with that", dir.display())]
    WrongKey {
        /// The directory.
        dir: PathBuf,
        /// What was tried, in words.
        tried: String,
    },
    /// The store says that it is plain, and this host holds its key.
    #[error("the store in {} was encrypted, and its store.json says now that it is not: it was tampered with, nothing is written to it; look who had access to the target", dir.display())]
    NoLongerEncrypted {
        /// The directory.
        dir: PathBuf,
    },
    /// A change of a store's keys that is not possible.
    #[error("{0}")]
    Keys(String),
    /// A file or a blob whose content is not what the format asks for.
    #[error("{what} is damaged: {reason}")]
    Malformed {
        /// The file, or the blob and its pack.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No snapshot of that name.
    #[error("there is no snapshot {wanted:?} in {}; `lifeboat list` shows those that exist", dir.display())]
    NoSnapshot {
        /// What was asked for.
        wanted: String,
        /// The store.
        dir: PathBuf,
    },
    /// More than one snapshot begins with these digits.
    #[error("{wanted:?} fits {count} snapshots in {}; give more digits", dir.display())]
    AmbiguousSnapshot {
        /// What was asked for.
        wanted: String,
        /// How many fit.
        count: usize,
        /// The store.
        dir: PathBuf,
    },
    /// A blob that no store at hand can deliver.
    #[error("blob {id} cannot be read: {reason}")]
    Blob {
        /// The blob.
        id: Id,
        /// One reason per place that was tried.
        reason: String,
    },
    /// A pattern that cannot be understood.
    #[error("the pattern {pattern:?} is not usable: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No host of that name, or more than one machine id that begins so.
    #[error("no single host in {} is meant by {wanted:?}; it holds restore points of: {known}", dir.display())]
    NoHost {
        /// What was asked for.
        wanted: String,
        /// The store.
        dir: PathBuf,
        /// The hosts there are.
        known: String,
    },
    /// It is not known what is needed, so nothing is removed.
    #[error("nothing was removed from {}, as it is not known what is still needed: {} ({reason}); `lifeboat verify` says more", dir.display(), file.display())]
    NotPruned {
        /// The store.
        dir: PathBuf,
        /// The file that would have to be read.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of a snapshot cannot be delivered.
    #[error("{path}: {source}")]
    File {
        /// Its path on the host.
        path: String,
        /// The reason.
        source: Box<Error>,
    },
    /// An archive that cannot be kept as the files of a container.
    #[error(
        "the archive is not usable {place}: {reason}; nothing of it was kept, the guest has to be dumped again"
    )]
    Archive {
        /// The member, and where it begins.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Files of a container that no store at hand can deliver.
    #[error("the container is not given back: {} is lost ({}); the archive was ended so that it cannot be taken for a whole one; heal the store from another one, or accept the loss", first.path.display(), first.reason)]
    Incomplete {
        /// What is missing.
        first: Box<crate::extract::FileProblem>,
    },
    /// Every target of a backup has failed.
    #[error("no target is left to write to: {0}")]
    NoTarget(String),
    /// [`Events::cancelled`](crate::events::Events::cancelled) said so.
    #[error("stopped on request")]
    Cancelled,
    /// A worker of the pipeline ended without a result; a fault in this program.
    #[error("internal fault: {0}; please report it")]
    Internal(&'static str),
}

impl Error {
    /// There is no room left on the file system, or for this user.
    pub fn is_full(&self) -> bool {
        let full = [libc::ENOSPC, libc::EDQUOT].map(Some);
        matches!(self, Error::Io { source, .. } if full.contains(&source.raw_os_error()))
    }

    /// Turns an I/O error into one that names the file: `.map_err(Error::io("open", path))`.
    pub(crate) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            action,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// The same for an error of `nix`.
    pub(crate) fn sys(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(nix::Error) -> Error {
        move |source| Error::Io {
            action,
            path: path.as_ref().to_path_buf(),
            source: source.into(),
        }
    }

    /// A damaged file or blob.
    pub(crate) fn malformed(what: impl ToString, reason: impl ToString) -> Error {
        Error::Malformed {
            what: what.to_string(),
            reason: reason.to_string(),
        }
    }
}
