//! Guests with dumps, and commands that stand for those of Proxmox VE, which note what they were asked for.
// Each test file uses some of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::common::{self, Bench, Run};

pub const CLUSTER: usize = vma::CLUSTER;

/// Takes an archive from standard input, and refuses one that is cut off. `$fail/<id>`: fails before it reads;
/// `$left/<id>`: fails, and leaves what it has made.
pub const RESTORE: &str = r#"
mkdir -p "$dir/got"
# Asked to end, it takes away what it has made, as the worker of a task does.
trap 'rm -f "$dir/got/$id"; echo "received interrupt" >&2; exit 143' TERM
[ ! -e "$dir/hang/$id" ] || { head -c 100000 > /dev/null; kill -9 "$PPID"; exit 137; }
[ ! -e "$dir/fail/$id" ] || { echo "unable to restore $id - no space" >&2; exit 255; }
cat > "$dir/got/$id"
[ ! -e "$dir/left/$id" ] || { touch "$dir/disks/$id"; echo "unable to restore $id - timeout" >&2; exit 255; }
if tail -c 100 "$dir/got/$id" | grep -q 'is not complete'; then
    rm "$dir/got/$id"; echo "vma: archive is cut off" >&2; exit 255
fi
echo "progress 100%"
touch "$dir/disks/$id"
"#;

pub fn tools(bench: &Bench) {
    for name in ["got", "fail", "left", "hang", "disks"] {
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

pub fn noise(seed: u64) -> Vec<u8> {
    common::noise(CLUSTER, seed)
}

/// A disk with holes, data and an odd size.
pub fn disk(seed: u64) -> Vec<u8> {
    let mut disk = vec![0; 3 * CLUSTER];
    disk.extend(noise(seed));
    disk.extend(vec![0; 2 * CLUSTER]);
    disk.extend(noise(seed + 1));
    disk.extend(&noise(seed + 2)[..1024]);
    disk
}

pub fn conf(id: u32, more: &str) -> String {
    format!("name: vm{id}\nscsi0: local-lvm:vm-{id}-disk-0,size=1G\n{more}")
}

/// The archive of a VM with two disks, its clusters from the end to the beginning.
pub fn archive(id: u32, more: &str) -> (Vec<u8>, vma::Header) {
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
pub fn disks(bytes: &[u8]) -> (vma::Header, BTreeMap<String, Vec<u8>>) {
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
pub fn node(ids: &[u32]) -> Option<Bench> {
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

pub fn calls(bench: &Bench) -> Vec<String> {
    let text = fs::read_to_string(bench.path("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

pub fn restore(bench: &Bench, args: &[&str]) -> Run {
    let from = ["--from", bench.str("store")];
    bench.on_node(["guests", "restore"].iter().chain(args).chain(&from))
}

pub fn dumps(bench: &Bench) -> Vec<Value> {
    let run = bench.run(["guests", "list", "--json", "--from", bench.str("store")]);
    run.expect(0).json().as_array().unwrap().clone()
}

/// The list that the rescue system leaves, for the dumps in `store`.
pub fn leave(bench: &Bench, ids: &[u32]) {
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

pub fn pending(bench: &Bench) -> Run {
    bench.on_node(["guests", "restore", "--pending"])
}

pub fn states(bench: &Bench) -> Vec<(u64, String, u64)> {
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

pub fn flagged(bench: &Bench) -> bool {
    bench.path("state/guests/pending.json").exists()
}

/// A container's files, in the archive that vzdump makes.
pub fn container(bench: &Bench, id: u32) {
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
