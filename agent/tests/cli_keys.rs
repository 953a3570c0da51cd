//! Encrypted targets with the command: keys, what opens them, what is said when something is not as it was.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::Bench;

fn secret(bench: &Bench, name: &str, text: &str) -> &'static str {
    fs::write(bench.path(name), text).unwrap();
    bench.str(name)
}

/// A bench with an encrypted store, the passphrase in a file, and a tree.
fn bench() -> (Bench, &'static str, String) {
    let bench = Bench::default();
    let passphrase = secret(&bench, "passphrase", "correct horse\n");
    let made = bench
        .run([
            "prepare",
            "--encrypt",
            "--passphrase-file",
            passphrase,
            "--json",
            bench.str("store"),
        ])
        .expect(0)
        .json();
    assert_eq!(made["encrypted"], true);
    let recovery = made["recovery_key"].as_str().unwrap().to_owned();
    fs::create_dir_all(bench.path("tree/etc")).unwrap();
    fs::write(bench.path("tree/etc/fstab"), "UUID=1 / ext4\n").unwrap();
    (bench, passphrase, recovery)
}

fn save(bench: &Bench) -> common::Run {
    bench.run([
        "backup",
        "--json",
        "--to",
        bench.str("store"),
        "--root",
        bench.str("tree"),
    ])
}

fn forget_host_key(bench: &Bench) {
    fs::remove_dir_all(bench.path("keys")).unwrap();
}

