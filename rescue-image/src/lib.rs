//! Builds the rescue system and the media that boot it.
//!
//! [`kernel`] finds a kernel, [`initramfs`] packs the host's tools and `lifeboat-rescue` around it, [`stick`] makes a
//! medium that boots it on BIOS and UEFI and holds a store, [`token`] arms it for one unattended restore.

mod deb;
mod elf;
pub mod error;
pub mod esp;
mod grub;
pub mod guests;
pub mod initramfs;
pub mod inside;
pub mod kernel;
mod modules;
pub mod rescue;
pub mod stick;
pub mod token;

#[cfg(any(test, fuzzing))]
pub mod fuzz;

pub use error::{Error, Result};
