//! Media: block devices with a file system, mounted read-only.
//!
//! Looking must not write: a journal that was not closed is not replayed while looking (`noload`, `norecovery`). Only
//! when the file system does hold a bundle is its journal replayed, since the newest restore point may be in it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sys_mount::{MountFlags, UnmountFlags};

use super::{Found, Search, store_dirs};

/// A file system that holds a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The device that holds the file system, such as `/dev/sdb3`.
    pub device: PathBuf,
    /// The whole disks below it, such as `/dev/sdb`.
    pub disks: Vec<PathBuf>,
    /// Its type, such as `ext4`.
    pub fs_type: String,
    /// UUID of the file system.
    pub uuid: Option<String>,
    /// UUID of the partition.
    pub partuuid: Option<String>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
}

/// A block device with something that may be a file system.
struct Candidate {
    device: PathBuf,
    sysname: String,
    fs_type: String,
    uuid: Option<String>,
    partuuid: Option<String>,
    devnum: Option<u64>,
    syspath: PathBuf,
}

/// File systems that a bundle may be on, with the options that keep the kernel from writing while looking.
const KINDS: &[(&str, &str)] = &[
    ("ext4", "noload"),
    ("ext3", "noload"),
    ("ext2", ""),
    ("xfs", "norecovery,nouuid"),
    ("btrfs", "nologreplay"),
    ("vfat", ""),
    ("exfat", ""),
    ("ntfs3", ""),
    ("f2fs", "norecovery"),
    ("iso9660", ""),
    ("udf", ""),
];