#[test]
fn the_host_keeps_the_key_and_everything_works_without_asking() {
    let (bench, _, _) = bench();
    let dir = fs::metadata(bench.path("keys")).unwrap();
    assert_eq!(dir.permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(bench.path("keys")).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let report = save(&bench).expect(0).json();
    assert_eq!(report["targets"][0]["verified"], true);
    assert_eq!(report["targets"][0]["encrypted"], true);
    let from = ["--from", bench.str("store")];
    let listed = bench.run(["list"].iter().chain(&from)).expect(0);
    assert!(listed.out.contains("encrypted"), "{}", listed.out);
    bench
        .run(["show", "latest", "--files"].iter().chain(&from))
        .expect(0);
    bench.run(["verify"].iter().chain(&from)).expect(0);
    bench
        .run(
            ["extract", "latest", "--to", bench.str("out")]
                .iter()
                .chain(&from),
        )
        .expect(0);
    let name = bench.str("tree").trim_start_matches('/');
    let text = fs::read_to_string(bench.path("out").join(name).join("etc/fstab")).unwrap();
    assert_eq!(text, "UUID=1 / ext4\n");
}

#[test]
fn without_the_hosts_key_each_secret_opens_and_nobody_is_asked() {
    let (bench, passphrase, recovery) = bench();
    save(&bench).expect(0);
    forget_host_key(&bench);
    let list = ["list", "--from", bench.str("store")];
    let locked = bench.run(list).expect(1);
    for part in [
        "encrypted and locked",
        "no terminal",
        "--passphrase-file",
        "key keep",
    ] {
        assert!(locked.err.contains(part), "{}", locked.err);
    }
    bench
        .run(list.iter().chain(&["--passphrase-file", passphrase]))
        .expect(0);
    let wrong = secret(&bench, "wrong", "incorrect horse");
    let said = bench
        .run(list.iter().chain(&["--passphrase-file", wrong]))
        .expect(1);
    assert!(said.err.contains("wrong passphrase"), "{}", said.err);
    let paper = secret(&bench, "paper", &recovery.to_lowercase());
    bench
        .run(list.iter().chain(&["--passphrase-file", paper]))
        .expect(0);
    // A slip of the hand is not a wrong key.
    let mut slip = recovery.clone().into_bytes();
    slip[13] = if slip[13] == b'7' { b'8' } else { b'7' };
    let paper = secret(&bench, "slip", &String::from_utf8(slip).unwrap());
    let said = bench
        .run(list.iter().chain(&["--passphrase-file", paper]))
        .expect(1);
    assert!(
        said.err.contains("group 3") && said.err.contains("typing error"),
        "{}",
        said.err
    );
    bench
        .run([
            "key",
            "keep",
            "--on",
            bench.str("store"),
            "--passphrase-file",
            passphrase,
        ])
        .expect(0);
    bench.run(list).expect(0);
}

#[test]
fn keys_are_listed_added_rotated_and_removed() {
    let (bench, passphrase, recovery) = bench();
    let on = ["--on", bench.str("store")];
    let key = |words: &[&str]| bench.run(["key"].iter().chain(words).chain(&on).chain(&["--json"]));
    let listed = key(&["list"]).expect(0).json();
    let ids: Vec<String> = listed["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|k| k["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 2);
    key(&["add", "--new-key-file", bench.str("file.key")]).expect(0);
    assert_eq!(fs::read(bench.path("file.key")).unwrap().len(), 32);
    let new = secret(&bench, "new", "battery staple");
    key(&["rotate", &ids[0], "--new-passphrase-file", new]).expect(0);
    let rotated = key(&["rotate", &ids[1][..4]]).expect(0).json();
    let second = rotated["recovery_key"].as_str().unwrap().to_owned();
    assert_ne!(second, recovery);
    forget_host_key(&bench);
    let opens = |option: &str, file: &str| {
        bench
            .run(["list", "--from", bench.str("store"), option, file])
            .code
            == 0
    };
    assert!(opens("--key-file", bench.str("file.key")));
    assert!(opens("--passphrase-file", new) && !opens("--passphrase-file", passphrase));
    assert!(opens("--passphrase-file", secret(&bench, "paper", &second)));
    assert!(!opens(
        "--passphrase-file",
        secret(&bench, "old-paper", &recovery)
    ));
    let with = ["--key-file", bench.str("file.key")];
    let remove = |id: &str| bench.run(["key", "remove", id].iter().chain(&on).chain(&with));
    remove(&ids[0]).expect(0);
    remove(&ids[1]).expect(0);
    let left = key(&["list"]).expect(0).json()["keys"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let said = remove(&left).expect(1);
    assert!(said.err.contains("last key"), "{}", said.err);
}

#[test]
fn an_empty_target_can_still_be_encrypted() {
    let bench = Bench::with_store();
    let passphrase = secret(&bench, "passphrase", "correct horse");
    let init = [
        "key",
        "init",
        "--on",
        bench.str("store"),
        "--passphrase-file",
        passphrase,
    ];
    let said = bench.run(init).expect(0);
    assert!(said.out.contains("RECOVERY KEY"), "{}", said.out);
    let again = bench.run(init).expect(1);
    assert!(again.err.contains("encrypted already"), "{}", again.err);
}

#[test]
fn a_target_that_was_rolled_back_is_named() {
    let (bench, _, _) = bench();
    save(&bench).expect(0);
    let earlier = bench.str("earlier");
    let copy = |from: &str, to: &str| {
        let run = assert_cmd::Command::new("cp")
            .args(["-a", from, to])
            .output()
            .unwrap();
        assert!(run.status.success());
    };
    copy(bench.str("store"), earlier);
    fs::write(bench.path("tree/new"), "new").unwrap();
    save(&bench).expect(0);
    let from = ["--from", bench.str("store")];
    bench.run(["verify"].iter().chain(&from)).expect(0);
    fs::remove_dir_all(bench.path("store")).unwrap();
    copy(earlier, bench.str("store"));
    for (words, code) in [(vec!["list"], 3), (vec!["verify"], 1)] {
        let said = bench.run(words.iter().chain(&from)).expect(code);
        assert!(said.out.contains("ROLLED BACK"), "{}", said.out);
    }
    // A backup says it once, and goes on from what is there.
    let report = save(&bench).expect(3).json();
    assert!(
        report["targets"][0]["problems"][0]
            .as_str()
            .unwrap()
            .contains("ROLLED BACK")
    );
    save(&bench).expect(0);
    bench.run(["list"].iter().chain(&from)).expect(0);
}

#[test]
fn the_keys_of_the_host_are_not_saved_in_the_clear() {
    let (bench, _, _) = bench();
    let (keys, plain) = (bench.str("keys"), bench.str("plain"));
    bench.run(["prepare", plain]).expect(0);
    let saved = |run: common::Run| run.expect(0);
    let both = [
        "backup",
        "--root",
        keys,
        "--to",
        plain,
        "--to",
        bench.str("store"),
    ];
    let said = saved(bench.run(both));
    assert!(
        said.out.contains("was left out") && said.out.contains("not encrypted"),
        "{}",
        said.out
    );
    let files = |target: &str| {
        bench
            .run(["show", "latest", "--files", "--from", target])
            .expect(0)
            .out
    };
    assert!(!files(plain).contains(".key") && !files(bench.str("store")).contains(".key"));
    let said = saved(bench.run(["backup", "--root", keys, "--to", bench.str("store")]));
    assert!(!said.out.contains("was left out"), "{}", said.out);
    assert!(files(bench.str("store")).contains(".key"));
}

/// What packs still hold of what stays is copied, decrypted and encrypted anew, into new ones.
#[test]
fn an_encrypted_target_is_pruned_and_stays_whole() {
    let (bench, _, _) = bench();
    fs::write(bench.path("tree/stays"), common::noise(40_000, 1)).unwrap();
    fs::write(bench.path("tree/goes"), common::noise(3_000_000, 2)).unwrap();
    save(&bench).expect(0);
    fs::remove_file(bench.path("tree/goes")).unwrap();
    for n in 0..2 {
        fs::write(bench.path("tree/n"), n.to_string()).unwrap();
        save(&bench).expect(0);
    }
    let size = || {
        bench
            .packs("store")
            .iter()
            .map(|p| fs::metadata(p).unwrap().len())
            .sum::<u64>()
    };
    let before = size();
    bench
        .run(["prune", "--keep-last", "1", bench.str("store")])
        .expect(0);
    assert!(size() + 2_500_000 < before, "{before} {}", size());
    let from = ["--from", bench.str("store")];
    bench.run(["verify"].iter().chain(&from)).expect(0);
    bench
        .run(
            ["extract", "latest", "--to", bench.str("out")]
                .iter()
                .chain(&from),
        )
        .expect(0);
    let name = bench.str("tree").trim_start_matches('/');
    let stays = fs::read(bench.path("out").join(name).join("stays")).unwrap();
    assert!(stays == common::noise(40_000, 1));
}
