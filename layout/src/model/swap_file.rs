//! Swap files.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{FstabEntry, NodeId};
use crate::units::Bytes;

/// A file that the host swaps to. Its content is not saved: a restore makes it anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwapFile {
    /// The filesystem.
    pub on: NodeId,
    /// Where, as the host sees it.
    pub path: PathBuf,
    /// UUID.
    pub uuid: Option<String>,
    /// Label.
    pub label: Option<String>,
    /// Page size it was made for.
    pub page_size: Bytes,
    /// Length of the file.
    pub size: Bytes,
    /// Whether the kernel was swapping to it.
    pub active: bool,
    /// Its line in fstab.
    pub fstab: Option<FstabEntry>,
}
