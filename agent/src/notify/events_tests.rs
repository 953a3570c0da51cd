use super::*;
use crate::evaluation::tests::{failed, good, guest, run};
use crate::history::{Run, Space, TargetRun};
use crate::status::tests::status;

/// Looks at a history as after each of its runs and at the hours given, and says what was told.
struct Told2 {
    known: Notified,
    when: When,
}

impl Told2 {
    fn new() -> Told2 {
        Told2 {
            known: Notified::default(),
            when: When::default(),
        }
    }

    fn at(&mut self, runs: &[Run], hours: i64) -> Vec<Message> {
        let (messages, next) = decide(&self.known, &status(runs, hours), &self.when);
        self.known = next;
        messages
    }

    fn events(&mut self, runs: &[Run], hours: i64) -> Vec<Event> {
        let messages = self.at(runs, hours);
        messages.into_iter().map(|m| m.event).collect()
    }
}

fn fine(hours: i64) -> Run {
    run(hours, Kind::Backup, RunResult::Fine, vec![good("a")])
}

fn bad(hours: i64) -> Run {
    run(hours, Kind::Backup, RunResult::Failed, vec![failed("a")])
}

#[test]
fn failure_overdue_and_recovery_each_once() {
    let mut told = Told2::new();
    let mut runs = vec![fine(0)];
    assert_eq!(told.events(&runs, 1), []);
    runs.push(bad(2));
    let messages = told.at(&runs, 3);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].event, Event::Failure);
    assert!(
        messages[0].title.starts_with("pve1: backup failed: "),
        "{}",
        messages[0].title
    );
    assert!(messages[0].title.contains("no room"));
    let text = &messages[0].text;
    for part in [
        "no room",
        "newest good restore point is 3 hours old",
        "-> ",
        "begun 2026-11-01 02:00 UTC",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // The same again, hour after hour, until a day is over.
    for hour in 3..24 {
        runs.push(bad(hour));
        assert_eq!(told.events(&runs, hour + 1), [], "{hour}");
    }
    // The daily check.
    let overdue = told.at(&runs, 27);
    assert_eq!(overdue.len(), 1);
    assert_eq!(overdue[0].event, Event::Overdue);
    assert!(
        overdue[0]
            .title
            .contains("host's newest good restore point is 27 hours old")
    );
    assert_eq!(told.events(&runs, 28), []);
    runs.push(bad(29));
    assert_eq!(told.events(&runs, 30), [Event::Failure]);
    // A day after it was told first.
    assert_eq!(told.events(&runs, 51), [Event::Overdue]);
    runs.push(fine(52));
    let recovery = told.at(&runs, 53);
    assert_eq!(recovery.len(), 1, "{recovery:?}");
    assert_eq!(recovery[0].event, Event::Recovery);
    assert!(
        recovery[0].text.contains("backup failed, told first"),
        "{}",
        recovery[0].text
    );
    assert!(
        recovery[0].text.contains("host were overdue"),
        "{}",
        recovery[0].text
    );
    assert_eq!(told.events(&runs, 54), []);
    runs.push(fine(55));
    assert_eq!(told.events(&runs, 56), []);
}

#[test]
fn another_reason_is_news() {
    let mut told = Told2::new();
    let mut runs = vec![fine(0), bad(1)];
    assert_eq!(told.events(&runs, 2), [Event::Failure]);
    let mut other = bad(2);
    other.targets[0].error = Some("the stick is gone".into());
    runs.push(other);
    assert_eq!(told.events(&runs, 3), [Event::Failure]);
    // Its numbers are not.
    for (hours, left) in [(4, "12 bytes left"), (5, "3 bytes left")] {
        let mut other = bad(hours);
        other.targets[0].error = Some(left.into());
        runs.push(other);
        let expected: &[Event] = if hours == 4 { &[Event::Failure] } else { &[] };
        assert_eq!(told.events(&runs, hours + 1), expected, "{left}");
    }
}

#[test]
fn a_killed_run_is_told_by_the_check() {
    let mut told = Told2::new();
    let mut killed = fine(2);
    (killed.ended, killed.result) = (None, None);
    let runs = [fine(0), killed];
    let messages = told.at(&runs, 3);
    assert_eq!(messages[0].event, Event::Failure);
    assert!(messages[0].text.contains("killed"));
}

