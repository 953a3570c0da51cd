//! Options of `lifeboat generate`, which packages call.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

/// Options of `lifeboat generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// What to write
    #[command(subcommand)]
    pub what: GenerateCommand,
}

/// What `lifeboat generate` writes.
#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// The manual pages: of the command, of each of its commands, and of the configuration file
    Man {
        /// The directory they go to, as NAME.8 and NAME.5
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// What lets a shell complete the command line
    Completions {
        /// Which shell
        shell: Shell,
    },
}
