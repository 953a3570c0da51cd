//! Carries a plan out: check, do, verify, journal.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::capture::CaptureError;
use crate::model::{Layout, NodeId};
use crate::plan::{Plan, Step};
use crate::system::{System, SystemError};

/// Why content could not be restored.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct ContentError {
    what: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ContentError {
    /// With a text only.
    pub fn new(what: impl Into<String>) -> ContentError {
        ContentError { what: what.into(), source: None }
    }
    /// With the cause.
    pub fn caused(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ContentError {
        let source = source.into();
        ContentError { what: format!("{}: {source}", what.into()), source: Some(source) }
    }
}

/// Where files and images come from.
pub trait Content {
    /// Restores the files of the filesystem that was mounted at `mount_point` into the directory `into`.
    fn restore_tree(&mut self, mount_point: &Path, into: &Path) -> Result<(), ContentError>;
    /// Writes the image of the saved partition `node` to `device`.
    fn restore_image(&mut self, node: &NodeId, device: &Path) -> Result<(), ContentError>;
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// Everything was so already.
    AlreadySo,
}

/// Who is told about progress.
pub trait Events: Send + Sync {
    /// A step starts; `index` from 0.
    fn step_started(&self, index: usize, total: usize, step: &Step);
    /// A step ended well.
    fn step_done(&self, index: usize, total: usize, step: &Step, outcome: Outcome, took: Duration);
    /// Something worth knowing.
    fn note(&self, text: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Events for Silent {
    fn step_started(&self, _: usize, _: usize, _: &Step) {}
    fn step_done(&self, _: usize, _: usize, _: &Step, _: Outcome, _: Duration) {}
    fn note(&self, _: &str) {}
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The machine refused.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The machine could not be looked at.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Files or images could not be restored.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// An operation on a device or file failed.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The safety rules forbid to go on.
    #[error("{0}")]
    Refused(String),
    /// The step was done and the result is not as planned.
    #[error("{0}")]
    Verify(String),
}

/// A restore that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A step failed. The restore can be started again once the cause is gone.
    #[error("step {} of {total} failed: {step}: {source}", index + 1)]
    Step {
        /// From 0.
        index: usize,
        /// Number of steps.
        total: usize,
        /// The step.
        step: Box<Step>,
        /// Why.
        source: StepError,
    },
    /// The plan writes to a disk that is not a target.
    #[error("the plan is not safe: {0}")]
    Unsafe(String),
}

/// Carries the plan out. Filesystems are mounted below `root`; `journal` gets a line of JSON per event.
pub fn apply(
    _sys: &dyn System,
    _plan: &Plan,
    _saved: &Layout,
    _root: &Path,
    _content: &mut dyn Content,
    _events: &dyn Events,
    _journal: &mut dyn Write,
) -> Result<(), ApplyError> {
    Err(ApplyError::Unsafe("not there yet".to_owned()))
}