#[test]
fn warnings_and_what_is_no_news_any_more() {
    let mut told = Told2::new();
    let mut warned = run(0, Kind::Backup, RunResult::Warnings, vec![good("a")]);
    warned.warnings = vec!["/x: vanished".into()];
    let messages = told.at(&[warned.clone()], 1);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].event, Event::Warning);
    assert!(messages[0].title.contains("/x: vanished"));
    // A host whose history begins before its messages do.
    let mut told = Told2::new();
    let events = told.events(&[warned], 72);
    assert!(!events.contains(&Event::Warning), "{events:?}");
}

#[test]
fn nothing_of_a_host_that_is_not_set_up() {
    let known = Notified::default();
    let mut fresh = status(&[], 0);
    fresh.evaluation.targets.clear();
    assert_eq!(decide(&known, &fresh, &When::Always).0, []);
    // Once there are targets, it is.
    let mut told = Told2::new();
    assert_eq!(told.events(&[], 0), [Event::Overdue]);
}

#[test]
fn each_guest_is_told_and_one_that_is_gone_is_no_recovery() {
    let mut told = Told2::new();
    let mut first = fine(0);
    first.guests = vec![
        guest(100, RunResult::Fine, vec![good("a")]),
        guest(101, RunResult::Fine, vec![good("a")]),
    ];
    let mut runs = vec![first];
    assert_eq!(told.events(&runs, 1), []);
    runs.push(fine(20));
    let messages = told.at(&runs, 27);
    assert_eq!(messages.len(), 1);
    assert!(
        messages[0].title.contains("2 in all"),
        "{}",
        messages[0].title
    );
    assert!(messages[0].text.contains("VM 101 (web)"));
    let mut again = run(28, Kind::Guests, RunResult::Fine, vec![]);
    again.guests = vec![guest(100, RunResult::Fine, vec![good("a")])];
    runs.push(again);
    let messages = told.at(&runs, 29);
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].title.contains("guest 100"));
    // Long after, nothing has tried to save 101 any more.
    for day in 2..12 {
        let mut next = run(day * 24, Kind::Backup, RunResult::Fine, vec![good("a")]);
        next.guests = vec![guest(100, RunResult::Fine, vec![good("a")])];
        runs.push(next);
    }
    let events = told.events(&runs, 11 * 24 + 1);
    assert!(!events.contains(&Event::Recovery), "{events:?}");
}

#[test]
fn low_space_once_a_week() {
    let mut told = Told2::new();
    let low = |hours: i64, free: u64| {
        let target = TargetRun {
            space: Some(Space { free, size: 100 }),
            ..good("a")
        };
        run(hours, Kind::Backup, RunResult::Fine, vec![target])
    };
    let mut runs = vec![low(0, 19)];
    let messages = told.at(&runs, 1);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].event, Event::LowSpace);
    assert!(
        messages[0].title.contains("(19 %)"),
        "{}",
        messages[0].title
    );
    for day in 1..7 {
        runs.push(low(day * 24, 18));
        assert_eq!(told.events(&runs, day * 24 + 1), [], "{day}");
    }
    runs.push(low(7 * 24, 30));
    told.events(&runs, 7 * 24 + 1);
    runs.push(low(7 * 24 + 2, 10));
    assert!(told.events(&runs, 7 * 24 + 3).contains(&Event::LowSpace));
}

#[test]
fn only_what_is_wanted_and_with_always_each_run() {
    let mut told = Told2::new();
    told.when = When::Of(vec![Event::Recovery]);
    let mut runs = vec![fine(0), bad(1)];
    assert_eq!(told.events(&runs, 2), []);
    runs.push(fine(3));
    // Nobody was told that it failed.
    assert_eq!(told.events(&runs, 4), []);
    told.when = When::Always;
    runs.push(fine(5));
    assert_eq!(told.events(&runs, 6), [Event::Fine]);
    runs.push(bad(7));
    assert_eq!(told.events(&runs, 8), [Event::Failure]);
    runs.push(fine(9));
    assert_eq!(told.events(&runs, 10), [Event::Recovery]);
}

#[test]
fn a_clock_that_went_back_silences_nothing() {
    let mut told = Told2::new();
    let runs = vec![fine(0), bad(100)];
    assert_eq!(told.events(&runs, 101), [Event::Failure]);
    let runs = vec![fine(0), bad(10)];
    assert_eq!(told.events(&runs, 11), [Event::Failure]);
}
