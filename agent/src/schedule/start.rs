//! What a run heeds that a timer has started: the window, the longest duration, guests that are just coming back.

use std::time::{Duration, Instant};

use jiff::{Timestamp, Zoned};

use super::Settings;
use crate::cli::Start;
use crate::config::Config;
use crate::guests::pending;
use crate::history::Trigger;
use crate::output::Refused;
use crate::signals::{self, Limit};

/// How often it looks whether guests are still being restored.
const PAUSE: Duration = Duration::from_secs(2);

/// Sets the limits of a run that a timer has started. Returns why it must not start now. Others have no limits.
pub fn begin(config: &Config, start: &Start) -> anyhow::Result<Option<String>> {
    if start.trigger != Trigger::Timer {
        return Ok(None);
    }
    let settings = &config.schedule;
    let now = Zoned::now();
    if let Some(reason) = outside(settings, &now) {
        return Ok(Some(reason));
    }
    signals::limit(limit(settings, &now));
    wait_for_guests(config, start.patience())?;
    // Meanwhile the night may be over.
    Ok(outside(settings, &Zoned::now()))
}

fn outside(settings: &Settings, now: &Zoned) -> Option<String> {
    let window = settings.window;
    (!window.holds(now.time())).then(|| {
        format!(
            "not started: it is {}, and the window of scheduled runs is {window} (`window` in [schedule])",
            now.strftime("%H:%M")
        )
    })
}

fn limit(settings: &Settings, now: &Zoned) -> Limit {
    Limit {
        at: settings.window.closes(now).map(|end: Timestamp| {
            let reason = format!(
                "stopped at the end of the window of scheduled runs, {}",
                settings.window
            );
            (end, reason)
        }),
        after: settings.longest.get().map(|span| {
            let reason = format!(
                "stopped after {}, the longest that a scheduled run may take",
                settings.longest
            );
            (span, reason)
        }),
    }
}

/// Guests that are being restored need the disks and the targets more urgently.
fn wait_for_guests(config: &Config, patience: Duration) -> anyhow::Result<()> {
    let dir = pending::dir(config);
    let begun = Instant::now();
    while pending::at_work(&dir) {
        if begun.elapsed() >= patience {
            return Err(Refused(
                "guests are being restored: `lifeboat guests status` shows how far that is".into(),
            )
            .into());
        }
        signals::check()?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use jiff::tz::TimeZone;

    use super::*;

    fn at(hour: i8) -> Zoned {
        let time = date(2026, 11, 26).at(hour, 0, 0, 0);
        time.to_zoned(TimeZone::UTC).unwrap()
    }

    #[test]
    fn nothing_starts_outside_of_the_window() {
        let settings = Settings {
            window: "22:00-06:00".parse().unwrap(),
            ..Settings::default()
        };
        assert!(outside(&settings, &at(23)).is_none());
        let reason = outside(&settings, &at(9)).unwrap();
        assert!(
            reason.contains("09:00") && reason.contains("22:00-06:00"),
            "{reason}"
        );
        assert!(outside(&Settings::default(), &at(9)).is_none());
    }

    #[test]
    fn limits_come_of_the_settings() {
        let settings = Settings {
            window: "22:00-06:00".parse().unwrap(),
            longest: "4h".parse().unwrap(),
            ..Settings::default()
        };
        let limit = limit(&settings, &at(23));
        let (end, _) = limit.at.clone().unwrap();
        assert_eq!(end.to_string(), "2026-11-27T06:00:00Z");
        assert_eq!(limit.after.unwrap().0, Duration::from_secs(14_400));
    }
}
