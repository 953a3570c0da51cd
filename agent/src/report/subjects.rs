//! Targets and guests, one by one.

use std::collections::BTreeMap;

use super::build::Facts;
use super::entry;
use super::known::{Place, Point, intervals, key};
use super::model::{Good, Guest, Kept, Target};
use super::trend::{of_targets, percent};
use crate::evaluation::granted;
use crate::evaluation::{GuestState, TargetState, age};
use crate::history::{GuestRun, Kind, RunResult, TargetRun};

/// The targets that are configured, or were used in the period.
pub fn targets(facts: &Facts<'_>) -> Vec<Target> {
    let mut trends = of_targets(facts);
    let all = facts.state.targets.iter();
    all.filter_map(|state| {
        let run = TargetRun {
            store: state.store.clone(),
            ..TargetRun::new(&state.target)
        };
        let index = facts.known.index(&run).filter(|_| state.seen.is_some());
        let mut target = match index {
            Some(index) => target(facts, index, state),
            None => Target::default(),
        };
        if !state.configured && target.attempts == 0 && target.reads == 0 {
            return None;
        }
        target.name = entry::target_title(&run, facts);
        target.store.clone_from(&state.store);
        target.stick = state.stick;
        target.configured = state.configured;
        target.restore_points = state.restore_points;
        target.last_seen = state.seen.map(|at| facts.days.say(at));
        target.damaged = state.damaged.map(|at| facts.days.say(at));
        target.full_in_days = state.full_in_days.map(|days| (days * 10.0).round() / 10.0);
        target.free_bytes = state.space.map(|space| space.free);
        target.size_bytes = state.space.map(|space| space.size);
        target.free_percent = state.space.map(|space| percent(space.free_share()));
        if let Some(trend) = index.and_then(|index| trends.get_mut(index)) {
            target.trend = std::mem::take(trend);
        }
        Some(target)
    })
    .collect()
}

fn target(facts: &Facts<'_>, index: usize, state: &TargetState) -> Target {
    let mut target = Target::default();
    let Some(place) = facts.known.places.get(index) else {
        return target;
    };
    for run in &facts.inside {
        let of_guests = run.guests.iter().flat_map(|guest| &guest.targets);
        for used in run.targets.iter().chain(of_guests) {
            if facts.known.index(used) != Some(index) {
                continue;
            }
            target.attempts += 1;
            let failed = used.error.is_some() || used.verified == Some(false);
            target.failures += u64::from(failed);
            target.bytes_written += used.bytes_written;
            target.bytes_verified += used.verified_bytes;
        }
    }
    let inside = place.reads.iter().filter(|read| facts.days.hold(read.at));
    target.reads = inside.clone().count() as u64;
    target.reads_bad = inside.filter(|read| !read.good).count() as u64;
    let by_verify = || place.reads.iter().rev().filter(|read| read.verify);
    target.last_read = by_verify().next().map(|read| read.say(facts.days));
    let whole = by_verify().find(|read| read.whole);
    target.last_whole_read = whole.map(|read| read.say(facts.days));
    if state.damaged.is_some() {
        target.damage = place.damage();
    }
    target.last_good = last_good(facts, index, state);
    target.oldest = oldest(facts, index, place, state);
    target
}

fn last_good(facts: &Facts<'_>, index: usize, state: &TargetState) -> Option<Good> {
    let newest = state.newest?;
    let guests = facts.known.guests.values().flatten();
    let mut all = facts.known.host.iter().chain(guests);
    let point = all.find(|point| point.place == index && point.run.started == newest)?;
    Some(good(facts, point))
}

fn good(facts: &Facts<'_>, point: &Point<'_>) -> Good {
    Good {
        at: facts.days.say(point.made),
        age_seconds: age(facts.days.as_of, point.made),
        run: point.run.id.clone(),
        snapshot: point
            .target
            .snapshot
            .map_or(String::new(), |id| id.to_string()),
        target: entry::target_title(point.target, facts),
        verified: point.target.verified == Some(true),
    }
}

