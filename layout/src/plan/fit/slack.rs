//! How much everything can give up.

use super::{STAGES, Sizing, Slack, Stage, least};
use crate::capture::lvm::is_guest_volume;
use crate::model::{Node, NodeId, PhysicalVolume, ThinPool, VolumeGroup, types};
use crate::units::Bytes;

/// All of it.
pub(super) fn total(slack: &Slack) -> u64 {
    slack.iter().fold(0, |sum, part| sum.saturating_add(*part))
}

/// The same slack, `all` in total: what rounding takes or leaves is free space.
pub(super) fn exactly(slack: &Slack, all: u64) -> Slack {
    let mut left = all;
    let mut out = [0; STAGES];
    for (out, part) in out.iter_mut().zip(slack).skip(1) {
        *out = left.min(*part);
        left -= *out;
    }
    out[Stage::Free as usize] = left;
    out
}

/// Slack at one stage only.
pub(super) fn at(stage: Stage, bytes: Bytes) -> Slack {
    let mut slack = [0; STAGES];
    slack[stage as usize] = bytes.0;
    slack
}

/// No more than `most` in total, the first stages first.
fn at_most(slack: Slack, most: Bytes) -> Slack {
    let mut left = most.0;
    slack.map(|part| {
        let part = part.min(left);
        left -= part;
        part
    })
}

fn add(to: &mut Slack, other: &Slack) {
    for (sum, part) in to.iter_mut().zip(other) {
        *sum = sum.saturating_add(*part);
    }
}

