//! `lifeboat report`: the page and its data, made of the documents of runs.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::page::Page;
use common::{Bench, Run, runs};
use serde_json::{Value, json};

const QUARTER: [&str; 4] = ["--since", "2026-07-01", "--until", "2026-09-30"];

fn report(bench: &Bench, args: &[&str]) -> Run {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    let config = bench.path("lifeboat.toml");
    command.env("TZ", runs::TZ).arg("--config").arg(config);
    command.arg("report").args(args).output().unwrap().into()
}

fn with(history: &[Value]) -> Bench {
    let bench = Bench::default();
    let (drive, stick) = (runs::DRIVE, runs::STICK);
    bench.configure(&format!("targets = [{drive:?}, {stick:?}]\n"));
    runs::write(&bench.path("state"), history);
    bench
}

fn data(bench: &Bench, args: &[&str]) -> Value {
    let args = [args, &["--format", "json"]].concat();
    report(bench, &args).expect(0).json()
}

fn objective<'v>(data: &'v Value, setting: &str) -> &'v Value {
    let all = data["objectives"].as_array().unwrap();
    all.iter().find(|o| o["setting"] == setting).unwrap()
}

#[test]
fn a_quarter_as_data() {
    let bench = with(&runs::quarter(false));
    let data = data(&bench, &QUARTER);
    assert_eq!(data["period"]["days"], 92);
    assert_eq!(data["period"]["start"], "2026-07-01T00:00:00+02:00");
    assert_eq!(data["period"]["as_of"], "2026-10-01T00:00:00+02:00");
    let summary = &data["summary"];
    assert_eq!(summary["runs"], 92 + 12 + 14 + 2);
    assert_eq!(
        (&summary["died"], &summary["failed"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(summary["days_known"], 92);
    // Three nights without the drive, and the one of the power cut.
    assert_eq!(summary["days_without"], 4);
    assert_eq!(data["days"][41]["date"], "2026-08-11");
    assert_eq!(data["days"][41]["state"], "failed");
    assert_eq!(data["days"][0]["restore_points"], 1);
    let gaps = data["gaps"].as_array().unwrap();
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert_eq!(gaps[1]["failed_runs"], 3);
    assert!(gaps[1]["seconds"].as_u64().unwrap() > 4 * 86_400 - 3600);
    let killed = data["runs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["result"] == "died")
        .unwrap();
    assert!(killed["why"][0].as_str().unwrap().contains("killed"));
    assert_eq!(killed["seconds"], Value::Null);
    // Buckets hold what the days hold.
    let sum = |list: &str, key: &str| {
        let items = data.pointer(list).unwrap().as_array().unwrap().iter();
        items.map(|item| item[key].as_u64().unwrap()).sum::<u64>()
    };
    for key in ["runs", "fine", "warnings", "failed"] {
        assert_eq!(sum("/days", key), sum("/trend/buckets", key), "{key}");
    }
    assert_eq!(
        sum("/days", "bytes_written"),
        summary["bytes_written"].as_u64().unwrap()
    );
    assert_eq!(
        sum("/runs", "bytes_written"),
        summary["bytes_written"].as_u64().unwrap()
    );
    let trend = data["targets"][0]["trend"].as_array().unwrap();
    assert_eq!(
        trend.len(),
        data["trend"]["buckets"].as_array().unwrap().len()
    );
}

#[test]
fn what_nobody_measured_is_not_made_up() {
    let bench = with(&runs::quarter(false));
    let data = data(&bench, &QUARTER);
    for (setting, verdict) in [
        ("host-rto", "not-measured"),
        ("guests-rto", "not-measured"),
        ("drilled-within", "missed"),
    ] {
        let objective = objective(&data, setting);
        assert_eq!(objective["verdict"], verdict, "{setting}");
        assert_eq!(objective["measured_seconds"], Value::Null, "{setting}");
    }
    assert_eq!(data["drills"]["proven"], false);
    assert_eq!(data["summary"]["last_drilled"], Value::Null);
    let rule = |name: &str| {
        let all = data["rules"].as_array().unwrap();
        all.iter().find(|r| r["rule"] == name).unwrap().clone()
    };
    assert_eq!(rule("offsite")["verdict"], "unknown");
    assert_eq!(rule("offsite")["found"], Value::Null);
    // It was plugged in to be written to.
    assert_eq!(rule("offline")["verdict"], "met");
    assert_eq!(
        (&rule("copies")["found"], &rule("media")["found"]),
        (&json!(3), &json!(2))
    );
    // The drive held twelve restore points before: only itself knows the oldest.
    assert_eq!(data["targets"][0]["oldest"], Value::Null);
}

#[test]
fn drills_measure_recovery_times() {
    let bench = with(&runs::quarter(true));
    let data = data(&bench, &QUARTER);
    let rto = objective(&data, "host-rto");
    assert_eq!(
        (&rto["measured_seconds"], &rto["verdict"]),
        (&json!(2520), &json!("met"))
    );
    assert_eq!(objective(&data, "guests-rto")["measured_seconds"], 310);
    assert_eq!(data["drills"]["all"].as_array().unwrap().len(), 2);
    assert_eq!(
        data["drills"]["last_good"]["at"],
        "2026-09-22T15:00:00+02:00"
    );
    // Before the good one, only the failed one is known.
    let data = super_data(&bench, "2026-09-01");
    assert_eq!(data["drills"]["proven"], false);
    assert_eq!(
        objective(&data, "host-rto")["measured_seconds"],
        Value::Null
    );
}

fn super_data(bench: &Bench, until: &str) -> Value {
    data(bench, &["--since", "2026-07-01", "--until", until])
}

#[test]
fn damage_stands_until_all_was_read_again() {
    let bench = with(&runs::quarter(false));
    let found = super_data(&bench, "2026-09-09");
    let stick = &found["targets"][1];
    assert_eq!(stick["damaged"], "2026-09-08T10:05:00+02:00");
    assert!(stick["damage"][0].as_str().unwrap().contains("4f2a9c"));
    assert_eq!(found["verdict"]["level"], "critical");
    assert_eq!(objective(&found, "verified-within")["verdict"], "missed");
    let healed = super_data(&bench, "2026-09-30");
    assert_eq!(healed["targets"][1]["damaged"], Value::Null);
    assert_eq!(healed["targets"][1]["reads_bad"], 1);
}

#[test]
fn guests_that_are_gone_miss_nothing() {
    let bench = with(&runs::quarter(false));
    let data = data(&bench, &QUARTER);
    let guests = data["guests"].as_array().unwrap();
    let ids: Vec<_> = guests.iter().map(|g| g["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [100, 101, 105, 103]);
    assert_eq!(
        guests[3]["last_good"]["at"].as_str().unwrap()[..10],
        *"2026-08-02"
    );
    assert_eq!(
        (&guests[3]["present"], &guests[3]["verdict"]),
        (&json!(false), &json!("not-applicable"))
    );
    assert_eq!(
        (&guests[2]["failures"], &guests[2]["verdict"]),
        (&json!(2), &json!("missed"))
    );
}

#[test]
fn every_figure_leads_to_its_value_in_the_data() {
    for history in [runs::quarter(true), runs::quarter(false), Vec::new()] {
        let bench = with(&history);
        let page = Page::new(&report(&bench, &QUARTER).expect(0).out);
        let mut embedded = page.data.clone();
        let checked = page.check_figures(&embedded);
        assert!(
            checked > if history.is_empty() { 100 } else { 3000 },
            "{checked}"
        );
        page.check_text_without_figures();
        // The page and --format json are the same data.
        let mut json = data(&bench, &QUARTER);
        json["generated"] = Value::Null;
        embedded["generated"] = Value::Null;
        assert_eq!(json, embedded);
    }
}

#[test]
fn names_and_errors_are_text_whatever_is_in_them() {
    let evil = r#"</script></style><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;"#;
    let mut history = runs::quarter(true);
    for run in &mut history {
        for key in ["host", "user", "error", "id"] {
            if run[key].is_string() && (key != "id") {
                run[key] = json!(evil);
            }
        }
        for target in run["targets"].as_array_mut().into_iter().flatten() {
            target["target"] = json!(format!("/mnt/{evil}"));
            target["problems"] = json!([evil]);
        }
        for guest in run["guests"].as_array_mut().into_iter().flatten() {
            guest["name"] = json!(evil);
        }
        run["warnings"] = json!([evil]);
        run["notes"] = json!([evil]);
    }
    let bench = with(&history);
    let html = report(&bench, &QUARTER).expect(0).out;
    let lower = html.to_lowercase();
    assert_eq!(lower.matches("<script").count(), 1, "the data's own");
    assert_eq!(lower.matches("</script").count(), 1);
    assert!(!lower.contains("<img"));
    let page = Page::new(&html);
    page.check_figures(&page.data);
    assert!(page.data["guests"][0]["name"].as_str().unwrap() == evil);
}

#[test]
fn nothing_comes_from_elsewhere() {
    let bench = with(&runs::quarter(true));
    let html = report(&bench, &QUARTER).expect(0).out;
    let policy = "default-src 'none'; style-src 'sha256-";
    assert!(html.contains(policy));
    for wrong in [
        "http://", "https://", "url(", "@import", " src=", " href=", " style=", "onload",
    ] {
        assert!(!html.contains(wrong), "{wrong}");
    }
}

#[test]
fn a_year_of_hours_is_quick_and_its_page_bounded() {
    let bench = with(&runs::hourly_year());
    let page = bench.path("year.html");
    let begun = Instant::now();
    let args = [
        "--since",
        "2026-01-01",
        "--until",
        "2026-12-31",
        "--to",
        bench.str("year.html"),
    ];
    // As if all of it were over.
    let run = report(&bench, &args).expect(0);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert!(run.out.contains("year.json"));
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.len() < 2 << 20, "{}", html.len());
    let json = std::fs::read_to_string(bench.path("year.json")).unwrap();
    assert!(html.contains(&runs::id(&json)), "the sum of the data");
    let data: Value = serde_json::from_str(&json).unwrap();
    assert!(data["runs"].as_array().unwrap().len() > 7000);
    let page = Page::without_data(&html);
    assert!(page.check_figures(&data) > 3000);
    assert_eq!(data["trend"]["step"], "week");
}

#[test]
fn a_host_without_history_gets_a_report_that_says_so() {
    let bench = with(&[]);
    let data = data(&bench, &["--period", "day"]);
    assert_eq!(data["history"]["first_run"], Value::Null);
    assert_eq!(data["days"][0]["state"], "before");
    assert_eq!(data["verdict"]["level"], "critical");
    assert_eq!(objective(&data, "host-rpo")["verdict"], "missed");
    assert!(data["gaps"].as_array().unwrap().is_empty());
    let html = report(&bench, &[]).expect(0).out;
    assert!(html.contains("never backed up") && html.contains("not proven"));
}

#[test]
fn two_sticks_at_one_place_are_two_targets_and_one_whose_all_is_there_has_an_oldest() {
    let day = |day| jiff::civil::date(2026, 7, day);
    let backup = |nth: i8, store: &str, points: u64| {
        let mut run = runs::run("backup", "plug", runs::local(day(nth), 8, 0), 60);
        let mut target = runs::good(runs::STICK, &format!("{nth}"), 4096);
        target["store"] = json!(store);
        target["restore_points"] = json!(points);
        run["targets"] = json!([target]);
        run
    };
    let bench = with(&[
        backup(1, "aaaaaaaaaaaa", 1),
        backup(2, "bbbbbbbbbbbb", 7),
        backup(3, "aaaaaaaaaaaa", 2),
    ]);
    let data = data(&bench, &["--since", "2026-07-01", "--until", "2026-07-04"]);
    let all = data["targets"].as_array().unwrap().iter();
    let stick = |store: &str| all.clone().find(|t| t["store"] == store).unwrap();
    let (a, b) = (stick("aaaaaaaaaaaa"), stick("bbbbbbbbbbbb"));
    assert_eq!(a["name"], format!("{} (aaaaaaaa)", runs::STICK));
    assert_eq!(a["oldest"], "2026-07-01T08:00:00+02:00");
    assert_eq!(b["oldest"], Value::Null);
    assert_eq!((&a["attempts"], &b["attempts"]), (&json!(2), &json!(1)));
    assert_eq!(data["summary"]["last_good"]["target"], a["name"]);
}

#[test]
fn documents_that_cannot_be_read_are_counted() {
    let bench = with(&runs::quarter(false));
    std::fs::write(
        bench.path("state").join("runs/20260801T000000Z-x.json"),
        "{",
    )
    .unwrap();
    let data = data(&bench, &QUARTER);
    assert_eq!(data["history"]["unreadable"], 1);
    let advice = data["advice"].as_array().unwrap();
    assert!(
        advice
            .iter()
            .any(|a| a["text"].as_str().unwrap().contains("could not be read"))
    );
}

#[test]
fn a_file_is_for_its_owner_and_replaced_as_a_whole() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = with(&runs::quarter(false));
    std::fs::write(bench.path("r.html"), "old").unwrap();
    let args = [&QUARTER[..], &["--to", bench.str("r.html")]].concat();
    let run = report(&bench, &args).expect(0);
    assert!(run.out.contains("r.html"), "{}", run.out);
    let meta = std::fs::metadata(bench.path("r.html")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert!(
        std::fs::read_to_string(bench.path("r.html"))
            .unwrap()
            .starts_with("<!DOCTYPE html>")
    );
    let args = [&QUARTER[..], &["--to", "/nowhere/r.html"]].concat();
    let run = report(&bench, &args).expect(1);
    assert!(run.err.contains("/nowhere/r.html"), "{}", run.err);
    report(&bench, &["--since", "2026-09-30", "--until", "2026-07-01"]).expect(2);
    report(&bench, &["--since", "yesterday"]).expect(2);
    report(&bench, &["--since", "2026-07-01", "--period", "week"]).expect(2);
}

/// What `scripts/look-at-report` looks at in a browser, which is not on every machine.
#[test]
#[ignore = "writes pages to be looked at: scripts/look-at-report"]
fn pages_to_look_at() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&dir).unwrap();
    let quarter = with(&runs::quarter(false));
    let drilled = with(&runs::quarter(true));
    let hourly = with(&runs::hourly_year());
    let fresh = with(&[]);
    for (name, bench, since, until) in [
        ("quarter", &quarter, "2026-07-01", "2026-09-30"),
        ("drilled", &drilled, "2026-07-01", "2026-09-30"),
        ("damaged", &quarter, "2026-08-01", "2026-09-09"),
        ("day", &quarter, "2026-09-06", "2026-09-06"),
        ("year", &hourly, "2026-01-01", "2026-10-31"),
        ("fresh", &fresh, "2026-09-01", "2026-09-30"),
    ] {
        let to = dir.join(format!("{name}.html"));
        report(
            bench,
            &[
                "--since",
                since,
                "--until",
                until,
                "--to",
                to.to_str().unwrap(),
            ],
        )
        .expect(0);
    }
}
