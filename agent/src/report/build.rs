//! Makes the report of the documents of runs.

use bundle::document::HostIdentity;

use super::known::{Interval, Known, end, intervals};
use super::model::{
    Day, DayState, Drill, Drills, Gap, Good, History, Host, How, Period, Report, Retention,
    Summary, Verification,
};
use super::period::Days;
use super::{FORMAT, advice, entry, objectives, rules, subjects, trend};
use crate::config::Config;
use crate::evaluation::granted;
use crate::evaluation::{Evaluation, Point, Question, age, evaluate};
use crate::history::{Kind, Run, RunResult, State};

/// What a report is made of.
pub struct Sources<'a> {
    /// All runs, the oldest first.
    pub runs: Vec<Run>,
    /// How many documents could not be read.
    pub unreadable: u64,
    pub config: &'a Config,
    pub host: HostIdentity,
    pub now: jiff::Timestamp,
}

/// What its parts are made of.
pub struct Facts<'a> {
    pub config: &'a Config,
    pub days: &'a Days,
    /// Those that were over at the end of the period, and those that run now.
    pub runs: &'a [Run],
    /// Those that began in the period.
    pub inside: Vec<&'a Run>,
    pub known: Known<'a>,
    /// As of the end of the period.
    pub state: Evaluation,
    /// The first moment that anything is known of.
    pub first: Option<jiff::Timestamp>,
    /// Times without a new good restore point of the host.
    pub intervals: Vec<Interval>,
}

impl Facts<'_> {
    /// Whether such a run is to save the host.
    pub fn is_for_host(&self, run: &Run) -> bool {
        is_for_host(self.config, run)
    }

    /// Whether there is a new restore point of the host.
    pub fn saved_host(&self, run: &Run) -> bool {
        self.is_for_host(run) && run.targets.iter().any(|target| target.is_good())
    }

    /// A restore point for the report.
    pub fn good(&self, point: &Point) -> Good {
        let at = crate::history::TargetRun {
            store: point.store.clone(),
            ..crate::history::TargetRun::new(&point.target)
        };
        Good {
            at: self.days.say(point.time),
            age_seconds: age(self.days.as_of, point.time),
            run: point.run.clone(),
            snapshot: point.snapshot.to_string(),
            target: entry::target_title(&at, self),
            verified: point.read_back,
        }
    }
}

/// Where only directories are to be saved, they stand for the host.
fn is_for_host(config: &Config, run: &Run) -> bool {
    match run.kind {
        Kind::Backup => true,
        Kind::Directories => !config.roots.is_empty(),
        _ => false,
    }
}

/// Makes the report.
pub fn report(sources: Sources<'_>, days: &Days) -> Report {
    let config = sources.config;
    let documents = sources.runs.len() as u64;
    let later = sources
        .runs
        .iter()
        .filter(|run| run.started > sources.now)
        .count();
    let before_end = sources
        .runs
        .into_iter()
        .filter(|run| run.started <= days.as_of);
    let (over, open): (Vec<Run>, Vec<Run>) = before_end.partition(|run| end(run) <= days.as_of);
    let mut inside: Vec<&Run> = over.iter().chain(&open).collect();
    inside.retain(|run| days.hold(run.started));
    inside.sort_by_key(|run| run.started);
    let known = Known::new(&over, |run| is_for_host(config, run));
    let first = over.first().map(|run| run.started);
    let facts = Facts {
        config,
        days,
        inside,
        intervals: intervals(&known.host, first, days),
        known,
        state: Evaluation {
            later,
            ..evaluate(
                &over,
                &Question {
                    at: days.as_of,
                    objectives: &config.objectives,
                    configured: &config.targets,
                    directories: !config.roots.is_empty(),
                    guests: None,
                },
            )
        },
        runs: &over,
        first,
    };
    let drills = drills(&facts);
    let targets = subjects::targets(&facts);
    let guests = subjects::guests(&facts);
    let objectives = objectives::all(&facts, &targets, &guests, &drills);
    let rules = rules::all(&targets, &facts);
    let days_of = days_of(&facts);
    let summary = summary(&facts, &days_of, &drills);
    let gaps = gaps(&facts);
    let history = History {
        documents,
        unreadable: sources.unreadable,
        first_run: first.map(|at| days.say(at)),
    };
    let grounds = advice::Grounds {
        summary: &summary,
        gaps: &gaps,
        rules: &rules,
        history: &history,
        proven: drills.proven,
    };
    let advice = advice::all(&facts, &grounds);
    Report {
        format: FORMAT,
        program: concat!("lifeboat ", env!("CARGO_PKG_VERSION")).to_owned(),
        generated: days.say(sources.now),
        host: Host {
            name: sources.host.hostname.clone(),
            machine_id: sources.host.machine_id.clone(),
        },
        period: period(days),
        history,
        verdict: advice::verdict(&advice, &objectives),
        advice,
        summary,
        objectives,
        rules,
        days: days_of,
        gaps,
        trend: trend::of(&facts),
        retention: Retention {
            automatic: config.retention.automatic,
            host: config.retention.policy(),
            guests: config.guests.policy(),
        },
        targets,
        guests,
        verifications: verifications(&facts),
        drills,
        runs: facts
            .inside
            .iter()
            .map(|run| entry::run(run, days))
            .collect(),
    }
}

