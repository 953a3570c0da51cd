//! A partition for the boot loader of the other firmware, where the saved host has none and there is room for it.

use std::path::Path;

use super::bios::is_leftover;
use crate::inventory::Inventory;
use crate::model::{Firmware, GrubBios, Layout, Node, NodeId, Partition, Table, Vfat, types};
use crate::plan::{DiskAssignment, Substitution, partition_path};
use crate::units::{Bytes, Lba};

/// What an EFI system partition gets: as much as proxmox-boot-tool asks for at least.
const ESP: Bytes = Bytes::mib(256);
/// What GRUB's core needs at least; the partitions that installers make have 1007 KiB.
const CORE: Bytes = Bytes(512 * 1024);
const ALIGNMENT: Bytes = Bytes::MIB;
const WHY: &str = "it is added for the firmware that this machine was started through";

/// A layout with more partitions than were saved.
pub(in crate::plan) struct Added {
    pub layout: Layout,
    pub substitutions: Vec<Substitution>,
    pub notes: Vec<String>,
}

/// Adds what is missing for the firmware at hand; `None`: nothing.
pub(in crate::plan) fn for_firmware(
    saved: &Layout,
    inventory: &Inventory,
    disks: &[DiskAssignment],
) -> Option<Added> {
    let boot = &saved.boot;
    let has = |platform: &str| boot.grub_platforms.iter().any(|p| p == platform);
    let assigned = |id: &NodeId| disks.iter().find(|d| d.saved == *id);
    let real = |g: &GrubBios| assigned(&g.disk).is_some() && !is_leftover(saved, &g.disk);
    let bios = boot.grub_bios.iter().any(real);
    let uefi = !boot.grub_efi.is_empty() || !boot.systemd_boot.is_empty();
    if !boot.proxmox_esps.is_empty() || bios == uefi {
        return None;
    }
    let mut added = Added {
        layout: saved.clone(),
        substitutions: Vec::new(),
        notes: Vec::new(),
    };
    let of_system = ["/boot", "/"]
        .iter()
        .find_map(|at| saved.mount_at(Path::new(at)))
        .map(|m| saved.disks_below(&m.node))
        .unwrap_or_default();
    for id in of_system {
        let Some(assigned) = assigned(&id) else {
            continue;
        };
        match inventory.firmware {
            Firmware::Uefi if bios && has("x86_64-efi") => added.esp(&id, assigned),
            Firmware::Bios if uefi && has("i386-pc") => added.bios_boot(&id),
            _ => None,
        };
    }
    (!added.substitutions.is_empty()).then_some(added)
}

impl Added {
    fn parts(&self, disk: &NodeId) -> Vec<Partition> {
        let parts = self.layout.partitions(disk);
        parts.into_iter().map(|(_, p)| p.clone()).collect()
    }

    /// An EFI system partition at the end of the disk, behind all others.
    fn esp(&mut self, id: &NodeId, assigned: &DiskAssignment) -> Option<()> {
        let Some(Node::Disk(disk)) = self.layout.nodes.get(id) else {
            return None;
        };
        let Some(Table::Gpt(table)) = &disk.table else {
            return None;
        };
        let (sector, parts) = (disk.sector_size, self.parts(id));
        if parts.iter().any(|p| p.type_guid == types::ESP) {
            return None;
        }
        let sectors = assigned.identity.size.sectors(sector);
        let tail = super::super::disk::gpt_tail(table.entries, sector);
        let unit = ALIGNMENT.sectors(sector).max(1);
        let end = sectors.checked_sub(tail + 1)? / unit * unit;
        let start = end.checked_sub(ESP.sectors(sector))?;
        if parts.iter().any(|p| p.end.0 >= start) || start < unit {
            return None;
        }
        let guid = table.disk_guid.clone();
        let node = self.partition(id, &guid, types::ESP, start, end - 1)?;
        let number = u32::from_str_radix(guid.get(..8)?, 16).ok()? ^ 0x4c42_4553;
        let uuid = format!("{:04X}-{:04X}", number >> 16, number & 0xffff);
        let fs = NodeId::fs(&uuid);
        self.accept(&fs);
        self.layout.nodes.insert(
            fs,
            Node::Vfat(Vfat {
                on: node,
                uuid,
                label: None,
                fat_bits: 32,
                cluster_size: Bytes(4096),
                size: Lba(end - start).offset(sector),
                used: None,
            }),
        );
        self.notes.push(format!(
            "An EFI system partition of {ESP} is added at the end of {}, since the saved host has none. Partitions before it do \
             not grow.",
            assigned.device.display()
        ));
        Some(())
    }

    /// A BIOS boot partition in the space that is left before the first partition.
    fn bios_boot(&mut self, id: &NodeId) -> Option<()> {
        let Some(Node::Disk(disk)) = self.layout.nodes.get(id) else {
            return None;
        };
        let Some(Table::Gpt(table)) = &disk.table else {
            return None;
        };
        let (sector, parts) = (disk.sector_size, self.parts(id));
        if parts.iter().any(|p| p.type_guid == types::BIOS_BOOT) {
            return None;
        }
        let first = parts.iter().map(|p| p.start.0).min()?;
        let (start, end) = (table.first_usable.0, first.checked_sub(1)?);
        let length = Lba(end.checked_sub(start)?.checked_add(1)?);
        if length.offset(sector) < CORE {
            return None;
        }
        let guid = table.disk_guid.clone();
        self.partition(id, &guid, types::BIOS_BOOT, start, end)?;
        self.notes.push(format!(
            "A BIOS boot partition is added before the first partition of {id}, since the saved host has none."
        ));
        Some(())
    }

    fn partition(
        &mut self,
        disk: &NodeId,
        guid: &str,
        kind: &str,
        start: u64,
        end: u64,
    ) -> Option<NodeId> {
        let Some(Node::Disk(of)) = self.layout.nodes.get(disk) else {
            return None;
        };
        let (sector_size, device) = (of.sector_size, of.device.clone());
        let used: Vec<u32> = self.parts(disk).iter().map(|p| p.number).collect();
        let number = (1..=128).find(|n| !used.contains(n))?;
        // The same at each attempt, and another on each disk.
        let guid = uuid::Uuid::parse_str(guid).ok()?.as_u128();
        let partuuid = uuid::Builder::from_random_bytes(
            (guid ^ u128::from(start) << 7 ^ 0x4c42).to_be_bytes(),
        )
        .into_uuid()
        .to_string();
        let node = NodeId::partition(&partuuid);
        if self.layout.nodes.contains_key(&node) {
            return None;
        }
        self.accept(&node);
        self.layout.nodes.insert(
            node.clone(),
            Node::Partition(Partition {
                on: disk.clone(),
                device: partition_path(&device, number),
                number,
                type_guid: kind.to_owned(),
                partuuid,
                name: String::new(),
                attributes: 0,
                start: Lba(start),
                end: Lba(end),
                sector_size,
            }),
        );
        Some(node)
    }

    fn accept(&mut self, node: &NodeId) {
        self.substitutions.push(Substitution {
            node: node.clone(),
            what: "*".to_owned(),
            reason: WHY.to_owned(),
        });
    }
}
