//! Single guests back from their dumps, on a node that runs.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/dumped.rs"]
mod dumped;
#[path = "common/node.rs"]
mod node;

use std::fs;
use std::path::Path;

use dumped::*;

#[test]
fn an_archive_is_the_same_again_and_a_disk_is_a_file() {
    let Some(bench) = node(&[100]) else { return };
    let listed = dumps(&bench);
    assert_eq!(listed[0]["id"], 100);
    assert_eq!(listed[0]["name"], "vm100");
    assert_eq!(listed[0]["bytes"], 2 * disk(1).len());
    let from = ["--from", bench.str("store")];
    let export =
        |args: &[&str]| bench.on_node(["guests", "export", "100"].iter().chain(args).chain(&from));
    export(&["--archive", bench.str("out.vma")]).expect(0);
    let original = disks(&archive(100, "onboot: 1\n").0);
    assert!(disks(&fs::read(bench.path("out.vma")).unwrap()) == original);
    let piped = export(&["--archive", "-"]).expect(0);
    assert!(disks(&piped.stdout) == original);
    export(&["--disk", "scsi1", "--to", bench.str("disk.raw")]).expect(0);
    assert!(fs::read(bench.path("disk.raw")).unwrap() == original.1["drive-scsi1"]);
    // What is there already is nobody's to overwrite.
    for (file, why) in [
        (bench.str("disk.raw"), "there already"),
        (bench.str(""), "a directory"),
    ] {
        let refused = export(&["--disk", "scsi1", "--to", file]).expect(4);
        assert!(refused.err.contains(why), "{}", refused.err);
    }
    let none = export(&["--disk", "ide7", "--to", bench.str("none")]).expect(1);
    assert!(none.err.contains("scsi0, scsi1"), "{}", none.err);
    assert!(!bench.path("none").exists());
}

#[test]
fn a_guest_comes_back_under_its_number_or_another() {
    let Some(bench) = node(&[100]) else { return };
    let refused = restore(&bench, &["100"]).expect(4);
    assert!(
        refused.err.contains("--force") && refused.err.contains("--as"),
        "{}",
        refused.err
    );
    assert_eq!(calls(&bench), Vec::<String>::new());
    restore(
        &bench,
        &["100", "--as", "900", "--storage", "tank", "--start"],
    )
    .expect(0);
    restore(&bench, &["100", "--force"]).expect(0);
    assert_eq!(
        calls(&bench),
        [
            "qmrestore - 900 --storage tank --unique 1",
            "qm start 900",
            "qmrestore - 100 --force 1"
        ]
    );
    let original = disks(&archive(100, "onboot: 1\n").0);
    for id in ["100", "900"] {
        assert!(disks(&fs::read(bench.path("got").join(id)).unwrap()) == original);
    }
    let none = restore(&bench, &["105"]).expect(1);
    assert!(none.err.contains("guests list"), "{}", none.err);
    assert_eq!(restore(&bench, &[]).code, 2);
    fs::write(bench.path("fail/901"), "").unwrap();
    let failed = restore(&bench, &["100", "--as", "901"]).expect(1);
    assert!(failed.err.contains("no space"), "{}", failed.err);
}

/// Damages blobs in the middle of the packs of a store.
fn damage(store: &Path, from: usize) {
    let mut packs = Vec::new();
    for dir in fs::read_dir(store.join("lifeboat/packs")).unwrap() {
        for pack in fs::read_dir(dir.unwrap().path()).unwrap() {
            packs.push(pack.unwrap().path());
        }
    }
    packs.sort_by_key(|p| fs::metadata(p).unwrap().modified().unwrap());
    for pack in &packs[from..] {
        let mut bytes = fs::read(pack).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 0xff;
        fs::write(pack, bytes).unwrap();
    }
}

#[test]
fn a_damaged_dump_is_named_and_nothing_half_good_is_left() {
    let Some(bench) = node(&[100]) else { return };
    damage(&bench.path("store"), 0);
    // The guest that is there is worth more than a dump that cannot be read: nothing is let loose on it.
    let refused = restore(&bench, &["100", "--force"]).expect(1);
    for part in ["VM 100 (vm100)", "drive-scsi", "stays as it is"] {
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    assert_eq!(calls(&bench), Vec::<String>::new());
    let failed = restore(&bench, &["100", "--as", "900"]).expect(1);
    for part in ["VM 100 (vm100)", "drive-scsi", "bytes "] {
        assert!(failed.err.contains(part), "{part}: {}", failed.err);
    }
    assert!(!bench.path("got/100").exists() && !bench.path("got/900").exists());
    let from = ["--from", bench.str("store")];
    let export = ["guests", "export", "100", "--archive", bench.str("out.vma")];
    bench.on_node(export.iter().chain(&from)).expect(1);
    assert!(!bench.path("out.vma").exists());
}
