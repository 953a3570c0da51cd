//! GRUB for BIOS: in the MBR, its core in the BIOS boot partition or behind the MBR.

use super::PlannedEsp;
use crate::model::{Firmware, Layout, Node, NodeId, Segments, Table, types};
use crate::plan::Step;
use crate::plan::build::Builder;
use crate::units::Bytes;

/// What GRUB's core needs behind the MBR, where there is no partition for it: the space that partitioning tools leave.
const CORE: Bytes = Bytes::MIB;

/// Whether GRUB's core has a place on a disk.
fn has_room_for_core(saved: &Layout, id: &NodeId) -> bool {
    let Some(Node::Disk(disk)) = saved.nodes.get(id) else {
        return false;
    };
    let parts = saved.partitions(id);
    match disk.table {
        Some(Table::Gpt(_)) => parts.iter().any(|(_, p)| p.type_guid == types::BIOS_BOOT),
        Some(Table::Mbr(_)) => parts
            .iter()
            .all(|(_, p)| p.start.offset(p.sector_size) >= CORE),
        None => false,
    }
}

/// Whether the code in an MBR is of no use: the host boots through UEFI, and GRUB for BIOS could not be installed on it. Tools
/// that write partition tables keep the code of whatever was on the disk before.
pub(super) fn is_leftover(saved: &Layout, disk: &NodeId) -> bool {
    let boot = &saved.boot;
    let platforms = &boot.grub_platforms;
    let without = !platforms.is_empty() && !platforms.iter().any(|p| p == "i386-pc");
    (!boot.grub_efi.is_empty() || !boot.systemd_boot.is_empty())
        && (without || !has_room_for_core(saved, disk))
}

impl Builder<'_> {
    /// A step for each disk that had GRUB. proxmox-boot-tool sees to the disks of its own partitions.
    pub(super) fn grub_bios(&mut self, proxmox: &[PlannedEsp]) -> bool {
        let kept: Vec<NodeId> = self
            .saved
            .boot
            .proxmox_esps
            .iter()
            .flat_map(|esp| self.saved.disks_below(&esp.esp))
            .collect();
        let mut disks: Vec<NodeId> = Vec::new();
        for grub in &self.saved.boot.grub_bios {
            if self.assignment(&grub.disk).is_none() || kept.contains(&grub.disk) {
                continue;
            }
            if is_leftover(self.saved, &grub.disk) {
                let why = "it was boot code of an earlier installation";
                self.accept(&NodeId::new("boot"), "grub_bios", why);
                self.notes.push(format!(
                    "The saved host boots through UEFI, and its disk {} had code of GRUB for BIOS as well, which is not installed \
                     again: {}.",
                    grub.disk,
                    self.why_no_bios()
                ));
            } else {
                disks.push(grub.disk.clone());
            }
        }
        if self.inventory.firmware == Firmware::Bios && disks.is_empty() && proxmox.is_empty() {
            disks = self.disks_for_bios();
            if !disks.is_empty() {
                let why =
                    "this machine was started through BIOS, and the saved host boots through UEFI";
                self.accept(&NodeId::new("boot"), "grub_bios", why);
                self.notes.push(
                    "This machine was started through BIOS, and the saved host boots through UEFI: GRUB for BIOS is installed \
                     as well. On the restored host, install the package grub-pc in place of grub-efi-amd64, so that updates \
                     reach it."
                        .to_owned(),
                );
            }
        }
        let modules = self.grub_modules();
        for disk in &disks {
            if let Some(assigned) = self.assignment(disk) {
                let device = assigned.device.clone();
                self.steps.push(Step::GrubBios {
                    device,
                    modules: modules.clone(),
                });
            }
        }
        !disks.is_empty()
    }

    /// The disks with /boot, when GRUB for BIOS can be installed on them.
    fn disks_for_bios(&self) -> Vec<NodeId> {
        if self.has_platform("i386-pc") != Some(true) {
            return Vec::new();
        }
        let below = self.boot_filesystem().map(|id| self.saved.disks_below(id));
        let disks = below.into_iter().flatten();
        disks
            .filter(|d| self.assignment(d).is_some() && self.has_room_for_core(d))
            .collect()
    }

    pub(super) fn has_room_for_core(&self, id: &NodeId) -> bool {
        has_room_for_core(self.saved, id)
    }

    /// In words.
    pub(super) fn why_no_bios(&self) -> &'static str {
        match self.has_platform("i386-pc") {
            Some(true) => {
                "there is no BIOS boot partition, and no room for one before the first partition"
            }
            Some(false) => "the saved host does not have its modules (package grub-pc-bin)",
            None => "nothing is known of the saved host's GRUB",
        }
    }

    /// Modules with which GRUB finds /boot on any kind of disk: on some, grub-install does not find out itself.
    fn grub_modules(&self) -> Vec<String> {
        let boot = self.boot_filesystem();
        let mut modules = self.table_modules(boot);
        if let Some((id, node)) = boot.and_then(|id| self.saved.nodes.get_key_value(id)) {
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
                    Node::ZfsDataset(_) => "zfs",
                    _ => "ext2",
                }
                .to_owned(),
            );
        }
        modules
    }
}
