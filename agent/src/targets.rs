//! Targets as users name them: a directory, a stick, an image file. Opens them, and above all closes them again.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use bundle::document::Snapshot;
use bundle::store::Store;
use nix::fcntl::{Flock, FlockArg};
use rescue_image::stick::{MountedStick, Stick};

use crate::config::Config;
use crate::keys;
use crate::output::Usage;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory; the store is in `lifeboat/` below this one.
    Directory(PathBuf),
    /// A disk with the partitions of a stick.
    Device(PathBuf),
    /// An image file that stands for a stick.
    Image(PathBuf),
}

impl Kind {
    /// Looks at the path. The store's own directory (`.../lifeboat`) is taken as well.
    pub fn of(path: &Path) -> anyhow::Result<Kind> {
        let meta = std::fs::metadata(path)
            .with_context(|| format!("cannot use the target {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot use the target {}", path.display()))?;
        let kind = meta.file_type();
        if kind.is_dir() {
            let inside = path.join("store.json").is_file() && path.ends_with("lifeboat");
            let parent = path.parent().map(Path::to_path_buf).filter(|_| inside);
            Ok(Kind::Directory(parent.unwrap_or(path)))
        } else if kind.is_block_device() {
            Ok(Kind::Device(whole_disk(&path).unwrap_or(path)))
        } else if kind.is_file() {
            Ok(Kind::Image(path))
        } else {
            bail!(
                "the target {} is neither a directory, a disk nor an image file",
                path.display()
            )
        }
    }
}

/// The disk that a partition is on: `/dev/lifeboat/<GUID>`, which names a stick for good, is its data partition.
fn whole_disk(partition: &Path) -> Option<PathBuf> {
    let sysfs = Path::new("/sys/class/block").join(partition.file_name()?);
    if !sysfs.join("partition").exists() {
        return None;
    }
    let disk = sysfs.canonicalize().ok()?;
    let node = Path::new("/dev").join(disk.parent()?.file_name()?);
    node.exists().then_some(node)
}

/// What a target is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Sticks are mounted read-only; no lock on the store.
    Read,
    /// For a backup.
    Write,
}

/// An opened target.
#[derive(Debug)]
pub struct Opened {
    /// As the user named it.
    pub named: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// The directory that holds `lifeboat/`.
    pub dir: PathBuf,
    /// The stick, if it is one.
    pub stick: Option<Stick>,
    mounted: Option<MountedStick>,
    /// Keeps two processes from mounting one image file: the kernel would see two devices and ruin the file system.
    _image_lock: Option<Flock<File>>,
}

impl Opened {
    /// Opens a target; mounts it if it is a stick.
    pub fn open(named: &Path, access: Access) -> anyhow::Result<Opened> {
        let kind = Kind::of(named)?;
        let (path, lock) = match &kind {
            Kind::Directory(dir) => {
                let dir = dir.clone();
                return Ok(Opened {
                    named: named.into(),
                    kind,
                    dir,
                    stick: None,
                    mounted: None,
                    _image_lock: None,
                });
            }
            Kind::Device(path) => (path, None),
            Kind::Image(path) => (path, Some(lock_image(path, access)?)),
        };
        if !nix::unistd::geteuid().is_root() {
            bail!(
                "{} is a stick, and only root may mount it: run this command as root",
                named.display()
            );
        }
        let stick = Stick::open(path)?;
        let mounted = stick.mount(access == Access::Read)?;
        Ok(Opened {
            named: named.into(),
            dir: mounted.dir().to_path_buf(),
            kind,
            stick: Some(stick),
            mounted: Some(mounted),
            _image_lock: lock,
        })
    }

    /// Opens the store for reading.
    pub fn reader(&self) -> anyhow::Result<Store> {
        keys::open(&self.dir, &self.named, Store::open_read_only_with)
            .with_context(|| format!("cannot read the target {}", self.named.display()))
    }

    /// Opens the store for writing, which locks it. When another process holds the lock, the error says which.
    pub fn writer(&self) -> anyhow::Result<Store> {
        keys::open(&self.dir, &self.named, Store::open_with).map_err(|error| {
            let holder = match error.downcast_ref() {
                Some(bundle::Error::Locked { .. }) => holder(&self.dir.join("lifeboat/lock")),
                _ => None,
            };
            let error = error.context(format!(
                "cannot write to the target {}",
                self.named.display()
            ));
            match holder {
                Some(holder) => error.context(format!("the store is held by {holder}")),
                None => error,
            }
        })
    }

    /// Unmounts a stick; only after this it may be pulled out.
    pub fn close(self) -> anyhow::Result<()> {
        match self.mounted {
            Some(mounted) => mounted
                .unmount()
                .with_context(|| format!("{}: do not pull it out yet", self.named.display())),
            None => Ok(()),
        }
    }
}

