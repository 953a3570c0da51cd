//! A recording of a machine, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{BlockDevice, Cmd, DiskFacts, Output, ReadSeek, System, SystemError, Usage};

/// Recorded answers. What was not recorded is an error, as on a machine that lacks it.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Standard output by the command line joined with spaces.
    pub commands: BTreeMap<String, Output>,
    /// Files by path.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// Symlinks, fully resolved.
    pub links: BTreeMap<PathBuf, PathBuf>,
    /// Space by mount point.
    pub usage: BTreeMap<PathBuf, Usage>,
    /// Block devices.
    pub devices: Vec<BlockDevice>,
    /// UUIDs of mounted filesystems.
    pub uuids: BTreeMap<PathBuf, String>,
    /// Facts by device node.
    pub facts: BTreeMap<PathBuf, DiskFacts>,
    /// What was written, and which commands were run.
    pub log: Mutex<Vec<String>>,
}

impl Recorded {
    /// An empty machine.
    pub fn new() -> Recorded {
        Recorded::default()
    }

    /// Records a command's standard output.
    #[must_use]
    pub fn command(mut self, line: &str, stdout: &str) -> Recorded {
        let output = Output {
            stdout: stdout.as_bytes().to_vec(),
            ..Output::default()
        };
        self.commands.insert(line.to_owned(), output);
        self
    }

    /// Records a file.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Recorded {
        self.files.insert(path.into(), content.into());
        self
    }

    /// Records a symlink and where it finally leads.
    #[must_use]
    pub fn link(mut self, path: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Recorded {
        self.links.insert(path.into(), target.into());
        self
    }

    /// Records a block device.
    #[must_use]
    pub fn device(mut self, device: BlockDevice) -> Recorded {
        self.devices.push(device);
        self.devices.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }

    fn note(&self, what: String) {
        if let Ok(mut log) = self.log.lock() {
            log.push(what);
        }
    }
}

fn missing(path: &Path) -> SystemError {
    SystemError::Io {
        path: path.to_owned(),
        source: std::io::Error::from(std::io::ErrorKind::NotFound),
    }
}

impl System for Recorded {
    fn run(&self, command: &Cmd) -> Result<Output, SystemError> {
        let line = command.display();
        self.note(line.clone());
        let not_there = || SystemError::Start {
            command: line.clone(),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        };
        let output = self.commands.get(&line).cloned().ok_or_else(not_there)?;
        if output.status != 0 && !command.accepted.contains(&output.status) {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(SystemError::Failed {
                command: line,
                status: output.status,
                stderr,
            });
        }
        Ok(output)
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, SystemError> {
        self.files.get(path).cloned().ok_or_else(|| missing(path))
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<(), SystemError> {
        self.note(format!(
            "write {}: {}",
            path.display(),
            String::from_utf8_lossy(content)
        ));
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.files
            .keys()
            .chain(self.links.keys())
            .any(|known| known.starts_with(path))
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<String>, SystemError> {
        let names: BTreeSet<String> = self
            .files
            .keys()
            .chain(self.links.keys())
            .filter_map(|known| known.strip_prefix(path).ok())
            .filter_map(|rest| rest.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        if names.is_empty() {
            Err(missing(path))
        } else {
            Ok(names.into_iter().collect())
        }
    }

    fn canonicalize(&self, path: &Path) -> Result<PathBuf, SystemError> {
        if let Some(target) = self.links.get(path) {
            return Ok(target.clone());
        }
        let is_device = self.devices.iter().any(|d| d.node == path);
        if is_device || self.exists(path) {
            Ok(path.to_owned())
        } else {
            Err(missing(path))
        }
    }

    fn open(&self, path: &Path) -> Result<Box<dyn ReadSeek>, SystemError> {
        Ok(Box::new(Cursor::new(self.read(path)?)))
    }

    fn usage(&self, path: &Path) -> Result<Usage, SystemError> {
        self.usage.get(path).copied().ok_or_else(|| missing(path))
    }

    fn block_devices(&self) -> Result<Vec<BlockDevice>, SystemError> {
        Ok(self.devices.clone())
    }

    fn mounted_uuid(&self, path: &Path) -> Option<String> {
        self.uuids.get(path).cloned()
    }

    fn disk_facts(&self, device: &Path) -> DiskFacts {
        self.facts.get(device).cloned().unwrap_or_default()
    }
}
