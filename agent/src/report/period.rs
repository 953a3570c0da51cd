//! Which days a report is about: whole days of the local calendar.

use anyhow::Context as _;
use clap::ValueEnum;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

use crate::output::Usage;

/// How long a report reaches back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Length {
    /// One day
    Day,
    /// Seven days
    Week,
    /// One month
    Month,
    /// Three months
    Quarter,
}

impl Length {
    fn span(self) -> Span {
        match self {
            Length::Day => 1.day(),
            Length::Week => 1.week(),
            Length::Month => 1.month(),
            Length::Quarter => 3.months(),
        }
    }

    /// The first day of the day, week, month or quarter of the calendar that holds `date`.
    fn first_day(self, date: Date) -> Result<Date, jiff::Error> {
        match self {
            Length::Day => Ok(date),
            Length::Week => {
                date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days())
            }
            Length::Month => Ok(date.first_of_month()),
            Length::Quarter => {
                let into = (date.month() - 1) % 3;
                date.first_of_month().checked_sub(i64::from(into).months())
            }
        }
    }
}

/// The days of a report, and where time is counted from.
#[derive(Debug, Clone)]
pub struct Days {
    /// The first one.
    pub since: Date,
    /// The last one.
    pub until: Date,
    /// The beginning of the first one.
    pub start: Timestamp,
    /// The end of the last one, which is not in it any more.
    pub end: Timestamp,
    /// The end, or now where that is earlier: what is said of ages is true for this moment.
    pub as_of: Timestamp,
    /// Where a day begins and ends.
    pub zone: TimeZone,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// How long; a month where nothing is said.
    pub length: Option<Length>,
    /// The last complete one of the calendar, not one that ends today.
    pub complete: bool,
    /// The first day.
    pub since: Option<Date>,
    /// The last day.
    pub until: Option<Date>,
}

impl Days {
    /// Finds the days. What cannot be is a [`Usage`] error.
    pub fn new(asked: Asked, now: Timestamp, zone: TimeZone) -> anyhow::Result<Days> {
        let today = now.to_zoned(zone.clone()).date();
        let length = asked.length.unwrap_or(Length::Month);
        let wrong = || format!("no such period of time: {asked:?}");
        let (since, until) = match (asked.since, asked.until) {
            (None, None) if asked.complete => {
                let after = length.first_day(today).with_context(wrong)?;
                let since = after.checked_sub(length.span()).with_context(wrong)?;
                (since, after.yesterday().with_context(wrong)?)
            }
            (Some(since), until) => (since, until.unwrap_or(today)),
            (None, until) => {
                let until = until.unwrap_or(today);
                let after = until.tomorrow().with_context(wrong)?;
                (after.checked_sub(length.span()).with_context(wrong)?, until)
            }
        };
        if since > until {
            let text = format!("the period ends ({until}) before it begins ({since})");
            return Err(Usage(text).into());
        }
        if since > today {
            let text = format!("the period begins on {since}, and that is in the future");
            return Err(Usage(text).into());
        }
        let begin =
            |date: Date| anyhow::Ok(date.to_zoned(zone.clone()).with_context(wrong)?.timestamp());
        let start = begin(since)?;
        let end = begin(until.tomorrow().with_context(wrong)?)?;
        Ok(Days {
            since,
            until,
            start,
            end,
            as_of: now.min(end),
            zone,
        })
    }

    /// Whether something happened in it.
    pub fn hold(&self, when: Timestamp) -> bool {
        self.start <= when && when < self.end
    }

    /// The local day of a moment.
    pub fn date(&self, when: Timestamp) -> Date {
        when.to_zoned(self.zone.clone()).date()
    }

