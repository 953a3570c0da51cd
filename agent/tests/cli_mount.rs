//! Restore points as a file system, against the live tree.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use common::Bench;

/// A mount that is gone when the test ends, whatever happened.
struct Mounted {
    child: Child,
    at: PathBuf,
}

impl Mounted {
    fn new(bench: &Bench, snapshot: &str) -> Mounted {
        let at = bench.path("mnt");
        fs::create_dir_all(&at).unwrap();
        let child = bench.start([
            "mount",
            snapshot,
            bench.str("mnt"),
            "--from",
            bench.str("store"),
        ]);
        let mut mounted = Mounted { child, at };
        while !mounted.is_there() {
            assert!(
                mounted.child.try_wait().unwrap().is_none(),
                "{}",
                mounted.end().1
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        mounted
    }

    fn is_there(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.contains(&format!(" {} fuse", self.at.display()))
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Exit status and what was written to standard error.
    fn end(&mut self) -> (i32, String) {
        let mut text = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), text)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// FUSE and the right to mount.
fn possible() -> bool {
    let possible = Path::new("/dev/fuse").exists() && nix::unistd::geteuid().is_root();
    if !possible {
        eprintln!("ignored: needs root and /dev/fuse");
    }
    possible
}

#[test]
fn a_mount_is_what_the_live_tree_is() {
    if !possible() {
        return;
    }
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    let device = nix::sys::stat::makedev(259, 70_000);
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::sys::stat::mknod(
        &tree.join("disk"),
        nix::sys::stat::SFlag::S_IFBLK,
        mode,
        device,
    )
    .unwrap();
    // Another file system below: its root is shown, not the directory below it.
    let config = format!(
        "roots = [{:?}, {:?}]\ntargets = [{:?}]\n",
        tree,
        tree.join("etc/deep"),
        bench.path("store")
    );
    bench.configure(&config);
    bench.run(["backup"]).expect(0);

    let mut mounted = Mounted::new(&bench, "latest");
    let shown = bench.extracted("mnt");
    // Content, modes, owners, times, links, hard links, devices, extended attributes, in both directions.
    bench.assert_same(&tree, &shown);
    let (a, b) = (
        fs::metadata(shown.join("big.bin")).unwrap(),
        fs::metadata(shown.join("etc/big-again.bin")).unwrap(),
    );
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    let disk = fs::symlink_metadata(shown.join("disk")).unwrap();
    assert_eq!(disk.rdev(), device);
    assert_eq!(
        xattr::get(shown.join("etc/fstab"), "user.note")
            .unwrap()
            .unwrap(),
        b"with\nnewline"
    );
    let sparse = fs::File::open(shown.join("sparse")).unwrap();
    let data = nix::unistd::lseek(&sparse, 0, nix::unistd::Whence::SeekData).unwrap();
    assert!(data > 19 << 20, "the hole is known: data at {data}");
    let written = fs::write(shown.join("new"), "x").unwrap_err();
    assert_eq!(written.raw_os_error(), Some(libc::EROFS));
    let one = nix::fcntl::OFlag::O_RDONLY;
    let big = nix::fcntl::open(&shown.join("big.bin"), one, nix::sys::stat::Mode::empty()).unwrap();
    let mut middle = [0; 4096];
    nix::sys::uio::pread(&big, &mut middle, 5_000_001).unwrap();
    assert_eq!(
        middle[..],
        fs::read(tree.join("big.bin")).unwrap()[5_000_001..][..4096]
    );
    drop((sparse, big));

    let busy = bench.run(["mount", "latest", bench.str("mnt")]).expect(4);
    assert!(busy.err.contains("not empty"), "{}", busy.err);
    mounted.signal(nix::sys::signal::Signal::SIGINT);
    let (code, text) = mounted.end();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("umount "), "{text}");
    assert!(!text.contains("Not Implemented"), "{text}");
    assert!(!mounted.is_there());
}

#[test]
fn all_restore_points_side_by_side_until_unmounted() {
    if !possible() {
        return;
    }
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    let first = Bench::id(&bench.backup().expect(0));
    fs::write(tree.join("etc/fstab"), "second\n").unwrap();
    let second = Bench::id(&bench.backup().expect(0));
    let mut mounted = Mounted::new(&bench, "all");
    let mut names: Vec<_> = fs::read_dir(&mounted.at)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2);
    assert!(
        names[0].ends_with(&first[..8]) && names[1].ends_with(&second[..8]),
        "{names:?}"
    );
    let shown = |name: &str| mounted.at.join(name).join(tree.strip_prefix("/").unwrap());
    bench.assert_same(&tree, &shown(&names[1]));
    let old = fs::read_to_string(shown(&names[0]).join("etc/fstab")).unwrap();
    assert!(old.starts_with("UUID=1234"), "{old}");
    nix::mount::umount(&mounted.at).unwrap();
    let (code, text) = mounted.end();
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("WARN"), "{text}");
}

#[test]
fn damage_is_an_error_of_the_file_and_a_line() {
    if !possible() {
        return;
    }
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    bench.backup().expect(0);
    // The middle of the biggest pack is in the middle of the file that does not compress.
    bench.damage("store");
    let mut mounted = Mounted::new(&bench, "latest");
    let shown = bench.extracted("mnt");
    let error = fs::read(shown.join("big.bin")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    let good = fs::read(shown.join("etc/deep/er/7.conf")).unwrap();
    assert_eq!(good, fs::read(tree.join("etc/deep/er/7.conf")).unwrap());
    mounted.signal(nix::sys::signal::Signal::SIGTERM);
    let (_, text) = mounted.end();
    assert!(text.contains("/tree/big.bin: blob"), "{text}");
}

#[test]
fn a_signal_ends_a_mount_that_is_in_use() {
    if !possible() {
        return;
    }
    let bench = Bench::with_store();
    bench.make_tree();
    bench.backup().expect(0);
    let mut mounted = Mounted::new(&bench, "latest");
    let shown = bench.extracted("mnt");
    let mut held = fs::File::open(shown.join("big.bin")).unwrap();
    mounted.signal(nix::sys::signal::Signal::SIGTERM);
    let (code, text) = mounted.end();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("was still in use"), "{text}");
    assert!(!mounted.is_there());
    // Whoever still holds a file gets an error, and does not hang.
    assert!(held.read(&mut [0; 1]).is_err());
}
