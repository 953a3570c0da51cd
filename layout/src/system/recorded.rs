//! A recording of a machine, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read, Seek, SeekFrom};
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
    /// Names in directories; a directory that is not here has the names of the files and links below it.
    pub dirs: BTreeMap<PathBuf, Vec<String>>,
    /// What is there besides, whatever it holds.
    pub present: BTreeSet<PathBuf>,
    /// Devices that can be opened.
    pub images: BTreeMap<PathBuf, Image>,
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

/// The size of a block of an [`Image`], in bytes.
pub const BLOCK: u64 = 512;

/// A device in memory: what is not recorded reads as zeroes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Size in bytes.
    pub size: u64,
    /// Contents by block number; at most [`BLOCK`] bytes each, the rest of a block is zeroes.
    pub blocks: BTreeMap<u64, Vec<u8>>,
}

impl Image {
    /// Reads from its start.
    pub(crate) fn reader(&self) -> Reader {
        Reader {
            image: self.clone(),
            at: 0,
        }
    }

    /// Sets bytes; what lies behind the end is left out.
    pub fn set(&mut self, offset: u64, bytes: &[u8]) {
        for (n, byte) in bytes.iter().enumerate() {
            let at = offset.saturating_add(n as u64);
            if at >= self.size {
                return;
            }
            let (block, within) = (at / BLOCK, (at % BLOCK) as usize);
            if *byte == 0 && !self.blocks.contains_key(&block) {
                continue;
            }
            let block = self.blocks.entry(block).or_default();
            if block.len() <= within {
                block.resize(within + 1, 0);
            }
            block[within] = *byte;
        }
    }

    /// Reads `length` bytes, fewer at the end of the device.
    pub fn get(&self, offset: u64, length: usize) -> Vec<u8> {
        let left = self.size.saturating_sub(offset).min(length as u64);
        (offset..offset.saturating_add(left))
            .map(|at| {
                let block = self.blocks.get(&(at / BLOCK));
                let byte = block.and_then(|b| b.get((at % BLOCK) as usize));
                byte.copied().unwrap_or(0)
            })
            .collect()
    }
}

/// Reads an [`Image`].
pub(crate) struct Reader {
    image: Image,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.image.get(self.at, buf.len());
        buf[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.image.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
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

    fn stream(
        &self,
        command: &Cmd,
        take: &mut dyn FnMut(&mut dyn Read) -> bool,
        line: &(dyn Fn(&str) + Sync),
    ) -> Result<Output, SystemError> {
        let known = self.commands.get(&command.display());
        let stderr = known.map(|o| String::from_utf8_lossy(&o.stderr).into_owned());
        stderr.iter().flat_map(|text| text.lines()).for_each(line);
        let stdout = known.map(|o| o.stdout.clone());
        // A command that fails has printed something before.
        if let Some(stdout) = stdout {
            take(&mut Cursor::new(stdout));
        }
        let output = self.run(command)?;
        Ok(Output {
            stdout: Vec::new(),
            ..output
        })
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
            .chain(self.dirs.keys())
            .chain(&self.present)
            .any(|known| known.starts_with(path))
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<String>, SystemError> {
        if let Some(names) = self.dirs.get(path) {
            return Ok(names.clone());
        }
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
        if let Some(image) = self.images.get(path) {
            return Ok(Box::new(image.reader()));
        }
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
