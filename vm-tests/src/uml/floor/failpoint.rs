//! Named places at which a restore is cut or made to fail, from outside of the code under test: in the door to the machine,
//! in the events, and in what brings the files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use layout::apply::{Events, Outcome};
use layout::plan::Step;
use layout::system::{
    BlockDevice, Cmd, DiskFacts, Host, Output, ReadSeek, System, SystemError, Usage,
};
use nix::sys::signal::{Signal, raise};

/// Where. All numbers from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before this step.
    Step(usize),
    /// At this call through the door: a program, a file written, a device opened.
    Call(usize),
    /// Half way through this tree or image.
    Content(usize),
}

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The call is not made, and fails. Content ends with an error.
    Error,
    /// The call is made, and its success is not told.
    ErrorAfter,
    /// The device below the content answers every further write with an error.
    Broken,
    /// The process is killed: nothing is unmounted, volumes stay active.
    Kill,
    /// The machine is switched off: what is in its memory only is lost.
    PowerOff,
}

/// A place and what happens there; as text `step:3:kill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failpoint {
    /// Where.
    pub place: Place,
    /// What.
    pub how: How,
}

const HOWS: [(How, &str); 5] = [
    (How::Error, "error"),
    (How::ErrorAfter, "error-after"),
    (How::Broken, "broken"),
    (How::Kill, "kill"),
    (How::PowerOff, "power-off"),
];

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, number) = match self.place {
            Place::Step(n) => ("step", n),
            Place::Call(n) => ("call", n),
            Place::Content(n) => ("content", n),
        };
        let how = HOWS.iter().find(|(how, _)| *how == self.how);
        write!(f, "{kind}:{number}:{}", how.map_or("", |(_, name)| name))
    }
}

impl std::str::FromStr for Failpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Failpoint> {
        let mut parts = text.splitn(3, ':');
        let mut next = || {
            parts
                .next()
                .with_context(|| format!("{text} is no failpoint"))
        };
        let (kind, number, how) = (next()?, next()?, next()?);
        let number = number
            .parse()
            .with_context(|| format!("{text} has no number"))?;
        let place = match kind {
            "step" => Place::Step(number),
            "call" => Place::Call(number),
            "content" => Place::Content(number),
            _ => bail!("{text} is at no known place"),
        };
        match HOWS.iter().find(|(_, name)| *name == how) {
            Some((how, _)) => Ok(Failpoint { place, how: *how }),
            None => bail!("{text} does nothing known"),
        }
    }
}

/// Counts the places that a restore comes past, and acts at one of them.
#[derive(Debug, Default)]
pub struct Trap {
    at: Option<Failpoint>,
    calls: AtomicUsize,
    contents: AtomicUsize,
    sprung: AtomicBool,
}

impl Trap {
    /// Acts at this place; with `None` it only counts.
    pub fn new(at: Option<Failpoint>) -> Trap {
        Trap {
            at,
            ..Trap::default()
        }
    }

    /// How many calls were made.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Whether the place was reached.
    pub fn sprung(&self) -> bool {
        self.sprung.load(Ordering::SeqCst)
    }

    /// Comes past a place. What the caller has to do itself is returned; after the others nothing runs any more.
    fn past(&self, place: Place, what: &str) -> Option<How> {
        let at = self.at.filter(|at| at.place == place)?;
        self.sprung.store(true, Ordering::SeqCst);
        println!("floor: {at}: {what}");
        match at.how {
            How::Kill => {
                // Nothing can be done about a failure, and the caller sees that it did not happen.
                let _ = raise(Signal::SIGKILL);
            }
            How::PowerOff => crate::machine::power_off(),
            How::Error | How::ErrorAfter | How::Broken => return Some(at.how),
        }
        None
    }

    fn call(&self, what: &str) -> Option<How> {
        self.past(Place::Call(self.calls.fetch_add(1, Ordering::SeqCst)), what)
    }

    /// Comes past the middle of a tree or image.
    pub fn content(&self, what: &str) -> Option<How> {
        let number = self.contents.fetch_add(1, Ordering::SeqCst);
        self.past(Place::Content(number), what)
    }
}

/// Progress on the console, which is kept; and a trap before every step.
pub struct Console<'a>(pub &'a Trap);

impl Events for Console<'_> {
    fn step_started(&self, index: usize, total: usize, step: &Step) {
        println!("floor: step {}/{total}: {step}", index + 1);
        self.0.past(
            Place::Step(index),
            &format!("before step {} of {total}", index + 1),
        );
    }
    fn step_done(&self, _: usize, _: usize, _: &Step, outcome: Outcome, took: Duration) {
        println!("floor:   {outcome:?} after {} ms", took.as_millis());
    }
    fn note(&self, text: &str) {
        println!("floor: note: {text}");
    }
}

/// The door to the machine with a trap in it.
pub struct Door<'a>(pub &'a Trap);

impl Door<'_> {
    /// Makes a call, or lets it fail.
    fn pass<T>(
        &self,
        what: &str,
        make: impl FnOnce() -> Result<T, SystemError>,
        fail: impl Fn() -> SystemError,
    ) -> Result<T, SystemError> {
        match self.0.call(what) {
            Some(How::ErrorAfter) => {
                make()?;
                Err(fail())
            }
            Some(_) => Err(fail()),
            None => make(),
        }
    }
}

fn io_error(path: &Path) -> SystemError {
    SystemError::Io {
        path: path.to_owned(),
        source: nix::errno::Errno::EIO.into(),
    }
}

impl System for Door<'_> {
    fn run(&self, command: &Cmd) -> Result<Output, SystemError> {
        let failed = || SystemError::Failed {
            command: command.display(),
            status: 1,
            stderr: "made to fail by the test".to_owned(),
        };
        self.pass(&command.display(), || Host.run(command), failed)
    }
    fn write(&self, path: &Path, content: &[u8]) -> Result<(), SystemError> {
        let what = format!("write {}", path.display());
        self.pass(&what, || Host.write(path, content), || io_error(path))
    }
    fn open(&self, path: &Path) -> Result<Box<dyn ReadSeek>, SystemError> {
        let what = format!("open {}", path.display());
        self.pass(&what, || Host.open(path), || io_error(path))
    }
    // What lies in the kernel's memory does not fail as disks and programs do.
    fn read(&self, path: &Path) -> Result<Vec<u8>, SystemError> {
        Host.read(path)
    }
    fn exists(&self, path: &Path) -> bool {
        Host.exists(path)
    }
    fn list_dir(&self, path: &Path) -> Result<Vec<String>, SystemError> {
        Host.list_dir(path)
    }
    fn canonicalize(&self, path: &Path) -> Result<PathBuf, SystemError> {
        Host.canonicalize(path)
    }
    fn usage(&self, path: &Path) -> Result<Usage, SystemError> {
        Host.usage(path)
    }
    fn block_devices(&self) -> Result<Vec<BlockDevice>, SystemError> {
        Host.block_devices()
    }
    fn mounted_uuid(&self, path: &Path) -> Option<String> {
        Host.mounted_uuid(path)
    }
    fn disk_facts(&self, device: &Path) -> DiskFacts {
        Host.disk_facts(device)
    }
}
