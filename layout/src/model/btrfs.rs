//! btrfs: filesystems over one or several devices, and their subvolumes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Filesystem, Mount, NodeId};
use crate::units::Bytes;

/// A btrfs filesystem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Btrfs {
    /// What it lies on, by the numbers that btrfs gave to its devices.
    pub on: Vec<NodeId>,
    /// How much it uses of each of them.
    pub sizes: Vec<Bytes>,
    /// UUID.
    pub uuid: String,
    /// Label.
    pub label: Option<String>,
    /// Sector size: the unit of data.
    pub sector_size: Bytes,
    /// Node size: the unit of metadata.
    pub node_size: Bytes,
    /// Checksum algorithm as `mkfs.btrfs --csum` takes it.
    pub checksum: String,
    /// Those of the features that `mkfs.btrfs -O` chooses that are on, sorted.
    pub features: Vec<String>,
    /// Profile of data as `mkfs.btrfs -d` takes it; `None`: it was not mounted, so that nobody told.
    pub data: Option<String>,
    /// Profile of metadata as `mkfs.btrfs -m` takes it; `None` as for data.
    pub metadata: Option<String>,
    /// Path from the top of the filesystem to the subvolume; the top itself is not among them.
    pub subvolumes: BTreeMap<String, Subvolume>,
    /// Path of the subvolume that is mounted when none is named; empty: the top of the filesystem.
    pub default_subvolume: String,
    /// Size of the filesystem: that of all of its devices.
    pub size: Bytes,
    /// Bytes in use.
    pub used: Option<Bytes>,
}

/// A subvolume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subvolume {
    /// Its number. A restore gives it another one.
    pub id: u64,
    /// Whether it can only be read.
    pub read_only: bool,
    /// Whether it was made as a copy of another one.
    pub snapshot: bool,
}

impl Btrfs {
    pub(crate) fn view(&self) -> Option<Filesystem<'_>> {
        Some(Filesystem {
            on: self.on.first()?,
            fstype: "btrfs",
            uuid: &self.uuid,
            label: self.label.as_deref(),
            size: self.size,
            used: self.used,
        })
    }

    /// How much it uses of a device.
    pub(crate) fn size_on(&self, device: &NodeId) -> Bytes {
        self.on
            .iter()
            .zip(&self.sizes)
            .find(|(on, _)| *on == device)
            .map_or(Bytes(0), |(_, size)| *size)
    }

    /// Whether a restore makes this subvolume, at least empty. Snapshots that can only be read are a state of the past,
    /// and volumes of guests come back with the guests.
    pub fn is_made(&self, path: &str) -> bool {
        self.subvolumes
            .get(path)
            .is_some_and(|subvolume| !(subvolume.snapshot && subvolume.read_only))
            && !is_guest_subvolume(path)
    }
}

/// Whether a subvolume belongs to a guest: `images/<id>/vm-<id>-disk-<n>`, `images/<id>/subvol-<id>-disk-<n>` and
/// snapshots of them (pve-storage: src/PVE/Storage/BTRFSPlugin.pm).
pub fn is_guest_subvolume(path: &str) -> bool {
    let mut names = path.rsplit('/');
    let (Some(volume), Some(guest), Some("images")) = (names.next(), names.next(), names.next())
    else {
        return false;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    number(guest)
        && ["vm-", "base-", "subvol-", "basevol-"].iter().any(|kind| {
            volume
                .strip_prefix(kind)
                .and_then(|rest| rest.split_once('-'))
                .is_some_and(|(id, _)| id == guest)
        })
}

impl Mount {
    /// The subvolume of a btrfs that is mounted here, as a path from the top of the filesystem (empty: the top itself);
    /// `None` for other filesystems. A subvolume that is reached below another mount counts as mounted, too.
    pub fn subvolume(&self) -> Option<&str> {
        if self.fstype != "btrfs" {
            return None;
        }
        let options = match (&self.fstab, self.mounted) {
            (Some(line), false) => &line.options,
            _ => &self.options,
        };
        let named = options.iter().find_map(|o| o.strip_prefix("subvol="));
        Some(named.unwrap_or("").trim_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_of_guests_are_known_by_place_and_name() {
        for guest in [
            "images/100/vm-100-disk-0",
            "var/lib/pve/local-btrfs/images/100/vm-100-disk-1@before",
            "images/101/subvol-101-disk-0",
        ] {
            assert!(is_guest_subvolume(guest), "{guest}");
        }
        for own in [
            "images",
            "images/100",
            "@home",
            "images/100/vm-101-disk-0",
            "vm-100-disk-0",
            "",
        ] {
            assert!(!is_guest_subvolume(own), "{own}");
        }
    }

    #[test]
    fn a_mount_tells_its_subvolume() {
        let mut mount = Mount {
            node: NodeId::fs("x"),
            mount_point: "/home".into(),
            fstype: "btrfs".to_owned(),
            options: vec!["subvolid=257".to_owned(), "subvol=/@home".to_owned()],
            mounted: true,
            fstab: None,
        };
        assert_eq!(mount.subvolume(), Some("@home"));
        mount.options = vec!["subvol=/".to_owned()];
        assert_eq!(mount.subvolume(), Some(""));
        mount.fstype = "ext4".to_owned();
        assert_eq!(mount.subvolume(), None);
    }
}
