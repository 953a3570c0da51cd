//! Makes systemd's timers what the configuration says.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::civil::Time;
use layout::system::{Cmd, System};
use serde::Serialize;

use super::Settings;
use super::units::{Job, MADE};
use crate::output::Usage;

/// Where the machine's own units are.
pub const UNITS: &str = "/etc/systemd/system";
/// Where packages put theirs.
const OF_PACKAGES: [&str; 3] = [
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "usr/local/lib/systemd/system",
];

/// What was done.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Units that were written.
    pub written: Vec<String>,
    /// Units that were removed.
    pub removed: Vec<String>,
    /// Timers that are active, whether they were changed or not.
    pub active: Vec<String>,
    /// What may not be meant so.
    pub warnings: Vec<String>,
}

/// The machine whose timers are changed.
pub struct Machine<'m> {
    /// Asks systemd.
    pub sys: &'m dyn System,
    /// Root directory: `/`.
    pub root: PathBuf,
    /// The program that services start.
    pub program: PathBuf,
}

impl Machine<'_> {
    /// Makes the timers what the settings say. Only what differs is touched.
    pub fn apply(&self, settings: &Settings) -> anyhow::Result<Applied> {
        let mut applied = Applied::default();
        // Nothing is changed before all is known to be right.
        for job in Job::ALL {
            applied.warnings.extend(self.check(job, settings)?);
            for unit in [job.timer(), job.service()] {
                self.made_or_absent(&unit, job)?;
            }
        }
        let mut wanted = Vec::new();
        for job in Job::ALL {
            match job.timer_text(settings) {
                Some(text) => {
                    let service = self.service(job, &mut applied)?;
                    let changed = self.put(&job.timer(), &text, &mut applied)?;
                    wanted.push((job, changed || service));
                }
                None => self.take_away(job, &mut applied)?,
            }
        }
        if !applied.written.is_empty() || !applied.removed.is_empty() {
            self.systemctl(&["daemon-reload"])?;
        }
        for (job, changed) in wanted {
            let timer = job.timer();
            let running = || self.says(&["is-active", &timer], "active");
            let enabled = || self.says(&["is-enabled", &timer], "enabled");
            if !enabled() {
                self.systemctl(&["enable", &timer])?;
            }
            // A timer that runs goes on with the times that it was started with.
            if changed || !running() {
                self.systemctl(&["restart", &timer])?;
            }
            applied.active.push(timer);
        }
        Ok(applied)
    }

    /// Refuses what systemd does not understand, or what never comes. Warns of what the window will not let start.
    fn check(&self, job: Job, settings: &Settings) -> anyhow::Result<Option<String>> {
        let when = job.when(settings);
        let Some(calendar) = when.calendar() else {
            return Ok(None);
        };
        let command = Cmd::new("systemd-analyze")
            .args(["calendar", calendar])
            .timeout(Duration::from_secs(30));
        let wrong = |why: &str| {
            let setting = job.setting();
            anyhow::Error::from(Usage(format!(
                "[schedule] {setting} = \"{when}\": {why}; `man systemd.time` describes such expressions"
            )))
        };
        let output = self
            .sys
            .run(&command)
            .map_err(|error| wrong(&error.to_string()))?;
        let text = output.text();
        let next = text
            .lines()
            .find_map(|l| l.trim().strip_prefix("Next elapse:"));
        let next = next.unwrap_or_default().trim();
        if next == "never" {
            return Err(wrong("that time never comes"));
        }
        let time = next
            .split_whitespace()
            .nth(2)
            .and_then(|t| t.parse::<Time>().ok());
        let misses = job.is_long() && time.is_some_and(|time| !settings.window.holds(time));
        Ok(misses.then(|| {
            format!(
                "[schedule] {} = \"{when}\": its next run would be at {next}, outside of the window {}: it will not start then",
                job.setting(),
                settings.window
            )
        }))
    }

    fn path(&self, unit: &str) -> PathBuf {
        self.root.join(UNITS.trim_start_matches('/')).join(unit)
    }

    /// What somebody else has put in the place of a unit stays.
    fn made_or_absent(&self, unit: &str, job: Job) -> anyhow::Result<()> {
        let path = self.path(unit);
        let is_service = unit == job.service();
        match read(&path)? {
            // An admin may have a service of their own.
            Some(text) if !text.starts_with(MADE) && !is_service => bail!(
                "{} was not made by `lifeboat schedule apply`: remove it, or change it there, and leave {} in [schedule] empty",
                path.display(),
                job.setting()
            ),
            _ => Ok(()),
        }
    }

    /// The service comes with the package; where there is none, it is made. Says whether it was changed.
    fn service(&self, job: Job, applied: &mut Applied) -> anyhow::Result<bool> {
        let unit = job.service();
        let path = self.path(&unit);
        let ours = match read(&path)? {
            Some(text) if !text.starts_with(MADE) => return Ok(false),
            text => text.is_some(),
        };
        let packaged = OF_PACKAGES
            .iter()
            .any(|dir| self.root.join(dir).join(&unit).exists());
        match (packaged, ours) {
            (true, true) => self.remove(&unit, applied).map(|()| true),
            (true, false) => Ok(false),
            (false, _) => self.put(&unit, &job.service_text(&self.program), applied),
        }
    }

    fn put(&self, unit: &str, text: &str, applied: &mut Applied) -> anyhow::Result<bool> {
        let path = self.path(unit);
        if read(&path)?.as_deref() == Some(text) {
            return Ok(false);
        }
        write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        applied.written.push(unit.to_owned());
        Ok(true)
    }

    fn remove(&self, unit: &str, applied: &mut Applied) -> anyhow::Result<()> {
        let path = self.path(unit);
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        applied.removed.push(unit.to_owned());
        Ok(())
    }

    fn take_away(&self, job: Job, applied: &mut Applied) -> anyhow::Result<()> {
        let timer = job.timer();
        let made = |unit: &str| -> anyhow::Result<bool> {
            Ok(read(&self.path(unit))?.is_some_and(|text| text.starts_with(MADE)))
        };
        if made(&timer)? {
            self.systemctl(&["disable", "--now", &timer])?;
            // When it is scheduled again, nothing has been missed. There may be no such record.
            let clean = Cmd::new("systemctl").args(["clean", "--what=state", &timer]);
            if let Err(error) = self.sys.run(&clean) {
                tracing::info!("{error}");
            }
            self.remove(&timer, applied)?;
        }
        if made(&job.service())? {
            self.remove(&job.service(), applied)?;
        }
        Ok(())
    }

    fn systemctl(&self, args: &[&str]) -> anyhow::Result<()> {
        let command = Cmd::new("systemctl").args(args.iter().copied());
        self.sys.run(&command).map(drop).with_context(|| {
            let units: Vec<String> = Job::ALL.iter().map(|j| j.timer()).collect();
            format!(
                "the timers are not as configured: look at `systemctl status {}`, and try again",
                units.join(" ")
            )
        })
    }

    fn says(&self, args: &[&str], word: &str) -> bool {
        let command = Cmd::new("systemctl").args(args.iter().copied());
        let output = self.sys.run(&command);
        output.is_ok_and(|output| output.text().trim() == word)
    }
}

/// In one go: systemd reads all of a unit, or what it was before.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(".lifeboat-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(dir)?.sync_all()
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
