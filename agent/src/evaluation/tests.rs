use std::path::Path;

use jiff::ToSpan;

use super::*;
use crate::history::{FORMAT, GuestRun, Process, Space, TargetRun, Trigger};
use crate::values::Percent;

pub(crate) fn at(hours: i64) -> Timestamp {
    let zero: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
    zero.checked_add(hours.hours()).unwrap()
}

/// A run that took half an hour.
pub(crate) fn run(hours: i64, kind: Kind, result: RunResult, targets: Vec<TargetRun>) -> Run {
    Run {
        format: FORMAT,
        id: format!("{hours:04}"),
        kind,
        trigger: Trigger::Timer,
        user: "root".into(),
        host: "pve1".into(),
        machine_id: "m".into(),
        started: at(hours),
        ended: Some(at(hours).checked_add(30.minutes()).unwrap()),
        process: Process {
            pid: 1,
            boot: "another".into(),
            started: 1,
        },
        result: Some(result),
        error: None,
        files: 1,
        bytes: 1,
        bytes_read: 1,
        phases: Vec::new(),
        targets,
        guests: Vec::new(),
        warnings: Vec::new(),
        notes: Vec::new(),
    }
}

pub(crate) fn on(store: &str) -> TargetRun {
    TargetRun {
        store: Some(store.into()),
        ..TargetRun::new(Path::new(&format!("/mnt/{store}")))
    }
}

pub(crate) fn good(store: &str) -> TargetRun {
    TargetRun {
        snapshot: Some(bundle::Id::of(store.as_bytes())),
        verified: Some(true),
        ..on(store)
    }
}

pub(crate) fn failed(store: &str) -> TargetRun {
    TargetRun {
        error: Some("no room".into()),
        ..on(store)
    }
}

pub(crate) fn read(store: &str, good: bool) -> TargetRun {
    TargetRun {
        verified: Some(good),
        whole: true,
        damage: if good { vec![] } else { vec!["pack 1".into()] },
        ..on(store)
    }
}

pub(crate) fn guest(id: u32, result: RunResult, targets: Vec<TargetRun>) -> GuestRun {
    GuestRun {
        id,
        kind: GuestKind::Qemu,
        name: Some("web".into()),
        result,
        error: (result == RunResult::Failed).then(|| "vzdump: locked".into()),
        bytes: 10,
        seconds: 5,
        dumped: None,
        warnings: Vec::new(),
        targets,
    }
}

fn asked(runs: &[Run], hours: i64) -> Evaluation {
    let configured = [PathBuf::from("/mnt/a"), PathBuf::from("/mnt/b")];
    evaluate(
        runs,
        &Question {
            at: at(hours),
            objectives: &Objectives::default(),
            configured: &configured,
            directories: false,
            guests: None,
        },
    )
}

fn topics(state: &Evaluation) -> Vec<(Topic, Level)> {
    let found = findings(state, Some(Percent(20)));
    found.into_iter().map(|f| (f.topic, f.level)).collect()
}

const FINE: RunResult = RunResult::Fine;

#[test]
fn a_fresh_host_is_critical() {
    let state = asked(&[], 0);
    assert!(state.host.overdue && !state.host.tried && state.host.newest.is_none());
    assert_eq!(topics(&state), [(Topic::Never, Level::Critical)]);
    assert_eq!(state.targets.len(), 2);
    assert!(state.targets.iter().all(|t| t.configured));
}

#[test]
fn a_restore_point_is_good_until_the_objective_says_otherwise() {
    let runs = [run(10, Kind::Backup, FINE, vec![good("a")])];
    let state = asked(&runs, 34);
    assert_eq!(state.host.age_seconds, Some(24 * 3600));
    assert!(!state.host.overdue);
    assert_eq!(topics(&state), []);
    // The next one takes its time.
    assert!(!asked(&runs, 36).host.overdue);
    let state = asked(&runs, 37);
    assert!(state.host.overdue);
    assert_eq!(topics(&state), [(Topic::Overdue, Level::Critical)]);
}

#[test]
fn a_failure_warns_while_the_last_one_is_fresh_and_says_why_and_since_when() {
    let runs = [
        run(0, Kind::Backup, FINE, vec![good("a")]),
        run(10, Kind::Backup, RunResult::Failed, vec![failed("a")]),
        run(12, Kind::Backup, RunResult::Failed, vec![failed("a")]),
    ];
    let state = asked(&runs, 13);
    assert_eq!(state.host.newest.as_ref().unwrap().time, at(0));
    assert_eq!(state.host.failing_since, Some(at(10)));
    assert!(state.host.error.as_ref().unwrap().contains("no room"));
    let found = topics(&state);
    assert!(
        found.contains(&(Topic::Failed, Level::Warning)),
        "{found:?}"
    );
    let found = topics(&asked(&runs, 30));
    assert_eq!(found[0].1, Level::Critical);
    // The next good one ends it.
    let more = [
        runs.to_vec(),
        vec![run(31, Kind::Backup, FINE, vec![good("a")])],
    ]
    .concat();
    assert_eq!(topics(&asked(&more, 32)), []);
}

