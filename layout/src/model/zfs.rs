//! ZFS: pools, the devices that they lie on, and their datasets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::NodeId;
use crate::units::Bytes;

/// A pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZfsPool {
    /// Name.
    pub name: String,
    /// Its vdevs: those with data in their order, then the others by role.
    pub vdevs: Vec<Vdev>,
    /// Pool properties that were set, in the words of `zpool get -p`, without those that tell of a moment or a machine.
    pub properties: BTreeMap<String, String>,
    /// Feature flags that are enabled or active, sorted.
    pub features: Vec<String>,
    /// The dataset that is booted from.
    pub bootfs: Option<String>,
    /// The host's id, eight hexadecimal digits: a pool that another host had is not imported without force.
    pub hostid: Option<String>,
    /// Size as `zpool list` counts it: with parity.
    pub size: Bytes,
}

/// What a vdev is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VdevRole {
    /// Data.
    Data,
    /// Metadata and small blocks.
    Special,
    /// Tables of deduplication.
    Dedup,
    /// Separate intent log.
    Log,
    /// Second cache for reading.
    Cache,
    /// Hot spare.
    Spare,
}

/// A vdev at the top of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vdev {
    /// What for.
    pub role: VdevRole,
    /// `single`, `mirror`, `raidz1`, `raidz2`, `raidz3`.
    pub kind: String,
    /// Exponent of the sector size that it was made for; `None` for caches and spares, or where nobody told.
    pub ashift: Option<u32>,
    /// Its [members](ZfsMember).
    pub members: Vec<NodeId>,
    /// How many members were missing or had failed.
    pub missing: u32,
}

/// A device in a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZfsMember {
    /// The disk, partition or whatever it is.
    pub on: NodeId,
    /// Name of the pool.
    pub pool: String,
    /// What for.
    pub role: VdevRole,
    /// Its share of what is in use; `None`: not known.
    pub used: Option<Bytes>,
}

/// A filesystem in a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZfsDataset {
    /// The pool.
    pub on: NodeId,
    /// Full name: `rpool/ROOT/pve-1`.
    pub name: String,
    /// Properties that were set on it, in the words of `zfs get -p`, and those that are fixed when it is made where they are
    /// not the usual ones.
    pub properties: BTreeMap<String, String>,
    /// Whether it is encrypted: then a restore does not make it.
    pub encrypted: bool,
    /// Bytes in use, without those of datasets below it.
    pub used: Option<Bytes>,
}

/// A volume in a pool: a block device, of a guest nearly always. It is listed only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZfsVolume {
    /// The pool.
    pub on: NodeId,
    /// Full name.
    pub name: String,
    /// Size.
    pub size: Bytes,
    /// Bytes in use.
    pub used: Option<Bytes>,
}

impl VdevRole {
    /// The word for it on zpool's command line.
    pub fn keyword(self) -> Option<&'static str> {
        Some(match self {
            VdevRole::Data => return None,
            VdevRole::Special => "special",
            VdevRole::Dedup => "dedup",
            VdevRole::Log => "log",
            VdevRole::Cache => "cache",
            VdevRole::Spare => "spare",
        })
    }
}

impl std::fmt::Display for VdevRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.keyword().unwrap_or("data"))
    }
}

impl std::fmt::Display for Vdev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(word) = self.role.keyword() {
            write!(f, "{word} ")?;
        }
        write!(f, "{} of {}", self.kind, self.members.len())?;
        if self.missing > 0 {
            write!(f, " ({} MISSING)", self.missing)?;
        }
        Ok(())
    }
}

impl ZfsPool {
    /// The members that hold data. The others are no condition: a pool that is made anew does without them.
    pub fn data_members(&self) -> impl Iterator<Item = &NodeId> {
        let data = self.vdevs.iter().filter(|v| v.role == VdevRole::Data);
        data.flat_map(|vdev| &vdev.members)
    }
}

impl ZfsDataset {
    /// Whether a restore makes it: those of guests come back with the guests, and encrypted ones need their key.
    pub fn is_made(&self) -> bool {
        !self.encrypted && !is_guest_dataset(&self.name)
    }

    /// Whether it is one that is never mounted by itself.
    pub fn holds_no_files(&self) -> bool {
        let is = |name: &str, value: &str| self.properties.get(name).is_some_and(|v| v == value);
        is("canmount", "off") || is("mountpoint", "none")
    }
}

/// Whether a dataset or volume belongs to a guest, or lies in one that does: `vm-<id>-disk-<n>`, `base-<id>-disk-<n>`,
/// `subvol-<id>-disk-<n>`, `basevol-<id>-disk-<n>` (pve-storage: src/PVE/Storage/ZFSPoolPlugin.pm).
pub fn is_guest_dataset(name: &str) -> bool {
    name.split('/').skip(1).any(|part| {
        ["vm-", "base-", "subvol-", "basevol-"].iter().any(|kind| {
            part.strip_prefix(kind)
                .and_then(|rest| rest.split_once('-'))
                .is_some_and(|(id, rest)| {
                    !id.is_empty()
                        && id.bytes().all(|b| b.is_ascii_digit())
                        && ["disk-", "state-", "cloudinit"]
                            .iter()
                            .any(|kind| rest.starts_with(kind))
                })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets_of_guests_are_known_by_name() {
        for name in [
            "rpool/data/vm-100-disk-0",
            "rpool/data/subvol-101-disk-0",
            "tank/base-9000-disk-1",
            "tank/vm-100-cloudinit",
            "tank/vm-100-state-before",
            "tank/subvol-101-disk-0/inner",
        ] {
            assert!(is_guest_dataset(name), "{name}");
        }
        for name in [
            "rpool/data",
            "rpool/vm-data",
            "rpool/vm-1-x",
            "vm-100-disk-0",
            "rpool/ROOT/pve-1",
        ] {
            assert!(!is_guest_dataset(name), "{name}");
        }
    }
}
