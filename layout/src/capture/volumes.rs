//! Volume groups and their volumes; other device-mapper devices and arrays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::lvm::{Row, is_guest_volume, policy};
use super::segments::Volumes;
use super::volume::is_active;
use super::{Capture, CaptureError};
use crate::model::{
    GroupSettings, Node, NodeId, PhysicalVolume, ThinVolume, Unsupported, VolumeGroup,
};
use crate::snapshot;
use crate::system::BlockDevice;
use crate::units::Bytes;

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
                tags: row.tags("pv_tags"),
                // Outside of groups there is nothing to allocate, and LVM says so.
                allocatable: row.is_set("pv_allocatable") || row.text("vg_name").is_empty(),
            }),
        );
        let known = |vg: &Row| vg.text("vg_uuid") == row.text("vg_uuid");
        if row.is_set("pv_in_use") && !self.lvm.vgs.iter().any(known) {
            self.layout.warnings.push(format!(
                "{}: LVM does not show the volume group that this physical volume belongs to (it may be that of another \
                 system, or damaged): the group and what is in it are not restored",
                device.node.display()
            ));
        }
        true
    }

    /// Adds the volume groups whose physical volumes are known.
    pub(super) fn volume_groups(&mut self) -> Result<(), CaptureError> {
        let mut names = BTreeSet::new();
        let mut vgs = self.lvm.vgs.clone();
        // Of two with one name, the host runs from the one whose volumes are active: LVM refuses those of the other.
        let idle = |vg: &Row| {
            let mut volumes = self.lvm.lvs.iter();
            !volumes.any(|lv| lv.text("vg_uuid") == vg.text("vg_uuid") && is_active(lv))
        };
        vgs.sort_by_key(idle);
        for vg in vgs {
            let name = vg.text("vg_name").to_owned();
            let pvs: BTreeMap<String, NodeId> = self
                .lvm
                .pvs
                .iter()
                .filter(|pv| pv.text("vg_uuid") == vg.text("vg_uuid") && !pv.is_set("pv_missing"))
                .map(|pv| {
                    let device = super::segments::bare(pv.text("pv_name"));
                    (device.to_owned(), NodeId::pv(pv.text("pv_uuid")))
                })
                .filter(|(_, id)| self.layout.nodes.contains_key(id))
                .collect();
            let mut on: Vec<NodeId> = pvs.values().cloned().collect();
            on.sort();
            if on.is_empty() {
                // On a zvol, a network disk or another device that is passed over.
                continue;
            }
            if !names.insert(name.clone()) {
                self.layout.warnings.push(format!(
                    "there are two volume groups called {name}: only the one that is in use is restored, the one with UUID {} is not",
                    vg.text("vg_uuid")
                ));
                continue;
            }
            if !matches!(vg.text("vg_missing_pv_count"), "" | "0") {
                self.layout.warnings.push(format!(
                    "volume group {name} lacks a physical volume: a restore makes it smaller"
                ));
            }
            self.group_warnings(&name, &vg);
            // What a backup's own snapshots take for their time.
            let own = |lv: &&Row| {
                lv.text("vg_uuid") == vg.text("vg_uuid")
                    && lv.text("pool_lv").is_empty()
                    && snapshot::lvm::is_ours(lv)
            };
            let own = self.lvm.lvs.iter().filter(own);
            let taken: u64 = own.map(|lv| lv.bytes("lv_size").0).sum();
            self.layout.nodes.insert(
                NodeId::vg(&name),
                Node::VolumeGroup(VolumeGroup {
                    on,
                    name: name.clone(),
                    uuid: vg.text("vg_uuid").to_owned(),
                    extent_size: vg.bytes("vg_extent_size"),
                    free: Bytes(vg.bytes("vg_free").0.saturating_add(taken)),
                    tags: vg.tags("vg_tags"),
                    settings: GroupSettings {
                        allocation: policy(&vg, "vg_allocation_policy", "normal"),
                        max_volumes: vg.text("max_lv").parse().unwrap_or(0),
                        max_physical_volumes: vg.text("max_pv").parse().unwrap_or(0),
                        // Not known before LVM 2.03.12, which activates all.
                        autoactivation: vg.is_set_or("vg_autoactivation", true),
                    },
                }),
            );
            self.logical_volumes(&name, vg.text("vg_uuid"), &pvs)?;
        }
        Ok(())
    }

    /// What of a group's own settings a restore does not bring back.
    fn group_warnings(&mut self, name: &str, vg: &Row) {
        let system = vg.text("vg_systemid");
        let lost = [
            (
                vg.is_set("vg_exported"),
                "it is exported: a restored group is not".to_owned(),
            ),
            (
                vg.is_set("vg_clustered") || vg.is_set("vg_shared"),
                "it is shared by several hosts: a restored group is this host's alone".to_owned(),
            ),
            (
                !system.is_empty(),
                format!("its system ID {system} is not kept: any host may use the restored group"),
            ),
            (
                !vg.text("vg_profile").is_empty(),
                format!("its profile {} is not kept", vg.text("vg_profile")),
            ),
        ];
        for (_, words) in lost.iter().filter(|(so, _)| *so) {
            self.layout
                .warnings
                .push(format!("volume group {name}: {words}"));
        }
    }

    fn logical_volumes(
        &mut self,
        vg: &str,
        vg_uuid: &str,
        pvs: &BTreeMap<String, NodeId>,
    ) -> Result<(), CaptureError> {
        // One row per segment.
        let rows: Vec<Row> = self
            .lvm
            .lvs
            .iter()
            .filter(|row| row.text("vg_uuid") == vg_uuid)
            .cloned()
            .collect();
        let volumes = Volumes { rows: &rows, pvs };
        let mut seen = BTreeSet::new();
        let mut thin = Vec::new();
        for row in &rows {
            let name = row.text("lv_name").to_owned();
            // In brackets: parts of other volumes. What a backup makes for its own time is not the host's.
            if name.starts_with('[')
                || !seen.insert(row.text("lv_uuid").to_owned())
                || snapshot::lvm::is_ours(row)
            {
                continue;
            }
            if row.text("lv_attr").starts_with(['s', 'S']) {
                self.unsupported_volume(vg, row, "LVM snapshot", "snapshots are not restored");
                continue;
            }
            match row.text("segtype") {
                "thin-pool" => self.thin_pool(vg, &name, row, &volumes),
                "thin" => thin.push(row.clone()),
                _ => self.volume(vg, &name, row, &volumes)?,
            }
        }
        for row in thin {
            let on = NodeId::lv(vg, row.text("pool_lv"));
            let name = row.text("lv_name");
            if !matches!(self.layout.nodes.get(&on), Some(Node::ThinPool(_))) {
                self.unsupported_volume(
                    vg,
                    &row,
                    "thin volume",
                    "its pool is not supported: the volume and what is on it are not restored",
                );
            } else if is_guest_volume(name) {
                let volume = ThinVolume {
                    on,
                    vg: vg.to_owned(),
                    name: name.to_owned(),
                    size: row.bytes("lv_size"),
                };
                self.layout
                    .nodes
                    .insert(NodeId::lv(vg, name), Node::ThinVolume(volume));
            } else if row.text("origin").is_empty() {
                self.volume(vg, name, &row, &volumes)?;
            } else {
                self.unsupported_volume(vg, &row, "thin snapshot", "snapshots are not restored");
            }
        }
        Ok(())
    }

    /// Adds a volume that is not restored, with a warning that says so.
    pub(super) fn unsupported_volume(&mut self, vg: &str, row: &Row, what: &str, meaning: &str) {
        let name = row.text("lv_name");
        self.layout
            .warnings
            .push(format!("{vg}/{name} ({what}): {meaning}"));
        self.layout.nodes.insert(
            NodeId::lv(vg, name),
            Node::Unsupported(Unsupported {
                on: vec![NodeId::vg(vg)],
                device: lv_path(vg, name),
                what: what.to_owned(),
                size: row.bytes("lv_size"),
                meaning: meaning.to_owned(),
            }),
        );
    }

    /// Warns about devices made of others that are not known.
    pub(super) fn other_virtuals(&mut self) {
        for device in self.devices.virtuals().cloned().collect::<Vec<_>>() {
            let uuid = self.devices.sysfs(&device, "dm/uuid").unwrap_or_default();
            // Arrays have been dealt with.
            let known = self.layout.nodes.values().any(|node| {
                matches!(node, Node::Luks(luks) if self.devices.sysfs(&device, "dm/name").as_ref() == Some(&luks.name) && luks.open)
            });
            let array = device.name.starts_with("md");
            if uuid.starts_with("LVM-") || array || known {
                continue;
            }
            let (what, meaning) = if device.name.starts_with("bcache") {
                (
                    "bcache device",
                    "bcache is not supported: what is on the device is not restored",
                )
            } else if uuid.starts_with("CRYPT-") {
                (
                    "encrypted device",
                    "plain dm-crypt, detached LUKS headers and other kinds than LUKS are not supported: what is in it is \
                     not restored",
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

    /// The node of the block device with this kernel name.
    pub(super) fn node_of(&self, name: &str) -> Option<NodeId> {
        let device = self.devices.list.iter().find(|d| d.name == name)?;
        self.layout
            .nodes
            .iter()
            .find(|(_, node)| {
                // Containers and volumes are known by their links.
                node.device().is_some_and(|d| {
                    d == device.node || self.devices.by_node(d).is_some_and(|k| k.name == name)
                })
            })
            .map(|(id, _)| id.clone())
    }
}

/// LVM's own link; it keeps its name over reboots.
pub(crate) fn lv_path(vg: &str, name: &str) -> PathBuf {
    PathBuf::from("/dev").join(vg).join(name)
}
