//! From the live machine to a [`Layout`].

pub(crate) mod boot;
pub(crate) mod btrfs;
mod controller;
pub(crate) mod devices;
pub(crate) mod disk;
pub(crate) mod esp;
pub(crate) mod fat;
pub(crate) mod fs;
pub(crate) mod gpt;
pub mod luks;
pub(crate) mod lvm;
pub(crate) mod mbr;
pub(crate) mod mount;
pub(crate) mod mounts;
pub(crate) mod raid;
pub(crate) mod reach;
pub(crate) mod segments;
pub(crate) mod swap_file;
mod volume;
pub(crate) mod volumes;
pub(crate) mod zfs;

pub use gpt::check_gpt_entries;

use std::path::{Path, PathBuf};

use crate::model::{Layout, ModelError, Node, NodeId, Unsupported};
use crate::system::{BlockDevice, System, SystemError};
use devices::Devices;
use mount::Mounted;

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
        CaptureError::Parse {
            what: what.into(),
            reason: reason.to_string(),
        }
    }
}

/// Describes the machine that this runs on.
pub fn capture(sys: &dyn System) -> Result<Layout, CaptureError> {
    capture_at(sys, Path::new("/"), None)
}

/// Describes the machine whose filesystems are mounted below `root`: fstab, boot loaders and mount points are looked for
/// there. Other mounts are passed over. With `only`, other disks are: an old volume group of the same name on one of them
/// does not come in between.
pub fn capture_at(
    sys: &dyn System,
    root: &Path,
    only: Option<&[PathBuf]>,
) -> Result<Layout, CaptureError> {
    capture_with(sys, root, only, false)
}

/// As [`capture_at`], for disks that may be damaged: what cannot be understood is named, and no error.
pub fn capture_disks(
    sys: &dyn System,
    root: &Path,
    disks: &[PathBuf],
) -> Result<Layout, CaptureError> {
    capture_with(sys, root, Some(disks), true)
}

fn capture_with(
    sys: &dyn System,
    root: &Path,
    only: Option<&[PathBuf]>,
    tolerant: bool,
) -> Result<Layout, CaptureError> {
    let mut devices = Devices::new(sys)?;
    devices.only = only.map(<[PathBuf]>::to_vec);
    let devices = devices;
    let mut capture = Capture {
        sys,
        root,
        mounted: mount::mounted(sys, root)?,
        lvm: lvm::report_on(sys, only.map(|only| devices.stack(only)).as_deref())?,
        devices: &devices,
        raid_members: Vec::new(),
        layout: Layout::new(boot::firmware(sys)),
        members: Vec::new(),
        tolerant,
        zfs_members: Vec::new(),
    };
    for disk in devices.disks() {
        capture.disk(disk)?;
        capture.controller(disk);
    }
    capture.arrays(only.is_none())?;
    capture.volume_groups()?;
    if only.is_none() {
        capture.other_virtuals();
    }
    capture.btrfs()?;
    capture.pools(only.is_none())?;
    capture.mounts();
    capture.crypttab();
    capture.subvolume_mounts();
    capture.swap_files();
    let mut layout = capture.layout;
    layout.boot = boot::boot(sys, root, &layout);
    layout.check()?;
    Ok(layout)
}

/// A capture under way.
pub(crate) struct Capture<'a> {
    sys: &'a dyn System,
    root: &'a Path,
    devices: &'a Devices<'a>,
    mounted: Vec<Mounted>,
    lvm: lvm::Report,
    /// Devices signed as members of arrays, until the arrays are added.
    raid_members: Vec<raid::SignedMember>,
    layout: Layout,
    /// Devices of btrfs filesystems, until all of them are known.
    members: Vec<btrfs::Member>,
    /// Whether what is damaged is no error.
    tolerant: bool,
    /// Devices signed as members of ZFS pools, until the pools are added.
    zfs_members: Vec<zfs::SignedMember>,
}

