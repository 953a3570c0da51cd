//! Saved disks that share the place of another one, or that are done without: the saved layout as an equivalent one on
//! fewer disks, before anything is sized.
//!
//! Partitions go onto the other disk behind its last one, with new numbers and their PARTUUIDs and names; what covered a
//! whole disk gets a partition. Of what was there twice so that a disk may fail, one is dropped where both would be on one
//! disk: members of arrays, devices of btrfs, partitions that boot loaders keep alike. What cannot be made on the disks that
//! are left is refused by name.

mod arrays;
mod btrfs;
mod esp;
mod groups;
mod missing;
mod tables;
mod zfs;

pub(super) use tables::guid;

use std::collections::{BTreeMap, BTreeSet};

use super::disk::describe;
use super::identity::{Likeness, likeness};
use super::{Choices, DiskAssignment, DiskChoice, MergedDisk, PlanError, Substitution, sectors};
use crate::inventory::Inventory;
use crate::model::{Layout, Node, NodeId};

/// A layout on fewer disks, with what that changes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reshaped {
    pub layout: Layout,
    pub substitutions: Vec<Substitution>,
    pub notes: Vec<String>,
    pub merged: Vec<MergedDisk>,
    /// First fields of lines of fstab that name what is not made.
    pub switch_off: Vec<String>,
    /// The same of crypttab.
    pub crypttab_off: Vec<String>,
}

/// A layout in the making.
struct Work {
    layout: Layout,
    /// Saved disks that are not made, and where their contents go; `None`: nowhere.
    gone: BTreeMap<NodeId, Option<NodeId>>,
    /// The saved disks of the system: no other is made.
    system: BTreeSet<NodeId>,
    substitutions: Vec<Substitution>,
    notes: Vec<String>,
    switch_off: BTreeSet<String>,
    crypttab_off: BTreeSet<String>,
}

/// The layout on fewer disks; `None`: the choices ask for no such thing.
pub(super) fn reshape(saved: &Layout, choices: &Choices) -> Result<Option<Reshaped>, PlanError> {
    let gone: BTreeMap<NodeId, Option<NodeId>> = choices
        .disks
        .iter()
        .filter_map(|(id, choice)| match choice {
            DiskChoice::Onto(other) => Some((id.clone(), Some(other.clone()))),
            DiskChoice::Missing => Some((id.clone(), None)),
            _ => None,
        })
        .collect();
    if gone.is_empty() {
        return Ok(None);
    }
    check(saved, &gone)?;
    let mut work = Work {
        layout: saved.clone(),
        gone,
        system: saved.system_disks(),
        substitutions: Vec::new(),
        notes: Vec::new(),
        switch_off: BTreeSet::new(),
        crypttab_off: BTreeSet::new(),
    };
    work.same_sectors()?;
    work.arrays()?;
    work.btrfs()?;
    work.groups();
    work.pools()?;
    work.boot_partitions()?;
    work.missing()?;
    work.tables()?;
    work.boot(saved);
    work.still_boots(saved)?;
    let words = |id: &NodeId| match saved.nodes.get(id) {
        Some(Node::Disk(disk)) => format!(
            "{}, serial {}, {}",
            disk.model.as_deref().unwrap_or("unknown model"),
            disk.serial.as_deref().unwrap_or("none"),
            disk.size
        ),
        _ => String::new(),
    };
    let merged = work.gone.into_iter();
    Ok(Some(Reshaped {
        layout: work.layout,
        substitutions: work.substitutions,
        notes: work.notes,
        merged: merged
            .map(|(saved, onto)| MergedDisk {
                what: words(&saved),
                saved,
                onto,
            })
            .collect(),
        switch_off: work.switch_off.into_iter().collect(),
        crypttab_off: work.crypttab_off.into_iter().collect(),
    }))
}

/// What stays where it is needs all of its disks.
pub(super) fn not_in_place(choices: &Choices) -> Result<(), PlanError> {
    let mut disks = choices.disks.iter();
    let reshapes = |choice: &DiskChoice| {
        matches!(
            choice,
            DiskChoice::Onto(_) | DiskChoice::Missing | DiskChoice::Spread(_)
        )
    };
    match disks.find(|(_, choice)| reshapes(choice)) {
        Some((disk, choice)) => Err(PlanError::BadChoice {
            disk: disk.clone(),
            reason: format!(
                "\"{choice}\" is for bare metal only: what stays in place needs all of its disks"
            ),
        }),
        None => Ok(()),
    }
}

