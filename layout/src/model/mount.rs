//! Where filesystems are mounted.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::NodeId;

/// A filesystem's place in the tree of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The filesystem.
    pub node: NodeId,
    /// Where.
    pub mount_point: PathBuf,
    /// Type.
    pub fstype: String,
    /// Options that the kernel reports; empty when it is not mounted.
    pub options: Vec<String>,
    /// Whether it was mounted; `false`: only fstab names it.
    pub mounted: bool,
    /// Its line in fstab.
    pub fstab: Option<FstabEntry>,
}

/// A line of fstab(5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FstabEntry {
    /// First field: device, `UUID=...`, `LABEL=...`.
    pub spec: String,
    /// Second field.
    pub file: String,
    /// Third field.
    pub fstype: String,
    /// Fourth field.
    pub options: Vec<String>,
    /// Fifth field.
    pub freq: u32,
    /// Sixth field.
    pub passno: u32,
}
