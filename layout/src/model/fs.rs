//! Filesystems: ext2/3/4, XFS, FAT.

use serde::{Deserialize, Serialize};

use super::NodeId;
use crate::units::Bytes;

/// What all filesystems have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Filesystem<'a> {
    /// What it lies on.
    pub on: &'a NodeId,
    /// Type as `mount -t` takes it.
    pub fstype: &'a str,
    /// UUID, or the volume id of a FAT (`1A2B-3C4D`).
    pub uuid: &'a str,
    /// Label.
    pub label: Option<&'a str>,
    /// Size of the filesystem.
    pub size: Bytes,
    /// Bytes in use, where known.
    pub used: Option<Bytes>,
}

/// ext2, ext3 or ext4.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ext4 {
    /// What it lies on.
    pub on: NodeId,
    /// `ext2`, `ext3` or `ext4`.
    pub fstype: String,
    /// UUID.
    pub uuid: String,
    /// Label.
    pub label: Option<String>,
    /// Block size.
    pub block_size: Bytes,
    /// How much is allocated at once, where that is more than a block (feature `bigalloc`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<Bytes>,
    /// Inode size.
    pub inode_size: Bytes,
    /// Number of inodes.
    pub inodes: u64,
    /// Features as `dumpe2fs -h` names them, sorted, without those that come and go (`needs_recovery`).
    pub features: Vec<String>,
    /// Default mount options in the superblock, sorted.
    pub default_options: Vec<String>,
    /// Blocks reserved for root.
    pub reserved_blocks: u64,
    /// Size of the filesystem.
    pub size: Bytes,
    /// Bytes in use.
    pub used: Option<Bytes>,
    /// Inodes in use, where it was mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_used: Option<u64>,
}

/// XFS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xfs {
    /// What it lies on.
    pub on: NodeId,
    /// UUID.
    pub uuid: String,
    /// Label.
    pub label: Option<String>,
    /// Block size.
    pub block_size: Bytes,
    /// Sector size.
    pub sector_size: Bytes,
    /// Inode size.
    pub inode_size: Bytes,
    /// Those of `crc finobt sparse rmapbt reflink bigtime inobtcount nrext64` that are on, sorted.
    pub features: Vec<String>,
    /// Directory version 2 with case-insensitive names, which mkfs.xfs calls `-n version=ci`.
    pub ascii_ci: bool,
    /// Size of the filesystem.
    pub size: Bytes,
    /// Bytes in use.
    pub used: Option<Bytes>,
}

/// FAT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vfat {
    /// What it lies on.
    pub on: NodeId,
    /// Volume id as in `/dev/disk/by-uuid`: `1A2B-3C4D`.
    pub uuid: String,
    /// Label.
    pub label: Option<String>,
    /// 12, 16 or 32.
    pub fat_bits: u8,
    /// Cluster size.
    pub cluster_size: Bytes,
    /// Size of the filesystem.
    pub size: Bytes,
    /// Bytes in use.
    pub used: Option<Bytes>,
}

impl Ext4 {
    pub(crate) fn view(&self) -> Filesystem<'_> {
        Filesystem {
            on: &self.on,
            fstype: &self.fstype,
            uuid: &self.uuid,
            label: self.label.as_deref(),
            size: self.size,
            used: self.used,
        }
    }
}

impl Xfs {
    pub(crate) fn view(&self) -> Filesystem<'_> {
        Filesystem {
            on: &self.on,
            fstype: "xfs",
            uuid: &self.uuid,
            label: self.label.as_deref(),
            size: self.size,
            used: self.used,
        }
    }
}

impl Vfat {
    pub(crate) fn view(&self) -> Filesystem<'_> {
        Filesystem {
            on: &self.on,
            fstype: "vfat",
            uuid: &self.uuid,
            label: self.label.as_deref(),
            size: self.size,
            used: self.used,
        }
    }
}
