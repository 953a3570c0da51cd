//! Which restore points of one sequence stay. A pure function of their times, verdicts and the policy: nothing here
//! reads a clock or a file, so that the table that is shown is what happens.

use serde::{Deserialize, Serialize};

/// How many restore points each rule keeps. A rule that keeps the newest of a span (an hour, a day, ...) counts only
/// spans that have a restore point, so that a machine that was off for a month loses nothing by it. Spans are those of
/// UTC, weeks begin on Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Policy {
    /// The newest ones, whenever they were made.
    pub last: u32,
    /// The newest of an hour.
    pub hourly: u32,
    /// The newest of a day.
    pub daily: u32,
    /// The newest of a week.
    pub weekly: u32,
    /// The newest of a month.
    pub monthly: u32,
    /// The newest of a year.
    pub yearly: u32,
}

impl Policy {
    /// A policy that keeps no more than what is never removed.
    pub const NOTHING: Policy = Policy {
        last: 0,
        hourly: 0,
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
    };

    /// The default for dumps of guests: four weeks of days, and a few that were made in between.
    pub const GUESTS: Policy = Policy {
        last: 7,
        daily: 28,
        ..Policy::NOTHING
    };
}

impl Default for Policy {
    /// Seven whatever happens, a week of days, a month of weeks, half a year of months.
    fn default() -> Policy {
        Policy {
            last: 7,
            daily: 7,
            weekly: 4,
            monthly: 6,
            ..Policy::NOTHING
        }
    }
}

/// A restore point as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// RFC 3339 in UTC, as in the snapshot document.
    pub time: String,
    /// The last verification of it found nothing wrong.
    pub verified: bool,
}

/// Why a restore point stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// There is none newer.
    Newest,
    /// There is none newer whose verification was good.
    NewestVerified,
    /// A rule keeps it: its name, the how manieth it is, how many the rule keeps.
    Rule(&'static str, u32, u32),
    /// Its time is not one that rules can be applied to.
    UnknownTime,
    /// It is not in question, for the reason given.
    NotInQuestion(String),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Newest => f.write_str("newest"),
            Reason::NewestVerified => f.write_str("newest verified"),
            Reason::Rule(name, at, of) => write!(f, "{name} {at}/{of}"),
            Reason::UnknownTime => f.write_str("its time cannot be understood"),
            Reason::NotInQuestion(why) => f.write_str(why),
        }
    }
}

/// The spans that a time lies in: hour, day, week, month, year. Numbers that are the same exactly in the same span.
struct Spans([i64; 5]);

impl Spans {
    fn of(time: &str) -> Option<Spans> {
        let digits = |range: std::ops::Range<usize>| -> Option<i64> {
            let text = time.get(range)?;
            (text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
        };
        let signs = [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':')];
        let has = |at: usize, c: char| time.get(at..).is_some_and(|t| t.starts_with(c));
        if !time.ends_with('Z') || !signs.iter().all(|(at, c)| has(*at, *c)) {
            return None;
        }
        let (year, month, day, hour) = (
            digits(0..4)?,
            digits(5..7)?,
            digits(8..10)?,
            digits(11..13)?,
        );
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 {
            return None;
        }
        let days = days_since_1970(year, month, day);
        // 1970-01-01 was a Thursday.
        let week = (days + 3).div_euclid(7);
        Some(Spans([
            days * 24 + hour,
            days,
            week,
            year * 12 + month,
            year,
        ]))
    }
}

