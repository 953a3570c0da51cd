//! What differs between the saved layout and the machine after the restore.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Layout, Mount, Node, NodeId};
use crate::plan::{Mode, Plan};

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Where.
    pub node: NodeId,
    /// Which property; `*`: the whole node.
    pub what: String,
    /// Its saved value; `None`: was not there.
    pub saved: Option<String>,
    /// Its value now; `None`: is gone.
    pub now: Option<String>,
    /// Whether the plan or the nature of the property explains it.
    pub accepted: bool,
    /// Why it is accepted.
    pub reason: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(
            f,
            "{} {}: {} -> {}",
            self.node,
            self.what,
            show(&self.saved),
            show(&self.now)
        )?;
        match &self.reason {
            Some(reason) => write!(f, " (accepted: {reason})"),
            None => Ok(()),
        }
    }
}

/// Properties that are not the storage's but the moment's or the machine's: `(kind, property, reason)`.
const BY_NATURE: &[(&str, &str, &str)] = &[
    ("disk", "device", "kernel names change"),
    ("disk", "model", "another disk"),
    ("disk", "serial", "another disk"),
    ("disk", "wwn", "another disk"),
    ("disk", "transport", "another disk"),
    ("disk", "removable", "another disk"),
    ("partition", "device", "kernel names change"),
    ("raid_array", "device", "kernel names change"),
    (
        "logical_volume",
        "active",
        "volumes are activated at the next start",
    ),
    (
        "thin_pool",
        "active",
        "volumes are activated at the next start",
    ),
    ("swap", "active", "the restored host is not running yet"),
    (
        "swap_file",
        "active",
        "the restored host is not running yet",
    ),
    ("ext4", "used", "allocation differs"),
    ("xfs", "used", "allocation differs"),
    ("vfat", "used", "allocation differs"),
    ("ext4", "inodes_used", "allocation differs"),
    ("thin_pool", "used", "guests come back later"),
    ("btrfs", "used", "allocation differs"),
    ("zfs_member", "used", "allocation differs"),
    ("zfs_dataset", "used", "allocation differs"),
    ("unsupported", "device", "kernel names change"),
    ("unsupported", "size", "nothing is made for it"),
];

/// What the boot section tells about the running system rather than about the disks.
const OF_THE_RUNNING_SYSTEM: [&str; 4] = [
    "kernel_command_line",
    "running_kernel",
    "secure_boot",
    "efi_entries",
];

/// What the boot section of earlier releases does not have.
pub(crate) const ADDED_LATER: [&str; 3] = ["systemd_boot", "proxmox_esps", "esp_images"];

/// Compares. A restore is good when every difference is accepted.
pub fn diff(saved: &Layout, now: &Layout, plan: &Plan) -> Vec<Difference> {
    let merged = plan.merged.iter().map(|d| &d.saved);
    let assigned: BTreeSet<NodeId> = plan
        .disks
        .iter()
        .map(|d| &d.saved)
        .chain(merged)
        .cloned()
        .collect();
    let now = renamed(now, plan);
    let mut found = Vec::new();
    for (id, node) in &saved.nodes {
        if !is_compared(plan, id) {
            continue;
        }
        let disks = saved.disks_below(id);
        if !disks.is_empty() && disks.is_disjoint(&assigned) {
            // A data disk, wherever it is now, was left as it is.
            continue;
        }
        let before = flatten(node);
        let kind = before.get("kind").cloned().unwrap_or_default();
        match now.nodes.get(id) {
            None => found.push(Difference {
                node: id.clone(),
                what: "*".to_owned(),
                saved: Some(kind.clone()),
                now: None,
                accepted: false,
                reason: matches!(node, Node::Unsupported(_))
                    .then(|| "not supported, as the plan said".to_owned()),
            }),
            Some(other) => compare(&mut found, id, &kind, &before, &flatten(other)),
        }
    }
    for (id, node) in &now.nodes {
        // What was there before stays there in place.
        if plan.in_place.is_none()
            && !saved.nodes.contains_key(id)
            && !now.disks_below(id).is_disjoint(&assigned)
        {
            found.push(Difference {
                node: id.clone(),
                what: "*".to_owned(),
                saved: None,
                now: flatten(node).get("kind").cloned(),
                accepted: false,
                reason: None,
            });
        }
    }
    mounts(&mut found, saved, &now, plan);
    boot(&mut found, saved, &now, plan);
    for difference in &mut found {
        if difference.reason.is_none() {
            difference.reason = reason(difference, saved, plan);
        }
        difference.accepted = difference.reason.is_some();
    }
    found
}

