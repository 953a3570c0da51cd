//! Newest good restore points, and what is known against others.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{Guest, GuestState, Point, Protection, Question, age};
use crate::history::{Kind, Run, RunResult, State, TargetRun};

/// How long a guest that no run tries to save any more is still asked for: it may be gone from the node.
const LATELY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What verifications found, by store.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Since when a store is known to be damaged, where nothing has shown yet that it is whole again.
    damaged: BTreeMap<String, Timestamp>,
    /// When it was read last and found good, in a whole or a part.
    read: BTreeMap<String, Timestamp>,
}

/// How a target is known: by its store, or by its name as long as that is all there is.
pub(super) fn key(target: &TargetRun) -> String {
    match &target.store {
        Some(store) => store.clone(),
        None => target.target.display().to_string(),
    }
}

/// The targets of a run, those of its guests among them.
pub(super) fn written(run: &Run) -> impl Iterator<Item = &TargetRun> {
    let guests = run.guests.iter().flat_map(|guest| &guest.targets);
    run.targets.iter().chain(guests)
}

impl Marks {
    pub(super) fn of(runs: &[Run]) -> Marks {
        let mut marks = Marks::default();
        for run in runs {
            for target in written(run) {
                let key = key(target);
                match target.verified {
                    Some(true) if run.kind == Kind::Verify => {
                        // A part that is good says nothing of the rest.
                        if target.whole {
                            marks.damaged.remove(&key);
                        }
                        marks.read.insert(key, run.ended.unwrap_or(run.started));
                    }
                    Some(false) if damaged(target) => {
                        marks.damaged.entry(key).or_insert(run.started);
                    }
                    _ => {}
                }
            }
        }
        marks
    }

    /// Since when it is known to be damaged.
    pub(super) fn damaged(&self, key: &str) -> Option<Timestamp> {
        self.damaged.get(key).copied()
    }

    /// When `lifeboat verify` read it last, and found it good.
    pub(super) fn read(&self, key: &str) -> Option<Timestamp> {
        self.read.get(key).copied()
    }
}

/// A store that an older state was put back to does not verify, either, and is whole.
fn damaged(target: &TargetRun) -> bool {
    !target.damage.is_empty() || target.problems.is_empty()
}

/// One attempt to save something.
struct Attempt<'r> {
    run: &'r Run,
    targets: &'r [TargetRun],
    /// It failed, whatever is on any target.
    failed: bool,
    error: Option<String>,
    /// What was saved is as of then.
    as_of: Timestamp,
    /// Nothing was there to save that is not saved already.
    unchanged: bool,
}

pub(super) fn host(runs: &[Run], question: &Question<'_>, marks: &Marks) -> Protection {
    let kinds: &[Kind] = match question.directories {
        true => &[Kind::Backup, Kind::Directories],
        false => &[Kind::Backup],
    };
    let attempts = runs.iter().filter(|run| kinds.contains(&run.kind));
    let attempts = attempts.map(|run| Attempt {
        run,
        targets: &run.targets,
        failed: false,
        error: reason(run),
        as_of: run.started,
        unchanged: false,
    });
    let rpo = question.objectives.host_rpo.seconds();
    protection(attempts, rpo, question.at, marks)
}

pub(super) fn guest(
    runs: &[Run],
    question: &Question<'_>,
    marks: &Marks,
    mut guest: Guest,
) -> GuestState {
    let (mut bytes, mut seconds) = (0, 0);
    let mut attempts = Vec::new();
    for run in runs {
        let same = run.guests.iter();
        for found in same.filter(|g| (g.id, g.kind) == (guest.id, guest.kind)) {
            if found.result != RunResult::Failed {
                (bytes, seconds) = (found.bytes, found.seconds);
            }
            if guest.name.is_none() {
                guest.name.clone_from(&found.name);
            }
            attempts.push(Attempt {
                run,
                targets: &found.targets,
                failed: found.error.is_some(),
                error: found.error.clone().or_else(|| of_targets(&found.targets)),
                as_of: found.dumped.unwrap_or(run.started),
                unchanged: found.targets.is_empty() && found.result == RunResult::Fine,
            });
        }
    }
    let rpo = question.objectives.guests_rpo.seconds();
    GuestState {
        guest,
        protection: protection(attempts.into_iter(), rpo, question.at, marks),
        bytes,
        seconds,
    }
}

/// The guests that runs tried to save lately.
pub(super) fn lately(runs: &[Run], question: &Question<'_>) -> Vec<Guest> {
    let rpo = SignedDuration::try_from(std::time::Duration::from(question.objectives.guests_rpo));
    let span = LATELY.max(rpo.unwrap_or_default());
    let mut found: BTreeMap<u32, Guest> = BTreeMap::new();
    for run in runs {
        if question.at.duration_since(run.started) > span {
            continue;
        }
        for guest in &run.guests {
            let (id, kind, name) = (guest.id, guest.kind, guest.name.clone());
            found.insert(id, Guest { id, kind, name });
        }
    }
    found.into_values().collect()
}

