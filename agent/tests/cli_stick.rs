//! An image file that stands for a stick, from making it to reading it.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Bench;

/// Half a minute: builds a rescue system. The kernel is this host's, or out of the package that the variable names.
#[test]
#[ignore = "needs root, loop devices, lifeboat-rescue beside lifeboat, and a kernel (or LIFEBOAT_TEST_KERNEL_PACKAGE=linux-image-....deb)"]
fn stick_image_as_target() {
    let bench = Bench::default();
    let tree = bench.make_tree();
    let image = bench.str("stick.img");
    let kernel: Vec<String> = std::env::var("LIFEBOAT_TEST_KERNEL_PACKAGE")
        .map(|deb| vec!["--kernel-package".to_owned(), deb])
        .unwrap_or_default();
    let make = [
        "prepare",
        image,
        "--size",
        "4G",
        "--esp-size",
        "300M",
        "--modules",
        "slim",
    ];
    bench
        .run(
            make.iter()
                .copied()
                .chain(kernel.iter().map(String::as_str)),
        )
        .expect(0);
    // This host knows it, once it is on a disk and plugged in.
    let sticks: Vec<_> = std::fs::read_dir(bench.path("state/sticks"))
        .unwrap()
        .collect();
    assert_eq!(sticks.len(), 1);
    bench
        .run([
            "backup",
            "--no-update-rescue",
            "--root",
            bench.str("tree"),
            "--to",
            image,
        ])
        .expect(0);
    let list = bench
        .run(["list", "--from", image, "--json"])
        .expect(0)
        .json();
    assert_eq!(list["targets"][0]["snapshots"].as_array().unwrap().len(), 1);
    bench.run(["verify", "latest", "--from", image]).expect(0);
    bench
        .run([
            "extract",
            "latest",
            "--from",
            image,
            "--to",
            bench.str("out"),
        ])
        .expect(0);
    bench.assert_same(&tree, &bench.extracted("out"));
    // Directories are no host: there is nothing to restore unattended.
    let arm = bench.run(["arm", "--on", image]).expect(1);
    assert!(arm.err.contains("not a whole host"), "{}", arm.err);
    // Nothing stays mounted, and an image in use is not taken by a second process.
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains("/run/lifeboat"), "{mounts}");
    let file = std::fs::File::open(image).unwrap();
    let _held = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, e)| e)
        .unwrap();
    let busy = bench.run(["list", "--from", image]).expect(1);
    assert!(
        busy.err
            .contains(&format!("process {}", std::process::id())),
        "{}",
        busy.err
    );
}