/// When the oldest restore point that it holds was made. That is known only where all that ever went to it is known, and
/// is still there: history does not say what was removed.
fn oldest(facts: &Facts<'_>, index: usize, place: &Place, state: &TargetState) -> Option<String> {
    place.store.as_ref()?;
    let here = |run: &&TargetRun| facts.known.index(run) == Some(index);
    let snapshots = |run: &&TargetRun| run.snapshot.is_some();
    let made: Vec<_> = facts
        .runs
        .iter()
        .filter(|run| facts.is_for_host(run))
        .flat_map(|run| run.targets.iter().map(move |target| (run, target)))
        .filter(|(_, target)| here(target) && snapshots(target))
        .collect();
    let (run, first) = made.first()?;
    let all_known = first.restore_points == Some(1);
    let all_there = state.restore_points == Some(made.len() as u64);
    (all_known && all_there).then(|| facts.days.say(run.started))
}

/// The guests that were saved lately, or that runs of the period tried to save.
pub fn guests(facts: &Facts<'_>) -> Vec<Guest> {
    let mut inside: BTreeMap<(u32, bool), Vec<&GuestRun>> = BTreeMap::new();
    let saving = facts.inside.iter().filter(|run| run.kind != Kind::Drill);
    for run in saving {
        for guest in &run.guests {
            let (is_vm, id) = key(guest);
            inside.entry((id, !is_vm)).or_default().push(guest);
        }
    }
    let mut guests: Vec<Guest> = Vec::new();
    for state in &facts.state.guests {
        let is_vm = state.guest.kind == bundle::document::guest::GuestKind::Qemu;
        let runs = inside.remove(&(state.guest.id, !is_vm)).unwrap_or_default();
        guests.push(present(facts, state, &runs, is_vm));
    }
    for runs in inside.into_values() {
        let Some(last) = runs.last() else { continue };
        let good_run = runs.iter().rev().find(|g| g.result != RunResult::Failed);
        let points = facts.known.guests.get(&key(last));
        let whole = |point: &&Point<'_>| facts.known.places[point.place].damage().is_empty();
        let newest = points.and_then(|points| points.iter().rev().find(whole));
        guests.push(Guest {
            id: last.id,
            kind: last.kind,
            name: last.name.clone(),
            present: false,
            runs: runs.len() as u64,
            failures: failures(&runs),
            last_good: newest.map(|point| good(facts, point)),
            longest_seconds: None,
            verdict: Kept::NotApplicable,
            bytes: good_run.map(|g| g.bytes),
            seconds: good_run.map(|g| g.seconds),
            last_error: last.error.clone(),
        });
    }
    guests.sort_by_key(|guest| (!guest.present, guest.id));
    guests
}

fn failures(runs: &[&GuestRun]) -> u64 {
    let failed = runs.iter().filter(|g| g.result == RunResult::Failed);
    failed.count() as u64
}

fn present(facts: &Facts<'_>, state: &GuestState, runs: &[&GuestRun], is_vm: bool) -> Guest {
    let protection = &state.protection;
    let none = Vec::new();
    let points = facts
        .known
        .guests
        .get(&(is_vm, state.guest.id))
        .unwrap_or(&none);
    // A guest is new when it is saved first; it is not known whether it was there before.
    let first = points.first().map(|point| point.made);
    let intervals = intervals(points, first, facts.days);
    let longest = intervals.iter().map(|i| i.seconds).max();
    let limit = granted(facts.config.objectives.guests_rpo.seconds());
    let missed = protection.overdue || longest.is_some_and(|longest| longest > limit);
    let saved = protection.newest.is_some();
    Guest {
        id: state.guest.id,
        kind: state.guest.kind,
        name: state.guest.name.clone(),
        present: true,
        runs: runs.len() as u64,
        failures: failures(runs),
        last_good: protection.newest.as_ref().map(|point| facts.good(point)),
        longest_seconds: longest,
        verdict: if missed { Kept::Missed } else { Kept::Met },
        bytes: saved.then_some(state.bytes),
        seconds: saved.then_some(state.seconds),
        last_error: protection.error.clone(),
    }
}
