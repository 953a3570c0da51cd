//! Guests of a Proxmox VE node: their dumps into the stores.
//!
//! Each guest is dumped on its own and becomes a snapshot of its own: one that fails takes no other along, and what was
//! written before a pulled plug is there. [`dump`] runs vzdump, [`file`] reads dumps that a storage holds already, and
//! [`take`] takes either stream apart. [`known`] remembers where the newest dump of each guest is.

pub mod choice;
pub mod dump;
pub mod file;
pub mod known;
pub mod settings;
pub mod take;

pub use choice::Which;
pub use settings::Settings;
