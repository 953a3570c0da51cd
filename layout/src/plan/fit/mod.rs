//! The sizing pass: which size everything gets on the disks at hand, before any step is made.
//!
//! A pure function of the saved layout, the disks that were assigned and the choices. `gpt.rs`, `lvm.rs` and `fs.rs` of the
//! planner read its answer and compute no size of their own.
//!
//! On a disk that is as big as needed everything stays as saved; on a bigger one the last partition may grow
//! ([`Grow`](super::Grow)). On a smaller one space is given up in this order ([`Stage`]): what belongs to nobody (gaps between
//! partitions, free space of the volume group, what was left out by choice), then the unused part of thin pools, then that
//! of filesystems in proportion to it, then swap, and the EFI system partition last. What a thing needs at least is in
//! [`least`]; kinds of nodes that this pass does not know keep their size, and so does everything below them.
//! Partitions behind one that shrinks move towards the start, aligned to 1 MiB.

mod groups;
mod least;
mod slack;
mod table;

pub(super) use least::ext4_inodes;
pub(super) use table::last_usable;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Choices, DiskAssignment, Grow, LeaveOut, PlanError};
use crate::capture::lvm::is_guest_volume;
use crate::model::{Btrfs, Disk, Layout, Luks, Node, NodeId};
use crate::units::{Bytes, Lba};

/// Partitions that move or change size are aligned to this, as partitioning tools align.
const ALIGNMENT: Bytes = Bytes::MIB;

/// Who gives up space, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Nobody's: gaps, free extents, what is left out.
    Free,
    /// Thin pools.
    Pool,
    /// Filesystems.
    Filesystem,
    /// Swap areas.
    Swap,
    /// The EFI system partition, which firmware and boot loaders like big.
    Esp,
}

/// Number of [`Stage`]s.
const STAGES: usize = 5;

/// How much a thing can give up at each [`Stage`].
type Slack = [u64; STAGES];

/// How far a disk's contents may shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Squeeze {
    /// Not at all.
    Nothing,
    /// Free space is given up; every volume and filesystem keeps its size.
    Free,
    /// Everything down to the least size.
    All,
}

/// The sizes that everything gets. What is not in it keeps its saved size.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fit {
    extents: BTreeMap<NodeId, (Lba, Lba)>,
    sizes: BTreeMap<NodeId, Bytes>,
    metadata: BTreeMap<NodeId, Bytes>,
    fills: BTreeSet<NodeId>,
    left_out: BTreeSet<NodeId>,
}

impl Fit {
    /// The sizes of what stays where it is; `fills` are filesystems whose device grew since they were saved.
    pub fn found(sizes: BTreeMap<NodeId, Bytes>, fills: BTreeSet<NodeId>) -> Fit {
        Fit {
            sizes,
            fills,
            ..Fit::default()
        }
    }

    /// First and last block of a partition of an assigned disk.
    pub fn extent(&self, partition: &NodeId) -> Option<(Lba, Lba)> {
        self.extents.get(partition).copied()
    }

    /// The size of a disk, partition, physical or logical volume, thin pool (its data), filesystem or swap area.
    pub fn size(&self, id: &NodeId) -> Option<Bytes> {
        self.sizes.get(id).copied()
    }

    /// The size of a thin pool's metadata, where it is not the saved one.
    pub fn metadata_size(&self, pool: &NodeId) -> Option<Bytes> {
        self.metadata.get(pool).copied()
    }

    /// Whether a filesystem takes all of its device, which grew.
    pub fn fills(&self, filesystem: &NodeId) -> bool {
        self.fills.contains(filesystem)
    }

    /// Nodes that are not made, by choice.
    pub fn left_out(&self) -> &BTreeSet<NodeId> {
        &self.left_out
    }
}

