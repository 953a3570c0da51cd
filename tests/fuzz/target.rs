//! What a fuzz target is, for the crates whose readers are fuzzed, which include this file. Every target is run twice: with
//! damaged seeds in the crate's own tests, on every machine, and with the guidance of coverage by `scripts/fuzz`.
#![allow(dead_code, reason = "each crate uses a part of it")]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

/// A reader of bytes that anybody may have written.
pub struct Target {
    /// The name of its corpus.
    pub name: &'static str,
    /// Reads them. It panics when the reader does, and when what the reader let through breaks a promise.
    pub read: fn(&[u8]),
    /// What a writer of ours makes, to begin with, and what is like it and must be refused.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// A file with this content and its path, for readers that open one. It is in memory, and gone when it is dropped.
pub struct InFile(File);

impl InFile {
    pub fn new(content: &[u8]) -> InFile {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let file = memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC).expect("memory is at hand");
        let mut file = File::from(file);
        file.write_all(content).expect("memory is at hand");
        InFile(file)
    }

    pub fn read<T>(&self, read: impl FnOnce(&Path) -> T) -> T {
        read(Path::new(&format!("/proc/self/fd/{}", self.0.as_raw_fd())))
    }
}
