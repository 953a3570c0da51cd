//! The command line: every option, with the help that users read.

mod audit;
mod doctor;
mod generate;
mod guests;
mod key;
mod knowing;
mod plug;
mod report;
mod restore;
mod schedule;
mod setup;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compression::Compression;
use crate::config::Parity;
use crate::guests::Which;
use crate::history::Trigger;
use crate::priority::{IoNice, Nice};
use crate::values::{Hours, Percent, Size};

pub use audit::*;
pub use doctor::*;
pub use generate::*;
pub use guests::*;
pub use key::*;
pub use knowing::*;
pub use plug::*;
pub use report::*;
pub use restore::*;
pub use schedule::*;
pub use setup::*;

/// Printed below the help: what the exit status says.
const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  failed; for verify: damage was found; for find: nothing was found; for doctor: something critical was found
  2  wrong usage, or a wrong configuration
  3  done, with warnings: files changed or vanished meanwhile or were unreadable, parts of the
     layout that a restore will not remake, or one of several targets failed
  4  refused, so that nothing is lost (for example: the disk is in use)";

/// Bare-metal recovery for Proxmox VE and Debian hosts: restore points on a stick that boots, and on other drives.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, after_help = EXIT_STATUS, propagate_version = true)]
pub struct Cli {
    /// Settings common to all commands.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Configuration file; all settings in it are optional [default: /etc/lifeboat/lifeboat.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the result as JSON to standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress and no summary; warnings and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Open an encrypted target with the passphrase or the recovery key in this file (only its line end is left out)
    /// [default: the file that LIFEBOAT_PASSPHRASE_FILE names]
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Open an encrypted target with this key file
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Say more (-v: each step; -vv: each process that is started)
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a stick (or an image of one) that boots, or a store in a directory
    Prepare(PrepareArgs),
    /// Make a restore point of this host on all targets
    Backup(BackupArgs),
    /// List the restore points of a target
    List(ListArgs),
    /// Show one restore point: what is in it, and what went wrong when it was made
    Show(ShowArgs),
    /// List a directory of a restore point
    Ls(LsArgs),
    /// Show what changed between two restore points
    Diff(DiffArgs),
    /// Find files by name in all restore points of all targets
    Find(FindArgs),
    /// Read a target again, past the page cache, and check every byte
    Verify(VerifyArgs),
    /// Remove the restore points of this host that the policy does not keep, and what only they needed
    Prune(PruneArgs),
    /// Copy files out of a restore point
    Extract(ExtractArgs),
    /// Show a restore point, or all, as a read-only file system
    Mount(MountArgs),
    /// The guests of a Proxmox VE node: list their dumps, bring them back
    Guests(GuestsArgs),
    /// Show the storage layout of this host, or the one saved in a restore point
    Layout(LayoutArgs),
    /// Show what a restore onto the disks at hand would do; touches none of them
    Plan(PlanArgs),
    /// Show the disks of this machine as a restore would see them
    Inventory,
    /// Let the next boot of a stick restore without questions, once
    Arm(ArmArgs),
    /// Take back what `arm` did
    Disarm(DisarmArgs),
    /// The keys of an encrypted target
    Key(KeyArgs),
    /// What runs by itself: make the timers what the configuration says, or show them
    Schedule(ScheduleArgs),
    /// Who did what: show the log, or prove that nobody changed it
    Audit(AuditArgs),
    /// Do what is to be done with a stick that was plugged in: the udev rule starts this
    Plug(PlugArgs),
    /// Write what happened in a period as a page for people, with evidence, or as JSON
    Report(ReportArgs),
    /// Show the configuration, or an example with every setting explained
    Config(ConfigArgs),
    /// Write manual pages and completions, for packages
    #[command(hide = true)]
    Generate(GenerateArgs),
    /// Say what is missing or risky for backups and restores of this host, each with the command that mends it
    Doctor(DoctorArgs),
    /// Set everything up in a few questions: targets, configuration, timers, the first backup
    Setup(SetupArgs),
    /// Show on one screen what the backups of this host are worth, and what to do next; for monitoring, too
    #[command(after_help = STATUS_EXIT)]
    Status(StatusArgs),
    /// Messages about backups: try whether they arrive
    Notify(NotifyArgs),
    /// Say whether the storage layout has changed since it was saved last
    #[command(after_help = CHECK_LAYOUT_EXIT)]
    CheckLayout(CheckLayoutArgs),
}

