//! Options of `lifeboat key`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Options of `lifeboat key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// What to do
    #[command(subcommand)]
    pub what: KeyCommand,
}

/// A target whose keys are meant.
#[derive(Debug, Args)]
pub struct On {
    /// A stick (/dev/sdX), an image file, or a directory
    #[arg(long, value_name = "PATH")]
    pub on: PathBuf,
}

/// The secret of a new key.
#[derive(Debug, Args)]
pub struct NewKey {
    /// Take the new passphrase from this file, instead of asking for it
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
    /// A key file, which is made where there is none
    #[arg(long, value_name = "FILE", conflicts_with = "new_passphrase_file")]
    pub new_key_file: Option<PathBuf>,
}

/// What `lifeboat key` does.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Encrypt a target that holds no restore points yet
    Init {
        /// Where.
        #[command(flatten)]
        on: On,
    },
    /// Show what opens a target
    List {
        /// Where.
        #[command(flatten)]
        on: On,
    },
    /// Add a key: a passphrase, a key file or a recovery key
    Add {
        /// Where.
        #[command(flatten)]
        on: On,
        /// What.
        #[command(flatten)]
        new: NewKey,
        /// A new recovery key, which is shown once
        #[arg(long, conflicts_with_all = ["new_passphrase_file", "new_key_file"])]
        recovery: bool,
    },
    /// Remove a key; the last one stays
    Remove {
        /// The beginning of the key's id, as `lifeboat key list` shows it
        key: String,
        /// Where.
        #[command(flatten)]
        on: On,
    },
    /// Give a key a new passphrase, key file or recovery key; the old one opens nothing any more
    Rotate {
        /// The beginning of the key's id, as `lifeboat key list` shows it
        key: String,
        /// Where.
        #[command(flatten)]
        on: On,
        /// What.
        #[command(flatten)]
        new: NewKey,
    },
    /// Keep the target's key on this host, so that backups do not ask
    Keep {
        /// Where.
        #[command(flatten)]
        on: On,
    },
}