/// Looks until the wanted medium (or, where none is named, any bundle) is there, or the patience is at its end.
pub(super) fn find(search: &Search) -> Found {
    let started = Instant::now();
    loop {
        let found = look(search);
        let enough = match &search.medium {
            Some(name) => {
                let open = found.stores.iter().map(|s| &s.medium);
                let locked = found.locked.iter().map(|l| &l.medium);
                open.chain(locked).flatten().any(|m| m.is(name))
            }
            None => !found.stores.is_empty() || !found.locked.is_empty(),
        };
        if enough || started.elapsed() >= search.patience {
            return found;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn look(search: &Search) -> Found {
    let first = search.medium.as_deref();
    let mut found = Found {
        keys: search.keys.clone(),
        ..Found::default()
    };
    // The wizards of two consoles must not mount and unmount the same devices at the same time.
    let _one_at_a_time =
        super::super::restore::wait_for_lock(Path::new(super::super::RUN_DIR), "media.lock");
    unmount_gone();
    let mut candidates = match candidates() {
        Ok(candidates) => candidates,
        Err(error) => {
            found.warnings.push(format!("{error:#}"));
            return found;
        }
    };
    // The booted medium first: its data are read before those of the others.
    candidates.sort_by_key(|c| !first.is_some_and(|f| c.is(f)));
    for candidate in candidates {
        match attach(&candidate, &mut |root| {
            found.take_keys(root, search.key_file.as_deref());
        }) {
            Ok(Some(medium)) => {
                for dir in store_dirs(&medium.mount_point) {
                    found.add(&dir, Some(medium.clone()));
                }
            }
            Ok(None) => {}
            // A dead machine's disks hold many file systems that cannot be mounted; the one that was booted must be.
            Err(error) if first.is_some_and(|f| candidate.is(f)) => {
                found.warnings.push(format!("{error:#}"))
            }
            Err(error) => tracing::info!("{error:#}"),
        }
    }
    // The key of one medium may be on another.
    found.retry();
    found
}

impl Medium {
    /// Whether `lifeboat.medium=` means this one.
    pub fn is(&self, name: &str) -> bool {
        is_named(&self.partuuid, &self.uuid, name)
    }
}

impl Candidate {
    fn is(&self, name: &str) -> bool {
        is_named(&self.partuuid, &self.uuid, name)
    }
}

fn is_named(partuuid: &Option<String>, uuid: &Option<String>, name: &str) -> bool {
    [partuuid, uuid]
        .into_iter()
        .flatten()
        .any(|known| known.eq_ignore_ascii_case(name))
}

fn candidates() -> Result<Vec<Candidate>> {
    let mut devices = udev::Enumerator::new().context("asking udev for block devices")?;
    devices
        .match_subsystem("block")
        .context("asking udev for block devices")?;
    let text = |value: Option<&OsStr>| value.map(|v| v.to_string_lossy().into_owned());
    let mut candidates = Vec::new();
    for device in devices
        .scan_devices()
        .context("asking udev for block devices")?
    {
        let Some(node) = device.devnode() else {
            continue;
        };
        let Some(fs_type) = text(device.property_value("ID_FS_TYPE")) else {
            continue;
        };
        if !KINDS.iter().any(|(kind, _)| *kind == fs_type) && fs_type != "ntfs" {
            continue;
        }
        // Boot partitions hold no bundles, and are no place to copy files to.
        let kind = text(device.property_value("ID_PART_ENTRY_TYPE"));
        if kind.is_some_and(|k| k.eq_ignore_ascii_case(layout::model::types::ESP)) {
            continue;
        }
        candidates.push(Candidate {
            device: node.to_owned(),
            sysname: device.sysname().to_string_lossy().into_owned(),
            fs_type: if fs_type == "ntfs" {
                "ntfs3".to_owned()
            } else {
                fs_type
            },
            uuid: text(device.property_value("ID_FS_UUID")),
            partuuid: text(device.property_value("ID_PART_ENTRY_UUID")),
            devnum: device.devnum(),
            syspath: device.syspath().to_owned(),
        });
    }
    candidates.sort_by(|a, b| a.sysname.cmp(&b.sysname));
    Ok(candidates)
}

/// Mounts it, unless it is mounted already; keeps the mount only when it holds a bundle.
/// `look` sees each of them.
fn attach(candidate: &Candidate, look: &mut dyn FnMut(&Path)) -> Result<Option<Medium>> {
    let medium = |mount_point: PathBuf| Medium {
        device: candidate.device.clone(),
        disks: disks_below(&candidate.syspath).into_iter().collect(),
        fs_type: candidate.fs_type.clone(),
        uuid: candidate.uuid.clone(),
        partuuid: candidate.partuuid.clone(),
        mount_point,
    };
    if let Some(at) = mounted_at(candidate) {
        look(&at);
        return Ok((!store_dirs(&at).is_empty()).then(|| medium(at)));
    }
    let at = Path::new(super::super::MEDIA_DIR).join(&candidate.sysname);
    fs::create_dir_all(&at).with_context(|| format!("creating {}", at.display()))?;
    let careful = KINDS
        .iter()
        .find(|(kind, _)| *kind == candidate.fs_type)
        .map_or("", |(_, options)| options);
    mount_read_only(candidate, &at, careful)?;
    look(&at);
    if store_dirs(&at).is_empty() {
        sys_mount::unmount(&at, UnmountFlags::empty()).with_context(|| {
            format!(
                "unmounting {} from {}",
                candidate.device.display(),
                at.display()
            )
        })?;
        // Left behind it would only look like a medium.
        let _ = fs::remove_dir(&at);
        return Ok(None);
    }
    if needs_replay(candidate) {
        replay(candidate, &at, careful)?;
    }
    Ok(Some(medium(at)))
}

fn mount_read_only(candidate: &Candidate, at: &Path, options: &str) -> Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // The guard is let go of on purpose: it would unmount, and swallow errors, when dropped.
    sys_mount::Mount::builder()
        .fstype(candidate.fs_type.as_str())
        .flags(flags)
        .data(options)
        .mount(&candidate.device, at)
        .map(|_mount| ())
        .with_context(|| {
            format!(
                "mounting {} ({}) read-only",
                candidate.device.display(),
                candidate.fs_type
            )
        })
}

/// Whether an ext3/ext4 journal holds what is not in place yet (`INCOMPAT_RECOVER`, 0x4, of `s_feature_incompat` at
/// byte 0x60 of the superblock, which is at byte 1024; magic 0xEF53 at byte 0x38).
fn needs_replay(candidate: &Candidate) -> bool {
    if !candidate.fs_type.starts_with("ext") {
        return false;
    }
    let mut superblock = [0u8; 128];
    let read =
        fs::File::open(&candidate.device).and_then(|f| f.read_exact_at(&mut superblock, 1024));
    read.is_ok() && superblock[0x38..0x3a] == [0x53, 0xef] && superblock[0x60] & 0x4 != 0
}

/// Mounts again with the journal replayed; where that is impossible (a write-protected medium), as it was.
fn replay(candidate: &Candidate, at: &Path, careful: &str) -> Result<()> {
    sys_mount::unmount(at, UnmountFlags::empty()).with_context(|| {
        format!(
            "unmounting {} to replay its journal",
            candidate.device.display()
        )
    })?;
    match mount_read_only(candidate, at, "") {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::warn!(
                "the journal of {} cannot be replayed: {error:#}",
                candidate.device.display()
            );
            mount_read_only(candidate, at, careful)
        }
    }
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug)]
struct MountLine<'a> {
    /// Number of the device, `8:3`; btrfs has one of its own that begins with `0:` and is no block device's.
    number: &'a str,
    root: &'a str,
    at: PathBuf,
    source: &'a Path,
}

