//! LVM: physical volumes, volume groups, volumes and what lies below them, caches, thin pools.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::NodeId;
use crate::units::Bytes;

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

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
    /// Tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// `false`: LVM puts no new volumes on it.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub allocatable: bool,
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
    /// Its settings, where they are not LVM's own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings: GroupSettings,
}

/// What can be set for a volume group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupSettings {
    /// Allocation policy; `None`: `normal`.
    pub allocation: Option<String>,
    /// Most volumes that it may have; 0: any number.
    pub max_volumes: u32,
    /// Most physical volumes that it may have; 0: any number.
    pub max_physical_volumes: u32,
    /// `false`: not activated by itself at the start.
    pub autoactivation: bool,
}

impl Default for GroupSettings {
    fn default() -> GroupSettings {
        GroupSettings {
            allocation: None,
            max_volumes: 0,
            max_physical_volumes: 0,
            autoactivation: true,
        }
    }
}

/// How the data of a volume lies on physical volumes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Segments {
    /// One piece after the other.
    #[default]
    Linear,
    /// In the thin pool that the volume is on: space is taken when it is written to.
    Thin,
    /// In turn on several physical volumes.
    Striped {
        /// On how many.
        stripes: u32,
        /// How much on one before the next.
        stripe_size: Bytes,
    },
    /// LVM's RAID, made by the kernel's md.
    Raid {
        /// As `lvcreate --type` takes it: `raid1`, `raid5_la`...
        level: String,
        /// Number of images, those with parity included.
        images: u32,
        /// How often the data is there (raid1, raid10; else 1).
        copies: u32,
        /// How much on one image before the next; 0: does not apply.
        stripe_size: Bytes,
        /// Unit of synchronisation; 0: does not apply.
        region_size: Bytes,
    },
    /// The mirror of old, before raid1.
    Mirror {
        /// Number of images.
        images: u32,
        /// Unit of synchronisation.
        region_size: Bytes,
        /// `core` or `disk`.
        log: String,
    },
    /// Pieces of different kinds, as after extending a striped volume without stripes. A restore makes it linear.
    Mixed {
        /// The kinds in order: `linear`, `striped(2)`.
        pieces: Vec<String>,
    },
}

impl Segments {
    /// On how many physical volumes it lies at least.
    pub fn images(&self) -> u32 {
        match self {
            Segments::Linear | Segments::Thin | Segments::Mixed { .. } => 1,
            Segments::Striped { stripes, .. } => *stripes,
            Segments::Raid { images, .. } | Segments::Mirror { images, .. } => *images,
        }
    }

    /// Into how many parts the data is divided: the size of an image is that of the volume divided by it.
    pub fn parts(&self) -> u32 {
        match self {
            Segments::Linear
            | Segments::Thin
            | Segments::Mixed { .. }
            | Segments::Mirror { .. } => 1,
            Segments::Striped { stripes, .. } => (*stripes).max(1),
            Segments::Raid {
                level,
                images,
                copies,
                ..
            } => {
                let parts = match level.get(..5) {
                    Some("raid4" | "raid5") => images.saturating_sub(1),
                    Some("raid6") => images.saturating_sub(2),
                    _ => images / (*copies).max(1),
                };
                parts.max(1)
            }
        }
    }
}

impl std::fmt::Display for Segments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Segments::Linear => f.write_str("linear"),
            Segments::Thin => f.write_str("thin"),
            Segments::Striped { stripes, .. } => write!(f, "striped over {stripes}"),
            Segments::Raid { level, images, .. } => write!(f, "{level} of {images} images"),
            Segments::Mirror { images, .. } => write!(f, "mirror of {images} images"),
            Segments::Mixed { pieces } => write!(f, "pieces of {}", pieces.join(", ")),
        }
    }
}

/// What can be set for a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeSettings {
    /// Allocation policy; `None`: that of the group.
    pub allocation: Option<String>,
    /// Read-ahead; `None`: left to the kernel.
    pub read_ahead: Option<Bytes>,
    /// `false`: not activated by itself at the start.
    pub autoactivation: bool,
    /// Activated only when that is asked for twice (`lvchange --activate y --ignoreactivationskip`).
    pub skip_activation: bool,
}

impl Default for VolumeSettings {
    fn default() -> VolumeSettings {
        VolumeSettings {
            allocation: None,
            read_ahead: None,
            autoactivation: true,
            skip_activation: false,
        }
    }
}

/// A fast volume in front of a slow one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// `cache` or `writecache`.
    pub kind: String,
    /// Name of the fast volume or of the cache pool.
    pub name: String,
    /// Whether it is a cache pool: two volumes, one for data and one for metadata.
    pub pool: bool,
    /// Size of the fast volume, or of the pool's data.
    pub size: Bytes,
    /// Size of the pool's metadata.
    pub metadata_size: Bytes,
    /// Chunk size; 0: does not apply.
    pub chunk_size: Bytes,
    /// `writethrough`, `writeback` or `passthrough`; empty: does not apply.
    pub mode: String,
    /// Replacement policy; empty: LVM's choice.
    pub policy: String,
    /// Where it lies, when all of it is on one physical volume of several.
    pub pvs: Vec<NodeId>,
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogicalVolume {
    /// The volume group; of a thin volume, the pool.
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
    /// How its data lies on physical volumes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub segments: Segments,
    /// The physical volumes, in a group of several: one for each image. Empty: LVM chooses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pvs: Vec<NodeId>,
    /// Its settings, where they are not LVM's own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings: VolumeSettings,
    /// The cache in front of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

impl LogicalVolume {
    /// Whether it, or its cache, has to lie on certain physical volumes.
    pub(crate) fn has_place(&self) -> bool {
        !self.pvs.is_empty() || self.cache.as_ref().is_some_and(|c| !c.pvs.is_empty())
    }
}

impl ThinPool {
    /// Whether its data or metadata has to lie on certain physical volumes.
    pub(crate) fn has_place(&self) -> bool {
        !self.pvs.is_empty() || !self.metadata_pvs.is_empty()
    }
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
    /// Whether writes fail at once when the pool is full, rather than wait for it to grow.
    #[serde(default, skip_serializing_if = "is_default")]
    pub error_when_full: bool,
    /// How its data lies on physical volumes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub segments: Segments,
    /// How its metadata lies on physical volumes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metadata_segments: Segments,
    /// The physical volumes of its data, in a group of several: one for each image. Empty: LVM chooses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pvs: Vec<NodeId>,
    /// The same for its metadata.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata_pvs: Vec<NodeId>,
    /// Its settings, where they are not LVM's own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings: VolumeSettings,
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
