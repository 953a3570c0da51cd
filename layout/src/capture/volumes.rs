//! Volume groups and their volumes; other device-mapper devices and arrays.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::lvm::{Row, is_guest_volume};
use super::{Capture, CaptureError};
use crate::model::{
    LogicalVolume, Node, NodeId, PhysicalVolume, ThinPool, ThinVolume, Unsupported, VolumeGroup,
};
use crate::system::BlockDevice;

impl Capture<'_> {
    /// Adds a physical volume that was probed on a device.
    pub(super) fn physical_volume(&mut self, device: &BlockDevice, on: &NodeId) -> bool {
        let row = self
            .lvm
            .pvs
            .iter()
            .find(|row| {
                self.devices
                    .by_node(&PathBuf::from(row.text("pv_name")))
                    .is_some_and(|d| d.name == device.name)
            })
            .cloned();
        let Some(row) = row else {
            self.unsupported(
                device,
                vec![on.clone()],
                "LVM2_member",
                "LVM does not report this physical volume (filtered, or the lvm2 tools are missing): it is not restored",
            );
            return true;
        };
        self.layout.nodes.insert(
            NodeId::pv(row.text("pv_uuid")),
            Node::PhysicalVolume(PhysicalVolume {
                on: on.clone(),
                uuid: row.text("pv_uuid").to_owned(),
                pe_start: row.bytes("pe_start"),
                size: row.bytes("pv_size"),
            }),
        );
        true
    }

    /// Adds the volume groups whose physical volumes are known.
    pub(super) fn volume_groups(&mut self) -> Result<(), CaptureError> {
        let mut names = BTreeSet::new();
        for vg in self.lvm.vgs.clone() {
            let name = vg.text("vg_name").to_owned();
            let mut on: Vec<NodeId> = self
                .lvm
                .pvs
                .iter()
                .filter(|pv| pv.text("vg_uuid") == vg.text("vg_uuid"))
                .map(|pv| NodeId::pv(pv.text("pv_uuid")))
                .filter(|id| self.layout.nodes.contains_key(id))
                .collect();
            on.sort();
            if on.is_empty() {
                // On a zvol, a network disk or another device that is passed over.
                continue;
            }
            if !names.insert(name.clone()) {
                self.layout.warnings.push(format!(
                    "there are two volume groups called {name}: only the first is restored, the one with UUID {} is not",
                    vg.text("vg_uuid")
                ));
                continue;
            }
            if !matches!(vg.text("vg_missing_pv_count"), "" | "0") {
                self.layout.warnings.push(format!(
                    "volume group {name} lacks a physical volume: a restore makes it smaller"
                ));
            }
            self.layout.nodes.insert(
                NodeId::vg(&name),
                Node::VolumeGroup(VolumeGroup {
                    on,
                    name: name.clone(),
                    uuid: vg.text("vg_uuid").to_owned(),
                    extent_size: vg.bytes("vg_extent_size"),
                    free: vg.bytes("vg_free"),
                    tags: vg.tags("vg_tags"),
                }),
            );
            self.logical_volumes(&name, vg.text("vg_uuid"))?;
        }
        Ok(())
    }

    fn logical_volumes(&mut self, vg: &str, vg_uuid: &str) -> Result<(), CaptureError> {
        // One row per segment: a volume is linear when all of its segments are.
        let rows: Vec<Row> = self
            .lvm
            .lvs
            .iter()
            .filter(|row| row.text("vg_uuid") == vg_uuid)
            .cloned()
            .collect();
        let mut seen = BTreeSet::new();
        let spare = rows
            .iter()
            .any(|row| row.text("lv_name").contains("_pmspare"));
        let mut thin = Vec::new();
        for row in &rows {
            let name = row.text("lv_name").to_owned();
            // In brackets: parts of other volumes.
            if name.starts_with('[') || !seen.insert(row.text("lv_uuid").to_owned()) {
                continue;
            }
            let types: BTreeSet<&str> = rows
                .iter()
                .filter(|r| r.text("lv_uuid") == row.text("lv_uuid"))
                .map(|r| r.text("segtype"))
                .collect();
            let snapshot = row.text("lv_attr").starts_with(['s', 'S']);
            let id = NodeId::lv(vg, &name);
            if types.len() == 1 && types.contains("linear") && !snapshot {
                self.linear_volume(vg, &name, row)?;
            } else if types.contains("thin-pool") {
                self.layout
                    .nodes
                    .insert(id, Node::ThinPool(thin_pool(vg, &name, row, spare)));
            } else if types.contains("thin") {
                thin.push((id, name, row.clone()));
            } else {
                let what = if snapshot {
                    "LVM snapshot".to_owned()
                } else {
                    format!(
                        "LVM volume of type {}",
                        types.into_iter().collect::<Vec<_>>().join("+")
                    )
                };
                let meaning = if snapshot {
                    "snapshots are not restored"
                } else {
                    "only linear volumes and thin pools are supported yet: the volume and what is on it are not restored"
                };
                self.layout
                    .warnings
                    .push(format!("{vg}/{name} ({what}): {meaning}"));
                self.layout.nodes.insert(
                    id,
                    Node::Unsupported(Unsupported {
                        on: vec![NodeId::vg(vg)],
                        device: lv_path(vg, &name),
                        what,
                        size: row.bytes("lv_size"),
                        meaning: meaning.to_owned(),
                    }),
                );
            }
        }
        for (id, name, row) in thin {
            let on = NodeId::lv(vg, row.text("pool_lv"));
            if self.layout.nodes.contains_key(&on) {
                let volume = ThinVolume {
                    on,
                    vg: vg.to_owned(),
                    name,
                    size: row.bytes("lv_size"),
                };
                self.layout.nodes.insert(id, Node::ThinVolume(volume));
                self.thin_host_filesystem(vg, row.text("lv_name"));
            }
        }
        Ok(())
    }

    /// A thin volume that the host itself has mounted is host data, which this version does not restore.
    fn thin_host_filesystem(&mut self, vg: &str, name: &str) {
        if is_guest_volume(name) {
            return;
        }
        let path = lv_path(vg, name);
        let Some(device) = self.devices.by_node(&path) else {
            return;
        };
        if self.mounted.iter().any(|m| {
            self.devices
                .by_number(&m.major_minor)
                .is_some_and(|d| d.name == device.name)
        }) {
            self.layout.warnings.push(format!(
                "{} is a thin volume that the host has mounted: host filesystems on thin volumes are not supported yet, \
                 it is not restored",
                path.display()
            ));
        }
    }

    fn linear_volume(&mut self, vg: &str, name: &str, row: &Row) -> Result<(), CaptureError> {
        let id = NodeId::lv(vg, name);
        let device = lv_path(vg, name);
        let active =
            row.text("lv_active") == "active" || row.text("lv_attr").chars().nth(4) == Some('a');
        self.layout.nodes.insert(
            id.clone(),
            Node::LogicalVolume(LogicalVolume {
                on: NodeId::vg(vg),
                device: device.clone(),
                name: name.to_owned(),
                uuid: row.text("lv_uuid").to_owned(),
                size: row.bytes("lv_size"),
                active,
                writeable: row.text("lv_attr").chars().nth(1) != Some('r'),
                tags: row.tags("lv_tags"),
            }),
        );
        if is_guest_volume(name) {
            return Ok(());
        }
        match self.devices.by_node(&device).cloned() {
            Some(block) => {
                if !self.content(&block, &id)? {
                    self.layout.warnings.push(format!(
                        "{}: no filesystem that is known: the volume is made again, its contents are not restored",
                        device.display()
                    ));
                }
            }
            None => self.layout.warnings.push(format!(
                "{} is not active: what is on it is not known and not restored",
                device.display()
            )),
        }
        Ok(())
    }

    /// Warns about device-mapper devices and arrays that are no LVM.
    pub(super) fn other_virtuals(&mut self) {
        for device in self.devices.virtuals().cloned().collect::<Vec<_>>() {
            let uuid = self.devices.sysfs(&device, "dm/uuid").unwrap_or_default();
            if uuid.starts_with("LVM-") {
                continue;
            }
            let (what, meaning) = if !device.name.starts_with("dm-") {
                (
                    "software RAID array",
                    "software RAID is not supported yet: the array and what is on it are not restored",
                )
            } else if uuid.starts_with("CRYPT-") {
                (
                    "opened LUKS container",
                    "LUKS is not supported yet: what is in the container is not restored",
                )
            } else if uuid.starts_with("mpath-") {
                (
                    "multipath device",
                    "multipath is not supported yet: what is on the device is not restored",
                )
            } else {
                (
                    "device-mapper device",
                    "this kind of device is not supported: what is on it is not restored",
                )
            };
            let on = self
                .devices
                .slaves(&device)
                .iter()
                .filter_map(|name| self.node_of(name))
                .collect();
            self.unsupported(&device, on, what, meaning);
        }
    }

    fn node_of(&self, name: &str) -> Option<NodeId> {
        let device = self.devices.list.iter().find(|d| d.name == name)?;
        self.layout
            .nodes
            .iter()
            .find(|(_, node)| node.device() == Some(&device.node))
            .map(|(id, _)| id.clone())
    }
}

/// LVM's own link; it keeps its name over reboots.
pub(crate) fn lv_path(vg: &str, name: &str) -> PathBuf {
    PathBuf::from("/dev").join(vg).join(name)
}

fn thin_pool(vg: &str, name: &str, row: &Row, spare: bool) -> ThinPool {
    ThinPool {
        on: NodeId::vg(vg),
        name: name.to_owned(),
        uuid: row.text("lv_uuid").to_owned(),
        size: row.bytes("lv_size"),
        used: row.percent_of("data_percent", row.bytes("lv_size")),
        chunk_size: row.bytes("chunk_size"),
        metadata_size: row.bytes("lv_metadata_size"),
        zero: matches!(row.text("zero"), "zero" | "1"),
        discards: match row.text("discards") {
            known @ ("ignore" | "nopassdown" | "passdown") => known,
            // LVM's default, also while the pool is not active and the field is empty.
            _ => "passdown",
        }
        .to_owned(),
        spare,
        active: row.text("lv_active") == "active"
            || row.text("lv_attr").chars().nth(4) == Some('a'),
        tags: row.tags("lv_tags"),
    }
}
