//! Snapshots of btrfs subvolumes. They are in one directory at the top of the filesystem, wherever that is mounted.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{PREFIX, detached};
use crate::system::{Cmd, System};

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

/// The directory, as other processes see it, too.
fn place(top: &OwnedFd) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}/{PLACE}",
        std::process::id(),
        top.as_raw_fd()
    ))
}

pub(super) fn make(
    sys: &dyn System,
    top: &OwnedFd,
    subvolume: &Path,
    name: &str,
) -> Result<(), String> {
    let place = place(top);
    match std::fs::DirBuilder::new().mode(0o700).create(&place) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(format!("the directory {PLACE} cannot be made: {e}"));
        }
        _ => {}
    }
    check(&place)?;
    let command = Cmd::new("btrfs")
        .args(["subvolume", "snapshot", "-r"])
        .path(subvolume)
        .path(&place.join(name));
    sys.run(&command).map(|_| ()).map_err(|e| e.to_string())
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

pub(super) fn remove(sys: &dyn System, top: &OwnedFd, name: &str) -> Result<(), String> {
    remove_in(sys, &place(top), name)
}

fn remove_in(sys: &dyn System, place: &Path, name: &str) -> Result<(), String> {
    let command = Cmd::new("btrfs")
        .args(["subvolume", "delete"])
        .path(&place.join(name));
    super::lvm::patiently(sys, &command)?;
    // Others may be in it still; then the last one takes it along.
    let _ = std::fs::remove_dir(place);
    Ok(())
}

pub(super) fn leftovers(sys: &dyn System, top: &OwnedFd) -> Vec<Result<String, String>> {
    leftovers_in(sys, &place(top))
}

fn leftovers_in(sys: &dyn System, place: &Path) -> Vec<Result<String, String>> {
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
        remove_in(sys, place, &name)
            .map(|()| format!("{PLACE}/{name}"))
            .map_err(|e| format!("the snapshot {PLACE}/{name} cannot be removed: {e}"))
    };
    ours.into_iter().map(removed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Recorded;

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
    fn what_is_no_subvolume_stays() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(PLACE);
        std::fs::create_dir_all(place.join("lifeboat-snap-0a1b2c3d-1")).unwrap();
        let sys = Recorded::new();
        assert!(leftovers_in(&sys, &place).is_empty());
        assert!(leftovers_in(&sys, &dir.path().join("none")).is_empty());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&place, &link).unwrap();
        assert!(check(&link).is_err());
    }
}
