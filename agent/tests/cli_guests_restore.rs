//! Guests back from their dumps: with commands that stand for those of Proxmox VE, and note what they were asked for.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/node.rs"]
mod node;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{Bench, Run};
use serde_json::{Value, json};

const CLUSTER: usize = vma::CLUSTER;

/// Takes an archive from standard input, and refuses one that is cut off. `$fail/<id>`: fails before it reads.
const RESTORE: &str = r#"
mkdir -p "$dir/got"
# Asked to end, it takes away what it has made, as the worker of a task does.
trap 'rm -f "$dir/got/$id"; echo "received interrupt" >&2; exit 143' TERM
[ ! -e "$dir/hang/$id" ] || { head -c 100000 > /dev/null; kill -9 "$PPID"; exit 137; }
[ ! -e "$dir/fail/$id" ] || { echo "unable to restore $id - no space" >&2; exit 255; }
cat > "$dir/got/$id"
if tail -c 100 "$dir/got/$id" | grep -q 'is not complete'; then
    rm "$dir/got/$id"; echo "vma: archive is cut off" >&2; exit 255
fi
echo "progress 100%"
touch "$dir/disks/$id"
"#;

fn tools(bench: &Bench) {
    for name in ["got", "fail", "hang", "disks"] {
        fs::create_dir_all(bench.path(name)).unwrap();
    }
    let dir = bench.str("");
    let head = format!("#!/bin/sh\ndir={dir}\necho \"${{0##*/}} $*\" >> \"$dir/calls\"\n");
    bench.script("qmrestore", &format!("{head}id=$2\n{RESTORE}"));
    bench.script(
        "pct",
        &format!(
            "{head}id=$2\n[ \"$1\" = restore ] || {{ echo 'status: stopped'; exit 0; }}\n{RESTORE}"
        ),
    );
    bench.script("qm", &format!("{head}echo 'status: stopped'\n"));
    bench.script(
        "pvesm",
        &format!(
            "{head}echo 'Volid Format Type Size VMID'\n[ ! -e \"$dir/disks/$4\" ] || echo \"$2:vm-$4-disk-0 raw images 1 $4\"\n"
        ),
    );
    bench.script("pvesh", &format!("{head}exit 0\n"));
    bench.script(
        "systemctl",
        &format!("{head}cat \"$dir/unit\" 2>/dev/null || {{ echo inactive; exit 3; }}\n"),
    );
}

fn noise(seed: u64) -> Vec<u8> {
    common::noise(CLUSTER, seed)
}

/// A disk with holes, data and an odd size.
fn disk(seed: u64) -> Vec<u8> {
    let mut disk = vec![0; 3 * CLUSTER];
    disk.extend(noise(seed));
    disk.extend(vec![0; 2 * CLUSTER]);
    disk.extend(noise(seed + 1));
    disk.extend(&noise(seed + 2)[..1024]);
    disk
}

fn conf(id: u32, more: &str) -> String {
    format!("name: vm{id}\nscsi0: local-lvm:vm-{id}-disk-0,size=1G\n{more}")
}

/// The archive of a VM with two disks, its clusters from the end to the beginning.
fn archive(id: u32, more: &str) -> (Vec<u8>, vma::Header) {
    let header = vma::Header {
        uuid: uuid::Uuid::from_u128(u128::from(id)),
        ctime: 1_700_000_000,
        configs: vec![vma::Config {
            name: "qemu-server.conf".into(),
            data: conf(id, more).into_bytes(),
        }],
        devices: (1..3u8)
            .map(|n| vma::Device {
                id: n,
                name: format!("drive-scsi{}", n - 1),
                size: disk(u64::from(n)).len() as u64,
            })
            .collect(),
    };
    let mut writer = vma::Writer::new(Vec::new(), &header).unwrap();
    for n in (0..disk(1).len().div_ceil(CLUSTER)).rev() {
        for device in 1..3u8 {
            let disk = disk(u64::from(device) + u64::from(id));
            let end = disk.len().min((n + 1) * CLUSTER);
            let part = &disk[n * CLUSTER..end];
            writer.data(device, (n * CLUSTER) as u64, part).unwrap();
        }
    }
    (writer.finish().unwrap().0, header)
}

/// The disks in an archive, after all checks.
fn disks(bytes: &[u8]) -> (vma::Header, BTreeMap<String, Vec<u8>>) {
    let mut reader = vma::Reader::new(bytes).unwrap();
    let header = reader.header().clone();
    let empty = |d: &vma::Device| (d.name.clone(), vec![0; d.size as usize]);
    let mut disks: BTreeMap<_, _> = header.devices.iter().map(empty).collect();
    while let Some(cluster) = reader.next_cluster().unwrap() {
        let at = cluster.offset as usize;
        let disk = disks.get_mut(&cluster.device.name).unwrap();
        disk[at..at + cluster.bytes.len()].copy_from_slice(cluster.bytes);
    }
    reader.finish().unwrap();
    (header, disks)
}

