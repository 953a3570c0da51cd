//! Boot repair: the EFI system partition, boot code, boot entries; the installed system is only looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::assign::{boot_mount, needs_boot_code};
use super::system::boot_code;
use super::{Draft, Remade, refusal};
use crate::inventory::{Inventory, Present};
use crate::model::{Firmware, GrubEfi, Layout, Mount, Node, NodeId, types};
use crate::plan::{Choices, DiskAssignment, Plan, PlanError, Step};

pub(super) fn plan(
    saved: &Layout,
    inventory: &Inventory,
    present: &Present,
    choices: &Choices,
    disks: Vec<DiskAssignment>,
) -> Result<Plan, PlanError> {
    let loaders = &saved.boot;
    if loaders.grub_efi.is_empty() && loaders.grub_bios.is_empty() {
        let other = !loaders.systemd_boot.is_empty() || !loaders.proxmox_esps.is_empty();
        let reason = if other {
            "the saved host is started by systemd-boot or by what proxmox-boot-tool keeps, which this version does not \
             repair in place (from the shell: proxmox-boot-tool reinit and refresh, or bootctl install, in a chroot)"
        } else {
            "the saved host had no boot loader that this version knows"
        };
        return Err(refusal(choices.mode, vec![reason.to_owned()]));
    }
    let code = needs_boot_code(saved, inventory);
    let mut draft = Draft::new(saved, inventory, present, choices, disks, true);
    let looked_at = draft.looked_at(code);
    let mut esps: Vec<(&Mount, &GrubEfi)> = Vec::new();
    for grub in &loaders.grub_efi {
        let mount = saved
            .mounts
            .iter()
            .find(|m| m.node == grub.esp && m.mounted);
        match mount {
            Some(mount) => {
                draft.find_esp(mount);
                esps.push((mount, grub));
            }
            None => draft.builder.notes.push(format!(
                "{} was not mounted when the backup was made, which has no files of it: it is left as it is.",
                grub.esp
            )),
        }
    }
    let coded: Vec<PathBuf> = draft.boot_code_disks(code);
    if esps.is_empty() && coded.is_empty() && draft.ground.problems.is_empty() {
        let reason = "the backup has no files of any EFI system partition".to_owned();
        return Err(refusal(choices.mode, vec![reason]));
    }
    draft.open()?;
    for mount in &looked_at {
        draft.look_at(mount);
    }
    if looked_at.is_empty() {
        draft.builder.notes.push(
            "The installed system is not looked at (it is encrypted, or not of a kind that is known): that the boot loader \
             finds it is not checked."
                .to_owned(),
        );
    } else {
        draft.builder.steps.push(Step::CheckBoot {
            code: !coded.is_empty(),
        });
    }
    let (mut remade, mut compared) = (Vec::new(), BTreeSet::from([NodeId::new("boot")]));
    let mut seen: Vec<&NodeId> = Vec::new();
    for (mount, grub) in &esps {
        if !seen.contains(&&mount.node) {
            seen.push(&mount.node);
            let mut esp = draft.remade_filesystem(mount);
            esp.what.push_str(&match draft.other_fat(mount) {
                Some(other) => format!(
                    " (the FAT {other} that is there is not the saved one: it is erased with all that is in it)"
                ),
                None => " (files of the backup are written over those there; a damaged filesystem is made anew)".to_owned(),
            });
            remade.push(esp);
            draft.fill_esp(mount);
            compared.insert(mount.node.clone());
        }
        if !looked_at.is_empty() {
            draft.builder.steps.push(Step::GrubFromHost {
                esp: mount.mount_point.clone(),
                bootloader_id: grub.bootloader_id.clone(),
                shim: grub.shim,
            });
        }
    }
    for disk in &coded {
        remade.push(boot_code(disk));
        draft.builder.steps.push(Step::BootCode {
            device: disk.clone(),
        });
    }
    if inventory.firmware == Firmware::Uefi {
        for (_, grub) in &esps {
            let file = if grub.shim {
                "shimx64.efi"
            } else {
                "grubx64.efi"
            };
            let entries = draft
                .builder
                .efi_entries(&grub.esp, &grub.bootloader_id, file);
            draft.builder.steps.extend(entries);
        }
        remade.extend(esps.first().map(|(mount, _)| Remade {
            disk: draft.disk_of(&mount.node),
            what: "boot entries of the firmware that are missing".to_owned(),
        }));
    }
    draft.builder.firmware_note(true);
    draft.builder.steps.push(Step::Unmount);
    draft.take_down();
    draft.finish(remade, compared)
}

