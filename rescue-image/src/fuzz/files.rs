//! Packages and what is in them.

use std::fs;
use std::path::Path;

use super::target::InFile;
use crate::initramfs::ModuleSet;
use crate::{deb, elf, modules as module};

pub(super) fn program(data: &[u8]) {
    let _ = elf::needs(data);
    elf::dlopen_notes(data, &mut Vec::new());
}

/// What is in a folder.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A package, and the tree in one.
pub(super) fn package(data: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    let into = dir.path().join("into");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&into).unwrap();
    InFile::new(data).read(|path| {
        let _ = deb::unpack(path, &into, &|_| true);
    });
    let mut tar = data.to_vec();
    repair_sums(&mut tar);
    let _ = deb::unpack_tar(tar.as_slice(), &into, &|_| true, Path::new("x"));
    assert!(names(&outside).is_empty());
    assert_eq!(names(dir.path()), ["into", "outside"]);
}

/// Makes the headers' sums right again: behind a wrong one nothing is read.
fn repair_sums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

pub(super) fn modules(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for set in [ModuleSet::Full, ModuleSet::Slim] {
        module::closure(&text, &text, set, &["zfs"]);
    }
    module::plain_path(&text);
}
