//! Options of `lifeboat report`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::civil::Date;

use crate::report::period::Length;

/// Options of `lifeboat report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// How far back, in whole days of local time, ending today or at --until [default: month]
    #[arg(long, value_enum, conflicts_with = "since")]
    pub period: Option<Length>,
    /// The last complete day, week, month or quarter of the calendar, not one that ends today
    #[arg(long, conflicts_with_all = ["since", "until"])]
    pub complete: bool,
    /// The first day, for example 2026-07-01
    #[arg(long, value_name = "DATE")]
    pub since: Option<Date>,
    /// The last day [default: today]
    #[arg(long, value_name = "DATE")]
    pub until: Option<Date>,
    /// A file, for its owner only; what it holds is replaced [default: - for standard output]
    #[arg(
        long,
        value_name = "FILE",
        default_value = "-",
        hide_default_value = true
    )]
    pub to: PathBuf,
    /// A page for people, or the data that it is made of; --json asks for these, too
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// What a report is written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One page, without anything from elsewhere
    #[default]
    Html,
    /// The data
    Json,
}
