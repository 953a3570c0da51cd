//! Snapshots of btrfs subvolumes. They are in one directory at the top of the filesystem, wherever that is mounted.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{PREFIX, detached};

// linux/btrfs.h. By the kernel's own calls: `btrfs subvolume delete` looks for the path as others see it, and a detached
// mount has none.
const READ_ONLY: u64 = 1 << 1;

#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

nix::ioctl_write_ptr!(snap_destroy, 0x94, 15, VolArgs);
nix::ioctl_write_ptr!(snap_create_v2, 0x94, 23, VolArgsV2);

/// A name with its zero at the end.
fn named<const N: usize>(name: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    match bytes.get_mut(..name.len()) {
        Some(place) if name.len() < N && !name.contains(['\0', '/']) => {
            place.copy_from_slice(name.as_bytes());
            Ok(bytes)
        }
        _ => Err(format!("{name} is no name of a snapshot")),
    }
}

/// The directory at the top of a filesystem that this program alone makes its snapshots in.
pub const PLACE: &str = ".lifeboat-snapshots";

/// The inode number of the root of every subvolume.
const SUBVOLUME: u64 = 256;

/// Whether a path from the top of the filesystem is that of a snapshot of this program.
pub(crate) fn is_ours(path: &str) -> bool {
    let name = path
        .strip_prefix(PLACE)
        .and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| name.starts_with(PREFIX) && !name.contains('/'))
}

/// Whole filesystems, by UUID, as detached mounts.
#[derive(Default)]
pub(super) struct Tops(BTreeMap<String, Arc<OwnedFd>>);

impl Tops {
    pub(super) fn of(&mut self, uuid: &str, device: &Path) -> Result<Arc<OwnedFd>, String> {
        if let Some(top) = self.0.get(uuid) {
            return Ok(top.clone());
        }
        let top = detached::whole_btrfs(device)
            .map_err(|e| format!("the top of the btrfs on {}: {e}", device.display()))?;
        let top = Arc::new(top);
        self.0.insert(uuid.to_owned(), top.clone());
        Ok(top)
    }
}

fn place(top: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{PLACE}", top.as_raw_fd()))
}

pub(super) fn make(top: &OwnedFd, subvolume: &Path, name: &str) -> Result<(), String> {
    let place = place(top);
    match std::fs::DirBuilder::new().mode(0o700).create(&place) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(format!("the directory {PLACE} cannot be made: {e}"));
        }
        _ => {}
    }
    check(&place)?;
    let source = File::open(subvolume).map_err(|e| format!("{}: {e}", subvolume.display()))?;
    let directory = File::open(&place).map_err(|e| format!("{PLACE}: {e}"))?;
    let args = VolArgsV2 {
        fd: source.as_raw_fd().into(),
        transid: 0,
        flags: READ_ONLY,
        unused: [0; 4],
        name: named(name)?,
    };
    // SAFETY: the descriptors are open, and the structure is as the kernel expects it.
    unsafe { snap_create_v2(directory.as_raw_fd(), &args) }
        .map(|_| ())
        .map_err(|e| format!("a snapshot of {}: {e}", subvolume.display()))
}

/// Root's own directory, and no link to another place.
fn check(place: &Path) -> Result<(), String> {
    let meta = std::fs::symlink_metadata(place).map_err(|e| format!("{PLACE}: {e}"))?;
    if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(format!(
            "{PLACE} at the top of the filesystem is not this program's directory"
        ));
    }
    Ok(())
}

pub(super) fn open(top: &OwnedFd, name: &str) -> std::io::Result<OwnedFd> {
    Ok(File::open(place(top).join(name))?.into())
}

pub(super) fn remove(top: &OwnedFd, name: &str) -> Result<(), String> {
    remove_in(&place(top), name)
}

fn remove_in(place: &Path, name: &str) -> Result<(), String> {
    let directory = File::open(place).map_err(|e| format!("{PLACE}: {e}"))?;
    let args = VolArgs {
        fd: 0,
        name: named(name)?,
    };
    // SAFETY: the descriptor is open, and the structure is as the kernel expects it.
    unsafe { snap_destroy(directory.as_raw_fd(), &args) }.map_err(|e| e.to_string())?;
    // Others may be in it still; then the last one takes it along.
    let _ = std::fs::remove_dir(place);
    Ok(())
}

pub(super) fn leftovers(top: &OwnedFd) -> Vec<Result<String, String>> {
    leftovers_in(&place(top))
}

fn leftovers_in(place: &Path) -> Vec<Result<String, String>> {
    if check(place).is_err() {
        return Vec::new();
    }
    let entries = match std::fs::read_dir(place) {
        Ok(entries) => entries,
        Err(error) => {
            return vec![Err(format!(
                "cannot look for snapshots in {PLACE}: {error}"
            ))];
        }
    };
    let ours = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let meta = entry.metadata().ok()?;
        let subvolume = meta.is_dir() && meta.ino() == SUBVOLUME;
        (subvolume && name.starts_with(PREFIX)).then_some(name)
    });
    let ours: Vec<String> = ours.collect();
    let removed = |name: String| {
        remove_in(place, &name)
            .map(|()| format!("{PLACE}/{name}"))
            .map_err(|e| format!("the snapshot {PLACE}/{name} cannot be removed: {e}"))
    };
    ours.into_iter().map(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_by_place_and_name() {
        assert!(is_ours(".lifeboat-snapshots/lifeboat-snap-0a1b2c3d-1"));
        for other in [
            ".lifeboat-snapshots/mine",
            ".lifeboat-snapshots/lifeboat-snap-1/below",
            "lifeboat-snap-0a1b2c3d-1",
            "home/.lifeboat-snapshots/lifeboat-snap-1",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn structures_are_as_the_kernel_has_them() {
        assert_eq!((size_of::<VolArgs>(), size_of::<VolArgsV2>()), (4096, 4096));
        assert_eq!(named::<8>("name").unwrap(), *b"name\0\0\0\0");
        for wrong in ["12345678", "a/b", "a\0b"] {
            assert!(named::<8>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_subvolume_stays() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(PLACE);
        std::fs::create_dir_all(place.join("lifeboat-snap-0a1b2c3d-1")).unwrap();
        assert!(leftovers_in(&place).is_empty());
        assert!(leftovers_in(&dir.path().join("none")).is_empty());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&place, &link).unwrap();
        assert!(check(&link).is_err());
    }
}
