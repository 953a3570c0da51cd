//! The report as data: what `--format json` writes, and what every figure of the page comes from. Times are in local time
//! with their distance to UTC (RFC 3339), spans in seconds, sizes in bytes. `null` says that something is not known, and
//! never that it is nothing. Described in docs/reports.md.

use bundle::document::guest::GuestKind;
use serde::Serialize;

use crate::evaluation::Level;
use crate::history::{Kind, Phase, RunResult, Trigger};

/// Version of the report.
pub const FORMAT: u32 = 1;

/// A moment in local time: RFC 3339.
pub type Time = String;

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`FORMAT`]
    pub format: u32,
    /// Which program, in which version.
    pub program: String,
    pub generated: Time,
    pub host: Host,
    pub period: Period,
    pub history: History,
    pub verdict: Verdict,
    pub advice: Vec<Advice>,
    pub summary: Summary,
    pub objectives: Vec<Objective>,
    /// 3-2-1-1-0, as far as history can know.
    pub rules: Vec<Rule>,
    pub days: Vec<Day>,
    /// Spans longer than the objective without a new good restore point of the host.
    pub gaps: Vec<Gap>,
    pub trend: Trend,
    pub retention: Retention,
    pub targets: Vec<Target>,
    pub guests: Vec<Guest>,
    pub verifications: Vec<Verification>,
    pub drills: Drills,
    pub runs: Vec<Run>,
}

#[derive(Debug, Serialize)]
pub struct Host {
    pub name: String,
    pub machine_id: String,
}

#[derive(Debug, Serialize)]
pub struct Period {
    /// The first day.
    pub since: String,
    /// The last day.
    pub until: String,
    pub days: u64,
    pub start: Time,
    pub end: Time,
    /// The moment for which ages are given: the end, or when the report was made.
    pub as_of: Time,
    /// Whether it was over when the report was made.
    pub over: bool,
    /// IANA's name, where it is known.
    pub time_zone: Option<String>,
}

/// What the report was made of.
#[derive(Debug, Serialize)]
pub struct History {
    /// Documents of runs that were read, of all times.
    pub documents: u64,
    /// Documents that are there and could not be read.
    pub unreadable: u64,
    /// When the first of these runs began: nothing is known of the time before.
    pub first_run: Option<Time>,
}

#[derive(Debug, Serialize)]
pub struct Verdict {
    pub level: Level,
    pub text: String,
    pub objectives_met: u64,
    pub objectives_missed: u64,
    /// Not measured.
    pub objectives_open: u64,
}

/// What should be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    pub level: Level,
    pub text: String,
    /// With the command.
    pub todo: String,
}

/// Of the runs of the period.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    pub runs: u64,
    pub fine: u64,
    pub warnings: u64,
    pub failed: u64,
    /// Those whose process ended without a result: killed, or the machine lost its power.
    pub died: u64,
    pub running: u64,
    /// Restore points of the host that were made, counted once for all targets.
    pub restore_points: u64,
    /// Days that are over or begun, since history began.
    pub days_known: u64,
    pub days_without: u64,
    pub backup_seconds_median: Option<u64>,
    pub backup_seconds_longest: Option<u64>,
    pub bytes_written: u64,
    pub bytes_verified: u64,
    /// The newest good restore point of the host at the end, also when it was made before the period.
    pub last_good: Option<Good>,
    pub last_verified: Option<Time>,
    pub last_drilled: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Good {
    /// What it holds is as of this moment: when the run began.
    pub at: Time,
    pub age_seconds: u64,
    pub run: String,
    pub snapshot: String,
    pub target: String,
    /// Whether it was read back.
    pub verified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    Met,
    Missed,
    NotMeasured,
    NotApplicable,
}

#[derive(Debug, Serialize)]
pub struct Objective {
    /// The setting in `[objectives]`.
    pub setting: &'static str,
    pub title: &'static str,
    pub limit_seconds: u64,
    /// At the end of the period.
    pub measured_seconds: Option<u64>,
    /// The longest in the period, where that is something else.
    pub longest_seconds: Option<u64>,
    pub verdict: Kept,
    /// How it was measured, or why it was not.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    Met,
    Missed,
    Unknown,
}