/// The inputs of the pass.
struct Sizing<'a> {
    saved: &'a Layout,
    choices: &'a Choices,
    left_out: BTreeSet<NodeId>,
    /// Physical volumes on further disks, with the saved disk that gives up space to them.
    further: BTreeMap<&'a NodeId, &'a NodeId>,
    /// A saved disk that gives up space to further ones without end.
    endless: Option<&'a NodeId>,
}

/// Gives everything on the assigned disks its size.
///
/// That each disk takes its contents was found out when it was assigned ([`needed`]); what is refused here is a layout
/// that contradicts itself.
pub(super) fn fit(
    saved: &Layout,
    disks: &[DiskAssignment],
    choices: &Choices,
) -> Result<Fit, PlanError> {
    let sizing = Sizing::new(saved, choices);
    let mut fit = Fit {
        left_out: sizing.left_out.clone(),
        ..Fit::default()
    };
    for assigned in disks {
        if let Some(Node::Disk(disk)) = saved.nodes.get(&assigned.saved) {
            let size = assigned.identity.size;
            fit.sizes.insert(assigned.saved.clone(), size);
            sizing.partitions(&mut fit, &assigned.saved, disk, size)?;
        }
    }
    for id in in_order(saved) {
        match saved.nodes.get(id) {
            // Arrays keep their size: members are as big as they were, or bigger.
            Some(Node::RaidArray(array)) => {
                fit.sizes.insert(id.clone(), array.size);
            }
            Some(Node::Luks(luks)) => sizing.container(&mut fit, id, luks),
            Some(Node::Btrfs(fs)) => sizing.btrfs(&mut fit, id, fs)?,
            Some(Node::PhysicalVolume(pv)) => sizing.physical_volume(&mut fit, id, pv),
            Some(Node::VolumeGroup(vg)) => sizing.group(&mut fit, id, vg)?,
            Some(node) => sizing.content(&mut fit, id, node)?,
            None => {}
        }
    }
    Ok(fit)
}

/// The layout with the volumes of groups on one disk wherever LVM puts them, where a physical volume is smaller than saved;
/// `None`: there is no such group.
pub(super) fn loosened(saved: &Layout, fit: &Fit, choices: &Choices) -> Option<Layout> {
    let sizing = Sizing::new(saved, choices);
    let mut loose: Option<Layout> = None;
    for (id, node) in &saved.nodes {
        let Node::VolumeGroup(vg) = node else {
            continue;
        };
        let shrinks = |pv: &NodeId| match saved.nodes.get(pv) {
            Some(Node::PhysicalVolume(pv_saved)) => {
                fit.size(pv).is_some_and(|now| now < pv_saved.size)
            }
            _ => false,
        };
        if vg.on.len() > 1 && vg.on.iter().any(shrinks) && sizing.lies_anywhere(id, vg) {
            let layout = loose.get_or_insert_with(|| saved.clone());
            clear_places(layout, id, &vg.on.iter().cloned().collect());
        }
    }
    loose
}

/// Lets the volumes of a group that have their place on one of these physical volumes lie on any.
pub(super) fn clear_places(layout: &mut Layout, group: &NodeId, pvs: &BTreeSet<NodeId>) {
    for node in layout.nodes.values_mut() {
        let places: Vec<&mut Vec<NodeId>> = match node {
            Node::LogicalVolume(lv) if lv.on == *group => {
                let cache = lv.cache.as_mut().map(|cache| &mut cache.pvs);
                std::iter::once(&mut lv.pvs).chain(cache).collect()
            }
            Node::ThinPool(pool) if pool.on == *group => {
                vec![&mut pool.pvs, &mut pool.metadata_pvs]
            }
            _ => continue,
        };
        for place in places {
            if place.iter().any(|pv| pvs.contains(pv)) {
                place.clear();
            }
        }
    }
}

