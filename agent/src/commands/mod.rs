//! The commands, one file each.

pub mod arm;
pub mod backup;
pub mod config;
pub mod disarm;
pub mod extract;
pub mod inventory;
pub mod layout;
pub mod list;
pub mod plan;
pub mod prepare;
pub mod prune;
pub mod show;
pub mod verify;