fn mount_lines(table: &str) -> impl Iterator<Item = MountLine<'_>> {
    table.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (number, root, at) = (fields.next()?, fields.next()?, fields.next()?);
        let source = filesystem.split(' ').nth(1)?;
        Some(MountLine {
            number,
            root,
            at: PathBuf::from(at.replace("\\040", " ")),
            source: Path::new(source),
        })
    })
}

impl MountLine<'_> {
    fn is_numbered(&self) -> bool {
        !self.number.starts_with("0:")
    }
}

/// Where a device is mounted; the mount of the whole file system only.
fn mounted_at(candidate: &Candidate) -> Option<PathBuf> {
    let devnum = candidate.devnum?;
    let number = format!(
        "{}:{}",
        nix::sys::stat::major(devnum),
        nix::sys::stat::minor(devnum)
    );
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    parse_mounted_at(&table, &number, &candidate.device)
}

fn parse_mounted_at(table: &str, number: &str, device: &Path) -> Option<PathBuf> {
    let mut lines = mount_lines(table).filter(|line| line.root == "/");
    lines
        .find(|line| match line.is_numbered() {
            true => line.number == number,
            false => line.source == device,
        })
        .map(|line| line.at)
}

/// Takes away the mounts of media that were pulled out: nothing can be read there any more, and a medium that is put back in
/// has another number, but may have the same name.
fn unmount_gone() {
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else {
        return;
    };
    let is_there = |line: &MountLine| match line.is_numbered() {
        true => Path::new("/sys/dev/block").join(line.number).exists(),
        false => line.source.exists(),
    };
    for at in parse_gone(&table, Path::new(super::super::MEDIA_DIR), &is_there) {
        tracing::warn!("the medium at {} is gone", at.display());
        if let Err(error) = sys_mount::unmount(&at, UnmountFlags::DETACH) {
            tracing::warn!("unmounting {}: {error}", at.display());
        }
    }
}

/// Mount points below `media` whose device is not there.
fn parse_gone(table: &str, media: &Path, is_there: &dyn Fn(&MountLine) -> bool) -> Vec<PathBuf> {
    mount_lines(table)
        .filter(|line| line.at.starts_with(media) && !is_there(line))
        .map(|line| line.at)
        .collect()
}

