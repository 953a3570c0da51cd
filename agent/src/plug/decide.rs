//! What to do with a stick: a pure function of what is known.

use jiff::Timestamp;

use super::known::Known;
use super::medium::Medium;
use super::settings::{OnPlug, Settings};
use crate::history::{Kind, Run};
use crate::values::Hours;

/// How old the newest restore point of a stick may become that was plugged in when the machine started, whatever the policy.
const AT_BOOT: Hours = Hours(20);

/// What is known of a stick before it is mounted.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The stick.
    pub medium: &'a Medium,
    /// What this host remembers of it.
    pub known: Option<&'a Known>,
    /// Whether the configuration names it.
    pub configured: bool,
    /// When its newest good restore point of this host was begun.
    pub last_good: Option<Timestamp>,
    /// Whether it was plugged in when the machine started.
    pub at_boot: bool,
    /// The time.
    pub now: Timestamp,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It gets a restore point.
    Backup,
    /// Nothing, as the policy says.
    Leave(String),
    /// Nothing: this host does not know it.
    Stranger(String),
    /// Nothing, and somebody should look at it.
    Refuse(String),
}

/// Decides.
pub fn decide(facts: &Facts<'_>, settings: &Settings) -> Action {
    let Facts { medium, known, .. } = facts;
    if known.is_none() && !facts.configured {
        return Action::Stranger(format!(
            "{} is a Lifeboat stick that this host does not know; nothing was done with it. `lifeboat plug --adopt {}` \
             makes it one of this host's, `lifeboat list --from {1}` shows what is on it",
            medium.describe(),
            medium.disk.display()
        ));
    }
    if !medium.twins.is_empty() {
        let twins: Vec<String> = medium
            .twins
            .iter()
            .map(|t| t.display().to_string())
            .collect();
        return Action::Refuse(format!(
            "{} and {} are copies of each other, and it cannot be told which one is meant; nothing was written to them. \
             Pull all but one, and make sticks with `lifeboat prepare`, not by copying",
            medium.describe(),
            twins.join(", ")
        ));
    }
    if let Some(serial) = known.and_then(|k| k.serial.as_ref()) {
        if *serial != medium.serial {
            return Action::Refuse(format!(
                "{} is a copy of another stick, the one with {}; nothing was written to it. If it is to take its place: \
                 `lifeboat plug --adopt {}`",
                medium.describe(),
                match serial.as_str() {
                    "" => "no serial number".to_owned(),
                    serial => format!("the serial number {serial}"),
                },
                medium.disk.display()
            ));
        }
    }
    if let Some(reason) = not_due(facts, settings.on_plug) {
        return Action::Leave(reason);
    }
    if medium.read_only {
        return Action::Refuse(format!(
            "{} is write-protected, so it gets no restore point: look for a switch on it",
            medium.describe()
        ));
    }
    Action::Backup
}

/// Why there is nothing to do, if so.
fn not_due(facts: &Facts<'_>, policy: OnPlug) -> Option<String> {
    let limit = match policy {
        OnPlug::Never => {
            return Some(
                "on-plug = \"never\": it gets no restore point by being plugged in".into(),
            );
        }
        OnPlug::IfOlderThan(limit) => limit,
        OnPlug::Always if facts.at_boot => AT_BOOT,
        OnPlug::Always => return None,
    };
    let last = facts.last_good?;
    let age = facts.now.duration_since(last).as_secs();
    // From the future: the clock was wrong then, or is now.
    let fresh = (0..i64::try_from(limit.seconds()).unwrap_or(i64::MAX)).contains(&age);
    fresh.then(|| {
        format!(
            "it has a good restore point of {} (not older than {limit}): nothing to do",
            last.strftime("%Y-%m-%d %H:%M UTC")
        )
    })
}

/// When the newest good restore point of this host in a store was begun, as far as this host remembers.
pub fn last_good(runs: &[Run], store: &str) -> Option<Timestamp> {
    runs.iter()
        .filter(|run| run.kind == Kind::Backup)
        .filter(|run| {
            let mut targets = run.targets.iter();
            targets.any(|t| t.store.as_deref() == Some(store) && t.is_good())
        })
        .map(|run| run.started)
        .max()
}

