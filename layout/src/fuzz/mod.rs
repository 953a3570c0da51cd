//! Every reader of disks, tools and documents as a fuzz target: it must not panic, and what it lets through keeps its
//! promises.
//!
//! Not part of the library: only tests and `scripts/fuzz` build it.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a target is to panic, and its name says what it reads"
)]

mod disks;
mod layouts;
#[path = "../../../tests/fuzz/table.rs"]
mod table;
#[path = "../../../tests/fuzz/target.rs"]
mod target;
mod tools;

#[cfg(test)]
#[path = "../../../tests/fuzz/mutate.rs"]
mod mutate;
#[cfg(test)]
mod tests;

pub use target::Target;

pub static LAYOUT: Target = Target {
    name: "layout",
    read: layouts::layout,
    seeds: layouts::seeds,
};
pub static PARTITION_TABLE: Target = Target {
    name: "partition_table",
    read: disks::table,
    seeds: disks::tables,
};
pub static SUPERBLOCK: Target = Target {
    name: "superblock",
    read: disks::superblock,
    seeds: disks::superblocks,
};
pub static TOOLS: Target = Target {
    name: "tools",
    read: tools::output,
    seeds: tools::outputs,
};
