//! What was done so far: backups, verifications, drills.

use crate::doctor::finding::quoted;
use crate::doctor::{Check, Finding, Kind, Look, Severity};
use crate::history::{Kind as RunKind, Run, RunResult, State};
use crate::values;

const NEVER: Kind = Kind {
    id: "never-backed-up",
    severity: Severity::Critical,
    about: "this host has never been backed up",
    why: "There is nothing to restore.",
};
const OVERDUE: Kind = Kind {
    id: "backup-overdue",
    severity: Severity::Warning,
    about: "the last good restore point of the host is older than it may be (`host-rpo`)",
    why: "A restore brings the host back as it was then; what came after is lost.",
};
const FAILED: Kind = Kind {
    id: "last-backup-failed",
    severity: Severity::Warning,
    about: "the last backup failed, or did not come to its end",
    why: "The next one will probably fail for the same reason.",
};
const DAMAGED: Kind = Kind {
    id: "target-damaged",
    severity: Severity::Critical,
    about: "the last verification of a target found damage",
    why: "What is damaged cannot be restored, unless it is healed.",
};
const UNVERIFIED: Kind = Kind {
    id: "not-verified",
    severity: Severity::Warning,
    about: "nothing of a target has been read again for longer than it may be (`verified-within`)",
    why: "Media lose data silently; reading them again is how one gets to know in time.",
};
const UNPROVEN: Kind = Kind {
    id: "not-proven",
    severity: Severity::Hint,
    about: "no restore has been tried for longer than it may be (`drilled-within`)",
    why: "Only a restore that was tried shows that one works, and how long it takes.",
};

pub const CHECK: Check = Check {
    kinds: &[NEVER, OVERDUE, FAILED, DAMAGED, UNVERIFIED, UNPROVEN],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    // Single directories are all that some hosts save.
    let saved = |run: &&Run| {
        let saves = matches!(run.kind, RunKind::Backup | RunKind::Directories);
        saves && run.targets.iter().any(|t| t.is_good())
    };
    let mut found = Vec::new();
    let last = look.runs.iter().rev().find(saved);
    match last {
        None => {
            found.push(NEVER.found("there is no restore point of this host", "lifeboat backup"))
        }
        Some(run) => {
            let age = look.hours_since(run.started);
            if age >= look.config.objectives.host_rpo.0.max(1) {
                let what = format!("the last good restore point is {} old", long(age));
                found.push(OVERDUE.found(what, "lifeboat backup"));
            }
        }
    }
    let over = |run: &&Run| run.kind != RunKind::Verify && run.kind != RunKind::Drill;
    let ended = |run: &&Run| run.state() != State::Running;
    if let Some(run) = look.runs.iter().rev().filter(over).find(ended) {
        let why = match run.state() {
            State::Died => Some("it was killed, or the machine lost its power".to_owned()),
            State::Ended(RunResult::Failed) => Some(
                run.error
                    .clone()
                    .unwrap_or_else(|| "see its messages".into()),
            ),
            _ => None,
        };
        if let Some(why) = why {
            let what = format!(
                "the backup of {} failed: {why}",
                run.started.strftime("%F %R UTC")
            );
            found.push(FAILED.found(what, "lifeboat backup -v"));
        }
    }
    for target in &look.targets {
        found.extend(of_target(look, &target.named));
    }
    let drill = look
        .runs
        .iter()
        .rev()
        .find(|run| run.kind == RunKind::Drill && run.state() == State::Ended(RunResult::Fine));
    let within = look.config.objectives.drilled_within.0;
    if last.is_some() && drill.is_none_or(|run| look.hours_since(run.started) >= within) {
        found.push(UNPROVEN.found("no restore has been tried lately", "lifeboat plan latest"));
    }
    found
}

/// What was last read of a target, after a backup or by a verification.
fn of_target(look: &Look, named: &std::path::Path) -> Option<Finding> {
    let arg = quoted(named);
    let read = look.runs.iter().rev().find_map(|run| {
        let target = run.targets.iter().find(|t| t.target == named)?;
        Some((run, target.verified?))
    });
    let written = |run: &Run| run.targets.iter().any(|t| t.target == named && t.is_good());
    match read {
        Some((run, false)) => {
            let at = run.started.strftime("%F %R UTC");
            let what = format!("{}: what was read on {at} was damaged", named.display());
            Some(DAMAGED.found(what, format!("lifeboat verify --heal --from {arg}")))
        }
        Some((run, true)) => {
            let age = look.hours_since(run.started);
            (age >= look.config.objectives.verified_within.0.max(1)).then(|| {
                let what = format!("{} was read last {} ago", named.display(), long(age));
                UNVERIFIED.found(what, format!("lifeboat verify --from {arg}"))
            })
        }
        None => look.runs.iter().any(written).then(|| {
            let what = format!("{} has never been read again", named.display());
            UNVERIFIED.found(what, format!("lifeboat verify --from {arg}"))
        }),
    }
}

fn long(hours: u64) -> String {
    match hours {
        0..48 => values::plural(hours, "hour", "hours"),
        _ => values::plural(hours / 24, "day", "days"),
    }
}
