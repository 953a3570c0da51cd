//! What stays on the disks that are written to, in words.

use std::path::Path;

use super::Kept;
use super::locate::Ground;
use crate::model::{Layout, Node, NodeId, Partition};
use crate::plan::Step;

/// One entry for each disk.
pub(super) fn kept(ground: &Ground<'_>, present: &Layout) -> Vec<Kept> {
    let disks = ground.disks.iter();
    disks
        .map(|assigned| {
            let disk = &assigned.device;
            let mut what = Vec::new();
            let used = ground.used_on(disk);
            for part in ground.partitions_on(disk) {
                if part.is_extended() {
                    continue;
                }
                if !used.iter().any(|u| u.device == part.device) {
                    what.push(partition(present, part));
                }
            }
            for (id, node) in &present.nodes {
                if let Node::VolumeGroup(_) = node {
                    if lies_on(present, id, disk) {
                        what.extend(volumes(ground, present, id));
                    }
                }
            }
            for name in &ground.hidden_names {
                what.push(format!("what else is in {name}"));
            }
            Kept {
                disk: disk.clone(),
                what,
            }
        })
        .collect()
}

fn lies_on(present: &Layout, id: &NodeId, disk: &Path) -> bool {
    let below = present.disks_below(id);
    present
        .disks()
        .any(|(disk_id, d)| d.device == disk && below.contains(disk_id))
}

/// `partition 4 "raw" (16 MiB): swap`.
pub(super) fn partition(present: &Layout, part: &Partition) -> String {
    let id = present
        .nodes
        .iter()
        .find(|(_, node)| matches!(node, Node::Partition(p) if p.device == part.device));
    let content = id
        .and_then(|(id, _)| present.children(id).next())
        .map(|(_, node)| match node {
            Node::PhysicalVolume(_) => "LVM physical volume".to_owned(),
            Node::Luks(luks) => format!("LUKS container {}", luks.uuid),
            Node::Swap(_) => "swap".to_owned(),
            Node::ZfsMember(member) => format!("device of ZFS pool {}", member.pool),
            Node::Unsupported(what) => what.what.clone(),
            node => node
                .filesystem()
                .map_or_else(String::new, |f| f.fstype.to_owned()),
        })
        .filter(|text| !text.is_empty());
    let name = if part.name.is_empty() {
        String::new()
    } else {
        format!(" \"{}\"", part.name)
    };
    let content = content.map(|c| format!(": {c}")).unwrap_or_default();
    format!("partition {}{name} ({}){content}", part.number, part.size())
}

/// The volumes of a group that nothing is written to.
fn volumes(ground: &Ground<'_>, present: &Layout, group: &NodeId) -> Vec<String> {
    let used = |vg: &str, name: &str| {
        ground.uses.iter().any(|step| {
            matches!(step, Step::VolumeUse { vg: of, name: used, read_only: false, .. } if of == vg && used == name)
        })
    };
    let vg = match present.nodes.get(group) {
        Some(Node::VolumeGroup(vg)) => vg.name.as_str(),
        _ => return Vec::new(),
    };
    let mut what = Vec::new();
    for (id, node) in present.children(group) {
        match node {
            Node::LogicalVolume(lv) if !used(vg, &lv.name) => {
                what.push(format!("logical volume {vg}/{} ({})", lv.name, lv.size));
            }
            Node::ThinPool(pool) => {
                let inside = present.children(id).filter_map(|(_, node)| match node {
                    Node::ThinVolume(v) => Some((v.name.as_str(), v.size)),
                    Node::LogicalVolume(lv) => Some((lv.name.as_str(), lv.size)),
                    _ => None,
                });
                let inside: Vec<String> = inside
                    .filter(|(name, _)| !used(vg, name))
                    .map(|(name, size)| format!("{name} ({size})"))
                    .collect();
                let with = if inside.is_empty() {
                    String::new()
                } else {
                    format!(" with {}", inside.join(", "))
                };
                what.push(format!(
                    "thin pool {vg}/{} ({}){with}",
                    pool.name, pool.size
                ));
            }
            Node::Unsupported(other) => {
                what.push(format!("{} ({})", other.device.display(), other.what));
            }
            _ => {}
        }
    }
    what
}