/// Options of `lifeboat prepare`.
#[derive(Debug, Args)]
pub struct PrepareArgs {
    /// A whole disk (/dev/sdX), an image file, or a directory on another drive
    #[arg(required_unless_present = "check_kernel")]
    pub target: Option<PathBuf>,
    /// Encrypt the store, with --passphrase-file, --key-file (made where there is none) or a passphrase that is asked
    /// for; a recovery key is shown once
    #[arg(long)]
    pub encrypt: bool,
    /// Size of a new image file, for example 32G
    #[arg(long)]
    pub size: Option<Size>,
    /// Size of the EFI system partition, which holds two rescue systems
    #[arg(long, value_name = "SIZE")]
    pub esp_size: Option<Size>,
    /// Take the kernel of the rescue system from this Debian package, not from this host
    #[arg(long, value_name = "DEB")]
    pub kernel_package: Option<PathBuf>,
    /// Take this kernel of the host (a version below /lib/modules), not the newest
    #[arg(long, value_name = "VERSION", conflicts_with = "kernel_package")]
    pub kernel: Option<String>,
    /// Erase the disk with this serial without asking
    #[arg(long, value_name = "SERIAL")]
    pub yes_erase: Option<String>,
    /// Kernel modules of the rescue system: for which machines it boots [default: full]
    #[arg(long, value_enum)]
    pub modules: Option<Modules>,
    /// Write over an image file that exists
    #[arg(long)]
    pub force_image: bool,
    /// Make this much parity beside every file of the store (1% to 50%), from which damage up to that size is
    /// repaired; or none [default: as configured]
    #[arg(long, value_name = "SHARE")]
    pub parity: Option<Parity>,
    /// Only say whether this host has a kernel that a rescue system can be made of
    #[arg(long)]
    pub check_kernel: bool,
}

/// Which kernel modules the rescue system carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modules {
    /// Any machine: storage, USB, file systems, keyboards, wired network
    Full,
    /// The same without network cards
    Storage,
    /// Virtual machines only; boots quickest, for tests and drills
    Slim,
}

/// Options of `lifeboat backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Where to: a stick (/dev/sdX), an image file, or a directory; repeat for several
    /// [default: the configured targets]
    #[arg(long, value_name = "PATH")]
    pub to: Vec<PathBuf>,
    /// Show what would be saved and what is left out, with sizes; writes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Leave out what matches, besides the configured and the default exclusions; repeat for several
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Save what a default exclusion leaves out (give its pattern as --dry-run shows it); repeat for several
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Leave out only what was asked for, and pseudo file systems
    #[arg(long)]
    pub no_default_exclusions: bool,
    /// Save this directory instead of the whole host, without layout and partitions; repeat for several
    #[arg(long, value_name = "DIR")]
    pub root: Vec<PathBuf>,
    /// Dump these guests of the node: a number, tag:NAME or all; repeat for several [default: as configured]
    #[arg(long, value_name = "GUEST", conflicts_with = "no_guests")]
    pub guests: Vec<Which>,
    /// Dump no guests
    #[arg(long)]
    pub no_guests: bool,
    /// Dump guests only, and make no restore point of the host
    #[arg(long, conflicts_with_all = ["no_guests", "root"])]
    pub only_guests: bool,
    /// zstd:LEVEL, xz:LEVEL, none, or auto: the level of zstd follows the speed of the targets [default: zstd:3]
    #[arg(long, value_name = "CODEC")]
    pub compression: Option<Compression>,
    /// Read every file, also those that have not changed since the last restore point
    #[arg(long)]
    pub reread: bool,
    /// Whether the host's file systems are read from snapshots [default: auto, or as configured]
    #[arg(long, value_name = "WHEN", value_enum)]
    pub snapshots: Option<crate::consistency::Mode>,
    /// Read at most so much of the host per second, for example 100M [default: no limit]
    #[arg(long, value_name = "SIZE")]
    pub io_limit: Option<Size>,
    /// Priority for the processor, 0 (as any program) to 19 (only what others leave) [default: 10]
    #[arg(long, value_name = "N")]
    pub nice: Option<Nice>,
    /// Priority for disks: best-effort:0 to best-effort:7, idle, or none (as the command was started)
    /// [default: best-effort:7]
    #[arg(long, value_name = "PRIORITY")]
    pub ionice: Option<IoNice>,
    /// Do not read the new restore point again
    #[arg(long)]
    pub no_verify: bool,
    /// Leave the rescue system on sticks as it is
    #[arg(long)]
    pub no_update_rescue: bool,
    /// Take the kernel of the rescue system from this Debian package, not from this host
    #[arg(long, value_name = "DEB")]
    pub kernel_package: Option<PathBuf>,
    /// How it was started, and how patient it is.
    #[command(flatten)]
    pub start: Start,
}

/// How a run was started.
#[derive(Debug, Clone, Args)]
pub struct Start {
    /// What started this run; units say it, and the history of runs shows it
    #[arg(long, value_enum, default_value_t, hide = true)]
    pub trigger: Trigger,
    /// Wait so long for another run of this host to end, for example 6h [default: not at all]
    #[arg(long, value_name = "TIME")]
    pub wait: Option<Hours>,
}

impl Start {
    /// How long to wait for another run.
    pub fn patience(&self) -> std::time::Duration {
        self.wait.map(Into::into).unwrap_or_default()
    }
}

/// Where to read from.
#[derive(Debug, Clone, Args)]
pub struct From {
    /// A stick (/dev/sdX), an image file, or a directory; repeat to read several as one
    /// [default: the configured targets]
    #[arg(long, value_name = "PATH")]
    pub from: Vec<PathBuf>,
}

