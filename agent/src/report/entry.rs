//! Single runs, as the report lists them.

use super::build::Facts;
use super::model::{self, How};
use super::period::Days;
use crate::evaluation::age;
use crate::history::{GuestRun, Run, RunResult, State, TargetRun};

/// How many reasons and notes of a run are listed. A host with a hundred unreadable files says so in the first lines.
const LINES: usize = 50;

/// How a run ended, if it did.
pub fn how(run: &Run) -> How {
    match run.state() {
        State::Running => How::Running,
        State::Died => How::Died,
        State::Ended(RunResult::Fine) => How::Fine,
        State::Ended(RunResult::Warnings) => How::Warnings,
        State::Ended(RunResult::Failed) => How::Failed,
    }
}

fn all_targets(run: &Run) -> impl Iterator<Item = &TargetRun> {
    let of_guests = run.guests.iter().flat_map(|guest| &guest.targets);
    run.targets.iter().chain(of_guests)
}

/// What was written to all targets, guests included.
pub fn bytes_written(run: &Run) -> u64 {
    let written = all_targets(run).map(|t| t.bytes_written);
    written.fold(0, u64::saturating_add)
}

/// What was read back of all targets.
pub fn bytes_verified(run: &Run) -> u64 {
    let verified = all_targets(run).map(|t| t.verified_bytes);
    verified.fold(0, u64::saturating_add)
}

/// A target as the report calls it everywhere.
pub fn target_title(target: &TargetRun, facts: &Facts<'_>) -> String {
    match facts.known.index(target) {
        Some(index) => facts.known.places[index].title(&facts.known.places),
        None => target.target.display().to_string(),
    }
}

/// Why a run is not fine: everything that went wrong in it, the worst first.
pub fn why(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    if how(run) == How::Died {
        let text = "it ended without a result: it was killed, or the machine lost its power";
        lines.push(text.to_owned());
    }
    lines.extend(run.error.clone());
    for target in &run.targets {
        of_target(target, "", &mut lines);
    }
    for guest in &run.guests {
        of_guest(guest, &mut lines);
    }
    lines.extend(run.warnings.iter().cloned());
    shortened(lines)
}

fn of_target(target: &TargetRun, whose: &str, lines: &mut Vec<String>) {
    let name = target.target.display();
    let mut say = |text: &str| lines.push(format!("{whose}{name}: {}", text.trim()));
    target.error.iter().for_each(|text| say(text));
    if target.verified == Some(false) && target.damage.is_empty() {
        say("what was read back is not what was written");
    }
    target.damage.iter().for_each(|text| say(text));
    target.problems.iter().for_each(|text| say(text));
}

fn of_guest(guest: &GuestRun, lines: &mut Vec<String>) {
    let title = bundle::document::guest::title(guest.kind, guest.id, guest.name.as_deref());
    match &guest.error {
        Some(error) => lines.push(format!("{title}: {error}")),
        None if guest.result == RunResult::Failed => lines.push(format!("{title}: not saved")),
        None => {}
    }
    let warnings = guest.warnings.iter();
    lines.extend(warnings.map(|text| format!("{title}: {text}")));
    for target in &guest.targets {
        of_target(target, &format!("{title}: "), lines);
    }
}

fn shortened(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > LINES {
        let more = lines.len() - LINES;
        lines.truncate(LINES);
        lines.push(format!("and {more} more, in the document of the run"));
    }
    lines
}

/// For the list of runs.
pub fn run(run: &Run, days: &Days) -> model::Run {
    model::Run {
        id: run.id.clone(),
        kind: run.kind,
        trigger: run.trigger,
        user: run.user.clone(),
        host: run.host.clone(),
        started: days.say(run.started),
        ended: run.ended.map(|at| days.say(at)),
        date: days.date(run.started).to_string(),
        seconds: run.ended.map(|at| age(at, run.started)),
        result: how(run),
        why: why(run),
        files: run.files,
        bytes: run.bytes,
        bytes_read: run.bytes_read,
        bytes_written: bytes_written(run),
        bytes_verified: bytes_verified(run),
        phases: run.phases.clone(),
        targets: run.targets.iter().map(target).collect(),
        guests: run.guests.iter().map(guest).collect(),
        notes: shortened(run.notes.clone()),
    }
}

fn target(target: &TargetRun) -> model::RunTarget {
    model::RunTarget {
        target: target.target.display().to_string(),
        snapshot: target.snapshot.map(|id| id.to_string()),
        bytes_written: target.bytes_written,
        verified: target.verified,
        bytes_verified: target.verified_bytes,
        restore_points: target.restore_points,
        free_bytes: target.space.map(|space| space.free),
    }
}

fn guest(guest: &GuestRun) -> model::RunGuest {
    model::RunGuest {
        id: guest.id,
        kind: guest.kind,
        name: guest.name.clone(),
        result: guest.result,
        bytes: guest.bytes,
        seconds: guest.seconds,
        targets: guest.targets.iter().filter(|t| t.is_good()).count() as u64,
    }
}
