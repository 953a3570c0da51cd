//! What goes on the media: the deduplicated store, file trees, block images and snapshot documents.
//!
//! The format is described in `docs/bundle-format.md`; everything in it can be read by hand with `zstd`, `tar`, `jq`
//! and coreutils. This library never prints, never prompts and starts no process: it reports through
//! [`events::Events`].

pub mod backup;
pub mod browse;
pub mod crypt;
pub mod diff;
pub mod document;
pub mod error;
pub mod events;
pub mod exclude;
pub mod extract;
pub mod find;
pub mod heal;
pub mod list;
pub mod parity;
pub mod pattern;
pub mod prune;
pub mod store;
pub mod time;
pub mod verify;

mod acl;
mod bytes;
mod cache;
mod catalogue;
mod codec;
mod content;
mod format;
mod fsutil;
mod id;
mod index;
mod member;
mod pack;
mod pax;
mod read;
mod walk;

#[cfg(any(test, fuzzing))]
pub mod fuzz;

pub use error::{Error, Result};
pub use id::Id;
