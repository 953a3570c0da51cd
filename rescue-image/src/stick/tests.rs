use std::fs;

use bundle::events::{Events, Silent};
use layout::system::{Cmd, Host};

use super::*;

fn rescue(dir: &Path, text: &str) -> RescueSystem {
    let system = RescueSystem {
        kernel: dir.join(format!("vmlinuz-{text}")),
        initrd: dir.join(format!("initrd-{text}")),
        info: RescueInfo {
            format: 1,
            version: "1".into(),
            host: "h".into(),
            kernel: "6.1".into(),
            fingerprint: text.into(),
        },
    };
    fs::write(&system.kernel, format!("kernel {text}")).unwrap();
    fs::write(&system.initrd, text.repeat(10_000)).unwrap();
    system
}

fn options(dir: &Path) -> PrepareOptions {
    PrepareOptions {
        esp_size: Bytes::mib(64),
        ..PrepareOptions::new(rescue(dir, "one"))
    }
}

fn image(dir: &Path) -> (Target, PathBuf) {
    let path = dir.join("stick.img");
    (
        Target::Image {
            path: path.clone(),
            size: Bytes::mib(256),
        },
        path,
    )
}

/// Cuts a partition out, for tools that know no offsets.
fn part(stick: &Stick, range: (u64, u64, uuid::Uuid), to: &Path) {
    let (offset, len) = stick.table.bytes(range);
    let file = File::open(stick.path()).unwrap();
    let mut content = vec![0; len as usize];
    file.read_exact_at(&mut content, offset).unwrap();
    fs::write(to, content).unwrap();
}

#[test]
fn an_image_is_sound_in_the_eyes_of_other_tools_and_its_slots_can_be_updated() {
    let dir = tempfile::tempdir().unwrap();
    let (target, path) = image(dir.path());
    let report = Stick::prepare(&Host, &target, &options(dir.path()), &Silent).unwrap();
    let stick = Stick::open(&path).unwrap();
    assert_eq!(stick.medium(), report.medium);
    assert_eq!(stick.data_fs_uuid(), report.data_fs_uuid);
    assert_eq!(stick.data_size(), report.data_size);
    let verdict = Host
        .run(&Cmd::new("sgdisk").arg("-v").path(&path))
        .unwrap()
        .text();
    assert!(verdict.contains("No problems found"), "{verdict}");

    assert!(
        stick
            .update_rescue(&rescue(dir.path(), "two"), &Silent)
            .unwrap()
    );
    assert!(
        !stick
            .update_rescue(&rescue(dir.path(), "two"), &Silent)
            .unwrap()
    );
    let slots = stick.slots().unwrap();
    assert_eq!(slots.current, Slot::B);
    assert_eq!(slots.a.unwrap().fingerprint, "one");

    let esp = dir.path().join("esp");
    part(&stick, stick.table.esp, &esp);
    Host.run(&Cmd::new("fsck.vfat").args(["-n", "-v"]).path(&esp))
        .unwrap();
    let label = Host
        .run(
            &Cmd::new("blkid")
                .args(["-p", "-o", "value", "-s", "LABEL"])
                .path(&esp),
        )
        .unwrap()
        .text();
    assert_eq!(label.trim(), "LB-BOOT");
    let kernel = Host
        .run(
            &Cmd::new("mtype")
                .arg("-i")
                .path(&esp)
                .arg("::rescue/b/vmlinuz"),
        )
        .unwrap();
    assert_eq!(kernel.stdout, b"kernel two");
    let menu = Host
        .run(
            &Cmd::new("mtype")
                .arg("-i")
                .path(&esp)
                .arg("::grub/slot.cfg"),
        )
        .unwrap();
    assert!(menu.stdout.starts_with(b"set slot=b\n"));

    let data = dir.path().join("data");
    part(&stick, stick.table.data, &data);
    Host.run(&Cmd::new("e2fsck").args(["-f", "-n"]).path(&data))
        .unwrap();
}

#[test]
fn an_image_is_never_half_made_and_foreign_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (target, path) = image(dir.path());
    fs::write(&path, b"someone's thesis").unwrap();
    let mut options = options(dir.path());
    let error = Stick::prepare(&Host, &target, &options, &Silent).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"someone's thesis");
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 3, "{left:?}");
    options.replace_foreign_file = true;
    Stick::prepare(&Host, &target, &options, &Silent).unwrap();
    // A medium may be made anew.
    options.replace_foreign_file = false;
    let medium = Stick::open(&path).unwrap().medium;
    Stick::prepare(&Host, &target, &options, &Silent).unwrap();
    assert_ne!(Stick::open(&path).unwrap().medium, medium);
}

