//! The keys that the host keeps are for root only.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::doctor::finding::quoted;
use crate::doctor::{Check, Finding, Kind, Look, Severity};

const OPEN: Kind = Kind {
    id: "keys-readable",
    severity: Severity::Critical,
    about: "others than root can get at the keys of encrypted targets",
    why: "With a key, all that is on the target can be read.",
};

pub const CHECK: Check = Check {
    kinds: &[OPEN],
    settings: true,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let dir = &look.config.keys;
    let mut paths = vec![dir.clone()];
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    paths.extend(entries.map(|e| e.path()));
    let open: Vec<String> = paths.iter().filter_map(|p| open_to_others(p)).collect();
    match open.is_empty() {
        true => Vec::new(),
        false => {
            let dir = quoted(dir);
            vec![OPEN.found(
                open.join("; "),
                format!("chown -R root: {dir} && chmod -R go= {dir}"),
            )]
        }
    }
}

fn open_to_others(path: &Path) -> Option<String> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    let owner = meta.uid();
    let foreign = owner != 0 && owner != nix::unistd::geteuid().as_raw();
    let mode = meta.permissions().mode() & 0o7777;
    (foreign || mode & 0o077 != 0).then(|| {
        format!(
            "{} belongs to user {owner} and has the mode {mode:04o}",
            path.display()
        )
    })
}
