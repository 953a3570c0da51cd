//! GRUB and systemd-boot for UEFI: on every EFI system partition that had them, mounted or not.

use std::path::{Path, PathBuf};

use crate::capture::esp::is_esp;
use crate::model::{Firmware, Node, NodeId};
use crate::plan::Step;
use crate::plan::build::Builder;

/// Where distributions mount the EFI system partition.
const USUAL: &str = "/boot/efi";

/// Where an EFI system partition is while GRUB is installed on it.
pub(super) struct Place {
    /// Mount point.
    pub at: PathBuf,
    /// The partition, when it is mounted for that time only.
    device: Option<PathBuf>,
}

impl Builder<'_> {
    /// GRUB, and the entries for the firmware's variables. `new`: partitions that had none before.
    pub(super) fn grub_efi(&mut self, new: &[NodeId]) -> (bool, Vec<Step>) {
        let saved = self.saved;
        let boot = &saved.boot;
        let mut entries = Vec::new();
        let mut any = false;
        if self.has_platform("x86_64-efi") == Some(false) && !boot.grub_efi.is_empty() {
            self.notes.push(
                "GRUB for UEFI comes back as files only: the saved host did not have its modules (package \
                 grub-efi-amd64-bin)."
                    .to_owned(),
            );
            return (false, entries);
        }
        for grub in &boot.grub_efi {
            let Some(place) = self.esp_place(&grub.esp) else {
                continue;
            };
            self.steps.push(Step::GrubEfi {
                esp: place.at,
                device: place.device,
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
            let file = if grub.shim {
                "shimx64.efi"
            } else {
                "grubx64.efi"
            };
            entries.extend(self.efi_entries(&grub.esp, &grub.bootloader_id, file));
            any = true;
        }
        let id = self.distributor();
        for esp in new {
            let Some(place) = self.esp_place(esp) else {
                continue;
            };
            self.steps.push(Step::GrubEfi {
                esp: place.at,
                device: place.device,
                bootloader_id: id.to_owned(),
                shim: false,
            });
            entries.extend(self.efi_entries(esp, id, "grubx64.efi"));
            any = true;
        }
        if !new.is_empty() {
            let why =
                "this machine was started through UEFI, and the saved host boots through BIOS";
            self.accept(&NodeId::new("boot"), "grub_efi", why);
            self.notes.push(
                "This machine was started through UEFI, and the saved host boots through BIOS: GRUB for UEFI is installed as \
                 well. Secure Boot has to be off unless the host has the packages grub-efi-amd64-signed and shim-signed. On \
                 the restored host, install the package grub-efi-amd64 in place of grub-pc, so that updates reach it."
                    .to_owned(),
            );
        }
        (any, entries)
    }

    /// Boot entries for systemd-boot, whose files come back with the others.
    pub(super) fn systemd_boot(&self) -> Vec<Step> {
        let list = self.saved.boot.systemd_boot.iter();
        list.filter(|s| self.relevant.contains(&s.esp))
            .flat_map(|s| self.efi_entries(&s.esp, "systemd", "systemd-bootx64.efi"))
            .collect()
    }

    /// Where GRUB can be installed on an EFI system partition.
    fn esp_place(&self, esp: &NodeId) -> Option<Place> {
        if !self.relevant.contains(esp) {
            return None;
        }
        if let Some(mount) = self
            .saved
            .mounts
            .iter()
            .find(|m| m.mounted && m.node == *esp)
        {
            return Some(Place {
                at: mount.mount_point.clone(),
                device: None,
            });
        }
        let device = match self.saved.nodes.get(esp)? {
            Node::Vfat(fs) => self.devices.get(&fs.on),
            // A copy of another one.
            _ => self.devices.get(esp),
        };
        Some(Place {
            at: USUAL.into(),
            device: Some(device?.clone()),
        })
    }

    /// The EFI system partitions of a host that boots through BIOS, when this machine was started through UEFI.
    pub(super) fn esps_for_uefi(&self) -> Vec<NodeId> {
        let boot = &self.saved.boot;
        let none = boot.grub_efi.is_empty()
            && boot.systemd_boot.is_empty()
            && boot.proxmox_esps.is_empty()
            && boot
                .grub_bios
                .iter()
                .any(|g| self.assignment(&g.disk).is_some());
        if self.inventory.firmware != Firmware::Uefi
            || !none
            || self.has_platform("x86_64-efi") != Some(true)
        {
            return Vec::new();
        }
        let found = self.saved.nodes.iter().filter(|(id, node)| match node {
            Node::Vfat(fs) => {
                let on = self.saved.nodes.get(&fs.on);
                matches!(on, Some(Node::Partition(p)) if is_esp(p)) && self.relevant.contains(*id)
            }
            _ => false,
        });
        found.map(|(id, _)| id.clone()).collect()
    }

    /// The line of fstab for the first of these partitions, unless it has one.
    pub(super) fn line_of_esp(&self, new: &[NodeId]) -> Option<String> {
        let known = |id: &NodeId| self.saved.mounts.iter().any(|m| m.node == *id);
        if new.iter().any(known) || self.saved.mount_at(Path::new(USUAL)).is_some() {
            return None;
        }
        let fs = self.saved.nodes.get(new.first()?)?.filesystem()?;
        Some(format!("UUID={} {USUAL} vfat umask=0077 0 1", fs.uuid))
    }

    /// In words.
    pub(super) fn why_no_uefi(&self) -> &'static str {
        match self.has_platform("x86_64-efi") {
            Some(true) => "there is no EFI system partition, and no room for one",
            Some(false) => "the saved host does not have its modules (package grub-efi-amd64-bin)",
            None => "nothing is known of the saved host's GRUB",
        }
    }

    /// What the host's packages call their directory on the partition.
    fn distributor(&self) -> &'static str {
        let proxmox = |kernel: &String| kernel.ends_with("-pve");
        if self.saved.boot.kernels.iter().any(proxmox) {
            "proxmox"
        } else {
            "debian"
        }
    }

    /// An entry per partition that holds the EFI system partition: several when it is mirrored.
    pub(in crate::plan) fn efi_entries(&self, esp: &NodeId, id: &str, file: &str) -> Vec<Step> {
        let on = match self.saved.nodes.get(esp) {
            Some(Node::Partition(_)) => vec![esp.clone()],
            Some(node) => node.on(),
            None => Vec::new(),
        };
        let Some(on) = on.into_iter().next() else {
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
            .filter_map(|on| self.efi_entry_on(on, id, file));
        entries.collect()
    }

    fn efi_entry_on(&self, on: &NodeId, id: &str, file: &str) -> Option<Step> {
        let Some(Node::Partition(part)) = self.saved.nodes.get(on) else {
            return None;
        };
        let disk = self.assignment(&part.on)?;
        let old = self.saved.boot.efi_entries.iter().find(|e| {
            e.partuuid.as_deref() == Some(&part.partuuid)
                && e.loader.as_deref().is_some_and(|l| {
                    l.to_lowercase()
                        .contains(&format!("\\{}\\", id.to_lowercase()))
                })
        });
        let usual = match id {
            "systemd" => "Linux Boot Manager",
            other => other,
        };
        Some(Step::EfiBootEntry {
            device: disk.device.clone(),
            partition: part.number,
            partuuid: part.partuuid.clone(),
            label: old.map_or_else(|| usual.to_owned(), |e| e.label.clone()),
            loader: format!("\\EFI\\{id}\\{file}"),
        })
    }
}
