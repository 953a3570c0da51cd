//! Sticks are recognised when they are plugged in.

use std::path::Path;

use crate::doctor::{Check, Finding, Kind, Look, Severity};

const RULE: Kind = Kind {
    id: "udev-rule-missing",
    severity: Severity::Warning,
    about: "there is a stick, and the udev rule that recognises it is not installed",
    why: "Plugging the stick in does nothing, and desktops mount it.",
};

pub const CHECK: Check = Check {
    kinds: &[RULE],
    settings: true,
    run,
};

/// The rule of `udev-rules/`.
const NAME: &str = "70-lifeboat.rules";
/// udev(7).
const DIRS: [&str; 5] = [
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
];

fn run(look: &Look) -> Vec<Finding> {
    let there = DIRS
        .iter()
        .any(|dir| look.sys.exists(&Path::new(dir).join(NAME)));
    if there || !look.targets.iter().any(|t| t.may_be_unplugged()) {
        return Vec::new();
    }
    let mend =
        format!("install -m 0644 udev-rules/{NAME} /etc/udev/rules.d/ && udevadm control --reload");
    vec![RULE.found(format!("{NAME} is not installed"), mend)]
}
