//! Options of `lifeboat status`, `lifeboat notify` and `lifeboat check-layout`.

use clap::{Args, Subcommand};

use super::From;

/// Printed below the help of `lifeboat status`.
pub const STATUS_EXIT: &str = "\
Exit status, as Nagios and its kin take it; the first line of the output is the summary for them:
  0  fine
  1  warning: to be looked at
  2  critical: nothing (good) is saved, or it is too old; damage; or a wrong configuration
  3  unknown: the history of runs cannot be read";

/// Printed below the help of `lifeboat check-layout`.
pub const CHECK_LAYOUT_EXIT: &str = "\
Exit status:
  0  the layout is as it was saved last: a restore would make what there is now
  1  it has drifted; make a new restore point
  2  wrong usage, or a wrong configuration
  3  unknown: the layout cannot be captured, or none was saved yet";

/// Options of `lifeboat status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Also send the messages that are due (overdue, recovery, low space, and what could not be sent before)
    #[arg(long)]
    pub notify: bool,
    /// Also write the metrics file, if one is configured
    #[arg(long)]
    pub metrics: bool,
}

/// Options of `lifeboat notify`.
#[derive(Debug, Args)]
pub struct NotifyArgs {
    /// What to do
    #[command(subcommand)]
    pub what: NotifyCommand,
}

/// What `lifeboat notify` does.
#[derive(Debug, Subcommand)]
pub enum NotifyCommand {
    /// Send a test message to everybody who is configured, and say what became of it
    Test,
}

/// Options of `lifeboat check-layout`.
#[derive(Debug, Args)]
pub struct CheckLayoutArgs {
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
}
