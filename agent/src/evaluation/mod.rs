//! What the backups of this host are worth at a moment, told from the history of its runs alone: no target is needed, and
//! nothing is asked or changed. `lifeboat status`, messages, metrics and reports are made of this.

mod findings;
mod points;
mod targets;
mod trend;

use std::path::PathBuf;

use bundle::Id;
use bundle::document::guest::{GuestKind, title};
use jiff::Timestamp;
use serde::Serialize;

use crate::history::{Kind, Run, RunResult, State};
use crate::objectives::Objectives;

pub use findings::{Finding, Level, Topic, findings, span, worst};
pub use points::granted;
pub use targets::TargetState;
pub use trend::days_until;

/// What a history is looked at with.
#[derive(Debug, Clone)]
pub struct Question<'q> {
    /// The moment that is asked about; later runs count for nothing.
    pub at: Timestamp,
    /// What backups are held against.
    pub objectives: &'q Objectives,
    /// Targets of the configuration.
    pub configured: &'q [PathBuf],
    /// Only directories of this host are to be saved (`roots`): such runs stand for the host.
    pub directories: bool,
    /// Guests that are to be saved; `None`: those that the history knows of lately.
    pub guests: Option<&'q [Guest]>,
}

/// A guest by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// Its number.
    pub id: u32,
    /// VM or container.
    pub kind: GuestKind,
    /// Its name.
    pub name: Option<String>,
}

impl Guest {
    /// `VM 100 (web)`
    pub fn title(&self) -> String {
        title(self.kind, self.id, self.name.as_deref())
    }
}

/// What the history says.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// The moment that was asked about.
    pub at: Timestamp,
    /// The host, or its directories.
    pub host: Protection,
    /// Each guest.
    pub guests: Vec<GuestState>,
    /// Each target, the configured ones first, in their order.
    pub targets: Vec<TargetState>,
    /// Restores that were tried.
    pub drill: Drill,
    /// Runs that were not over at that moment.
    pub running: Vec<RunRef>,
    /// The last run that was over.
    pub last_run: Option<RunRef>,
    /// The last one of each kind that was over.
    pub last_runs: Vec<LastRun>,
    /// Runs that are dated later than the moment, where that is no question about the past: the clock was, or is, wrong.
    pub later: usize,
}

/// A run in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRef {
    /// Name of its document.
    pub id: String,
    /// What it did.
    pub kind: Kind,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; nothing for one that runs or died.
    pub ended: Option<Timestamp>,
    /// How it ended; nothing while it runs.
    pub result: Option<RunResult>,
    /// It was killed, or the machine lost its power.
    pub died: bool,
    /// Who started it.
    pub user: String,
    /// Its process.
    pub pid: i32,
    /// Why it failed, in the words of the first thing that did.
    pub reason: Option<String>,
}

/// The last run of a kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastRun {
    /// The run.
    #[serde(flatten)]
    pub run: RunRef,
    /// When the last one began that ended well, or with warnings.
    pub success: Option<Timestamp>,
    /// What it read of the host.
    pub bytes_read: u64,
    /// What it wrote, to all targets together.
    pub bytes_written: u64,
}

impl RunRef {
    /// Of a document.
    pub fn of(run: &Run) -> RunRef {
        let state = run.state();
        let died = state == State::Died;
        RunRef {
            id: run.id.clone(),
            kind: run.kind,
            started: run.started,
            ended: run.ended,
            result: match state {
                State::Running => None,
                State::Ended(result) => Some(result),
                State::Died => Some(RunResult::Failed),
            },
            died,
            user: run.user.clone(),
            pid: run.process.pid,
            reason: points::reason(run),
        }
    }
}

/// A restore point that nothing bad is known of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// What it shows is as of this moment: the beginning of the run that made it, or the time of a dump that was there before.
    pub time: Timestamp,
    /// The run.
    pub run: String,
    /// Where it is.
    pub target: PathBuf,
    /// The store's id.
    pub store: Option<String>,
    /// Its own id.
    pub snapshot: Id,
    /// Whether it was read back right after it was written.
    pub read_back: bool,
}