impl Sizing<'_> {
    /// What a device of `size` (a partition, volume or disk) can give up, in bytes. Devices with an image, with nothing
    /// or with something unknown on them give up nothing.
    pub(super) fn device_slack(&self, id: &NodeId, size: Bytes) -> Slack {
        let Some((child, node)) = self.only_child(id) else {
            return [0; STAGES];
        };
        match node {
            Node::PhysicalVolume(_) if self.further.contains_key(child) => [0; STAGES],
            Node::PhysicalVolume(pv) => {
                let mut slack = self.physical_slack(child, pv);
                // The tail that is too short for another extent.
                let tail = size.minus(pv.pe_start.plus(pv.size));
                add(&mut slack, &at(Stage::Free, tail));
                slack
            }
            Node::Swap(_) => at(Stage::Swap, size.minus(least::swap(size))),
            Node::ZfsMember(member) => at(
                Stage::Filesystem,
                size.minus(least::zfs_member(member, size)),
            ),
            _ => {
                let Some(fs) = node.filesystem() else {
                    return [0; STAGES];
                };
                let Some(least) = least::filesystem(node) else {
                    return at(Stage::Free, size.minus(fs.size));
                };
                let esp = matches!(self.saved.nodes.get(id), Some(Node::Partition(p)) if p.type_guid == types::ESP);
                let stage = if esp { Stage::Esp } else { Stage::Filesystem };
                let mut slack = at(stage, fs.size.minus(least));
                add(&mut slack, &at(Stage::Free, size.minus(fs.size)));
                slack
            }
        }
    }

    /// What a physical volume can give up: what its group can, when the group lies on nothing else, or its share of it beside
    /// others on the same disk. Over several disks the extents of a volume may be bound to one of them (stripes, mirrors):
    /// then sizes stay. What further disks have is given up here.
    fn physical_slack(&self, pv: &NodeId, volume: &PhysicalVolume) -> Slack {
        let Some((id, Node::VolumeGroup(vg))) = self.only_child(pv) else {
            return [0; STAGES];
        };
        let mut own = vg.on.iter().filter(|pv| !self.further.contains_key(pv));
        let slack = match (own.next(), own.next()) {
            (Some(_), None) => self.group_slack(id, vg),
            _ if self.lies_anywhere(id, vg) => {
                let all = u128::from(self.group_size(vg).0).max(1);
                let share = self.group_slack(id, vg).map(|part| {
                    let share = u128::from(part) * u128::from(volume.size.0) / all;
                    let share = u64::try_from(share).unwrap_or(part);
                    Bytes(share).round_down(vg.extent_size).0
                });
                at_most(share, volume.size.minus(vg.extent_size))
            }
            _ => [0; STAGES],
        };
        let elsewhere = self.room_elsewhere(pv, volume, vg);
        if elsewhere == Bytes(0) {
            return slack;
        }
        let mut all = at(Stage::Free, elsewhere);
        add(&mut all, &slack);
        at_most(all, volume.size.minus(vg.extent_size))
    }

    /// Whether all of a group lies on one disk, in volumes that are not bound to physical volumes by their kind: in which of
    /// its partitions they are is of no matter.
    pub(super) fn lies_anywhere(&self, id: &NodeId, vg: &VolumeGroup) -> bool {
        let own = vg.on.iter().filter(|pv| !self.further.contains_key(pv));
        let mut disks = own.map(|pv| self.saved.disks_below(pv));
        let first = disks.next().unwrap_or_default();
        first.len() == 1
            && disks.all(|below| below == first)
            && self.saved.children(id).all(|(_, node)| match node {
                Node::LogicalVolume(lv) => lv.segments.images() == 1 && lv.cache.is_none(),
                Node::ThinPool(pool) => {
                    pool.segments.images() == 1 && pool.metadata_segments.images() == 1
                }
                _ => true,
            })
    }

    /// What the further disks for the one below a physical volume have, as far as it is this one's to give up.
    fn room_elsewhere(&self, id: &NodeId, volume: &PhysicalVolume, vg: &VolumeGroup) -> Bytes {
        let below = self.saved.disks_below(id);
        if self.endless.is_some_and(|disk| below.contains(disk)) {
            return volume.size;
        }
        let size = |pv: &NodeId| match self.saved.nodes.get(pv) {
            Some(Node::PhysicalVolume(pv)) => u128::from(pv.size.0),
            _ => 0,
        };
        let (mut room, mut beside) = (0u128, 0u128);
        for pv in &vg.on {
            match self.further.get(pv) {
                Some(of) if below.contains(of) => room += size(pv),
                None if self.saved.disks_below(pv) == below => beside += size(pv),
                _ => {}
            }
        }
        // Of several on one disk each gives up its share.
        let share = room * u128::from(volume.size.0) / beside.max(1);
        Bytes(u64::try_from(share).unwrap_or(u64::MAX)).round_down(vg.extent_size)
    }

    /// What a volume group can give up, in bytes.
    fn group_slack(&self, id: &NodeId, vg: &VolumeGroup) -> Slack {
        let mut slack = at(Stage::Free, self.group_free(id, vg));
        for (volume, node) in self.saved.children(id) {
            add(&mut slack, &self.volume_slack(volume, node, vg.extent_size));
        }
        slack
    }

    /// What a volume of a group can give up, in whole extents. Volumes of guests, and what is not known, nothing.
    pub(super) fn volume_slack(&self, id: &NodeId, node: &Node, extent: Bytes) -> Slack {
        if self.left_out.contains(id) {
            return [0; STAGES];
        }
        let (size, slack) = match node {
            Node::LogicalVolume(lv) if !is_guest_volume(&lv.name) => {
                (lv.size, self.device_slack(id, lv.size))
            }
            Node::ThinPool(pool) => {
                let slack = pool.size.minus(least::pool(pool));
                (pool.size, at(Stage::Pool, slack))
            }
            _ => return [0; STAGES],
        };
        let least = Bytes(size.0.saturating_sub(total(&slack))).max(Bytes(1));
        exactly(&slack, size.minus(least.round_up(extent)).0)
    }

    /// What no volume of the group needs: its free space, and what is left out by choice.
    pub(super) fn group_free(&self, id: &NodeId, vg: &VolumeGroup) -> Bytes {
        let all = self.volumes_need(id, vg, true);
        let kept = self.volumes_need(id, vg, false);
        let free = vg.free.min(self.group_size(vg).minus(all));
        free.plus(all.minus(kept)).round_down(vg.extent_size)
    }

    /// The saved size of all physical volumes of a group; further ones had none.
    pub(super) fn group_size(&self, vg: &VolumeGroup) -> Bytes {
        vg.on
            .iter()
            .filter(|pv| !self.further.contains_key(pv))
            .fold(Bytes(0), |sum, pv| match self.saved.nodes.get(pv) {
                Some(Node::PhysicalVolume(pv)) => sum.plus(pv.size),
                _ => sum,
            })
    }

    /// What the volumes of a group take, volumes of guests included: their room stays for them.
    fn volumes_need(&self, id: &NodeId, vg: &VolumeGroup, with_left_out: bool) -> Bytes {
        let counts = |volume: &NodeId| with_left_out || !self.left_out.contains(volume);
        let mut sum = Bytes(0);
        let mut spare = Bytes(0);
        for (_, node) in self.saved.children(id).filter(|(v, _)| counts(v)) {
            match node {
                Node::LogicalVolume(lv) => sum = sum.plus(lv.size.round_up(vg.extent_size)),
                Node::ThinPool(pool) => {
                    sum = sum.plus(pool.size.round_up(vg.extent_size));
                    sum = sum.plus(pool.metadata_size.round_up(vg.extent_size));
                    spare = spare.max(spare_of(pool).round_up(vg.extent_size));
                }
                _ => {}
            }
        }
        sum.plus(spare)
    }
}

/// The metadata that a group keeps in reserve for a pool: one for all, as big as the biggest.
fn spare_of(pool: &ThinPool) -> Bytes {
    if pool.spare {
        pool.metadata_size
    } else {
        Bytes(0)
    }
}