/// A node with VMs of these numbers, all of them dumped into `store`.
fn node(ids: &[u32]) -> Option<Bench> {
    if !Bench::can_be_node() {
        return None;
    }
    let bench = Bench::with_store();
    bench.make_node();
    tools(&bench);
    for id in ids {
        let conf = conf(*id, "onboot: 1\n");
        fs::write(bench.path(&format!("guests/qemu-server/{id}.conf")), conf).unwrap();
        fs::write(
            bench.path(&format!("dumps/{id}")),
            archive(*id, "onboot: 1\n").0,
        )
        .unwrap();
    }
    bench
        .on_node(["backup", "--only-guests", "--to", bench.str("store")])
        .expect(0);
    fs::remove_file(bench.path("calls")).unwrap();
    Some(bench)
}

fn calls(bench: &Bench) -> Vec<String> {
    let text = fs::read_to_string(bench.path("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn restore(bench: &Bench, args: &[&str]) -> Run {
    let from = ["--from", bench.str("store")];
    bench.on_node(["guests", "restore"].iter().chain(args).chain(&from))
}

fn dumps(bench: &Bench) -> Vec<Value> {
    let run = bench.run(["guests", "list", "--json", "--from", bench.str("store")]);
    run.expect(0).json().as_array().unwrap().clone()
}

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
    let failed = restore(&bench, &["100", "--force"]).expect(1);
    for part in ["VM 100 (vm100)", "drive-scsi", "bytes "] {
        assert!(failed.err.contains(part), "{part}: {}", failed.err);
    }
    assert!(!bench.path("got/100").exists());
    let from = ["--from", bench.str("store")];
    let export = ["guests", "export", "100", "--archive", bench.str("out.vma")];
    bench.on_node(export.iter().chain(&from)).expect(1);
    assert!(!bench.path("out.vma").exists());
}

/// The list that the rescue system leaves, for the dumps in `store`.
fn leave(bench: &Bench, ids: &[u32]) {
    let dumps = dumps(bench);
    let guest = |id: &u32| {
        let dump = dumps.iter().find(|d| d["id"] == *id);
        json!({
            "id": id, "kind": "qemu", "name": format!("vm{id}"), "snapshot": dump.map(|d| &d["snapshot"]),
            "dumped": dump.map(|d| &d["dumped"]), "state": if dump.is_some() { "waiting" } else { "failed" },
            "attempts": 0,
        })
    };
    let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let list = json!({
        "format": 1, "snapshot": "ab".repeat(32), "restored": "2026-11-20T03:00:00Z", "limit": 3,
        "guests": ids.iter().map(guest).collect::<Vec<_>>(),
        "stores": [{ "id": id, "path": bench.str("store").trim_end_matches('/'), "shown": "the drive" }],
    });
    fs::create_dir_all(bench.path("state/guests")).unwrap();
    fs::write(bench.path("state/guests/pending.json"), list.to_string()).unwrap();
}

fn pending(bench: &Bench) -> Run {
    bench.on_node(["guests", "restore", "--pending"])
}

fn states(bench: &Bench) -> Vec<(u64, String, u64)> {
    let status = bench.run(["guests", "status", "--json"]).json();
    let guests = status["guests"].as_array().unwrap().iter();
    let state = |g: &Value| {
        let word = g["state"].as_str().unwrap().to_owned();
        (
            g["id"].as_u64().unwrap(),
            word,
            g["attempts"].as_u64().unwrap(),
        )
    };
    guests.map(state).collect()
}

fn flagged(bench: &Bench) -> bool {
    bench.path("state/guests/pending.json").exists()
}

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
    bench.on_node([
        "backup",
        "--only-guests",
        "--guests",
        "101",
        "--to",
        bench.str("store"),
    ]);
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

/// A container's files, in the archive that vzdump makes.
fn container(bench: &Bench, id: u32) {
    let conf = "arch: amd64\nhostname: db\nonboot: 1\nrootfs: local-lvm:vm-200-disk-0,size=512M\nunprivileged: 1\n";
    fs::write(bench.path(&format!("guests/lxc/{id}.conf")), conf).unwrap();
    let tree = bench.path("ct");
    fs::create_dir_all(tree.join("etc/vzdump")).unwrap();
    fs::create_dir_all(tree.join("home/a")).unwrap();
    fs::write(tree.join("etc/vzdump/pct.conf"), conf).unwrap();
    fs::write(tree.join("etc/hostname"), "db\n").unwrap();
    fs::write(tree.join("home/a/data"), common::noise(3 << 20, 7)).unwrap();
    fs::hard_link(tree.join("home/a/data"), tree.join("home/again")).unwrap();
    std::os::unix::fs::symlink("../etc/hostname", tree.join("home/link")).unwrap();
    let mut tar = assert_cmd::Command::new("tar");
    let options = [
        "-cpf",
        bench.str(&format!("dumps/{id}")),
        "--format=posix",
        "--one-file-system",
        "--sparse",
    ];
    let kept = [
        "--numeric-owner",
        "--acls",
        "--xattrs",
        "--exclude=./etc/vzdump",
    ];
    // The configuration comes first.
    let first = ["-C", bench.str("ct"), "./etc/vzdump/pct.conf"];
    tar.args(options)
        .args(["--no-recursion"])
        .args(first)
        .output()
        .unwrap();
    let mut more = assert_cmd::Command::new("tar");
    more.arg("-rpf")
        .arg(bench.str(&format!("dumps/{id}")))
        .args(["--format=posix", "--sparse"]);
    let run = Run::from(
        more.args(kept)
            .args(["-C", bench.str("ct"), "."])
            .output()
            .unwrap(),
    );
    run.expect(0);
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
