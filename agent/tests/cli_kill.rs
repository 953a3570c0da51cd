//! A backup that is stopped or killed, at any moment, leaves the earlier restore points as they were.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Bench, Run, noise};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ten points spread over the time of a whole backup, so that every part of it is hit: from the first file to the
/// commit.
#[test]
fn ten_kills_leave_the_earlier_restore_point() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    let first = Bench::id(&bench.backup().expect(0));
    let large = |seed| std::fs::write(tree.join("large.bin"), noise(16 << 20, seed)).unwrap();

    large(100);
    let start = Instant::now();
    bench
        .run([
            "backup",
            "--no-verify",
            "--root",
            bench.str("tree"),
            "--to",
            bench.str("store"),
        ])
        .expect(0);
    let whole = start.elapsed();

    let mut killed = 0;
    for round in 0..10u32 {
        large(u64::from(round));
        let mut child = bench.start([
            "backup",
            "--no-verify",
            "--root",
            bench.str("tree"),
            "--to",
            bench.str("store"),
        ]);
        std::thread::sleep(whole * (2 * round + 1) / 20);
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        killed += u32::from(output.status.code().is_none());
        bench
            .run(["verify", &first, "--from", bench.str("store")])
            .expect(0);
    }
    assert!(
        killed >= 5,
        "only {killed} of 10 backups were hit: the test does not test"
    );

    bench.backup().expect(0);
    bench
        .run(["verify", "--from", bench.str("store")])
        .expect(0);
    bench
        .run([
            "extract",
            "latest",
            "--from",
            bench.str("store"),
            "--to",
            bench.str("out"),
        ])
        .expect(0);
    bench.assert_same(&tree, &bench.extracted("out"));
}

#[test]
fn sigterm_stops_in_order() {
    let bench = Bench::with_store();
    let tree = bench.make_tree();
    bench.backup().expect(0);
    std::fs::write(tree.join("large.bin"), noise(128 << 20, 7)).unwrap();
    let child = bench.start([
        "backup",
        "--root",
        bench.str("tree"),
        "--to",
        bench.str("store"),
    ]);
    // Once the lock is taken the backup is under way.
    let deadline = Instant::now() + Duration::from_secs(60);
    while free(&bench) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let run = Run::from(child.wait_with_output().unwrap()).expect(1);
    assert!(run.err.contains("stopped by SIGTERM"), "{}", run.err);
    let list = bench
        .run(["list", "--from", bench.str("store"), "--json"])
        .expect(0)
        .json();
    assert_eq!(list["targets"][0]["snapshots"].as_array().unwrap().len(), 1);
    bench
        .run(["verify", "--from", bench.str("store")])
        .expect(0);
}

#[test]
fn stopped_extraction_leaves_no_half_file() {
    let bench = Bench::with_store();
    let tree = bench.path("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("large.bin"), noise(128 << 20, 7)).unwrap();
    bench.backup().expect(0);
    let child = bench.start([
        "extract",
        "latest",
        "--from",
        bench.str("store"),
        "--to",
        bench.str("out"),
    ]);
    let out = bench.extracted("out");
    let names = || {
        std::fs::read_dir(&out)
            .map(|d| d.count())
            .unwrap_or_default()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while names() == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let run = Run::from(child.wait_with_output().unwrap()).expect(1);
    assert!(run.err.contains("stopped by SIGTERM"), "{}", run.err);
    assert_eq!(names(), 0, "half a file is left");
}

/// Whether nobody holds the store's lock. Looks from outside: taking it would be in the way of the backup.
fn free(bench: &Bench) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = std::fs::metadata(bench.path("store/lifeboat/lock")) else {
        return true;
    };
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    !locks.contains(&format!(":{} ", meta.ino()))
}
