//! What systemd says of the timers.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use layout::system::{Cmd, System};
use serde::Serialize;

use super::Settings;
use super::units::Job;

/// A timer as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timer {
    /// What it starts.
    pub job: Job,
    /// As configured; empty for never.
    pub schedule: String,
    /// The unit.
    pub timer: String,
    /// Whether it is there and waits.
    pub active: bool,
    /// When it runs next.
    pub next: Option<Timestamp>,
    /// When it ran last.
    pub last: Option<Timestamp>,
}

/// All timers, whether they are configured or not.
pub fn all(sys: &dyn System, settings: &Settings) -> Vec<Timer> {
    Job::ALL
        .into_iter()
        .map(|job| one(sys, settings, job))
        .collect()
}

fn one(sys: &dyn System, settings: &Settings, job: Job) -> Timer {
    let command = Cmd::new("systemctl")
        .args(["show", "--timestamp=unix"])
        .args(["-p", "ActiveState,NextElapseUSecRealtime,LastTriggerUSec"])
        .arg(job.timer())
        .timeout(Duration::from_secs(30));
    let text = match sys.run(&command) {
        Ok(output) => output.text(),
        Err(error) => {
            tracing::info!("{error}");
            String::new()
        }
    };
    let values: BTreeMap<&str, &str> = text.lines().filter_map(|l| l.split_once('=')).collect();
    let time = |name| values.get(name).and_then(|value| timestamp(value));
    Timer {
        job,
        schedule: job.when(settings).to_string(),
        timer: job.timer(),
        active: values.get("ActiveState") == Some(&"active"),
        next: time("NextElapseUSecRealtime"),
        last: time("LastTriggerUSec"),
    }
}

/// `@1764201600`; nothing for a time that never comes.
fn timestamp(text: &str) -> Option<Timestamp> {
    let seconds = text.strip_prefix('@')?.parse().ok()?;
    (seconds > 0).then(|| Timestamp::from_second(seconds).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_systemd() {
        assert_eq!(
            timestamp("@1764201600").unwrap().to_string(),
            "2025-11-27T00:00:00Z"
        );
        for none in ["", "n/a", "@0", "@x", "infinity"] {
            assert_eq!(timestamp(none), None, "{none}");
        }
    }
}
