//! When something is to happen: in words for people, or as systemd writes it.

use std::fmt;
use std::str::FromStr;

/// A schedule as it is written in the configuration; nothing for never.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    text: String,
    calendar: String,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl When {
    /// Each day at this hour.
    pub fn daily(hour: u8) -> When {
        When {
            text: format!("daily {hour:02}:00"),
            calendar: format!("*-*-* {hour:02}:00:00"),
        }
    }

    /// As `OnCalendar=` takes it; nothing where it is off.
    pub fn calendar(&self) -> Option<&str> {
        (!self.calendar.is_empty()).then_some(&self.calendar)
    }

    /// Whether it is never.
    pub fn is_off(&self) -> bool {
        self.calendar.is_empty()
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // It becomes a line of a unit: no second line, no specifiers.
        let known = |c: char| c.is_ascii_alphanumeric() || " *:,./~_+-".contains(c);
        if text.len() > 200 || !text.chars().all(known) {
            return Err(format!("'{text}' is not a schedule; {HELP}"));
        }
        Ok(When {
            calendar: calendar(text)?,
            text: text.to_owned(),
        })
    }
}

const HELP: &str = "write \"daily 02:00\", \"hourly :15\", \"weekly Sun 03:00\", \"monthly 1 04:00\", \
    an expression that `systemd-analyze calendar` knows, or \"\" for never";

fn calendar(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let wrong = || format!("'{text}' is not a schedule; {HELP}");
    let time = |word: &str| clock(word).ok_or_else(wrong);
    Ok(match words[..] {
        ["hourly", minute] => {
            let minute = minute.strip_prefix(':').and_then(|m| below(m, 60));
            format!("*-*-* *:{:02}:00", minute.ok_or_else(wrong)?)
        }
        ["daily", at] => format!("*-*-* {}", time(at)?),
        ["weekly", day, at] => {
            let day = day.to_ascii_lowercase();
            let known = DAYS.iter().find(|d| day.starts_with(**d));
            let known = known.ok_or_else(wrong)?;
            let (first, rest) = known.split_at(1);
            format!("{}{rest} *-*-* {}", first.to_ascii_uppercase(), time(at)?)
        }
        ["monthly", day, at] => {
            // Every month has these; the last day of each is `*-*~01`.
            let day = below(day, 29).filter(|d| *d > 0).ok_or_else(wrong)?;
            format!("*-*-{day:02} {}", time(at)?)
        }
        _ => words.join(" "),
    })
}

/// `2:00` as systemd writes it.
fn clock(text: &str) -> Option<String> {
    let (hour, minute) = text.split_once(':')?;
    Some(format!(
        "{:02}:{:02}:00",
        below(hour, 24)?,
        below(minute, 60)?
    ))
}

fn below(text: &str, limit: u8) -> Option<u8> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n < limit)
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

crate::values::as_text!(When);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_reads_as_it_is_written() {
        let daily = When::daily(8);
        assert_eq!(daily.to_string().parse(), Ok(daily));
    }

    #[test]
    fn words_become_expressions() {
        for (text, expression) in [
            ("daily 02:00", "*-*-* 02:00:00"),
            ("daily 2:30", "*-*-* 02:30:00"),
            ("hourly :15", "*-*-* *:15:00"),
            ("weekly Sunday 03:00", "Sun *-*-* 03:00:00"),
            ("weekly mon 23:59", "Mon *-*-* 23:59:00"),
            ("monthly 1 04:00", "*-*-01 04:00:00"),
            ("hourly", "hourly"),
            ("Mon..Fri *-*-* 02,14:00", "Mon..Fri *-*-* 02,14:00"),
            ("*-*~01 04:00", "*-*~01 04:00"),
        ] {
            let when: When = text.parse().unwrap();
            assert_eq!(when.calendar(), Some(expression));
            assert_eq!(when.to_string(), text);
        }
        assert!("".parse::<When>().unwrap().is_off());
    }

    #[test]
    fn no_text_becomes_a_second_line_of_a_unit() {
        for wrong in [
            "daily 24:00",
            "daily 2",
            "hourly 15",
            "hourly :60",
            "weekly xyz 02:00",
            "monthly 31 02:00",
            "daily\nExecStart=/bin/sh",
            "daily %i",
            "daily; reboot",
        ] {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
        let inner = "*-*-* 02:00\nUnit=other.service".parse::<When>();
        assert!(inner.is_err());
    }
}
