//! Room on targets.

use crate::doctor::finding::quoted;
use crate::doctor::{Check, Finding, Kind, Look, Severity};
use crate::values;

/// Below this share, somebody should know.
const LOW: f64 = 0.1;

const FULL: Kind = Kind {
    id: "target-full",
    severity: Severity::Warning,
    about: "less than a tenth of a target is free",
    why: "The next restore point may find no room, or push older ones out.",
};

pub const CHECK: Check = Check {
    kinds: &[FULL],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let low = look.here().filter_map(|(target, here)| {
        let space = here.space.filter(|space| space.free_share() < LOW)?;
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