fn period(days: &Days) -> Period {
    Period {
        since: days.since.to_string(),
        until: days.until.to_string(),
        days: days.count(),
        start: days.say(days.start),
        end: days.say(days.end),
        as_of: days.say(days.as_of),
        over: days.as_of == days.end,
        time_zone: days.zone.iana_name().map(str::to_owned),
    }
}

/// The middle one, the lower of two.
pub fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    let middle = values.len().checked_sub(1)? / 2;
    values.get(middle).copied()
}

/// Seconds of backups of the host that came to an end with a restore point.
pub fn backup_seconds<'a>(facts: &Facts<'_>, runs: impl Iterator<Item = &'a Run>) -> Vec<u64> {
    let ended = runs.filter(|run| facts.saved_host(run));
    ended
        .filter_map(|run| Some(age(run.ended?, run.started)))
        .collect()
}

fn summary(facts: &Facts<'_>, days: &[Day], drills: &Drills) -> Summary {
    let mut sum = Summary::default();
    for run in &facts.inside {
        sum.runs += 1;
        match entry::how(run) {
            How::Fine => sum.fine += 1,
            How::Warnings => sum.warnings += 1,
            How::Failed => sum.failed += 1,
            How::Died => sum.died += 1,
            How::Running => sum.running += 1,
        }
        sum.restore_points += u64::from(facts.saved_host(run));
        sum.bytes_written += entry::bytes_written(run);
        sum.bytes_verified += entry::bytes_verified(run);
    }
    let known = |day: &&Day| !matches!(day.state, DayState::Before | DayState::Future);
    sum.days_known = days.iter().filter(known).count() as u64;
    let without = |day: &&Day| day.restore_points == 0;
    sum.days_without = days.iter().filter(known).filter(without).count() as u64;
    let seconds = backup_seconds(facts, facts.inside.iter().copied());
    sum.backup_seconds_longest = seconds.iter().max().copied();
    sum.backup_seconds_median = median(seconds);
    let host = &facts.state.host;
    sum.last_good = host.newest.as_ref().map(|point| facts.good(point));
    sum.last_verified = host.verified.map(|at| facts.days.say(at));
    sum.last_drilled = drills.last_good.as_ref().map(|drill| drill.at.clone());
    sum
}

