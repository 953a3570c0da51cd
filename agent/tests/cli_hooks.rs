//! The hooks around a backup and around the moment that its files are of.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::Bench;

fn hook(bench: &Bench, name: &str, script: &str) {
    let dir = bench.path("hooks");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    let log = bench.path("log");
    let note = format!("echo $LIFEBOAT_HOOK $LIFEBOAT_STATUS >>{}", log.display());
    fs::write(&path, format!("#!/bin/sh\n{note}\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn bench() -> Bench {
    let bench = Bench::with_store();
    bench.make_tree();
    for name in ["pre-backup", "pre-snapshot", "post-snapshot", "post-backup"] {
        hook(
            &bench,
            name,
            "echo this is $LIFEBOAT_HOOK; echo and more >&2",
        );
    }
    bench
}

fn log(bench: &Bench) -> String {
    fs::read_to_string(bench.path("log")).unwrap()
}

#[test]
fn they_run_in_order_and_the_report_has_what_they_print() {
    let bench = bench();
    let tree = bench.str("tree");
    // What is read live is read between the two.
    let early = format!("touch {tree}/early");
    hook(
        &bench,
        "pre-snapshot",
        &format!("{early}; [ \"$LIFEBOAT_LIVE\" = {tree} ]"),
    );
    hook(&bench, "post-snapshot", &format!("touch {tree}/late"));
    let args = [
        "backup",
        "--root",
        tree,
        "--to",
        bench.str("store"),
        "--json",
    ];
    let report = bench.run(args).expect(0).json();
    assert_eq!(
        log(&bench),
        "pre-backup\npre-snapshot\npost-snapshot\npost-backup ok\n"
    );
    let hooks = report["hooks"].as_array().unwrap();
    assert_eq!(hooks.len(), 4, "{hooks:?}");
    let mut output: Vec<&str> = hooks[0]["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect();
    output.sort_unstable();
    assert_eq!(output, ["and more", "this is pre-backup"]);
    let listed = bench
        .run(["ls", "latest", tree, "--from", bench.str("store")])
        .expect(0)
        .out;
    assert!(
        listed.contains("early") && !listed.contains("late"),
        "{listed}"
    );
}

#[test]
fn what_was_begun_is_undone_when_it_fails() {
    let bench = bench();
    hook(&bench, "pre-snapshot", "echo no lock >&2; exit 1");
    let run = bench.backup().expect(1);
    assert!(
        run.err.contains("no lock") && run.err.contains("no restore point of the host"),
        "{}",
        run.err
    );
    assert_eq!(
        log(&bench),
        "pre-backup\npre-snapshot\npost-snapshot\npost-backup failed\n"
    );
    hook(&bench, "pre-snapshot", "");
    hook(&bench, "post-snapshot", "exit 1");
    let run = bench.backup().expect(3);
    assert!(run.out.contains("post-snapshot"), "{}", run.out);
    assert!(log(&bench).ends_with("post-backup warnings\n"));
}

#[test]
fn one_that_hangs_is_stopped() {
    let bench = bench();
    bench.configure("[consistency]\nhook-timeout = \"1s\"\n");
    hook(&bench, "pre-snapshot", "sleep 600 & wait");
    let run = bench.backup().expect(1);
    assert!(run.err.contains("did not end within 1 s"), "{}", run.err);
    assert!(log(&bench).ends_with("post-snapshot\npost-backup failed\n"));
}