/// Whether a plan is to answer for a node: in place, for what it made only.
fn is_compared(plan: &Plan, id: &NodeId) -> bool {
    let in_place = plan.in_place.as_ref();
    in_place.is_none_or(|p| p.compared.contains(id))
}

fn reason(difference: &Difference, saved: &Layout, plan: &Plan) -> Option<String> {
    let planned = plan.substitutions.iter().find(|s| {
        s.node == difference.node
            && (s.what == "*"
                || s.what == difference.what
                || difference.what.starts_with(&format!("{}.", s.what)))
    });
    if let Some(substitution) = planned {
        return Some(substitution.reason.clone());
    }
    let kind = saved
        .nodes
        .get(&difference.node)
        .map(flatten)
        .and_then(|f| f.get("kind").cloned())?;
    // What vanished is no matter of a moment.
    difference.now.as_ref().or(difference.saved.as_ref())?;
    if difference.what == "*" {
        return None;
    }
    BY_NATURE
        .iter()
        .find(|(k, what, _)| *k == kind && *what == difference.what)
        .map(|(_, _, why)| (*why).to_owned())
}

/// The present layout with its disks called as the saved ones that they stand for.
fn renamed(now: &Layout, plan: &Plan) -> Layout {
    let mut names: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for assigned in &plan.disks {
        let present = now.disks().find(|(_, disk)| disk.device == assigned.device);
        if let Some((id, _)) = present.filter(|(id, _)| **id != assigned.saved) {
            names.insert(id.clone(), assigned.saved.clone());
        }
    }
    let mut layout = now.clone();
    let rename = |id: &mut NodeId| {
        if let Some(new) = names.get(id) {
            *id = new.clone();
        }
    };
    layout.nodes = std::mem::take(&mut layout.nodes)
        .into_iter()
        .map(|(mut id, mut node)| {
            rename(&mut id);
            match &mut node {
                Node::Disk(_) => {}
                Node::Partition(n) => rename(&mut n.on),
                Node::Luks(n) => rename(&mut n.on),
                Node::RaidArray(n) => n.members.iter_mut().for_each(|m| rename(&mut m.on)),
                Node::PhysicalVolume(n) => rename(&mut n.on),
                Node::VolumeGroup(n) => n.on.iter_mut().for_each(rename),
                Node::LogicalVolume(n) => rename(&mut n.on),
                Node::ThinPool(n) => rename(&mut n.on),
                Node::ThinVolume(n) => rename(&mut n.on),
                Node::Ext4(n) => rename(&mut n.on),
                Node::Xfs(n) => rename(&mut n.on),
                Node::Vfat(n) => rename(&mut n.on),
                Node::Btrfs(n) => n.on.iter_mut().for_each(rename),
                Node::ZfsMember(n) => rename(&mut n.on),
                // On members, whose names are no disk's.
                Node::ZfsPool(_) | Node::ZfsDataset(_) | Node::ZfsVolume(_) => {}
                Node::Swap(n) => rename(&mut n.on),
                Node::SwapFile(_) => {}
                Node::Unsupported(n) => n.on.iter_mut().for_each(rename),
            }
            (id, node)
        })
        .collect();
    for grub in &mut layout.boot.grub_bios {
        rename(&mut grub.disk);
    }
    layout
}

