//! EFI system partitions that proxmox-boot-tool keeps: made anew and filled by the restored host's own tool.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::{Firmware, Node, NodeId, ProxmoxEsp};
use crate::plan::build::Builder;

/// An EFI system partition to be set up by proxmox-boot-tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedEsp {
    /// The partition.
    pub device: PathBuf,
    /// Its volume id, by which the tool lists it.
    pub uuid: String,
    /// What is to boot from it.
    pub mode: ProxmoxMode,
}

/// What proxmox-boot-tool installs on a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxmoxMode {
    /// systemd-boot.
    SystemdBoot,
    /// GRUB for UEFI.
    GrubEfi,
    /// GRUB for BIOS.
    GrubBios,
    /// systemd-boot where the restored host has it, else GRUB for UEFI: the saved host was started through BIOS.
    Uefi,
}

impl Builder<'_> {
    pub(super) fn proxmox_esps(&mut self) -> Vec<PlannedEsp> {
        let saved = self.saved;
        let mut planned = Vec::new();
        let mut differs = false;
        for esp in &saved.boot.proxmox_esps {
            let Some(Node::Vfat(fs)) = saved.nodes.get(&esp.esp) else {
                continue;
            };
            let Some(device) = self
                .devices
                .get(&fs.on)
                .filter(|_| self.relevant.contains(&esp.esp))
            else {
                continue;
            };
            let mode = mode(esp, self.inventory.firmware);
            let disks = saved.disks_below(&esp.esp);
            if mode == ProxmoxMode::GrubBios && !disks.iter().all(|d| self.has_room_for_core(d)) {
                self.notes.push(format!(
                    "This machine was started through BIOS, and there is no BIOS boot partition beside {}: nothing is installed \
                     there. Start the stick through UEFI instead, and restore again.",
                    device.display()
                ));
                continue;
            }
            differs |= result(esp, mode).as_ref() != Some(esp);
            planned.push(PlannedEsp {
                device: device.clone(),
                uuid: fs.uuid.clone(),
                mode,
            });
        }
        if planned.is_empty() {
            return planned;
        }
        let why = "proxmox-boot-tool installs the loader for the firmware that this machine was started through";
        let boot = NodeId::new("boot");
        if differs {
            self.accept(&boot, "proxmox_esps", why);
        }
        // It writes the MBR of the disk with BIOS only.
        self.accept(&boot, "grub_bios", why);
        if saved.firmware != self.inventory.firmware {
            self.notes.push(format!(
                "The saved host was started through {}, this machine through {}: proxmox-boot-tool sets its partitions up for \
                 {}.",
                saved.firmware, self.inventory.firmware, self.inventory.firmware
            ));
        }
        planned
    }
}

fn mode(esp: &ProxmoxEsp, firmware: Firmware) -> ProxmoxMode {
    match firmware {
        Firmware::Bios => ProxmoxMode::GrubBios,
        Firmware::Uefi if esp.grub_efi => ProxmoxMode::GrubEfi,
        Firmware::Uefi if esp.systemd_boot => ProxmoxMode::SystemdBoot,
        Firmware::Uefi => ProxmoxMode::Uefi,
    }
}

/// What will be on the partition; `None`: that depends on what the restored host has.
fn result(esp: &ProxmoxEsp, mode: ProxmoxMode) -> Option<ProxmoxEsp> {
    let (systemd_boot, grub_efi, grub) = match mode {
        ProxmoxMode::SystemdBoot => (true, false, false),
        ProxmoxMode::GrubEfi => (false, true, true),
        ProxmoxMode::GrubBios => (false, false, true),
        ProxmoxMode::Uefi => return None,
    };
    Some(ProxmoxEsp {
        esp: esp.esp.clone(),
        systemd_boot,
        grub_efi,
        grub,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_decides_what_is_installed() {
        let esp = |systemd_boot, grub_efi, grub| ProxmoxEsp {
            esp: NodeId::fs("A"),
            systemd_boot,
            grub_efi,
            grub,
        };
        for (saved, firmware, expected, same) in [
            (
                esp(true, false, false),
                Firmware::Uefi,
                ProxmoxMode::SystemdBoot,
                true,
            ),
            (
                esp(false, true, true),
                Firmware::Uefi,
                ProxmoxMode::GrubEfi,
                true,
            ),
            (
                esp(false, false, true),
                Firmware::Bios,
                ProxmoxMode::GrubBios,
                true,
            ),
            (
                esp(false, false, true),
                Firmware::Uefi,
                ProxmoxMode::Uefi,
                false,
            ),
            (
                esp(true, false, false),
                Firmware::Bios,
                ProxmoxMode::GrubBios,
                false,
            ),
            // Set up under both: the other one goes.
            (
                esp(true, false, true),
                Firmware::Uefi,
                ProxmoxMode::SystemdBoot,
                false,
            ),
        ] {
            let mode = mode(&saved, firmware);
            assert_eq!(mode, expected, "{saved:?} {firmware}");
            assert_eq!(result(&saved, mode).as_ref() == Some(&saved), same);
        }
    }
}
