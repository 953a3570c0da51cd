//! Physical volumes, volume groups and what is in them.

use super::{Fit, STAGES, Sizing, Stage, saved_size};
use crate::model::{Node, NodeId, PhysicalVolume, Segments, ThinPool, VolumeGroup};
use crate::plan::{Grow, PlanError};
use crate::units::Bytes;

/// What a chunk of a thin pool takes of the pool's metadata (lvmthin(7): "64 * pool data size / chunk size").
const METADATA_PER_CHUNK: u64 = 64;

/// The biggest metadata that LVM makes (lvmthin(7)).
const METADATA_MOST: Bytes = Bytes(16 << 30);

impl Sizing<'_> {
    /// A physical volume follows its device.
    pub(super) fn physical_volume(&self, fit: &mut Fit, id: &NodeId, pv: &PhysicalVolume) {
        let (Some(before), Some(now)) = (saved_size(self.saved, &pv.on), fit.size(&pv.on)) else {
            return;
        };
        let extent = match self.saved.children(id).next() {
            Some((_, Node::VolumeGroup(vg))) => vg.extent_size,
            _ => return,
        };
        let room = now.minus(pv.pe_start).round_down(extent);
        let size = if now > before {
            pv.size.max(room)
        } else if now < before {
            pv.size.min(room)
        } else {
            pv.size
        };
        fit.sizes.insert(id.clone(), size);
    }

    /// The volumes of a group share what its physical volumes have more or less than saved.
    pub(super) fn group(
        &self,
        fit: &mut Fit,
        id: &NodeId,
        vg: &VolumeGroup,
    ) -> Result<(), PlanError> {
        let extent = vg.extent_size.0;
        if extent == 0 {
            return Ok(());
        }
        let mut volumes = Vec::new();
        for (volume, node) in self.saved.children(id) {
            let size = match node {
                Node::LogicalVolume(lv) => lv.size,
                Node::ThinPool(pool) => pool.size,
                _ => continue,
            };
            if !self.left_out.contains(volume) {
                fit.sizes.insert(volume.clone(), size);
                volumes.push((volume, node, size));
            }
        }
        let before = self.group_size(vg);
        let now = vg.on.iter().fold(Bytes(0), |sum, pv| {
            let saved = match self.saved.nodes.get(pv) {
                Some(Node::PhysicalVolume(pv)) => pv.size,
                _ => Bytes(0),
            };
            sum.plus(fit.size(pv).unwrap_or(saved))
        });
        if now >= before {
            self.grow_volume(fit, id, vg, now.minus(before));
            return Ok(());
        }
        let missing = before.minus(now).minus(self.group_free(id, vg));
        let mut missing = missing.0.div_ceil(extent);
        let slacks: Vec<[u64; STAGES]> = volumes
            .iter()
            .map(|(volume, node, _)| {
                self.volume_slack(volume, node, vg.extent_size)
                    .map(|bytes| bytes / extent)
            })
            .collect();
        let mut taken = vec![0u64; volumes.len()];
        for stage in Stage::Free as usize..STAGES {
            let here: Vec<u64> = slacks.iter().map(|slack| slack[stage]).collect();
            for (taken, part) in taken.iter_mut().zip(share(&mut missing, &here)) {
                *taken = taken.saturating_add(part);
            }
        }
        if missing > 0 {
            return Err(PlanError::Unsupported {
                node: id.clone(),
                reason: format!(
                    "its volumes need {} more than its physical volumes have on these disks: use bigger disks",
                    Bytes(missing.saturating_mul(extent))
                ),
            });
        }
        for ((volume, _, size), taken) in volumes.iter().zip(taken) {
            let less = Bytes(taken.saturating_mul(extent));
            if less > Bytes(0) {
                let rounded = size.round_up(vg.extent_size);
                fit.sizes.insert((*volume).clone(), rounded.minus(less));
            }
        }
        Ok(())
    }

    /// Gives the space of a bigger disk to where the choice says; with no such place it stays free in the group.
    fn grow_volume(&self, fit: &mut Fit, id: &NodeId, vg: &VolumeGroup, extra: Bytes) {
        if extra == Bytes(0) {
            return;
        }
        match self.choices.grow {
            Grow::Root => {
                let root = self.root().and_then(|root| self.saved.nodes.get(root));
                let on = root.map(Node::on).unwrap_or_default();
                for (volume, node) in self.saved.children(id) {
                    if let (Node::LogicalVolume(lv), true) = (node, on.contains(volume)) {
                        let room = room_to_grow(self, fit, vg, &lv.segments, &lv.pvs);
                        let extra = room.min(extra);
                        fit.sizes.insert(volume.clone(), lv.size.plus(extra));
                    }
                }
            }
            Grow::ThinPool => {
                if let Some((volume, pool)) = self.biggest_pool(id) {
                    let room = room_to_grow(self, fit, vg, &pool.segments, &pool.pvs);
                    let extra = room.min(extra);
                    let (size, metadata) = grown_pool(pool, vg.extent_size, extra);
                    fit.sizes.insert(volume.clone(), size);
                    if metadata != pool.metadata_size {
                        fit.metadata.insert(volume.clone(), metadata);
                    }
                }
            }
            Grow::Nothing | Grow::Untouched => {}
        }
    }

    /// The biggest thin pool of a group that is made.
    pub(super) fn biggest_pool(&self, vg: &NodeId) -> Option<(&NodeId, &ThinPool)> {
        self.saved
            .children(vg)
            .filter_map(|(id, node)| match node {
                Node::ThinPool(pool) if !self.left_out.contains(id) => Some((id, pool)),
                _ => None,
            })
            .max_by_key(|(id, pool)| (pool.size, std::cmp::Reverse(*id)))
    }
}

