//! Ties filesystems to the places where they are mounted, or would be by fstab.

use std::path::{Path, PathBuf};

use super::{Capture, mount};
use crate::model::{FstabEntry, Mount, Node, NodeId};
use crate::system::Usage;

impl Capture<'_> {
    /// Fills [`crate::model::Layout::mounts`], the use of filesystems and the fstab lines of swap areas.
    pub(super) fn mounts(&mut self) {
        let text = self
            .sys
            .text(&self.root.join("etc/fstab"))
            .unwrap_or_default();
        let fstab = mount::parse_fstab(&text);
        let mut mounts: Vec<Mount> = Vec::new();
        for mounted in &self.mounted {
            // Another directory than the root of the filesystem: a bind mount, as containers have them.
            let Some(node) = self.mounted_filesystem(mounted) else {
                continue;
            };
            let line = fstab
                .iter()
                .find(|e| Path::new(&e.file) == mounted.mount_point)
                .cloned();
            let this = Mount {
                node: node.clone(),
                mount_point: mounted.mount_point.clone(),
                fstype: mounted.fstype.clone(),
                options: mounted.options.clone(),
                mounted: true,
                fstab: line,
            };
            let same = |m: &&mut Mount| m.node == node && m.subvolume() == this.subvolume();
            match mounts.iter_mut().find(same) {
                // Mounted twice: the place that fstab names is the real one, else the first.
                Some(other) if other.fstab.is_none() && this.fstab.is_some() => *other = this,
                Some(_) => {}
                None => mounts.push(this),
            }
        }
        for entry in &fstab {
            let Some(node) = self.resolve(&entry.spec) else {
                continue;
            };
            if let Some(Node::Swap(swap)) = self.layout.nodes.get_mut(&node) {
                swap.fstab = Some(entry.clone());
            } else if entry.file.starts_with('/')
                && !mounts.iter().any(|m| {
                    let btrfs = m.subvolume().is_some();
                    m.node == node && (!btrfs || m.mount_point == Path::new(&entry.file))
                })
            {
                mounts.push(Mount {
                    node,
                    mount_point: PathBuf::from(&entry.file),
                    fstype: entry.fstype.clone(),
                    options: Vec::new(),
                    mounted: false,
                    fstab: Some(entry.clone()),
                });
            }
        }
        mounts.sort_by(|a, b| {
            a.mount_point
                .cmp(&b.mount_point)
                .then_with(|| a.node.cmp(&b.node))
        });
        for mount in mounts.iter().filter(|m| m.mounted) {
            let below = mount
                .mount_point
                .strip_prefix("/")
                .unwrap_or(&mount.mount_point);
            if let Ok(usage) = self.sys.usage(&self.root.join(below)) {
                self.set_used(&mount.node, usage);
            }
        }
        self.layout.mounts = mounts;
    }

    fn set_used(&mut self, id: &NodeId, usage: Usage) {
        let used = usage.used;
        match self.layout.nodes.get_mut(id) {
            Some(Node::Ext4(fs)) => {
                fs.used = Some(used);
                fs.inodes_used = Some(usage.inodes_used).filter(|n| *n > 0);
            }
            Some(Node::Xfs(fs)) => fs.used = Some(used),
            Some(Node::Vfat(fs)) => fs.used = Some(used),
            Some(Node::Btrfs(fs)) => fs.used = Some(used),
            _ => {}
        }
    }

    /// The filesystem on the device with this number.
    pub(super) fn filesystem_on(&self, major_minor: &str) -> Option<NodeId> {
        let device = self.devices.by_number(major_minor)?;
        self.content_of(&device.node)
    }

    /// The filesystem or swap area on the block device with this node.
    pub(super) fn content_of(&self, device: &Path) -> Option<NodeId> {
        let below = self.layout.nodes.iter().find(|(_, node)| {
            node.device().is_some_and(|d| {
                d == device
                    || self
                        .devices
                        .by_node(d)
                        .is_some_and(|known| known.node == device)
            })
        })?;
        self.layout
            .nodes
            .iter()
            .find(|(_, node)| {
                (node.filesystem().is_some() || matches!(node, Node::Swap(_)))
                    && node.on().contains(below.0)
            })
            .map(|(id, _)| id.clone())
    }

    /// What the first field of an fstab line names.
    fn resolve(&self, spec: &str) -> Option<NodeId> {
        let unquoted = |value: &str| value.trim_matches('"').to_owned();
        if let Some(uuid) = spec.strip_prefix("UUID=").map(unquoted) {
            let same = |id: &&NodeId| {
                [NodeId::fs(&uuid), NodeId::swap(&uuid)]
                    .iter()
                    .any(|n| n.as_str().eq_ignore_ascii_case(id.as_str()))
            };
            return self.layout.nodes.keys().find(same).cloned();
        }
        if let Some(label) = spec.strip_prefix("LABEL=").map(unquoted) {
            let found = self.layout.nodes.iter().find(|(_, node)| match node {
                Node::Swap(swap) => swap.label.as_deref() == Some(&label),
                other => other
                    .filesystem()
                    .is_some_and(|fs| fs.label == Some(label.as_str())),
            });
            return found.map(|(id, _)| id.clone());
        }
        for (prefix, by_name) in [("PARTUUID=", false), ("PARTLABEL=", true)] {
            if let Some(value) = spec.strip_prefix(prefix).map(unquoted) {
                let device = self.layout.nodes.values().find_map(|node| match node {
                    Node::Partition(p) if by_name && p.name == value => Some(p.device.clone()),
                    Node::Partition(p) if !by_name && p.partuuid.eq_ignore_ascii_case(&value) => {
                        Some(p.device.clone())
                    }
                    _ => None,
                })?;
                return self.content_of(&device);
            }
        }
        if !spec.starts_with("/dev/") {
            return self.dataset_called(spec);
        }
        let path = Path::new(spec);
        self.content_of(path).or_else(|| {
            let device = self.devices.by_node(path)?;
            self.content_of(&device.node)
        })
    }
}