/// What cannot be meant.
fn check(saved: &Layout, gone: &BTreeMap<NodeId, Option<NodeId>>) -> Result<(), PlanError> {
    let system = saved.system_disks();
    for (id, onto) in gone {
        let bad = |reason: String| {
            Err(PlanError::BadChoice {
                disk: id.clone(),
                reason,
            })
        };
        let is_disk = |id: &NodeId| matches!(saved.nodes.get(id), Some(Node::Disk(_)));
        if !is_disk(id) {
            return bad("the saved layout has no such disk".to_owned());
        }
        if !system.contains(id) {
            return bad(
                "it is a data disk: nothing of it is in the backup, and it is left alone when nothing is said about it"
                    .to_owned(),
            );
        }
        let Some(onto) = onto else { continue };
        if !is_disk(onto) {
            return bad(format!("the saved layout has no disk {onto}"));
        }
        if gone.contains_key(onto) {
            return bad(format!("{onto} has no place of its own"));
        }
        if !system.contains(onto) {
            return bad(format!("{onto} is a data disk, which is not restored"));
        }
    }
    if system.iter().all(|id| gone.contains_key(id)) {
        if let Some(id) = gone.keys().next() {
            return Err(PlanError::BadChoice {
                disk: id.clone(),
                reason: "no disk of the system is left".to_owned(),
            });
        }
    }
    Ok(())
}

impl Reshaped {
    /// The choices that are left for disks at hand.
    pub fn choices(&self, choices: &Choices) -> Choices {
        let mut left = choices.clone();
        left.disks
            .retain(|_, choice| !matches!(choice, DiskChoice::Onto(_) | DiskChoice::Missing));
        left
    }

    /// Refuses when a saved disk that is not restored is in the machine all the same: the restored host would find its old
    /// half of arrays and filesystems beside the new one, with the same UUID. Tells of disks that may be one.
    pub fn left_in_the_machine(
        &self,
        saved: &Layout,
        inventory: &Inventory,
        assigned: &[DiskAssignment],
    ) -> Result<Vec<String>, PlanError> {
        let mut doubts = Vec::new();
        for merged in &self.merged {
            let Some(Node::Disk(disk)) = saved.nodes.get(&merged.saved) else {
                continue;
            };
            let left = inventory.disks.iter().filter(|present| {
                !present.contents.is_empty() && !assigned.iter().any(|a| a.device == present.device)
            });
            for present in left {
                match likeness(disk, present) {
                    Likeness::Same(_) => {}
                    Likeness::Doubtful(doubt) => {
                        doubts.push(format!(
                            "{doubt}. If it is that disk, take it out before the restart: the restored host would mix its old \
                             contents with the new ones."
                        ));
                        continue;
                    }
                    Likeness::Other => continue,
                }
                return Err(PlanError::BadChoice {
                    disk: merged.saved.clone(),
                    reason: format!(
                        "{} is that disk, with its old contents, which the restored host would mix with the new ones: take it \
                         out, or restore onto it",
                        describe(present)
                    ),
                });
            }
        }
        Ok(doubts)
    }
}