/// The nodes, each after what it lies on. What lies on itself is left out: the builder refuses it.
fn in_order(saved: &Layout) -> Vec<&NodeId> {
    let mut above: BTreeMap<NodeId, Vec<&NodeId>> = BTreeMap::new();
    let mut below: BTreeMap<&NodeId, usize> = BTreeMap::new();
    for (id, node) in &saved.nodes {
        let on: BTreeSet<NodeId> = node.on().into_iter().collect();
        below.insert(id, on.len());
        for on in on {
            above.entry(on).or_default().push(id);
        }
    }
    let bottom = below.iter().filter(|(_, count)| **count == 0);
    let mut order: Vec<&NodeId> = bottom.map(|(id, _)| *id).collect();
    let mut next = 0;
    while let Some(id) = order.get(next).copied() {
        next += 1;
        for above in above.get(id).into_iter().flatten() {
            if let Some(count) = below.get_mut(above) {
                *count -= 1;
                if *count == 0 {
                    order.push(above);
                }
            }
        }
    }
    order
}

/// The saved size of what can carry something.
pub(super) fn saved_size(saved: &Layout, id: &NodeId) -> Option<Bytes> {
    match saved.nodes.get(id)? {
        Node::Disk(disk) => Some(disk.size),
        Node::Partition(part) => Some(part.size()),
        Node::RaidArray(array) => Some(array.size),
        Node::Luks(luks) => Some(luks.size),
        Node::LogicalVolume(lv) => Some(lv.size),
        _ => None,
    }
}

/// The least size that a disk must have to take the saved contents.
pub(super) fn needed(
    saved: &Layout,
    id: &NodeId,
    disk: &Disk,
    choices: &Choices,
    squeeze: Squeeze,
) -> Bytes {
    Sizing::new(saved, choices).needed(id, disk, squeeze)
}

/// The same when a further disk, as big as one likes, takes a part of the volume group on it.
pub(super) fn needed_when_spread(
    saved: &Layout,
    id: &NodeId,
    disk: &Disk,
    choices: &Choices,
) -> Bytes {
    let sizing = Sizing {
        endless: Some(id),
        ..Sizing::new(saved, choices)
    };
    sizing.needed(id, disk, Squeeze::All)
}

/// See [`Sizing::further`].
fn further<'a>(saved: &'a Layout, choices: &'a Choices) -> BTreeMap<&'a NodeId, &'a NodeId> {
    let mut found = BTreeMap::new();
    for (disk, of) in &choices.further {
        for (part, _) in saved.partitions(disk) {
            let volumes = saved.children(part);
            let volumes = volumes.filter(|(_, node)| matches!(node, Node::PhysicalVolume(_)));
            found.extend(volumes.map(|(pv, _)| (pv, of)));
        }
    }
    found
}