/// How much bigger a volume can get with its physical volumes; none given: with all of the group.
fn room_to_grow(
    sizing: &Sizing<'_>,
    fit: &Fit,
    vg: &VolumeGroup,
    segments: &Segments,
    pvs: &[NodeId],
) -> Bytes {
    let more = |id: &NodeId| match sizing.saved.nodes.get(id) {
        Some(Node::PhysicalVolume(pv)) if sizing.further.contains_key(id) => pv.size,
        Some(Node::PhysicalVolume(pv)) => fit.size(id).unwrap_or(pv.size).minus(pv.size),
        _ => Bytes(0),
    };
    let images = segments.images() as usize;
    let all = if pvs.is_empty() { &vg.on } else { pvs };
    match segments {
        Segments::Thin => Bytes(0),
        // Made linear, and then anywhere in the group.
        Segments::Mixed { .. } => vg.on.iter().map(more).fold(Bytes(0), Bytes::plus),
        _ if images > vg.on.len() => vg.on.iter().map(more).fold(Bytes(0), Bytes::plus),
        Segments::Linear => all.iter().map(more).fold(Bytes(0), Bytes::plus),
        _ if all.len() != images => Bytes(0),
        _ => {
            let least = all.iter().map(more).min().unwrap_or(Bytes(0));
            Bytes(least.0.saturating_mul(u64::from(segments.parts())))
        }
    }
}

/// Sizes of data and metadata of a pool that gets `extra`, in whole extents. The metadata grow where the bigger pool needs
/// more, and what the group keeps in reserve for them grows with them.
fn grown_pool(pool: &ThinPool, extent: Bytes, extra: Bytes) -> (Bytes, Bytes) {
    let full = pool.size.plus(extra);
    let chunks = full.0 / pool.chunk_size.0.max(1);
    let metadata = Bytes(chunks.saturating_mul(METADATA_PER_CHUNK))
        .round_up(extent)
        .min(METADATA_MOST)
        .max(pool.metadata_size);
    let more = metadata.minus(pool.metadata_size);
    let cost = if pool.spare { more.plus(more) } else { more };
    let cost = cost.round_up(extent);
    if cost >= extra {
        return (full, pool.metadata_size);
    }
    (full.minus(cost), metadata)
}

/// Takes `missing` from `slacks` in proportion, exactly where they have enough; what is still missing stays in it.
fn share(missing: &mut u64, slacks: &[u64]) -> Vec<u64> {
    let all: u128 = slacks.iter().map(|s| u128::from(*s)).sum();
    let wanted = u128::from(*missing).min(all);
    let mut taken: Vec<u64> = slacks
        .iter()
        .map(|slack| {
            let part = wanted * u128::from(*slack) / all.max(1);
            u64::try_from(part).unwrap_or(*slack)
        })
        .collect();
    // What rounding left over, at most one extent each.
    let mut rest = wanted - taken.iter().map(|t| u128::from(*t)).sum::<u128>();
    for (taken, slack) in taken.iter_mut().zip(slacks) {
        if rest > 0 && *taken < *slack {
            *taken += 1;
            rest -= 1;
        }
    }
    *missing -= u64::try_from(wanted).unwrap_or(*missing);
    taken
}
