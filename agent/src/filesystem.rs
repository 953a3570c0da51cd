//! Which file system a directory lies on, so that the next backup knows whether it is still the same one.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::statfs::{FsType, statfs};

/// Of ZFS; nix does not know it.
const ZFS: FsType = FsType(0x2fc1_2fc1);

/// The UUID of a directory's file system, or what stands for it; nothing where nothing lasting tells it from others.
pub fn identity(directory: &Path) -> Option<String> {
    let device = directory.metadata().ok()?.dev();
    as_this_user(by_uuid(device, Path::new("/dev/disk/by-uuid")).or_else(|| by_fsid(directory))?)
}

/// A user who is not root sees less of a file than root: their restore points do not stand for one another.
pub fn as_this_user(uuid: String) -> Option<String> {
    let user = nix::unistd::geteuid();
    Some(if user.is_root() {
        uuid
    } else {
        format!("{uuid} as user {user}")
    })
}

/// udev's link to the block device of this number.
fn by_uuid(device: u64, links: &Path) -> Option<String> {
    std::fs::read_dir(links).ok()?.flatten().find_map(|link| {
        let meta = link.path().metadata().ok()?;
        let it = meta.file_type().is_block_device() && meta.rdev() == device;
        it.then(|| link.file_name().to_string_lossy().into_owned())
    })
}

/// The number that some file systems make of their UUID. Others make it of the device's number, which means nothing
/// after a reboot.
fn by_fsid(directory: &Path) -> Option<String> {
    let found = statfs(directory).ok()?;
    let kind = match found.filesystem_type() {
        nix::sys::statfs::EXT4_SUPER_MAGIC => "ext",
        nix::sys::statfs::BTRFS_SUPER_MAGIC => "btrfs",
        kind if kind == ZFS => "zfs",
        _ => return None,
    };
    // SAFETY: an fsid_t is two integers.
    let id: [u32; 2] = unsafe { std::mem::transmute(found.filesystem_id()) };
    (id != [0, 0]).then(|| format!("{kind}-{:08x}{:08x}", id[0], id[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_last_has_no_identity() {
        assert_eq!(identity(Path::new("/proc")), None);
        assert_eq!(identity(Path::new("/does/not/exist")), None);
    }

    #[test]
    fn one_file_system_has_one_identity() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        assert_eq!(identity(dir.path()), identity(&sub));
    }

    #[test]
    fn links_are_compared_by_the_number_of_the_device() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("gone", dir.path().join("dangling")).unwrap();
        assert_eq!(by_uuid(0, dir.path()), None);
    }
}
