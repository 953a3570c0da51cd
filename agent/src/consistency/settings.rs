//! Settings of the table `[consistency]`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use layout::snapshot::Limits;
use serde::{Deserialize, Serialize};

use crate::values::Percent;

/// Whether file systems are read from snapshots, and how long hooks may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// Whether there are snapshots.
    pub snapshots: Mode,
    /// Space of a classic LVM snapshot.
    pub reserve: Share,
    /// How full a thin pool may be.
    pub pool_limit: Share,
    /// How long a hook may take.
    pub hook_timeout: Span,
}

impl Default for Settings {
    fn default() -> Settings {
        let limits = Limits::default();
        Settings {
            snapshots: Mode::Auto,
            reserve: Share(limits.reserve),
            pool_limit: Share(limits.pool),
            hook_timeout: Span(3600),
        }
    }
}

impl Settings {
    /// For the making of snapshots.
    pub fn limits(&self) -> Limits {
        Limits {
            reserve: self.reserve.0,
            pool: self.pool_limit.0,
        }
    }
}

/// Whether file systems are read from snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Where that is possible.
    Auto,
    /// No.
    Never,
    /// A backup fails where that is not possible.
    Always,
}

/// A part of a hundred, from 1% to 100%.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(pub u32);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        text.parse::<Percent>().map(|percent| Share(percent.0))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A span of time in seconds, written like `30s`, `10m` or `2h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub u64);

impl Span {
    /// As the library has it.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong =
            || format!("'{text}' is not a time span; write it like 30s, 10m or 2h, at most a week");
        let unit = text.trim().chars().last().ok_or_else(wrong)?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return Err(wrong()),
        };
        let number = text.trim().trim_end_matches(unit).trim_end().parse::<u64>();
        match number.ok().and_then(|n| n.checked_mul(factor)) {
            Some(seconds) if (1..=7 * 24 * 3600).contains(&seconds) => Ok(Span(seconds)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s % 3600 == 0 => write!(f, "{}h", s / 3600),
            s if s % 60 == 0 => write!(f, "{}m", s / 60),
            s => write!(f, "{s}s"),
        }
    }
}

crate::values::as_text!(Share);
crate::values::as_text!(Span);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_they_are_written() {
        for (text, seconds) in [("45s", 45), ("10m", 600), ("1h", 3600), ("90m", 5400)] {
            assert_eq!(text.parse(), Ok(Span(seconds)), "{text}");
            assert_eq!(Span(seconds).to_string(), text);
        }
        for text in ["", "0s", "10", "1d", "-1m", "999h", "mm"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_table_is_read() {
        let text = "snapshots = \"always\"\nreserve = \"35%\"\nhook-timeout = \"30s\"\n";
        let settings: Settings = toml::from_str(text).unwrap();
        assert_eq!(settings.snapshots, Mode::Always);
        assert_eq!(
            settings.limits(),
            Limits {
                reserve: 35,
                pool: 90
            }
        );
        assert_eq!(settings.hook_timeout.duration(), Duration::from_secs(30));
        for wrong in [
            "reserve = \"0%\"",
            "reserve = 20",
            "snapshots = \"often\"",
            "hook-timeout = \"3\"",
        ] {
            assert!(toml::from_str::<Settings>(wrong).is_err(), "{wrong}");
        }
    }
}
