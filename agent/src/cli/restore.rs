//! Options of `lifeboat plan`, `arm` and `disarm`: what a restore is to do.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use layout::plan::{Grow, LeaveOut, Mode};

use super::From;
use crate::values::Hours;

/// Options of `lifeboat plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The beginning of a restore point's id, or `latest`
    pub snapshot: String,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
    /// Restore a saved disk onto the disk with this serial, WWN or device (onto:SAVED: where that saved disk goes; missing: do
    /// without it; DISK+DISK: onto the first, with its volume group spread over both); repeat for several
    #[arg(long, value_name = "SAVED=DISK")]
    pub disk: Vec<String>,
    /// Plan for the disks in this file (`lifeboat inventory --json` writes one), not for those of this machine
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
    /// How much of the machine is touched: table-repair, boot-repair, system-only or bare-metal
    #[arg(long, value_name = "MODE", default_value = "bare-metal")]
    pub mode: Mode,
    /// What takes the space of a larger disk: root, thin-pool, vg-free or untouched
    #[arg(long, value_name = "WHAT", default_value = "root")]
    pub grow: Grow,
    /// Leave all volumes as large as they were, when the new disk is larger: the same as --grow vg-free
    #[arg(long, conflicts_with = "grow")]
    pub no_grow: bool,
    /// Do not make this again, so that the rest fits: swap or guest-pool; repeat for both
    #[arg(long, value_name = "WHAT")]
    pub leave_out: Vec<LeaveOut>,
}

/// Options of `lifeboat arm`.
#[derive(Debug, Args)]
pub struct ArmArgs {
    /// The stick or image file that is to restore without questions
    #[arg(long, value_name = "STICK")]
    pub on: PathBuf,
    /// The beginning of a restore point's id, or `latest`
    #[arg(long, default_value = "latest")]
    pub snapshot: String,
    /// Restore a saved disk onto the disk with this serial (onto:SAVED: where that saved disk goes; missing: do without it;
    /// SERIAL+SERIAL: onto the first, with its volume group spread over both); repeat for several [default: the disks it was
    /// saved from]
    #[arg(long, value_name = "SAVED=SERIAL")]
    pub disk: Vec<String>,
    /// Where a saved disk is not there any more, let the rescue system choose another one by its size
    #[arg(long)]
    pub any_disk: bool,
    /// How much of the machine is touched: table-repair, boot-repair, system-only or bare-metal
    #[arg(long, value_name = "MODE", default_value = "bare-metal")]
    pub mode: Mode,
    /// What takes the space of a larger disk: root, thin-pool, vg-free or untouched
    #[arg(long, value_name = "WHAT", default_value = "root")]
    pub grow: Grow,
    /// Do not make this again, so that the rest fits: swap or guest-pool; repeat for both
    #[arg(long, value_name = "WHAT")]
    pub leave_out: Vec<LeaveOut>,
    /// Saved network card and the address of the one that takes its place, or none; repeat for several [default: the same
    /// card, else one at the same place, else the first free one with a link]
    #[arg(long, value_name = "SAVED=MAC")]
    pub nic: Vec<String>,
    /// Start a member of a Proxmox VE cluster as the member it was, not alone
    #[arg(long)]
    pub cluster_member: bool,
    /// What to do after the restore
    #[arg(long, value_enum, default_value_t = Then::Reboot)]
    pub then: Then,
    /// How long the stick stays armed, for example 24h or 7d
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub expires: Hours,
    /// Replace the token of an earlier `arm`
    #[arg(long)]
    pub replace: bool,
}

/// What follows an unattended restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Then {
    /// Start the restored system
    Reboot,
    /// Switch the machine off
    Poweroff,
}

/// Options of `lifeboat disarm`.
#[derive(Debug, Args)]
pub struct DisarmArgs {
    /// The stick or image file
    #[arg(long, value_name = "STICK")]
    pub on: PathBuf,
}