/// The whole disks that a block device rests on: through partitions and device-mapper or md slaves.
fn disks_below(syspath: &Path) -> BTreeSet<PathBuf> {
    let mut disks = BTreeSet::new();
    let path = fs::canonicalize(syspath).unwrap_or_else(|_| syspath.to_owned());
    if path.join("partition").exists() {
        if let Some(parent) = path.parent() {
            disks.extend(disks_below(parent));
        }
        return disks;
    }
    let slaves: Vec<PathBuf> = fs::read_dir(path.join("slaves"))
        .map(|d| d.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    if slaves.is_empty() {
        if let Some(name) = path.file_name() {
            disks.insert(Path::new("/dev").join(name));
        }
    }
    for slave in slaves {
        disks.extend(disks_below(&slave));
    }
    disks
}

/// Mounts a medium that holds a bundle so that it can be written to, runs `then` in its directory, and mounts it
/// read-only again. For the reports of a restore, after its fence is lifted.
///
/// Mounted anew rather than remounted: an ext4 that was mounted without its journal must not be written to like that.
pub(in crate::rescue) fn writable(
    medium: &Medium,
    then: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let at = &medium.mount_point;
    fs::create_dir_all(at).with_context(|| format!("creating {}", at.display()))?;
    let mounted = || super::super::init::mounts::is_mount_point(at);
    let unmount = || {
        sys_mount::unmount(at, UnmountFlags::empty()).with_context(|| {
            format!(
                "unmounting {} from {}",
                medium.device.display(),
                at.display()
            )
        })
    };
    let mount = |flags: MountFlags| {
        let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        sys_mount::Mount::builder()
            .fstype(medium.fs_type.as_str())
            .flags(safe | flags)
            .mount(&medium.device, at)
            .map(|_mount| ())
            .with_context(|| format!("mounting {} on {}", medium.device.display(), at.display()))
    };
    let before = mounted();
    if before {
        unmount()?;
    }
    let done = mount(MountFlags::empty()).and_then(|()| {
        let done = then(at);
        done.and(unmount())
    });
    if !before {
        return done;
    }
    // Read-only again in any case: the operator may want to look at it, or try another restore.
    let back = if mounted() { unmount() } else { Ok(()) };
    done.and(back.and_then(|()| mount(MountFlags::RDONLY)))
}

/// File systems that files can be copied to, with a text for people.
pub(in crate::rescue) fn destinations(sys: &dyn layout::system::System) -> Vec<(String, Medium)> {
    let writable = |c: &Candidate| !matches!(c.fs_type.as_str(), "iso9660" | "udf" | "f2fs");
    let candidates = candidates().unwrap_or_default();
    candidates
        .into_iter()
        .filter(writable)
        .map(|c| {
            let at = mounted_at(&c)
                .unwrap_or_else(|| Path::new(super::super::MEDIA_DIR).join(&c.sysname));
            // Sysfs counts in 512-byte units whatever the sectors are.
            let size = sys
                .text(&c.syspath.join("size"))
                .and_then(|s| s.parse::<u64>().ok())
                .unwrap_or(0);
            let size = layout::units::Bytes(size.saturating_mul(512));
            let label = if store_dirs(&at).is_empty() {
                ""
            } else {
                "  (holds a bundle)"
            };
            let text = format!("{}  {}  {size}{label}", c.device.display(), c.fs_type);
            let disks = disks_below(&c.syspath).into_iter().collect();
            (
                text,
                Medium {
                    device: c.device,
                    disks,
                    fs_type: c.fs_type,
                    uuid: c.uuid,
                    partuuid: c.partuuid,
                    mount_point: at,
                },
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount_of_the_whole_file_system() {
        let table = "\
30 1 8:3 /sub /elsewhere ro - ext4 /dev/sda3 ro
31 1 8:3 / /mnt/my\\040disk ro - ext4 /dev/sda3 ro
32 1 8:30 / /other ro - ext4 /dev/sdb14 ro
33 1 0:40 /@ /of/btrfs ro - btrfs /dev/sdc1 ro
34 1 0:40 / /btrfs ro shared:2 - btrfs /dev/sdc1 ro
";
        let at = |number: &str, device: &str| parse_mounted_at(table, number, Path::new(device));
        assert_eq!(at("8:3", "/dev/sda3"), Some(PathBuf::from("/mnt/my disk")));
        assert_eq!(at("8:4", "/dev/sda4"), None);
        // A device that was pulled out had the same name.
        assert_eq!(at("8:99", "/dev/sda3"), None);
        assert_eq!(at("8:33", "/dev/sdc1"), Some(PathBuf::from("/btrfs")));
    }

    #[test]
    fn finds_mounts_of_media_that_are_gone() {
        let table = "\
30 1 8:3 / /run/lifeboat/media/sda3 ro - ext4 /dev/sda3 ro
31 1 8:19 / /run/lifeboat/media/sdb3 ro - ext4 /dev/sdb3 ro
32 1 8:3 / /elsewhere ro - ext4 /dev/sda3 ro
33 1 0:40 / /run/lifeboat/media/sdc1 ro - btrfs /dev/sdc1 ro
34 1 0:41 / /run/lifeboat/media/sdd1 ro - btrfs /dev/sdd1 ro
";
        let is_there = |line: &MountLine| match line.is_numbered() {
            true => line.number == "8:19",
            false => line.source == Path::new("/dev/sdc1"),
        };
        let gone = parse_gone(table, Path::new("/run/lifeboat/media"), &is_there);
        let media = ["sda3", "sdd1"].map(|name| Path::new("/run/lifeboat/media").join(name));
        assert_eq!(gone, media);
    }

    #[test]
    fn a_medium_is_named_by_partition_or_file_system() {
        let (part, fs) = (Some("ABCD-01".to_owned()), Some("1234".to_owned()));
        assert!(is_named(&part, &fs, "abcd-01"));
        assert!(is_named(&part, &fs, "1234"));
        assert!(!is_named(&part, &fs, "123"));
        assert!(!is_named(&None, &None, ""));
    }

    #[test]
    fn walks_down_to_the_disks() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let sys = dir.path();
        let partition = sys.join("sda/sda3");
        fs::create_dir_all(&partition).expect("created");
        fs::write(partition.join("partition"), "3").expect("written");
        fs::create_dir_all(sys.join("sdb/slaves")).expect("created");
        fs::create_dir_all(sys.join("dm-0/slaves")).expect("created");
        std::os::unix::fs::symlink(&partition, sys.join("dm-0/slaves/sda3")).expect("linked");
        std::os::unix::fs::symlink(sys.join("sdb"), sys.join("dm-0/slaves/sdb")).expect("linked");
        let disks: Vec<PathBuf> = disks_below(&sys.join("dm-0")).into_iter().collect();
        assert_eq!(
            disks,
            [PathBuf::from("/dev/sda"), PathBuf::from("/dev/sdb")]
        );
    }

    #[test]
    fn looking_replays_no_journal() {
        for kind in ["ext3", "ext4", "xfs", "btrfs"] {
            let options = KINDS.iter().find(|(k, _)| *k == kind).map(|(_, o)| *o);
            assert!(options.is_some_and(|o| o.contains("noload")
                || o.contains("norecovery")
                || o.contains("nologreplay")));
        }
    }
}