#[test]
fn sizes_that_cannot_work_are_refused_with_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stick.img");
    let target = Target::Image {
        path: path.clone(),
        size: Bytes::mib(100),
    };
    let text = Stick::prepare(&Host, &target, &options(dir.path()), &Silent)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("100 MiB") && text.contains("132 MiB"),
        "{text}"
    );
    assert!(!path.exists());
    let mut small = options(dir.path());
    small.esp_size = Bytes::mib(8);
    let (target, _) = image(dir.path());
    let text = Stick::prepare(&Host, &target, &small, &Silent)
        .unwrap_err()
        .to_string();
    assert!(text.contains("two rescue systems"), "{text}");
    small.esp_size = Bytes(u64::MAX);
    assert!(matches!(
        Stick::prepare(&Host, &target, &small, &Silent),
        Err(Error::Refused { .. })
    ));
}

#[test]
fn other_disks_and_other_versions_are_not_taken_for_a_medium() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain.img");
    fs::write(&plain, vec![0; 1 << 20]).unwrap();
    assert!(matches!(Stick::open(&plain), Err(Error::NotAStick { .. })));
    let (target, path) = image(dir.path());
    Stick::prepare(&Host, &target, &options(dir.path()), &Silent).unwrap();
    let stick = Stick::open(&path).unwrap();
    stick
        .esp(true)
        .unwrap()
        .write_bytes(MEDIUM_INFO, br#"{"format": 2, "new": true}"#)
        .unwrap();
    let text = Stick::open(&path).unwrap_err().to_string();
    assert!(
        text.contains("format 2") && text.contains("newer version"),
        "{text}"
    );
    stick
        .esp(true)
        .unwrap()
        .write_bytes(MEDIUM_INFO, br#"{"format": 1}"#)
        .unwrap();
    Stick::open(&path).unwrap();
    // The same table with another label on the data is someone else's.
    let data = stick.table.bytes(stick.table.data).0;
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(b"OTHER\0\0\0", data + 1024 + 0x78)
        .unwrap();
    assert!(matches!(Stick::open(&path), Err(Error::NotAStick { .. })));
}

/// Needs root and loop devices; says so when it cannot run.
#[test]
fn an_image_is_mounted_read_write_and_read_only_and_let_go() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("ignored: needs root and loop devices");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (target, path) = image(dir.path());
    Stick::prepare(&Host, &target, &options(dir.path()), &Silent).unwrap();
    let stick = Stick::open(&path).unwrap();
    let mounted = stick.mount(false).unwrap();
    let place = mounted.dir().to_owned();
    fs::write(place.join("hello"), b"world").unwrap();
    // In use: the error is told, and the mount is still there.
    let open = File::open(place.join("hello")).unwrap();
    assert!(matches!(mounted.unmount(), Err(Error::Io { .. })));
    drop(open);
    // The failed value tried again when it was dropped, while the file was open: unmount by hand.
    if place.exists() {
        sys_mount::unmount(&place, sys_mount::UnmountFlags::empty()).unwrap();
        fs::remove_dir(&place).unwrap();
    }
    // In use for a moment only.
    let mounted = stick.mount(false).unwrap();
    let open = File::open(mounted.dir().join("hello")).unwrap();
    let looking = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(open);
    });
    mounted.unmount().unwrap();
    looking.join().unwrap();
    let mounted = stick.mount(true).unwrap();
    assert_eq!(fs::read(mounted.dir().join("hello")).unwrap(), b"world");
    assert!(fs::write(mounted.dir().join("x"), b"").is_err());
    let place = mounted.dir().to_owned();
    mounted.unmount().unwrap();
    assert!(!place.exists());
    let loops = Host
        .run(&Cmd::new("losetup").arg("--associated").path(&path))
        .unwrap()
        .text();
    assert_eq!(loops, "", "the loop device is still attached");
}

/// A disk of its own over an image file; let go at the end.
struct LoopDisk(PathBuf);

impl LoopDisk {
    fn new(image: &Path, size: u64) -> Self {
        File::create(image).unwrap().set_len(size).unwrap();
        let out = Host
            .run(
                &Cmd::new("losetup")
                    .args(["--find", "--show", "--partscan"])
                    .path(image),
            )
            .unwrap();
        Self(out.text().trim().into())
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = Host.run(&Cmd::new("losetup").arg("--detach").path(&self.0));
    }
}

