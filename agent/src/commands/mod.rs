//! The commands, one file each.

pub mod arm;
pub mod backup;
pub mod check_layout;
pub mod config;
pub mod diff;
pub mod disarm;
pub mod extract;
pub mod find;
pub mod guests;
pub mod inventory;
pub mod key;
pub mod layout;
pub mod list;
pub mod ls;
pub mod mount;
pub mod notify;
pub mod plan;
pub mod prepare;
pub mod prune;
pub mod show;
pub mod status;
pub mod verify;
