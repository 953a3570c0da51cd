//! The clock.

use jiff::Timestamp;

use crate::doctor::{Check, Finding, Kind, Look, Severity};

const WRONG: Kind = Kind {
    id: "clock-wrong",
    severity: Severity::Critical,
    about: "the clock is earlier than this program was made, or than the last run",
    why: "The newest restore point is told by its time: the wrong ones would be kept, shown and restored.",
};

pub const CHECK: Check = Check {
    kinds: &[WRONG],
    settings: false,
    run,
};

/// No version is older: 2026-11-01.
const MADE: i64 = 1_793_491_200;
/// Clocks are corrected by so much without anybody's doing.
const SLACK: i64 = 3600;

fn run(look: &Look) -> Vec<Finding> {
    let newest = look.runs.iter().map(|run| run.started.as_second()).max();
    let earliest = newest.map_or(MADE, |newest| MADE.max(newest - SLACK));
    if look.now.as_second() >= earliest {
        return Vec::new();
    }
    let after = Timestamp::from_second(earliest).unwrap_or_default();
    let what = format!(
        "it is {} by the clock, and must be after {}",
        look.now.strftime("%F %R UTC"),
        after.strftime("%F %R UTC")
    );
    vec![WRONG.found(what, "timedatectl set-ntp true")]
}
