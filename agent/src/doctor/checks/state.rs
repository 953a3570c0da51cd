//! The host can remember what it did.

use std::path::Path;

use nix::unistd::{AccessFlags, access};

use crate::doctor::finding::quoted;
use crate::doctor::{Check, Finding, Kind, Look, Severity};
use crate::history::Space;
use crate::values;

/// Documents of runs are small; this is for many of them.
const LEAST: u64 = 64 << 20;

const UNWRITABLE: Kind = Kind {
    id: "state-unwritable",
    severity: Severity::Critical,
    about: "the directory of what the host remembers cannot be written to",
    why: "Backups do not start without its lock, and what they did is forgotten.",
};
const FULL: Kind = Kind {
    id: "state-full",
    severity: Severity::Warning,
    about: "the file system of what the host remembers is nearly full",
    why: "The results of runs cannot be noted, and a backup has no room for what it works with.",
};

pub const CHECK: Check = Check {
    kinds: &[UNWRITABLE, FULL],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let state = &look.config.state;
    // It is made by the first run.
    let Some(there) = state.ancestors().find(|p| p.exists()) else {
        return Vec::new();
    };
    let arg = quoted(there);
    if !there.is_dir() || (look.root && !writable(there)) {
        let what = format!("{} cannot be written to", there.display());
        let mend = match there.is_dir() {
            true => format!("findmnt --target {arg} && ls -ld {arg}"),
            false => format!("mv {arg} {arg}.old"),
        };
        return vec![UNWRITABLE.found(what, mend)];
    }
    match Space::of(there) {
        Some(space) if space.free < LEAST => {
            let what = format!("{} has {} left", there.display(), values::bytes(space.free));
            vec![FULL.found(what, format!("du -xh --max-depth=1 {arg}"))]
        }
        _ => Vec::new(),
    }
}

/// Root may write anywhere, but not to what is mounted read-only.
fn writable(dir: &Path) -> bool {
    access(dir, AccessFlags::W_OK).is_ok()
}
