//! Where a scenario keeps what it makes: logs, disks, and the list of commands it ran.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};

/// The directory of one scenario.
#[derive(Debug)]
pub struct Artefacts {
    dir: PathBuf,
    log: Mutex<File>,
    owed: Mutex<BTreeSet<String>>,
    started: Instant,
}

impl Artefacts {
    /// Makes the directory anew; what an earlier run left there goes.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
            }
            _ => {}
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let log = File::create(dir.join("commands.log"))?;
        Ok(Self {
            dir,
            log: Mutex::new(log),
            owed: Mutex::default(),
            started: Instant::now(),
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a command to the list of commands.
    pub fn command(&self, line: &str) {
        self.note(&format!("$ {line}"));
    }

    /// Writes a remark to the list of commands, with the seconds since the scenario began.
    pub fn note(&self, line: &str) {
        if let Ok(mut log) = self.log.lock() {
            // A log that cannot be written must not fail the test.
            let _ = writeln!(log, "[{:7.1}] {line}", self.started.elapsed().as_secs_f64());
        }
    }

    /// Something has to be checked before the scenario can pass, and [`Artefacts::paid`] says that it was.
    pub fn owe(&self, what: &str) {
        self.debts().insert(what.to_owned());
    }

    /// What was owed is checked.
    pub fn paid(&self, what: &str) {
        self.debts().remove(what);
    }

    /// What was not checked.
    pub fn owed(&self) -> Vec<String> {
        self.debts().iter().cloned().collect()
    }

    fn debts(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the disks (`*.raw`, `*.qcow2`, `*.img`) and keeps the logs.
    pub fn drop_disks(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|e| e == "raw" || e == "qcow2" || e == "img" || e == "fd")
            {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}