impl<'a> Sizing<'a> {
    fn new(saved: &'a Layout, choices: &'a Choices) -> Sizing<'a> {
        Sizing {
            saved,
            choices,
            left_out: left_out(saved, choices),
            further: further(saved, choices),
            endless: None,
        }
    }

    /// A container takes what its device has more than saved. It never shrinks: a header may have a size of its own.
    fn container(&self, fit: &mut Fit, id: &NodeId, luks: &Luks) {
        let before = saved_size(self.saved, &luks.on);
        let size = match (before, fit.size(&luks.on)) {
            (Some(before), Some(now)) if now > before => {
                let unit = Bytes(luks.sector_size.0.into());
                now.minus(luks.data_offset).round_down(unit)
            }
            _ => luks.size,
        };
        fit.sizes.insert(id.clone(), size);
    }

    /// btrfs takes all of its devices. Over several of them nothing shrinks: that each has room for its copies is certain only
    /// with the saved sizes.
    fn btrfs(&self, fit: &mut Fit, id: &NodeId, fs: &Btrfs) -> Result<(), PlanError> {
        let mut all = Bytes(0);
        for on in &fs.on {
            let (saved, before) = (fs.size_on(on), saved_size(self.saved, on));
            let now = fit.size(on).or(before).unwrap_or(saved);
            let shrinks = fs.on.len() == 1 && before.is_some_and(|before| now < before);
            if now < saved && !shrinks {
                return Err(PlanError::Unsupported {
                    node: id.clone(),
                    reason: format!(
                        "it needs {saved}, and {on} has {now}: the saved layout is damaged"
                    ),
                });
            }
            all = all.plus(now.round_down(fs.sector_size));
        }
        fit.sizes.insert(id.clone(), all);
        Ok(())
    }

    /// The only thing on a device.
    fn only_child(&self, on: &NodeId) -> Option<(&'a NodeId, &'a Node)> {
        let mut children = self
            .saved
            .nodes
            .iter()
            .filter(|(_, node)| node.on().contains(on));
        match (children.next(), children.next()) {
            (Some(child), None) => Some(child),
            _ => None,
        }
    }

    /// The filesystem mounted at `/`.
    fn root(&self) -> Option<&'a NodeId> {
        self.saved.mount_at(Path::new("/")).map(|m| &m.node)
    }

    /// Filesystems and swap areas follow their devices.
    fn content(&self, fit: &mut Fit, id: &NodeId, node: &Node) -> Result<(), PlanError> {
        let on = match node {
            Node::Swap(swap) => &swap.on,
            other => match other.filesystem() {
                Some(fs) => fs.on,
                None => return Ok(()),
            },
        };
        let (Some(before), Some(now)) = (saved_size(self.saved, on), fit.size(on)) else {
            return Ok(());
        };
        if let Node::Swap(swap) = node {
            let size = swap.size.plus(now.minus(before)).minus(before.minus(now));
            fit.sizes.insert(id.clone(), size);
            return Ok(());
        }
        let Some(fs) = node.filesystem() else {
            return Ok(());
        };
        // Nothing was known about it when it was captured: it is made with defaults and takes what there is.
        if matches!(node, Node::Ext4(fs) if fs.block_size == Bytes(0)) {
            return Ok(());
        }
        if fs.size > before && fs.size > now {
            return Err(PlanError::Unsupported {
                node: id.clone(),
                reason: format!(
                    "it needs {}, and {on} has {now}: the saved layout is damaged",
                    fs.size
                ),
            });
        }
        let grows = now > before && self.choices.grow == Grow::Root && self.root() == Some(id);
        if grows {
            fit.fills.insert(id.clone());
            fit.sizes.insert(id.clone(), now);
        } else {
            let size = if now < fs.size {
                now.round_down(least::granule(node))
            } else {
                fs.size
            };
            fit.sizes.insert(id.clone(), size);
        }
        Ok(())
    }
}

/// The nodes that are not made, by choice: swap areas with what carries nothing else, and thin pools whose volumes all
/// belong to guests.
fn left_out(saved: &Layout, choices: &Choices) -> BTreeSet<NodeId> {
    let mut out = BTreeSet::new();
    for (id, node) in &saved.nodes {
        match node {
            Node::Swap(swap) if choices.leave_out.contains(&LeaveOut::Swap) => {
                out.insert(id.clone());
                let carrier = saved.nodes.get(&swap.on);
                let alone = saved.children(&swap.on).count() == 1;
                if alone && matches!(carrier, Some(Node::Partition(_) | Node::LogicalVolume(_))) {
                    out.insert(swap.on.clone());
                }
            }
            Node::ThinPool(_) if choices.leave_out.contains(&LeaveOut::GuestPool) => {
                let volumes: Vec<_> = saved.children(id).collect();
                let guests = volumes.iter().all(|(volume, node)| {
                    matches!(node, Node::ThinVolume(v) if is_guest_volume(&v.name))
                        && saved.children(volume).next().is_none()
                });
                if guests {
                    out.insert(id.clone());
                    out.extend(volumes.iter().map(|(volume, _)| (*volume).clone()));
                }
            }
            _ => {}
        }
    }
    out
}
