//! What can go wrong while the rescue system and its media are made.

use std::io;
use std::path::PathBuf;

use layout::system::SystemError;

/// An error of this crate. The text says what failed, on which file or device, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or device could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb: "read", "write", "create directory".
        action: &'static str,
        /// On which file or device.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A program that we need failed.
    #[error(transparent)]
    System(#[from] SystemError),
    /// Programs that the rescue system cannot do without are not installed on this host.
    #[error("the rescue system needs programs that are not installed here: {}; install them with: apt-get install {}", programs.join(", "), packages.join(" "))]
    MissingTools {
        /// The names of the missing programs.
        programs: Vec<String>,
        /// The Debian packages that hold them.
        packages: Vec<String>,
    },
    /// A shared library that a program needs was not found.
    #[error("{} needs the library {library}, which was not found; reinstall the package that holds it (dpkg -S {})", program.display(), program.display())]
    MissingLibrary {
        /// The program or library that needs it.
        program: PathBuf,
        /// The name it asks for.
        library: String,
    },
    /// The kernel cannot be used.
    #[error("kernel: {0}")]
    Kernel(String),
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file or device.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The target must not or cannot become a bundle.
    #[error("{} cannot be used: {}", device.display(), reasons.join("; "))]
    Refused {
        /// The device or image file.
        device: PathBuf,
        /// All reasons that were found.
        reasons: Vec<String>,
    },
    /// The device or file holds no Lifeboat medium.
    #[error("{} is not a Lifeboat medium: {reason}; `lifeboat prepare` makes one", path.display())]
    NotAStick {
        /// The device or image file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// What was read back is not what was written.
    #[error("{}: {what} read back differently from what was written; the medium is defective, use another one", path.display())]
    ReadBack {
        /// The device or image file.
        path: PathBuf,
        /// Which part.
        what: String,
    },
    /// The EFI system partition has no room.
    #[error("{}: the boot partition has {available} bytes free for a rescue slot, {needed} are needed; prepare the medium again with a larger boot partition", path.display())]
    EspFull {
        /// The device or image file.
        path: PathBuf,
        /// Bytes that the new rescue system takes.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: an I/O error with the action and the path.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn format(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Format {
            path: path.into(),
            reason: reason.into(),
        }
    }
}
