//! Options of `lifeboat schedule`.

use clap::{Args, Subcommand};

/// Options of `lifeboat schedule`.
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// What to do
    #[command(subcommand)]
    pub what: ScheduleCommand,
}

/// What `lifeboat schedule` does.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ScheduleCommand {
    /// Make the timers what the configuration says
    Apply,
    /// Show what runs when
    Show,
}
