//! The first boot after a bare-metal restore: the list of guests that the rescue system left.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/dumped.rs"]
mod dumped;
#[path = "common/node.rs"]
mod node;

use std::fs;
use std::path::Path;

use common::{Bench, Run};
use dumped::*;
use serde_json::{Value, json};

#[test]
fn the_first_boot_brings_all_back_in_order_and_then_the_flag_goes() {
    let Some(bench) = node(&[100, 101]) else {
        return;
    };
    leave(&bench, &[101, 100]);
    fs::write(bench.path("unit"), "activating\n").unwrap();
    let run = pending(&bench).expect(0);
    assert!(run.err.contains("VM 101 (vm101): back"), "{}", run.err);
    let asked = calls(&bench);
    let restores: Vec<_> = asked
        .iter()
        .filter(|c| c.starts_with("qmrestore"))
        .collect();
    assert_eq!(
        restores,
        ["qmrestore - 101 --force 1", "qmrestore - 100 --force 1"]
    );
    // Those that start guests wait for the end of this.
    assert!(!asked.iter().any(|c| c.contains("start")), "{asked:?}");
    assert!(!flagged(&bench));
    let done = |id| (id, "done".to_owned(), 1);
    assert_eq!(states(&bench), [done(101), done(100)]);
    // Once more there is nothing to do.
    pending(&bench).expect(0);
}

#[test]
fn one_that_fails_leaves_the_others_going_and_can_be_repeated() {
    let Some(bench) = node(&[100, 101, 102]) else {
        return;
    };
    leave(&bench, &[100, 101, 102]);
    fs::write(bench.path("unit"), "activating\n").unwrap();
    fs::write(bench.path("fail/101"), "").unwrap();
    let run = pending(&bench).expect(1);
    for part in [
        "VM 101 (vm101) is not back",
        "no space",
        "lifeboat guests restore ID",
    ] {
        assert!(run.err.contains(part), "{part}: {}", run.err);
    }
    let asked = calls(&bench);
    let starts: Vec<_> = asked.iter().filter(|c| c.starts_with("qm start")).collect();
    assert_eq!(starts, ["qm start 100", "qm start 102"]);
    assert!(flagged(&bench));
    let of = |n| (101, "failed".to_owned(), n);
    assert_eq!(states(&bench)[1], of(1));
    // The next boots try it again, but not for ever.
    pending(&bench).expect(1);
    pending(&bench).expect(1);
    assert_eq!(states(&bench)[1], of(3));
    fs::remove_file(bench.path("calls")).unwrap();
    pending(&bench).expect(1);
    assert!(!calls(&bench).iter().any(|c| c.starts_with("qmrestore")));
    let status = bench.run(["guests", "status"]).expect(1);
    assert!(
        status.out.contains("FAILED") && status.out.contains("3 of 3"),
        "{}",
        status.out
    );
    // By hand, when the reason is gone: then all are there, and what starts guests is let go.
    fs::remove_file(bench.path("fail/101")).unwrap();
    fs::remove_file(bench.path("unit")).unwrap();
    bench.on_node(["guests", "restore", "101"]).expect(0);
    assert!(!flagged(&bench));
    let asked = calls(&bench);
    assert!(
        asked.contains(&"pvesh --nooutput create /nodes/localhost/startall".to_owned()),
        "{asked:?}"
    );
    assert_eq!(states(&bench)[1].1, "done");
}

