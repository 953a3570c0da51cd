use std::path::PathBuf;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::*;
use crate::evaluation::tests::{at, failed, good, guest, run};
use crate::history::{Kind, Run, RunResult, Space, TargetRun};
use crate::objectives::Objectives;

/// As of so many hours after the beginning, with the targets `/mnt/a` and `/mnt/b` of the configuration.
pub(crate) fn status(runs: &[Run], hours: i64) -> Status {
    let config = Config {
        targets: vec![PathBuf::from("/mnt/a"), PathBuf::from("/mnt/b")],
        ..Config::default()
    };
    with(&config, runs, hours)
}

fn with(config: &Config, runs: &[Run], hours: i64) -> Status {
    let question = Question {
        at: at(hours),
        objectives: &Objectives::default(),
        configured: &config.targets,
        directories: false,
        guests: None,
    };
    let evaluation = evaluate(runs, &question);
    let next = Some(vec![Planned {
        timer: "lifeboat-backup.timer".into(),
        time: Some(at(hours + 5)),
    }]);
    assemble(config, "pve1", evaluation, next, None, None)
}

fn local(time: Timestamp) -> String {
    let zoned = time.to_zoned(TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M").to_string()
}

#[test]
fn a_good_night() {
    let runs = [run(
        0,
        Kind::Backup,
        RunResult::Fine,
        vec![good("a"), good("b")],
    )];
    let status = status(&runs, 3);
    assert_eq!(status.level, Level::Fine);
    let text = screen(&status, false);
    assert!(text.starts_with("OK: pve1: all is saved"), "{text}");
    assert!(
        text.contains(&format!("last good 3 hours ago ({})", local(at(0)))),
        "{text}"
    );
    assert!(text.contains("a restore was tried: not proven"), "{text}");
    assert!(text.contains(&format!("backup {}", local(at(8)))), "{text}");
    assert!(text.contains("/mnt/a "), "{text}");
    assert!(!text.contains("\x1b["));
}

#[test]
fn a_fresh_host() {
    let none = with(&Config::default(), &[], 0);
    assert_eq!(none.level, Level::Critical);
    let text = screen(&none, false);
    assert!(text.starts_with("CRITICAL: pve1: "), "{text}");
    assert!(
        text.contains("NEVER BACKED UP") && text.contains("no target is configured"),
        "{text}"
    );
    assert!(text.contains("lifeboat prepare"), "{text}");
}

#[test]
fn overdue_is_red_and_says_what_to_do() {
    let runs = [
        run(0, Kind::Backup, RunResult::Fine, vec![good("a")]),
        run(24, Kind::Backup, RunResult::Failed, vec![failed("a")]),
    ];
    let status = status(&runs, 60);
    assert_eq!(status.level, Level::Critical);
    let text = screen(&status, true);
    assert!(
        text.contains("\x1b[1;31mHost     OVERDUE, last good 2 days ago"),
        "{text}"
    );
    assert!(
        text.contains("no room") && text.contains("-> mend that"),
        "{text}"
    );
}

#[test]
fn however_much_there_is_it_is_one_screen() {
    let mut all = run(
        0,
        Kind::Backup,
        RunResult::Failed,
        (0..30)
            .map(|n| TargetRun {
                space: Some(Space { free: 1, size: 100 }),
                error: Some("a very long reason, ".repeat(30)),
                ..good(&format!("{n:0100}"))
            })
            .collect(),
    );
    all.guests = (100..160)
        .map(|id| guest(id, RunResult::Failed, vec![]))
        .collect();
    let config = Config {
        targets: all.targets.iter().map(|t| t.target.clone()).collect(),
        ..Config::default()
    };
    let status = with(&config, &[all], 50);
    let text = screen(&status, false);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() <= 24, "{} lines:\n{text}", lines.len());
    assert!(lines.iter().all(|l| l.chars().count() <= 80), "{text}");
    assert!(text.contains("and 25 more"), "{text}");
    assert!(text.contains("0 of 60 saved"), "{text}");
    assert!(
        lines
            .last()
            .unwrap()
            .contains("more: lifeboat status --json"),
        "{text}"
    );
}

