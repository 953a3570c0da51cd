//! Options of `lifeboat setup`.

use std::path::PathBuf;

use clap::Args;

/// Options of `lifeboat setup`.
#[derive(Debug, Args)]
pub struct SetupArgs {
    /// Take the answers from this file, and ask nothing (docs/setup.md)
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,
    /// Show what would be done; changes nothing
    #[arg(long)]
    pub dry_run: bool,
}
