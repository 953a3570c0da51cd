//! Options of `lifeboat guests`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::From;

/// Options of `lifeboat guests`.
#[derive(Debug, Args)]
pub struct GuestsArgs {
    /// What to do
    #[command(subcommand)]
    pub what: GuestsCommand,
}

/// What `lifeboat guests` does.
#[derive(Debug, Subcommand)]
pub enum GuestsCommand {
    /// List the dumps of guests in the targets
    List(GuestsListArgs),
    /// Bring guests back from their dumps, through qmrestore and pct restore
    Restore(GuestsRestoreArgs),
    /// Write one disk of a VM, or the whole archive of a guest, to a file
    Export(GuestsExportArgs),
    /// Show which guests came back after a bare-metal restore, and which did not
    Status,
    /// Give guests up that were to come back after a bare-metal restore
    Forget(GuestsForgetArgs),
}

/// Options of `lifeboat guests list`.
#[derive(Debug, Args)]
pub struct GuestsListArgs {
    /// Numbers of guests [default: all]
    pub ids: Vec<u32>,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
}

/// Options of `lifeboat guests restore`.
#[derive(Debug, Args)]
pub struct GuestsRestoreArgs {
    /// Numbers of guests
    #[arg(conflicts_with = "pending")]
    pub ids: Vec<u32>,
    /// Give the guest this number; its network cards get addresses of their own
    #[arg(long = "as", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(100..1_000_000_000))]
    pub r#as: Option<u32>,
    /// Put all of its disks on this storage [default: those that they were on]
    #[arg(long, value_name = "STORAGE")]
    pub storage: Option<String>,
    /// The beginning of a dump's id, or `latest`
    #[arg(long, value_name = "ID", default_value = "latest")]
    pub snapshot: String,
    /// Replace the guest that has the number now, with all of its disks
    #[arg(long)]
    pub force: bool,
    /// Start it afterwards
    #[arg(long)]
    pub start: bool,
    /// Bring back what a bare-metal restore left to be done; the first boot does this by itself
    #[arg(long, conflicts_with_all = ["as", "storage", "force", "start"])]
    pub pending: bool,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
}

/// Options of `lifeboat guests export`.
#[derive(Debug, Args)]
pub struct GuestsExportArgs {
    /// Number of the guest
    pub id: u32,
    /// A disk of a VM, as its configuration calls it: scsi0
    #[arg(long, value_name = "NAME", requires = "to")]
    pub disk: Option<String>,
    /// A new file for the disk, raw, with holes where it holds zeroes
    #[arg(long, value_name = "FILE", requires = "disk")]
    pub to: Option<PathBuf>,
    /// A new file for the whole archive (VMA of a VM, tar of a container), or - for standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["disk", "to"])]
    pub archive: Option<PathBuf>,
    /// The beginning of a dump's id, or `latest`
    #[arg(long, value_name = "ID", default_value = "latest")]
    pub snapshot: String,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
}

/// Options of `lifeboat guests forget`.
#[derive(Debug, Args)]
pub struct GuestsForgetArgs {
    /// Numbers of guests
    #[arg(required = true)]
    pub ids: Vec<u32>,
}