/// Whether a stick was there when the machine started: udev saw it before the system was up (microseconds since the start of
/// the kernel; 0: it is not up yet).
pub fn was_there(seen_after: Option<u64>, up_after: Option<u64>) -> bool {
    match (seen_after, up_after) {
        (Some(_), Some(0)) => true,
        (Some(seen), Some(up)) => seen < up,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Recorder, TargetRun, Trigger};
    use jiff::SignedDuration;
    use std::path::Path;

    const GUID: &str = "0b2c3d4e-1111-2222-3333-444455556666";

    fn medium() -> Medium {
        Medium {
            disk: "/dev/sdb".into(),
            guid: GUID.into(),
            serial: "S1".into(),
            model: "Some Stick".into(),
            read_only: false,
            twins: Vec::new(),
            stable_name: None,
            seen_after: None,
        }
    }

    fn now() -> Timestamp {
        "2026-11-26T12:00:00Z".parse().unwrap()
    }

    /// A stick whose last restore point is so many hours old.
    fn facts<'a>(medium: &'a Medium, known: &'a Known, hours: Option<i64>) -> Facts<'a> {
        Facts {
            medium,
            known: Some(known),
            configured: false,
            last_good: hours.map(|h| now() - SignedDuration::from_hours(h)),
            at_boot: false,
            now: now(),
        }
    }

    fn settings(on_plug: &str) -> Settings {
        Settings {
            on_plug: on_plug.parse().unwrap(),
            ..Settings::default()
        }
    }

    fn known() -> Known {
        Known::new(GUID, "store").on("S1", "Some Stick")
    }

    #[test]
    fn policies() {
        let (medium, known) = (medium(), known());
        let backs_up = |policy: &str, hours, at_boot| {
            let facts = Facts {
                at_boot,
                ..facts(&medium, &known, hours)
            };
            match decide(&facts, &settings(policy)) {
                Action::Backup => true,
                Action::Leave(_) => false,
                other => panic!("{other:?}"),
            }
        };
        for at_boot in [false, true] {
            assert!(backs_up("if-older-than 20h", None, at_boot));
            assert!(backs_up("if-older-than 20h", Some(20), at_boot));
            assert!(!backs_up("if-older-than 20h", Some(19), at_boot));
            assert!(!backs_up("if-older-than 20h", Some(0), at_boot));
            assert!(!backs_up("never", None, at_boot));
            // The clock was wrong once.
            assert!(backs_up("if-older-than 20h", Some(-5), at_boot));
        }
        assert!(backs_up("always", Some(0), false));
        // One that stays plugged in is no reason for a backup at each start.
        assert!(!backs_up("always", Some(1), true));
        assert!(backs_up("always", Some(30), true));
    }

    #[test]
    fn a_stranger_is_not_touched_whatever_it_is() {
        let mut medium = medium();
        medium.read_only = true;
        medium.twins = vec!["/dev/sdc".into()];
        let known = known();
        let facts = Facts {
            known: None,
            ..facts(&medium, &known, None)
        };
        let Action::Stranger(text) = decide(&facts, &settings("always")) else {
            panic!("it is taken for ours");
        };
        assert!(text.contains("lifeboat plug --adopt /dev/sdb"), "{text}");
        let configured = Facts {
            configured: true,
            medium: &self::medium(),
            ..facts
        };
        assert_eq!(decide(&configured, &settings("always")), Action::Backup);
    }

    #[test]
    fn copies_are_refused_and_so_is_a_protected_stick() {
        let refused = |medium: &Medium, known: &Known| match decide(
            &facts(medium, known, None),
            &settings("always"),
        ) {
            Action::Refuse(text) => text,
            other => panic!("{other:?}"),
        };
        let mut twin = medium();
        twin.twins = vec!["/dev/sdc".into()];
        assert!(refused(&twin, &known()).contains("copies of each other"));
        let mut copy = medium();
        copy.serial = "S2".into();
        let text = refused(&copy, &known());
        assert!(
            text.contains("S2") && text.contains("the serial number S1"),
            "{text}"
        );
        let mut nameless = medium();
        nameless.serial.clear();
        assert!(refused(&nameless, &known()).contains("a copy"));
        let mut protected = medium();
        protected.read_only = true;
        assert!(refused(&protected, &known()).contains("write-protected"));
        // It is made known as an image file: the first disk that it is found on is the right one.
        let image = Known::new(GUID, "store");
        assert_eq!(
            decide(&facts(&medium(), &image, None), &settings("always")),
            Action::Backup
        );
        // Nothing would be written to it anyway.
        let left = decide(&facts(&protected, &known(), Some(1)), &Settings::default());
        assert!(matches!(left, Action::Leave(_)));
    }

    #[test]
    fn the_newest_good_one_counts() {
        let run = |started: &str, store: &str, good: bool| {
            let state = tempfile::tempdir().unwrap();
            let host = bundle::document::HostIdentity {
                machine_id: "m".into(),
                hostname: "h".into(),
            };
            let mut run = Recorder::start(state.path(), Kind::Backup, Trigger::Timer, &host).run;
            run.started = started.parse().unwrap();
            let mut target = TargetRun::new(Path::new("/dev/sdb"));
            target.store = Some(store.into());
            target.snapshot = Some(bundle::Id::of(b"x"));
            target.verified = Some(good);
            run.targets = vec![target];
            run
        };
        let mut runs = vec![
            run("2026-11-25T01:00:00Z", "a", true),
            run("2026-11-26T01:00:00Z", "a", false),
            run("2026-11-26T02:00:00Z", "b", true),
            run("2026-11-26T03:00:00Z", "a", true),
        ];
        runs[3].kind = Kind::Directories;
        assert_eq!(last_good(&runs, "a"), Some(runs[0].started));
        assert_eq!(last_good(&runs, "c"), None);
    }

    #[test]
    fn before_the_system_was_up() {
        assert!(was_there(Some(5), Some(9)));
        assert!(was_there(Some(5), Some(0)));
        assert!(!was_there(Some(9), Some(5)));
        assert!(!was_there(None, Some(5)));
        assert!(!was_there(Some(5), None));
    }
}
