//! What firmware starts from: partitions that every disk of a host has a copy of.

use std::collections::BTreeSet;

use super::{Work, refuse};
use crate::model::{Boot, Firmware, Layout, Node, NodeId, Partition, mbr_types, types};
use crate::plan::PlanError;

fn is_esp(part: &Partition) -> bool {
    [types::ESP, mbr_types::ESP].contains(&part.type_guid.as_str())
}

impl Work {
    /// Drops the boot partitions of disks that are not made where another disk has its own. An EFI system partition that is
    /// mounted takes the place of one that only mirrors it.
    pub(super) fn boot_partitions(&mut self) -> Result<(), PlanError> {
        for (disk, onto) in self.gone.clone() {
            let parts: Vec<(NodeId, Partition)> = self
                .layout
                .partitions(&disk)
                .into_iter()
                .map(|(id, part)| (id.clone(), part.clone()))
                .collect();
            for (id, part) in parts {
                let reason = self.why(&disk);
                if part.type_guid == types::BIOS_BOOT {
                    let others = self.kept(onto.as_ref(), |p| p.type_guid == types::BIOS_BOOT);
                    if onto.is_none() || !others.is_empty() {
                        self.drop_down(&id, reason);
                    }
                } else if is_esp(&part) {
                    self.efi_partition(&id, onto.as_ref(), reason);
                }
            }
        }
        Ok(())
    }

    /// Partitions of a kind on the disk that another one goes onto, or on all disks that stay.
    fn kept(&self, onto: Option<&NodeId>, kind: impl Fn(&Partition) -> bool) -> Vec<NodeId> {
        let nodes = self.layout.nodes.iter();
        nodes
            .filter_map(|(id, node)| match node {
                Node::Partition(part) if kind(part) => {
                    // A data disk may have one, too; it is not made, and nothing may go there.
                    let made = self.system.contains(&part.on) && !self.gone.contains_key(&part.on);
                    let here = onto.map_or(made, |on| part.on == *on);
                    here.then(|| id.clone())
                }
                _ => None,
            })
            .collect()
    }

    fn efi_partition(&mut self, id: &NodeId, onto: Option<&NodeId>, reason: &str) {
        let others = self.kept(onto, is_esp);
        let content: Vec<NodeId> = self.layout.children(id).map(|(c, _)| c.clone()).collect();
        let mounted = |work: &Work, nodes: &[NodeId]| {
            let mut mounts = work.layout.mounts.iter();
            mounts.any(|m| m.mounted && nodes.contains(&m.node))
        };
        // With one on the other disks, or with none at all: then `missing` says what that means.
        if !mounted(self, &content) {
            let boots = |id: &NodeId| self.boots_from(id);
            if !others.is_empty() && (!boots(id) || others.iter().any(boots)) {
                let disk = self.layout.disks_below(id).into_iter().next();
                self.notes.push(format!(
                    "The EFI system partition of {} is not made: the disks that are made have one.",
                    disk.as_ref().unwrap_or(id)
                ));
                for node in &content {
                    self.remove(node, reason);
                }
                self.drop_down(id, reason);
            }
            return;
        }
        let [content] = content.as_slice() else {
            return;
        };
        let size = match self.layout.nodes.get(content) {
            Some(Node::Vfat(fs)) => fs.size,
            _ => return,
        };
        let mirror = others.into_iter().find(|other| {
            let inside: Vec<NodeId> = self
                .layout
                .children(other)
                .map(|(c, _)| c.clone())
                .collect();
            let known = self
                .layout
                .children(other)
                .all(|(_, n)| matches!(n, Node::Vfat(_)));
            let room = match self.layout.nodes.get(other) {
                Some(Node::Partition(part)) => part.size() >= size,
                _ => false,
            };
            known && room && !mounted(self, &inside)
        });
        let Some(mirror) = mirror else { return };
        let inside: Vec<NodeId> = self
            .layout
            .children(&mirror)
            .map(|(c, _)| c.clone())
            .collect();
        self.loaders_of_copy(&mirror, &inside, content);
        for node in inside {
            self.remove(
                &node,
                "it was a copy of the EFI system partition that takes its place",
            );
        }
        self.layout.boot.esp_images.retain(|id| *id != mirror);
        if let Some(Node::Vfat(fs)) = self.layout.nodes.get_mut(content) {
            fs.on = mirror;
        }
        self.accept(content, "on", reason);
        self.drop_down(id, reason);
    }

    /// Whether a boot loader is on an EFI system partition.
    fn boots_from(&self, part: &NodeId) -> bool {
        let boot = &self.layout.boot;
        let is_it = |esp: &NodeId| {
            esp == part
                || self
                    .layout
                    .nodes
                    .get(esp)
                    .is_some_and(|n| n.on().contains(part))
        };
        boot.grub_efi.iter().any(|at| is_it(&at.esp))
            || boot.systemd_boot.iter().any(|at| is_it(&at.esp))
            || boot.proxmox_esps.iter().any(|at| is_it(&at.esp))
    }

    /// The loaders of a copy are those of the filesystem that takes its place, each once.
    fn loaders_of_copy(&mut self, copy: &NodeId, inside: &[NodeId], content: &NodeId) {
        let boot = &mut self.layout.boot;
        let is_copy = |esp: &NodeId| esp == copy || inside.contains(esp);
        for at in boot.grub_efi.iter_mut().filter(|at| is_copy(&at.esp)) {
            at.esp.clone_from(content);
        }
        for at in boot.systemd_boot.iter_mut().filter(|at| is_copy(&at.esp)) {
            at.esp.clone_from(content);
        }
        let mut seen = BTreeSet::new();
        boot.grub_efi
            .retain(|at| seen.insert((at.esp.clone(), at.bootloader_id.clone())));
        let mut seen = BTreeSet::new();
        boot.systemd_boot.retain(|at| seen.insert(at.esp.clone()));
    }

    /// Refuses where nothing is left that the machine starts from.
    pub(super) fn still_boots(&self, saved: &Layout) -> Result<(), PlanError> {
        let (before, now) = (&saved.boot, &self.layout.boot);
        let esps = |boot: &Boot| -> Vec<NodeId> {
            let grub = boot.grub_efi.iter().map(|at| &at.esp);
            let systemd = boot.systemd_boot.iter().map(|at| &at.esp);
            grub.chain(systemd).cloned().collect()
        };
        let kept = |boot: &Boot| -> Vec<NodeId> {
            boot.proxmox_esps.iter().map(|at| at.esp.clone()).collect()
        };
        let lost = if now.proxmox_esps.is_empty() && !before.proxmox_esps.is_empty() {
            kept(before)
        } else if saved.firmware == Firmware::Uefi
            && now.proxmox_esps.is_empty()
            && esps(now).is_empty()
        {
            esps(before)
        } else {
            return Ok(());
        };
        match lost.first() {
            Some(esp) => Err(refuse(
                esp,
                "the boot loader is on it, and its disk is done without: give that disk a place, or put it onto another one"
                    .to_owned(),
            )),
            None => Ok(()),
        }
    }
}
