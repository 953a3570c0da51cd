//! `lifeboat doctor` on the machine that runs the tests: what it finds of a set-up that is all right, and of one with faults in
//! it. What the machine itself lacks is the same in both.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::Bench;

/// Two targets, one of them encrypted, and a backup to both.
fn bench() -> Bench {
    let bench = Bench::default();
    fs::set_permissions(
        bench.path("lifeboat.toml"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    fs::write(bench.path("keyfile"), [7; 32]).unwrap();
    fs::create_dir(bench.path("tree")).unwrap();
    bench.configure(&format!(
        "targets = [{:?}, {:?}]\nroots = [{:?}]\n",
        bench.path("store"),
        bench.path("other"),
        bench.path("tree")
    ));
    bench.run(["prepare", bench.str("store")]).expect(0);
    let made = [
        "prepare",
        "--encrypt",
        "--key-file",
        bench.str("keyfile"),
        bench.str("other"),
    ];
    bench.run(made).expect(0);
    bench.run(["backup"]).expect(0);
    bench
}

/// The ids of all findings, and the command that mends each.
fn found(bench: &Bench) -> BTreeSet<(String, String)> {
    let run = bench.run(["doctor", "--json"]);
    let report = run.json();
    let findings = report["findings"].as_array().unwrap();
    let worst = findings.iter().map(|f| f["severity"].as_str().unwrap());
    let code =
        match worst.min_by_key(|s| ["critical", "warning", "hint"].iter().position(|w| w == s)) {
            Some("critical") => 1,
            Some("warning") => 3,
            _ => 0,
        };
    assert_eq!(run.code, code, "{}", run.out);
    let text = |finding: &serde_json::Value, name: &str| finding[name].as_str().unwrap().to_owned();
    findings
        .iter()
        .map(|f| {
            assert!(!text(f, "why").is_empty() && !text(f, "what").is_empty());
            (text(f, "id"), text(f, "mend"))
        })
        .collect()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn seeded_faults_are_found_and_gone_when_they_are_mended() {
    let bench = bench();
    let before = found(&bench);
    let ids = |set: &BTreeSet<(String, String)>| -> BTreeSet<String> {
        set.iter().map(|(id, _)| id.clone()).collect()
    };
    // Nothing of what is seeded below is there on any machine.
    let (config, keys) = (bench.path("lifeboat.toml"), bench.path("keys"));
    let text = fs::read_to_string(&config).unwrap();
    fs::create_dir(bench.path("hooks")).unwrap();
    fs::write(bench.path("hooks/pre-backup"), "#!/bin/sh\n").unwrap();
    mode(&bench.path("hooks/pre-backup"), 0o644);
    mode(&config, 0o666);
    mode(&keys, 0o755);
    fs::rename(bench.path("store"), bench.path("gone")).unwrap();
    let seeded: BTreeSet<String> = [
        "hook-refused",
        "configuration-changeable",
        "keys-readable",
        "target-missing",
    ]
    .map(str::to_owned)
    .into();
    assert!(seeded.is_disjoint(&ids(&before)), "{before:?}");
    let with = found(&bench);
    let new: BTreeSet<String> = ids(&with).difference(&ids(&before)).cloned().collect();
    assert_eq!(new, seeded, "{with:#?}");

    // The commands mend what they say they mend.
    fs::rename(bench.path("gone"), bench.path("store")).unwrap();
    for (_, mend) in with
        .iter()
        .filter(|(id, _)| seeded.contains(id) && id != "target-missing")
    {
        if nix::unistd::geteuid().is_root() {
            let mut shell = assert_cmd::Command::new("sh");
            shell.args(["-c", mend]).assert().success();
        }
    }
    if nix::unistd::geteuid().is_root() {
        assert_eq!(found(&bench), before);
    }

    // A wrong setting is a finding, not the end.
    fs::write(&config, format!("{text}nonsense = 1\n")).unwrap();
    let run = bench.run(["doctor"]).expect(1);
    assert!(
        run.out.contains("nonsense") && run.out.contains("run: editor"),
        "{}",
        run.out
    );
    assert!(!run.out.contains("no target is configured"), "{}", run.out);
    bench.run(["list"]).expect(2);
}

#[test]
fn nothing_at_all_is_critical() {
    let bench = Bench::default();
    let found = found(&bench);
    let mend = |id: &str| {
        found
            .iter()
            .find(|(i, _)| i == id)
            .map(|(_, mend)| mend.clone())
    };
    let config = bench.path("lifeboat.toml");
    let command = |rest: &str| format!("lifeboat --config {} {rest}", config.display());
    assert_eq!(mend("no-target"), Some(command("setup")));
    assert_eq!(mend("never-backed-up"), Some(command("backup")));
    let list = bench.run(["doctor", "--list"]).expect(0);
    assert!(list.out.contains("| `no-target` | critical |"));
}
