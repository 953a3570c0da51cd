//! The table `[plug]` of the configuration.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::values::Hours;

/// What happens when one of this host's sticks is plugged in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// Whether it gets a restore point.
    pub on_plug: OnPlug,
    /// Whether it is powered down afterwards.
    pub power_off: bool,
    /// How the end is made known, besides the messages that every run may send.
    pub say: Vec<Way>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            on_plug: OnPlug::IfOlderThan(Hours(20)),
            power_off: true,
            say: vec![Way::Console, Way::Wall, Way::Speaker],
        }
    }
}

/// Setting and explanation, for the example configuration.
pub const SETTINGS: &[(&str, &str)] = &[
    (
        "on-plug",
        "Whether a stick of this host gets a restore point when it is plugged in (by the package's udev rule): always,\n\
         if-older-than 20h (when its newest good one is older), or never. One that was plugged in already when the\n\
         machine started gets none as long as its newest one is not older than 20h.",
    ),
    (
        "power-off",
        "Power the stick down after a good backup, so that it can be pulled. One that was plugged in when the machine\n\
         started stays on.",
    ),
    (
        "say",
        "How to say what became of it: console, wall (on all terminals), speaker (the PC's: two rising tones, or three\n\
         long low ones).",
    ),
];

/// When a stick gets a restore point by being plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPlug {
    /// Each time.
    Always,
    /// When its newest good one is older.
    IfOlderThan(Hours),
    /// By other means only.
    Never,
}

impl FromStr for OnPlug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("'{text}' is no answer to on-plug; write always, if-older-than 20h, or never")
        };
        match text.trim() {
            "always" => Ok(OnPlug::Always),
            "never" => Ok(OnPlug::Never),
            text => {
                let span = text.strip_prefix("if-older-than ").ok_or_else(wrong)?;
                span.trim()
                    .parse()
                    .map(OnPlug::IfOlderThan)
                    .map_err(|_| wrong())
            }
        }
    }
}

impl fmt::Display for OnPlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnPlug::Always => f.write_str("always"),
            OnPlug::IfOlderThan(hours) => write!(f, "if-older-than {hours}"),
            OnPlug::Never => f.write_str("never"),
        }
    }
}

crate::values::as_text!(OnPlug);

/// How something is made known to whoever is near the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// `/dev/console`
    Console,
    /// On all terminals: wall(1).
    Wall,
    /// The PC speaker, where there is one.
    Speaker,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_read_as_written() {
        for text in ["always", "never", "if-older-than 20h", "if-older-than 7d"] {
            assert_eq!(text.parse::<OnPlug>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "sometimes",
            "if-older-than",
            "if-older-than soon",
            "if-older-than 0h",
        ] {
            let error = wrong.parse::<OnPlug>().unwrap_err();
            assert!(error.contains("if-older-than 20h"), "{error}");
        }
    }
}
