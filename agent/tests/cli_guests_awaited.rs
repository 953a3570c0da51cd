//! Backups and prunes while guests are still to come back after a restore.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/dumped.rs"]
mod dumped;
#[path = "common/node.rs"]
mod node;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use dumped::*;

#[test]
fn what_is_not_back_yet_is_not_dumped_over_what_it_comes_back_from() {
    let Some(bench) = node(&[100, 101]) else {
        return;
    };
    leave(&bench, &[100, 101]);
    fs::write(bench.path("unit"), "activating\n").unwrap();
    fs::write(bench.path("left/101"), "").unwrap();
    pending(&bench).expect(1);
    // A timer comes in between.
    fs::remove_file(bench.path("calls")).unwrap();
    let to = ["--only-guests", "--json", "--to", bench.str("store")];
    let run = bench.on_node(["backup"].iter().chain(&to)).expect(3);
    let report = run.json();
    let guests = report["guests"].as_array().unwrap();
    assert_eq!(
        (&guests[0]["status"], &guests[1]["status"]),
        (&"saved".into(), &"failed".into())
    );
    let error = guests[1]["error"].as_str().unwrap();
    assert!(
        error.contains("still to come back") && error.contains("forget 101"),
        "{error}"
    );
    assert!(
        calls(&bench).iter().all(|c| !c.starts_with("101")),
        "{:?}",
        calls(&bench)
    );
    assert_eq!(dumps(&bench).iter().filter(|d| d["id"] == 101).count(), 1);
    // Where nobody knows which ones, none.
    fs::write(bench.path("state/guests/pending.json"), "{").unwrap();
    let run = bench.on_node(["backup"].iter().chain(&to)).expect(1);
    assert!(run.err.contains("pending.json") || run.out.contains("pending.json"));
}

#[test]
fn what_guests_come_back_from_is_not_removed() {
    let Some(bench) = node(&[100]) else { return };
    leave(&bench, &[100]);
    let once_more = ["backup", "--only-guests", "--to", bench.str("store")];
    let file = bench.path("state/guests/pending.json");
    fs::rename(&file, bench.path("aside")).unwrap();
    bench.on_node(once_more).expect(0);
    fs::rename(bench.path("aside"), &file).unwrap();
    let text = fs::read_to_string(bench.path("lifeboat.toml")).unwrap();
    let text = format!(
        "{text}\n[guests]\nkeep-last = 1\nkeep-daily = 0\n[retention]\nautomatic = \"always\"\n"
    );
    fs::write(bench.path("lifeboat.toml"), text).unwrap();
    let prune = ["prune", bench.str("store"), "--keep-last", "1"];
    let run = bench.on_node(prune);
    assert!(
        run.code != 0 && run.err.contains("still to come back"),
        "{}",
        run.err
    );
    bench.on_node(prune.iter().chain(&["--dry-run"])).expect(0);
    // Another guest's dump prunes nothing either, and says so.
    fs::write(bench.path("guests/qemu-server/101.conf"), conf(101, "")).unwrap();
    fs::write(bench.path("dumps/101"), archive(101, "").0).unwrap();
    let other = ["--guests", "101"];
    let run = bench.on_node(once_more.iter().chain(&other)).expect(3);
    assert!(
        format!("{}{}", run.out, run.err).contains("not pruned"),
        "{}{}",
        run.out,
        run.err
    );
    assert_eq!(dumps(&bench).iter().filter(|d| d["id"] == 100).count(), 2);
    pending(&bench).expect(0);
    bench.on_node(prune).expect(0);
    assert_eq!(dumps(&bench).iter().filter(|d| d["id"] == 100).count(), 1);
}

#[test]
fn a_dump_that_was_found_damaged_is_not_there_already() {
    let Some(bench) = node(&[101]) else { return };
    bench.configure("\n[guests]\nsource = \"latest-dump\"\n");
    fs::remove_file(bench.path("guests/qemu-server/101.conf")).unwrap();
    let file = bench.path("vz/dump/vzdump-qemu-100-2026_11_20-18_00_00.vma");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, archive(100, "").0).unwrap();
    fs::write(bench.path("guests/qemu-server/100.conf"), conf(100, "")).unwrap();
    let backup = || {
        let args = [
            "backup",
            "--only-guests",
            "--json",
            "--to",
            bench.str("store"),
        ];
        let report = bench.on_node(args).expect(0).json();
        report["guests"][0]["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (backup().as_str(), backup().as_str()),
        ("saved", "unchanged")
    );
    for pack in bench.packs("store") {
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    let verify = ["verify", "--from", bench.str("store")];
    bench.run(verify).expect(1);
    assert_eq!(
        (backup().as_str(), backup().as_str()),
        ("saved", "unchanged")
    );
    let whole = dumps(&bench).into_iter().rfind(|d| d["id"] == 100).unwrap();
    restore(
        &bench,
        &[
            "100",
            "--as",
            "900",
            "--snapshot",
            whole["snapshot"].as_str().unwrap(),
        ],
    )
    .expect(0);
}
