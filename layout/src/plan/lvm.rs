//! LVM: physical volumes, groups, volumes, thin pools.

use super::build::Builder;
use super::{PlanError, Step};
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
        let size = self.fit.size(id).unwrap_or(lv.size);
        let what = format!("logical volume {}/{}", vg.name, lv.name);
        self.resized(id, what, lv.size, size, &["size"]);
        self.devices.insert(id.clone(), lv_path(&vg.name, &lv.name));
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
        let size = self.fit.size(id).unwrap_or(pool.size);
        let what = format!("thin pool {}/{}", vg.name, pool.name);
        self.resized(id, what, pool.size, size, &["size"]);
        let metadata_size = self.fit.metadata_size(id).unwrap_or(pool.metadata_size);
        let what = format!("metadata of thin pool {}/{}", vg.name, pool.name);
        let properties = ["metadata_size"];
        self.resized(id, what, pool.metadata_size, metadata_size, &properties);
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