#[test]
fn one_target_of_two_is_enough_for_the_host_and_not_for_the_other_target() {
    let runs = [run(
        0,
        Kind::Backup,
        RunResult::Warnings,
        vec![failed("a"), good("b")],
    )];
    let state = asked(&runs, 1);
    assert_eq!(
        state.host.newest.as_ref().unwrap().target,
        Path::new("/mnt/b")
    );
    assert_eq!(state.targets[0].error.as_deref(), Some("no room"));
    assert_eq!(state.targets[1].newest, Some(at(0)));
    let found = topics(&state);
    assert!(
        found.contains(&(Topic::Target, Level::Warning)),
        "{found:?}"
    );
}

#[test]
fn what_does_not_read_back_is_not_good() {
    let bad = TargetRun {
        verified: Some(false),
        damage: vec!["pack 1".into()],
        ..good("a")
    };
    let runs = [run(0, Kind::Backup, RunResult::Failed, vec![bad])];
    let state = asked(&runs, 1);
    assert!(state.host.newest.is_none() && state.host.tried);
    assert!(topics(&state).contains(&(Topic::Damage, Level::Critical)));
}

#[test]
fn damage_that_is_found_later_takes_restore_points_away_until_all_was_read_and_is_good() {
    let mut runs = vec![
        run(0, Kind::Backup, FINE, vec![good("a"), good("b")]),
        run(5, Kind::Backup, FINE, vec![good("a")]),
        run(6, Kind::Verify, RunResult::Failed, vec![read("a", false)]),
    ];
    let state = asked(&runs, 7);
    assert_eq!(state.host.newest.as_ref().unwrap().time, at(0));
    assert_eq!(
        state.host.newest.as_ref().unwrap().store.as_deref(),
        Some("b")
    );
    assert_eq!(state.targets[0].damaged, Some(at(6)));
    // A sample that is good clears nothing.
    let sample = TargetRun {
        whole: false,
        ..read("a", true)
    };
    runs.push(run(8, Kind::Verify, FINE, vec![sample]));
    assert_eq!(asked(&runs, 9).targets[0].damaged, Some(at(6)));
    runs.push(run(10, Kind::Verify, FINE, vec![read("a", true)]));
    let state = asked(&runs, 11);
    assert_eq!(state.targets[0].damaged, None);
    assert_eq!(state.host.newest.as_ref().unwrap().time, at(5));
    assert_eq!(topics(&state), []);
}

#[test]
fn a_target_has_to_be_read_again_now_and_then() {
    let mut runs: Vec<Run> = (0..10)
        .map(|day| run(day * 24, Kind::Backup, FINE, vec![good("a")]))
        .collect();
    assert!(!asked(&runs, 7 * 24).targets[0].verify_overdue);
    let state = asked(&runs, 9 * 24 + 1);
    assert!(state.targets[0].verify_overdue);
    assert_eq!(topics(&state), [(Topic::Unverified, Level::Warning)]);
    runs.push(run(9 * 24 + 2, Kind::Verify, FINE, vec![read("a", true)]));
    let state = asked(&runs, 9 * 24 + 3);
    assert_eq!(topics(&state), []);
    // Half an hour after it began.
    assert_eq!(
        state.host.verified,
        Some(at(9 * 24 + 2).checked_add(30.minutes()).unwrap())
    );
}

#[test]
fn a_killed_run_failed() {
    let mut killed = run(3, Kind::Backup, FINE, vec![]);
    (killed.ended, killed.result) = (None, None);
    let runs = [run(0, Kind::Backup, FINE, vec![good("a")]), killed];
    let state = asked(&runs, 4);
    let last = state.last_run.as_ref().unwrap();
    assert!(last.died && last.result == Some(RunResult::Failed));
    assert!(state.host.error.as_ref().unwrap().contains("killed"));
    assert!(state.running.is_empty());
}

