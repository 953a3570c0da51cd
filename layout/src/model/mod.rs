//! The layout: a typed graph of everything between a disk and a mounted filesystem, and how the machine boots.

mod boot;
mod btrfs;
mod disk;
mod fs;
mod gpt;
mod id;
mod luks;
mod lvm;
mod mbr;
mod mount;
mod raid;
mod roles;
mod swap;
mod swap_file;
mod zfs;

pub use boot::{Boot, EfiEntry, Firmware, GrubBios, GrubEfi, ProxmoxEsp, SystemdBoot};
pub use btrfs::{Btrfs, Subvolume, is_guest_subvolume};
pub use disk::{Disk, Unsupported};
pub use fs::{Ext4, Filesystem, Vfat, Xfs};
pub use gpt::{GptTable, Partition, types};
pub use id::NodeId;
pub use luks::{CrypttabEntry, Luks, LuksHeader};
pub use lvm::{
    Cache, GroupSettings, LogicalVolume, PhysicalVolume, Segments, ThinPool, ThinVolume,
    VolumeGroup, VolumeSettings,
};
pub use mbr::{ACTIVE, MbrTable, Table, mbr_types};
pub use mount::{FstabEntry, Mount};
pub(crate) use raid::RAID_LEVELS;
pub use raid::{RaidArray, RaidMember};
pub use roles::UnknownPartition;
pub use swap::Swap;
pub use swap_file::SwapFile;
pub use zfs::{Vdev, VdevRole, ZfsDataset, ZfsMember, ZfsPool, ZfsVolume, is_guest_dataset};

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The version of the JSON that [`Layout::to_json`] writes. Readers refuse every other.
pub const FORMAT_VERSION: u32 = 1;

/// A host's storage and boot set-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// How the machine was started when it was captured.
    pub firmware: Firmware,
    /// Everything between disk and filesystem; each node says what it is [on](Node::on).
    pub nodes: BTreeMap<NodeId, Node>,
    /// Where the filesystems were mounted, or would be by fstab.
    pub mounts: Vec<Mount>,
    /// Boot loaders, kernels, EFI variables.
    pub boot: Boot,
    /// What was met and is not supported, in words of what that means for a restore.
    pub warnings: Vec<String>,
}

/// One thing of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Node {
    /// A whole disk, with its partition table where it has one.
    Disk(Disk),
    /// A partition of a GPT or MBR disk.
    Partition(Partition),
    /// A software RAID array.
    RaidArray(RaidArray),
    /// An encrypted container.
    Luks(Luks),
    /// An LVM physical volume.
    PhysicalVolume(PhysicalVolume),
    /// An LVM volume group.
    VolumeGroup(VolumeGroup),
    /// A logical volume.
    LogicalVolume(LogicalVolume),
    /// A thin pool.
    ThinPool(ThinPool),
    /// A volume in a thin pool: it belongs to a guest and is listed only.
    ThinVolume(ThinVolume),
    /// ext2, ext3 or ext4.
    Ext4(Ext4),
    /// XFS.
    Xfs(Xfs),
    /// FAT12, FAT16 or FAT32.
    Vfat(Vfat),
    /// btrfs.
    Btrfs(Btrfs),
    /// A swap area.
    Swap(Swap),
    /// A swap file.
    SwapFile(SwapFile),
    /// A device in a ZFS pool.
    ZfsMember(ZfsMember),
    /// A ZFS pool.
    ZfsPool(ZfsPool),
    /// A filesystem in a ZFS pool.
    ZfsDataset(ZfsDataset),
    /// A volume in a ZFS pool: it is listed only.
    ZfsVolume(ZfsVolume),
    /// Something that this version cannot rebuild.
    Unsupported(Unsupported),
}

/// Why a layout document could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Written by another version.
    #[error(
        "the layout has format version {found}, and this program reads version {expected} only: \
         use the Lifeboat release that wrote it"
    )]
    Version {
        /// The version in the document.
        found: u64,
        /// The version that this program reads.
        expected: u32,
    },
    /// Not JSON, or not a layout.
    #[error("the layout cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// An edge leads nowhere.
    #[error("the layout is damaged: {node} is on {missing}, which is not in it")]
    Dangling {
        /// The node with the edge.
        node: NodeId,
        /// What it refers to.
        missing: NodeId,
    },
}

impl Layout {
    /// An empty layout.
    pub fn new(firmware: Firmware) -> Layout {
        Layout {
            format_version: FORMAT_VERSION,
            firmware,
            nodes: BTreeMap::new(),
            mounts: Vec::new(),
            boot: Boot::default(),
            warnings: Vec::new(),
        }
    }

