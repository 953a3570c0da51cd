//! Guests of a node in the store: what `vzdump` gives, one guest after the other.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "common/node.rs"]
mod node;

use std::fs;
use std::path::Path;

use common::{Bench, Run, noise};
use serde_json::Value;

const CLUSTER: usize = vma::CLUSTER;

/// A VM's archive. The clusters of its two disks come in an order that `seed` makes.
fn vm(config: &str, disks: &[&[u8]], seed: u64) -> Vec<u8> {
    let header = vma::Header {
        uuid: uuid::Uuid::from_u128(seed.into()),
        ctime: 1_700_000_000,
        configs: vec![vma::Config {
            name: "qemu-server.conf".into(),
            data: config.into(),
        }],
        devices: (1..)
            .zip(disks)
            .map(|(id, disk)| vma::Device {
                id,
                name: format!("drive-scsi{}", id - 1),
                size: disk.len() as u64,
            })
            .collect(),
    };
    let mut archive = vma::Writer::new(Vec::new(), &header).unwrap();
    let mut clusters: Vec<(usize, usize)> = disks
        .iter()
        .enumerate()
        .flat_map(|(disk, bytes)| (0..bytes.len().div_ceil(CLUSTER)).map(move |c| (disk, c)))
        .collect();
    clusters.sort_by_key(|(disk, c)| (*c as u64 * 7919 + *disk as u64 * 31) ^ seed);
    for (disk, cluster) in clusters {
        let start = cluster * CLUSTER;
        let end = (start + CLUSTER).min(disks[disk].len());
        let data = &disks[disk][start..end];
        archive.data(disk as u8 + 1, start as u64, data).unwrap();
    }
    archive.finish().unwrap().0
}

/// A node with VMs 100 and 101 and a store on a drive.
fn bench() -> Bench {
    let bench = Bench::with_store();
    bench.make_node();
    for (id, config) in [
        (
            100,
            "name: web\nscsi0: local-lvm:vm-100-disk-0,size=1M\ntags: prod\n",
        ),
        (101, "name: db\nscsi0: local-lvm:vm-101-disk-0,size=1M\n"),
    ] {
        fs::write(bench.path(&format!("guests/qemu-server/{id}.conf")), config).unwrap();
        fs::write(
            bench.path(&format!("dumps/{id}")),
            vm(config, &[&noise(1 << 20, id), &noise(200_000, id + 7)], 1),
        )
        .unwrap();
    }
    bench
}

fn backup(bench: &Bench, more: &[&str]) -> Run {
    let args = [
        "backup",
        "--only-guests",
        "--json",
        "--to",
        bench.str("store"),
    ];
    bench.on_node(args.iter().chain(more))
}