    /// A moment in local time, with its distance to UTC: RFC 3339.
    pub fn say(&self, when: Timestamp) -> String {
        let zoned = when.to_zoned(self.zone.clone());
        zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// How many days.
    pub fn count(&self) -> u64 {
        let days = self.since.until(self.until).map_or(0, |s| s.get_days());
        u64::from(days.unsigned_abs()) + 1
    }

    /// Every day, as far as there is a calendar.
    pub fn each(&self) -> impl Iterator<Item = Date> + use<> {
        let until = self.until;
        let next = |day: &Date| day.tomorrow().ok();
        std::iter::successors(Some(self.since), next).take_while(move |day| *day <= until)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Central European time, whatever the machine has installed.
    pub fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    /// The days from one to another.
    pub fn days(since: &str, until: &str, now: &str) -> Days {
        let asked = Asked {
            since: Some(since.parse().unwrap()),
            until: Some(until.parse().unwrap()),
            ..Asked::default()
        };
        Days::new(asked, now.parse().unwrap(), zone()).unwrap()
    }

    fn found(length: Length, complete: bool, until: Option<&str>) -> (String, String) {
        let asked = Asked {
            length: Some(length),
            complete,
            since: None,
            until: until.map(|d| d.parse().unwrap()),
        };
        // Half past midnight of a Thursday in local time.
        let days = Days::new(asked, "2026-11-25T23:30:00Z".parse().unwrap(), zone()).unwrap();
        (days.since.to_string(), days.until.to_string())
    }

    #[test]
    fn periods_end_today_or_when_asked_or_are_those_of_the_calendar() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        for (length, complete, until, since, last) in [
            (Length::Day, false, None, "2026-11-26", "2026-11-26"),
            (Length::Week, false, None, "2026-11-20", "2026-11-26"),
            (Length::Month, false, None, "2026-10-27", "2026-11-26"),
            (Length::Quarter, false, None, "2026-08-27", "2026-11-26"),
            (
                Length::Quarter,
                false,
                Some("2026-09-30"),
                "2026-07-01",
                "2026-09-30",
            ),
            (
                Length::Month,
                false,
                Some("2026-02-28"),
                "2026-02-01",
                "2026-02-28",
            ),
            (Length::Day, true, None, "2026-11-25", "2026-11-25"),
            (Length::Week, true, None, "2026-11-16", "2026-11-22"),
            (Length::Month, true, None, "2026-10-01", "2026-10-31"),
            (Length::Quarter, true, None, "2026-07-01", "2026-09-30"),
        ] {
            assert_eq!(
                found(length, complete, until),
                pair(since, last),
                "{length:?}"
            );
        }
    }

    #[test]
    fn days_begin_at_local_midnight_whatever_the_clock_was_set_to() {
        let october = days("2026-10-25", "2026-10-25", "2026-11-26T00:00:00Z");
        assert_eq!(october.say(october.start), "2026-10-25T00:00:00+02:00");
        assert_eq!(october.say(october.end), "2026-10-26T00:00:00+01:00");
        assert_eq!(october.end.duration_since(october.start).as_hours(), 25);
        assert_eq!(october.as_of, october.end);
        assert_eq!(october.count(), 1);
        let now: Timestamp = "2026-11-26T00:00:00Z".parse().unwrap();
        assert_eq!(
            days("2026-10-25", "2026-12-31", "2026-11-26T00:00:00Z").as_of,
            now
        );
        assert_eq!(
            days("2026-03-01", "2026-12-31", "2026-11-26T00:00:00Z").count(),
            306
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |since: &str, until: &str| {
            let asked = Asked {
                since: Some(since.parse().unwrap()),
                until: Some(until.parse().unwrap()),
                ..Asked::default()
            };
            let error = Days::new(asked, "2026-11-26T00:00:00Z".parse().unwrap(), zone());
            let error = error.unwrap_err();
            assert!(error.downcast_ref::<Usage>().is_some());
            error.to_string()
        };
        assert!(refused("2026-11-02", "2026-11-01").contains("before it begins"));
        assert!(refused("2026-12-02", "2026-12-05").contains("future"));
    }
}
