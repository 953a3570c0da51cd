//! Backups start by themselves.

use std::path::Path;

use layout::system::Cmd;

use crate::doctor::{Check, Finding, Kind, Look, Severity};

const OFF: Kind = Kind {
    id: "not-scheduled",
    severity: Severity::Warning,
    about: "no timer starts backups",
    why: "Backups that somebody has to think of are the ones that are missing.",
};
const MASKED: Kind = Kind {
    id: "timer-masked",
    severity: Severity::Warning,
    about: "the timer of backups is masked",
    why: "It never fires, whatever the configuration says.",
};
const INACTIVE: Kind = Kind {
    id: "timer-inactive",
    severity: Severity::Warning,
    about: "the timer of backups is there, and does not run",
    why: "Scheduled backups do not start.",
};

pub const CHECK: Check = Check {
    kinds: &[OFF, MASKED, INACTIVE],
    settings: true,
    run,
};

/// What starts backups of the host.
const TIMER: &str = "lifeboat-backup.timer";

fn run(look: &Look) -> Vec<Finding> {
    // Without systemd, something else starts backups that nothing is known of; without targets there is none to start.
    if look.targets.is_empty() || !look.sys.exists(Path::new("/run/systemd/system")) {
        return Vec::new();
    }
    let ask = Cmd::new("systemctl").args(["show", "--property=LoadState,ActiveState", TIMER]);
    let Ok(answer) = look.sys.run(&ask) else {
        return Vec::new();
    };
    let text = answer.text();
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(n, _)| *n == name).map(|(_, value)| value)
    };
    let found = match (value("LoadState"), value("ActiveState")) {
        (Some("masked"), _) => MASKED.found(
            format!("{TIMER} is masked"),
            format!("systemctl unmask {TIMER} && lifeboat schedule apply"),
        ),
        (Some("loaded"), Some("active")) => return Vec::new(),
        (Some("loaded"), _) => INACTIVE.found(
            format!("{TIMER} is not active"),
            format!("systemctl enable --now {TIMER}"),
        ),
        _ => OFF.found("no timer starts backups", "lifeboat setup"),
    };
    vec![found]
}
