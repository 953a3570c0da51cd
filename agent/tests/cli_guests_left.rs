//! What attempts to bring guests back leave behind: neither taken for a guest, nor somebody's guest taken for that.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/dumped.rs"]
mod dumped;
#[path = "common/node.rs"]
mod node;

use std::fs;

use common::Bench;
use dumped::*;
use serde_json::Value;

fn restores(bench: &Bench) -> usize {
    let calls = calls(bench).into_iter();
    calls.filter(|c| c.starts_with("qmrestore")).count()
}

fn ready() -> Option<Bench> {
    let bench = node(&[100])?;
    leave(&bench, &[100]);
    fs::write(bench.path("unit"), "activating\n").unwrap();
    Some(bench)
}

/// Its configuration is another one from now on.
fn change(bench: &Bench) {
    let more = "onboot: 1\nmemory: 4096\n";
    fs::write(bench.path("guests/qemu-server/100.conf"), conf(100, more)).unwrap();
}

#[test]
fn what_was_held_back_at_boot_runs_when_all_are_back() {
    let Some(bench) = node(&[100]) else { return };
    leave(&bench, &[100]);
    // The unit of the high availability is masked.
    bench.script(
        "systemctl",
        &format!("#!/bin/sh\necho \"systemctl $*\" >> \"{}\"\ncase \"$*\" in *-lrm.service) exit 1;; esac\n", bench.str("calls")),
    );
    bench.script(
        "systemd-run",
        &format!(
            "#!/bin/sh\necho \"systemd-run $*\" >> \"{}\"\n",
            bench.str("calls")
        ),
    );
    pending(&bench).expect(0);
    let calls = calls(&bench);
    let last = calls.last().unwrap();
    assert_eq!(
        last,
        "systemd-run --quiet --no-block --collect --property=Wants=pve-guests.service --property=Wants=pve-ha-crm.service true"
    );
    assert!(calls.iter().any(|c| c.contains("startall")), "{calls:?}");
}

fn state(bench: &Bench) -> String {
    states(bench).remove(0).1
}

#[test]
fn what_a_failed_attempt_left_is_no_guest() {
    let Some(bench) = ready() else { return };
    fs::write(bench.path("left/100"), "").unwrap();
    pending(&bench).expect(1);
    assert!(bench.path("disks/100").exists());
    // The same again: still none.
    pending(&bench).expect(1);
    assert_eq!((restores(&bench), state(&bench).as_str()), (2, "failed"));
    fs::remove_file(bench.path("left/100")).unwrap();
    pending(&bench).expect(0);
    assert_eq!((restores(&bench), state(&bench).as_str()), (3, "done"));
}

#[test]
fn what_is_left_is_no_guest_for_those_who_ask_for_it_either() {
    let Some(bench) = ready() else { return };
    fs::write(bench.path("left/100"), "").unwrap();
    (0..3).for_each(|_| drop(pending(&bench).expect(1)));
    fs::remove_file(bench.path("left/100")).unwrap();
    bench.on_node(["guests", "restore", "100"]).expect(0);
    assert_eq!((restores(&bench), state(&bench).as_str()), (4, "done"));
}

#[test]
fn what_was_changed_since_is_somebodys() {
    let Some(bench) = ready() else { return };
    fs::write(bench.path("left/100"), "").unwrap();
    pending(&bench).expect(1);
    fs::remove_file(bench.path("left/100")).unwrap();
    change(&bench);
    for ask in [&["--pending"][..], &["100"], &["--pending"]] {
        let run = bench.on_node(["guests", "restore"].iter().chain(ask));
        assert!(run.expect(1).err.contains("--force"), "{ask:?}");
        assert!(!calls(&bench).iter().any(|c| c.starts_with("qm start")));
    }
    assert_eq!(restores(&bench), 1);
    bench
        .on_node(["guests", "restore", "100", "--force"])
        .expect(0);
    assert_eq!(state(&bench), "done");
}

#[test]
fn a_failure_that_was_cleaned_up_leaves_what_comes_later_alone() {
    let Some(bench) = ready() else { return };
    fs::write(bench.path("fail/100"), "").unwrap();
    pending(&bench).expect(1);
    // Somebody else brought it back.
    fs::write(bench.path("disks/100"), "").unwrap();
    pending(&bench).expect(0);
    assert_eq!((restores(&bench), state(&bench).as_str()), (1, "kept"));
}

