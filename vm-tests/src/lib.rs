//! Tests with machines that boot: the QEMU harness, the golden host, and the disasters, one file each.
//!
//! A scenario gets a directory for everything it makes ([`artefacts`]), starts machines ([`qemu`]) from overlays on the
//! cached golden host ([`golden`]), drives them over the serial line ([`serial`]), QMP ([`qmp`]) and a root channel apart
//! from the serial log ([`channel`]), and judges from outside ([`verdict`]). [`runner`] lists and runs them.

pub mod artefacts;
pub mod channel;
pub mod disk;
pub mod golden;
pub mod installed;
pub mod process;
pub mod product;
pub mod qemu;
pub mod qmp;
pub mod runner;
pub mod saved;
pub mod scenarios;
pub mod serial;
pub mod uml;
pub mod verdict;
pub mod zfs;