#[derive(Debug, Serialize)]
pub struct Rule {
    pub rule: &'static str,
    pub wanted: u64,
    pub found: Option<u64>,
    pub verdict: Known,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DayState {
    /// A new good restore point, and nothing else to say.
    Good,
    /// A new good restore point, and something that went wrong.
    Warnings,
    /// It was tried, and there is no new good restore point.
    Failed,
    /// No backup of the host.
    None,
    /// Before the first document of history.
    Before,
    /// To come.
    Future,
}

#[derive(Debug, Clone, Serialize)]
pub struct Day {
    pub date: String,
    pub state: DayState,
    pub runs: u64,
    pub fine: u64,
    pub warnings: u64,
    /// With those that died.
    pub failed: u64,
    pub restore_points: u64,
    pub bytes_written: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The beginning of the run that made the last good one; or of what is known.
    pub from: Time,
    /// When the next good one was complete; nothing while there is none.
    pub to: Option<Time>,
    pub seconds: u64,
    /// Runs that tried and did not make one.
    pub failed_runs: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    Hour,
    Day,
    Week,
    Month,
}

#[derive(Debug, Serialize)]
pub struct Trend {
    pub step: Step,
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Bucket {
    pub start: Time,
    pub runs: u64,
    pub fine: u64,
    pub warnings: u64,
    pub failed: u64,
    /// Of backups of the host that came to an end.
    pub backup_seconds_median: Option<u64>,
    pub backup_seconds_longest: Option<u64>,
    /// What the host holds, by the last backup.
    pub host_bytes: Option<u64>,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub bytes_verified: u64,
}

#[derive(Debug, Serialize)]
pub struct Retention {
    /// `when-full`, `always` or `never`.
    pub automatic: crate::retention::Automatic,
    pub host: bundle::prune::Policy,
    pub guests: bundle::prune::Policy,
}

#[derive(Debug, Default, Serialize)]
pub struct Target {
    pub name: String,
    pub store: Option<String>,
    pub stick: bool,
    pub attempts: u64,
    pub failures: u64,
    pub bytes_written: u64,
    pub last_good: Option<Good>,
    /// Restore points of this host when it was last seen.
    pub restore_points: Option<u64>,
    /// Only where all that was ever made is still there; otherwise only the target knows.
    pub oldest: Option<Time>,
    pub last_seen: Option<Time>,
    pub configured: bool,
    /// If it goes on as in the last month.
    pub full_in_days: Option<f64>,
    pub free_bytes: Option<u64>,
    pub size_bytes: Option<u64>,
    pub free_percent: Option<f64>,
    /// Reads in the period: after backups, and by `lifeboat verify`.
    pub reads: u64,
    pub reads_bad: u64,
    pub bytes_verified: u64,
    /// By `lifeboat verify`, of all times.
    pub last_read: Option<Read>,
    pub last_whole_read: Option<Read>,
    /// Since when damage is known that no read of all of it has taken back.
    pub damaged: Option<Time>,
    pub damage: Vec<String>,
    /// Its room and its restore points, for every bucket of the trend.
    pub trend: Vec<TargetPoint>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Read {
    pub at: Time,
    pub age_seconds: u64,
    pub run: String,
    pub bytes: u64,
    pub good: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TargetPoint {
    pub free_percent: Option<f64>,
    pub restore_points: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct Guest {
    pub id: u32,
    pub kind: GuestKind,
    pub name: Option<String>,
    /// Whether runs tried to save it in the last week.
    pub present: bool,
    pub runs: u64,
    pub failures: u64,
    pub last_good: Option<Good>,
    pub longest_seconds: Option<u64>,
    pub verdict: Kept,
    pub bytes: Option<u64>,
    pub seconds: Option<u64>,
    pub last_error: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Verification {
    pub at: Time,
    pub run: String,
    pub target: String,
    pub whole: bool,
    pub snapshot: Option<String>,
    pub bytes: u64,
    /// Nothing where it could not be read at all.
    pub good: Option<bool>,
    pub damage: Vec<String>,
    pub problems: Vec<String>,
    pub error: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Drills {
    /// Whether a restore was tried with success, as far back as history goes.
    pub proven: bool,
    /// The last good one, of all times.
    pub last_good: Option<Drill>,
    /// Those of the period.
    pub all: Vec<Drill>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Drill {
    pub at: Time,
    pub age_seconds: u64,
    pub run: String,
    pub good: bool,
    pub seconds: Option<u64>,
    pub guests: u64,
    pub guests_seconds: Option<u64>,
    pub why: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    Fine,
    Warnings,
    Failed,
    /// Its process ended without a result.
    Died,
    Running,
}

#[derive(Debug, Serialize)]
pub struct Run {
    pub id: String,
    pub kind: Kind,
    pub trigger: Trigger,
    pub user: String,
    pub host: String,
    pub started: Time,
    pub ended: Option<Time>,
    pub date: String,
    pub seconds: Option<u64>,
    pub result: How,
    /// Why it is not fine.
    pub why: Vec<String>,
    pub files: u64,
    pub bytes: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub bytes_verified: u64,
    pub phases: Vec<Phase>,
    pub targets: Vec<RunTarget>,
    pub guests: Vec<RunGuest>,
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct RunTarget {
    pub target: String,
    pub snapshot: Option<String>,
    pub bytes_written: u64,
    pub verified: Option<bool>,
    pub bytes_verified: u64,
    pub restore_points: Option<u64>,
    pub free_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct RunGuest {
    pub id: u32,
    pub kind: GuestKind,
    pub name: Option<String>,
    pub result: RunResult,
    pub bytes: u64,
    pub seconds: u64,
    pub targets: u64,
}
