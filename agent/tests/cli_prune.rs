//! `lifeboat prune`, and backups that prune by themselves.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Bench, Run, noise};
use sha2::{Digest, Sha256};

/// Gives the newest restore point another time, and another host. Returns the beginning of its new id.
fn redate(bench: &Bench, target: &Path, time: &str, host: Option<&str>) -> String {
    // The host would miss what it wrote last.
    let _ = fs::remove_dir_all(bench.path("state"));
    let dir = target.join("lifeboat/snapshots");
    let mut names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let newest = dir.join(names.pop().unwrap());
    let text = fs::read_to_string(&newest).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut text = text.replacen(document["time"].as_str().unwrap(), time, 1);
    if let Some(host) = host {
        text = text.replacen(document["host"]["machine_id"].as_str().unwrap(), host, 1);
    }
    let id = Sha256::digest(text.as_bytes());
    let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
    fs::remove_file(newest).unwrap();
    let compact = time.replace(['-', ':', '.'], "");
    fs::write(dir.join(format!("{compact}-{id}.json")), text).unwrap();
    id
}

fn configure(bench: &Bench, retention: &str) {
    let file = bench.path("lifeboat.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.split("[retention]").next().unwrap();
    fs::write(file, format!("{text}[retention]\n{retention}\n")).unwrap();
}

fn ids(run: &Run) -> Vec<String> {
    let json = run.json();
    let listed = json["targets"][0]["snapshots"].as_array().unwrap();
    listed
        .iter()
        .map(|s| s["id"].as_str().unwrap().to_owned())
        .collect()
}

fn has_machine_id() -> bool {
    let found = fs::read_to_string("/etc/machine-id").is_ok_and(|id| !id.trim().is_empty());
    if !found {
        eprintln!("ignored: this machine has no /etc/machine-id");
    }
    found
}

/// A store with eight days of one tree, the newest last; the first is of another installation.
fn eight_days() -> (Bench, Vec<String>) {
    let bench = Bench::with_store();
    fs::create_dir(bench.path("tree")).unwrap();
    let mut ids = Vec::new();
    for day in 1..=8u8 {
        fs::write(bench.path("tree").join("file"), noise(300_000, day.into())).unwrap();
        bench.backup().expect(0);
        let time = format!("2026-03-{day:02}T02:00:00.000Z");
        let host = (day == 1).then_some("before");
        ids.push(redate(&bench, &bench.path("store"), &time, host));
    }
    (bench, ids)
}

#[test]
fn the_table_says_what_happens() {
    if !has_machine_id() {
        return;
    }
    let (bench, ids_before) = eight_days();
    let store = bench.str("store");
    configure(
        &bench,
        "keep-last = 2\nkeep-daily = 3\nkeep-weekly = 0\nkeep-monthly = 0",
    );
    let shown = bench.run(["prune", store, "--dry-run"]).expect(0);
    for text in [
        "last 1/2, daily 1/3",
        "daily 3/3",
        "no rule keeps it",
        "--host before",
        "would be removed",
    ] {
        assert!(
            shown.out.contains(text),
            "{text} is missing:\n{}",
            shown.out
        );
    }
    assert_eq!(
        ids(&bench.run(["list", "--from", store, "--json"]).expect(0)),
        ids_before
    );
    let json = bench
        .run(["prune", store, "--dry-run", "--json"])
        .expect(0)
        .json();
    let rows = json[0]["restore_points"].as_array().unwrap();
    let stays: Vec<String> = rows
        .iter()
        .filter(|r| r["stays"] == true)
        .map(|r| r["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(stays, [&ids_before[..1], &ids_before[5..]].concat());
    let pruned = bench.run(["prune", store]).expect(0);
    assert!(
        pruned.out.contains("4 restore points removed, 4 stay"),
        "{}",
        pruned.out
    );
    assert_eq!(
        ids(&bench.run(["list", "--from", store, "--json"]).expect(0)),
        stays
    );
    bench.run(["verify", "--from", store]).expect(0);
    // What another installation wrote goes only when it is named, and its newest one never.
    bench.run(["prune", store, "--host", "nobody"]).expect(1);
    let other = bench
        .run(["prune", store, "--host", "before", "--keep-last", "1"])
        .expect(0);
    assert!(
        other.out.contains("Nothing is to be removed"),
        "{}",
        other.out
    );
    bench.run(["prune", store, "--keep-last", "0"]).expect(2);
}

#[test]
fn a_document_that_cannot_be_read_is_named_and_nothing_is_removed() {
    let (bench, _) = eight_days();
    let store = bench.str("store");
    let stranger = bench
        .path("store")
        .join("lifeboat/snapshots/20260101T000000000Z-00.json");
    fs::write(&stranger, "{}").unwrap();
    let packs = bench.packs("store");
    let refused = bench.run(["prune", store, "--keep-last", "1"]).expect(4);
    assert!(
        refused.err.contains("20260101T000000000Z-00.json"),
        "{}",
        refused.err
    );
    assert_eq!(packs, bench.packs("store"));
    fs::remove_file(stranger).unwrap();
    bench.run(["prune", store, "--keep-last", "1"]).expect(0);
}

#[test]
fn a_backup_prunes_by_itself_where_that_is_configured() {
    if !has_machine_id() {
        return;
    }
    let (bench, _) = eight_days();
    let policy = "keep-last = 2\nkeep-daily = 0\nkeep-weekly = 0\nkeep-monthly = 0";
    let listed = |bench: &Bench| {
        ids(&bench
            .run(["list", "--from", bench.str("store"), "--json"])
            .expect(0))
    };
    configure(&bench, policy);
    bench.backup().expect(0);
    assert_eq!(listed(&bench).len(), 9, "there is room, so all stay");
    configure(&bench, &format!("automatic = \"always\"\n{policy}"));
    let run = bench.backup().expect(0);
    assert_eq!(
        run.json()["targets"][0]["pruned"]["restore_points"],
        7,
        "{}",
        run.out
    );
    let left = listed(&bench);
    // The one of the installation before, and two of this one.
    assert_eq!(left.len(), 3);
    assert!(left.contains(&Bench::id(&run)));
    bench
        .run(["verify", "--from", bench.str("store")])
        .expect(0);
}

/// A small file system of its own, unmounted when dropped.
struct Small {
    at: PathBuf,
}

impl Small {
    fn new(bench: &Bench, megabytes: u64) -> Option<Small> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("ignored: needs root");
            return None;
        }
        let (image, at) = (bench.path("small.img"), bench.path("small"));
        fs::File::create(&image)
            .unwrap()
            .set_len(megabytes << 20)
            .unwrap();
        fs::create_dir(&at).unwrap();
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let output = assert_cmd::Command::new(program)
                .args(args)
                .output()
                .unwrap();
            if !output.status.success() {
                eprintln!(
                    "ignored: {program}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            output.status.success()
        };
        let options = ["-q", "-F", "-m", "0"].map(std::ffi::OsStr::new);
        let made = run("mkfs.ext4", &[&options[..], &[image.as_os_str()]].concat())
            && run(
                "mount",
                &[
                    "-o".as_ref(),
                    "loop".as_ref(),
                    image.as_os_str(),
                    at.as_os_str(),
                ],
            );
        made.then_some(Small { at })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = assert_cmd::Command::new("umount").arg(&self.at).output();
        if !unmounted.is_ok_and(|o| o.status.success()) {
            eprintln!("{} stays mounted", self.at.display());
        }
    }
}

#[test]
fn a_full_target_loses_nothing_and_gets_room_by_the_policy() {
    let bench = Bench::with_store();
    let Some(small) = Small::new(&bench, 96) else {
        return;
    };
    if !has_machine_id() {
        return;
    }
    let target = bench.str("small");
    bench.run(["prepare", target]).expect(0);
    fs::create_dir(bench.path("tree")).unwrap();
    let changing = bench.path("tree").join("changing");
    for day in 1..=4u8 {
        fs::write(&changing, noise(12 << 20, day.into())).unwrap();
        bench
            .run(["backup", "--root", bench.str("tree"), "--to", target])
            .expect(0);
        redate(
            &bench,
            &small.at,
            &format!("2026-03-{day:02}T02:00:00.000Z"),
            None,
        );
    }
    let list = |target: &str| ids(&bench.run(["list", "--from", target, "--json"]).expect(0));
    let before = list(target);
    fs::write(bench.path("tree").join("new"), noise(45 << 20, 9)).unwrap();
    let both = || {
        bench.run([
            "backup",
            "--json",
            "--root",
            bench.str("tree"),
            "--to",
            target,
            "--to",
            bench.str("store"),
        ])
    };

    // Not by itself: said, with what a prune would do; the other target has its restore point, nothing is lost.
    let policy = "keep-last = 1\nkeep-daily = 0\nkeep-weekly = 0\nkeep-monthly = 0";
    configure(&bench, &format!("automatic = \"never\"\n{policy}"));
    let run = both().expect(3);
    let error = run.json()["targets"][0]["error"]
        .as_str()
        .unwrap()
        .to_owned();
    for text in ["full", "are free", "would remove 3 restore points"] {
        assert!(error.contains(text), "{text} is missing: {error}");
    }
    assert!(run.json()["targets"][1]["snapshot"].is_string());
    assert_eq!(list(target), before);
    bench.run(["verify", "--from", target]).expect(0);

    // Nothing may go: said as well, also where it is the only target.
    configure(&bench, "keep-last = 9");
    let alone = bench
        .run(["backup", "--root", bench.str("tree"), "--to", target])
        .expect(1);
    assert!(
        alone.err.contains("keeps every restore point"),
        "{}",
        alone.err
    );
    assert_eq!(list(target), before);

    // By default the policy makes room where there is none.
    configure(&bench, policy);
    let run = both().expect(3);
    let json = run.json();
    assert_eq!(
        json["targets"][0]["pruned"]["restore_points"], 3,
        "{}",
        run.out
    );
    assert_eq!(json["targets"][0]["verified"], true, "{}", run.out);
    assert_eq!(json["targets"][1]["error"], serde_json::Value::Null);
    let left = list(target);
    assert_eq!(left.len(), 2);
    assert!(left.contains(&before[3]));
    bench.run(["verify", "--from", target]).expect(0);
}

#[test]
fn prune_works_where_no_byte_is_free() {
    let bench = Bench::default();
    let Some(small) = Small::new(&bench, 64) else {
        return;
    };
    if !has_machine_id() {
        return;
    }
    let target = bench.str("small");
    bench.run(["prepare", target]).expect(0);
    fs::create_dir(bench.path("tree")).unwrap();
    for day in 1..=3u8 {
        fs::write(
            bench.path("tree").join("changing"),
            noise(4 << 20, day.into()),
        )
        .unwrap();
        bench
            .run(["backup", "--root", bench.str("tree"), "--to", target])
            .expect(0);
        redate(
            &bench,
            &small.at,
            &format!("2026-03-{day:02}T02:00:00.000Z"),
            None,
        );
    }
    // Somebody else fills the file system.
    let filler = small.at.join("filler");
    let mut size = 4096;
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {
        size = 4096;
    }
    let _ = file.sync_all();
    drop(file);
    let full = bench.run(["backup", "--root", bench.str("tree"), "--to", target]);
    // Room was made, or the reason is said; either way nothing is lost.
    assert!(
        full.code == 3 || full.code == 0 || full.err.contains("full"),
        "{} {}",
        full.out,
        full.err
    );
    bench.run(["prune", target, "--keep-last", "1"]).expect(0);
    bench.run(["verify", "--from", target]).expect(0);
    let left = bench
        .run(["list", "--from", target, "--json"])
        .expect(0)
        .json();
    assert!(left["targets"][0]["snapshots"].as_array().unwrap().len() <= 2);
    assert!(left["targets"][0]["stored_bytes"].as_u64().unwrap() < 9 << 20);
}
