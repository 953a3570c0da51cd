//! What makes the restored machine boot.

use std::collections::BTreeSet;
use std::path::Path;

use super::Step;
use super::build::Builder;
use crate::capture::mounts::is_fragile;
use crate::model::{Firmware, Node, NodeId, Segments};

impl Builder<'_> {
    /// fstab, initramfs, boot loaders.
    pub(super) fn boot(&mut self) {
        let boot = &self.saved.boot;
        let replace = self.fstab_replacements();
        if self
            .saved
            .mount_at(Path::new("/"))
            .is_some_and(|m| self.relevant.contains(&m.node))
        {
            let switch_off = self.left_out_of_fstab();
            self.steps.push(Step::UpdateFstab {
                replace,
                switch_off,
            });
            let replace = self.crypttab_replacements();
            if !replace.is_empty() {
                self.steps.push(Step::UpdateCrypttab { replace });
            }
        }
        let waits_for_swap = self
            .fit
            .left_out()
            .iter()
            .any(|id| matches!(self.saved.nodes.get(id), Some(Node::Swap(_))));
        if waits_for_swap && !boot.kernels.is_empty() {
            let reason = "it may wait for a swap area that is left out".to_owned();
            self.steps.push(Step::UpdateInitramfs { reason });
        } else if boot.initramfs_modules.as_deref() == Some("dep") && !boot.kernels.is_empty() {
            let reason = "it holds the drivers of the saved machine only (MODULES=dep)".to_owned();
            self.steps.push(Step::UpdateInitramfs { reason });
        } else if !boot.kernels.is_empty() {
            self.notes.push(
                "The initramfs is kept as saved: UUIDs and volume names stay the same and it holds all drivers.".to_owned(),
            );
        }
        let mut any = false;
        for grub in &boot.grub_bios {
            if let Some(disk) = self.assignment(&grub.disk).cloned() {
                let modules = self.grub_modules();
                self.steps.push(Step::GrubBios {
                    device: disk.device,
                    modules,
                });
                any = true;
            }
        }
        let mut entries = Vec::new();
        for grub in &boot.grub_efi {
            let Some(mount) = self
                .saved
                .mounts
                .iter()
                .find(|m| m.node == grub.esp && self.relevant.contains(&m.node))
            else {
                continue;
            };
            self.steps.push(Step::GrubEfi {
                esp: mount.mount_point.clone(),
                bootloader_id: grub.bootloader_id.clone(),
                shim: grub.shim,
            });
            if !grub.fallback {
                self.notes.push("The fallback loader /EFI/BOOT/BOOTX64.EFI is added, so that any firmware boots it.".to_owned());
                self.accept(
                    &NodeId::new("boot"),
                    "grub_efi",
                    "the fallback loader is added",
                );
            }
            entries.extend(self.efi_entry(&grub.esp, &grub.bootloader_id, grub.shim));
            any = true;
        }
        if any {
            self.steps.push(Step::GrubConfig);
        } else {
            self.notes.push(
                "No boot loader is restored: the saved host had none that this version knows."
                    .to_owned(),
            );
        }
        if self.inventory.firmware == Firmware::Uefi {
            self.steps.extend(entries);
        }
        self.firmware_note(any);
    }

    fn firmware_note(&mut self, any: bool) {
        let boot = &self.saved.boot;
        let note = match self.inventory.firmware {
            Firmware::Uefi if any && boot.grub_efi.is_empty() => {
                "This machine was started through UEFI, the saved host boots through BIOS only: switch the firmware to legacy \
                 boot (CSM) before the restart."
            }
            Firmware::Bios if any && boot.grub_bios.is_empty() => {
                "This machine was started through BIOS, the saved host boots through UEFI only: switch the firmware to UEFI \
                 before the restart. It then finds the fallback loader."
            }
            _ => return,
        };
        self.notes.push(note.to_owned());
    }

    /// An entry per partition that holds the EFI system partition: several when it is mirrored.
    fn efi_entry(&self, esp: &NodeId, id: &str, shim: bool) -> Vec<Step> {
        let Some(on) = self
            .saved
            .nodes
            .get(esp)
            .and_then(|n| n.on().into_iter().next())
        else {
            return Vec::new();
        };
        let partitions = match self.saved.nodes.get(&on) {
            Some(Node::RaidArray(array)) => array
                .slots()
                .iter()
                .flatten()
                .map(|m| m.on.clone())
                .collect(),
            _ => vec![on],
        };
        let entries = partitions
            .iter()
            .filter_map(|on| self.efi_entry_on(on, id, shim));
        entries.collect()
    }

    fn efi_entry_on(&self, on: &NodeId, id: &str, shim: bool) -> Option<Step> {
        let Some(Node::Partition(part)) = self.saved.nodes.get(on) else {
            return None;
        };
        let disk = self.assignment(&part.on)?;
        let loader = format!(
            "\\EFI\\{id}\\{}",
            if shim { "shimx64.efi" } else { "grubx64.efi" }
        );
        let old = self.saved.boot.efi_entries.iter().find(|e| {
            e.partuuid.as_deref() == Some(&part.partuuid)
                && e.loader.as_deref().is_some_and(|l| {
                    l.to_lowercase()
                        .contains(&format!("\\{}\\", id.to_lowercase()))
                })
        });
        Some(Step::EfiBootEntry {
            device: disk.device.clone(),
            partition: part.number,
            partuuid: part.partuuid.clone(),
            label: old.map_or_else(|| id.to_owned(), |e| e.label.clone()),
            loader,
        })
    }

    /// Modules with which GRUB finds /boot on any kind of disk: on some, grub-install does not find out itself.
    fn grub_modules(&self) -> Vec<String> {
        let boot = ["/boot", "/"]
            .iter()
            .find_map(|at| self.saved.mount_at(Path::new(at)));
        let mut modules = self.table_modules(boot.map(|m| &m.node));
        if let Some((id, node)) = boot.and_then(|m| self.saved.nodes.get_key_value(&m.node)) {
            for below in self.below(id) {
                // GRUB's own recovery of parity (grub: grub-core/disk/raid{5,6}_recover.c).
                let rebuilt = |level: &str| match level.get(..5) {
                    Some("raid4" | "raid5") => Some("raid5rec"),
                    Some("raid6") => Some("raid6rec"),
                    _ => None,
                };
                let needed = match below {
                    Node::LogicalVolume(lv) => match &lv.segments {
                        Segments::Raid { level, .. } => [Some("lvm"), rebuilt(level)],
                        _ => [Some("lvm"), None],
                    },
                    Node::RaidArray(array) => [Some("mdraid1x"), rebuilt(&array.level)],
                    // /boot itself is encrypted.
                    Node::Luks(luks) if luks.version == 1 => [Some("cryptodisk"), Some("luks")],
                    Node::Luks(_) => [Some("cryptodisk"), Some("luks2")],
                    _ => [None, None],
                };
                for module in needed.into_iter().flatten() {
                    if !modules.iter().any(|m| m == module) {
                        modules.push(module.to_owned());
                    }
                }
            }
            modules.push(
                match node {
                    Node::Xfs(_) => "xfs",
                    Node::Btrfs(_) => "btrfs",
                    _ => "ext2",
                }
                .to_owned(),
            );
        }
        modules
    }

    /// Everything below a node.
    fn below(&self, id: &NodeId) -> Vec<&Node> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![id.clone()];
        let mut found = Vec::new();
        while let Some(id) = todo.pop() {
            for on in self.saved.nodes.get(&id).map(Node::on).unwrap_or_default() {
                if seen.insert(on.clone()) {
                    found.extend(self.saved.nodes.get(&on));
                    todo.push(on);
                }
            }
        }
        found
    }

    /// First fields of the fstab lines of swap areas that are left out: at each start they would be waited for.
    fn left_out_of_fstab(&self) -> Vec<String> {
        let left_out = self.fit.left_out().iter();
        let mut specs: Vec<String> = left_out
            .filter_map(|id| match self.saved.nodes.get(id) {
                Some(Node::Swap(swap)) => Some(swap.fstab.as_ref()?.spec.clone()),
                _ => None,
            })
            .collect();
        specs.sort();
        specs.dedup();
        specs
    }

    /// Names of devices that another disk does not have, and what to write instead.
    fn fstab_replacements(&self) -> Vec<(String, String)> {
        let mut replace = Vec::new();
        let mounts = self
            .saved
            .mounts
            .iter()
            .filter_map(|m| Some((&m.node, m.fstab.as_ref()?)));
        let swaps = self.saved.nodes.iter().filter_map(|(id, node)| match node {
            Node::Swap(swap) => Some((id, swap.fstab.as_ref()?)),
            _ => None,
        });
        for (id, entry) in mounts.chain(swaps) {
            if !is_fragile(entry) || !self.relevant.contains(id) {
                continue;
            }
            let uuid = match self.saved.nodes.get(id) {
                Some(Node::Swap(swap)) => Some(swap.uuid.clone()),
                Some(node) => node.filesystem().map(|fs| fs.uuid.to_owned()),
                None => None,
            };
            if let Some(uuid) = uuid {
                replace.push((entry.spec.clone(), format!("UUID={uuid}")));
            }
        }
        // Names that fstab does not have, but the kernel's command line may.
        for id in &self.relevant {
            let uuid = match self.saved.nodes.get(id) {
                Some(Node::Swap(swap)) => &swap.uuid,
                Some(node) => match node.filesystem() {
                    Some(fs) => fs.uuid,
                    None => continue,
                },
                None => continue,
            };
            let on = self.saved.nodes.get(id).map(Node::on).unwrap_or_default();
            for on in on {
                if let Some(Node::Partition(part)) = self.saved.nodes.get(&on) {
                    let name = part.device.display().to_string();
                    replace.push((name, format!("UUID={uuid}")));
                }
            }
        }
        replace.sort();
        replace.dedup();
        replace
    }
}
