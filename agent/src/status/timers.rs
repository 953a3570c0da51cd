//! What timers will start next, as systemd says it.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use layout::system::{Cmd, System};
use serde::Serialize;

/// A run that a timer will start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Planned {
    /// `lifeboat-backup.timer`
    pub timer: String,
    /// When; nothing where systemd does not say: the timer is being started.
    pub time: Option<Timestamp>,
}

impl Planned {
    /// What it starts, in a word: `backup`.
    pub fn what(&self) -> &str {
        let name = self.timer.strip_suffix(".timer").unwrap_or(&self.timer);
        name.strip_prefix("lifeboat-").unwrap_or(name)
    }
}

/// Asks systemd; `None`: it cannot be asked. The timer that looks whether backups are overdue makes none.
pub fn ask(sys: &dyn System) -> Option<Vec<Planned>> {
    // systemctl writes times of the zone that it runs in.
    let command = Cmd::new("systemctl")
        .args(["show", "lifeboat-*.timer"])
        .args([
            "--property=Id",
            "--property=ActiveState",
            "--property=NextElapseUSecRealtime",
        ])
        .env("TZ", "UTC")
        .timeout(Duration::from_secs(10));
    let mut planned = parse(&crate::facts::ask(sys, &command)?);
    planned.retain(|p| p.timer != "lifeboat-check.timer");
    planned.sort_by_key(|p| (p.time.is_none(), p.time));
    Some(planned)
}

fn parse(text: &str) -> Vec<Planned> {
    let units = text.split("\n\n");
    let planned = units.filter_map(|unit| {
        let value = |key: &str| {
            let mut lines = unit.lines().filter_map(|line| line.split_once('='));
            lines.find(|(k, _)| *k == key).map(|(_, v)| v.trim())
        };
        if value("ActiveState") != Some("active") {
            return None;
        }
        Some(Planned {
            timer: value("Id")?.to_owned(),
            time: value("NextElapseUSecRealtime").and_then(time),
        })
    });
    planned.collect()
}

/// `Fri 2026-11-27 02:00:00 UTC`, or seconds since 1970 behind an `@`.
fn time(text: &str) -> Option<Timestamp> {
    if let Some(seconds) = text.strip_prefix('@') {
        return Timestamp::from_second(seconds.parse().ok()?).ok();
    }
    let time = text.strip_suffix(" UTC")?;
    let (_, time) = time.split_once(' ')?;
    let time = DateTime::strptime("%Y-%m-%d %H:%M:%S", time).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_as_systemctl_shows_them() {
        let text = "NextElapseUSecRealtime=Fri 2026-11-27 02:13:24 UTC\nId=lifeboat-backup.timer\nActiveState=active\n\n\
            NextElapseUSecRealtime=\nId=lifeboat-verify.timer\nActiveState=inactive\n\n\
            Id=lifeboat-guests-backup.timer\nActiveState=active\nNextElapseUSecRealtime=@1795651200\n";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].what(), "backup");
        assert_eq!(found[0].time, Some("2026-11-27T02:13:24Z".parse().unwrap()));
        assert_eq!(found[1].what(), "guests-backup");
        assert_eq!(
            found[1].time,
            Some(Timestamp::from_second(1_795_651_200).unwrap())
        );
        assert_eq!(parse(""), []);
    }
}