#[test]
fn a_damaged_dump_is_named_and_the_others_come() {
    let Some(bench) = node(&[100]) else { return };
    let before = fs::read_dir(bench.path("store/lifeboat/packs"))
        .unwrap()
        .count();
    assert!(before > 0);
    let good: Vec<_> = walk(&bench.path("store/lifeboat/packs"));
    let conf = conf(101, "");
    fs::write(bench.path("guests/qemu-server/101.conf"), conf).unwrap();
    fs::write(bench.path("dumps/101"), archive(1010, "").0).unwrap();
    let backup = [
        "backup",
        "--only-guests",
        "--guests",
        "101",
        "--to",
        bench.str("store"),
    ];
    bench.on_node(backup).expect(0);
    for pack in walk(&bench.path("store/lifeboat/packs")) {
        if !good.contains(&pack) {
            let mut bytes = fs::read(&pack).unwrap();
            let at = bytes.len() / 2;
            bytes[at] ^= 0xff;
            fs::write(&pack, bytes).unwrap();
        }
    }
    leave(&bench, &[101, 100]);
    let run = pending(&bench).expect(1);
    assert!(run.err.contains("VM 100 (vm100): back"), "{}", run.err);
    assert!(
        run.err.contains("VM 101") && run.err.contains("drive-scsi"),
        "{}",
        run.err
    );
    let ended = states(&bench);
    assert_eq!(
        (ended[0].1.as_str(), ended[1].1.as_str()),
        ("failed", "done")
    );
    assert!(!bench.path("got/101").exists() && bench.path("got/100").exists());
    // Another dump of it, of a disk that can be read.
    let other = archive(1020, "");
    fs::write(bench.path("dumps/101"), &other.0).unwrap();
    // From before: no backup dumps what is still to come back.
    let list = bench.path("state/guests/pending.json");
    fs::rename(&list, bench.path("aside")).unwrap();
    bench.on_node(backup);
    fs::rename(bench.path("aside"), &list).unwrap();
    let list = self::dumps(&bench);
    let newest = list.iter().rfind(|d| d["id"] == 101).unwrap();
    let newest = newest["snapshot"].as_str().unwrap();
    fs::write(bench.path("fail/101"), "").unwrap();
    bench
        .on_node(["guests", "restore", "101", "--snapshot", newest])
        .expect(1);
    fs::remove_file(bench.path("fail/101")).unwrap();
    bench
        .on_node(["guests", "restore", "101", "--snapshot", newest])
        .expect(0);
    assert!(disks(&fs::read(bench.path("got/101")).unwrap()) == disks(&other.0));
    assert!(!flagged(&bench));
}

#[test]
fn one_that_is_given_up_holds_the_others_back_no_longer() {
    let Some(bench) = node(&[100]) else { return };
    leave(&bench, &[100, 105]);
    let run = pending(&bench).expect(1);
    assert!(
        run.err
            .contains("none of the drives that are attached holds a dump"),
        "{}",
        run.err
    );
    assert!(flagged(&bench));
    let unknown = bench.on_node(["guests", "forget", "7"]).expect(2);
    assert!(unknown.err.contains("not on the list"), "{}", unknown.err);
    bench.on_node(["guests", "forget", "105"]).expect(0);
    assert!(!flagged(&bench));
    assert_eq!(states(&bench), [(100, "done".to_owned(), 1)]);
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let dirs = fs::read_dir(dir).unwrap().map(|d| d.unwrap().path());
    dirs.flat_map(|d| fs::read_dir(d).unwrap().map(|f| f.unwrap().path()))
        .collect()
}

#[test]
fn a_power_cut_costs_an_attempt_and_is_begun_again() {
    let Some(bench) = node(&[100, 101]) else {
        return;
    };
    leave(&bench, &[100, 101]);
    fs::write(bench.path("hang/101"), "").unwrap();
    // The command that is fed kills its parent, as a power cut would.
    let cut = pending(&bench);
    assert_ne!(cut.code, 0);
    let text = fs::read_to_string(bench.path("state/guests/pending.json")).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["guests"][0]["state"], "done");
    assert_eq!(
        (&list["guests"][1]["state"], &list["guests"][1]["attempts"]),
        (&json!("running"), &json!(1))
    );
    // What the cut attempt left of its disks is no reason not to go on.
    fs::write(bench.path("disks/101"), "").unwrap();
    fs::remove_file(bench.path("hang/101")).unwrap();
    fs::remove_file(bench.path("calls")).unwrap();
    pending(&bench).expect(0);
    let restores: Vec<_> = calls(&bench)
        .into_iter()
        .filter(|c| c.starts_with("qmrestore"))
        .collect();
    assert_eq!(restores, ["qmrestore - 101 --force 1"]);
    assert_eq!(states(&bench)[1], (101, "done".to_owned(), 2));
}

#[test]
fn a_machine_that_stops_each_time_is_not_tried_for_ever() {
    let Some(bench) = node(&[100]) else { return };
    leave(&bench, &[100]);
    let file = bench.path("state/guests/pending.json");
    let mut list: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    list["guests"][0]["state"] = json!("running");
    list["guests"][0]["attempts"] = json!(3);
    fs::write(&file, list.to_string()).unwrap();
    let run = pending(&bench).expect(1);
    assert!(
        run.err.contains("stopped in the middle of attempt 3 of 3"),
        "{}",
        run.err
    );
    assert_eq!(
        calls(&bench)
            .iter()
            .filter(|c| c.starts_with("qmrestore"))
            .count(),
        0
    );
}

