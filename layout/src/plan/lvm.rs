//! LVM: physical volumes, groups, volumes, thin pools.

use super::build::Builder;
use super::{Grow, PlanError, SizeChange, Step};
use crate::capture::lvm::is_guest_volume;
use crate::capture::volumes::lv_path;
use crate::model::{LogicalVolume, Node, NodeId, PhysicalVolume, ThinPool, VolumeGroup};
use crate::units::Bytes;

impl Builder<'_> {
    pub(super) fn physical_volume(
        &mut self,
        id: &NodeId,
        pv: &PhysicalVolume,
    ) -> Result<(), PlanError> {
        let device = self.device(id, &pv.on)?;
        self.devices.insert(id.clone(), device.clone());
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
        let mut devices = Vec::new();
        for pv in &vg.on {
            devices.push(self.device(id, pv)?);
        }
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

    /// How much more room the group's grown physical volumes have, in whole extents.
    fn extra(&mut self, vg: &VolumeGroup) -> Bytes {
        let mut extra = Bytes(0);
        for id in &vg.on {
            let Some(Node::PhysicalVolume(pv)) = self.saved.nodes.get(id) else {
                continue;
            };
            let Some(space) = self
                .space
                .get(&pv.on)
                .filter(|_| self.grown.contains(&pv.on))
            else {
                continue;
            };
            let now = space.minus(pv.pe_start).round_down(vg.extent_size);
            extra = extra.plus(now.minus(pv.size));
        }
        extra
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
        let mut size = lv.size;
        let is_root = self
            .root_fs()
            .and_then(|root| self.saved.nodes.get(root))
            .is_some_and(|fs| fs.on().contains(id));
        let extra = self.extra(&vg);
        if extra > Bytes(0) {
            for pv in &vg.on {
                self.accept(pv, "size", "the physical volume grows with its partition");
            }
        }
        if is_root && self.choices.grow == Grow::Root && extra > Bytes(0) {
            size = size.plus(extra);
            self.grown.insert(id.clone());
            self.sizes.push(SizeChange {
                node: id.clone(),
                what: format!("logical volume {}/{}", vg.name, lv.name),
                saved: lv.size,
                now: size,
            });
            self.accept(
                id,
                "size",
                "the root volume takes the space of the bigger disk",
            );
        }
        self.devices.insert(id.clone(), lv_path(&vg.name, &lv.name));
        self.space.insert(id.clone(), size);
        self.steps.push(Step::LvCreate {
            vg: vg.name.clone(),
            name: lv.name.clone(),
            size,
            writeable: lv.writeable,
            tags: lv.tags.clone(),
        });
        Ok(())
    }

    pub(super) fn thin_pool(&mut self, id: &NodeId, pool: &ThinPool) -> Result<(), PlanError> {
        let vg = self.group(id, &pool.on)?;
        self.accept(id, "uuid", "LVM gives a new volume a new UUID");
        self.steps.push(Step::ThinPoolCreate {
            vg: vg.name,
            name: pool.name.clone(),
            size: pool.size,
            chunk_size: pool.chunk_size,
            metadata_size: pool.metadata_size,
            zero: pool.zero,
            discards: pool.discards.clone(),
            spare: pool.spare,
            tags: pool.tags.clone(),
        });
        let volumes: Vec<NodeId> = self
            .saved
            .children(id)
            .map(|(volume, _)| volume.clone())
            .collect();
        for volume in volumes {
            self.accept(&volume, "*", "volumes of guests come back with the guests");
        }
        Ok(())
    }

    fn group(&self, id: &NodeId, on: &NodeId) -> Result<VolumeGroup, PlanError> {
        match self.saved.nodes.get(on) {
            Some(Node::VolumeGroup(vg)) => Ok(vg.clone()),
            _ => Err(PlanError::Unsupported {
                node: id.clone(),
                reason: format!("{on} is no volume group"),
            }),
        }
    }
}