impl Draft<'_> {
    /// What of the installed system is mounted to be looked at: its root, and `/boot` where that is a filesystem of its
    /// own. None when a key would be needed for nothing else.
    fn looked_at(&mut self, code: bool) -> Vec<Mount> {
        let saved = self.builder.saved;
        let mut wanted: Vec<&Mount> = saved.mount_at(Path::new("/")).into_iter().collect();
        if let Some(boot) = boot_mount(saved).filter(|m| m.mount_point != Path::new("/")) {
            wanted.push(boot);
        }
        let known = |mount: &Mount| {
            matches!(
                saved.nodes.get(&mount.node),
                Some(Node::Ext4(_) | Node::Xfs(_))
            )
        };
        let sealed = |mount: &Mount| self.needs_key(&mount.node);
        if !code {
            // GRUB's configuration is in /boot; the root is looked at for GRUB's own files, which may be newer there.
            let seen = |m: &&Mount| known(m) && !sealed(m);
            let boot = boot_mount(saved).filter(|m| seen(m));
            wanted.retain(|m| seen(m));
            if boot.is_none_or(|boot| !wanted.contains(&boot)) {
                return Vec::new();
            }
        }
        if let Some(mount) = wanted.iter().find(|m| !known(m)) {
            self.ground.problems.push(format!(
                "the boot code is made of files of the installed system, and the filesystem of {} is {}, which this version \
                 does not look at in place",
                mount.mount_point.display(),
                mount.fstype
            ));
            return Vec::new();
        }
        for mount in &wanted {
            let on = saved
                .nodes
                .get(&mount.node)
                .and_then(|n| n.on().into_iter().next());
            let spot = on.as_ref().and_then(|on| self.ground.locate(on));
            if let (Some(Node::Partition(_)), Some(spot)) =
                (on.as_ref().and_then(|on| saved.nodes.get(on)), spot)
            {
                self.ground.only_read(&spot.device);
            }
        }
        wanted.into_iter().cloned().collect()
    }

    fn needs_key(&self, id: &NodeId) -> bool {
        let saved = self.builder.saved;
        let mut todo = vec![id.clone()];
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            let Some(node) = saved.nodes.get(&id).filter(|_| seen.insert(id.clone())) else {
                continue;
            };
            if matches!(node, Node::Luks(_)) {
                return true;
            }
            todo.extend(node.on());
        }
        false
    }

    fn find_esp(&mut self, mount: &Mount) {
        let fs = self
            .builder
            .saved
            .nodes
            .get(&mount.node)
            .and_then(Node::filesystem);
        let Some(fs) = fs else { return };
        let (on, size) = (fs.on.clone(), fs.size);
        let Some(spot) = self.ground.place(&on, &mount.mount_point) else {
            return;
        };
        if let Some(other) = self.ground.other_filesystem(&spot.device) {
            self.ground.problems.push(format!(
                "{} should be the EFI system partition, and holds {other}",
                spot.device.display()
            ));
        }
        if let Some(now) = spot.size.filter(|now| *now < size) {
            self.ground.problems.push(format!(
                "{} has {now} now, and the EFI system partition needs {size}",
                spot.device.display()
            ));
        }
    }

    /// Another FAT than the saved one at the place of an EFI system partition.
    fn other_fat(&self, mount: &Mount) -> Option<&str> {
        let fs = self.builder.saved.nodes.get(&mount.node)?.filesystem()?;
        let device = self.builder.devices.get(fs.on)?;
        self.ground.other_fat(device, fs.uuid)
    }

    /// The disks that get boot code; their BIOS boot partitions are written to.
    fn boot_code_disks(&mut self, code: bool) -> Vec<PathBuf> {
        let mut disks = Vec::new();
        if !code {
            return disks;
        }
        for grub in &self.builder.saved.boot.grub_bios {
            let Some(disk) = self.builder.assignment(&grub.disk) else {
                continue;
            };
            let device = disk.device.clone();
            for part in self.ground.partitions_on(&device) {
                if part.type_guid.eq_ignore_ascii_case(types::BIOS_BOOT) {
                    self.ground.use_partition(part);
                }
            }
            disks.push(device);
        }
        disks
    }

    fn disk_of(&self, id: &NodeId) -> PathBuf {
        let below = self.builder.saved.disks_below(id);
        let disk = self.builder.disks.iter().find(|d| below.contains(&d.saved));
        disk.map_or_else(PathBuf::new, |d| d.device.clone())
    }

    fn look_at(&mut self, mount: &Mount) {
        let fs = self
            .builder
            .saved
            .nodes
            .get(&mount.node)
            .and_then(Node::filesystem);
        let Some(fs) = fs else { return };
        if let Some(device) = self.builder.devices.get(fs.on).cloned() {
            self.builder.steps.push(Step::MountReadOnly {
                device,
                fstype: fs.fstype.to_owned(),
                uuid: fs.uuid.to_owned(),
                mount_point: mount.mount_point.clone(),
            });
        }
    }

    fn fill_esp(&mut self, mount: &Mount) {
        let Some(Node::Vfat(fs)) = self.builder.saved.nodes.get(&mount.node) else {
            return;
        };
        let Some(device) = self.builder.devices.get(&fs.on).cloned() else {
            return;
        };
        let mount_point = mount.mount_point.clone();
        self.builder.steps.push(Step::KeepVfat {
            device: device.clone(),
            fs: fs.clone(),
        });
        self.builder.steps.push(Step::Mount {
            device,
            fstype: mount.fstype.clone(),
            mount_point: mount_point.clone(),
        });
        self.builder.steps.push(Step::RestoreTree { mount_point });
    }
}