fn lock_image(path: &Path, access: Access) -> anyhow::Result<Flock<File>> {
    let how = match access {
        Access::Read => FlockArg::LockSharedNonblock,
        Access::Write => FlockArg::LockExclusiveNonblock,
    };
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(file, how).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => {
            let holder = holder(path).unwrap_or_else(|| "another process".into());
            anyhow!(
                "{} is in use by {holder}; wait for it to end and try again",
                path.display()
            )
        }
        other => anyhow!(other).context(format!("cannot lock {}", path.display())),
    })
}

/// Which process holds a flock(2) on this file, out of `/proc/locks`: `process 1234 (lifeboat backup)`.
fn holder(path: &Path) -> Option<String> {
    let inode = std::fs::metadata(path).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| flock_of(line, inode))?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = command
        .split(|b| *b == 0)
        .filter(|w| !w.is_empty())
        .take(4)
        .map(crate::progress::printable)
        .collect();
    Some(format!("process {pid} ({})", words.join(" ")))
}

/// The process of a line like `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`. The device is not compared: on btrfs
/// and overlays it is another one than stat(2) says.
fn flock_of(line: &str, inode: u64) -> Option<u32> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (&kind, &pid, &file) = (fields.get(1)?, fields.get(4)?, fields.get(5)?);
    (kind == "FLOCK" && file.rsplit(':').next()?.parse() == Ok(inode)).then(|| pid.parse().ok())?
}

/// The targets of a command: those of the command line, else the configured ones.
pub fn chosen(given: &[PathBuf], config: &Config, option: &str) -> anyhow::Result<Vec<PathBuf>> {
    let all = if given.is_empty() {
        &config.targets
    } else {
        given
    };
    if all.is_empty() {
        return Err(Usage(format!(
            "no target: give one with {option} PATH, or set `targets` in {}",
            crate::config::DEFAULT_PATH
        ))
        .into());
    }
    let mut seen: Vec<&PathBuf> = Vec::new();
    for target in all {
        if !seen.contains(&target) {
            seen.push(target);
        }
    }
    Ok(seen.into_iter().cloned().collect())
}

/// Splits off the sticks that are not plugged in: that one lies in a drawer is how it should be, and no failure of what
/// runs without it. A drive or a directory that is not there stays, to be tried and to fail; so do all where nothing is at
/// hand.
pub fn at_hand(targets: Vec<PathBuf>) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (away, here): (Vec<_>, Vec<_>) = targets.into_iter().partition(|t| is_away(t));
    match here.is_empty() {
        true => (away, here),
        false => (here, away),
    }
}

/// Names that udev gives to disks that are built in.
const BUILT_IN: [&str; 6] = ["ata-", "nvme-", "scsi-", "virtio-", "wwn-", "md-"];

fn is_away(target: &Path) -> bool {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let missing =
        std::fs::metadata(target).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    missing && target.starts_with("/dev") && !BUILT_IN.iter().any(|begin| name.starts_with(begin))
}

/// What is said of a stick that is not plugged in.
pub fn not_at_hand(target: &Path) -> String {
    format!("{}: not plugged in, left out", target.display())
}

/// Stores that are read as one.
pub struct Sources {
    /// The stores, in the order in which they were named.
    pub stores: Vec<(PathBuf, Arc<Store>)>,
    /// Targets that could not be opened, with the reason.
    pub failed: Vec<(PathBuf, anyhow::Error)>,
    /// Disks that hold one of the stores: a restore never writes to them.
    pub media: Vec<PathBuf>,
}

impl Sources {
    /// The stores themselves.
    pub fn readers(&self) -> Vec<&Store> {
        self.stores.iter().map(|(_, store)| &**store).collect()
    }

    /// The same, to be kept by something that outlives a borrow.
    pub fn shared(&self) -> Vec<Arc<Store>> {
        self.stores.iter().map(|(_, store)| store.clone()).collect()
    }

    /// Every restore point, the oldest first, each once; what cannot be read is passed over with a warning.
    pub fn all_snapshots(&self) -> anyhow::Result<Vec<(bundle::Id, Snapshot)>> {
        let mut all: Vec<(bundle::Id, Snapshot)> = Vec::new();
        for (path, store) in &self.stores {
            for header in store.snapshots()? {
                if all.iter().all(|(id, _)| *id != header.id) {
                    all.push(store.snapshot(&header.id.to_string())?);
                }
            }
            for damaged in store.damaged_documents()? {
                let file = damaged.file.display();
                eprintln!("warning: {}: {file}: {}", path.display(), damaged.reason);
            }
        }
        all.sort_by(|a, b| (&a.1.time, a.0).cmp(&(&b.1.time, b.0)));
        Ok(all)
    }

