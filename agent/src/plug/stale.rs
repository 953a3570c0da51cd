//! Mounts of sticks that are gone: of a run that was killed, or that could not unmount what had been pulled out.

use std::path::{Path, PathBuf};

use rescue_image::stick::FOLDER;
use sys_mount::UnmountFlags;

/// Takes them away; nobody can read or write anything there any more.
pub fn unmount() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let there = |device: &str| Path::new("/sys/dev/block").join(device).exists();
    for dir in gone(&mounts, there) {
        match sys_mount::unmount(&dir, UnmountFlags::DETACH) {
            Ok(()) => {
                tracing::info!("{} was left mounted by a stick that is gone", dir.display());
                let _ = std::fs::remove_dir(&dir);
            }
            Err(error) => tracing::warn!("{} stays mounted: {error}", dir.display()),
        }
    }
}

/// Our mounts whose device is not there; a line is as in proc_pid_mountinfo(5).
fn gone(mounts: &str, there: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let ours = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let (device, dir) = (fields.next()?, fields.nth(1)?);
        let name = Path::new(dir).strip_prefix(FOLDER).ok()?;
        (name.to_str()?.starts_with("medium-") && !there(device)).then(|| PathBuf::from(dir))
    });
    ours.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_and_only_those_without_a_device() {
        let mounts = "29 1 252:1 / / rw - ext4 /dev/vda1 rw\n\
            40 29 8:19 / /run/lifeboat/medium-a rw,noatime - ext4 /dev/sdb3 rw\n\
            41 29 8:35 / /run/lifeboat/medium-b rw,noatime - ext4 /dev/sdc3 rw\n\
            42 29 8:51 / /mnt/medium-c rw - ext4 /dev/sdd3 rw\n";
        let there = |device: &str| device == "8:35" || device == "252:1";
        assert_eq!(
            gone(mounts, there),
            [PathBuf::from("/run/lifeboat/medium-a")]
        );
        assert!(gone("nonsense\n", there).is_empty());
    }
}