    /// The document that goes into a snapshot.
    pub fn to_json(&self) -> Result<String, ModelError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Reads a document; another version, an unknown field and a dangling edge are refused.
    pub fn from_json(text: &str) -> Result<Layout, ModelError> {
        Layout::from_value(serde_json::from_str(text)?)
    }

    /// As [`Layout::from_json`], for a document that is already parsed.
    pub fn from_value(value: serde_json::Value) -> Result<Layout, ModelError> {
        // The version is looked at first: a newer document may well have other fields.
        if let Some(found) = value
            .get("format_version")
            .and_then(serde_json::Value::as_u64)
        {
            if found != u64::from(FORMAT_VERSION) {
                return Err(ModelError::Version {
                    found,
                    expected: FORMAT_VERSION,
                });
            }
        }
        let layout: Layout = serde_json::from_value(value)?;
        layout.check_edges()?;
        Ok(layout)
    }

    pub(crate) fn check(&self) -> Result<(), ModelError> {
        self.check_edges()
    }

    fn check_edges(&self) -> Result<(), ModelError> {
        for (id, node) in &self.nodes {
            if let Some(missing) = node.on().iter().find(|on| !self.nodes.contains_key(on)) {
                return Err(ModelError::Dangling {
                    node: id.clone(),
                    missing: missing.clone(),
                });
            }
        }
        for mount in &self.mounts {
            if !self.nodes.contains_key(&mount.node) {
                return Err(ModelError::Dangling {
                    node: NodeId::new(format!("mount:{}", mount.mount_point.display())),
                    missing: mount.node.clone(),
                });
            }
        }
        Ok(())
    }

    /// The nodes that are directly on `id`.
    pub fn children(&self, id: &NodeId) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.nodes
            .iter()
            .filter(move |(_, node)| node.on().contains(id))
    }

    /// The disks, in the order of their ids.
    pub fn disks(&self) -> impl Iterator<Item = (&NodeId, &Disk)> {
        self.nodes.iter().filter_map(|(id, node)| match node {
            Node::Disk(disk) => Some((id, disk)),
            _ => None,
        })
    }

    /// The partitions of a disk by number.
    pub fn partitions(&self, disk: &NodeId) -> Vec<(&NodeId, &Partition)> {
        let mut found: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|(id, node)| match node {
                Node::Partition(part) if part.on == *disk => Some((id, part)),
                _ => None,
            })
            .collect();
        found.sort_by_key(|(_, part)| part.number);
        found
    }

    /// The mount at exactly this place.
    pub fn mount_at(&self, mount_point: &Path) -> Option<&Mount> {
        self.mounts.iter().find(|m| m.mount_point == mount_point)
    }
}

impl Node {
    /// What this node lies on.
    pub fn on(&self) -> Vec<NodeId> {
        match self {
            Node::Disk(_) => Vec::new(),
            Node::Partition(n) => vec![n.on.clone()],
            Node::Luks(n) => vec![n.on.clone()],
            Node::RaidArray(n) => n.members.iter().map(|m| m.on.clone()).collect(),
            Node::PhysicalVolume(n) => vec![n.on.clone()],
            Node::VolumeGroup(n) => n.on.clone(),
            Node::LogicalVolume(n) => vec![n.on.clone()],
            Node::ThinPool(n) => vec![n.on.clone()],
            Node::ThinVolume(n) => vec![n.on.clone()],
            Node::Ext4(n) => vec![n.on.clone()],
            Node::Xfs(n) => vec![n.on.clone()],
            Node::Vfat(n) => vec![n.on.clone()],
            Node::Btrfs(n) => n.on.clone(),
            Node::Swap(n) => vec![n.on.clone()],
            Node::SwapFile(n) => vec![n.on.clone()],
            Node::ZfsMember(n) => vec![n.on.clone()],
            Node::ZfsPool(n) => n.data_members().cloned().collect(),
            Node::ZfsDataset(n) => vec![n.on.clone()],
            Node::ZfsVolume(n) => vec![n.on.clone()],
            Node::Unsupported(n) => n.on.clone(),
        }
    }

    /// The common part of the filesystems.
    pub fn filesystem(&self) -> Option<Filesystem<'_>> {
        match self {
            Node::Ext4(n) => Some(n.view()),
            Node::Xfs(n) => Some(n.view()),
            Node::Vfat(n) => Some(n.view()),
            Node::Btrfs(n) => n.view(),
            _ => None,
        }
    }

    /// The device node at capture time, where the thing is a block device itself.
    pub fn device(&self) -> Option<&Path> {
        match self {
            Node::Disk(n) => Some(&n.device),
            Node::Partition(n) => Some(&n.device),
            Node::RaidArray(n) => Some(&n.device),
            Node::Luks(n) => Some(&n.device),
            Node::LogicalVolume(n) => Some(&n.device),
            _ => None,
        }
    }
}
