//! Stores on a small disk of their own: full at any point, cut off, and changed below the page cache.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use bundle::backup::{Backup, TargetResult};
use bundle::events::{Events, Silent};
use bundle::extract::Selection;
use bundle::verify::{VerifyOptions, verify};
use store_support::*;

/// An ext4 file system in a file, mounted; unmounted at the end.
struct Disk {
    image: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    /// `None`, with the reason printed, where it cannot be made.
    fn new(dir: &Path) -> Option<Disk> {
        if !is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("ignored: needs root and loop devices");
            return None;
        }
        let disk = Disk {
            image: dir.join("image"),
            mounted: dir.join("disk"),
        };
        fs::create_dir(&disk.mounted).unwrap();
        sh(
            dir,
            "truncate -s 24M image; mkfs.ext4 -q -m 0 -b 1024 image; mount -o loop image disk",
        );
        Some(disk)
    }

    /// What a power cut, or pulling the stick, does: nothing that is not on the disk by now gets there any more.
    fn cut(&self) {
        /// `FS_IOC_SHUTDOWN`, `_IOR('X', 125, u32)`, which ext4 and xfs know.
        const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
        /// Without writing the journal.
        const NO_LOG_FLUSH: u32 = 2;
        let root = fs::File::open(&self.mounted).unwrap();
        // SAFETY: the descriptor is open, and the call reads one u32.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &NO_LOG_FLUSH) };
        nix::errno::Errno::result(result).unwrap();
    }

    fn plug_in_again(&self, dir: &Path) {
        self.unmount();
        sh(dir, "mount -o loop image disk");
    }

    /// A process that another test of this program has begun holds copies of what is open here until it runs its own
    /// program: what stays busy for longer is open.
    fn unmount(&self) {
        let script = format!(
            "tries=0; until umount {}; do tries=$((tries + 1)); [ $tries -lt 50 ]; sleep 0.1; done",
            self.mounted.display()
        );
        sh(Path::new("/"), &script);
    }

    fn free(&self) -> u64 {
        let fs = nix::sys::statvfs::statvfs(&self.mounted).unwrap();
        fs.blocks_available() * fs.fragment_size()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Cuts the power after so many bytes were read.
struct CutAfter<'d> {
    disk: &'d Disk,
    left: AtomicI64,
}

impl Events for CutAfter<'_> {
    fn bytes(&self, n: u64) {
        let before = self.left.fetch_sub(n as i64, Ordering::Relaxed);
        if before > 0 && before <= n as i64 {
            self.disk.cut();
        }
    }
}

#[test]
fn a_power_cut_loses_no_finished_snapshot_and_the_next_backup_succeeds() {
    let dir = scratch();
    let Some(disk) = Disk::new(dir.path()) else {
        return;
    };
    let (tree, store) = (dir.path().join("tree"), disk.mounted.join("store"));
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("first"), noise(200_000)).unwrap();
    let mut made = vec![backup(&tree, &store)];
    // A snapshot that was said to be made is there, the very first in a new store as well.
    disk.cut();
    disk.plug_in_again(dir.path());
    for round in 0..8u64 {
        for n in 0..5 {
            fs::write(tree.join(format!("{n}")), noise(150_000)).unwrap();
        }
        let events = CutAfter {
            disk: &disk,
            left: AtomicI64::new(1 + round as i64 * 130_000),
        };
        let result = open_for_writing(&store).and_then(|opened| {
            let mut backup = Backup::start(vec![opened], options(), &events)?;
            let saved = backup.tree(&source(&tree))?;
            backup.commit(draft(vec![saved])).remove(0).snapshot
        });
        assert!(result.is_err(), "{result:?}");
        disk.plug_in_again(dir.path());
        let report = check(&store);
        assert!(
            report.ok() && report.snapshots.len() == made.len(),
            "{report:#?}"
        );
        made.push(backup(&tree, &store));
        disk.cut();
        disk.plug_in_again(dir.path());
        let report = check(&store);
        assert!(
            report.ok() && made.iter().all(|id| report.snapshots.contains(id)),
            "{report:#?}"
        );
    }
}

fn attempt(tree: &Path, store: &Path) -> Result<TargetResult, bundle::Error> {
    let mut backup = Backup::start(vec![open_for_writing(store)?], options(), &Silent)?;
    let saved = backup.tree(&source(tree))?;
    Ok(backup.commit(draft(vec![saved])).remove(0))
}