#[test]
fn disks_that_were_never_lost_stay_as_they_are() {
    let Some(bench) = node(&[100]) else { return };
    leave(&bench, &[100]);
    fs::write(bench.path("disks/100"), "").unwrap();
    let run = pending(&bench).expect(0);
    assert!(run.err.contains("stay as they are"), "{}", run.err);
    assert!(!calls(&bench).iter().any(|c| c.starts_with("qmrestore")));
    assert_eq!(states(&bench), [(100, "kept".to_owned(), 1)]);
    assert!(!flagged(&bench));
}

#[test]
fn without_the_drive_nothing_is_counted_and_it_is_said() {
    let Some(bench) = node(&[100]) else { return };
    leave(&bench, &[100]);
    fs::rename(bench.path("store"), bench.path("away")).unwrap();
    let run = restore_from(&bench, "nowhere");
    assert_eq!(run.code, 1);
    assert_eq!(states(&bench), [(100, "waiting".to_owned(), 0)]);
    assert!(run.err.contains("no store can be read"), "{}", run.err);
    let run = restore_from(&bench, "away");
    assert_eq!(run.code, 0, "{}", run.err);
}

fn restore_from(bench: &Bench, dir: &str) -> Run {
    bench.on_node(["guests", "restore", "--pending", "--from", bench.str(dir)])
}

#[test]
fn a_list_that_is_none_is_refused_with_what_to_do() {
    let Some(bench) = node(&[100]) else { return };
    fs::create_dir_all(bench.path("state/guests")).unwrap();
    fs::write(bench.path("state/guests/pending.json"), "{\"format\":1}").unwrap();
    let run = pending(&bench).expect(1);
    assert!(
        run.err.contains("lifeboat guests restore ID --force"),
        "{}",
        run.err
    );
    assert!(flagged(&bench));
}

#[test]
fn a_container_comes_back_with_its_volumes_named() {
    let Some(bench) = node(&[100]) else { return };
    container(&bench, 200);
    let backup = [
        "backup",
        "--only-guests",
        "--guests",
        "200",
        "--to",
        bench.str("store"),
    ];
    bench.on_node(backup).expect(0);
    fs::remove_file(bench.path("calls")).unwrap();
    let dump = dumps(&bench).pop().unwrap();
    assert_eq!((&dump["id"], &dump["kind"]), (&json!(200), &json!("lxc")));
    leave(&bench, &[200]);
    let file = bench.path("state/guests/pending.json");
    let text = fs::read_to_string(&file).unwrap().replace("qemu", "lxc");
    fs::write(&file, text).unwrap();
    pending(&bench).expect(0);
    let restores: Vec<_> = calls(&bench)
        .into_iter()
        .filter(|c| c.starts_with("pct restore"))
        .collect();
    assert_eq!(
        restores,
        ["pct restore 200 - --rootfs local-lvm:0.5 --unprivileged 1 --force 1"]
    );
    // What the command was given is what GNU tar takes, and the same files.
    let out = bench.path("unpacked");
    fs::create_dir(&out).unwrap();
    let mut tar = assert_cmd::Command::new("tar");
    tar.args(["-xpf", bench.str("got/200"), "--acls", "--xattrs", "-C"])
        .arg(&out);
    Run::from(tar.output().unwrap()).expect(0);
    fs::remove_dir_all(bench.path("ct/etc/vzdump")).unwrap();
    fs::remove_dir_all(out.join("etc/vzdump")).unwrap();
    for name in ["etc/hostname", "home/a/data", "home/again"] {
        assert!(
            fs::read(out.join(name)).unwrap() == fs::read(bench.path("ct").join(name)).unwrap()
        );
    }
    bench.assert_same(&bench.path("ct/home"), &out.join("home"));
    // One file, as out of any restore point.
    let id = dump["snapshot"].as_str().unwrap();
    let from = ["--from", bench.str("store"), "--to", bench.str("one")];
    let extract = ["extract", id, "/etc/hostname"];
    bench.run(extract.iter().chain(&from)).expect(0);
    assert_eq!(
        fs::read_to_string(bench.path("one/etc/hostname")).unwrap(),
        "db\n"
    );
    let disk = [
        "guests",
        "export",
        "200",
        "--disk",
        "scsi0",
        "--to",
        bench.str("x"),
    ];
    let none = bench
        .run(disk.iter().chain(&["--from", bench.str("store")]))
        .expect(1);
    assert!(none.err.contains("no disks of its own"), "{}", none.err);
}