impl Capture<'_> {
    /// Adds what a disk, partition or volume carries. Says whether that is anything.
    fn content(&mut self, device: &BlockDevice, on: &NodeId) -> Result<bool, CaptureError> {
        match self.content_strict(device, on) {
            Err(error) if self.tolerant => {
                let meaning = format!("it is damaged: {error}");
                self.unsupported(device, vec![on.clone()], "damaged", &meaning);
                Ok(true)
            }
            other => other,
        }
    }

    fn content_strict(&mut self, device: &BlockDevice, on: &NodeId) -> Result<bool, CaptureError> {
        let probe = self.devices.probe(device);
        if let Some(reason) = &probe.unreadable {
            return Ok(self.content_unreadable(device, on, reason));
        }
        let Some(fstype) = probe.fstype.clone() else {
            if let Some(table) = &probe.table {
                self.layout.warnings.push(format!(
                    "{} holds a partition table of its own ({table}), as disks of guests do: what is in it is kept as a block \
                     image at best, not as files",
                    device.node.display()
                ));
            }
            return Ok(false);
        };
        let node = match fstype.as_str() {
            "ext2" | "ext3" | "ext4" => {
                Node::Ext4(fs::ext4(self.sys, &device.node, on.clone(), &probe)?)
            }
            "xfs" => {
                let (xfs, warnings) = fs::xfs(self.sys, &device.node, on.clone())?;
                let path = device.node.display();
                self.layout
                    .warnings
                    .extend(warnings.iter().map(|w| format!("{path}: {w}")));
                Node::Xfs(xfs)
            }
            "vfat" => Node::Vfat(fs::vfat(self.sys, &device.node, on.clone(), &probe)?),
            "swap" => Node::Swap(self.swap(device, on, &probe)),
            "LVM2_member" => return Ok(self.physical_volume(device, on)),
            "crypto_LUKS" => {
                self.luks(device, on, &probe)?;
                return Ok(true);
            }
            "linux_raid_member" => {
                self.raid_member(device, on, &probe);
                return Ok(true);
            }
            "btrfs" => return self.btrfs_member(device, on),
            "zfs_member" => {
                self.zfs_signed(device, on);
                return Ok(true);
            }
            other => match meaning(other) {
                Some(meaning) => {
                    self.unsupported(device, vec![on.clone()], other, meaning);
                    return Ok(true);
                }
                // No structure of the machine's storage: the partition is kept as a block image.
                None => {
                    self.layout.warnings.push(format!(
                        "{} holds {other}, which is kept as a block image rather than as files",
                        device.node.display()
                    ));
                    return Ok(false);
                }
            },
        };
        let id = match &node {
            Node::Swap(swap) => NodeId::swap(&swap.uuid),
            other => other
                .filesystem()
                .map_or_else(|| on.clone(), |view| NodeId::fs(view.uuid)),
        };
        if let Some(twin) = self.layout.nodes.get(&id) {
            let reason = "it is a copy of a filesystem that is known already, with the same UUID";
            self.layout.warnings.push(format!(
                "{}: {reason} ({}): only the first is restored",
                device.node.display(),
                twin.on().first().map_or("", NodeId::as_str)
            ));
            return Ok(true);
        }
        self.layout.nodes.insert(id, node);
        Ok(true)
    }

    fn unsupported(&mut self, device: &BlockDevice, on: Vec<NodeId>, what: &str, meaning: &str) {
        let node = device.node.clone();
        self.layout
            .warnings
            .push(format!("{} ({what}): {meaning}", node.display()));
        self.layout.nodes.insert(
            NodeId::other(&device.name),
            Node::Unsupported(Unsupported {
                on,
                device: node,
                what: what.to_owned(),
                size: self.devices.size(device),
                meaning: meaning.to_owned(),
            }),
        );
    }
}

/// What a signature that is no plain filesystem means for a restore.
fn meaning(fstype: &str) -> Option<&'static str> {
    Some(match fstype {
        "ddf_raid_member" | "isw_raid_member" => {
            "RAID with the metadata of firmware is not supported: the array and what is on it are not restored"
        }
        "bcache"
        | "drbd"
        | "LVM1_member"
        | "LVM2_thinpool"
        | "DM_snapshot_cow"
        | "mpath_member"
        | "ceph_bluestore"
        | "VMFS_volume_member"
        | "stratis"
        | "bcachefs"
        | devices::AMBIGUOUS => {
            "this kind of storage is not supported: it and what is on it are not restored"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
