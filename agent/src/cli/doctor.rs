//! Options of `lifeboat doctor`.

use clap::Args;

/// Options of `lifeboat doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Show all that can be found, with its severity, and why it matters; looks at nothing
    #[arg(long)]
    pub list: bool,
}
