//! The commands, one file each.

pub mod arm;
pub mod audit;
pub mod backup;
pub mod config;
pub mod diff;
pub mod disarm;
pub mod doctor;
pub mod extract;
pub mod find;
pub mod generate;
pub mod guests;
pub mod inventory;
pub mod key;
pub mod layout;
pub mod list;
pub mod ls;
pub mod mount;
pub mod plan;
pub mod plug;
pub mod prepare;
pub mod prune;
pub mod schedule;
pub mod setup;
pub mod report;
pub mod show;
pub mod verify;
