//! Walks the graph from the disks upwards and turns every node into steps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::disk::describe;
use super::fit::Fit;
use super::identity::{Likeness, likeness};
use super::{
    Choices, DiskAssignment, FencedDisk, MergedDisk, Plan, PlanError, SizeChange, Step,
    Substitution,
};
use crate::inventory::Inventory;
use crate::model::{Layout, Node, NodeId};
use crate::units::Bytes;

/// A plan in the making.
pub(super) struct Builder<'a> {
    pub saved: &'a Layout,
    pub inventory: &'a Inventory,
    pub choices: &'a Choices,
    pub disks: Vec<DiskAssignment>,
    /// Saved disks without a present one of their own, which are not in the layout any more.
    pub merged: Vec<MergedDisk>,
    /// First fields of lines of fstab that name what is not made.
    pub switch_off: Vec<String>,
    /// The same of crypttab.
    pub crypttab_off: Vec<String>,
    /// Devices by the names that the saved host's files may have, and what is on each.
    pub names: Vec<(String, NodeId)>,
    /// Nodes that lie on assigned disks only: the ones to make.
    pub relevant: BTreeSet<NodeId>,
    /// Where a node will be.
    pub devices: BTreeMap<NodeId, PathBuf>,
    /// How big everything will be.
    pub fit: Fit,
    pub steps: Vec<Step>,
    pub sizes: Vec<SizeChange>,
    pub notes: Vec<String>,
    pub substitutions: Vec<Substitution>,
}