/// A node as property to text; structures become `outer.inner`.
pub(crate) fn flatten(node: &impl Serialize) -> BTreeMap<String, String> {
    fn walk(into: &mut BTreeMap<String, String>, name: &str, value: &Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let name = if name.is_empty() {
                        key.clone()
                    } else {
                        format!("{name}.{key}")
                    };
                    walk(into, &name, value);
                }
            }
            Value::Null => {}
            Value::String(text) => {
                into.insert(name.to_owned(), text.clone());
            }
            Value::Array(list) => {
                let words: Vec<String> = list
                    .iter()
                    .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
                    .collect();
                into.insert(name.to_owned(), words.join(" "));
            }
            other => {
                into.insert(name.to_owned(), other.to_string());
            }
        }
    }
    let mut map = BTreeMap::new();
    // The model serialises to plain JSON objects; a path that is not UTF-8 would be missing on both sides.
    if let Ok(value) = serde_json::to_value(node) {
        walk(&mut map, "", &value);
    }
    map
}

pub(crate) fn compare(
    found: &mut Vec<Difference>,
    id: &NodeId,
    kind: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (saved, now) = (before.get(name), after.get(name));
        // fstab and crypttab follow the files, which are compared with the mounts.
        let skip = matches!(kind, "swap" | "swap_file") && name.starts_with("fstab")
            || kind == "luks" && name.starts_with("crypttab");
        if saved != now && !skip {
            found.push(Difference {
                node: id.clone(),
                what: name.clone(),
                saved: saved.cloned(),
                now: now.cloned(),
                accepted: false,
                reason: None,
            });
        }
    }
}

fn mounts(found: &mut Vec<Difference>, saved: &Layout, now: &Layout, plan: &Plan) {
    let assigned = &plan.disks.iter().map(|d| d.saved.clone()).collect();
    for mount in &saved.mounts {
        if !mount.mounted
            || !is_compared(plan, &mount.node)
            || saved.disks_below(&mount.node).is_disjoint(assigned)
        {
            continue;
        }
        // Of a btrfs with several mounts, each has its own place.
        let same =
            |m: &&Mount| m.node == mount.node && m.mounted && m.subvolume() == mount.subvolume();
        let there = now.mounts.iter().find(same);
        let place = there.map(|m| m.mount_point.display().to_string());
        let was = mount.mount_point.display().to_string();
        if place.as_deref() != Some(&was) {
            found.push(Difference {
                node: mount.node.clone(),
                what: "mount_point".to_owned(),
                saved: Some(was),
                now: place,
                accepted: false,
                reason: None,
            });
        }
    }
}

fn boot(found: &mut Vec<Difference>, saved: &Layout, now: &Layout, plan: &Plan) {
    if !is_compared(plan, &NodeId::new("boot")) {
        return;
    }
    let (before, after) = (flatten(&saved.boot), flatten(&now.boot));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        // What GRUB can be installed for comes with the files.
        if before.get(name) == after.get(name) || name == "grub_platforms" {
            continue;
        }
        // Documents of earlier releases do not have these.
        let earlier = saved.boot.grub_platforms.is_empty() && !before.contains_key(name);
        if earlier && ADDED_LATER.contains(&name.as_str()) {
            continue;
        }
        // The installed system may have other kernels by now, and its disk's boot code is checked where it is written.
        if plan.mode() == Mode::BootRepair && name != "grub_efi" {
            continue;
        }
        let running = OF_THE_RUNNING_SYSTEM.contains(&name.as_str());
        found.push(Difference {
            node: NodeId::new("boot"),
            what: name.clone(),
            saved: before.get(name).cloned(),
            now: after.get(name).cloned(),
            accepted: false,
            reason: running
                .then(|| "the rescue system is running, on this machine's firmware".to_owned()),
        });
    }
    if saved.firmware != now.firmware {
        found.push(Difference {
            node: NodeId::new("boot"),
            what: "firmware".to_owned(),
            saved: Some(saved.firmware.to_string()),
            now: Some(now.firmware.to_string()),
            accepted: true,
            reason: Some("this machine was started another way".to_owned()),
        });
    }
}