/// Whether the first field of an fstab line names a device in a way that another disk does not have.
pub(crate) fn is_fragile(entry: &FstabEntry) -> bool {
    is_fragile_name(&entry.spec)
}

/// The same of any text that names a device.
pub(crate) fn is_fragile_name(spec: &str) -> bool {
    if let Some(rest) = spec.strip_prefix("/dev/disk/") {
        // by-id has serial numbers, and UUIDs that LVM gives anew (dm-uuid-LVM-<group><volume>).
        return rest.starts_with("by-id/")
            || rest.starts_with("by-path/")
            || rest.starts_with("by-diskseq/");
    }
    let Some(name) = spec.strip_prefix("/dev/") else {
        return false;
    };
    // Kernel names of disks and partitions; `/dev/<vg>/<lv>` and `/dev/mapper/...` keep their meaning.
    !name.contains('/')
        && ["sd", "hd", "vd", "xvd", "nvme", "mmcblk", "ubd", "dm-"]
            .iter()
            .any(|kind| name.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_another_disk_or_group_does_not_have_are_fragile() {
        let fragile = |spec: &str| {
            is_fragile(&FstabEntry {
                spec: spec.to_owned(),
                file: "/".to_owned(),
                fstype: "ext4".to_owned(),
                options: Vec::new(),
                freq: 0,
                passno: 1,
            })
        };
        for spec in [
            "/dev/sda3",
            "/dev/dm-0",
            "/dev/disk/by-id/ata-DISK_123-part3",
            "/dev/disk/by-id/dm-uuid-LVM-ab3fCaCPlXcs2RqdJBEJOdxEXyRNdCDXGVQc32z0nHwnQIOrxxE7cc1T9oCzHAG8",
        ] {
            assert!(fragile(spec), "{spec}");
        }
        for spec in [
            "/dev/pve/root",
            "/dev/mapper/pve-root",
            "UUID=ab-cd",
            "/dev/disk/by-uuid/ab-cd",
        ] {
            assert!(!fragile(spec), "{spec}");
        }
    }
}