impl Work {
    /// Why something is not as it was.
    fn why(&self, disk: &NodeId) -> &'static str {
        match self.gone.get(disk) {
            Some(None) => "its disk is done without, as chosen",
            _ => "its disk shares the place of another one, as chosen",
        }
    }

    fn accept(&mut self, node: &NodeId, what: &str, reason: &str) {
        self.substitutions.push(Substitution {
            node: node.clone(),
            what: what.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// The saved disks that it will be on, and whether any of those below is done without.
    fn places(&self, id: &NodeId) -> (BTreeSet<NodeId>, bool) {
        let mut places = BTreeSet::new();
        let mut missing = false;
        for disk in self.layout.disks_below(id) {
            match self.gone.get(&disk) {
                Some(Some(onto)) => {
                    places.insert(onto.clone());
                }
                Some(None) => missing = true,
                None => {
                    places.insert(disk);
                }
            }
        }
        (places, missing)
    }

    /// Whether all of it is on disks that are not made.
    fn is_moved(&self, id: &NodeId) -> bool {
        let below = self.layout.disks_below(id);
        !below.is_empty() && below.iter().all(|disk| self.gone.contains_key(disk))
    }

    /// Of devices that hold the same, those to drop: those on a disk that is done without, and with `redundant` those that
    /// would be beside another one on the same disk. Disks that stay keep theirs.
    fn surplus(&self, devices: &[NodeId], redundant: bool) -> Vec<NodeId> {
        let mut dropped = Vec::new();
        let mut taken: BTreeSet<NodeId> = BTreeSet::new();
        let mut order: Vec<&NodeId> = devices.iter().collect();
        order.sort_by_key(|id| self.is_moved(id));
        for id in order {
            let (places, missing) = self.places(id);
            let beside = !taken.is_disjoint(&places);
            if missing || redundant && beside && self.is_moved(id) {
                dropped.push(id.clone());
            } else {
                taken.extend(places);
            }
        }
        dropped
    }

    /// Takes a node out of the layout, with the mounts of it and the lines of fstab that wait for it.
    fn remove(&mut self, id: &NodeId, reason: &str) {
        let swap = match self.layout.nodes.get(id) {
            Some(Node::Swap(swap)) => swap.fstab.as_ref(),
            Some(Node::SwapFile(swap)) => swap.fstab.as_ref(),
            _ => None,
        };
        self.switch_off
            .extend(swap.iter().map(|line| line.spec.clone()));
        for mount in self.layout.mounts.iter().filter(|m| m.node == *id) {
            self.switch_off
                .extend(mount.fstab.iter().map(|line| line.spec.clone()));
        }
        self.layout.mounts.retain(|m| m.node != *id);
        if let Some(Node::Luks(luks)) = self.layout.nodes.remove(id) {
            if let Some(line) = luks.crypttab {
                // The start would wait for it.
                self.notes.push(format!(
                    "LUKS container {} is not made: its line in /etc/crypttab is switched off.",
                    luks.name
                ));
                self.crypttab_off.insert(line.name);
            }
        }
        self.accept(id, "*", reason);
    }

    /// Takes out what carries nothing any more, down to the partition.
    fn drop_down(&mut self, id: &NodeId, reason: &str) {
        if self.layout.children(id).next().is_some() {
            return;
        }
        let below = match self.layout.nodes.get(id) {
            None | Some(Node::Disk(_)) => return,
            Some(node) => node.on(),
        };
        self.remove(id, reason);
        for on in below {
            self.drop_down(&on, reason);
        }
    }

    /// Disks that share a place are counted in the sectors of the one whose place it is.
    fn same_sectors(&mut self) -> Result<(), PlanError> {
        for (id, onto) in self.gone.clone() {
            let (Some(Node::Disk(disk)), Some(Some(Node::Disk(other)))) = (
                self.layout.nodes.get(&id),
                onto.as_ref().map(|onto| self.layout.nodes.get(onto)),
            ) else {
                continue;
            };
            if disk.sector_size == other.sector_size {
                continue;
            }
            let made = sectors::convert(&self.layout, &id, disk, other.sector_size, disk.size);
            let made = made.map_err(|reason| PlanError::BadChoice {
                disk: id.clone(),
                reason: format!(
                    "its sectors are not those of the disk that it goes onto, and {reason}"
                ),
            })?;
            self.layout = made.layout;
            self.substitutions.extend(made.substitutions);
            self.notes.extend(made.notes);
        }
        Ok(())
    }

    /// Boot loaders: once per disk that is made, and on one at least.
    fn boot(&mut self, saved: &Layout) {
        let before = &saved.boot;
        let mut grub = before.grub_bios.clone();
        grub.retain_mut(|grub| match self.gone.get(&grub.disk) {
            Some(Some(onto)) => {
                grub.disk = onto.clone();
                true
            }
            Some(None) => false,
            None => true,
        });
        let mut seen = BTreeSet::new();
        grub.retain(|grub| seen.insert(grub.disk.clone()));
        if grub.is_empty() && !before.grub_bios.is_empty() {
            let boot = ["/boot", "/"].iter().find_map(|at| {
                let mount = self.layout.mount_at(std::path::Path::new(at))?;
                Some(self.layout.disks_below(&mount.node))
            });
            grub.extend(
                boot.into_iter()
                    .flatten()
                    .map(|disk| crate::model::GrubBios { disk }),
            );
        }
        self.layout.boot.grub_bios = grub;
        let nodes = &self.layout.nodes;
        let boot = &mut self.layout.boot;
        boot.grub_efi.retain(|grub| nodes.contains_key(&grub.esp));
        boot.systemd_boot.retain(|at| nodes.contains_key(&at.esp));
        boot.proxmox_esps.retain(|at| nodes.contains_key(&at.esp));
        boot.esp_images.retain(|id| nodes.contains_key(id));
        let after = &self.layout.boot;
        let changed = [
            ("grub_bios", after.grub_bios != before.grub_bios),
            ("grub_efi", after.grub_efi != before.grub_efi),
            ("systemd_boot", after.systemd_boot != before.systemd_boot),
            ("proxmox_esps", after.proxmox_esps != before.proxmox_esps),
            ("esp_images", after.esp_images != before.esp_images),
        ];
        for (what, _) in changed.iter().filter(|(_, changed)| *changed) {
            let reason = "boot loaders are on the disks that are made";
            self.accept(&NodeId::new("boot"), what, reason);
        }
    }
}

/// Devices as the saved host called them, and the filesystem or swap area on each. Disks that share a place change the names in
/// the layout, but not those in the files.
pub(super) fn device_names(saved: &Layout) -> Vec<(String, NodeId)> {
    let mut names = Vec::new();
    for (id, node) in &saved.nodes {
        if node.filesystem().is_none() && !matches!(node, Node::Swap(_)) {
            continue;
        }
        // Of a filesystem on several devices each one leads to it.
        for on in node.on() {
            if let Some(below @ (Node::Partition(_) | Node::Disk(_))) = saved.nodes.get(&on) {
                let device = below.device().map(|d| d.display().to_string());
                names.extend(device.map(|device| (device, id.clone())));
            }
        }
    }
    names
}

fn refuse(node: &NodeId, reason: String) -> PlanError {
    PlanError::Unsupported {
        node: node.clone(),
        reason,
    }
}
