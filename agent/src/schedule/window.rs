//! The hours in which scheduled runs may work.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Time;
use jiff::{Timestamp, ToSpan as _, Zoned};

/// `22:00-06:00` in local time, also across midnight; written as an empty text where there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window(Option<(Time, Time)>);

impl Window {
    /// Whether a time of day lies in it.
    pub fn holds(self, time: Time) -> bool {
        match self.0 {
            None => true,
            Some((from, to)) if from < to => from <= time && time < to,
            Some((from, to)) => from <= time || time < to,
        }
    }

    /// When the window closes that is open at `now`; nothing where there is no limit, or where none is open.
    pub fn closes(self, now: &Zoned) -> Option<Timestamp> {
        let (_, to) = self.0.filter(|_| self.holds(now.time()))?;
        let date = match now.time() < to {
            true => now.date(),
            false => now.date().checked_add(1.day()).ok()?,
        };
        // A time that a change to summer time leaves out is the one after the gap.
        let end = date
            .to_datetime(to)
            .to_zoned(now.time_zone().clone())
            .ok()?;
        Some(end.timestamp())
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Window(None));
        }
        let wrong =
            || format!("'{text}' is not a window; write it like 22:00-06:00, or \"\" for none");
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let time = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
        };
        let (from, to) = time(from).zip(time(to)).ok_or_else(wrong)?;
        if from == to {
            return Err(format!("the window '{text}' is never open"));
        }
        Ok(Window(Some((from, to))))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((from, to)) = self.0 else {
            return Ok(());
        };
        let (a, b) = (from.hour(), from.minute());
        write!(f, "{a:02}:{b:02}-{:02}:{:02}", to.hour(), to.minute())
    }
}

crate::values::as_text!(Window);

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use jiff::tz::TimeZone;

    use super::*;

    /// A place with summer time, by its rule, as the machine may have no table of them.
    fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn at(day: i8, hour: i8, minute: i8) -> Zoned {
        let time = date(2026, 3, day).at(hour, minute, 0, 0);
        time.to_zoned(zone()).unwrap()
    }

    fn closes(window: &str, now: Zoned) -> Option<String> {
        let end = window.parse::<Window>().unwrap().closes(&now)?;
        Some(end.to_zoned(zone()).strftime("%d %H:%M").to_string())
    }

    #[test]
    fn windows_close_on_the_same_day_or_the_next() {
        let night = "22:00-06:00";
        assert_eq!(closes(night, at(10, 23, 0)).as_deref(), Some("11 06:00"));
        assert_eq!(closes(night, at(10, 2, 0)).as_deref(), Some("10 06:00"));
        assert_eq!(closes(night, at(10, 22, 0)).as_deref(), Some("11 06:00"));
        assert_eq!(closes(night, at(10, 6, 0)), None);
        assert_eq!(closes(night, at(10, 12, 0)), None);
        let day = "09:30-17:00";
        assert_eq!(closes(day, at(10, 9, 30)).as_deref(), Some("10 17:00"));
        assert_eq!(closes(day, at(10, 17, 0)), None);
        assert_eq!(closes("", at(10, 17, 0)), None);
        assert!("".parse::<Window>().unwrap().holds(at(10, 17, 0).time()));
    }

    #[test]
    fn summer_time_shortens_a_night() {
        // On 29 March 2026, 02:00 to 03:00 does not exist there.
        let before = at(28, 23, 0);
        let end = "22:00-06:00"
            .parse::<Window>()
            .unwrap()
            .closes(&before)
            .unwrap();
        assert_eq!(end.duration_since(before.timestamp()).as_hours(), 6);
        assert_eq!(closes("22:00-02:30", before).as_deref(), Some("29 03:30"));
    }

    #[test]
    fn windows_read_as_written() {
        for text in ["22:00-06:00", "00:00-23:59", ""] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
        for wrong in [
            "22-6",
            "22:00",
            "24:00-06:00",
            "06:00-06:00",
            "22:60-06:00",
            "a:b-c:d",
        ] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }
}
