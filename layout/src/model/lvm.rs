//! LVM: physical volumes, volume groups, linear and thin volumes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::NodeId;
use crate::units::Bytes;

/// A physical volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhysicalVolume {
    /// The disk or partition.
    pub on: NodeId,
    /// LVM UUID.
    pub uuid: String,
    /// Where the first extent starts.
    pub pe_start: Bytes,
    /// Size that LVM uses.
    pub size: Bytes,
}

/// A volume group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeGroup {
    /// Its physical volumes.
    pub on: Vec<NodeId>,
    /// Name.
    pub name: String,
    /// LVM UUID.
    pub uuid: String,
    /// Extent size.
    pub extent_size: Bytes,
    /// Space not given to any volume.
    pub free: Bytes,
    /// Tags.
    pub tags: Vec<String>,
}

/// A linear logical volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogicalVolume {
    /// The volume group.
    pub on: NodeId,
    /// `/dev/<vg>/<lv>`.
    pub device: PathBuf,
    /// Name.
    pub name: String,
    /// LVM UUID.
    pub uuid: String,
    /// Size.
    pub size: Bytes,
    /// Whether it was active.
    pub active: bool,
    /// `false`: activated read-only.
    pub writeable: bool,
    /// Tags.
    pub tags: Vec<String>,
}

/// A thin pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThinPool {
    /// The volume group.
    pub on: NodeId,
    /// Name.
    pub name: String,
    /// LVM UUID.
    pub uuid: String,
    /// Size of the data part.
    pub size: Bytes,
    /// Bytes of the data part in use, where LVM told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Bytes>,
    /// Chunk size.
    pub chunk_size: Bytes,
    /// Size of the metadata volume.
    pub metadata_size: Bytes,
    /// Whether new blocks are zeroed.
    pub zero: bool,
    /// `ignore`, `nopassdown` or `passdown`.
    pub discards: String,
    /// Whether the group keeps a spare metadata volume.
    pub spare: bool,
    /// Whether it was active.
    pub active: bool,
    /// Tags.
    pub tags: Vec<String>,
}

/// A volume in a thin pool. Guests are restored by Proxmox from their own dumps, therefore it is only listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThinVolume {
    /// The pool.
    pub on: NodeId,
    /// Volume group, for people.
    pub vg: String,
    /// Name.
    pub name: String,
    /// Virtual size.
    pub size: Bytes,
}