impl<'a> Builder<'a> {
    pub fn new(
        saved: &'a Layout,
        inventory: &'a Inventory,
        choices: &'a Choices,
        disks: Vec<DiskAssignment>,
        fit: Fit,
    ) -> Result<Builder<'a>, PlanError> {
        let assigned: BTreeSet<NodeId> = disks.iter().map(|d| d.saved.clone()).collect();
        let mut relevant = BTreeSet::new();
        for (id, node) in &saved.nodes {
            if fit.left_out().contains(id) {
                continue;
            }
            let below = saved.disks_below(id);
            if !below.is_empty() && below.is_subset(&assigned) {
                relevant.insert(id.clone());
            } else if !below.is_disjoint(&assigned) && !matches!(node, Node::Unsupported(_)) {
                let missing: Vec<String> = below
                    .difference(&assigned)
                    .map(ToString::to_string)
                    .collect();
                let reason = format!(
                    "it also lies on {}, which is not mapped: map that disk too",
                    missing.join(", ")
                );
                return Err(PlanError::Unsupported {
                    node: id.clone(),
                    reason,
                });
            }
        }
        Ok(Builder {
            saved,
            inventory,
            choices,
            disks,
            merged: Vec::new(),
            switch_off: Vec::new(),
            crypttab_off: Vec::new(),
            names: super::reshape::device_names(saved),
            relevant,
            devices: BTreeMap::new(),
            fit,
            steps: Vec::new(),
            sizes: Vec::new(),
            notes: Vec::new(),
            substitutions: Vec::new(),
        })
    }

    pub fn build(mut self) -> Result<Plan, PlanError> {
        let order = self.order()?;
        let fence = self.fence();
        self.steps.push(Step::Fence {
            disks: fence.iter().map(|d| d.device.clone()).collect(),
            targets: self.disks.iter().map(|d| d.device.clone()).collect(),
            vgs: self.groups(),
        });
        self.luks_keys();
        for disk in &self.disks {
            self.steps.push(Step::Wipe {
                device: disk.device.clone(),
                size: disk.identity.size,
            });
        }
        for id in &order {
            self.node(id)?;
        }
        self.left_out();
        self.mounts();
        self.swap_files();
        self.subvolume_options();
        self.zfs_finish();
        self.boot();
        self.seal_subvolumes();
        self.zfs_late();
        self.steps.push(Step::Unmount);
        self.finish_groups()?;
        self.take_down();
        self.raid_remarks();
        self.zfs_remarks();
        self.remarks(&fence);
        let tools = super::safety::tools(&self.steps);
        let plan = Plan {
            disks: self.disks,
            merged: self.merged,
            fence,
            steps: self.steps,
            sizes: self.sizes,
            notes: self.notes,
            tools,
            substitutions: self.substitutions,
            in_place: None,
        };
        sound(plan)
    }

    /// The nodes to make, each after what it lies on.
    fn order(&self) -> Result<Vec<NodeId>, PlanError> {
        let mut waiting: BTreeMap<&NodeId, usize> = BTreeMap::new();
        for id in &self.relevant {
            let on = self.saved.nodes.get(id).map(Node::on).unwrap_or_default();
            waiting.insert(
                id,
                on.iter().filter(|on| self.relevant.contains(on)).count(),
            );
        }
        let mut order = Vec::new();
        loop {
            // Kind by kind, so that the plan reads in the order in which a person would do it.
            let next = waiting
                .iter()
                .filter(|(_, count)| **count == 0)
                .map(|(id, _)| *id)
                .min_by_key(|id| self.rank(id));
            let Some(next) = next else { break };
            waiting.remove(next);
            for (id, node) in &self.saved.nodes {
                let edges = node.on().iter().filter(|on| *on == next).count();
                if let (Some(count), true) = (waiting.get_mut(id), edges > 0) {
                    *count -= edges;
                }
            }
            order.push(next.clone());
        }
        if waiting.is_empty() {
            Ok(order)
        } else {
            Err(PlanError::Cycle {
                nodes: waiting.into_keys().cloned().collect(),
            })
        }
    }

    fn rank(&self, id: &NodeId) -> (u8, u32, NodeId) {
        let (rank, number) = match self.saved.nodes.get(id) {
            Some(Node::Disk(_)) => (0, 0),
            Some(Node::Partition(part)) => (1, part.number),
            Some(Node::RaidArray(_) | Node::Luks(_)) => (1, u32::MAX),
            // A pool comes when all that may be a part of it is there, its datasets after it.
            Some(Node::ZfsMember(_)) => (5, 1),
            Some(Node::ZfsPool(_)) => (5, 2),
            Some(Node::ZfsDataset(_) | Node::ZfsVolume(_)) => (5, 3),
            Some(Node::PhysicalVolume(_)) => (2, 0),
            Some(Node::VolumeGroup(_)) => (3, 0),
            // Volumes with a place of their own come before those that LVM finds one for.
            Some(Node::LogicalVolume(lv)) if lv.has_place() => (4, 0),
            Some(Node::ThinPool(pool)) if pool.has_place() => (4, 1),
            Some(Node::LogicalVolume(_)) => (4, 2),
            Some(Node::ThinPool(_)) => (5, 0),
            Some(Node::ThinVolume(_)) => (6, 0),
            Some(Node::Swap(_)) => (7, 0),
            Some(Node::Ext4(_) | Node::Xfs(_) | Node::Vfat(_) | Node::Btrfs(_)) => (8, 0),
            Some(Node::Unsupported(_) | Node::SwapFile(_)) | None => (9, 0),
        };
        (rank, number, id.clone())
    }

    fn node(&mut self, id: &NodeId) -> Result<(), PlanError> {
        let saved = self.saved;
        match saved.nodes.get(id) {
            Some(Node::Disk(disk)) => self.disk(id, disk),
            Some(Node::Partition(part)) => {
                self.partition_contents(id, part);
                Ok(())
            }
            Some(Node::RaidArray(array)) => self.raid_array(id, array),
            Some(Node::Luks(luks)) => self.luks(id, luks),
            Some(Node::PhysicalVolume(pv)) => self.physical_volume(id, pv),
            Some(Node::VolumeGroup(vg)) => self.volume_group(id, vg),
            Some(Node::LogicalVolume(lv)) => self.logical_volume(id, lv),
            Some(Node::ThinPool(pool)) => self.thin_pool(id, pool),
            Some(Node::Ext4(fs)) => self.ext4(id, fs),
            Some(Node::Xfs(fs)) => self.xfs(id, fs),
            Some(Node::Vfat(fs)) => self.vfat(id, fs),
            Some(Node::Btrfs(fs)) => self.btrfs(id, fs),
            Some(Node::Swap(swap)) => self.swap(id, swap),
            Some(Node::ZfsMember(member)) => self.zfs_member(id, member),
            Some(Node::ZfsPool(pool)) => self.zfs_pool(id, pool),
            Some(Node::ZfsDataset(dataset)) => self.zfs_dataset(id, dataset),
            // Made when the files are there.
            Some(Node::SwapFile(_)) => Ok(()),
            // Told in the notes.
            Some(Node::ThinVolume(_) | Node::ZfsVolume(_) | Node::Unsupported(_)) | None => Ok(()),
        }
    }

    /// The device that a node lies on.
    pub fn device(&self, node: &NodeId, on: &NodeId) -> Result<PathBuf, PlanError> {
        self.devices
            .get(on)
            .cloned()
            .ok_or_else(|| PlanError::Unsupported {
                node: node.clone(),
                reason: format!("nothing makes {on}, which it lies on"),
            })
    }

    /// How big a device will be.
    pub fn room(&self, id: &NodeId) -> Option<Bytes> {
        let saved = || super::fit::saved_size(self.saved, id);
        self.fit.size(id).or_else(saved)
    }

    /// Whether a device gets more space than saved.
    pub fn grows(&self, id: &NodeId) -> bool {
        let saved = super::fit::saved_size(self.saved, id);
        saved.is_some_and(|saved| self.room(id).is_some_and(|room| room > saved))
    }

    pub fn assignment(&self, id: &NodeId) -> Option<&DiskAssignment> {
        self.disks.iter().find(|d| d.saved == *id)
    }

    /// Names of the volume groups that are made.
    pub fn groups(&self) -> Vec<String> {
        let groups = self
            .relevant
            .iter()
            .filter_map(|id| match self.saved.nodes.get(id) {
                Some(Node::VolumeGroup(vg)) => Some(vg.name.clone()),
                _ => None,
            });
        groups.collect()
    }

    /// Takes groups, containers and arrays down in the reverse of the order in which they were made; groups that are next to each
    /// other together.
    fn take_down(&mut self) {
        let mut down: Vec<Step> = Vec::new();
        for step in self.steps.iter().rev() {
            match (step, down.last_mut()) {
                (Step::VgCreate { name, .. }, Some(Step::Deactivate { vgs, .. })) => {
                    vgs.insert(0, name.clone());
                }
                (Step::VgCreate { name, .. }, _) => down.push(Step::Deactivate {
                    vgs: vec![name.clone()],
                    read_only: Vec::new(),
                }),
                (Step::LuksOpen { name, .. }, _) => {
                    down.push(Step::LuksClose { name: name.clone() });
                }
                (Step::ZpoolCreate { pool, .. }, _) => down.push(Step::ZpoolExport {
                    pool: pool.name.clone(),
                }),
                (Step::RaidCreate { device, .. }, _) => down.push(Step::RaidStop {
                    device: device.clone(),
                }),
                _ => {}
            }
        }
        for step in &mut down {
            if let Step::Deactivate { vgs, read_only } = step {
                *read_only = self.read_only_volumes(vgs);
            }
        }
        self.steps.extend(down);
    }

    fn read_only_volumes(&self, vgs: &[String]) -> Vec<String> {
        let volumes = self.steps.iter().filter_map(|step| match step {
            Step::LvCreate {
                vg,
                name,
                writeable: false,
                ..
            } if vgs.contains(vg) => Some(format!("{vg}/{name}")),
            _ => None,
        });
        volumes.collect()
    }

    pub fn accept(&mut self, node: &NodeId, what: &str, reason: &str) {
        self.substitutions.push(Substitution {
            node: node.clone(),
            what: what.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// Tells that something gets another size, and accepts the `properties` that differ for it.
    pub fn resized(
        &mut self,
        id: &NodeId,
        what: String,
        saved: Bytes,
        now: Bytes,
        properties: &[&str],
    ) {
        if saved == now {
            return;
        }
        let reason = if now > saved {
            "it takes space of a bigger disk"
        } else {
            "it is smaller, so that everything fits"
        };
        for property in properties {
            self.accept(id, property, reason);
        }
        self.sizes.push(SizeChange {
            node: id.clone(),
            what,
            saved,
            now,
        });
    }

    /// What is left out by choice.
    fn left_out(&mut self) {
        let mut words = Vec::new();
        for id in self.fit.left_out().clone() {
            self.accept(&id, "*", "it is left out by choice");
            match self.saved.nodes.get(&id) {
                Some(Node::Swap(swap)) => words.push(format!("swap area {}", swap.uuid)),
                Some(Node::ThinPool(pool)) => words.push(format!(
                    "thin pool {} ({}): its guests cannot come back until they get another storage",
                    pool.name, pool.size
                )),
                _ => {}
            }
        }
        if !words.is_empty() {
            self.notes
                .push(format!("Left out by choice: {}.", words.join("; ")));
        }
    }

    pub(super) fn fence(&self) -> Vec<FencedDisk> {
        let others = self
            .inventory
            .disks
            .iter()
            .filter(|d| !self.disks.iter().any(|a| a.device == d.device));
        others
            .map(|d| FencedDisk {
                device: d.device.clone(),
                model: d.model.clone(),
                serial: d.serial.clone(),
                size: d.size,
                contents: d.contents.clone(),
                bundle_medium: self.choices.never.contains(&d.device),
            })
            .collect()
    }

    /// Mounts and file trees, each filesystem before what is mounted in it.
    fn mounts(&mut self) {
        for mount in self.saved.filesystems_to_save() {
            if let Some(Node::Btrfs(fs)) = self.saved.nodes.get(&mount.node) {
                self.mount_subvolume(fs, mount);
                continue;
            }
            if let Some(Node::ZfsDataset(dataset)) = self.saved.nodes.get(&mount.node) {
                self.mount_dataset(dataset, mount);
                continue;
            }
            let on = self
                .saved
                .nodes
                .get(&mount.node)
                .and_then(|n| n.on().into_iter().next());
            let Some(device) = on.and_then(|on| self.devices.get(&on)).cloned() else {
                continue;
            };
            let mount_point = mount.mount_point.clone();
            self.steps.push(Step::Mount {
                device,
                fstype: mount.fstype.clone(),
                mount_point: mount_point.clone(),
            });
            self.steps.push(Step::RestoreTree { mount_point });
        }
    }

    /// Whether an EFI system partition that was not mounted is filled by its image or by proxmox-boot-tool.
    fn is_filled_otherwise(&self, id: &NodeId, node: &Node) -> bool {
        let boot = &self.saved.boot;
        boot.proxmox_esps.iter().any(|esp| esp.esp == *id)
            || node.on().iter().any(|on| boot.esp_images.contains(on))
    }

    /// Saved disks that are in the machine, and whose place another one takes: what identifies it is there twice then.
    fn old_selves(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for assigned in &self.disks {
            let Some(Node::Disk(saved)) = self.saved.nodes.get(&assigned.saved) else {
                continue;
            };
            let others = self.inventory.disks.iter().filter(|present| {
                !present.contents.is_empty()
                    && !self.disks.iter().any(|a| a.device == present.device)
            });
            for present in others {
                let what = match likeness(saved, present) {
                    Likeness::Same(_) => "is",
                    Likeness::Doubtful(_) => "may be",
                    Likeness::Other => continue,
                };
                notes.push(format!(
                    "{} {what} the saved disk that {} takes the place of, with its old contents: the restored host would find \
                     the same UUIDs on both, and may start from the wrong one. Take that disk out before the restart.",
                    describe(present),
                    assigned.device.display()
                ));
            }
        }
        notes
    }

    /// What is lost, left alone or worth knowing.
    fn remarks(&mut self, fence: &[FencedDisk]) {
        let mut guests = Vec::new();
        let trees: BTreeSet<&NodeId> = self
            .saved
            .filesystems_to_save()
            .iter()
            .map(|m| &m.node)
            .collect();
        let mut notes = Vec::new();
        for id in &self.relevant {
            match self.saved.nodes.get(id) {
                Some(Node::ThinVolume(volume)) => {
                    guests.push(format!("{} ({})", volume.name, volume.size))
                }
                Some(Node::LogicalVolume(lv)) if crate::capture::lvm::is_guest_volume(&lv.name) => {
                    guests.push(format!("{} ({})", lv.name, lv.size));
                }
                Some(Node::LogicalVolume(lv)) if self.saved.children(id).next().is_none() => {
                    notes.push(format!(
                        "Logical volume {} is made again and stays empty.",
                        lv.name
                    ));
                }
                Some(Node::RaidArray(array)) if self.saved.children(id).next().is_none() => {
                    notes.push(format!(
                        "Array {} is made again and stays empty.",
                        array.name
                    ));
                }
                Some(Node::Unsupported(what)) => {
                    notes.push(format!(
                        "Not restored: {} ({}, {}): {}.",
                        what.device.display(),
                        what.what,
                        what.size,
                        what.meaning
                    ));
                }
                Some(node)
                    if node.filesystem().is_some()
                        && !trees.contains(id)
                        && !self.is_filled_otherwise(id, node) =>
                {
                    notes.push(format!(
                        "Filesystem {id} was not mounted: it is made again and stays empty."
                    ));
                }
                _ => {}
            }
        }
        if !guests.is_empty() {
            notes.push(format!(
                "Volumes of guests are not restored here, guests come back from their own backups: {}.",
                guests.join(", ")
            ));
        }
        for (id, disk) in self.saved.disks() {
            if self.assignment(id).is_none() {
                let words = disk.model.as_deref().unwrap_or("unknown model");
                let serial = disk.serial.as_deref().unwrap_or("none");
                notes.push(format!(
                    "The saved host's data disk {words} (serial {serial}, {}) is not touched and not restored.",
                    disk.size
                ));
            }
        }
        notes.extend(self.old_selves());
        let groups = self.groups();
        for disk in self
            .inventory
            .disks
            .iter()
            .filter(|d| fence.iter().any(|f| f.device == d.device))
        {
            for vg in disk.vgs.iter().filter(|vg| groups.contains(vg)) {
                notes.push(format!(
                    "{} also holds a volume group called {vg}: the restored host would find two of that name. Take that \
                     disk out before the restart, or rename its group.",
                    describe(disk)
                ));
            }
        }
        self.notes.extend(notes);
    }
}

/// Better no plan than a wrong one: the planner's own mistake, or a layout that no capture made.
pub(super) fn sound(plan: Plan) -> Result<Plan, PlanError> {
    match plan.writes_outside().or_else(|| plan.leads_outside()) {
        Some(reason) => Err(PlanError::Unsupported {
            node: NodeId::new("plan"),
            reason,
        }),
        None => Ok(plan),
    }
}