#[test]
fn a_full_disk_loses_nothing_and_the_next_backup_succeeds() {
    let dir = scratch();
    let Some(disk) = Disk::new(dir.path()) else {
        return;
    };
    let (tree, store) = (dir.path().join("tree"), disk.mounted.join("store"));
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("first"), noise(200_000)).unwrap();
    backup(&tree, &store);
    sh(dir.path(), "cp -a disk/store before");
    for n in 0..40 {
        fs::write(tree.join(format!("{n}")), noise(10_000)).unwrap();
    }
    fs::write(tree.join("large"), noise(2_500_000)).unwrap();
    let free = disk.free();
    backup(&tree, &store);
    let needed = free - disk.free();

    let coarse = (0..10).map(|n| n * needed / 10);
    let fine = (0..24).map(|n| needed - n * 3072);
    let (mut full, mut fitted) = (0, 0);
    for room in coarse.chain(fine).chain([needed + (64 << 10)]) {
        sh(
            dir.path(),
            "rm -rf disk/store; cp -a before disk/store; sync -f disk",
        );
        // The file that fills the disk takes a little more than its own size.
        let ballast = disk.free().saturating_sub(room + (32 << 10));
        sh(dir.path(), &format!("fallocate -l {ballast} disk/ballast"));
        let result = attempt(&tree, &store).and_then(|r| r.snapshot);
        let report = check(&store);
        assert!(report.ok(), "room for {room}: {report:#?}");
        match result {
            Ok(id) => {
                assert!(report.snapshots.contains(&id));
                fitted += 1;
            }
            Err(error) => {
                full += 1;
                assert_eq!(report.snapshots.len(), 1, "room for {room}: {error}");
                sh(&store, "test -z \"$(ls lifeboat/tmp)\"");
            }
        }
        fs::remove_file(disk.mounted.join("ballast")).unwrap();
        let again = attempt(&tree, &store).unwrap();
        assert!(again.snapshot.is_ok(), "after room for {room}: {again:?}");
        assert!(check(&store).ok());
    }
    assert!(full > 10 && fitted > 0, "{full} full, {fitted} fitted");
    assert!(extract_from(&[&store], &Selection::All, &dir.path().join("out")).complete());
    assert_same(&tree, &dir.path().join("out"));
}

/// Changes a byte of a file where it lies on the disk, so that only the page cache still has the right one. A kernel that
/// reclaims memory early may have dropped it in between: then the byte is put back, and it is tried again.
fn damage_below(disk: &Disk, file: &Path) {
    let content = fs::read(file).unwrap();
    let image = fs::read(&disk.image).unwrap();
    let part = &content[..content.len().min(1024)];
    let at = image
        .chunks(1024)
        .position(|block| block.starts_with(part))
        .unwrap();
    let below = fs::File::options().write(true).open(&disk.image).unwrap();
    let put = |byte: u8| below.write_all_at(&[byte], at as u64 * 1024 + 20).unwrap();
    for _ in 0..20 {
        put(part[20] ^ 1);
        if fs::read(file).unwrap() == content {
            return;
        }
        put(part[20]);
        let cached = fs::File::open(file).unwrap();
        let drop = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        nix::fcntl::posix_fadvise(&cached, 0, 0, drop).unwrap();
        assert!(fs::read(file).unwrap() == content, "the byte is back");
    }
    panic!("{} does not stay in the page cache", file.display());
}

#[test]
fn a_cold_verification_reads_the_medium() {
    for (below, suffix) in [
        ("packs", ".pack"),
        ("index", ".idx"),
        ("snapshots", ".json"),
    ] {
        let dir = scratch();
        let Some(disk) = Disk::new(dir.path()) else {
            return;
        };
        let (tree, store) = (dir.path().join("tree"), disk.mounted.join("store"));
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("file"), noise(200_000)).unwrap();
        let id = backup(&tree, &store);
        let file = files(&store, below, suffix).remove(0);
        damage_below(&disk, &file);
        // Right after a backup: this snapshot alone.
        let opened = open_for_reading(&store).unwrap();
        let options = VerifyOptions {
            snapshot: Some(id.to_string()),
            cold: true,
            workers: 1,
            ..VerifyOptions::default()
        };
        let report = verify(&opened, &options, &Silent).unwrap();
        if below == "index" {
            // The footers replace it.
            assert!(
                report.ok() && report.notes[0].contains("index/"),
                "{report:#?}"
            );
        } else {
            assert!(
                !report.ok() && file.ends_with(&report.damaged[0].file),
                "{report:#?}"
            );
        }
        drop(opened);
        let report = check(&store);
        assert!(
            !report.ok() && file.ends_with(&report.damaged[0].file),
            "{report:#?}"
        );
    }
}

#[test]
fn a_store_that_was_released_does_not_keep_its_medium_busy() {
    let dir = scratch();
    let Some(disk) = Disk::new(dir.path()) else {
        return;
    };
    let (tree, store) = (dir.path().join("tree"), disk.mounted.join("store"));
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("file"), noise(200_000)).unwrap();
    backup(&tree, &store);
    let opened = open_for_reading(&store).unwrap();
    let good = || {
        let report = verify(&opened, &VerifyOptions::default(), &Silent).unwrap();
        let (_, snapshot) = opened.snapshot("latest").unwrap();
        let all = bundle::verify::check_readable(&[&opened], &snapshot, &Silent).unwrap();
        report.ok() && all.ok()
    };
    assert!(good());
    opened.release();
    // Fails when anything is open on it.
    disk.plug_in_again(dir.path());
    assert!(good());
    opened.release();
}
