//! Settings of the table `[schedule]`.

use serde::{Deserialize, Serialize};

use super::{Span, When, Window};
use crate::values::Percent;

/// When the host, its guests and its targets get their turn, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// A backup of the host, with its guests unless these have a schedule of their own.
    pub host: When,
    /// A backup of the guests alone.
    pub guests: When,
    /// Targets are read again.
    pub verify: When,
    /// How much of each target a scheduled verification reads; nothing: all of it.
    pub verify_sample: String,
    /// Somebody is told when backups are overdue.
    pub check: When,
    /// Runs begin up to this much later.
    pub random_delay: Span,
    /// When scheduled runs may work.
    pub window: Window,
    /// How long a scheduled run may take.
    pub longest: Span,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            host: When::default(),
            guests: When::default(),
            verify: When::default(),
            verify_sample: String::new(),
            check: When::daily(8),
            random_delay: Span::default(),
            window: Window::default(),
            longest: Span::default(),
        }
    }
}

impl Settings {
    /// How much of each target a scheduled verification reads; nothing for all of it.
    pub fn sample(&self) -> Result<Option<Percent>, String> {
        match self.verify_sample.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some),
        }
    }
}

/// Setting and explanation, for the example configuration.
pub const SETTINGS: &[(&str, &str)] = &[
    (
        "host",
        "What runs by itself, once `lifeboat schedule apply` has made timers of this (docs/schedules.md). host: backups of the\n\
         host: \"daily 02:00\", \"hourly :15\", \"weekly Sun 03:00\", \"monthly 1 04:00\", any expression of systemd.time(7), or \"\"\n\
         for never. A run that was missed while the machine was off is caught up.",
    ),
    (
        "guests",
        "Backups of the guests at other times than the host, which then goes without them. Empty: with the host.",
    ),
    (
        "verify",
        "When the targets are read again, and how much of them each time: \"10%\" reads the next tenth. Empty: everything.",
    ),
    ("verify-sample", ""),
    (
        "check",
        "When to look whether backups are overdue, and tell it ([notify]): a backup that does not run tells nothing.",
    ),
    (
        "random-delay",
        "Begin up to so much later (\"20min\"), so that many hosts do not come to one drive at the same moment.",
    ),
    (
        "window",
        "Scheduled runs begin only between these hours of local time (\"22:00-06:00\"), and stop at their end. What is complete\n\
         is kept, and the next run goes on from there. Runs that people start are not limited.",
    ),
    (
        "longest",
        "How long a scheduled run may take (\"4h\"); it stops in the same way.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_being_written() {
        let text = "host = \"daily 02:00\"\nverify-sample = \"10%\"\nwindow = \"22:00-06:00\"\nlongest = \"4h\"\n";
        let settings: Settings = toml::from_str(text).unwrap();
        assert_eq!(settings.sample().unwrap(), Some(Percent(10)));
        let again: Settings = toml::from_str(&toml::to_string(&settings).unwrap()).unwrap();
        assert_eq!(again, settings);
        assert!(toml::from_str::<Settings>("window = \"always\"").is_err());
    }
}
