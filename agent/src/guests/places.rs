//! The stores of a list of guests: where the rescue system saw them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rescue_image::guests::Place;
use sys_mount::{MountFlags, Unmount, UnmountDrop, UnmountFlags};

/// Where file systems are mounted meanwhile that are not mounted yet.
const MOUNTS: &str = "/run/lifeboat/guests";

/// Stores that were found, for as long as they are read.
pub struct Places {
    /// The directories that hold them.
    pub dirs: Vec<PathBuf>,
    /// Those that are not there, with the reason.
    pub missing: Vec<String>,
    /// Unmounted when all is done.
    _mounted: Vec<UnmountDrop<sys_mount::Mount>>,
}

/// Looks for the stores; waits for drives that are late.
pub fn open(places: &[Place], patience: Duration) -> Places {
    let started = Instant::now();
    let mut found = Places {
        dirs: Vec::new(),
        missing: Vec::new(),
        _mounted: Vec::new(),
    };
    for place in places {
        let dir = loop {
            match find(place, &mut found) {
                Err(_) if started.elapsed() < patience && !crate::signals::stopped() => {
                    std::thread::sleep(Duration::from_millis(500));
                }
                other => break other,
            }
        };
        match dir {
            Ok(dir) if found.dirs.contains(&dir) => {}
            Ok(dir) => found.dirs.push(dir),
            Err(error) => found.missing.push(format!(
                "{} is not there: {error:#}",
                rescue_image::guests::printable(&place.shown)
            )),
        }
    }
    found
}

fn find(place: &Place, found: &mut Places) -> anyhow::Result<PathBuf> {
    let dir = match &place.filesystem {
        None => PathBuf::from(&place.path),
        Some(uuid) => root(uuid, place.fs_type.as_deref(), found)?.join(&place.path),
    };
    let is_store = |name: &str| dir.join("lifeboat").join(name).is_file();
    anyhow::ensure!(
        is_store("store.json") || is_store("store.json.copy"),
        "there is no store in {}",
        dir.display()
    );
    Ok(dir)
}

/// Where a file system is mounted; it is mounted read-only where it is not.
fn root(uuid: &str, fs_type: Option<&str>, found: &mut Places) -> anyhow::Result<PathBuf> {
    let device = Path::new("/dev/disk/by-uuid").join(uuid);
    let number = fs::metadata(&device)
        .with_context(|| format!("no drive has the file system {uuid}"))?
        .rdev();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let source = device.canonicalize().unwrap_or(device);
    if let Some(at) = mounted_at(&table, number, &source) {
        return Ok(at);
    }
    let at = Path::new(MOUNTS).join(uuid);
    fs::create_dir_all(&at).with_context(|| format!("cannot make {}", at.display()))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut mount = sys_mount::Mount::builder().flags(flags);
    if let Some(fs_type) = fs_type {
        mount = mount.fstype(fs_type);
    }
    let mounted = mount
        .mount(&source, &at)
        .with_context(|| format!("cannot mount {}", source.display()))?;
    let mounted = mounted.into_unmount_drop(UnmountFlags::empty());
    found._mounted.push(mounted);
    Ok(at)
}

/// The first mount of a whole file system: by the number of its device, or (btrfs has a number of its own) by its name.
fn mounted_at(table: &str, number: u64, device: &Path) -> Option<PathBuf> {
    let number = format!(
        "{}:{}",
        nix::sys::stat::major(number),
        nix::sys::stat::minor(number)
    );
    table.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (numbered, root, at) = (fields.next()?, fields.next()?, fields.next()?);
        let source = filesystem.split(' ').nth(1)?;
        let same = numbered == number || numbered.starts_with("0:") && Path::new(source) == device;
        (same && root == "/").then(|| PathBuf::from(at.replace("\\040", " ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_is_mounted_is_used_where_it_is() {
        let table = "22 1 8:3 / / rw - ext4 /dev/sda3 rw\n23 22 8:17 /sub /mnt/part rw - ext4 /dev/sdb1 rw\n\
                     24 22 8:17 / /mnt/my\\040backup rw shared:2 - ext4 /dev/sdb1 rw\n25 22 0:41 / /pool rw - btrfs /dev/sdc1 rw\n";
        let find = |major, minor, device: &str| {
            mounted_at(
                table,
                nix::sys::stat::makedev(major, minor),
                Path::new(device),
            )
        };
        assert_eq!(find(8, 17, "/dev/sdb1"), Some("/mnt/my backup".into()));
        assert_eq!(find(8, 33, "/dev/sdc1"), Some("/pool".into()));
        assert_eq!(find(8, 49, "/dev/sdd1"), None);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let place = |filesystem: Option<&str>, path: &Path| Place {
            id: "s".into(),
            filesystem: filesystem.map(str::to_owned),
            fs_type: None,
            path: path.display().to_string(),
            shown: "the blue drive".into(),
        };
        fs::create_dir_all(dir.path().join("lifeboat")).unwrap();
        fs::write(dir.path().join("lifeboat/store.json"), "{}").unwrap();
        let places = [
            place(None, dir.path()),
            place(None, Path::new("/nowhere")),
            place(Some("0000-NONE"), Path::new("x")),
            place(None, dir.path()),
        ];
        let found = open(&places, Duration::ZERO);
        assert_eq!(found.dirs, [dir.path()]);
        assert_eq!(found.missing.len(), 2);
        assert!(
            found.missing[1].contains("the blue drive") && found.missing[1].contains("0000-NONE")
        );
    }
}