#[test]
fn guests_each_on_their_own() {
    let mut first = run(0, Kind::Backup, FINE, vec![good("a")]);
    first.guests = vec![
        guest(100, FINE, vec![good("a")]),
        guest(101, FINE, vec![good("a")]),
    ];
    let mut second = run(24, Kind::Guests, RunResult::Failed, vec![on("a")]);
    second.guests = vec![
        guest(100, FINE, vec![good("a")]),
        guest(101, RunResult::Failed, vec![]),
    ];
    let runs = [first, second];
    let state = asked(&runs, 27);
    assert_eq!(state.guests[0].protection.age_seconds, Some(3 * 3600));
    let second = &state.guests[1].protection;
    assert!(second.overdue);
    assert_eq!(second.error.as_deref(), Some("vzdump: locked"));
    assert_eq!(second.failing_since, Some(at(24)));
    // The host was not saved by a run for guests.
    assert_eq!(state.host.age_seconds, Some(27 * 3600));
    // A guest that no run has tried to save for long is gone, unless the node still has it.
    assert!(asked(&runs, 24 * 30).guests.is_empty());
    let wanted = [Guest {
        id: 102,
        kind: GuestKind::Lxc,
        name: None,
    }];
    let objectives = Objectives::default();
    let question = Question {
        at: at(25),
        objectives: &objectives,
        configured: &[],
        directories: false,
        guests: Some(&wanted),
    };
    let state = evaluate(&runs, &question);
    assert_eq!(state.guests.len(), 1);
    assert!(!state.guests[0].protection.tried);
}

#[test]
fn a_dump_that_was_there_before_is_as_old_as_it_is() {
    let mut run = run(24, Kind::Guests, FINE, vec![on("a")]);
    let mut dumped = guest(100, FINE, vec![good("a")]);
    dumped.dumped = Some(at(2));
    run.guests = vec![dumped];
    let mut next = run.clone();
    (next.id, next.started) = ("next".into(), at(27));
    // The same dump is in the target already.
    next.guests[0].targets.clear();
    let state = asked(&[run, next], 30);
    let guest = &state.guests[0].protection;
    assert_eq!(guest.age_seconds, Some(28 * 3600));
    assert!(guest.overdue && guest.error.is_none());
}

#[test]
fn room_and_its_trend() {
    let runs: Vec<Run> = (0..6)
        .map(|day| {
            let target = TargetRun {
                space: Some(Space {
                    free: 100 - 15 * day as u64,
                    size: 100,
                }),
                ..good("a")
            };
            run(day * 24, Kind::Backup, FINE, vec![target])
        })
        .collect();
    let state = asked(&runs, 5 * 24 + 1);
    let days = state.targets[0].full_in_days.unwrap();
    assert!((days - 25.0 / 15.0).abs() < 0.01, "{days}");
    assert_eq!(topics(&state), []);
    let low = findings(&state, Some(Percent(30)));
    assert_eq!(low[0].topic, Topic::LowSpace);
    assert!(findings(&state, None).is_empty());
}

#[test]
fn drills() {
    let mut runs = vec![run(0, Kind::Backup, FINE, vec![good("a")])];
    assert_eq!(asked(&runs, 1).drill.proven, None);
    assert_eq!(topics(&asked(&runs, 1)), []);
    runs.push(run(1, Kind::Drill, FINE, vec![]));
    assert_eq!(asked(&runs, 2).drill.proven, Some(at(1)));
    let state = asked(&runs, 91 * 24);
    assert!(state.drill.overdue);
    assert!(topics(&state).contains(&(Topic::Drill, Level::Warning)));
    runs.push(run(2, Kind::Drill, RunResult::Failed, vec![]));
    assert!(topics(&asked(&runs, 3)).contains(&(Topic::Drill, Level::Critical)));
}

#[test]
fn a_clock_that_went_back_is_said() {
    let runs = [run(100, Kind::Backup, FINE, vec![good("a")])];
    let found = topics(&asked(&runs, 10));
    assert!(found.contains(&(Topic::Never, Level::Critical)));
    assert!(found.contains(&(Topic::Clock, Level::Warning)));
}

#[test]
fn a_stick_under_another_name_is_the_same_target() {
    let renamed = TargetRun {
        target: PathBuf::from("/dev/sdb"),
        ..good("a")
    };
    let runs = [
        run(0, Kind::Backup, FINE, vec![good("a")]),
        run(1, Kind::Backup, FINE, vec![renamed]),
    ];
    let state = asked(&runs, 2);
    let stores: Vec<_> = state.targets.iter().filter(|t| t.store.is_some()).collect();
    assert_eq!(stores.len(), 1);
    assert_eq!(stores[0].target, Path::new("/dev/sdb"));
}

/// Documents are what the report's figures are traced to.
#[test]
fn a_year_of_hours_is_quick() {
    let runs: Vec<Run> = (0..8760)
        .map(|hour| run(hour, Kind::Backup, FINE, vec![good("a"), good("b")]))
        .collect();
    let begun = std::time::Instant::now();
    let state = asked(&runs, 8760);
    assert_eq!(state.host.age_seconds, Some(3600));
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
}
