//! On loop devices that are presented as disks. Need root; say so when they cannot run.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use super::*;
use crate::apply::fakes::Nothing;
use crate::apply::{ApplyError, Events, Silent, apply};
use crate::model::{Firmware, Layout, NodeId};
use crate::plan::{DiskAssignment, Plan, Step};
use crate::system::{Host, Recorded};
use crate::units::SectorSize;

/// A disk of its own over an image file, and where it can be mounted; let go at the end.
struct LoopDisk {
    node: PathBuf,
    at: PathBuf,
    dir: tempfile::TempDir,
}

impl LoopDisk {
    /// The image lies on a file system of `room` bytes.
    fn new(room: &str, size: u64) -> Option<LoopDisk> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("ignored: needs root and loop devices");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (store, at) = (dir.path().join("store"), dir.path().join("at"));
        std::fs::create_dir(&store).unwrap();
        std::fs::create_dir(&at).unwrap();
        run(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            &format!("size={room}"),
            "none",
            text(&store),
        ]);
        let image = store.join("image");
        File::create(&image).unwrap().set_len(size).unwrap();
        let node = run(&["losetup", "--find", "--show", text(&image)]);
        run(&[
            "mke2fs",
            "-q",
            "-F",
            "-t",
            "ext4",
            "-E",
            "nodiscard",
            node.trim(),
        ]);
        Some(LoopDisk {
            node: node.trim().into(),
            at,
            dir,
        })
    }

    fn mount(&self) {
        run(&["mount", text(&self.node), text(&self.at)]);
    }

    /// The machine that has this disk only, called vdt; its mounts are not seen.
    fn machine(&self, mounts: &str) -> Recorded {
        let device = BlockDevice {
            name: "vdt".to_owned(),
            node: self.node.clone(),
            ..BlockDevice::default()
        };
        Recorded::new()
            .device(device)
            .file("/sys/class/block/vdt/size", "131072")
            .file("/sys/class/block/vdt/device/model", "Test Disk")
            .file("/proc/self/mountinfo", mounts)
    }

    fn plan(&self) -> Plan {
        let identity = DiskIdentity {
            model: Some("Test Disk".to_owned()),
            serial: None,
            wwn: None,
            size: Bytes::mib(64),
            sector_size: SectorSize::S512,
        };
        Plan {
            disks: vec![DiskAssignment {
                saved: NodeId::disk("d"),
                device: self.node.clone(),
                identity,
                erased: Vec::new(),
                why: String::new(),
                joins: None,
            }],
            merged: Vec::new(),
            fence: Vec::new(),
            steps: vec![
                Step::Fence {
                    disks: Vec::new(),
                    targets: vec![self.node.clone()],
                    vgs: Vec::new(),
                },
                Step::Wipe {
                    device: self.node.clone(),
                    size: Bytes::mib(64),
                },
            ],
            sizes: Vec::new(),
            notes: Vec::new(),
            tools: Vec::new(),
            substitutions: Vec::new(),
            in_place: None,
        }
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = Host.run(&Cmd::new("umount").path(&self.at));
        let _ = Host.run(&Cmd::new("losetup").arg("--detach").path(&self.node));
        let _ = Host.run(&Cmd::new("umount").path(&self.dir.path().join("store")));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(argv: &[&str]) -> String {
    let command = Cmd::new(argv[0]).args(argv[1..].iter().copied());
    Host.run(&command).unwrap().text()
}

const NO_MOUNTS: &str = "22 1 0:20 / / rw - tmpfs none rw\n";

/// How far it came, and why it ended there.
fn failed_at(sys: &Recorded, plan: &Plan, root: &Path, events: &dyn Events) -> (usize, String) {
    let saved = Layout::new(Firmware::Bios);
    match apply(
        sys,
        plan,
        &saved,
        root,
        &mut Nothing,
        events,
        &mut Vec::new(),
    ) {
        Err(ApplyError::Step { index, source, .. }) => (index, source.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_disk_that_somebody_holds_unseen_is_refused_before_the_first_write() {
    let Some(disk) = LoopDisk::new("80M", 64 << 20) else {
        return;
    };
    disk.mount();
    let sys = disk.machine(NO_MOUNTS);
    let (index, why) = failed_at(&sys, &disk.plan(), Path::new("/nowhere"), &Silent);
    assert_eq!(index, 0, "{why}");
    assert!(why.contains("unmount"), "{why}");
}

#[test]
fn the_disk_is_held_from_the_fence_on_and_another_model_is_refused() {
    struct Fds(Mutex<Vec<PathBuf>>);
    impl Events for Fds {
        fn step_started(&self, index: usize, _: usize, _: &Step) {
            if index == 1 {
                let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
                let links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
                self.0.lock().unwrap().extend(links);
            }
        }
        fn step_done(&self, _: usize, _: usize, _: &Step, _: crate::apply::Outcome, _: Duration) {}
        fn note(&self, _: &str) {}
    }
    let Some(disk) = LoopDisk::new("80M", 64 << 20) else {
        return;
    };
    let sys = disk.machine(NO_MOUNTS);
    let fds = Fds(Mutex::new(Vec::new()));
    // No wipefs is recorded: that is where it ends.
    let (index, why) = failed_at(&sys, &disk.plan(), Path::new("/nowhere"), &fds);
    assert_eq!(index, 1, "{why}");
    assert!(fds.0.lock().unwrap().contains(&disk.node));
    let mut plan = disk.plan();
    plan.disks[0].identity.model = Some("Another Disk".to_owned());
    let (index, why) = failed_at(&sys, &plan, Path::new("/nowhere"), &Silent);
    assert_eq!(index, 0, "{why}");
    assert!(why.contains("another disk"), "{why}");
}

#[test]
fn what_the_disk_did_not_take_fails_the_unmount() {
    // The image has no room for what the file system promises: writing it out gives an I/O error, late.
    let Some(disk) = LoopDisk::new("24M", 64 << 20) else {
        return;
    };
    disk.mount();
    let file = File::create(disk.at.join("file")).unwrap();
    file.write_all_at(&vec![0x5a; 40 << 20], 0).unwrap();
    drop(file);
    let plan = disk.plan();
    let saved = Layout::new(Firmware::Bios);
    let mut executor = Executor {
        sys: &Host,
        plan: &plan,
        saved: &saved,
        root: &disk.at,
        content: &mut Nothing,
        events: &Silent,
        held: Vec::new(),
    };
    let error = executor.unmount().unwrap_err().to_string();
    assert!(error.contains("cannot write everything"), "{error}");
    assert!(
        std::fs::read_dir(&disk.at).unwrap().next().is_none(),
        "still mounted"
    );
}