    /// The restore point that is meant: by the beginning of its id, or the newest one on any of the targets.
    pub fn snapshot(&self, wanted: &str) -> anyhow::Result<(bundle::Id, Snapshot)> {
        let mut found: Vec<(bundle::Id, Snapshot)> = Vec::new();
        let mut reasons = Vec::new();
        for (_, store) in &self.stores {
            match store.snapshot(wanted) {
                Ok(one) if found.iter().any(|(id, _)| *id == one.0) => {}
                Ok(one) => found.push(one),
                // More than one fits in this store: it would be wrong to take one of another store.
                Err(e @ bundle::Error::AmbiguousSnapshot { .. }) => return Err(e.into()),
                Err(e) => reasons.push(e),
            }
        }
        if wanted == "latest" {
            found.sort_by(|a, b| a.1.time.cmp(&b.1.time));
            found.reverse();
            found.truncate(1);
        }
        match (found.len(), reasons.into_iter().next()) {
            (1, _) => found.pop().context("no snapshot"),
            (0, Some(reason)) => Err(reason.into()),
            (0, None) => bail!("there is no restore point {wanted:?}"),
            (n, _) => {
                bail!("{wanted:?} fits {n} restore points on the targets given; give more digits")
            }
        }
    }
}

/// Opens targets for reading, runs `work`, and unmounts what was mounted, whatever happened.
pub fn reading<T>(
    paths: &[PathBuf],
    work: impl FnOnce(&Sources) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut opened = Vec::new();
    let mut sources = Sources {
        stores: Vec::new(),
        failed: Vec::new(),
        media: Vec::new(),
    };
    for path in paths {
        match Opened::open(path, Access::Read) {
            Ok(target) => {
                match target.reader() {
                    Ok(store) => sources.stores.push((path.clone(), Arc::new(store))),
                    Err(e) => sources.failed.push((path.clone(), e)),
                }
                if let Kind::Device(device) = &target.kind {
                    sources.media.push(device.clone());
                }
                opened.push(target);
            }
            Err(e) => sources.failed.push((path.clone(), e)),
        }
    }
    let result = if sources.stores.is_empty() {
        match sources.failed.pop() {
            Some((_, e)) => Err(e),
            None => Err(anyhow!("no target was given")),
        }
    } else {
        for (_, e) in &sources.failed {
            eprintln!("warning: {e:#}");
        }
        work(&sources)
    };
    drop(sources);
    close_all(opened, result)
}

/// Closes the targets; a failure to do so is the result, unless there is a worse one already.
pub fn close_all<T>(opened: Vec<Opened>, mut result: anyhow::Result<T>) -> anyhow::Result<T> {
    for target in opened {
        if let Err(e) = target.close() {
            match &result {
                Ok(_) => result = Err(e),
                Err(_) => eprintln!("warning: {e:#}"),
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_lines() {
        let line = "3: FLOCK  ADVISORY  WRITE 4711 fe:00:131074 0 EOF";
        assert_eq!(flock_of(line, 131_074), Some(4711));
        assert_eq!(flock_of(line, 131_075), None);
        assert_eq!(
            flock_of("1: POSIX  ADVISORY  WRITE 99 fe:00:131074 0 EOF", 131_074),
            None
        );
        assert_eq!(flock_of("", 1), None);
    }

    #[test]
    fn second_process_learns_who_holds_an_image() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let _first = lock_image(file.path(), Access::Write).unwrap();
        let text = lock_image(file.path(), Access::Read)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
    }

    #[test]
    fn readers_share_an_image() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let _first = lock_image(file.path(), Access::Read).unwrap();
        lock_image(file.path(), Access::Read).unwrap();
    }

    #[test]
    fn kinds() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        assert_eq!(Kind::of(dir.path()).unwrap(), Kind::Directory(root.clone()));
        let inside = root.join("lifeboat");
        std::fs::create_dir(&inside).unwrap();
        assert_eq!(Kind::of(&inside).unwrap(), Kind::Directory(inside.clone()));
        std::fs::write(inside.join("store.json"), "{}").unwrap();
        assert_eq!(Kind::of(&inside).unwrap(), Kind::Directory(root.clone()));
        std::fs::write(root.join("x.img"), "").unwrap();
        assert_eq!(
            Kind::of(&root.join("x.img")).unwrap(),
            Kind::Image(root.join("x.img"))
        );
        assert!(Kind::of(&root.join("missing")).is_err());
        assert!(Kind::of(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn a_stick_in_a_drawer_is_no_failure_a_missing_drive_is() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_path_buf();
        let stick = PathBuf::from("/dev/disk/by-id/usb-No_Such_Stick-0:0");
        let disk = PathBuf::from("/dev/disk/by-id/ata-No_Such_Disk");
        let gone = dir.path().join("not-mounted");
        let all = vec![here.clone(), stick.clone(), disk.clone(), gone.clone()];
        assert_eq!(at_hand(all), (vec![here, disk, gone], vec![stick.clone()]));
        // Where there is nothing else, nothing is saved: that is one.
        assert_eq!(at_hand(vec![stick.clone()]), (vec![stick], vec![]));
    }

    #[test]
    fn no_target_is_wrong_usage() {
        let e = chosen(&[], &Config::default(), "--to").unwrap_err();
        assert_eq!(crate::output::error_code(&e), 2);
        let twice = [PathBuf::from("/a"), PathBuf::from("/a")];
        assert_eq!(chosen(&twice, &Config::default(), "--to").unwrap().len(), 1);
    }
}
