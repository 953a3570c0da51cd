//! Whether the volumes of a group fit on its physical volumes, one beside the other as `lvcreate` will put them.

use std::collections::BTreeMap;

use super::PlanError;
use super::build::Builder;
use crate::capture::lvm::is_guest_volume;
use crate::model::{Cache, Node, NodeId, Segments, VolumeGroup};
use crate::units::Bytes;

/// Room that a volume takes.
#[derive(Debug, Clone, PartialEq)]
struct Demand {
    what: String,
    /// On how many physical volumes at the same time.
    images: usize,
    /// Extents on each.
    extents: u64,
    /// The physical volumes; empty: any.
    pvs: Vec<NodeId>,
}

/// Takes the room of `demand` from what is free. As LVM does, image beside image, in several pieces if need be.
fn take(free: &mut BTreeMap<NodeId, u64>, demand: &Demand) -> bool {
    let mut need = demand.extents;
    while need > 0 {
        let mut candidates: Vec<(u64, NodeId)> = free
            .iter()
            .filter(|(id, _)| demand.pvs.is_empty() || demand.pvs.contains(id))
            .map(|(id, extents)| (*extents, id.clone()))
            .collect();
        candidates.sort_by(|a, b| b.cmp(a));
        candidates.truncate(demand.images);
        let piece = match candidates.last() {
            Some((least, _)) if candidates.len() == demand.images => need.min(*least),
            _ => 0,
        };
        if piece == 0 {
            return false;
        }
        for (_, id) in &candidates {
            if let Some(left) = free.get_mut(id) {
                *left = left.saturating_sub(piece);
            }
        }
        need -= piece;
    }
    true
}

/// What a volume of this size takes.
fn demand(what: &str, size: Bytes, segments: &Segments, pvs: &[NodeId], extent: Bytes) -> Demand {
    let parts = u64::from(segments.parts());
    let metadata = match segments {
        // Each image has a superblock and bitmap of its own.
        Segments::Raid { level, .. } if level != "raid0" => 1,
        _ => 0,
    };
    let data = size.0.div_ceil(extent.0.max(1)).div_ceil(parts);
    Demand {
        what: what.to_owned(),
        images: segments.images().max(1) as usize,
        extents: data.saturating_add(metadata),
        pvs: pvs.to_vec(),
    }
}

/// Whether this version knows how to make such a cache, and its physical volumes are there.
pub(super) fn can_be_made(cache: &Cache, vg: &VolumeGroup) -> bool {
    let known = match cache.kind.as_str() {
        "cache" => ["writethrough", "writeback", "passthrough"].contains(&cache.mode.as_str()),
        "writecache" => !cache.pool,
        _ => false,
    };
    known && cache.size > Bytes(0) && cache.pvs.iter().all(|pv| vg.on.contains(pv))
}