fn protection<'r>(
    attempts: impl Iterator<Item = Attempt<'r>>,
    rpo_seconds: u64,
    at: Timestamp,
    marks: &Marks,
) -> Protection {
    let mut state = Protection {
        newest: None,
        age_seconds: None,
        rpo_seconds,
        overdue: true,
        verified: None,
        tried: false,
        failing_since: None,
        error: None,
    };
    for attempt in attempts {
        let run = attempt.run;
        if run.state() == State::Running {
            continue;
        }
        state.tried = true;
        let usable =
            |t: &&TargetRun| t.is_good() && marks.damaged(&key(t)).is_none() && !attempt.failed;
        // Of several, one that was read back.
        let mut good: Vec<&TargetRun> = attempt.targets.iter().filter(usable).collect();
        good.sort_by_key(|t| t.verified == Some(true));
        if attempt.unchanged {
            (state.failing_since, state.error) = (None, None);
            continue;
        }
        let Some(best) = good.last() else {
            state.failing_since.get_or_insert(run.started);
            state.error = attempt.error.or_else(|| of_marks(attempt.targets, marks));
            continue;
        };
        (state.failing_since, state.error) = (None, None);
        let read = |t: &&TargetRun| {
            let back = (t.verified == Some(true)).then(|| run.ended.unwrap_or(run.started));
            // All that the store held was read later, or a part of it.
            let later = marks.read(&key(t)).filter(|time| *time >= run.started);
            back.max(later)
        };
        state.verified = state.verified.max(good.iter().filter_map(read).max());
        if let Some(snapshot) = best.snapshot {
            state.newest = Some(Point {
                time: attempt.as_of,
                run: run.id.clone(),
                target: best.target.clone(),
                store: best.store.clone(),
                snapshot,
                read_back: best.verified == Some(true),
            });
        }
    }
    state.age_seconds = state.newest.as_ref().map(|point| age(at, point.time));
    state.overdue = state
        .age_seconds
        .is_none_or(|age| age > granted(rpo_seconds));
    state
}

/// How old a restore point may become before it counts as overdue: a tenth more than the objective. The timer of the next
/// day starts at a random moment, and its backup takes some time: without it, every night would begin with an alarm.
pub fn granted(objective: u64) -> u64 {
    objective.saturating_add(objective / 10)
}

fn of_marks(targets: &[TargetRun], marks: &Marks) -> Option<String> {
    let damaged = targets.iter().find(|t| marks.damaged(&key(t)).is_some())?;
    Some(format!(
        "{} was found to be damaged later",
        damaged.target.display()
    ))
}

fn of_targets(targets: &[TargetRun]) -> Option<String> {
    targets.iter().find_map(|target| {
        let name = target.target.display();
        let error = target.error.as_ref().map(|e| format!("{name}: {e}"));
        error.or_else(|| {
            let first = target.damage.first().map(|d| d.trim().to_owned());
            let text = match first {
                Some(first) => format!("{name}: damaged: {first}"),
                None => format!("{name}: what was written does not read back"),
            };
            (target.verified == Some(false)).then_some(text)
        })
    })
}

/// Why a run did not end well, in the words of the first thing that did not.
pub(super) fn reason(run: &Run) -> Option<String> {
    let result = match run.state() {
        State::Running | State::Ended(RunResult::Fine) => return None,
        State::Died => {
            return Some(
                "it was killed, or the machine lost its power or was started anew meanwhile".into(),
            );
        }
        State::Ended(result) => result,
    };
    let of_guests = || {
        run.guests.iter().find_map(|guest| {
            let error = guest.error.clone().or_else(|| of_targets(&guest.targets))?;
            let title = Guest {
                id: guest.id,
                kind: guest.kind,
                name: guest.name.clone(),
            };
            Some(format!("{}: {error}", title.title()))
        })
    };
    let problems = || {
        run.targets
            .iter()
            .find_map(|t| Some(format!("{}: {}", t.target.display(), t.problems.first()?)))
    };
    let of_guest_warnings = || run.guests.iter().find_map(|g| g.warnings.first().cloned());
    run.error
        .clone()
        .or_else(|| of_targets(&run.targets))
        .or_else(of_guests)
        .or_else(problems)
        .or_else(|| run.warnings.first().cloned())
        .or_else(of_guest_warnings)
        .or_else(|| (result == RunResult::Failed).then(|| "no reason was noted".into()))
}
