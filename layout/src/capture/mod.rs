//! From the live machine to a [`Layout`].

use crate::model::{Firmware, Layout, ModelError};
use crate::system::{System, SystemError};

/// Why a machine could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The machine did not answer.
    #[error(transparent)]
    System(#[from] SystemError),
    /// A tool or file said something that was not understood.
    #[error("{what}: {reason}")]
    Parse {
        /// The tool, file or device.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The graph is not sound.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl CaptureError {
    pub(crate) fn parse(what: impl Into<String>, reason: impl ToString) -> CaptureError {
        CaptureError::Parse { what: what.into(), reason: reason.to_string() }
    }
}

/// Describes the machine that this runs on.
pub fn capture(_sys: &dyn System) -> Result<Layout, CaptureError> {
    Ok(Layout::new(Firmware::Bios))
}
