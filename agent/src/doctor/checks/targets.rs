//! Targets: there are some, they are there, they can be used, and they are several.

use std::path::Path;

use crate::doctor::finding::quoted;
use crate::doctor::targets::Seen;
use crate::doctor::{Check, Finding, Kind, Look, Severity, Target};
use crate::values;

const NONE: Kind = Kind {
    id: "no-target",
    severity: Severity::Critical,
    about: "no target is configured",
    why: "Nothing is ever backed up unless somebody says where to each time.",
};
const MISSING: Kind = Kind {
    id: "target-missing",
    severity: Severity::Warning,
    about: "a directory or an image that is a target is not there",
    why: "It gets no restore points: its drive is not mounted, or was replaced.",
};
const AWAY: Kind = Kind {
    id: "target-away",
    severity: Severity::Warning,
    about: "a stick has not been written to for seven times as long as restore points may be old",
    why: "What a restore brings back from it is that old.",
};
const BROKEN: Kind = Kind {
    id: "target-broken",
    severity: Severity::Critical,
    about: "a target is there, and cannot be used",
    why: "It takes no restore points, and those on it may be lost.",
};
const EMPTY: Kind = Kind {
    id: "target-unprepared",
    severity: Severity::Critical,
    about: "a target holds no store",
    why: "Nothing can be written to it: its drive is not mounted, or it was never prepared.",
};
const TWINS: Kind = Kind {
    id: "targets-twins",
    severity: Severity::Warning,
    about: "two targets hold the same store: one is a copy of the other",
    why: "Restore points that are made on each from now on make them differ, and neither is whole.",
};
const PASSED: Kind = Kind {
    id: "target-busy",
    severity: Severity::Hint,
    about: "a stick was not looked at, because a run is using it, or because only root may",
    why: "What is wrong with it is not known.",
};

pub const CHECK: Check = Check {
    kinds: &[NONE, MISSING, AWAY, BROKEN, EMPTY, TWINS, PASSED],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    if look.targets.is_empty() {
        return vec![NONE.found("no target is configured", "lifeboat setup")];
    }
    let mut found: Vec<Finding> = look
        .targets
        .iter()
        .filter_map(|target| one(look, target))
        .collect();
    let mut stores: Vec<(&str, &Path)> = Vec::new();
    for (target, here) in look.here() {
        let Ok(store) = &here.store else { continue };
        match stores.iter().find(|(id, _)| *id == store.id) {
            // A stick has many names.
            Some((_, first)) if !same(first, &target.named) => found.push(TWINS.found(
                format!(
                    "{} and {} hold the same store",
                    first.display(),
                    target.named.display()
                ),
                format!("lifeboat list --from {}", quoted(&target.named)),
            )),
            Some(_) => {}
            None => stores.push((&store.id, &target.named)),
        }
    }
    found
}

fn same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn one(look: &Look, target: &Target) -> Option<Finding> {
    let name = target.named.display();
    let arg = quoted(&target.named);
    match &target.seen {
        Seen::Absent if target.may_be_unplugged() => away(look, target),
        Seen::Absent => {
            let mend = match fstab_line(look, &target.named) {
                Some(point) => format!("mount {}", quoted(point)),
                None => format!("lifeboat prepare {arg}"),
            };
            Some(MISSING.found(format!("{name} is not there"), mend))
        }
        Seen::Broken(why) => {
            Some(BROKEN.found(why.clone(), format!("lifeboat verify --from {arg}")))
        }
        Seen::Passed(why) => Some(PASSED.found(format!("{name}: {why}"), "lifeboat doctor")),
        Seen::Here(here) => {
            let reason = here.store.as_ref().err()?;
            let mend = match fstab_line(look, &target.named) {
                Some(point) => format!("mount {}", quoted(point)),
                None => format!("lifeboat prepare {arg}"),
            };
            Some(EMPTY.found(format!("{name}: {reason}"), mend))
        }
    }
}

/// Where fstab would mount a file system above `path` that is not mounted now.
fn fstab_line(look: &Look, path: &Path) -> Option<String> {
    let layout = look.layout.as_ref().ok()?;
    let mounts = layout.mounts.iter().filter(|m| !m.mounted);
    let above = mounts.filter(|m| path.starts_with(&m.mount_point));
    above
        .max_by_key(|m| m.mount_point.components().count())
        .map(|m| m.mount_point.display().to_string())
}

/// A stick in the drawer is how it should be, for a while.
fn away(look: &Look, target: &Target) -> Option<Finding> {
    let name = target.named.display();
    let mend = format!("lifeboat backup --to {}", quoted(&target.named));
    let last = look.runs.iter().rev().find(|run| {
        let mut targets = run.targets.iter();
        targets.any(|t| t.target == target.named && t.is_good())
    });
    let Some(last) = last else {
        return Some(AWAY.found(
            format!("{name} is not plugged in, and this host has never written to it"),
            mend,
        ));
    };
    let age = look.hours_since(last.started);
    (age > look.config.objectives.host_rpo.0.saturating_mul(7)).then(|| {
        let days = values::plural(age / 24, "day", "days");
        AWAY.found(
            format!("{name} is not plugged in; its last restore point is {days} old"),
            mend,
        )
    })
}