/// Howard Hinnant, "chrono-compatible low-level date algorithms": days_from_civil.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Why each of the restore points stays, in the order given; where there is no reason, it goes. They are one sequence:
/// of one host, and of the same things. Of several of one time, the last given counts as the newest.
pub fn decide(points: &[Point], policy: &Policy) -> Vec<Vec<Reason>> {
    let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); points.len()];
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| (&points[*b].time, *b).cmp(&(&points[*a].time, *a)));
    let spans: Vec<Option<Spans>> = points.iter().map(|p| Spans::of(&p.time)).collect();
    for (at, spans) in spans.iter().enumerate() {
        if spans.is_none() {
            reasons[at].push(Reason::UnknownTime);
        }
    }
    order.retain(|at| spans[*at].is_some());
    if let Some(newest) = order.first() {
        reasons[*newest].push(Reason::Newest);
    }
    if let Some(verified) = order.iter().find(|at| points[**at].verified) {
        reasons[*verified].push(Reason::NewestVerified);
    }
    for (rank, at) in (1..=policy.last).zip(&order) {
        reasons[*at].push(Reason::Rule("last", rank, policy.last));
    }
    let rules = [
        ("hourly", policy.hourly),
        ("daily", policy.daily),
        ("weekly", policy.weekly),
        ("monthly", policy.monthly),
        ("yearly", policy.yearly),
    ];
    for (rule, (name, count)) in rules.into_iter().enumerate() {
        let mut before = None;
        let mut kept = 0;
        for at in &order {
            let span = spans[*at].as_ref().map(|s| s.0[rule]);
            if span == before {
                continue;
            }
            if kept == count {
                break;
            }
            kept += 1;
            before = span;
            reasons[*at].push(Reason::Rule(name, kept, count));
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(time: &str) -> Point {
        Point {
            time: time.into(),
            verified: false,
        }
    }

    fn stay(points: &[Point], policy: &Policy) -> Vec<bool> {
        decide(points, policy)
            .iter()
            .map(|r| !r.is_empty())
            .collect()
    }

    #[test]
    fn spans_of_the_calendar() {
        let same = |a: &str, b: &str| {
            let (a, b) = (Spans::of(a).unwrap().0, Spans::of(b).unwrap().0);
            std::array::from_fn(|i| a[i] == b[i])
        };
        let sunday = "2026-11-22T23:59:59.999Z";
        assert_eq!(same(sunday, "2026-11-22T23:00:00.000Z"), [true; 5]);
        assert_eq!(
            same(sunday, "2026-11-22T22:00:00.000Z"),
            [false, true, true, true, true]
        );
        assert_eq!(
            same(sunday, "2026-11-16T00:00:00.000Z"),
            [false, false, true, true, true]
        );
        assert_eq!(
            same(sunday, "2026-11-23T00:00:00.000Z"),
            [false, false, false, true, true]
        );
        assert_eq!(
            same("2026-12-31T10:00:00.000Z", "2027-01-01T10:00:00.000Z"),
            [false, false, true, false, false]
        );
        for wrong in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-11-2äT00:00:00Z",
        ] {
            assert!(Spans::of(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_newest_of_a_span_stays() {
        let points = [
            at("2026-11-18T02:00:00.000Z"),
            at("2026-11-19T02:00:00.000Z"),
            at("2026-11-19T14:00:00.000Z"),
            at("2026-11-20T02:00:00.000Z"),
        ];
        let policy = Policy {
            daily: 2,
            ..Policy::NOTHING
        };
        assert_eq!(stay(&points, &policy), [false, false, true, true]);
        assert_eq!(decide(&points, &policy)[2], [Reason::Rule("daily", 2, 2)]);
        assert_eq!(stay(&points, &Policy::NOTHING), [false, false, false, true]);
    }

    #[test]
    fn the_newest_verified_stays_and_so_does_what_is_not_understood() {
        let mut points = vec![
            at("2026-11-17T02:00:00.000Z"),
            at("2026-11-18T02:00:00.000Z"),
            at("2026-11-19T02:00:00.000Z"),
            at("once upon a time"),
        ];
        points[0].verified = true;
        points[1].verified = true;
        assert_eq!(stay(&points, &Policy::NOTHING), [false, true, true, true]);
    }

    #[test]
    fn sixty_days_by_the_default() {
        let points: Vec<Point> = (1..=30)
            .map(|day| at(&format!("2026-09-{day:02}T02:00:00.000Z")))
            .chain((1..=30).map(|day| at(&format!("2026-10-{day:02}T02:00:00.000Z"))))
            .collect();
        let stay = stay(&points, &Policy::default());
        let days: Vec<&str> = points
            .iter()
            .zip(stay)
            .filter(|(_, stays)| *stays)
            .map(|(p, _)| &p.time[5..10])
            .collect();
        // The ends of weeks, of September, and the last seven.
        let expected = [
            "09-30", "10-11", "10-18", "10-24", "10-25", "10-26", "10-27", "10-28", "10-29",
            "10-30",
        ];
        assert_eq!(days, expected);
    }

    prop_compose! {
        fn a_point()(seconds in 0i64..200_000_000, verified in any::<bool>()) -> Point {
            Point { time: crate::time::rfc3339(1_700_000_000_000 + seconds * 1000), verified }
        }
    }

    prop_compose! {
        fn a_policy()(n in proptest::array::uniform6(0u32..9)) -> Policy {
            Policy { last: n[0], hourly: n[1], daily: n[2], weekly: n[3], monthly: n[4], yearly: n[5] }
        }
    }

    proptest! {
        #[test]
        fn what_every_policy_keeps(points in proptest::collection::vec(a_point(), 0..80), policy in a_policy()) {
            let stays = stay(&points, &policy);
            let kept: Vec<Point> = points.iter().zip(&stays).filter(|(_, s)| **s).map(|(p, _)| p.clone()).collect();
            // The newest, and the newest verified.
            let newest = points.iter().map(|p| &p.time).max();
            prop_assert_eq!(newest, kept.iter().map(|p| &p.time).max());
            let verified = points.iter().filter(|p| p.verified).map(|p| &p.time).max();
            prop_assert_eq!(verified, kept.iter().filter(|p| p.verified).map(|p| &p.time).max());
            // A rule keeps as many as it says, or all spans there are.
            for (width, count) in [(4, policy.yearly), (7, policy.monthly), (10, policy.daily), (13, policy.hourly)] {
                let spans = |points: &[Point]| points.iter().map(|p| p.time[..width].to_owned())
                    .collect::<std::collections::BTreeSet<_>>();
                let (all, left) = (spans(&points), spans(&kept));
                let wanted: Vec<_> = all.iter().rev().take(count as usize).collect();
                prop_assert!(wanted.iter().all(|span| left.contains(*span)));
                for span in wanted {
                    let newest = |points: &[Point]| points.iter().map(|p| p.time.clone())
                        .filter(|t| t.starts_with(span.as_str())).max();
                    prop_assert_eq!(newest(&points), newest(&kept));
                }
            }
            prop_assert!(kept.len() >= points.len().min(policy.last as usize));
            // No more than the rules ask for.
            let asked = policy.last + policy.hourly + policy.daily + policy.weekly + policy.monthly + policy.yearly;
            prop_assert!(kept.len() <= asked as usize + 2);
            // Doing it again changes nothing.
            prop_assert!(stay(&kept, &policy).iter().all(|s| *s));
        }

        #[test]
        fn a_larger_policy_keeps_no_less(points in proptest::collection::vec(a_point(), 0..60), policy in a_policy(),
                                         more in a_policy()) {
            let larger = Policy {
                last: policy.last + more.last, hourly: policy.hourly + more.hourly, daily: policy.daily + more.daily,
                weekly: policy.weekly + more.weekly, monthly: policy.monthly + more.monthly,
                yearly: policy.yearly + more.yearly,
            };
            let (less, more) = (stay(&points, &policy), stay(&points, &larger));
            prop_assert!(less.iter().zip(more).all(|(less, more)| !less || more));
        }

        #[test]
        fn any_text_is_a_time(texts in proptest::collection::vec(".{0,30}", 0..5), policy in a_policy()) {
            let points: Vec<Point> = texts.iter().map(|t| at(t)).collect();
            decide(&points, &policy);
        }
    }
}