/// Every day of the period.
fn days_of(facts: &Facts<'_>) -> Vec<Day> {
    let first = facts.first.map(|at| facts.days.date(at));
    let last = facts.days.date(facts.days.as_of.min(facts.days.end));
    let mut days: Vec<Day> = facts
        .days
        .each()
        .map(|date| Day {
            date: date.to_string(),
            state: match first {
                _ if date > last => DayState::Future,
                Some(first) if date >= first => DayState::None,
                _ => DayState::Before,
            },
            runs: 0,
            fine: 0,
            warnings: 0,
            failed: 0,
            restore_points: 0,
            bytes_written: 0,
        })
        .collect();
    for run in &facts.inside {
        let date = facts.days.date(run.started);
        let nth = facts.days.since.until(date).map_or(0, |s| s.get_days());
        let Some(day) = days.get_mut(usize::try_from(nth).unwrap_or(usize::MAX)) else {
            continue;
        };
        day.runs += 1;
        let how = entry::how(run);
        match how {
            How::Fine => day.fine += 1,
            How::Warnings => day.warnings += 1,
            How::Failed | How::Died => day.failed += 1,
            How::Running => {}
        }
        day.restore_points += u64::from(facts.saved_host(run));
        day.bytes_written += entry::bytes_written(run);
        if facts.is_for_host(run) && how != How::Running && day.state == DayState::None {
            day.state = DayState::Failed;
        }
    }
    for day in &mut days {
        if day.restore_points > 0 {
            let well = day.warnings + day.failed == 0;
            day.state = if well {
                DayState::Good
            } else {
                DayState::Warnings
            };
        }
    }
    days
}

fn gaps(facts: &Facts<'_>) -> Vec<Gap> {
    let limit = granted(facts.config.objectives.host_rpo.seconds());
    let too_long = facts.intervals.iter().filter(|i| i.seconds > limit);
    let gap = |interval: &Interval| {
        let to = interval.to.unwrap_or(facts.days.as_of);
        let within = |run: &&Run| {
            let tried = facts.is_for_host(run) && !facts.saved_host(run);
            tried && interval.from <= run.started && run.started < to
        };
        Gap {
            from: facts.days.say(interval.from),
            to: interval.to.map(|at| facts.days.say(at)),
            seconds: interval.seconds,
            failed_runs: facts.runs.iter().filter(within).count() as u64,
        }
    };
    too_long.map(gap).collect()
}

fn verifications(facts: &Facts<'_>) -> Vec<Verification> {
    let runs = facts.inside.iter().filter(|run| run.kind == Kind::Verify);
    let of_run = |run: &&Run| {
        let run: &Run = run;
        let mut said = Vec::new();
        for target in &run.targets {
            said.push(Verification {
                at: facts.days.say(run.started),
                run: run.id.clone(),
                target: entry::target_title(target, facts),
                whole: target.whole,
                snapshot: target.snapshot.map(|id| id.to_string()),
                bytes: target.verified_bytes,
                good: target.verified,
                damage: target.damage.iter().map(|l| l.trim().to_owned()).collect(),
                problems: target.problems.clone(),
                error: target.error.clone(),
            });
        }
        said
    };
    runs.flat_map(of_run).collect()
}

fn drills(facts: &Facts<'_>) -> Drills {
    let drill = |run: &Run| {
        let good = matches!(
            run.state(),
            State::Ended(RunResult::Fine | RunResult::Warnings)
        );
        let guests_good = run.guests.iter().all(|g| g.result != RunResult::Failed);
        let guests_seconds = run.guests.iter().map(|g| g.seconds).sum();
        Drill {
            at: facts.days.say(run.started),
            age_seconds: age(facts.days.as_of, run.started),
            run: run.id.clone(),
            good,
            seconds: run.ended.map(|ended| age(ended, run.started)),
            guests: run.guests.len() as u64,
            guests_seconds: (good && guests_good && !run.guests.is_empty())
                .then_some(guests_seconds),
            why: entry::why(run),
        }
    };
    let all = facts.runs.iter().filter(|run| run.kind == Kind::Drill);
    let all: Vec<(&Run, Drill)> = all.map(|run| (run, drill(run))).collect();
    let last_good = all.iter().rev().find(|(_, drill)| drill.good);
    let last_good = last_good.map(|(_, drill)| drill.clone());
    let inside = all
        .into_iter()
        .filter(|(run, _)| facts.days.hold(run.started));
    Drills {
        proven: last_good.is_some(),
        last_good,
        all: inside.map(|(_, drill)| drill).collect(),
    }
}
