//! What steps are made of: partitions, physical volumes, vdevs, subvolumes, lines of fstab.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::{NodeId, VdevRole};
use crate::units::{Bytes, Lba};

/// A physical volume that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedPv {
    /// The device.
    pub device: PathBuf,
    /// LVM UUID.
    pub uuid: String,
}

/// A partition that is there, and is written to or looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedPartition {
    /// The device.
    pub device: PathBuf,
    /// Its size as planned.
    pub size: Bytes,
}

/// Settings of a physical volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedPv {
    /// The device.
    pub device: PathBuf,
    /// Tags.
    pub tags: Vec<String>,
    /// `false`: LVM puts no new volumes on it.
    pub allocatable: bool,
}

/// A vdev at the top of a pool to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedVdev {
    /// What for.
    pub role: VdevRole,
    /// As in [`crate::model::Vdev`].
    pub kind: String,
    /// Exponent of the sector size.
    pub ashift: Option<u32>,
    /// Its devices.
    pub devices: Vec<PathBuf>,
}

/// A partition to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedPartition {
    /// The saved partition.
    pub node: NodeId,
    /// Device node that it will have.
    pub device: PathBuf,
    /// Number.
    pub number: u32,
    /// Type as [`crate::model::Partition`] has it.
    pub type_guid: String,
    /// Unique GUID, or `signature-NN`.
    pub partuuid: String,
    /// Name.
    pub name: String,
    /// Attribute bits.
    pub attributes: u64,
    /// First block.
    pub start: Lba,
    /// Last block, inclusive.
    pub end: Lba,
}

/// A subvolume to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedSubvolume {
    /// Path from the top of the filesystem.
    pub path: String,
    /// Whether it is made read-only at once, as it stays empty.
    pub read_only: bool,
}

/// An option of a line of fstab(5) that is replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FstabOption {
    /// Second field of the line.
    pub file: String,
    /// The option as it is.
    pub old: String,
    /// The option as it becomes.
    pub new: String,
}
