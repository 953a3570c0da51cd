//! Room on targets.

use crate::doctor::finding::quoted;
use crate::doctor::{Check, Finding, Kind, Look, Severity};
use crate::history::Space;
use crate::values;

const FULL: Kind = Kind {
    id: "target-full",
    severity: Severity::Warning,
    about: "less of a target is free than `low-space` in [notify] asks for",
    why: "The next restore point may find no room, or push older ones out.",
};

pub const CHECK: Check = Check {
    kinds: &[FULL],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let Some(asked) = look.config.notify.low_space() else {
        return Vec::new();
    };
    let low = look.here().filter_map(|(target, here)| {
        let free = |space: &Space| space.free_share() * 100.0;
        let space = here
            .space
            .filter(|space| free(space) < f64::from(asked.0))?;
        Some(FULL.found(
            format!(
                "{} has {} of {} left",
                target.named.display(),
                values::bytes(space.free),
                values::bytes(space.size)
            ),
            format!("lifeboat prune --dry-run {}", quoted(&target.named)),
        ))
    });
    low.collect()
}
