//! Names of nodes: stable between captures of the same host, and readable.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::VdevRole;

/// A stable name: `disk:<gpt guid or mbr signature, else serial>`, `part:<partuuid>`, `raid:<uuid>`, `luks:<uuid>`,
/// `pv:<uuid>`, `vg:<name>`, `lv:<vg>/<lv>`, `fs:<uuid>`, `swap:<uuid>`, `swapfile:<path>`, `other:<device>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(String);

impl NodeId {
    /// Any text; capture uses the functions below.
    pub fn new(text: impl Into<String>) -> NodeId {
        NodeId(text.into())
    }
    /// A disk by its GPT GUID or MBR signature, or by serial (or kernel name) when it has none.
    pub fn disk(key: &str) -> NodeId {
        NodeId(format!("disk:{key}"))
    }
    /// A partition by its PARTUUID.
    pub fn partition(partuuid: &str) -> NodeId {
        NodeId(format!("part:{partuuid}"))
    }
    /// A software RAID array by its UUID.
    pub fn raid(uuid: &str) -> NodeId {
        NodeId(format!("raid:{uuid}"))
    }
    /// A LUKS container by its UUID.
    pub fn luks(uuid: &str) -> NodeId {
        NodeId(format!("luks:{uuid}"))
    }
    /// A physical volume by its LVM UUID.
    pub fn pv(uuid: &str) -> NodeId {
        NodeId(format!("pv:{uuid}"))
    }
    /// A volume group by name.
    pub fn vg(name: &str) -> NodeId {
        NodeId(format!("vg:{name}"))
    }
    /// A logical volume by names.
    pub fn lv(vg: &str, name: &str) -> NodeId {
        NodeId(format!("lv:{vg}/{name}"))
    }
    /// A filesystem by UUID.
    pub fn fs(uuid: &str) -> NodeId {
        NodeId(format!("fs:{uuid}"))
    }
    /// A swap area by UUID.
    pub fn swap(uuid: &str) -> NodeId {
        NodeId(format!("swap:{uuid}"))
    }
    /// A swap file by its place in the host.
    pub fn swap_file(path: &std::path::Path) -> NodeId {
        NodeId(format!("swapfile:{}", path.display()))
    }
    /// A ZFS pool by name.
    pub fn pool(name: &str) -> NodeId {
        NodeId(format!("zpool:{name}"))
    }
    /// A device in a ZFS pool by its place there.
    pub fn zfs_member(pool: &str, role: VdevRole, vdev: usize, member: usize) -> NodeId {
        NodeId(format!("zmember:{pool}/{role}-{vdev}-{member}"))
    }
    /// A ZFS filesystem or volume by name.
    pub fn dataset(name: &str) -> NodeId {
        NodeId(format!("zfs:{name}"))
    }
    /// Something not supported, by kernel name.
    pub fn other(name: &str) -> NodeId {
        NodeId(format!("other:{name}"))
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for NodeId {
    fn from(text: &str) -> NodeId {
        NodeId(text.to_owned())
    }
}
