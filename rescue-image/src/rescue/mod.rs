//! What runs on the dead machine: process 1, finding bundles, the wizard, the unattended mode, and the restore itself,
//! which puts `layout` and `bundle` together.
//!
//! The program `lifeboat-rescue` is a thin shell around this module. Outside the rescue system its subcommands work on
//! any Debian live system.

pub mod bundles;
pub mod cli;
pub mod cluster;
pub mod cmdline;
pub mod consoles;
pub mod events;
pub mod init;
pub mod network;
pub mod restore;
pub mod spawn;
pub mod start;
pub mod unattended;
pub mod wizard;

/// Where the rescue system keeps its state.
pub const RUN_DIR: &str = "/run/lifeboat";
/// Where media are mounted, one directory each.
pub const MEDIA_DIR: &str = "/run/lifeboat/media";
/// Journal, plan, captures and event lines of a restore.
pub const LOG_DIR: &str = "/run/lifeboat/log";
/// Log lines of all parts, made by `setup` in the rescue system; where it is not there, nothing is logged.
pub const LOG_FILE: &str = "/run/lifeboat/log/rescue.log";
