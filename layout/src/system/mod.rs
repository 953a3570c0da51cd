//! The one door to the machine: processes, sysfs, udev, devices. Recorded answers can replace it in tests.

mod feed;
mod hold;
mod host;
mod pipe;
mod recorded;
mod stream;

pub use hold::Held;
pub use host::Host;
pub use recorded::{BLOCK, Image, Recorded};

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::units::Bytes;

/// A command to run: an argv, never a shell line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cmd {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment on top of the inherited one (`LC_ALL=C` is always set).
    pub env: BTreeMap<String, String>,
    /// Directory to change the root to.
    pub chroot: Option<PathBuf>,
    /// What the command reads on its standard input; `None`: null.
    pub input: Option<Vec<u8>>,
    /// After this long the command is killed.
    pub timeout: Duration,
    /// Exit statuses other than 0 that are no error.
    pub accepted: Vec<i32>,
    /// Of commands that a stream goes to or comes from: whether to stop, instead of the time limit.
    pub stop: Option<Stop>,
    /// It is the first of a process group of its own, all of which ends at the time limit or when it is to stop.
    pub group: bool,
}

/// Tells whether to stop.
#[derive(Debug, Clone, Copy)]
pub struct Stop(pub fn() -> bool);

impl PartialEq for Stop {
    fn eq(&self, other: &Stop) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for Stop {}

impl Cmd {
    /// A command with a time limit of ten minutes.
    pub fn new(program: impl Into<String>) -> Cmd {
        Cmd {
            argv: vec![program.into()],
            env: BTreeMap::new(),
            chroot: None,
            input: None,
            timeout: Duration::from_secs(600),
            accepted: Vec::new(),
            stop: None,
            group: false,
        }
    }
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Cmd {
        self.argv.push(arg.into());
        self
    }
    /// Adds a path as an argument.
    #[must_use]
    pub fn path(self, path: &Path) -> Cmd {
        self.arg(path.to_string_lossy())
    }
    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Cmd {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }
    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Cmd {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }
    /// Runs with this root directory.
    #[must_use]
    pub fn in_root(mut self, root: impl Into<PathBuf>) -> Cmd {
        self.chroot = Some(root.into());
        self
    }
    /// Gives the command something to read.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Cmd {
        self.input = Some(input.into());
        self
    }
    /// Limits the time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Cmd {
        self.timeout = timeout;
        self
    }
    /// An exit status that is no error.
    #[must_use]
    pub fn accept(mut self, status: i32) -> Cmd {
        self.accepted.push(status);
        self
    }
    /// It is asked to end when this says so, even if it hangs.
    #[must_use]
    pub fn stop(mut self, stop: fn() -> bool) -> Cmd {
        self.stop = Some(Stop(stop));
        self
    }
    /// It gets a process group of its own: with [`System::run_fed`], its time limit counts, and all that it has started and
    /// that did not leave the group ends with it.
    #[must_use]
    pub fn group(mut self) -> Cmd {
        self.group = true;
        self
    }
    fn to_stop(&self) -> bool {
        self.stop.is_some_and(|Stop(stop)| stop())
    }
    /// The command as a person would read it.
    pub fn display(&self) -> String {
        let mut text = match &self.chroot {
            Some(root) => format!("chroot {} ", root.display()),
            None => String::new(),
        };
        text.push_str(&self.argv.join(" "));
        text
    }
}

/// What a command said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit status (0, or one that was [accepted](Cmd::accept)).
    pub status: i32,
    /// How long it took.
    pub duration: Duration,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Something that the machine refused.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// The program could not be started.
    #[error("cannot start `{command}`: {source}: is the program installed?")]
    Start {
        /// The command.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// The program failed.
    #[error("`{command}` failed with status {status}: {stderr}")]
    Failed {
        /// The command.
        command: String,
        /// Exit status, or 128 plus the signal.
        status: i32,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// The program did not end in time and was killed.
    #[error("`{command}` did not end within {seconds} s and was killed: {stderr}")]
    TimedOut {
        /// The command.
        command: String,
        /// The limit.
        seconds: u64,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// What the program was to read could not be given to it.
    #[error("`{command}` did not get all of its input: {source}")]
    Fed {
        /// The command.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file or device could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// udev could not be asked.
    #[error("cannot list block devices through udev: {0}")]
    Udev(String),
}

/// Something that can be read at any offset.
pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// A block device as udev and sysfs show it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct BlockDevice {
    /// Kernel name: `sda1`, `dm-0`.
    pub name: String,
    /// Device node.
    pub node: PathBuf,
    /// The whole disk that a partition belongs to.
    pub parent: Option<String>,
    /// udev properties; few of them without a running udevd.
    pub properties: BTreeMap<String, String>,
}

/// Facts about a disk from the `block-utils` crate: for showing only, never for choosing what to erase.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct DiskFacts {
    /// `SSD`, `hard disk`, `NVMe`, `virtual disk`...
    pub media: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
}

/// Space on a mounted filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Size.
    pub size: Bytes,
    /// In use.
    pub used: Bytes,
    /// Inodes in use; 0 where the filesystem does not count them.
    #[serde(default)]
    pub inodes_used: u64,
}

