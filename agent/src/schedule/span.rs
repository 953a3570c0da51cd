//! Spans of time as settings write them: `90min`, `4h`, `1h 30min`; nothing for none.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A span of time in whole seconds; zero, written as an empty text, stands for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span(u64);

/// What a unit is in seconds. The first name of each is the one that is written.
const UNITS: [(&[&str], u64); 4] = [
    (&["d", "day", "days"], 86_400),
    (&["h", "hour", "hours"], 3600),
    (&["min", "m", "minutes", "minute"], 60),
    (&["s", "sec", "seconds", "second"], 1),
];

/// A year: what is longer is a mistake.
const MOST: u64 = 366 * 86_400;

impl Span {
    /// The span, where there is one.
    pub fn get(self) -> Option<Duration> {
        (self.0 > 0).then(|| Duration::from_secs(self.0))
    }

    /// In seconds; 0 for none.
    pub fn seconds(self) -> u64 {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is not a time span; write it like 4h, 90min or 1h 30min, or \"\"");
        let mut rest = text.trim();
        let mut seconds = 0u64;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            let after = after.trim_start();
            let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, after) = after.split_at(letters);
            let factor = UNITS.iter().find(|(names, _)| names.contains(&unit));
            let (_, factor) = factor.ok_or_else(wrong)?;
            let part = number
                .parse::<u64>()
                .ok()
                .and_then(|n| n.checked_mul(*factor));
            seconds = part
                .and_then(|part| seconds.checked_add(part))
                .filter(|all| *all <= MOST)
                .ok_or_else(wrong)?;
            rest = after.trim_start();
        }
        Ok(Span(seconds))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0;
        let mut gap = "";
        for (names, factor) in UNITS {
            if left >= factor {
                write!(f, "{gap}{}{}", left / factor, names[0])?;
                left %= factor;
                gap = " ";
            }
        }
        Ok(())
    }
}

crate::values::as_text!(Span);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_written() {
        for (text, seconds) in [
            ("", 0),
            ("4h", 14_400),
            ("90min", 5400),
            ("1h 30min", 5400),
            ("1h30m", 5400),
            ("45 s", 45),
            ("2d", 172_800),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.seconds(), seconds, "{text}");
            assert_eq!(span.to_string().parse(), Ok(span), "{text}");
        }
        assert_eq!("90min".parse::<Span>().unwrap().to_string(), "1h 30min");
        assert!("0h".parse::<Span>().unwrap().get().is_none());
        for wrong in [
            "4",
            "h",
            "-1h",
            "4 weeks",
            "1.5h",
            "99999999999999999999h",
            "400d",
            "1h;",
        ] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
