//! Hooks run when they should, and are root's alone.

use crate::doctor::finding::quoted;
use crate::doctor::{Check, Finding, Kind, Look, Severity};
use crate::hooks;

const REFUSED: Kind = Kind {
    id: "hook-refused",
    severity: Severity::Critical,
    about: "a hook is not executable, others than root can change it, or it is a link that leads nowhere",
    why: "A backup refuses to run it: before a backup, nothing is backed up then.",
};
const SKIPPED: Kind = Kind {
    id: "hook-skipped",
    severity: Severity::Hint,
    about: "a script in a directory of hooks is not executable, and so is passed over",
    why: "What it should bring to rest is backed up while it is busy.",
};

pub const CHECK: Check = Check {
    kinds: &[REFUSED, SKIPPED],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let mut found = Vec::new();
    for when in hooks::NAMES {
        let hooks = match hooks::find(&look.config.hooks, when) {
            Ok(hooks) => hooks,
            Err(error) => {
                let path = look.config.hooks.join(when);
                found.push(REFUSED.found(format!("{error:#}"), format!("ls -l {}", quoted(path))));
                continue;
            }
        };
        for hook in hooks {
            if let Err(error) = hooks::check(&hook) {
                let arg = quoted(&hook);
                let mend = format!("chown root: {arg} && chmod 0755 {arg}");
                found.push(REFUSED.found(error.to_string(), mend));
            }
        }
        let dir = look.config.hooks.join(when);
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if is_forgotten(&path) {
                let what = format!("{} is not executable", path.display());
                found.push(SKIPPED.found(what, format!("chmod 0755 {}", quoted(&path))));
            }
        }
    }
    found
}

/// A script that nobody may execute. What dpkg keeps of older versions is meant to be left alone.
fn is_forgotten(path: &std::path::Path) -> bool {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    let kept = path
        .extension()
        .is_some_and(|e| e.to_string_lossy().starts_with("dpkg-"));
    let plain =
        std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 == 0);
    let mut start = [0; 2];
    plain
        && !kept
        && std::fs::File::open(path)
            .and_then(|mut file| file.read_exact(&mut start))
            .is_ok_and(|()| start == *b"#!")
}