fn snapshots(bench: &Bench) -> Vec<Value> {
    let run = bench
        .run(["list", "--from", bench.str("store"), "--json"])
        .expect(0);
    run.json()["targets"][0]["snapshots"]
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn every_guest_is_a_restore_point_and_a_second_dump_costs_what_changed() {
    if !Bench::can_be_node() {
        return;
    }
    let bench = bench();
    let first = backup(&bench, &[]).expect(0).json();
    assert_eq!(first["guests"].as_array().unwrap().len(), 2);
    let of = |report: &Value, n: usize| report["guests"][n]["targets"][0].clone();
    assert_eq!(first["guests"][0]["status"], "saved");
    assert_eq!(of(&first, 0)["verified"], true);
    let calls = fs::read_to_string(bench.path("calls")).unwrap();
    let call = calls.lines().next().unwrap();
    assert!(
        call.starts_with("100 --mode snapshot --compress 0 --stdout --dumpdir /var/tmp/")
            && call.ends_with(" --prune-backups keep-all=1"),
        "{call}"
    );
    // The next day one cluster is another one, and the order, too.
    let mut disk = noise(1 << 20, 100);
    disk[5 * CLUSTER] ^= 1;
    let config = "name: web\ncores: 2\n";
    let next = vm(config, &[&disk, &noise(200_000, 107)], 5);
    fs::write(bench.path("dumps/100"), &next).unwrap();
    let second = backup(&bench, &["--guests", "tag:prod"]).expect(0).json();
    assert_eq!(second["guests"].as_array().unwrap().len(), 1);
    // The cluster, and the content list of its disk.
    assert_eq!(of(&second, 0)["new_blobs"], 2);
    let all = snapshots(&bench);
    let names: Vec<_> = all
        .iter()
        .map(|s| s["guest"]["id"].as_u64().unwrap())
        .collect();
    assert_eq!(names, [100, 101, 100]);
    // Its disks come back as they were.
    let id = of(&second, 0)["snapshot"].as_str().unwrap().to_owned();
    let shown = bench
        .run(["show", &id, "--from", bench.str("store"), "--json"])
        .expect(0)
        .json();
    assert_eq!(shown["guest"]["configs"][0]["text"], config);
    assert_eq!(shown["images"][0]["node"], "drive-scsi0");
    assert_eq!(shown["images"][1]["size"], 200_000);
    assert_eq!(shown["guest"]["vma"]["ctime"], 1_700_000_000);
    // No restore point of the host: the latest is none of a guest.
    let latest = bench.run(["show", "latest", "--from", bench.str("store")]);
    assert_eq!(latest.code, 1, "{}", latest.out);
}

#[test]
fn one_that_fails_is_named_and_the_others_are_saved() {
    if !Bench::can_be_node() {
        return;
    }
    let whole = fs::read(bench().path("dumps/100")).unwrap();
    let log = "INFO: include disk\nERROR: Backup of VM 100 failed - got timeout\n";
    let cases: &[(&str, &[u8], &str, &str)] = &[
        // What vzdump said, the archive, its exit status, the reason that is named.
        (log, &whole, "255", "got timeout"),
        (log, b"", "255", "got timeout"),
        (log, &whole[..whole.len() / 2], "255", "got timeout"),
        (log, &whole, "0", "got timeout"),
        ("", &whole[..whole.len() / 2], "0", "archive"),
        ("", b"no archive at all", "0", "archive"),
        ("", &whole, "1", "status 1"),
    ];
    for (log, archive, status, reason) in cases {
        let bench = bench();
        fs::write(bench.path("dumps/100"), archive).unwrap();
        fs::write(bench.path("dumps/100.log"), log).unwrap();
        fs::write(bench.path("dumps/100.status"), status).unwrap();
        let report = backup(&bench, &[]).expect(3).json();
        assert_eq!(report["guests"][0]["status"], "failed", "{reason}");
        let said = report["guests"][0]["error"].as_str().unwrap();
        assert!(said.contains(reason), "{said}");
        assert_eq!(report["guests"][1]["status"], "saved");
        let all = snapshots(&bench);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0]["guest"]["id"], 101);
        // And without JSON the same for people.
        let run = bench
            .on_node(["backup", "--only-guests", "--to", bench.str("store")])
            .expect(3);
        assert!(
            run.out.contains("VM 100 (web): FAILED") && run.out.contains(reason),
            "{}",
            run.out
        );
    }
}

#[test]
fn warnings_of_vzdump_are_told() {
    if !Bench::can_be_node() {
        return;
    }
    let bench = bench();
    fs::write(
        bench.path("dumps/101.log"),
        "WARN: no agent\nINFO:  50% (1 MiB of 2 MiB) in 1s\n",
    )
    .unwrap();
    let report = backup(&bench, &[]).expect(3).json();
    assert_eq!(report["guests"][1]["status"], "saved");
    assert_eq!(report["guests"][1]["warnings"][0], "no agent");
}

#[test]
fn guests_that_are_meant() {
    if !Bench::can_be_node() {
        return;
    }
    let bench = bench();
    let run = backup(&bench, &["--guests", "102"]).expect(2);
    assert!(run.err.contains("no guest 102"), "{}", run.err);
    bench.configure("[guests]\nwhich = [\"all\"]\nexclude = [\"101\"]\n");
    let report = backup(&bench, &[]).expect(0).json();
    assert_eq!(report["guests"].as_array().unwrap().len(), 1);
    // The command line counts more.
    let report = backup(&bench, &["--guests", "101"]).expect(0).json();
    assert_eq!(report["guests"][0]["id"], 101);
    let here = bench.run(["backup", "--only-guests", "--to", bench.str("store")]);
    if !Path::new("/usr/bin/pveversion").exists() {
        assert_eq!(here.code, 2, "{}", here.err);
    }
}

