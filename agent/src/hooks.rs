//! Executables of the admin that run before and after a backup, for example to bring a database to rest.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use layout::system::{Cmd, System};

/// A hook that does not end in this time is stopped, and has failed.
const LIMIT: Duration = Duration::from_secs(3600);

/// When hooks run.
pub const NAMES: [&str; 2] = ["pre-backup", "post-backup"];

/// Runs `<dir>/<when>` (an executable, or a directory of executables that run in the order of their names).
/// Stops at the first that fails. No hook at all is fine.
pub fn run(sys: &dyn System, dir: &Path, when: &str, env: &[(&str, &str)]) -> anyhow::Result<()> {
    for hook in find(dir, when)? {
        check(&hook)?;
        tracing::info!("running the hook {}", hook.display());
        let mut command = Cmd::new(hook.to_string_lossy())
            .timeout(LIMIT)
            .env("LIFEBOAT_HOOK", when);
        for (name, value) in env {
            command = command.env(name, value);
        }
        let output = sys
            .run(&command)
            .with_context(|| format!("the {when} hook {} failed", hook.display()))?;
        for line in output.text().lines() {
            tracing::info!("{}: {line}", hook.display());
        }
    }
    Ok(())
}

/// The hooks of one moment, in their order.
pub fn find(dir: &Path, when: &str) -> anyhow::Result<Vec<PathBuf>> {
    let path = dir.join(when);
    // Only what is not there at all is no hook: a link that leads nowhere was meant to run.
    match std::fs::symlink_metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        _ => {}
    }
    let meta = std::fs::metadata(&path)
        .with_context(|| format!("cannot look at the hook {}", path.display()))?;
    if !meta.is_dir() {
        return Ok(vec![path]);
    }
    let unreadable = || format!("cannot list the hooks in {}", path.display());
    let mut hooks = Vec::new();
    for entry in std::fs::read_dir(&path).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        // As run-parts does: what is not executable (a README, a file kept by dpkg) is no hook.
        let file = std::fs::metadata(entry.path());
        if file.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0) {
            hooks.push(entry.path());
        }
    }
    hooks.sort();
    Ok(hooks)
}

/// Hooks run as root: nobody else may be able to change them.
pub fn check(hook: &Path) -> anyhow::Result<()> {
    let meta = std::fs::metadata(hook)
        .with_context(|| format!("cannot look at the hook {}", hook.display()))?;
    let own = meta.uid() == 0 || meta.uid() == nix::unistd::geteuid().as_raw();
    if !own || meta.permissions().mode() & 0o022 != 0 {
        bail!(
            "the hook {} could be changed by others than root: chown root and chmod go-w it, or remove it",
            hook.display()
        );
    }
    if meta.permissions().mode() & 0o111 == 0 {
        bail!(
            "the hook {} is not executable: chmod +x it, or remove it",
            hook.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::system::Host;

    fn hook(path: &Path, script: &str, mode: u32) {
        std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn none_is_fine() {
        run(&Host, Path::new("/nonexistent"), "pre-backup", &[]).unwrap();
    }

    /// A hook that brings a database to rest must not be left out in silence.
    #[test]
    fn a_link_that_leads_nowhere_is_no_absent_hook() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("pre-backup")).unwrap();
        let text = run(&Host, dir.path(), "pre-backup", &[])
            .unwrap_err()
            .to_string();
        assert!(text.contains("pre-backup"), "{text}");
    }

    #[test]
    fn run_in_order_with_environment_until_one_fails() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = dir.path().join("pre-backup");
        std::fs::create_dir(&hooks).unwrap();
        let log = dir.path().join("log");
        let note = |n: u32| {
            format!(
                "echo {n} $LIFEBOAT_HOOK $LIFEBOAT_STATUS >>{}",
                log.display()
            )
        };
        hook(&hooks.join("20-b"), &note(2), 0o755);
        hook(&hooks.join("10-a"), &note(1), 0o755);
        hook(&hooks.join("30-fails"), "echo broken >&2; exit 7", 0o755);
        hook(&hooks.join("40-not-reached"), &note(4), 0o755);
        hook(&hooks.join("README"), &note(5), 0o644);
        let e = run(
            &Host,
            dir.path(),
            "pre-backup",
            &[("LIFEBOAT_STATUS", "ok")],
        )
        .unwrap_err();
        let text = format!("{e:#}");
        assert!(
            text.contains("30-fails") && text.contains("broken"),
            "{text}"
        );
        assert_eq!(
            std::fs::read_to_string(log).unwrap(),
            "1 pre-backup ok\n2 pre-backup ok\n"
        );
    }

    #[test]
    fn hooks_that_others_could_change_do_not_run() {
        let dir = tempfile::tempdir().unwrap();
        hook(&dir.path().join("post-backup"), "exit 0", 0o777);
        let text = run(&Host, dir.path(), "post-backup", &[])
            .unwrap_err()
            .to_string();
        assert!(text.contains("could be changed"), "{text}");
    }
}
