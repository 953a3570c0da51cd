//! Options of `lifeboat plug`.

use std::path::PathBuf;

use clap::Args;

/// Options of `lifeboat plug`.
#[derive(Debug, Args)]
pub struct PlugArgs {
    /// The stick: /dev/sdX, one of its partitions, or its link in /dev/lifeboat
    pub device: PathBuf,
    /// Make it one of this host's sticks, with what is on it, in place of the one that it may be a copy of; does nothing else
    #[arg(long)]
    pub adopt: bool,
}