#[test]
fn dumps_of_a_storage_are_taken_once() {
    if !Bench::can_be_node() {
        return;
    }
    let bench = bench();
    bench.configure("[guests]\nsource = \"latest-dump\"\n");
    fs::create_dir_all(bench.path("vz/dump")).unwrap();
    let pack = |tool: &str, args: &[&str], id: u32, name: &str| {
        let mut command = assert_cmd::Command::new(tool);
        let packed = command
            .args(args)
            .write_stdin(fs::read(bench.path(&format!("dumps/{id}"))).unwrap());
        let out = packed.output().unwrap();
        assert!(out.status.success());
        fs::write(bench.path("vz/dump").join(name), out.stdout).unwrap();
    };
    pack(
        "zstd",
        &["-c"],
        100,
        "vzdump-qemu-100-2026_11_20-18_00_00.vma.zst",
    );
    pack(
        "gzip",
        &["-c"],
        101,
        "vzdump-qemu-101-2026_11_20-18_30_00.vma.gz",
    );
    let report = backup(&bench, &[]).expect(0).json();
    for n in [0, 1] {
        assert_eq!(report["guests"][n]["status"], "saved");
    }
    assert!(!bench.path("calls").exists());
    let report = backup(&bench, &[]).expect(0).json();
    for n in [0, 1] {
        assert_eq!(report["guests"][n]["status"], "unchanged");
    }
    assert_eq!(snapshots(&bench).len(), 2);
    // A damaged one, one that is cut short, and one whose tool is missing.
    let dir = bench.path("vz/dump");
    let damaged = |name: &str, change: &dyn Fn(&mut Vec<u8>), new: &str| {
        let mut bytes = fs::read(dir.join(name)).unwrap();
        change(&mut bytes);
        fs::write(dir.join(new), bytes).unwrap();
    };
    let flip = |bytes: &mut Vec<u8>| {
        let at = bytes.len() - 3;
        bytes[at] ^= 1;
    };
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    damaged(
        "vzdump-qemu-100-2026_11_20-18_00_00.vma.zst",
        &flip,
        "vzdump-qemu-100-2026_11_21-18_00_00.vma.zst",
    );
    damaged(
        "vzdump-qemu-101-2026_11_20-18_30_00.vma.gz",
        &flip,
        "vzdump-qemu-101-2026_11_21-18_30_00.vma.gz",
    );
    let report = backup(&bench, &[]).expect(1).json();
    for n in [0, 1] {
        let said = report["guests"][n]["error"].as_str().unwrap();
        assert!(said.contains("2026_11_21"), "{said}");
    }
    damaged(
        "vzdump-qemu-100-2026_11_20-18_00_00.vma.zst",
        &cut,
        "vzdump-qemu-100-2026_11_22-18_00_00.vma.zst",
    );
    fs::write(dir.join("vzdump-qemu-101-2026_11_22-18_30_00.vma.lzo"), "").unwrap();
    bench.script("lzop", "#!/nowhere\n");
    let report = backup(&bench, &[]).expect(1).json();
    let said = report["guests"][1]["error"].as_str().unwrap();
    assert!(
        said.contains("lzop") && said.contains("not installed"),
        "{said}"
    );
    assert_eq!(report["guests"][0]["status"], "failed");
    assert_eq!(snapshots(&bench).len(), 2);
}

/// Writes the archive of a VM with one disk of 4 GB. The clusters that `changed` names are others than without it; their
/// order is one that `seed` makes.
fn large_vm(path: &Path, seed: u64, changed: &dyn Fn(u64) -> bool) {
    let clusters = (4 << 30) / CLUSTER as u64;
    let header = vma::Header {
        uuid: uuid::Uuid::from_u128(seed.into()),
        ctime: 1_700_000_000,
        configs: Vec::new(),
        devices: vec![vma::Device {
            id: 1,
            name: "drive-scsi0".into(),
            size: clusters * CLUSTER as u64,
        }],
    };
    // Parts of it, each with its number in it: no two are the same, none can be compressed.
    let noise = noise(16 << 20, 3);
    let file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    let mut archive = vma::Writer::new(file, &header).unwrap();
    for n in 0..clusters {
        // An odd factor and a power of two: each comes once.
        let cluster = n.wrapping_mul(seed * 2 + 1) % clusters;
        let start = (cluster.wrapping_mul(40_503) % (15 << 20)) as usize;
        let mut data = noise[start..start + CLUSTER].to_vec();
        data[..8].copy_from_slice(&cluster.to_le_bytes());
        data[8] = changed(cluster).into();
        archive.data(1, cluster * CLUSTER as u64, &data).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
#[ignore = "writes 13 GB"]
fn one_percent_of_four_gigabytes() {
    assert!(Bench::can_be_node());
    let bench = bench();
    let mut written = Vec::new();
    // The third day nothing is another one but the order.
    for (seed, salt) in [(0, u64::MAX), (1234, 7), (77, 7)] {
        let changed = |cluster: u64| {
            let mixed = (cluster ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            salt != u64::MAX && (mixed >> 32) % 100 == 0
        };
        large_vm(&bench.path("dumps/100"), seed, &changed);
        let report = backup(&bench, &["--guests", "100"]).expect(0).json();
        let target = &report["guests"][0]["targets"][0];
        println!(
            "{} bytes of {} written, {} blobs of {} new, {} s",
            target["bytes_written"],
            report["guests"][0]["bytes"],
            target["new_blobs"],
            target["new_blobs"].as_u64().unwrap() + target["known_blobs"].as_u64().unwrap(),
            report["guests"][0]["seconds"],
        );
        assert_eq!(target["verified"], true);
        written.push(target["bytes_written"].as_u64().unwrap());
    }
    assert!(
        written[1] > 0 && written[1] * 100 < written[0] * 2,
        "{written:?}"
    );
    assert!(written[2] < 1 << 20, "{written:?}");
}
