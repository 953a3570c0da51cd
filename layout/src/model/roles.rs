//! What has to be saved, and which disks have to be made anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Layout, LuksHeader, Mount, Node, NodeId, types};
use crate::units::Bytes;

/// A partition that holds nothing known: it is kept as a block image.
#[derive(Debug, Clone, PartialEq)]
pub struct UnknownPartition {
    /// The partition.
    pub id: NodeId,
    /// Device node at capture time.
    pub device: PathBuf,
    /// Size.
    pub size: Bytes,
}

/// Mount points that belong to the operating system. A disk that carries none of them is a data disk: a restore
/// leaves it as it is, and its files are not in the host's trees.
const SYSTEM: [&str; 17] = [
    "/",
    "/boot",
    "/boot/efi",
    "/efi",
    "/etc",
    "/usr",
    "/usr/local",
    "/var",
    "/var/lib",
    "/var/log",
    "/var/cache",
    "/var/tmp",
    "/var/spool",
    "/opt",
    "/root",
    "/home",
    "/srv",
];

impl Mount {
    /// Whether the operating system has its files there.
    pub(crate) fn belongs_to_the_system(&self) -> bool {
        SYSTEM.iter().any(|s| self.mount_point == Path::new(s))
    }
}

impl Layout {
    /// The disks below a node (several when a volume group spans them).
    pub fn disks_below(&self, id: &NodeId) -> BTreeSet<NodeId> {
        let mut disks = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut todo = vec![id.clone()];
        while let Some(id) = todo.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            match self.nodes.get(&id) {
                Some(Node::Disk(_)) => {
                    disks.insert(id);
                }
                Some(node) => todo.extend(node.on()),
                None => {}
            }
        }
        disks
    }

    /// The disks that carry the operating system: those that a restore has to make anew.
    pub fn system_disks(&self) -> BTreeSet<NodeId> {
        self.mounts
            .iter()
            .filter(|m| m.mounted && m.belongs_to_the_system())
            .flat_map(|m| self.disks_below(&m.node))
            .collect()
    }

    /// The mounted filesystems that become file trees: those on [system disks](Layout::system_disks), `/` first and
    /// a parent before what is mounted in it.
    pub fn filesystems_to_save(&self) -> Vec<&Mount> {
        let system = self.system_disks();
        let mut mounts: Vec<&Mount> = self
            .mounts
            .iter()
            .filter(|m| m.mounted && !self.disks_below(&m.node).is_disjoint(&system))
            .collect();
        mounts.sort_by_key(|m| (m.mount_point.components().count(), m.mount_point.clone()));
        mounts
    }

    /// The headers of LUKS containers on system disks, which become images. Containers on a device that has no node of its
    /// own cannot be read and are not among them.
    pub fn luks_headers(&self) -> Vec<LuksHeader> {
        let system = self.system_disks();
        let headers = self.nodes.iter().filter_map(|(id, node)| match node {
            Node::Luks(luks) if !self.disks_below(id).is_disjoint(&system) => Some(LuksHeader {
                id: id.clone(),
                device: self.nodes.get(&luks.on)?.device()?.to_owned(),
                size: luks.header_size,
            }),
            _ => None,
        });
        headers.collect()
    }

    /// The partitions of system disks that hold nothing known and become block images, and the EFI system partitions that
    /// were not mounted ([`super::Boot::esp_images`]). The BIOS boot partition is not among them: grub-install writes it;
    /// nor is the extended partition of an MBR disk.
    pub fn unknown_partitions(&self) -> Vec<UnknownPartition> {
        let system = self.system_disks();
        self.nodes
            .iter()
            .filter_map(|(id, node)| match node {
                Node::Partition(part)
                    if system.contains(&part.on)
                        && part.type_guid != types::BIOS_BOOT
                        && !part.is_extended()
                        && (self.children(id).next().is_none()
                            || self.boot.esp_images.contains(id)) =>
                {
                    Some(UnknownPartition {
                        id: id.clone(),
                        device: part.device.clone(),
                        size: part.size(),
                    })
                }
                _ => None,
            })
            .collect()
    }
}