/// How well something is saved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Protection {
    /// Its newest good restore point, on whichever target.
    pub newest: Option<Point>,
    /// How old that one is.
    pub age_seconds: Option<u64>,
    /// How old it may be.
    pub rpo_seconds: u64,
    /// It is older than that, or there is none.
    pub overdue: bool,
    /// When a good restore point of it was read last: right after it was made, or by `lifeboat verify`.
    pub verified: Option<Timestamp>,
    /// Whether a run ever tried to save it.
    pub tried: bool,
    /// Since when each attempt failed, where the last one did.
    pub failing_since: Option<Timestamp>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// A guest, and how well it is saved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GuestState {
    /// Which.
    #[serde(flatten)]
    pub guest: Guest,
    /// How well.
    #[serde(flatten)]
    pub protection: Protection,
    /// What its dump took of disk, and of time, last.
    pub bytes: u64,
    pub seconds: u64,
}

/// Restores that were tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drill {
    /// The last one that went well; without one, nothing is proven.
    pub proven: Option<Timestamp>,
    /// How long ago that may be.
    pub within_seconds: u64,
    /// It is longer ago than that. Not said where none was ever made.
    pub overdue: bool,
    /// The last one of all.
    pub last: Option<RunRef>,
}

/// Looks at a history, which is in order of time, as [`crate::history::all`] gives it.
pub fn evaluate(runs: &[Run], question: &Question<'_>) -> Evaluation {
    let at = question.at;
    let (runs, later) = {
        let until = runs.partition_point(|run| run.started <= at);
        runs.split_at(until)
    };
    let marks = points::Marks::of(runs);
    let targets = targets::all(runs, question, &marks);
    let wanted = match question.guests {
        Some(guests) => guests.to_vec(),
        None => points::lately(runs, question),
    };
    let over = |run: &&Run| run.ended.is_none_or(|end| end <= at) && run.state() != State::Running;
    Evaluation {
        at,
        host: points::host(runs, question, &marks),
        guests: wanted
            .into_iter()
            .map(|guest| points::guest(runs, question, &marks, guest))
            .collect(),
        targets,
        drill: drill(runs, question),
        running: runs
            .iter()
            .filter(|run| !over(run))
            .map(RunRef::of)
            .collect(),
        last_run: runs.iter().rfind(over).map(RunRef::of),
        last_runs: last_runs(runs, question, &over),
        later: later.len(),
    }
}

fn last_runs(runs: &[Run], question: &Question<'_>, over: &dyn Fn(&&Run) -> bool) -> Vec<LastRun> {
    let kinds = [
        Kind::Backup,
        Kind::Guests,
        Kind::Directories,
        Kind::Verify,
        Kind::Drill,
    ];
    // Directories that somebody saves by hand are no matter of the host.
    let kinds = kinds
        .into_iter()
        .filter(|kind| *kind != Kind::Directories || question.directories);
    let last = kinds.filter_map(|kind| {
        let of_kind = || {
            runs.iter()
                .filter(|run| run.kind == kind)
                .filter(|r| over(r))
        };
        let run = of_kind().next_back()?;
        let well = |run: &&Run| matches!(run.result, Some(RunResult::Fine | RunResult::Warnings));
        Some(LastRun {
            run: RunRef::of(run),
            success: of_kind().rfind(well).map(|run| run.started),
            bytes_read: run.bytes_read,
            bytes_written: points::written(run).map(|t| t.bytes_written).sum(),
        })
    });
    last.collect()
}

fn drill(runs: &[Run], question: &Question<'_>) -> Drill {
    let within = question.objectives.drilled_within.seconds();
    let drills = || runs.iter().filter(|r| r.kind == Kind::Drill);
    let proven = drills()
        .rfind(|r| {
            matches!(
                r.state(),
                State::Ended(RunResult::Fine | RunResult::Warnings)
            )
        })
        .map(|r| r.started);
    Drill {
        proven,
        within_seconds: within,
        overdue: proven.is_some_and(|time| age(question.at, time) > within),
        last: drills().next_back().map(RunRef::of),
    }
}

/// Seconds from then to now; none for what is yet to come.
pub fn age(now: Timestamp, then: Timestamp) -> u64 {
    u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests;
