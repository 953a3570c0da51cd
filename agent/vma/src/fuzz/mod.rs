//! The reader of archives as a fuzz target: it must not panic, and what it lets through keeps its promises.
//!
//! Not part of the library: only tests and `scripts/fuzz` build it.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a target is to panic, and its name says what it reads"
)]

mod archives;
#[path = "../../../../tests/fuzz/target.rs"]
mod target;

#[cfg(test)]
#[path = "../../../../tests/fuzz/mutate.rs"]
mod mutate;
#[cfg(test)]
mod tests;

pub use target::Target;

pub static VMA_ARCHIVE: Target = Target {
    name: "vma_archive",
    read: archives::read,
    seeds: archives::seeds,
};
