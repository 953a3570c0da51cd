//! What makes the restored machine boot.

mod bios;
mod efi;
mod names;
mod proxmox;
pub(super) mod room;

pub use proxmox::{PlannedEsp, ProxmoxMode};

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Step;
use super::build::Builder;
use crate::model::{Firmware, Node, NodeId};

impl Builder<'_> {
    /// Names of devices, initramfs, boot loaders.
    pub(super) fn boot(&mut self) {
        let new_esps = self.esps_for_uefi();
        let changed = self.follow_names(&new_esps);
        self.initramfs(changed);
        let proxmox = self.proxmox_esps();
        let mut grub = self.grub_bios(&proxmox);
        let (more, entries) = self.grub_efi(&new_esps);
        grub |= more;
        if grub {
            self.steps.push(Step::GrubConfig);
        }
        let systemd = self.systemd_boot();
        let boots = grub || !proxmox.is_empty() || !systemd.is_empty();
        if !boots {
            let boot = &self.saved.boot;
            let had = !boot.grub_bios.is_empty()
                || !boot.grub_efi.is_empty()
                || !boot.systemd_boot.is_empty()
                || !boot.proxmox_esps.is_empty();
            let why = match had {
                true => {
                    "that of the saved host cannot be installed here, and without one the machine does not start"
                }
                false => "the saved host had none that this version knows",
            };
            self.notes
                .push(format!("No boot loader is restored: {why}."));
        }
        if self.inventory.firmware == Firmware::Uefi {
            self.steps.extend(entries);
            self.steps.extend(systemd);
        }
        if !proxmox.is_empty() {
            self.steps.push(Step::ProxmoxBoot { esps: proxmox });
        }
        self.firmware_note(boots);
    }

    fn restores_root(&self) -> bool {
        self.saved
            .mount_at(Path::new("/"))
            .is_some_and(|m| self.relevant.contains(&m.node))
    }

    /// `changed`: why its copies of configuration files are stale.
    fn initramfs(&mut self, changed: Option<&str>) {
        let boot = &self.saved.boot;
        if boot.kernels.is_empty() {
            return;
        }
        let waits_for_swap = self
            .fit
            .left_out()
            .iter()
            .any(|id| matches!(self.saved.nodes.get(id), Some(Node::Swap(_))))
            || !self.switch_off.is_empty();
        let reason = if waits_for_swap {
            Some("it may wait for a swap area that is left out")
        } else if self.root_on_zfs() {
            Some("it tells where the devices of the saved pool were")
        } else if boot.initramfs_modules.as_deref() == Some("dep") {
            Some("it holds the drivers of the saved machine only (MODULES=dep)")
        } else {
            changed
        };
        let devices = self.disks_on_other_buses();
        let list = boot.initramfs_modules.as_deref() == Some("list") && !devices.is_empty();
        if list {
            self.steps.push(Step::InitramfsDrivers { devices });
        }
        if let Some(reason) = reason {
            self.steps.push(Step::UpdateInitramfs {
                reason: reason.to_owned(),
            });
        } else if !list {
            self.notes.push(
                "The initramfs is kept as saved: UUIDs and volume names stay the same and it holds all drivers.".to_owned(),
            );
        }
    }

    /// Assigned disks that are attached in another way than the saved ones were.
    fn disks_on_other_buses(&self) -> Vec<PathBuf> {
        let other = self.disks.iter().filter(|assigned| {
            let now = self
                .inventory
                .disks
                .iter()
                .find(|d| d.device == assigned.device)
                .and_then(|d| d.transport.as_ref());
            match self.saved.nodes.get(&assigned.saved) {
                Some(Node::Disk(saved)) => saved.transport.as_ref() != now,
                _ => false,
            }
        });
        other.map(|d| d.device.clone()).collect()
    }

    pub(in crate::plan) fn firmware_note(&mut self, any: bool) {
        let boot = &self.saved.boot;
        let installs = |wanted: fn(&Step) -> bool| self.steps.iter().any(wanted);
        let uefi = installs(|s| {
            matches!(
                s,
                Step::GrubEfi { .. } | Step::ProxmoxBoot { .. } | Step::GrubFromHost { .. }
            )
        }) || !boot.systemd_boot.is_empty();
        let bios = installs(|s| {
            matches!(
                s,
                Step::GrubBios { .. } | Step::ProxmoxBoot { .. } | Step::BootCode { .. }
            )
        });
        let note = match self.inventory.firmware {
            Firmware::Uefi if any && !uefi => format!(
                "This machine was started through UEFI, the saved host boots through BIOS only, and GRUB for UEFI cannot be \
                 installed: {}. Switch the firmware to legacy boot (CSM) before the restart.",
                self.why_no_uefi()
            ),
            Firmware::Bios if any && !bios => format!(
                "This machine was started through BIOS, the saved host boots through UEFI only, and GRUB for BIOS cannot be \
                 installed: {}. Switch the firmware to UEFI before the restart. It then finds the fallback loader.",
                self.why_no_bios()
            ),
            _ => return,
        };
        self.notes.push(note);
    }

    /// Whether the restored host has GRUB's modules for a platform. Restore points of earlier releases do not say.
    fn has_platform(&self, name: &str) -> Option<bool> {
        let platforms = &self.saved.boot.grub_platforms;
        (!platforms.is_empty()).then(|| platforms.iter().any(|p| p == name))
    }

    /// The filesystem that holds `/boot`.
    fn boot_filesystem(&self) -> Option<&NodeId> {
        ["/boot", "/"]
            .iter()
            .find_map(|at| self.saved.mount_at(Path::new(at)))
            .map(|m| &m.node)
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
}
