//! How the machine boots.

use serde::{Deserialize, Serialize};

use super::NodeId;

/// The firmware interface that the running system was started through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// Legacy BIOS.
    #[default]
    Bios,
    /// UEFI.
    Uefi,
}

impl std::fmt::Display for Firmware {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Firmware::Bios => "BIOS",
            Firmware::Uefi => "UEFI",
        })
    }
}

/// Boot loaders and kernels.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Secure Boot enforced; `None` when the firmware does not say.
    pub secure_boot: Option<bool>,
    /// Disks whose MBR holds GRUB for BIOS.
    pub grub_bios: Vec<GrubBios>,
    /// EFI system partitions with GRUB.
    pub grub_efi: Vec<GrubEfi>,
    /// Boot entries in the firmware's variables, in boot order, then the others.
    pub efi_entries: Vec<EfiEntry>,
    /// Command line of the running kernel.
    pub kernel_command_line: String,
    /// Release of the running kernel.
    pub running_kernel: String,
    /// Releases with a kernel in /boot, sorted.
    pub kernels: Vec<String>,
    /// Whether the package grub-pc is installed, which keeps the boot disk in debconf.
    pub grub_pc_package: bool,
    /// `MODULES=` of initramfs-tools: with `dep` the initramfs holds the drivers of the old machine only.
    pub initramfs_modules: Option<String>,
    /// EFI system partitions with systemd-boot that proxmox-boot-tool has no hand in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub systemd_boot: Vec<SystemdBoot>,
    /// EFI system partitions that proxmox-boot-tool keeps: those of `/etc/kernel/proxmox-boot-uuids` that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxmox_esps: Vec<ProxmoxEsp>,
    /// EFI system partitions that were not mounted, so that no file tree has their files, and that no tool fills: they are
    /// kept as block images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub esp_images: Vec<NodeId>,
    /// The platforms that GRUB can be installed for, by the directories in `/usr/lib/grub`: `i386-pc`, `x86_64-efi`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grub_platforms: Vec<String>,
}

/// GRUB for BIOS in the MBR of a disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrubBios {
    /// The disk.
    pub disk: NodeId,
}

/// GRUB for UEFI on an EFI system partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrubEfi {
    /// The partition's FAT filesystem; the partition itself where the filesystem is a copy of another, with the same id.
    pub esp: NodeId,
    /// Directory below `/EFI`: `debian`, `proxmox`.
    pub bootloader_id: String,
    /// Whether shim (Secure Boot) is installed beside it.
    pub shim: bool,
    /// Whether `/EFI/BOOT/BOOTX64.EFI` exists.
    pub fallback: bool,
}

/// systemd-boot on an EFI system partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemdBoot {
    /// The partition's FAT filesystem.
    pub esp: NodeId,
    /// Whether `/EFI/BOOT/BOOTX64.EFI` exists.
    pub fallback: bool,
}

/// An EFI system partition that proxmox-boot-tool copies kernels to, and what it boots them with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxmoxEsp {
    /// The partition's FAT filesystem.
    pub esp: NodeId,
    /// systemd-boot.
    pub systemd_boot: bool,
    /// GRUB for UEFI.
    pub grub_efi: bool,
    /// Whether it has GRUB's directory: for UEFI, or for BIOS where there is no GRUB for UEFI.
    pub grub: bool,
}

/// A boot entry in the firmware's variables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfiEntry {
    /// Number as in `Boot0001`.
    pub number: String,
    /// Label.
    pub label: String,
    /// Whether it is active.
    pub active: bool,
    /// PARTUUID of the partition that it names.
    pub partuuid: Option<String>,
    /// Loader file with backslashes.
    pub loader: Option<String>,
}