/// The machine, or a recording of one.
pub trait System: Send + Sync {
    /// Runs a command and returns what it printed. A status that is not accepted is an error.
    fn run(&self, command: &Cmd) -> Result<Output, SystemError>;
    /// Runs a command whose standard output is a stream. `take` reads it, and says whether it is content: if not, the
    /// command is asked to end. `line` is given each line of its standard error. There is no time limit. The output is
    /// without what was taken; of the standard error it has the end.
    fn stream(
        &self,
        command: &Cmd,
        take: &mut dyn FnMut(&mut dyn Read) -> bool,
        line: &(dyn Fn(&str) + Sync),
    ) -> Result<Output, SystemError> {
        let output = self.run(command)?;
        String::from_utf8_lossy(&output.stderr)
            .lines()
            .for_each(line);
        take(&mut output.stdout.as_slice());
        Ok(output)
    }
    /// Runs a command that reads a stream: `feed` writes it, and its failure cuts the stream off. Each line that the command
    /// prints goes to `line` at once; the last of them are in the result. That the command ends before the stream is no
    /// failure of `feed`: its exit status tells. There is no time limit but for a [group](Cmd::group).
    ///
    /// This one collects the stream first: enough for recordings.
    fn run_fed(
        &self,
        command: &Cmd,
        feed: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
        line: &(dyn Fn(&str) + Sync),
    ) -> Result<Output, SystemError> {
        let mut input = Vec::new();
        let fed = feed(&mut input);
        let output = self.run(&command.clone().input(input))?;
        let printed = [
            output.text(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ];
        printed.iter().flat_map(|text| text.lines()).for_each(line);
        fed.map(|()| output).map_err(|source| SystemError::Fed {
            command: command.display(),
            source,
        })
    }
    /// Reads a file.
    fn read(&self, path: &Path) -> Result<Vec<u8>, SystemError>;
    /// Writes a file in one go (temporary file and rename, keeping mode and owner).
    fn write(&self, path: &Path, content: &[u8]) -> Result<(), SystemError>;
    /// Whether a file exists (after symlinks).
    fn exists(&self, path: &Path) -> bool;
    /// The names in a directory, sorted.
    fn list_dir(&self, path: &Path) -> Result<Vec<String>, SystemError>;
    /// Where a symlink leads, fully resolved.
    fn canonicalize(&self, path: &Path) -> Result<PathBuf, SystemError>;
    /// Opens a device or file for reading.
    fn open(&self, path: &Path) -> Result<Box<dyn ReadSeek>, SystemError>;
    /// The space on the filesystem mounted at `path`.
    fn usage(&self, path: &Path) -> Result<Usage, SystemError>;
    /// Every block device, sorted by name.
    fn block_devices(&self) -> Result<Vec<BlockDevice>, SystemError>;
    /// The UUID of the ext4 filesystem mounted at `path`, asked of the kernel: for where the device cannot be opened.
    fn mounted_uuid(&self, path: &Path) -> Option<String>;
    /// What `block-utils` knows about a disk.
    fn disk_facts(&self, device: &Path) -> DiskFacts;

    /// Reads a file as trimmed text; `None` when it cannot be read.
    fn text(&self, path: &Path) -> Option<String> {
        let bytes = self.read(path).ok()?;
        Some(
            String::from_utf8_lossy(&bytes)
                .trim_matches(['\0', ' ', '\n', '\t'])
                .to_owned(),
        )
    }
}