/// Options of `lifeboat list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
}

/// Options of `lifeboat show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The beginning of a restore point's id, or `latest`
    pub snapshot: String,
    /// List the files, all or those below these paths
    #[arg(long)]
    pub files: bool,
    /// Absolute paths of the host (with --files)
    #[arg(requires = "files")]
    pub paths: Vec<PathBuf>,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
}

/// Options of `lifeboat ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// The beginning of a restore point's id, or `latest`
    pub snapshot: String,
    /// Absolute paths of the host, files or directories [default: /]
    pub paths: Vec<PathBuf>,
    /// Everything below, too
    #[arg(long, short = 'R')]
    pub recursive: bool,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
}

/// Options of `lifeboat diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The older restore point: the beginning of its id, or `latest`
    pub a: String,
    /// The newer one
    pub b: String,
    /// Only at and below this absolute path of the host
    pub path: Option<PathBuf>,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
}

/// Options of `lifeboat find`.
#[derive(Debug, Args)]
pub struct FindArgs {
    /// A name (fstab), a pattern of names (*.conf), or a pattern of whole paths (/etc/**/*.conf)
    pub pattern: String,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
}

/// Options of `lifeboat mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The beginning of a restore point's id, `latest`, or `all` for a directory per restore point
    pub snapshot: String,
    /// An empty directory to show it in
    pub dir: PathBuf,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
}

/// Options of `lifeboat verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The beginning of a restore point's id, or `latest` [default: the whole store]
    pub snapshot: Option<String>,
    /// Read a part of the whole store only, the next one in each run: with 10%, ten runs cover all of it
    #[arg(long, value_name = "SHARE", conflicts_with_all = ["snapshot", "heal"])]
    pub sample: Option<Percent>,
    /// Repair what is damaged or missing: from parity, and from the other targets given
    #[arg(long, conflicts_with = "snapshot")]
    pub heal: bool,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
    /// How it was started, and how patient it is.
    #[command(flatten)]
    pub start: Start,
}

/// Options of `lifeboat prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// A stick (/dev/sdX), an image file, or a directory; several one after the other
    /// [default: the configured targets]
    pub target: Vec<PathBuf>,
    /// Show what would stay and why, and what would be removed; writes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Another host's restore points, or those of this one before it was installed anew:
    /// its name, or the beginning of its machine id
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// How many restore points stay, in place of the configured policy.
    #[command(flatten)]
    pub keep: Keep,
}

/// A policy on the command line. With any of these, those not given keep nothing.
#[derive(Debug, Clone, Default, Args)]
pub struct Keep {
    /// Keep the newest N restore points (with any --keep option, only what such options ask for is kept)
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keep the newest restore point of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// The same of days
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// The same of weeks
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// The same of months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// The same of years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u32>,
}

/// Options of `lifeboat extract`.
#[derive(Debug, Args)]
pub struct ExtractArgs {
    /// The beginning of a restore point's id, or `latest`
    pub snapshot: String,
    /// Absolute paths of the host, files or directories, or patterns: *, ? and [a-z] within a name, ** across
    /// directories; without a slash, a name anywhere [default: everything]
    pub paths: Vec<PathBuf>,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
    /// A directory; /etc/fstab arrives as DIR/etc/fstab
    #[arg(long, value_name = "DIR", required_unless_present = "tar")]
    pub to: Option<PathBuf>,
    /// A tar archive, or - for standard output
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    pub tar: Option<PathBuf>,
}

/// Options of `lifeboat layout`.
#[derive(Debug, Args)]
pub struct LayoutArgs {
    /// Show the layout saved in this restore point, not the one of this host
    pub snapshot: Option<String>,
    /// Write what this host's kernel and tools say of its storage to FILE, for a report of what Lifeboat got wrong:
    /// serial numbers, UUIDs, labels, addresses and the host's name are replaced; read it before you pass it on
    #[arg(long, value_name = "FILE", conflicts_with_all = ["snapshot", "from"])]
    pub record: Option<PathBuf>,
    /// Where to read from.
    #[command(flatten)]
    pub from: From,
}

/// Options of `lifeboat config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to show
    #[command(subcommand)]
    pub what: ConfigCommand,
}

/// What `lifeboat config` shows.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// An example with every setting, its default and what it does
    Example,
    /// The settings in force
    Show,
    /// What a backup leaves out by default, and why
    Exclusions,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn extract_needs_a_destination() {
        assert!(Cli::try_parse_from(["lifeboat", "extract", "latest"]).is_err());
        assert!(
            Cli::try_parse_from(["lifeboat", "extract", "latest", "--to", "/x", "--tar", "-"])
                .is_err()
        );
        assert!(
            Cli::try_parse_from(["lifeboat", "extract", "latest", "/etc", "--tar", "-"]).is_ok()
        );
    }

    #[test]
    fn kernel_check_needs_no_target() {
        assert!(Cli::try_parse_from(["lifeboat", "prepare", "--check-kernel"]).is_ok());
        assert!(Cli::try_parse_from(["lifeboat", "prepare"]).is_err());
    }
}
