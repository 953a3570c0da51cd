//! A writer that is killed leaves the earlier snapshots whole, and the next run succeeds.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bundle::extract::Selection;
use bundle::verify::{VerifyOptions, verify};
use store_support::*;

/// Names the directory in which the child finds its tree and its store.
const CHILD: &str = "LIFEBOAT_TEST_KILL_CHILD";

#[test]
#[ignore = "the program that a_killed_backup kills, not a test of its own"]
fn child() {
    if let Some(dir) = std::env::var_os(CHILD) {
        backup(
            &Path::new(&dir).join("tree"),
            &Path::new(&dir).join("store"),
        );
    }
}

fn start(dir: &Path) -> std::process::Child {
    command(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored"])
        .env(CHILD, dir)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_backup_leaves_the_earlier_snapshot_and_the_next_succeeds() {
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    fs::create_dir(&tree).unwrap();
    let renew = |round: usize| {
        for n in 0..12 {
            fs::write(
                tree.join(format!("{n}")),
                noise(if n % 2 == 0 { 2_000_000 } else { 500_000 }),
            )
            .unwrap();
        }
        fs::write(tree.join("round"), round.to_string()).unwrap();
    };
    renew(0);
    backup(&tree, &store);
    renew(1);
    let begin = Instant::now();
    assert!(start(dir.path()).wait().unwrap().success());
    let whole = begin.elapsed();
    let expected = open_for_reading(&store).unwrap().snapshots().unwrap();
    let (mut killed, mut known) = (0, expected.len());
    // The first run may have been slower than the others, on a machine that did something else then.
    let mut pace = 1.0;
    for round in 0..10 {
        renew(round + 2);
        let mut child = start(dir.path());
        // Spread over the whole run, not timed: whatever point is met, what follows must hold.
        std::thread::sleep(Duration::from_secs_f64(
            pace * whole.as_secs_f64() * (0.05 + 0.095 * f64::from(round as u32)),
        ));
        child.kill().unwrap();
        match child.wait().unwrap().success() {
            true => pace *= 0.6,
            false => killed += 1,
        }
        let opened = open_for_reading(&store).unwrap();
        let snapshots = opened.snapshots().unwrap();
        assert!(snapshots.len() >= known && opened.damaged_documents().unwrap().is_empty());
        known = snapshots.len();
        let options = VerifyOptions {
            snapshot: Some(expected[1].id.to_string()),
            cold: false,
            workers: 2,
            ..VerifyOptions::default()
        };
        let report = verify(&opened, &options, &bundle::events::Silent).unwrap();
        assert!(report.ok(), "{report:#?}");
    }
    assert!(
        killed > 3,
        "only {killed} of 10 backups were killed before their end"
    );
    backup(&tree, &store);
    let report = check(&store);
    assert!(report.ok() && report.notes.is_empty(), "{report:#?}");
    assert!(
        fs::read_dir(store.join("lifeboat/tmp"))
            .unwrap()
            .next()
            .is_none()
    );
    let out = dir.path().join("out");
    assert!(extract_from(&[&store], &Selection::All, &out).complete());
    assert_same(&tree, &out);
}

#[test]
fn the_same_of_encrypted_stores() {
    again_encrypted(&[]);
}
