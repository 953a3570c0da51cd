//! What a restore will not remake, as each backup finds it.

use crate::doctor::{Check, Finding, Kind, Look, Severity};

const LEFT_OUT: Kind = Kind {
    id: "layout-not-remade",
    severity: Severity::Warning,
    about: "there is something in the host's storage that a restore will not remake",
    why: "After a restore it is missing or different, and has to be put right by hand.",
};
const UNREADABLE: Kind = Kind {
    id: "layout-unreadable",
    severity: Severity::Critical,
    about: "the host's storage cannot be described",
    why: "A backup of the host fails for the same reason.",
};

pub const CHECK: Check = Check {
    kinds: &[LEFT_OUT, UNREADABLE],
    settings: false,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    match &look.layout {
        // Others may not ask.
        Err(_) if !look.root => Vec::new(),
        Err(error) => vec![UNREADABLE.found(error.clone(), "lifeboat layout -v")],
        Ok(layout) => {
            let warnings = layout.warnings.iter();
            let found = warnings.map(|warning| LEFT_OUT.found(warning.clone(), "lifeboat layout"));
            found.collect()
        }
    }
}
