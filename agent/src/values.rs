//! Values as people write and read them: sizes, durations, counts.

use std::fmt;
use std::str::FromStr;

/// For values that stand in the configuration, and in JSON, as they are shown: `Display` writes them, `FromStr` reads them.
macro_rules! as_text {
    ($type:ty) => {
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                <String as ::serde::Deserialize>::deserialize(d)?
                    .parse()
                    .map_err(::serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use as_text;

/// A size in bytes, written like `32G`, `512M` or `1.5 GiB` (powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let wrong = || format!("'{text}' is not a size; write it like 32G, 512M or 4096");
        let shift = match unit
            .trim()
            .to_ascii_lowercase()
            .trim_end_matches("ib")
            .trim_end_matches('b')
        {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(wrong()),
        };
        let factor = 1u64 << shift;
        let bytes = match number.split_once('.') {
            None => number
                .parse::<u64>()
                .ok()
                .and_then(|n| n.checked_mul(factor))
                .ok_or_else(wrong)?,
            Some(_) => {
                let value = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
                if !value.is_finite() || value >= u64::MAX as f64 {
                    return Err(wrong());
                }
                value as u64
            }
        };
        if bytes == 0 {
            Err(wrong())
        } else {
            Ok(Size(bytes))
        }
    }
}

/// A part of a hundred, written like `10%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(pub u32);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().strip_suffix('%').map(|n| n.trim_end().parse());
        match number {
            Some(Ok(n)) if (1..=100).contains(&n) => Ok(Percent(n)),
            _ => Err(format!("'{text}' is not a share; write it like 5% or 10%")),
        }
    }
}

/// A span of time in whole hours, written like `24h` or `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours(pub u64);

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a time span; write it like 24h or 7d");
        let (number, hours) = if let Some(n) = text.strip_suffix('h') {
            (n, 1)
        } else if let Some(n) = text.strip_suffix('d') {
            (n, 24)
        } else {
            return Err(wrong());
        };
        match number
            .trim()
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(hours))
        {
            // Ten years: a longer token is a mistake, and would only overflow dates.
            Some(n) if (1..=87_600).contains(&n) => Ok(Hours(n)),
            _ => Err(wrong()),
        }
    }
}

impl Hours {
    /// The same in seconds.
    pub fn seconds(self) -> u64 {
        self.0 * 3600
    }
}

impl From<Hours> for std::time::Duration {
    fn from(hours: Hours) -> Self {
        std::time::Duration::from_secs(hours.seconds())
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 24 {
            // A day has 24 hours in every objective that people write.
            0 if self.0 > 24 => write!(f, "{}d", self.0 / 24),
            _ => write!(f, "{}h", self.0),
        }
    }
}

as_text!(Hours);

/// Bytes for people: `1.5 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A count for people: `12,345`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 file`, `2 files`, `12,345 files`.
pub fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A duration for people: `850 ms`, `12 s`, `3 min 5 s`, `1 h 2 min`.
pub fn duration(d: std::time::Duration) -> String {
    let s = d.as_secs();
    match s {
        0 => format!("{} ms", d.as_millis()),
        1..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// Seconds since 1970 as `2026-11-20T20:31:36Z`.
pub fn rfc3339(seconds: i64) -> String {
    // SAFETY: all fields are integers or a pointer, for which zero is valid.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call; gmtime_r keeps neither.
    if unsafe { libc::gmtime_r(&seconds, &mut tm) }.is_null() {
        return format!("@{seconds}");
    }
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        i64::from(tm.tm_year) + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    )
}

/// Seconds since 1970 now.
pub fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!("32G".parse(), Ok(Size(32 << 30)));
        assert_eq!("1.5 GiB".parse(), Ok(Size(3 << 29)));
        assert_eq!("4096".parse(), Ok(Size(4096)));
        for wrong in ["", "G", "-1G", "12X", "0", "99999999999T", "1.2.3G"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn time_spans() {
        assert_eq!("24h".parse(), Ok(Hours(24)));
        assert_eq!("7d".parse(), Ok(Hours(168)));
        for (hours, text) in [(1, "1h"), (24, "24h"), (36, "36h"), (168, "7d")] {
            assert_eq!(Hours(hours).to_string(), text);
            assert_eq!(text.parse(), Ok(Hours(hours)));
        }
        for wrong in [
            "",
            "h",
            "0h",
            "24",
            "-1h",
            "99999999999999999999d",
            "100000h",
        ] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
        assert_eq!(rfc3339(i64::MAX), format!("@{}", i64::MAX));
    }

    #[test]
    fn for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1 << 30), "1.0 GiB");
        assert_eq!(bytes((1 << 30) - 1), "1.0 GiB");
        assert_eq!(count(1), "1");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plural(1, "file", "files"), "1 file");
        assert_eq!(duration(std::time::Duration::from_secs(185)), "3 min 5 s");
    }
}
