//! Swap areas.

use serde::{Deserialize, Serialize};

use super::{FstabEntry, NodeId};
use crate::units::Bytes;

/// A swap area on a partition or a logical volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swap {
    /// What it lies on.
    pub on: NodeId,
    /// UUID.
    pub uuid: String,
    /// Label.
    pub label: Option<String>,
    /// Page size it was made for.
    pub page_size: Bytes,
    /// Usable size.
    pub size: Bytes,
    /// Whether the kernel was swapping to it.
    pub active: bool,
    /// Its line in fstab.
    pub fstab: Option<FstabEntry>,
}