/// Needs root and loop devices; says so when it cannot run.
#[test]
fn a_device_is_made_a_medium_mounted_and_refused_while_in_use() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("ignored: needs root and loop devices");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = LoopDisk::new(&dir.path().join("disk"), 256 << 20);
    let device = disk.0.clone();
    assert_eq!(
        refusals(&Host, &device, Bytes::mib(256)).unwrap(),
        Vec::<String>::new()
    );
    let reasons = refusals(&Host, &device, Bytes::mib(257)).unwrap();
    assert!(
        reasons.len() == 1 && reasons[0].contains("257 MiB"),
        "{reasons:?}"
    );

    Stick::prepare(
        &Host,
        &Target::Device(device.clone()),
        &options(dir.path()),
        &Silent,
    )
    .unwrap();
    let stick = Stick::open(&device).unwrap();
    assert!(
        stick
            .update_rescue(&rescue(dir.path(), "two"), &Silent)
            .unwrap()
    );
    assert_eq!(
        Stick::open(&device).unwrap().slots().unwrap().current,
        Slot::B
    );
    let identity = identify(&Host, &device).unwrap();
    assert_eq!(identity.size, Bytes::mib(256));
    // Some kernels do not look for partitions on loop devices.
    let partitions = device::partition_node(
        &device,
        table::DATA_NUMBER,
        stick.table.bytes(stick.table.data).0,
    )
    .is_some();
    let expected = if partitions {
        "ext4 \"LIFEBOAT\""
    } else {
        "gpt"
    };
    assert!(
        identity.contents.iter().any(|c| c.contains(expected)),
        "{:?}",
        identity.contents
    );

    let mounted = stick.mount(false).unwrap();
    fs::write(mounted.dir().join("hello"), b"world").unwrap();
    if partitions {
        let again = Stick::prepare(
            &Host,
            &Target::Device(device.clone()),
            &options(dir.path()),
            &Silent,
        );
        assert!(again.unwrap_err().to_string().contains("is mounted at"));
    } else {
        eprintln!(
            "ignored in part: no partitions on loop devices here, so that a mounted one is not seen"
        );
    }
    mounted.unmount().unwrap();

    // Volumes of the host are never erased, mounted or not.
    Host.run(&Cmd::new("wipefs").arg("--all").path(&device))
        .unwrap();
    let config =
        r#"devices { filter=["a|.*|"] use_devicesfile=0 } activation { udev_sync=0 udev_rules=0 }"#;
    Host.run(
        &Cmd::new("pvcreate")
            .args(["--config", config, "--yes", "-ff"])
            .path(&device),
    )
    .unwrap();
    let error = Stick::prepare(
        &Host,
        &Target::Device(device),
        &options(dir.path()),
        &Silent,
    )
    .unwrap_err();
    assert!(error.to_string().contains("LVM physical volume"), "{error}");
}

/// Needs root and loop devices; says so when it cannot run.
#[test]
fn another_disk_than_the_confirmed_one_is_not_written_to() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("ignored: needs root and loop devices");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk");
    let disk = LoopDisk::new(&image, 256 << 20);
    let target = Target::Device(disk.0.clone());
    let confirmed = identify(&Host, &disk.0).unwrap();
    // As when the stick was pulled while the rescue system was built, and a disk with photos took its name.
    Host.run(&Cmd::new("mkfs.ext4").args(["-q", "-F"]).path(&disk.0))
        .unwrap();
    let before = fs::read(&image).unwrap();
    let options = PrepareOptions {
        confirmed: Some(confirmed),
        ..options(dir.path())
    };
    let error = Stick::prepare(&Host, &target, &options, &Silent).unwrap_err();
    assert!(error.to_string().contains("confirmed"), "{error}");
    assert!(fs::read(&image).unwrap() == before, "it was written to");
    let options = PrepareOptions {
        confirmed: Some(identify(&Host, &disk.0).unwrap()),
        ..options
    };
    Stick::prepare(&Host, &target, &options, &Silent).unwrap();
}

/// Needs root and loop devices; says so when it cannot run.
#[test]
fn a_disk_that_reads_back_differently_is_left_as_no_medium() {
    /// Damages what was written, as a stick does that has less memory than it says.
    struct Damage(PathBuf);
    impl Events for Damage {
        fn phase(&self, name: &str, _: Option<u64>) {
            if name == "reading back" {
                let disk = File::options().write(true).open(&self.0).unwrap();
                // The root directory and the files of the boot partition.
                disk.write_all_at(&vec![0x5a; 32 << 20], 2 << 20).unwrap();
            }
        }
    }
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("ignored: needs root and loop devices");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = LoopDisk::new(&dir.path().join("disk"), 256 << 20);
    let target = Target::Device(disk.0.clone());
    Stick::prepare(
        &Host,
        &target,
        &options(dir.path()),
        &Damage(disk.0.clone()),
    )
    .unwrap_err();
    assert!(matches!(Stick::open(&disk.0), Err(Error::NotAStick { .. })));
    let known = Host.run(&Cmd::new("blkid").args(["-p"]).path(&disk.0).accept(2));
    assert_eq!(known.unwrap().text(), "");
}
