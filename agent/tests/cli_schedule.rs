//! What a run heeds that a timer has started.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::Bench;
use jiff::{ToSpan, Zoned};
use serde_json::Value;

fn bench(schedule: &str, targets: &[&str]) -> Bench {
    let bench = Bench::with_store();
    fs::create_dir(bench.path("tree")).unwrap();
    // Nothing that compresses or repeats.
    let mut random = vec![0; 24 << 20];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut random).unwrap();
    fs::write(bench.path("tree/file"), random).unwrap();
    let targets: Vec<String> = targets
        .iter()
        .map(|t| match t.starts_with('/') {
            true => t.to_string(),
            false => bench.str(t).to_owned(),
        })
        .collect();
    bench.configure(&format!(
        "targets = {targets:?}\nroots = [{:?}]\n[schedule]\n{schedule}\n",
        bench.path("tree")
    ));
    bench
}

/// The documents of all runs, the oldest first.
fn runs(bench: &Bench) -> Vec<Value> {
    let mut paths: Vec<_> = fs::read_dir(bench.path("state/runs"))
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    let read = |p: &std::path::PathBuf| serde_json::from_slice(&fs::read(p).unwrap()).unwrap();
    paths.iter().map(read).collect()
}

fn restore_points(bench: &Bench) -> usize {
    let listing = bench
        .run(["list", "--json", "--from", bench.str("store")])
        .expect(0)
        .json();
    listing["targets"][0]["snapshots"].as_array().unwrap().len()
}

/// A window that begins and ends so many hours from now.
fn window(from: i64, to: i64) -> String {
    let now = Zoned::now();
    let time = |hours: i64| (&now + hours.hours()).strftime("%H:%M").to_string();
    format!("window = \"{}-{}\"", time(from), time(to))
}

const TIMER: [&str; 3] = ["backup", "--trigger", "timer"];

#[test]
fn outside_of_the_window_nothing_starts_and_the_history_says_why() {
    let bench = bench(&window(2, 4), &["store"]);
    let run = bench.run(TIMER).expect(3);
    assert!(run.err.contains("not started"), "{}", run.err);
    bench.run(["verify", "--trigger", "timer"]).expect(3);
    assert_eq!(restore_points(&bench), 0);
    let runs = runs(&bench);
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert_eq!(
            (&run["result"], &run["trigger"]),
            (&"warnings".into(), &"timer".into())
        );
        assert!(
            run["warnings"][0].as_str().unwrap().contains("window"),
            "{run}"
        );
    }
    // People are not limited.
    bench.run(["backup"]).expect(0);
    assert_eq!(restore_points(&bench), 1);
}

#[test]
fn inside_of_the_window_it_runs() {
    let bench = bench(&window(-2, 2), &["store"]);
    bench.run(TIMER).expect(0);
    assert_eq!(restore_points(&bench), 1);
    assert_eq!(runs(&bench)[0]["result"], "fine");
}

#[test]
fn after_the_longest_duration_it_stops_cleanly() {
    let bench = bench("longest = \"2s\"", &["store"]);
    let begun = Instant::now();
    let run = bench
        .run(TIMER.into_iter().chain(["--io-limit", "1M"]))
        .expect(1);
    // All of it would take 24 s.
    assert!(begun.elapsed() < Duration::from_secs(20));
    let why = "stopped after 2s, the longest that a scheduled run may take";
    assert!(run.err.contains(why), "{}", run.err);
    let history = runs(&bench);
    assert_eq!(history[0]["result"], "failed");
    assert!(
        history[0]["error"].as_str().unwrap().contains(why),
        "{}",
        history[0]
    );
    assert_eq!(restore_points(&bench), 0);
    // Nothing is in the way of the next one.
    bench.run(["backup"]).expect(0);
    bench.run(["verify"]).expect(0);
    assert_eq!(restore_points(&bench), 1);
}

#[test]
fn a_stick_in_the_drawer_is_no_failure_and_a_missing_drive_is_one() {
    let stick = "/dev/disk/by-id/usb-In_The_Drawer-0:0";
    let bench = bench("", &["store", stick]);
    let run = bench.run(TIMER).expect(0);
    assert!(run.out.contains("not plugged in"), "{}", run.out);
    bench.run(["verify", "--trigger", "timer"]).expect(0);
    let history = runs(&bench);
    assert!(history.iter().all(|r| r["result"] == "fine"));
    assert!(
        history
            .iter()
            .all(|r| r["notes"].to_string().contains(stick))
    );
    // Who names it means it.
    bench
        .run(["backup", "--to", bench.str("store"), "--to", stick])
        .expect(3);
    let bench = self::bench("", &["store", "not-mounted"]);
    bench.run(TIMER).expect(3);
    // With nothing at hand there is no backup.
    let bench = self::bench("", &[stick]);
    bench.run(TIMER).expect(1);
}

#[test]
fn a_verification_that_a_timer_starts_takes_its_share() {
    let bench = bench("verify-sample = \"50%\"", &["store"]);
    bench.run(["backup"]).expect(0);
    let json = bench
        .run(["verify", "--trigger", "timer", "--json"])
        .expect(0)
        .json();
    assert_eq!(json[0]["scope"]["sample"]["of"], 2, "{json}");
    let json = bench.run(["verify", "--json"]).expect(0).json();
    assert_eq!(json[0]["scope"], "whole", "{json}");
}

#[test]
fn runs_that_could_not_begin_are_in_the_history() {
    let bench = bench("", &["store"]);
    let mut long = bench.start(["backup", "--io-limit", "1M"]);
    let lock = bench.path("state/lock");
    while fs::read_to_string(&lock).unwrap_or_default().is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    bench.run(["backup"]).expect(4);
    bench.run(TIMER).expect(4);
    let timer = runs(&bench).into_iter().filter(|r| r["trigger"] == "timer");
    let timer: Vec<Value> = timer.collect();
    assert_eq!(timer.len(), 1);
    assert!(
        timer[0]["error"].as_str().unwrap().contains("another run"),
        "{}",
        timer[0]
    );
    long.kill().unwrap();
    long.wait().unwrap();
}
