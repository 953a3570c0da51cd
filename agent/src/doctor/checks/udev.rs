//! Sticks are recognised when they are plugged in.

use std::path::Path;

use crate::config::Config;
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

/// What recognises a stick, and, where this version does something then, what starts it.
fn rules(config: &Config) -> Vec<&'static str> {
    let table = toml::Table::try_from(config).unwrap_or_default();
    let on_plug = table
        .get("plug")
        .and_then(|plug| plug.get("on-plug")?.as_str());
    match on_plug {
        None | Some("never") => vec!["70-lifeboat.rules"],
        Some(_) => vec!["70-lifeboat.rules", "71-lifeboat-plug.rules"],
    }
}

/// udev(7).
const DIRS: [&str; 5] = [
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
];

fn run(look: &Look) -> Vec<Finding> {
    if !look.targets.iter().any(|t| t.may_be_unplugged()) {
        return Vec::new();
    }
    let there = |rule: &str| {
        DIRS.iter()
            .any(|dir| look.sys.exists(&Path::new(dir).join(rule)))
    };
    let lost: Vec<&str> = rules(look.config)
        .into_iter()
        .filter(|rule| !there(rule))
        .collect();
    if lost.is_empty() {
        return Vec::new();
    }
    let what = format!("not installed: {}", lost.join(", "));
    let files: Vec<String> = lost
        .iter()
        .map(|rule| format!("udev-rules/{rule}"))
        .collect();
    let mend = match look
        .sys
        .exists(Path::new("/var/lib/dpkg/info/lifeboat.list"))
    {
        true => "apt-get install --reinstall lifeboat".to_owned(),
        false => format!(
            "install -m 0644 {} /etc/udev/rules.d/ && udevadm control --reload",
            files.join(" ")
        ),
    };
    vec![RULE.found(what, mend)]
}