#[test]
fn one_that_the_configuration_did_not_have_is_begun_again_after_a_power_cut() {
    let Some(bench) = ready() else { return };
    let file = bench.path("guests/qemu-server/100.conf");
    fs::remove_file(&file).unwrap();
    fs::write(bench.path("hang/100"), "").unwrap();
    assert_ne!(pending(&bench).code, 0);
    // The tool had written its configuration, and made its disk.
    fs::write(&file, conf(100, "onboot: 1\nlock: create\n")).unwrap();
    fs::write(bench.path("disks/100"), "").unwrap();
    fs::remove_file(bench.path("hang/100")).unwrap();
    fs::remove_file(bench.path("calls")).unwrap();
    pending(&bench).expect(0);
    let calls = calls(&bench);
    let changes: Vec<_> = calls
        .iter()
        .filter(|c| !c.starts_with("pvesm") && !c.starts_with("systemctl"))
        .collect();
    assert_eq!(changes, ["qm unlock 100", "qmrestore - 100 --force 1"]);
    assert_eq!(state(&bench), "done");
}

#[test]
fn one_that_was_just_being_made_is_not_taken_for_whole() {
    let Some(bench) = ready() else { return };
    let file = bench.path("guests/qemu-server/100.conf");
    fs::write(file, conf(100, "onboot: 1\nlock: create\n")).unwrap();
    fs::write(bench.path("disks/100"), "").unwrap();
    let run = pending(&bench).expect(1);
    assert!(run.err.contains("create"), "{}", run.err);
    assert_eq!((restores(&bench), state(&bench).as_str()), (0, "failed"));
    assert!(!calls(&bench).iter().any(|c| c.starts_with("qm start")));
}

#[test]
fn a_damaged_dump_replaces_nothing() {
    let Some(bench) = ready() else { return };
    // Its disks were never lost.
    fs::write(bench.path("disks/100"), "").unwrap();
    bench.damage("store");
    let run = bench.on_node(["guests", "restore", "100", "--force"]);
    assert!(run.err.contains("stays as it is"), "{}", run.err);
    assert_eq!((run.code, restores(&bench)), (1, 0));
    assert_eq!(state(&bench), "failed");
    // And it is still one that was never lost.
    pending(&bench).expect(0);
    assert_eq!((restores(&bench), state(&bench).as_str()), (0, "kept"));
}

#[test]
fn force_counts_once() {
    let Some(bench) = ready() else { return };
    fs::write(bench.path("disks/100"), "").unwrap();
    fs::write(bench.path("fail/100"), "").unwrap();
    bench
        .on_node(["guests", "restore", "100", "--force"])
        .expect(1);
    fs::remove_file(bench.path("fail/100")).unwrap();
    // Its disks may be as they were, and in use again since.
    for ask in [&["--pending"][..], &["100"], &["--pending"]] {
        let run = bench.on_node(["guests", "restore"].iter().chain(ask));
        run.expect(1);
        assert_eq!((restores(&bench), state(&bench).as_str()), (1, "failed"));
    }
    bench
        .on_node(["guests", "restore", "100", "--force"])
        .expect(0);
    assert_eq!((restores(&bench), state(&bench).as_str()), (2, "done"));
}

#[test]
fn after_the_last_power_cut_it_is_no_guest_either() {
    let Some(bench) = ready() else { return };
    let file = bench.path("state/guests/pending.json");
    let mut list: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let guest = &mut list["guests"][0];
    guest["state"] = "running".into();
    guest["attempts"] = 3.into();
    guest["was_absent"] = true.into();
    fs::write(&file, list.to_string()).unwrap();
    fs::write(bench.path("disks/100"), "").unwrap();
    pending(&bench).expect(1);
    let run = bench.on_node(["guests", "restore", "100"]).expect(1);
    assert!(run.err.contains("--force"), "{}", run.err);
    assert_eq!((restores(&bench), state(&bench).as_str()), (0, "failed"));
    bench
        .on_node(["guests", "restore", "100", "--force"])
        .expect(0);
}

#[test]
fn what_is_given_up_half_restored_is_not_started() {
    let Some(bench) = ready() else { return };
    fs::write(bench.path("left/100"), "").unwrap();
    pending(&bench).expect(1);
    fs::remove_file(bench.path("unit")).unwrap();
    fs::remove_file(bench.path("calls")).unwrap();
    let run = bench.on_node(["guests", "forget", "100"]).expect(0);
    assert!(run.err.contains("not whole"), "{}", run.err);
    let calls = calls(&bench);
    let at = |part: &str| calls.iter().position(|c| c.contains(part));
    let held = at("qm set 100 --onboot 0").expect("it would be started");
    assert!(held < at("startall").unwrap(), "{calls:?}");
    assert!(!flagged(&bench));
}
