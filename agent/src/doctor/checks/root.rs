//! Others than root see a part only.

use crate::doctor::{Check, Finding, Kind, Look, Severity};

const NOT_ROOT: Kind = Kind {
    id: "not-root",
    severity: Severity::Hint,
    about: "the command was not started by root",
    why: "Storage, sticks, keys and the state of the host are for root to see, so much was not looked at.",
};

pub const CHECK: Check = Check {
    kinds: &[NOT_ROOT],
    settings: false,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    match look.root {
        true => Vec::new(),
        false => vec![NOT_ROOT.found("not everything could be looked at", "sudo lifeboat doctor")],
    }
}
