//! What is kept of a restore: plan, journal, layouts, event lines.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Prepared;

pub(super) struct Logs {
    dir: PathBuf,
    pub(super) journal: Journal,
}

/// A line is only worth something after a power cut when it has left the program.
pub(super) struct Journal(BufWriter<File>);

impl Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        if bytes.contains(&b'\n') {
            self.0.flush()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Logs {
    /// Writes down what will be done, before it is done.
    pub(super) fn start(dir: &Path, prepared: &Prepared) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let path = dir.join("journal.jsonl");
        let journal = File::options().append(true).create(true).open(&path);
        let journal = journal.with_context(|| format!("opening {}", path.display()))?;
        let logs = Self {
            dir: dir.to_owned(),
            journal: Journal(BufWriter::new(journal)),
        };
        logs.keep("plan.json", &prepared.plan)?;
        logs.keep("saved.json", &prepared.saved)?;
        logs.keep("inventory.json", &prepared.inventory)?;
        let text = dir.join("plan.txt");
        fs::write(&text, prepared.plan.render())
            .with_context(|| format!("writing {}", text.display()))?;
        Ok(logs)
    }

    pub(super) fn keep(&self, name: &str, document: &impl Serialize) -> Result<()> {
        let path = self.dir.join(name);
        let json = serde_json::to_vec_pretty(document)
            .with_context(|| format!("writing {}", path.display()))?;
        fs::write(&path, json).with_context(|| format!("writing {}", path.display()))
    }
}

/// Copies the logs to `/var/log/lifeboat/restore-<time>` of the restored system, which is mounted at `root`.
pub(super) fn copy_into(logs: &Path, root: &Path) -> Result<PathBuf> {
    let dir = root
        .join("var/log/lifeboat")
        .join(format!("restore-{}", timestamp()));
    copy_flat(logs, &dir)?;
    Ok(dir)
}

/// Copies the logs to `lifeboat/reports/restore-<time>` of a bundle.
pub(super) fn copy_onto_bundle(logs: &Path, store_dir: &Path) -> Result<PathBuf> {
    let dir = store_dir
        .join("lifeboat/reports")
        .join(format!("restore-{}", timestamp()));
    copy_flat(logs, &dir)?;
    Ok(dir)
}

/// Copies the files of a directory. Anything but a regular file is left.
fn copy_flat(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.with_context(|| format!("reading {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().is_ok_and(|t| t.is_file()) {
            fs::copy(&source, &target)
                .with_context(|| format!("copying {} to {}", source.display(), target.display()))?;
        }
    }
    Ok(())
}

/// `20261120T203311Z`: UTC, sorts by time, fit for a file name.
pub(in crate::rescue) fn timestamp() -> String {
    now().replace(['-', ':'], "")
}

/// `2026-11-20T20:33:11Z`: RFC 3339 in UTC.
pub(in crate::rescue) fn now() -> String {
    let seconds = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    format_utc(seconds)
}

/// Civil date from days since 1970 (the usual era arithmetic: 400 years have 146,097 days).
fn format_utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_calendar() {
        assert_eq!(format_utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(format_utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(format_utc(1_795_206_791), "2026-11-20T20:33:11Z");
        assert_eq!(format_utc(4_107_542_399), "2100-02-28T23:59:59Z");
    }

    #[test]
    fn logs_go_into_the_target_and_onto_the_bundle() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (logs, target) = (dir.path().join("log"), dir.path().join("target"));
        fs::create_dir_all(logs.join("sub")).expect("created");
        fs::write(logs.join("plan.txt"), "the plan").expect("written");
        let place = copy_into(&logs, &target).expect("copied");
        assert!(place.starts_with(target.join("var/log/lifeboat")));
        assert_eq!(
            fs::read_to_string(place.join("plan.txt")).expect("there"),
            "the plan"
        );
        let place = copy_onto_bundle(&logs, dir.path()).expect("copied");
        assert!(place.starts_with(dir.path().join("lifeboat/reports")));
        assert!(place.join("plan.txt").is_file());
    }
}
