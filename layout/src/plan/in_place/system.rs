//! System only: the filesystems of the host's system are made anew where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::assign::system_mounts;
use super::{Draft, Remade};
use crate::capture::lvm::is_guest_volume;
use crate::inventory::{Inventory, Present};
use crate::model::{Layout, Mount, Node, NodeId, types};
use crate::plan::fit::Fit;
use crate::plan::{Choices, DiskAssignment, Plan, PlanError, Step};
use crate::units::Bytes;

/// A filesystem may be this much smaller than its device and still count as filling it.
const TAIL: Bytes = Bytes::mib(4);

pub(super) fn plan(
    saved: &Layout,
    inventory: &Inventory,
    present: &Present,
    choices: &Choices,
    disks: Vec<DiskAssignment>,
) -> Result<Plan, PlanError> {
    let mut draft = Draft::new(saved, inventory, present, choices, disks, false);
    let mounts = system_mounts(saved);
    let mut nodes: Vec<NodeId> = Vec::new();
    for mount in &mounts {
        if !nodes.contains(&mount.node) {
            draft.find(mount);
            nodes.push(mount.node.clone());
        }
    }
    draft.open()?;
    draft.builder.relevant = draft.used_nodes(&nodes);
    draft.builder.fit = draft.fit(&nodes);
    for id in &nodes {
        draft.make(id)?;
    }
    for mount in &mounts {
        draft.fill(mount);
    }
    draft.builder.swap_files();
    draft.builder.boot();
    let coded = draft.boot_code();
    let mut remade: Vec<Remade> = mounts.iter().map(|m| draft.remade_filesystem(m)).collect();
    remade.extend(coded.iter().map(|disk| boot_code(disk)));
    draft.builder.steps.push(Step::Unmount);
    draft.take_down();
    draft.remarks();
    let mut compared: BTreeSet<NodeId> = nodes.into_iter().collect();
    let files = saved.nodes.iter().filter(|(_, node)| match node {
        Node::SwapFile(file) => compared.contains(&file.on),
        _ => false,
    });
    let files: Vec<NodeId> = files.map(|(id, _)| id.clone()).collect();
    compared.extend(files);
    compared.insert(NodeId::new("boot"));
    draft.finish(remade, compared)
}

