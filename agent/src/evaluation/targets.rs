//! What is known of each target.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::points::Marks;
use super::{Question, age, days_until};
use crate::history::{Kind, Run, Space, TargetRun};

/// How far back the trend of its room is looked at.
const TREND: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A target: a store, under the name that it was used with last, or a name under which no store was ever found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TargetState {
    /// As it was named last.
    pub target: PathBuf,
    /// The store's id.
    pub store: Option<String>,
    /// Whether it is a stick, or an image of one.
    pub stick: bool,
    /// Whether the configuration names it.
    pub configured: bool,
    /// When it was used last, well or not.
    pub seen: Option<Timestamp>,
    /// The newest restore point of the host, or of a guest, that went to it and that nothing bad is known of.
    pub newest: Option<Timestamp>,
    /// How many restore points of the host it held last.
    pub restore_points: Option<u64>,
    /// When `lifeboat verify` read it last, all of it or a part, and found it good.
    pub verified: Option<Timestamp>,
    /// That is too long ago, or has never been since it was written to first.
    pub verify_overdue: bool,
    /// Since when it is known to be damaged.
    pub damaged: Option<Timestamp>,
    /// Why it could not be used last.
    pub error: Option<String>,
    /// The room on it, as it was last.
    pub space: Option<Space>,
    /// In how many days it is full, if it goes on as in the last month.
    pub full_in_days: Option<f64>,
    #[serde(skip)]
    first: Option<Timestamp>,
    #[serde(skip)]
    room: Vec<(Timestamp, f64)>,
}

impl TargetState {
    fn named(target: PathBuf, configured: bool) -> TargetState {
        TargetState {
            target,
            store: None,
            stick: false,
            configured,
            seen: None,
            newest: None,
            restore_points: None,
            verified: None,
            verify_overdue: false,
            damaged: None,
            error: None,
            space: None,
            full_in_days: None,
            first: None,
            room: Vec::new(),
        }
    }
}

/// All of them: the configured ones in their order, then others, the one that was used last first.
pub(super) fn all(runs: &[Run], question: &Question<'_>, marks: &Marks) -> Vec<TargetState> {
    let mut all: Vec<TargetState> = Vec::new();
    for run in runs {
        let counts = match run.kind {
            Kind::Backup | Kind::Guests => true,
            Kind::Directories => question.directories,
            Kind::Verify | Kind::Drill => false,
        };
        let of_guests = run.guests.iter().flat_map(|guest| &guest.targets);
        let own = run.targets.iter().map(|target| (target, true));
        for (target, own) in own.chain(of_guests.map(|target| (target, false))) {
            let place = place(&mut all, target);
            let Some(state) = all.get_mut(place) else {
                continue;
            };
            state.target.clone_from(&target.target);
            state.stick |= target.stick;
            state.seen = Some(run.started);
            if target.store.is_some() {
                state.store.clone_from(&target.store);
            }
            // That a guest could not be written to it says nothing of the target.
            if own {
                state.error.clone_from(&target.error);
            }
            if target.restore_points.is_some() {
                state.restore_points = target.restore_points;
            }
            if let Some(space) = target.space {
                state.space = Some(space);
                let time = run.ended.unwrap_or(run.started);
                if question.at.duration_since(time) <= TREND {
                    state.room.push((time, space.free as f64));
                }
            }
            if counts && target.is_good() {
                state.newest = Some(run.started);
                state.first.get_or_insert(run.started);
            }
        }
    }
    for state in &mut all {
        let key = match &state.store {
            Some(store) => store.clone(),
            None => state.target.display().to_string(),
        };
        state.damaged = marks.damaged(&key);
        if state.damaged.is_some() {
            state.newest = None;
        }
        state.verified = marks.read(&key);
        let within = question.objectives.verified_within.seconds();
        let since = state.verified.max(state.first);
        state.verify_overdue = since.is_some_and(|time| age(question.at, time) > within);
        state.full_in_days = days_until(&state.room, 0.0);
        state.configured = question.configured.contains(&state.target);
    }
    all.sort_by_key(|t| std::cmp::Reverse(t.seen));
    let mut sorted = Vec::new();
    for name in question.configured {
        let (of_name, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|t| t.target == *name);
        all = others;
        match of_name.is_empty() {
            true => sorted.push(TargetState::named(name.clone(), true)),
            false => sorted.extend(of_name),
        }
    }
    sorted.extend(all);
    sorted
}

/// Which of them a document means; a new one where there is none yet.
fn place(all: &mut Vec<TargetState>, target: &TargetRun) -> usize {
    let same_name = |t: &TargetState| t.target == target.target;
    let known = match &target.store {
        Some(store) => all
            .iter()
            .position(|t| t.store.as_ref() == Some(store))
            // A name that only failures are known of has got its store.
            .or_else(|| all.iter().position(|t| t.store.is_none() && same_name(t))),
        // The store that had this name last is what was looked for.
        None => {
            let named = all.iter().enumerate().filter(|(_, t)| same_name(t));
            named.max_by_key(|(_, t)| t.seen).map(|(place, _)| place)
        }
    };
    known.unwrap_or_else(|| {
        all.push(TargetState::named(target.target.clone(), false));
        all.len() - 1
    })
}