impl Builder<'_> {
    /// How a volume is made: as saved, or linear with the reason why.
    pub(super) fn made_as(
        &self,
        id: &NodeId,
        segments: &Segments,
        vg: &VolumeGroup,
    ) -> Result<(Segments, Option<String>), PlanError> {
        let damaged = |reason: String| PlanError::Unsupported {
            node: id.clone(),
            reason: format!("{reason}: the saved layout is damaged"),
        };
        let images = segments.images();
        match segments {
            Segments::Linear | Segments::Thin => return Ok((segments.clone(), None)),
            Segments::Mixed { .. } => {
                return Ok((
                    Segments::Linear,
                    Some(format!("it consisted of {segments}, and is made linear")),
                ));
            }
            Segments::Raid { level, .. }
                if !crate::capture::segments::RAID_LEVELS.contains(&level.as_str()) =>
            {
                return Err(damaged(format!("there is no RAID called {level}")));
            }
            Segments::Mirror { log, .. } if !matches!(log.as_str(), "core" | "disk") => {
                return Err(damaged(format!("there is no mirror log called {log}")));
            }
            _ => {}
        }
        let divides = match segments {
            Segments::Raid { images, copies, .. } => *copies > 0 && images % copies == 0,
            _ => true,
        };
        // LVM's limit for stripes (lvm2: lib/config/defaults.h); that for RAID is lower.
        if !(2..=128).contains(&images) || !divides {
            return Err(damaged(format!("a volume cannot be {segments}")));
        }
        if images as usize > vg.on.len() {
            let reason = format!(
                "it was {segments}, the group has {} physical volume{} only: it is made linear, so that a disk that fails \
                 takes it along",
                vg.on.len(),
                if vg.on.len() == 1 { "" } else { "s" }
            );
            return Ok((Segments::Linear, Some(reason)));
        }
        Ok((segments.clone(), None))
    }

    /// Refuses a group whose volumes do not fit on its physical volumes.
    pub(super) fn must_fit_in_group(&self, id: &NodeId, vg: &VolumeGroup) -> Result<(), PlanError> {
        let mut free: BTreeMap<NodeId, u64> = BTreeMap::new();
        for pv in &vg.on {
            free.insert(pv.clone(), self.pv_size(pv).0 / vg.extent_size.0.max(1));
        }
        let mut demands = self.demands(id, vg)?;
        // Those with a place of their own are made first.
        demands.sort_by_key(|demand| demand.pvs.is_empty());
        for demand in &demands {
            if !take(&mut free, demand) {
                let left: u64 = free.values().fold(0, |sum, n| sum.saturating_add(*n));
                let reason = format!(
                    "{} needs {} extents of {} on {} physical volume{}, and {left} are left: the group lacks a physical \
                     volume, or the saved layout is damaged",
                    demand.what,
                    demand.extents,
                    vg.extent_size,
                    demand.images,
                    if demand.images == 1 { "" } else { "s each" }
                );
                return Err(PlanError::Unsupported {
                    node: id.clone(),
                    reason,
                });
            }
        }
        Ok(())
    }

    fn demands(&self, id: &NodeId, vg: &VolumeGroup) -> Result<Vec<Demand>, PlanError> {
        let extent = vg.extent_size;
        let mut demands = Vec::new();
        let mut spare = Bytes(0);
        for (volume, node) in self.saved.children(id) {
            if !self.relevant.contains(volume) {
                continue;
            }
            let size = |saved: Bytes| self.fit.size(volume).unwrap_or(saved);
            let mut add = |what: &str, size: Bytes, segments: &Segments, pvs: &[NodeId]| {
                let (made, substituted) = self.made_as(volume, segments, vg)?;
                self.places(volume, vg, pvs)?;
                let pvs: &[NodeId] = if substituted.is_some() { &[] } else { pvs };
                demands.push(demand(what, size, &made, pvs, extent));
                Ok::<(), PlanError>(())
            };
            match node {
                Node::LogicalVolume(lv) if !is_guest_volume(&lv.name) => {
                    add(&lv.name, size(lv.size), &lv.segments, &lv.pvs)?;
                    // Otherwise it is made without.
                    let cache = lv.cache.as_ref().filter(|c| can_be_made(c, vg));
                    if let Some(cache) = cache {
                        let size = cache.size.plus(cache.metadata_size);
                        add(&cache.name, size, &Segments::Linear, &cache.pvs)?;
                        spare = spare.max(cache.metadata_size);
                    }
                }
                Node::ThinPool(pool) => {
                    add(&pool.name, size(pool.size), &pool.segments, &pool.pvs)?;
                    let metadata = format!("the metadata of {}", pool.name);
                    let segments = &pool.metadata_segments;
                    let saved = pool.metadata_size;
                    let metadata_size = self.fit.metadata_size(volume).unwrap_or(saved);
                    add(&metadata, metadata_size, segments, &pool.metadata_pvs)?;
                    if pool.spare {
                        spare = spare.max(metadata_size);
                    }
                }
                _ => {}
            }
        }
        if spare > Bytes(0) {
            let linear = Segments::Linear;
            demands.push(demand(
                "the spare metadata volume",
                spare,
                &linear,
                &[],
                extent,
            ));
        }
        Ok(demands)
    }

    /// What a physical volume will have for extents.
    fn pv_size(&self, id: &NodeId) -> Bytes {
        match self.saved.nodes.get(id) {
            Some(Node::PhysicalVolume(pv)) => self.fit.size(id).unwrap_or(pv.size),
            _ => Bytes(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(extents: &[u64]) -> BTreeMap<NodeId, u64> {
        let ids = ["a", "b", "c"].map(NodeId::from);
        ids.into_iter().zip(extents.iter().copied()).collect()
    }

    fn wants(images: usize, extents: u64, pvs: &[&str]) -> Demand {
        Demand {
            what: "x".to_owned(),
            images,
            extents,
            pvs: pvs.iter().map(|id| NodeId::from(*id)).collect(),
        }
    }

    #[test]
    fn images_lie_on_different_physical_volumes() {
        assert!(take(&mut free(&[10, 10]), &wants(2, 10, &[])));
        assert!(!take(&mut free(&[20, 5]), &wants(2, 10, &[])));
        assert!(!take(&mut free(&[20]), &wants(2, 5, &[])));
        // In two pieces: on a and b, then on a and c.
        assert!(take(&mut free(&[10, 5, 5]), &wants(2, 10, &[])));
        assert!(take(&mut free(&[3, 4, 5]), &wants(1, 12, &[])));
        assert!(!take(&mut free(&[3, 4, 5]), &wants(1, 13, &[])));
    }

    #[test]
    fn what_has_its_place_takes_no_other() {
        assert!(!take(&mut free(&[10, 10]), &wants(1, 11, &["a"])));
        let mut left = free(&[10, 10]);
        assert!(take(&mut left, &wants(1, 10, &["b"])));
        assert_eq!(left, free(&[10, 0]));
    }

    #[test]
    fn parity_and_copies_take_room() {
        let raid = |level: &str, images, copies| Segments::Raid {
            level: level.to_owned(),
            images,
            copies,
            stripe_size: Bytes(65536),
            region_size: Bytes::MIB,
        };
        let mib = |n| Bytes::mib(n);
        for (segments, images, extents) in [
            (Segments::Linear, 1, 24),
            (raid("raid1", 2, 2), 2, 25),
            (raid("raid5_la", 3, 1), 3, 13),
            (raid("raid6", 5, 1), 5, 9),
            (raid("raid10", 4, 2), 4, 13),
            (raid("raid0", 2, 1), 2, 12),
        ] {
            let found = demand("x", mib(96), &segments, &[], mib(4));
            assert_eq!(
                (found.images, found.extents),
                (images, extents),
                "{segments}"
            );
        }
    }
}
