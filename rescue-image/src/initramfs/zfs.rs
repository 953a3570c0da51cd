//! What the rescue system of a host with ZFS pools has besides: it is left out elsewhere, since it is large and of no use.

use std::path::Path;

/// Where the kernel tells of imported pools: a directory for each, between files about ZFS itself.
pub(super) const POOLS: &str = "/proc/spl/kstat/zfs";

/// The kernel's module; those that it depends on come along.
pub(super) const MODULE: &str = "zfs";

/// Programs. A restore needs the first three; the others are for a person at the shell.
pub(super) const TOOLS: [&str; 6] = ["zpool", "zfs", "zdb", "mount.zfs", "zgenhostid", "zstream"];

/// How many of them there have to be.
pub(super) const NEEDED: usize = 3;

/// The package that has them, and those that have the module.
pub(super) const PACKAGE: &str = "zfsutils-linux";
pub(super) const MODULE_PACKAGE: &str = "zfs-dkms";

/// Lists of features by the names that the pool property `compatibility` takes.
pub(super) const COMPATIBILITY: &str = "/usr/share/zfs/compatibility.d";

/// Whether this host has a pool imported.
pub(super) fn has_pools(kstat: &Path) -> bool {
    std::fs::read_dir(kstat).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_are_pools() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_pools(&dir.path().join("none")));
        std::fs::write(dir.path().join("arcstats"), "").unwrap();
        assert!(!has_pools(dir.path()));
        std::fs::create_dir(dir.path().join("rpool")).unwrap();
        assert!(has_pools(dir.path()));
    }
}
