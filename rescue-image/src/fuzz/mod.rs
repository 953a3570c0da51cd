//! Every reader of packages, programs and media as a fuzz target: it must not panic, hang or leave its folder.
//!
//! Not part of the library: only tests and `scripts/fuzz` build it.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a target is to panic, and its name says what it reads"
)]

mod boot;
mod files;
mod media;
pub(crate) mod seeds;
#[path = "../../../tests/fuzz/table.rs"]
mod table;
#[path = "../../../tests/fuzz/target.rs"]
mod target;

#[cfg(test)]
#[path = "../../../tests/fuzz/mutate.rs"]
mod mutate;
#[cfg(test)]
mod tests;

pub use target::Target;

pub static PROGRAM: Target = Target {
    name: "program",
    read: files::program,
    seeds: seeds::programs,
};
pub static PACKAGE: Target = Target {
    name: "package",
    read: files::package,
    seeds: seeds::packages,
};
pub static MODULES: Target = Target {
    name: "modules",
    read: files::modules,
    seeds: seeds::modules,
};
pub static TOKEN: Target = Target {
    name: "token",
    read: boot::token,
    seeds: seeds::tokens,
};
pub static GUEST_LIST: Target = Target {
    name: "guest_list",
    read: boot::guest_list,
    seeds: seeds::guest_lists,
};
pub static BOOT_PARTITION: Target = Target {
    name: "boot_partition",
    read: media::boot_partition,
    seeds: media::edits,
};
pub static MEDIUM_TABLE: Target = Target {
    name: "medium_table",
    read: media::table,
    seeds: media::tables,
};
