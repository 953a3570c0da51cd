//! `lifeboat status`, its metrics, and `lifeboat check-layout`.
// The system's own tools are asked: layout::system has no such pipes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use common::Bench;

/// A host that saves one directory.
fn host() -> Bench {
    let bench = Bench::with_store().loud();
    fs::create_dir_all(bench.path("tree")).unwrap();
    fs::write(bench.path("tree/file"), "content").unwrap();
    bench.configure(&format!(
        "targets = [{:?}]\nroots = [{:?}]\n[notify]\nmail-to = \"\"\nlow-space = \"off\"\n[metrics]\nfile = {:?}\n",
        bench.path("store"),
        bench.path("tree"),
        bench.path("lifeboat.prom"),
    ));
    bench
}

#[test]
fn from_never_to_fine_to_failing() {
    let bench = host();
    let fresh = bench.run(["status"]).expect(2);
    assert!(fresh.out.contains("NEVER BACKED UP"), "{}", fresh.out);
    bench.run(["-q", "backup"]).expect(0);
    let fine = bench.run(["status"]).expect(0);
    assert!(fine.out.starts_with("OK: "), "{}", fine.out);
    assert!(
        fine.out.contains("not proven") && fine.out.contains(" free"),
        "{}",
        fine.out
    );
    let json = bench.run(["--json", "status"]).expect(0).json();
    assert_eq!(json["format"], 1);
    assert_eq!(json["level"], "fine");
    assert_eq!(json["host"]["overdue"], false);
    assert_eq!(json["presence"][0], "there");
    assert_eq!(json["targets"][0]["restore_points"], 0);

    fs::rename(bench.path("store"), bench.path("away")).unwrap();
    bench.run(["-q", "backup"]).expect(1);
    let failing = bench.run(["status"]).expect(1);
    assert!(failing.out.starts_with("WARNING: "), "{}", failing.out);
    assert!(
        failing.out.contains("the last backup failed"),
        "{}",
        failing.out
    );
    assert!(failing.out.contains("not there"), "{}", failing.out);
    // For those who read no text.
    assert_eq!(bench.run(["-q", "status"]).expect(1).out, "");
}

#[test]
fn a_history_that_cannot_be_read_is_unknown() {
    let bench = host();
    fs::create_dir_all(bench.path("state")).unwrap();
    fs::write(bench.path("state/runs"), "").unwrap();
    let run = bench.run(["status"]).expect(3);
    assert!(run.out.starts_with("UNKNOWN: "), "{}", run.out);
    bench.configure("nonsense = true\n");
    bench.run(["status"]).expect(2);
}

#[test]
fn metrics_follow_each_run_and_promtool_likes_them() {
    let bench = host();
    bench.run(["-q", "backup"]).expect(0);
    let file = bench.path("lifeboat.prom");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let first = fs::read_to_string(&file).unwrap();
    for line in [
        "# TYPE lifeboat_newest_restore_point_timestamp_seconds gauge",
        "lifeboat_last_run_success{kind=\"directories\"} 1",
        "lifeboat_overdue{subject=\"host\"} 0",
        "lifeboat_status 0",
    ] {
        assert!(first.lines().any(|l| l == line), "{line} in {first}");
    }
    bench.run(["-q", "verify"]).expect(0);
    let second = fs::read_to_string(&file).unwrap();
    assert!(
        second.contains("lifeboat_target_verified_timestamp_seconds{"),
        "{second}"
    );
    fs::remove_file(&file).unwrap();
    bench.run(["-q", "status", "--metrics"]).expect(0);
    let third = fs::read_to_string(&file).unwrap();
    assert!(third.contains("kind=\"verify\""));

    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("skipped: there is no promtool");
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(third.as_bytes())
        .unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(
        said.status.success(),
        "{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
}

#[test]
fn no_layout_yet_is_unknown() {
    let bench = host();
    let run = bench.run(["check-layout"]).expect(3);
    assert!(run.err.contains("has kept no layout yet"), "{}", run.err);
    // Directories have none.
    bench.run(["-q", "backup"]).expect(0);
    let run = bench
        .run(["check-layout", "--from", bench.str("store")])
        .expect(3);
    assert!(
        run.err
            .contains("no target holds a restore point of this host"),
        "{}",
        run.err
    );
}
