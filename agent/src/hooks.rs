//! Executables of the admin that run before and after a backup, and before and after its snapshots are made, for example to
//! bring a database to rest.

use std::collections::VecDeque;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use layout::system::{Cmd, System};
use serde::Serialize;

use crate::progress::printable;
use crate::signals;

/// How many of the last lines of a hook the report has.
const LINES: usize = 50;
/// How long a line may be in it.
const LINE: usize = 400;

/// What a hook did, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookRun {
    /// `pre-backup`, `pre-snapshot`, `post-snapshot`, `post-backup`.
    pub when: String,
    pub hook: PathBuf,
    pub seconds: u64,
    /// Why it failed.
    pub error: Option<String>,
    /// The last lines that it printed.
    pub output: Vec<String>,
}

/// The hooks of a backup.
pub struct Hooks<'h> {
    sys: &'h dyn System,
    dir: &'h Path,
    /// One that does not end in this time is stopped with all that it started, and has failed.
    timeout: Duration,
    runs: Mutex<Vec<HookRun>>,
}

impl<'h> Hooks<'h> {
    pub fn new(sys: &'h dyn System, dir: &'h Path, timeout: Duration) -> Hooks<'h> {
        Hooks {
            sys,
            dir,
            timeout,
            runs: Mutex::default(),
        }
    }

    /// Runs `<dir>/<when>` (an executable, or a directory of executables that run in the order of their names).
    /// Stops at the first that fails. No hook at all is fine.
    pub fn run(&self, when: &str, env: &[(&str, &str)]) -> anyhow::Result<()> {
        find(self.dir, when)?
            .iter()
            .try_for_each(|hook| self.run_one(hook, when, env))
    }

    /// As [`Hooks::run`], but goes on after one that fails: the others undo something, too.
    pub fn run_all(&self, when: &str, env: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut result = Ok(());
        for hook in find(self.dir, when)? {
            let one = self.run_one(&hook, when, env);
            result = match (result, one) {
                (Ok(()), one) => one,
                (Err(first), Ok(())) => Err(first),
                (Err(first), Err(second)) => Err(anyhow::anyhow!("{first:#}; {second:#}")),
            };
        }
        result
    }

    fn run_one(&self, hook: &Path, when: &str, env: &[(&str, &str)]) -> anyhow::Result<()> {
        check(hook)?;
        tracing::info!("running the hook {}", hook.display());
        let mut command = Cmd::new(hook.to_string_lossy())
            .timeout(self.timeout)
            .group()
            .env("LIFEBOAT_HOOK", when);
        if when.starts_with("pre-") {
            // The others undo what these did, and run to their end.
            command = command.stop(signals::stopped);
        }
        for (name, value) in env {
            command = command.env(name, value);
        }
        let lines: Mutex<VecDeque<String>> = Mutex::default();
        let note = |line: &str| {
            let line = printable(line.as_bytes());
            tracing::info!("{}: {line}", hook.display());
            let mut lines = lines.lock().unwrap_or_else(|e| e.into_inner());
            if lines.len() == LINES {
                lines.pop_front();
            }
            lines.push_back(line.chars().take(LINE).collect());
        };
        let start = Instant::now();
        let result = self
            .sys
            .run_fed(&command, &mut |_| Ok(()), &note)
            .with_context(|| format!("the {when} hook {} failed", hook.display()));
        let run = HookRun {
            when: when.to_owned(),
            hook: hook.to_owned(),
            seconds: start.elapsed().as_secs(),
            error: result.as_ref().err().map(|e| format!("{e:#}")),
            output: lines.into_inner().unwrap_or_else(|e| e.into_inner()).into(),
        };
        self.runs
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .push(run);
        result.map(|_| ())
    }

    /// What was run so far.
    pub fn runs(&self) -> Vec<HookRun> {
        self.runs.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

fn find(dir: &Path, when: &str) -> anyhow::Result<Vec<PathBuf>> {
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
fn check(hook: &Path) -> anyhow::Result<()> {
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

    fn hooks(dir: &Path) -> Hooks<'_> {
        Hooks::new(&Host, dir, Duration::from_secs(60))
    }

    #[test]
    fn one_that_hangs_is_stopped_and_what_it_said_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo waiting for the database; sleep 100 & wait";
        hook(&dir.path().join("pre-snapshot"), script, 0o755);
        let hooks = Hooks::new(&Host, dir.path(), Duration::from_millis(300));
        let text = format!("{:#}", hooks.run("pre-snapshot", &[]).unwrap_err());
        assert!(text.contains("did not end within"), "{text}");
        assert_eq!(hooks.runs()[0].output, ["waiting for the database"]);
    }

    #[test]
    fn the_report_has_the_end_of_what_a_hook_prints() {
        let dir = tempfile::tempdir().unwrap();
        hook(
            &dir.path().join("pre-backup"),
            "seq 1 1000; head -c 5000 /dev/zero | tr '\\0' x",
            0o755,
        );
        let hooks = hooks(dir.path());
        hooks.run("pre-backup", &[]).unwrap();
        let output = &hooks.runs()[0].output;
        assert_eq!(output.len(), LINES);
        assert!(output.iter().all(|line| line.len() <= LINE));
        assert!(output.contains(&"1000".to_owned()));
    }

    #[test]
    fn none_is_fine() {
        hooks(Path::new("/nonexistent"))
            .run("pre-backup", &[])
            .unwrap();
    }

    /// A hook that brings a database to rest must not be left out in silence.
    #[test]
    fn a_link_that_leads_nowhere_is_no_absent_hook() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("pre-backup")).unwrap();
        let text = hooks(dir.path())
            .run("pre-backup", &[])
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
        let ran = super::Hooks::new(&Host, dir.path(), Duration::from_secs(60));
        let e = ran
            .run("pre-backup", &[("LIFEBOAT_STATUS", "ok")])
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
        let runs = ran.runs();
        assert_eq!(runs.len(), 3);
        assert_eq!(
            (runs[0].error.as_deref(), runs[2].output[0].as_str()),
            (None, "broken")
        );
        // What undoes something goes on, and says all that failed.
        std::fs::rename(&hooks, dir.path().join("post-snapshot")).unwrap();
        let e = super::tests::hooks(dir.path())
            .run_all("post-snapshot", &[])
            .unwrap_err();
        assert!(format!("{e:#}").contains("30-fails"), "{e:#}");
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(log.ends_with("4 post-snapshot\n"), "{log}");
    }

    #[test]
    fn hooks_that_others_could_change_do_not_run() {
        let dir = tempfile::tempdir().unwrap();
        hook(&dir.path().join("post-backup"), "exit 0", 0o777);
        let text = hooks(dir.path())
            .run("post-backup", &[])
            .unwrap_err()
            .to_string();
        assert!(text.contains("could be changed"), "{text}");
    }
}
