//! Which guests are started, on a node of its own and on one that was restored alone.

use layout::system::Recorded;
use rescue_image::guests::PENDING;
use serde_json::json;

use super::*;
use crate::progress::Progress;

const HELD_100: &str = "[Service]\nExecStart=\n\n[X-Lifeboat]\nGuests=100\n";
const ACTIVE: &str = "systemctl is-active lifeboat-guests.service";
const ENABLED: &str = "systemctl is-enabled ";
const LET_GO: &str =
    "systemd-run --quiet --no-block --collect --property=Wants=pve-guests.service true";
const STARTALL: &str = "pvesh --nooutput create /nodes/localhost/startall";

/// What a node ran after its list was worked off; `state` is that of the last guest of the list.
fn ran(held: Option<&str>, at_boot: bool, state: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    let conf = |kind: &str, id: u32| format!("/etc/pve/nodes/pve1/{kind}/{id}.conf");
    let mut sys = Recorded::new()
        .file("/proc/sys/kernel/hostname", "pve1\n")
        .file(
            conf("qemu-server", 100),
            "name: shared\nonboot: 1\nstartup: order=1\n",
        )
        .file(
            conf("qemu-server", 101),
            "name: late\nonboot: 1\nlock: backup\n",
        )
        .file(conf("qemu-server", 102), "name: by hand\n")
        .file(conf("qemu-server", 103), "onboot: 1\ntemplate: 1\n")
        .file(conf("qemu-server", 104), "name: runs\nonboot: 1\n")
        // Not on the list: no dump was made of it.
        .file(
            conf("lxc", 200),
            "hostname: first\nonboot: 1\nstartup: order=2\n",
        )
        .command(
            ACTIVE,
            if at_boot {
                "activating\n"
            } else {
                "inactive\n"
            },
        )
        .command("systemctl daemon-reload", "")
        .command(STARTALL, "")
        .command(&format!("{ENABLED}pve-guests.service"), "enabled\n")
        .command(LET_GO, "")
        .command("qm unlock 101", "")
        .command("qm status 104", "status: running\n");
    for (tool, id) in [("qm", 100), ("qm", 101), ("qm", 102), ("pct", 200)] {
        sys = sys
            .command(&format!("{tool} status {id}"), "status: stopped\n")
            .command(&format!("{tool} start {id}"), "");
    }
    if let Some(text) = held {
        sys = sys.file(HELD, text);
    }
    let guest = |id: u32, state: &str, onboot: bool| json!({ "id": id, "kind": "qemu", "state": state, "onboot": onboot });
    let list = json!({
        "format": 1, "snapshot": "ab".repeat(32), "restored": "2026-11-20T03:00:00Z", "limit": 3, "stores": [],
        "guests": [
            guest(100, "kept", true), guest(101, "done", true), guest(104, "done", true), guest(102, state, false),
        ],
    });
    let list_file = dir.path().join(PENDING);
    std::fs::write(&list_file, list.to_string()).unwrap();
    let progress = Progress::new(true);
    let mut worker = Worker::new(&sys, dir.path().to_owned(), &progress)
        .unwrap()
        .unwrap();
    worker.root = root.path().to_owned();
    let complete = worker.finish().unwrap();
    assert_eq!(
        (complete, list_file.exists()),
        (state == "done", state != "done")
    );
    let log = sys.log.lock().unwrap().clone();
    let asks =
        |line: &str| line == ACTIVE || line.contains(" status ") || line.starts_with(ENABLED);
    let does = |line: &String| !asks(line);
    log.into_iter().filter(does).collect()
}

#[test]
fn a_node_of_its_own_is_left_to_pve_guests() {
    assert_eq!(ran(None, true, "done"), Vec::<String>::new());
    assert_eq!(
        ran(None, false, "done"),
        ["systemctl daemon-reload", STARTALL, LET_GO]
    );
    assert_eq!(ran(None, true, "failed"), ["qm start 100", "qm start 101"]);
}

#[test]
fn guests_that_other_nodes_may_run_are_not_started_and_the_others_are() {
    let others = ["pct start 200", "qm unlock 101", "qm start 101"];
    assert_eq!(ran(Some(HELD_100), true, "done"), others);
    let by_hand = ran(Some(HELD_100), false, "done");
    assert_eq!(by_hand[0], "systemctl daemon-reload");
    assert_eq!(by_hand[1..4], others);
    // With the drop-in in its way, it starts none, and stops all with the node.
    assert_eq!(by_hand[4..], [LET_GO]);
    assert_eq!(ran(Some(HELD_100), true, "failed"), ["qm start 101"]);
    // It does not tell which: none.
    for text in ["", "[X-Lifeboat]\nGuests=all\n"] {
        for state in ["done", "failed"] {
            assert_eq!(ran(Some(text), true, state), Vec::<String>::new(), "{text}");
        }
    }
}
