//! Trends: the period in steps, so that plots have no more points than people can tell apart.

use jiff::{Timestamp, ToSpan};

use super::build::{Facts, backup_seconds, median};
use super::entry;
use super::model::{Bucket, How, Step, TargetPoint, Trend};
use super::period::Days;
use crate::history::{Run, TargetRun};

/// The step for so many days: at most about a hundred of them, as long as that is three years.
fn step(days: u64) -> Step {
    match days {
        0..=3 => Step::Hour,
        4..=100 => Step::Day,
        101..=1100 => Step::Week,
        _ => Step::Month,
    }
}

/// When each step begins; the first one with the period, the others with the hour, day, week or month.
fn starts(days: &Days, step: Step) -> Vec<Timestamp> {
    let mut starts = vec![days.start];
    if step == Step::Hour {
        let next = |at: &Timestamp| at.checked_add(1.hour()).ok();
        let hours = std::iter::successors(next(&days.start), next);
        starts.extend(hours.take_while(|at| *at < days.as_of));
        return starts;
    }
    for date in days.each().skip(1) {
        let begins = match step {
            Step::Week => date.weekday().to_monday_zero_offset() == 0,
            Step::Month => date.day() == 1,
            _ => true,
        };
        let Ok(zoned) = date.to_zoned(days.zone.clone()) else {
            continue;
        };
        if begins && zoned.timestamp() < days.as_of {
            starts.push(zoned.timestamp());
        }
    }
    starts
}

fn by_step<'a>(facts: &Facts<'a>, starts: &[Timestamp]) -> Vec<Vec<&'a Run>> {
    let mut runs = vec![Vec::new(); starts.len()];
    for run in &facts.inside {
        let nth = starts.partition_point(|start| *start <= run.started);
        if let Some(runs) = nth.checked_sub(1).and_then(|nth| runs.get_mut(nth)) {
            runs.push(*run);
        }
    }
    runs
}

/// The trend of the period.
pub fn of(facts: &Facts<'_>) -> Trend {
    let step = step(facts.days.count());
    let starts = starts(facts.days, step);
    let steps = starts.iter().zip(by_step(facts, &starts));
    let bucket = |(start, runs): (&Timestamp, Vec<&Run>)| {
        let seconds = backup_seconds(facts, runs.iter().copied());
        let mut backups = runs.iter().filter(|r| facts.is_for_host(r) && r.bytes > 0);
        let mut bucket = Bucket {
            start: facts.days.say(*start),
            runs: runs.len() as u64,
            backup_seconds_longest: seconds.iter().max().copied(),
            backup_seconds_median: median(seconds),
            host_bytes: backups.next_back().map(|run| run.bytes),
            ..Bucket::default()
        };
        for run in runs {
            match entry::how(run) {
                How::Fine => bucket.fine += 1,
                How::Warnings => bucket.warnings += 1,
                How::Failed | How::Died => bucket.failed += 1,
                How::Running => {}
            }
            bucket.bytes_read += run.bytes_read;
            bucket.bytes_written += entry::bytes_written(run);
            bucket.bytes_verified += entry::bytes_verified(run);
        }
        bucket
    };
    Trend {
        step,
        buckets: steps.map(bucket).collect(),
    }
}

/// The room and the restore points of every target, step by step.
pub fn of_targets(facts: &Facts<'_>) -> Vec<Vec<TargetPoint>> {
    let starts = starts(facts.days, step(facts.days.count()));
    let mut points = vec![vec![TargetPoint::default(); starts.len()]; facts.known.places.len()];
    for (nth, runs) in by_step(facts, &starts).into_iter().enumerate() {
        for run in runs {
            let host = run.targets.iter();
            for target in host.chain(run.guests.iter().flat_map(|g| &g.targets)) {
                let Some(place) = facts.known.index(target) else {
                    continue;
                };
                add(&mut points[place][nth], target);
            }
        }
    }
    points
}

fn add(point: &mut TargetPoint, target: &TargetRun) {
    if let Some(space) = target.space {
        point.free_percent = Some(percent(space.free_share()));
    }
    point.restore_points = target.restore_points.or(point.restore_points);
}

/// A share in percent, with one digit after the point.
pub fn percent(share: f64) -> f64 {
    (share * 1000.0).floor() / 10.0
}

#[cfg(test)]
mod tests {
    use super::super::period::tests::days;
    use super::*;

    #[test]
    fn steps_are_as_coarse_as_the_period_is_long() {
        let count = |since: &str, until: &str| {
            let days = days(since, until, "2027-11-26T12:00:00Z");
            let step = step(days.count());
            (step, starts(&days, step).len())
        };
        // The day on which the clock was set back has 25 hours.
        assert_eq!(count("2026-10-25", "2026-10-25"), (Step::Hour, 25));
        assert_eq!(count("2026-10-01", "2026-10-31"), (Step::Day, 31));
        // Thursday to Sunday, and then 52 Mondays.
        assert_eq!(count("2026-01-01", "2026-12-31"), (Step::Week, 53));
        assert_eq!(count("2020-01-15", "2026-12-31"), (Step::Month, 84));
        // Nothing of the time to come.
        assert_eq!(count("2027-11-22", "2027-12-31"), (Step::Day, 5));
    }
}
