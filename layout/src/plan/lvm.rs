//! LVM: physical volumes, groups, volumes, thin pools.

use std::path::PathBuf;

use super::allocation::can_be_made;
use super::build::Builder;
use super::{PlanError, PlannedPv, Step};
use crate::capture::lvm::is_guest_volume;
use crate::capture::volumes::lv_path;
use crate::model::{
    Cache, GroupSettings, LogicalVolume, Node, NodeId, PhysicalVolume, Segments, ThinPool,
    VolumeGroup,
};
use crate::units::Bytes;

impl Builder<'_> {
    pub(super) fn physical_volume(
        &mut self,
        id: &NodeId,
        pv: &PhysicalVolume,
    ) -> Result<(), PlanError> {
        let device = self.device(id, &pv.on)?;
        self.devices.insert(id.clone(), device.clone());
        if self.fit.size(id).is_some_and(|size| size != pv.size) {
            self.accept(id, "size", "the physical volume follows its device");
        }
        self.steps.push(Step::PvCreate {
            device,
            uuid: pv.uuid.clone(),
            pe_start: pv.pe_start,
        });
        Ok(())
    }

    pub(super) fn volume_group(&mut self, id: &NodeId, vg: &VolumeGroup) -> Result<(), PlanError> {
        if vg.extent_size == Bytes(0) {
            return Err(PlanError::Unsupported {
                node: id.clone(),
                reason: "its extent size is not known".to_owned(),
            });
        }
        self.must_fit_in_group(id, vg)?;
        let devices = self.devices_of(id, &vg.on)?;
        self.accept(id, "uuid", "LVM gives a new volume group a new UUID");
        self.accept(
            id,
            "free",
            "free space follows the size of the physical volumes",
        );
        self.steps.push(Step::VgCreate {
            name: vg.name.clone(),
            devices,
            extent_size: vg.extent_size,
            tags: vg.tags.clone(),
        });
        Ok(())
    }

    fn devices_of(&self, id: &NodeId, pvs: &[NodeId]) -> Result<Vec<PathBuf>, PlanError> {
        pvs.iter().map(|pv| self.device(id, pv)).collect()
    }

    /// The physical volumes that are given to `lvcreate`; those of another group are refused.
    pub(super) fn places(
        &self,
        id: &NodeId,
        vg: &VolumeGroup,
        pvs: &[NodeId],
    ) -> Result<Vec<PathBuf>, PlanError> {
        match pvs.iter().find(|pv| !vg.on.contains(pv)) {
            Some(pv) => Err(PlanError::Unsupported {
                node: id.clone(),
                reason: format!(
                    "it lies on {pv}, which is not in group {}: the saved layout is damaged",
                    vg.name
                ),
            }),
            None => self.devices_of(id, pvs),
        }
    }

    /// How a volume is made. A substitution is said, and accepted.
    fn segments(
        &mut self,
        id: &NodeId,
        vg: &VolumeGroup,
        (what, segments, pvs): (&str, &Segments, &[NodeId]),
        (segments_name, pvs_name): (&str, &str),
    ) -> Result<(Segments, Vec<PathBuf>), PlanError> {
        let (made, substituted) = self.made_as(id, segments, vg)?;
        if let Some(reason) = substituted {
            self.notes.push(format!("{what}: {reason}."));
            self.accept(id, segments_name, "it is made linear, as the plan said");
            self.accept(id, pvs_name, "LVM chooses the physical volumes");
            return Ok((made, Vec::new()));
        }
        if pvs.is_empty() || matches!(segments, Segments::Mirror { .. }) {
            self.accept(id, pvs_name, "LVM chooses the physical volumes");
        }
        let places = self.places(id, vg, pvs)?;
        Ok((made, places))
    }

    pub(super) fn logical_volume(
        &mut self,
        id: &NodeId,
        lv: &LogicalVolume,
    ) -> Result<(), PlanError> {
        self.accept(id, "uuid", "LVM gives a new volume a new UUID");
        if is_guest_volume(&lv.name) {
            self.accept(id, "*", "volumes of guests come back with the guests");
            return Ok(());
        }
        let vg = self.group(id, &lv.on)?;
        let what = format!("Logical volume {}/{}", vg.name, lv.name);
        let (segments, pvs) =
            self.segments(id, &vg, (&what, &lv.segments, &lv.pvs), ("segments", "pvs"))?;
        let size = self.fit.size(id).unwrap_or(lv.size);
        self.whole_extents(id, &vg, size, &segments)?;
        let change = format!("logical volume {}/{}", vg.name, lv.name);
        self.resized(id, change, lv.size, size, &["size"]);
        self.devices.insert(id.clone(), lv_path(&vg.name, &lv.name));
        if let Some(cache) = &lv.cache {
            // Made in its place before others take that, and attached when the data is there.
            self.cache(id, &vg, lv, cache)?;
        }
        self.steps.push(Step::LvCreate {
            vg: vg.name.clone(),
            name: lv.name.clone(),
            size,
            writeable: lv.writeable,
            tags: lv.tags.clone(),
            pool: self.pool_of(id, lv)?,
            segments,
            pvs,
            settings: lv.settings.clone(),
        });
        Ok(())
    }

    /// LVM rounds a size up to whole extents on each image, and the result would not be as planned.
    fn whole_extents(
        &self,
        id: &NodeId,
        vg: &VolumeGroup,
        size: Bytes,
        segments: &Segments,
    ) -> Result<(), PlanError> {
        let unit = vg.extent_size.0.saturating_mul(u64::from(segments.parts()));
        if size.0 == 0 || size.0 % unit.max(1) != 0 {
            return Err(PlanError::Unsupported {
                node: id.clone(),
                reason: format!(
                    "its size of {} bytes is not made of extents of {} on each of its images: the saved layout is damaged",
                    size.0, vg.extent_size
                ),
            });
        }
        Ok(())
    }

    pub(super) fn thin_pool(&mut self, id: &NodeId, pool: &ThinPool) -> Result<(), PlanError> {
        let vg = self.group(id, &pool.on)?;
        self.accept(id, "uuid", "LVM gives a new volume a new UUID");
        let size = self.fit.size(id).unwrap_or(pool.size);
        let what = format!("thin pool {}/{}", vg.name, pool.name);
        self.resized(id, what, pool.size, size, &["size"]);
        let metadata_size = self.fit.metadata_size(id).unwrap_or(pool.metadata_size);
        let what = format!("metadata of thin pool {}/{}", vg.name, pool.name);
        let properties = ["metadata_size"];
        self.resized(id, what, pool.metadata_size, metadata_size, &properties);
        let what = format!("Thin pool {}/{}", vg.name, pool.name);
        let (segments, pvs) = self.segments(
            id,
            &vg,
            (&what, &pool.segments, &pool.pvs),
            ("segments", "pvs"),
        )?;
        self.whole_extents(id, &vg, size, &segments)?;
        let what = format!("The metadata of thin pool {}/{}", vg.name, pool.name);
        let (metadata_segments, metadata_pvs) = self.segments(
            id,
            &vg,
            (&what, &pool.metadata_segments, &pool.metadata_pvs),
            ("metadata_segments", "metadata_pvs"),
        )?;
        self.whole_extents(id, &vg, metadata_size, &metadata_segments)?;
        self.steps.push(Step::ThinPoolCreate {
            vg: vg.name,
            name: pool.name.clone(),
            size,
            chunk_size: pool.chunk_size,
            metadata_size,
            zero: pool.zero,
            discards: pool.discards.clone(),
            spare: pool.spare,
            tags: pool.tags.clone(),
            error_when_full: pool.error_when_full,
            segments,
            metadata_segments,
            pvs,
            metadata_pvs,
            settings: pool.settings.clone(),
        });
        let volumes: Vec<NodeId> = self
            .saved
            .children(id)
            .filter(|(_, node)| matches!(node, Node::ThinVolume(_)))
            .map(|(volume, _)| volume.clone())
            .collect();
        for volume in volumes {
            self.accept(&volume, "*", "volumes of guests come back with the guests");
        }
        Ok(())
    }

    /// The name of the pool of a thin volume.
    fn pool_of(&self, id: &NodeId, lv: &LogicalVolume) -> Result<Option<String>, PlanError> {
        match (self.saved.nodes.get(&lv.on), &lv.segments) {
            (Some(Node::ThinPool(pool)), Segments::Thin) => Ok(Some(pool.name.clone())),
            (Some(Node::VolumeGroup(_)), other) if *other != Segments::Thin => Ok(None),
            _ => Err(PlanError::Unsupported {
                node: id.clone(),
                reason: format!("it is not on {}: the saved layout is damaged", lv.on),
            }),
        }
    }

    /// The group that a volume is in, its own or that of its pool.
    fn group(&self, id: &NodeId, on: &NodeId) -> Result<VolumeGroup, PlanError> {
        match self.saved.nodes.get(on) {
            Some(Node::VolumeGroup(vg)) => Ok(vg.clone()),
            Some(Node::ThinPool(pool)) if pool.on != *on => match self.saved.nodes.get(&pool.on) {
                Some(Node::VolumeGroup(vg)) => Ok(vg.clone()),
                _ => Err(PlanError::Unsupported {
                    node: id.clone(),
                    reason: format!("{} is no volume group", pool.on),
                }),
            },
            _ => Err(PlanError::Unsupported {
                node: id.clone(),
                reason: format!("{on} is no volume group"),
            }),
        }
    }

    /// What comes last in a group, when nothing is mounted any more: caches, and settings that would have been in the way.
    pub(super) fn finish_groups(&mut self) -> Result<(), PlanError> {
        let saved = self.saved;
        let redundant = |segments: &Segments| match segments {
            Segments::Raid { level, .. } => !level.starts_with("raid0"),
            Segments::Mirror { .. } => true,
            _ => false,
        };
        let raid = self.steps.iter().any(|step| match step {
            Step::LvCreate { segments, .. } => redundant(segments),
            Step::ThinPoolCreate {
                segments,
                metadata_segments,
                ..
            } => redundant(segments) || redundant(metadata_segments),
            _ => false,
        });
        if raid {
            self.notes.push(
                "LVM's RAID volumes are synchronised in the background, and further after the restart: until that is done, \
                 a disk that fails may take data along. `lvs -a -o name,sync_percent` shows how far it is."
                    .to_owned(),
            );
        }
        let relevant: Vec<NodeId> = self.relevant.iter().cloned().collect();
        for id in &relevant {
            let Some(Node::LogicalVolume(lv)) = saved.nodes.get(id) else {
                continue;
            };
            let Some(cache) = &lv.cache else { continue };
            let vg = self.group(id, &lv.on)?.name;
            let is_made = |step: &Step| matches!(step, Step::CacheCreate { vg: of, cache: made, .. } if *of == vg && made == cache);
            if self.steps.iter().any(is_made) {
                self.steps.push(Step::CacheAttach {
                    vg,
                    volume: lv.name.clone(),
                    cache: cache.clone(),
                });
            }
        }
        for id in &relevant {
            if let Some(Node::VolumeGroup(vg)) = saved.nodes.get(id) {
                self.group_settings(id, vg)?;
            }
        }
        Ok(())
    }

    fn cache(
        &mut self,
        id: &NodeId,
        vg: &VolumeGroup,
        lv: &LogicalVolume,
        cache: &Cache,
    ) -> Result<(), PlanError> {
        if !can_be_made(cache, vg) {
            self.notes.push(format!(
                "Logical volume {}/{} is made without its cache {}: attach one with lvconvert.",
                vg.name, lv.name, cache.name
            ));
            self.accept(id, "cache", "it is made without a cache, as the plan said");
            return Ok(());
        }
        if cache.pvs.is_empty() {
            self.accept(id, "cache.pvs", "LVM chooses the physical volumes");
        }
        let pvs = self.places(id, vg, &cache.pvs)?;
        self.notes.push(format!(
            "The cache {} of logical volume {}/{} is made again and is empty at first.",
            cache.name, vg.name, lv.name
        ));
        self.steps.push(Step::CacheCreate {
            vg: vg.name.clone(),
            cache: cache.clone(),
            pvs,
        });
        Ok(())
    }

    fn group_settings(&mut self, id: &NodeId, vg: &VolumeGroup) -> Result<(), PlanError> {
        let mut pvs = Vec::new();
        for pv_id in &vg.on {
            if let Some(Node::PhysicalVolume(pv)) = self.saved.nodes.get(pv_id) {
                if !pv.tags.is_empty() || !pv.allocatable {
                    pvs.push(PlannedPv {
                        device: self.device(id, pv_id)?,
                        tags: pv.tags.clone(),
                        allocatable: pv.allocatable,
                    });
                }
            }
        }
        if !pvs.is_empty() || vg.settings != GroupSettings::default() {
            self.steps.push(Step::VgSettings {
                name: vg.name.clone(),
                settings: vg.settings.clone(),
                pvs,
            });
        }
        Ok(())
    }
}
