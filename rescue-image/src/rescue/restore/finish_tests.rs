use std::fs;

use serde_json::{Value, json};

use super::fakes::{Fake, saved};
use super::tests::{all, request};
use super::*;
use crate::guests::shared;
use crate::rescue::events::Kept;
use crate::rescue::network::mapping::tests::{BRIDGE, card};
use crate::rescue::unattended;
use crate::token::{Armed, Then};

/// The facts of a node with `enp3s0` and `enp4s0`, each in a bridge of its own.
pub(in crate::rescue) fn facts(cluster: Value) -> Value {
    let interface = |n: u8, slot: u8| {
        json!({
            "name": format!("enp{slot}s0"), "mac": format!("bc:24:11:00:00:0{n}"), "permanent_mac": null, "driver": "igb",
            "device": format!("/sys/devices/pci0000:00/0000:0{slot}:00.0"),
            "udev": { "ID_PATH": format!("pci-0000:0{slot}:00.0"), "ID_NET_NAME_PATH": format!("enp{slot}s0") },
        })
    };
    json!({ "network": [interface(1, 3), interface(2, 4)], "proxmox": { "name": "pve1", "cluster": cluster } })
}

/// A node on a machine with these cards.
pub(in crate::rescue) fn node(cards: Vec<crate::rescue::network::Card>, cluster: Value) -> Fake {
    let mut files: Vec<(&'static str, Vec<u8>)> = vec![("/etc/network/interfaces", BRIDGE.into())];
    if !cluster.is_null() {
        files.push(("/etc/corosync/corosync.conf", b"totem {\n}\n".to_vec()));
        files.push(("/etc/corosync/authkey", b"key".to_vec()));
    }
    Fake {
        after: Some(saved()),
        facts: facts(cluster),
        files,
        cards,
        ..Fake::good()
    }
}

fn linked(mut card: crate::rescue::network::Card) -> crate::rescue::network::Card {
    card.link = true;
    card
}

const LINK: &str = "usr/local/lib/systemd/network/50-pmx-enp3s0.link";

#[test]
fn on_the_same_hardware_nothing_is_added() {
    let (request, _dir) = request();
    let fake = node(
        vec![card("eth0", 1, 3, "igb"), card("eth1", 2, 4, "igb")],
        Value::Null,
    );
    let to = Kept::default();
    let outcome = all(&fake, &request, &to).expect("restored");
    assert_eq!(outcome.notes, Vec::<String>::new());
    assert_eq!(*fake.initramfs.lock().expect("not poisoned"), Some(false));
    assert!(!request.root.join("usr").exists() && !request.root.join("etc/systemd").exists());
    assert_eq!(to.of("network")[0].get("because"), Some("the same card"));
    assert!(to.of("warning").is_empty(), "{:?}", to.of("warning"));
}

#[test]
fn another_card_gets_the_saved_name_before_the_initramfs_is_made() {
    let (request, _dir) = request();
    let fake = node(
        vec![card("eth0", 9, 3, "igb"), card("eth1", 2, 4, "igb")],
        Value::Null,
    );
    let to = Kept::default();
    let outcome = all(&fake, &request, &to).expect("restored");
    let text = fs::read_to_string(request.root.join(LINK)).expect("written");
    assert!(
        text.contains("MACAddress=bc:24:11:00:00:09\n") && text.contains("Name=enp3s0\n"),
        "{text}"
    );
    assert_eq!(*fake.initramfs.lock().expect("not poisoned"), Some(true));
    assert!(
        outcome.notes[0].contains("50-pmx-enp3s0.link"),
        "{:?}",
        outcome.notes
    );
    let interfaces = fs::read_to_string(request.root.join("etc/network/interfaces"));
    assert_eq!(interfaces.expect("there"), BRIDGE);
    let log = fs::read_to_string(request.log_dir.join("network.txt")).expect("kept");
    assert!(log.contains("same place and driver"), "{log}");
    // Into the restored system, too.
    let logs = fs::read_dir(request.root.join("var/log/lifeboat"))
        .expect("copied")
        .next();
    assert!(
        logs.expect("one")
            .expect("read")
            .path()
            .join("network.txt")
            .exists()
    );
}

fn armed() -> Armed {
    Armed {
        format: 1,
        token: "f00d".to_owned(),
        snapshot: "latest".to_owned(),
        disks: [("disk:d0".to_owned(), "NEW-1".to_owned())].into(),
        then: Then::PowerOff,
        expires: None,
        grow: layout::plan::Grow::Root,
        leave_out: Default::default(),
        mode: Mode::BareMetal,
        nics: Default::default(),
        cluster_member: false,
    }
}

struct Unused;

impl unattended::Tokens for Unused {
    fn read(&self) -> anyhow::Result<Option<Armed>> {
        Ok(None)
    }
    fn consume(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Restores unattended, and says where.
fn unattended(
    fake: &Fake,
    armed: &Armed,
    to: &Kept,
) -> (Result<Outcome, Stop>, Request, tempfile::TempDir) {
    for disk in fake.disks.lock().expect("not poisoned").iter_mut() {
        disk.contents.clear();
    }
    let (own, dir) = request();
    let mut request = unattended::request(armed);
    (request.root, request.log_dir) = (own.root, own.log_dir);
    let result = unattended::run(fake, armed, &request, &Unused, to);
    (result, request, dir)
}

#[test]
fn unattended_a_guess_is_said_loudly() {
    let to = Kept::default();
    let cards = || {
        vec![
            card("eth0", 7, 7, "r8169"),
            linked(card("eth1", 9, 8, "r8169")),
        ]
    };
    let (result, request, _dir) = unattended(&node(cards(), Value::Null), &armed(), &to);
    result.expect("restored");
    let text = fs::read_to_string(request.root.join(LINK)).expect("written");
    assert!(text.contains("MACAddress=bc:24:11:00:00:09\n"), "{text}");
    let warnings = to.of("warning");
    let said = |words: &str| {
        warnings
            .iter()
            .any(|w| w.get("text").is_some_and(|t| t.contains(words)))
    };
    assert!(
        said("the first free one with a link takes its place, bc:24:11:00:00:09"),
        "{warnings:?}"
    );
    let log = fs::read_to_string(request.log_dir.join("network.txt")).expect("kept");
    assert!(log.contains("A GUESS"), "{log}");
    // Without a link there is nothing to guess.
    let to = Kept::default();
    let (result, request, _dir) = unattended(
        &node(vec![card("eth0", 7, 7, "x")], Value::Null),
        &armed(),
        &to,
    );
    result.expect("restored");
    assert!(!request.root.join("usr").exists());
    let warnings = to.of("warning");
    assert!(
        warnings.iter().any(|w| w
            .get("text")
            .is_some_and(|t| t.contains("will not be reachable"))),
        "{warnings:?}"
    );
}

#[test]
fn what_was_armed_decides() {
    let cards = || vec![card("eth0", 7, 7, "x"), linked(card("eth1", 9, 8, "x"))];
    let to = Kept::default();
    let nics = [("enp3s0".to_owned(), "bc:24:11:00:00:07".to_owned())].into();
    let fake = node(cards(), json!({ "name": "lab", "nodes": ["pve1", "pve2"] }));
    let (result, request, _dir) = unattended(
        &fake,
        &Armed {
            nics,
            cluster_member: true,
            ..armed()
        },
        &to,
    );
    result.expect("restored");
    let text = fs::read_to_string(request.root.join(LINK)).expect("written");
    assert!(text.contains("MACAddress=bc:24:11:00:00:07\n"), "{text}");
    assert!(request.root.join("etc/corosync/authkey").exists());
    assert_eq!(to.of("cluster")[0].get("start"), Some("member"));
    // A card that is not there refuses before anything is written.
    let nics = [("enp3s0".to_owned(), "bc:24:11:00:00:55".to_owned())].into();
    let fake = node(cards(), Value::Null);
    let (result, _, _dir) = unattended(&fake, &Armed { nics, ..armed() }, &to);
    let stop = result.expect_err("refused");
    assert!(
        stop.to_string()
            .contains("no network card bc:24:11:00:00:55"),
        "{stop}"
    );
    assert!(!fake.wrote());
}

#[test]
fn a_member_starts_alone_unless_told_otherwise() {
    let to = Kept::default();
    let cluster = json!({ "name": "lab", "nodes": ["pve1", "pve2"] });
    let (result, request, _dir) = unattended(&node(Vec::new(), cluster), &armed(), &to);
    let outcome = result.expect("restored");
    assert_eq!(
        to.of("cluster")[0].get("member"),
        Some("cluster lab (with pve2)")
    );
    assert_eq!(to.of("cluster")[0].get("start"), Some("isolated"));
    assert!(!request.root.join("etc/corosync/corosync.conf").exists());
    assert!(
        request
            .root
            .join("etc/corosync/lifeboat-set-aside/authkey")
            .exists()
    );
    let note = "the node was a member of a cluster lab (with pve2), and starts alone";
    assert!(
        outcome.notes.iter().any(|n| n.starts_with(note)),
        "{:?}",
        outcome.notes
    );
    let log = fs::read_to_string(request.log_dir.join("cluster.txt")).expect("kept");
    assert!(log.contains("pvecm"), "{log}");
}

#[test]
fn a_member_that_cannot_be_kept_alone_is_no_success() {
    let (request, _dir) = request();
    let mut fake = node(Vec::new(), json!({ "name": "lab", "nodes": [] }));
    // The place for its keys is a file.
    fake.files
        .push(("/etc/corosync/lifeboat-set-aside", Vec::new()));
    let stop = all(&fake, &request, &Kept::default()).expect_err("not alone");
    assert!(
        matches!(&stop, Stop::Failed { reason, .. } if reason.contains("cannot be kept out of its cluster")),
        "{stop}"
    );
}

#[test]
fn a_draft_of_the_network_is_said() {
    let (request, _dir) = request();
    let mut fake = node(
        vec![card("eth0", 1, 3, "igb"), card("eth1", 2, 4, "igb")],
        Value::Null,
    );
    fake.files.push(("/etc/network/interfaces.new", Vec::new()));
    let prepared = prepare(&fake, &request).expect("planned");
    assert!(
        prepared.finish.warnings[0].contains("interfaces.new"),
        "{:?}",
        prepared.finish
    );
}

#[test]
fn files_that_cannot_be_looked_at_keep_nobody_from_restoring() {
    let (request, _dir) = request();
    let cluster = json!({ "name": "lab", "nodes": ["pve1"] });
    let fake = Fake {
        files_readable: false,
        ..node(vec![card("eth0", 1, 3, "igb")], cluster)
    };
    let prepared = prepare(&fake, &request).expect("planned");
    assert!(prepared.finish.warnings[0].contains("a damaged pack"));
    assert!(prepared.finish.cluster.is_some(), "the facts say so");
}

#[test]
fn guests_whose_disks_other_nodes_reach_are_named_and_held_back_on_a_member_that_starts_alone() {
    let lab = || json!({ "name": "lab", "nodes": ["pve1", "pve2"] });
    let fake = |cluster: Value| {
        let mut fake = node(Vec::new(), cluster.clone());
        fake.facts["proxmox"] = crate::guests::shared::tests::facts()["proxmox"].clone();
        fake.facts["proxmox"]["cluster"] = cluster;
        fake.files.push((
            "/usr/lib/systemd/system/pve-guests.service",
            b"[Unit]\n".to_vec(),
        ));
        fake
    };
    let held = |request: &Request| request.root.join(&shared::HELD[1..]).exists();
    let said = |to: &Kept| {
        let warnings = to.of("warning");
        warnings.iter().any(|w| {
            w.get("text")
                .is_some_and(|t| t.contains("VM 100 (web) on nas"))
        })
    };
    let to = Kept::default();
    let (result, request, _dir) = unattended(&fake(lab()), &armed(), &to);
    let outcome = result.expect("restored");
    assert!(held(&request) && said(&to), "{:?}", to.of("warning"));
    let note = outcome.notes.iter().find(|n| n.contains("VM 100 (web)"));
    let note = note.expect("said");
    assert!(
        note.contains(&shared::lift().join(" && ")) && !note.contains("200"),
        "{note}"
    );
    let log = fs::read_to_string(request.log_dir.join("cluster.txt")).expect("kept");
    assert!(log.contains("HELD BACK"), "{log}");
    // As a member, the cluster decides; and a node that stands alone has no other.
    let member = Armed {
        cluster_member: true,
        ..armed()
    };
    for (cluster, armed) in [(lab(), member), (Value::Null, armed())] {
        let to = Kept::default();
        let (result, request, _dir) = unattended(&fake(cluster), &armed, &to);
        let outcome = result.expect("restored");
        assert!(!held(&request) && !said(&to), "{:?}", to.of("warning"));
        assert!(!outcome.notes.iter().any(|n| n.contains("VM 100")));
    }
    // Disks of its own only.
    let mut fake = fake(lab());
    fake.facts["proxmox"]["storages"][1]["kind"] = json!("dir");
    let to = Kept::default();
    let (result, request, _dir) = unattended(&fake, &armed(), &to);
    result.expect("restored");
    assert!(!held(&request) && !said(&to));
    assert!(
        request
            .root
            .join("etc/corosync/lifeboat-set-aside")
            .exists()
    );
}
