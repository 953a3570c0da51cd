//! What stays of a store's restore points, said once more and in another way than the library does.

use std::collections::BTreeSet;

/// Milliseconds since 1970 of an RFC 3339 time in UTC, with milliseconds.
pub fn parse(time: &str) -> i64 {
    let number = |from: usize, to: usize| time[from..to].parse::<i64>().unwrap();
    let mut days = 0;
    for year in 1970..number(0, 4) {
        days += if leap(year) { 366 } else { 365 };
    }
    for month in 1..number(5, 7) {
        days += month_length(number(0, 4), month);
    }
    days += number(8, 10) - 1;
    let seconds = (days * 24 + number(11, 13)) * 3600 + number(14, 16) * 60 + number(17, 19);
    seconds * 1000 + number(20, 23)
}

pub fn format(ms: i64) -> String {
    let (mut days, rest) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let mut year = 1970;
    while days >= if leap(year) { 366 } else { 365 } {
        days -= if leap(year) { 366 } else { 365 };
        year += 1;
    }
    let mut month = 1;
    while days >= month_length(year, month) {
        days -= month_length(year, month);
        month += 1;
    }
    let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    let (seconds, ms) = (rest / 1000 % 60, rest % 1000);
    format!(
        "{year:04}-{month:02}-{:02}T{hours:02}:{minutes:02}:{seconds:02}.{ms:03}Z",
        days + 1
    )
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A point: its time, and whether its last verification was good. In order, the newest last.
pub type Point = (String, bool);

/// Which of the points of one sequence stay, for these numbers of last, hourly, daily, weekly, monthly and yearly ones.
pub fn stay(points: &[Point], keep: &[u32; 6]) -> Vec<bool> {
    // What names the span that a time is in: the beginning of the text, but for weeks, which begin on a Monday.
    let span = |rule: usize, time: &str| match rule {
        1 => time[..13].to_string(),
        2 => time[..10].to_string(),
        // 1970-01-05 was a Monday.
        3 => ((parse(time) - 4 * 86_400_000).div_euclid(7 * 86_400_000)).to_string(),
        4 => time[..7].to_string(),
        _ => time[..4].to_string(),
    };
    let stays = |at: usize| {
        let (time, verified) = &points[at];
        let newer = &points[at + 1..];
        let last = newer.len() < keep[0] as usize;
        let newest = newer.is_empty();
        let newest_verified = *verified && newer.iter().all(|(_, verified)| !verified);
        let by_rule = (1..6).any(|rule| {
            let own = span(rule, time);
            let spans: BTreeSet<_> = newer.iter().map(|(time, _)| span(rule, time)).collect();
            !spans.contains(&own) && spans.len() < keep[rule] as usize
        });
        last || newest || newest_verified || by_rule
    };
    (0..points.len()).map(stays).collect()
}

#[test]
fn the_calendar() {
    for (time, ms) in [
        ("1970-01-01T00:00:00.000Z", 0),
        ("2000-02-29T12:00:00.001Z", 951_825_600_001),
        ("2026-12-31T23:59:59.999Z", 1_798_761_599_999),
    ] {
        assert_eq!((parse(time), format(ms)), (ms, time.to_string()));
    }
}