impl Draft<'_> {
    /// Finds the place of a filesystem, and whether it still fits.
    fn find(&mut self, mount: &Mount) {
        let at = mount.mount_point.display();
        let Some(node) = self.builder.saved.nodes.get(&mount.node) else {
            return;
        };
        let known = matches!(node, Node::Ext4(_) | Node::Xfs(_) | Node::Vfat(_));
        let Some(fs) = node.filesystem().filter(|_| known) else {
            self.ground.problems.push(format!(
                "the filesystem of {at} is {}, which this version does not make anew in place",
                mount.fstype
            ));
            return;
        };
        let (on, size) = (fs.on.clone(), fs.size);
        let Some(spot) = self.ground.place(&on, &mount.mount_point) else {
            return;
        };
        if let Some(now) = spot.size.filter(|now| *now < size) {
            self.ground.problems.push(format!(
                "{} has {now} ({} bytes) now, and the filesystem of {at} needs {size} ({} bytes)",
                spot.device.display(),
                now.0,
                size.0
            ));
        }
    }

    /// The disks that get boot code, which may be others than before when the machine was started another way. GRUB's own
    /// partitions there are written to.
    fn boot_code(&mut self) -> Vec<PathBuf> {
        let steps = self.builder.steps.iter();
        let coded = steps.filter_map(|step| match step {
            Step::GrubBios { device, .. } => Some(device.clone()),
            _ => None,
        });
        let coded: Vec<PathBuf> = coded.collect();
        for disk in &coded {
            for part in self.ground.partitions_on(disk) {
                if part.type_guid.eq_ignore_ascii_case(types::BIOS_BOOT) {
                    self.ground.use_partition(part);
                }
            }
        }
        for step in &mut self.builder.steps {
            if let Step::KeepOthers {
                device,
                used,
                protect,
            } = step
            {
                *used = self.ground.used_on(device);
                *protect = self.ground.others_on(device);
            }
        }
        coded
    }

    /// The filesystems, and what they lie on.
    fn used_nodes(&self, nodes: &[NodeId]) -> BTreeSet<NodeId> {
        let saved = self.builder.saved;
        let mut used: BTreeSet<NodeId> = nodes.iter().cloned().collect();
        used.extend(self.ground.spots.keys().cloned());
        let files = saved.nodes.iter().filter(|(_, node)| match node {
            Node::SwapFile(file) => nodes.contains(&file.on),
            _ => false,
        });
        used.extend(files.map(|(id, _)| id.clone()));
        used
    }

    /// A filesystem that filled its device fills it again when that has grown meanwhile.
    fn fit(&self, nodes: &[NodeId]) -> Fit {
        let saved = self.builder.saved;
        let (mut sizes, mut fills) = (BTreeMap::new(), BTreeSet::new());
        for id in nodes {
            let fs = match saved.nodes.get(id) {
                Some(node @ (Node::Ext4(_) | Node::Xfs(_))) => node.filesystem(),
                _ => None,
            };
            let Some(fs) = fs else { continue };
            let before = crate::plan::fit::saved_size(saved, fs.on).unwrap_or_default();
            if let Some(now) = self.ground.grew(fs.on) {
                if fs.size.plus(TAIL) >= before {
                    sizes.insert(id.clone(), now);
                    fills.insert(id.clone());
                }
            }
        }
        Fit::found(sizes, fills)
    }

    fn make(&mut self, id: &NodeId) -> Result<(), PlanError> {
        let saved = self.builder.saved;
        let on = saved.nodes.get(id).and_then(|n| n.on().into_iter().next());
        if let Some(device) = on.and_then(|on| self.builder.devices.get(&on)) {
            let device = device.clone();
            self.builder.steps.push(Step::Clear { device });
        }
        match saved.nodes.get(id) {
            Some(Node::Ext4(fs)) => self.builder.ext4(id, fs),
            Some(Node::Xfs(fs)) => self.builder.xfs(id, fs),
            Some(Node::Vfat(fs)) => self.builder.vfat(id, fs),
            _ => Ok(()),
        }
    }

    fn fill(&mut self, mount: &Mount) {
        let saved = self.builder.saved;
        let on = saved
            .nodes
            .get(&mount.node)
            .and_then(|n| n.on().into_iter().next());
        let Some(device) = on.and_then(|on| self.builder.devices.get(&on)).cloned() else {
            return;
        };
        let mount_point = mount.mount_point.clone();
        self.builder.steps.push(Step::Mount {
            device,
            fstype: mount.fstype.clone(),
            mount_point: mount_point.clone(),
        });
        self.builder.steps.push(Step::RestoreTree { mount_point });
    }

    /// Whether the usual place for disks of guests on a Proxmox VE host is in a filesystem that is made anew.
    fn holds_guest_files(&self) -> bool {
        let saved = self.builder.saved;
        let proxmox = saved.boot.kernels.iter().any(|k| k.ends_with("-pve"));
        let mut places = ["/var/lib/vz", "/var/lib/vz/images"].into_iter();
        proxmox && !places.any(|at| saved.mount_at(std::path::Path::new(at)).is_some())
    }

    /// Words for a filesystem that is made anew.
    pub(super) fn remade_filesystem(&self, mount: &Mount) -> Remade {
        let saved = self.builder.saved;
        let on = saved
            .nodes
            .get(&mount.node)
            .and_then(|n| n.on().into_iter().next());
        let spot = on.as_ref().and_then(|on| self.ground.spots.get(on));
        let device = spot.map(|s| s.device.display().to_string());
        let saved_size = || {
            on.as_ref()
                .and_then(|o| crate::plan::fit::saved_size(saved, o))
        };
        let size = spot.and_then(|s| s.size).or_else(saved_size);
        let below = saved.disks_below(&mount.node);
        let disk = self.builder.disks.iter().find(|d| below.contains(&d.saved));
        Remade {
            disk: disk.map_or_else(PathBuf::new, |d| d.device.clone()),
            what: format!(
                "{}: {} on {}, {}",
                mount.mount_point.display(),
                mount.fstype,
                device.unwrap_or_default(),
                size.unwrap_or_default()
            ),
        }
    }

    fn remarks(&mut self) {
        let new: Vec<String> = self
            .present
            .layout
            .nodes
            .iter()
            .filter(|(id, _)| !self.builder.saved.nodes.contains_key(id))
            .filter_map(|(_, node)| match node {
                Node::ThinVolume(volume) => Some(volume.name.clone()),
                Node::LogicalVolume(lv) if is_guest_volume(&lv.name) => Some(lv.name.clone()),
                _ => None,
            })
            .collect();
        if !new.is_empty() {
            self.builder.notes.push(format!(
                "Volumes of guests that were made after the backup stay, and the configuration of these guests is not in \
                 it: {}.",
                new.join(", ")
            ));
        }
        let boot = &self.builder.saved.boot;
        if !boot.proxmox_esps.is_empty() {
            self.builder.notes.push(
                "The partitions that proxmox-boot-tool keeps stay as they are: have it copy the kernels of the backup to them \
                 (proxmox-boot-tool refresh) after the start."
                    .to_owned(),
            );
        }
        if self.holds_guest_files() {
            self.builder.notes.push(
                "Disks of guests that are files of the root filesystem (/var/lib/vz/images) are lost, and backups have no \
                 such files: these guests come back from their own backups. Copy the files out first if there are any that \
                 have none."
                    .to_owned(),
            );
        }
        self.builder.notes.push(
            "Files that changed since the backup in what is made anew are lost; everything else stays as it is now."
                .to_owned(),
        );
    }
}

/// Words for GRUB in the MBR.
pub(super) fn boot_code(disk: &std::path::Path) -> Remade {
    Remade {
        disk: disk.to_owned(),
        what: "boot code in the MBR and in the BIOS boot partition, where there is one".to_owned(),
    }
}
