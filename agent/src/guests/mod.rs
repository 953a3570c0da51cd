//! Guests of a Proxmox VE node: their dumps into the stores, and back.
//!
//! Each guest is dumped on its own and becomes a snapshot of its own: one that fails takes no other along, and what was
//! written before a pulled plug is there. [`dump`] runs vzdump, [`file`] reads dumps that a storage holds already, and
//! [`take`] takes either stream apart. [`known`] remembers where the newest dump of each guest is.
//!
//! [`archive`] makes the stream of a dump again, [`restore`] gives it to the node's own tools, and [`pending`] works off
//! what a bare-metal restore left to be done.

pub mod archive;
pub mod awaited;
pub mod choice;
pub mod dump;
pub mod dumps;
pub mod file;
pub mod known;
pub mod left;
pub mod pending;
pub mod places;
pub mod present;
pub mod restore;
pub mod settings;
pub mod take;
pub mod volumes;

pub use choice::{Which, choose};
pub use settings::{Mode, OnSticks, Settings, Source};
