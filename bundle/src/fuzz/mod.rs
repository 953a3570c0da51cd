//! Every reader of the store as a fuzz target: it must not panic, and what it lets through keeps its promises.
//!
//! Not part of the library: only tests and `scripts/fuzz` build it.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a target is to panic, and its name says what it reads"
)]

pub(crate) mod archives;
mod blobs;
mod documents;
mod sealed;
mod seeds;
#[path = "../../../tests/fuzz/target.rs"]
mod target;
mod trees;

#[cfg(test)]
#[path = "../../../tests/fuzz/mutate.rs"]
mod mutate;
#[cfg(test)]
mod stores;
#[cfg(test)]
mod tests;

pub use target::Target;

pub static STORE_DOCUMENT: Target = Target {
    name: "store_document",
    read: documents::store,
    seeds: || vec![seeds::plain_store(), seeds::encrypted_store()],
};
pub static SNAPSHOT_DOCUMENT: Target = Target {
    name: "snapshot_document",
    read: documents::snapshot,
    seeds: || vec![seeds::snapshot()],
};
pub static REPORTS: Target = Target {
    name: "reports",
    read: documents::reports,
    seeds: seeds::reports,
};
pub static INDEX: Target = Target {
    name: "index",
    read: documents::index,
    seeds: || vec![seeds::index()],
};
pub static PACK_FOOTER: Target = Target {
    name: "pack_footer",
    read: documents::footer,
    seeds: || vec![seeds::pack(&seeds::footer()), seeds::footer()],
};
pub static PARITY: Target = Target {
    name: "parity",
    read: documents::parity,
    seeds: || vec![seeds::parity()],
};
pub static SEGMENT: Target = Target {
    name: "segment",
    read: blobs::segment,
    seeds: seeds::segments,
};
pub static PAX_RECORDS: Target = Target {
    name: "pax_records",
    read: blobs::pax_records,
    seeds: seeds::pax_records,
};
pub static CONTENT_LIST: Target = Target {
    name: "content_list",
    read: blobs::content_list,
    seeds: seeds::content_lists,
};
pub static CODEC: Target = Target {
    name: "codec",
    read: blobs::codec,
    seeds: seeds::compressed,
};
pub static TEXTS: Target = Target {
    name: "texts",
    read: blobs::texts,
    seeds: seeds::texts,
};
pub static CATALOGUE: Target = Target {
    name: "catalogue",
    read: trees::catalogue,
    seeds: seeds::catalogues,
};
pub static BROWSE_INDEX: Target = Target {
    name: "browse_index",
    read: trees::browse,
    seeds: || vec![seeds::catalogue(), seeds::mounted_trees()],
};
pub static KEY_SLOTS: Target = Target {
    name: "key_slots",
    read: sealed::key_slots,
    seeds: || vec![seeds::encrypted_store()],
};
pub static SEALED_FILE: Target = Target {
    name: "sealed_file",
    read: sealed::file,
    seeds: sealed::seeds,
};
pub static CONTAINER_ARCHIVE: Target = Target {
    name: "container_archive",
    read: archives::read,
    seeds: archives::seeds,
};