#[test]
fn a_directory_whose_drive_is_not_mounted_is_told_from_one_with_another_store() {
    let dir = tempfile::tempdir().unwrap();
    let (empty, other, fine) = (
        dir.path().join("empty"),
        dir.path().join("other"),
        dir.path().join("fine"),
    );
    std::fs::create_dir(&empty).unwrap();
    for (place, id) in [(&other, "somebody's"), (&fine, "fine")] {
        std::fs::create_dir_all(place.join("lifeboat")).unwrap();
        let json = format!("{{\"format\":1,\"id\":\"{id}\",\"encryption\":null}}\n");
        std::fs::write(place.join("lifeboat/store.json"), json).unwrap();
    }
    let gone = dir.path().join("gone");
    let on = |path: &PathBuf, store: &str| TargetRun {
        target: path.clone(),
        ..good(store)
    };
    let targets = vec![
        on(&empty, "empty"),
        on(&other, "other"),
        on(&fine, "fine"),
        on(&gone, "gone"),
    ];
    let mut config = Config {
        targets: targets.iter().map(|t| t.target.clone()).collect(),
        ..Config::default()
    };
    // Whatever room there is where the tests run.
    config.notify.low_space = "off".parse().unwrap();
    let status = with(
        &config,
        &[run(0, Kind::Backup, RunResult::Fine, targets)],
        1,
    );
    assert_eq!(
        status.presence,
        [
            Presence::Empty,
            Presence::Other,
            Presence::There,
            Presence::Absent
        ]
    );
    // What is in a drawer is where it belongs.
    let warned: Vec<&str> = status.findings.iter().map(|f| f.subject.as_str()).collect();
    assert_eq!(warned.len(), 2, "{warned:?}");
    assert!(warned[0].ends_with("/empty") && warned[1].ends_with("/other"));
    // Seen at once, not as it was last.
    assert!(status.evaluation.targets[2].space.is_some());
}

#[test]
fn a_stick_in_a_drawer_is_no_problem_while_the_host_is_saved_elsewhere() {
    let stick = |target: TargetRun| TargetRun {
        stick: true,
        ..target
    };
    let runs = [
        run(0, Kind::Backup, RunResult::Fine, vec![stick(good("a"))]),
        run(
            24,
            Kind::Backup,
            RunResult::Fine,
            vec![failed("a"), good("b")],
        ),
    ];
    assert_eq!(status(&runs, 25).findings, []);
    let overdue = status(&runs, 60).findings;
    assert!(
        overdue.iter().any(|f| f.topic == Topic::Target),
        "{overdue:?}"
    );
}

#[test]
fn guests_that_are_still_to_come_are_said() {
    let list: Pending = serde_json::from_value(serde_json::json!({
        "format": 1,
        "snapshot": bundle::Id::of(b"x"),
        "restored": "2026-11-26T00:00:00.000Z",
        "limit": 3,
        "stores": [],
        "guests": [
            { "id": 100, "kind": "qemu", "state": "done" },
            { "id": 101, "kind": "qemu", "state": "failed", "error": "no room" },
            { "id": 102, "kind": "lxc", "state": "waiting" },
        ],
    }))
    .unwrap();
    let to_come = GuestsToCome::of(&list).unwrap();
    assert_eq!(to_come.missing, 2);
    let finding = to_come.finding();
    assert_eq!(finding.level, Level::Critical);
    assert!(finding.text.contains("VM 101: no room"), "{}", finding.text);
}

#[test]
fn the_document_is_stable() {
    let runs = [run(0, Kind::Backup, RunResult::Fine, vec![good("a")])];
    let json = serde_json::to_value(status(&runs, 3)).unwrap();
    for pointer in [
        "/format",
        "/host_name",
        "/level",
        "/findings",
        "/at",
        "/host/newest/time",
        "/host/newest/snapshot",
        "/host/age_seconds",
        "/host/rpo_seconds",
        "/host/overdue",
        "/host/verified",
        "/guests",
        "/targets/0/target",
        "/targets/0/configured",
        "/targets/0/newest",
        "/targets/0/space",
        "/presence/0",
        "/drill/proven",
        "/running",
        "/last_run/result",
        "/last_runs/0/kind",
        "/last_runs/0/success",
        "/next/0/timer",
        "/guests_to_come",
        "/unsent",
    ] {
        assert!(json.pointer(pointer).is_some(), "{pointer} in {json:#}");
    }
    assert_eq!(json["level"], "fine");
    assert_eq!(json["presence"][0], "absent");
    assert_eq!(json["host"]["age_seconds"], 3 * 3600);
}
