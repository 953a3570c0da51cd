//! Which present disk is the saved one: by its partition table, else by what the disk says of itself.

use std::collections::BTreeSet;
use std::path::Path;

use super::{is_of_the_system, refusal};
use crate::inventory::{Inventory, InventoryDisk, Present};
use crate::model::{Disk, Firmware, Layout, Mount, Node, NodeId};
use crate::plan::disk::{by_identity, chosen, describe, excluded, take};
use crate::plan::identity::{Likeness, contradiction, likeness};
use crate::plan::{Choices, DiskAssignment, Mode, PlanError};

/// The filesystems that system only makes anew.
pub(super) fn system_mounts(saved: &Layout) -> Vec<&Mount> {
    let mounts = saved.filesystems_to_save().into_iter();
    mounts
        .filter(|m| is_of_the_system(&m.mount_point))
        .collect()
}

/// The filesystem that GRUB reads its configuration from.
pub(super) fn boot_mount(saved: &Layout) -> Option<&Mount> {
    ["/boot", "/"]
        .iter()
        .find_map(|at| saved.mount_at(Path::new(at)).filter(|m| m.mounted))
}

/// Whether boot repair writes boot code: where the firmware needs it.
pub(super) fn needs_boot_code(saved: &Layout, inventory: &Inventory) -> bool {
    !saved.boot.grub_bios.is_empty()
        && (inventory.firmware == Firmware::Bios || saved.boot.grub_efi.is_empty())
}

/// The saved disks that take part.
fn required(saved: &Layout, inventory: &Inventory, choices: &Choices) -> BTreeSet<NodeId> {
    let mut required = BTreeSet::new();
    match choices.mode {
        Mode::SystemOnly | Mode::BareMetal => {
            for mount in system_mounts(saved) {
                required.extend(saved.disks_below(&mount.node));
            }
            required.extend(saved.boot.grub_bios.iter().map(|g| g.disk.clone()));
        }
        Mode::BootRepair => {
            for grub in &saved.boot.grub_efi {
                required.extend(saved.disks_below(&grub.esp));
            }
            if needs_boot_code(saved, inventory) {
                required.extend(saved.boot.grub_bios.iter().map(|g| g.disk.clone()));
            }
            if let Some(mount) = boot_mount(saved) {
                required.extend(saved.disks_below(&mount.node));
            }
            if let Some(mount) = saved.mount_at(Path::new("/")) {
                required.extend(saved.disks_below(&mount.node));
            }
        }
        Mode::TableRepair => required.extend(saved.system_disks()),
    }
    required.extend(choices.disks.keys().cloned());
    required.retain(|id| matches!(saved.nodes.get(id), Some(Node::Disk(_))));
    required
}

/// Assigns the disks, or says why that cannot be done.
pub(crate) fn assign(
    saved: &Layout,
    inventory: &Inventory,
    choices: &Choices,
) -> Result<Vec<DiskAssignment>, PlanError> {
    let Some(present) = inventory.present.as_deref() else {
        return Ok(Vec::new());
    };
    if let Some(id) = choices
        .disks
        .keys()
        .find(|id| !matches!(saved.nodes.get(id), Some(Node::Disk(_))))
    {
        return Err(PlanError::BadChoice {
            disk: id.clone(),
            reason: "the saved layout has no such disk".to_owned(),
        });
    }
    let required = required(saved, inventory, choices);
    if required.is_empty() {
        return Err(PlanError::NothingToRestore);
    }
    let (mut assigned, mut problems, mut healthy) = (Vec::new(), Vec::new(), Vec::new());
    for id in &required {
        let Some(Node::Disk(disk)) = saved.nodes.get(id) else {
            continue;
        };
        let one = One {
            saved,
            id,
            disk,
            inventory,
            present,
            choices,
        };
        let found = match choices.disks.get(id) {
            Some(choice) => Some((chosen(id, disk, choice, inventory, choices)?, "chosen")),
            None if choices.mode == Mode::TableRepair => one.without_table()?,
            None => one.by_table()?,
        };
        let Some((at, why)) = found else {
            problems.push(one.missing());
            continue;
        };
        if choices.mode == Mode::TableRepair && one.is_healthy(at) {
            healthy.push(format!(
                "the partition table of {} is there and as it was saved",
                describe(at)
            ));
            continue;
        }
        take(&mut assigned, id, at, why)?;
    }
    if !problems.is_empty() {
        return Err(refusal(choices.mode, problems));
    }
    if assigned.is_empty() {
        return Err(refusal(choices.mode, healthy));
    }
    Ok(assigned)
}

struct One<'a> {
    saved: &'a Layout,
    id: &'a NodeId,
    disk: &'a Disk,
    inventory: &'a Inventory,
    present: &'a Present,
    choices: &'a Choices,
}

type Found<'a> = Option<(&'a InventoryDisk, &'static str)>;

impl<'a> One<'a> {
    fn carries_table(&self, disk: &InventoryDisk) -> bool {
        let table = self.present.tables.get(&disk.device);
        table.is_some_and(|t| self.id.as_str() == format!("disk:{}", t.name.to_lowercase()))
    }

    /// The disk that carries the saved partition table.
    fn by_table(&self) -> Result<Found<'a>, PlanError> {
        if self.disk.table.is_none() {
            return by_identity(self.saved, self.id, self.disk, self.inventory, self.choices);
        }
        let disks = self.inventory.disks.iter();
        let found: Vec<&InventoryDisk> = disks
            .filter(|d| self.carries_table(d) && !self.choices.never.contains(&d.device))
            .collect();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((
                one,
                self.carrier(one, "it carries the saved partition table")?,
            ))),
            several => self.ambiguous(several),
        }
    }

    /// Whether a disk is taken because it carries the table, and why. A copy of the saved disk carries it as well: where the
    /// saved disk itself is there, or nobody is asked, the table alone decides nothing.
    fn carrier(
        &self,
        one: &'a InventoryDisk,
        why: &'static str,
    ) -> Result<&'static str, PlanError> {
        if let Some(reason) = excluded(one, self.choices) {
            return Err(PlanError::BadChoice {
                disk: self.id.clone(),
                reason: format!("{}: {reason}", describe(one)),
            });
        }
        let Some(doubt) = contradiction(self.disk, one) else {
            return Ok(why);
        };
        let is_itself = |d: &&InventoryDisk| matches!(likeness(self.disk, d), Likeness::Same(_));
        let itself = self.inventory.disks.iter().filter(is_itself);
        let mut both: Vec<&InventoryDisk> = itself.collect();
        if !both.is_empty() {
            both.insert(0, one);
            return Err(PlanError::Ambiguous {
                disk: self.id.clone(),
                candidates: both.iter().map(|d| describe(d)).collect(),
            });
        }
        if self.choices.blank_only {
            return Err(PlanError::Doubtful {
                disk: self.id.clone(),
                candidates: vec![doubt],
            });
        }
        Ok(
            "it carries the saved partition table, although it is another disk by its numbers or size",
        )
    }

    fn ambiguous(&self, several: &[&InventoryDisk]) -> Result<Found<'a>, PlanError> {
        Err(PlanError::Ambiguous {
            disk: self.id.clone(),
            candidates: several.iter().map(|d| describe(d)).collect(),
        })
    }

    /// The disk that has lost the saved partition table.
    fn without_table(&self) -> Result<Found<'a>, PlanError> {
        let disks = || self.inventory.disks.iter();
        let carrying: Vec<&InventoryDisk> = disks().filter(|d| self.carries_table(d)).collect();
        if let [one] = carrying.as_slice() {
            let why = self.carrier(one, "it carries a part of the saved partition table")?;
            return Ok(Some((one, why)));
        }
        let known = by_identity(self.saved, self.id, self.disk, self.inventory, self.choices)?;
        if known.is_some() {
            return Ok(known);
        }
        // What lies on it is looked at afterwards.
        let alike: Vec<&InventoryDisk> = disks()
            .filter(|d| {
                d.size == self.disk.size
                    && d.sector_size == self.disk.sector_size
                    && !self.present.tables.contains_key(&d.device)
                    && excluded(d, self.choices).is_none()
                    && !self.choices.blank_only
            })
            .collect();
        match alike.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((
                one,
                "the only disk of its size without a partition table",
            ))),
            several => self.ambiguous(several),
        }
    }

    /// Whether both copies of the table are there, and as saved.
    fn is_healthy(&self, at: &InventoryDisk) -> bool {
        self.carries_table(at)
            && self.present.tables.get(&at.device).is_some_and(|found| {
                found.whole && super::table::same_partitions(self.saved, self.id, found)
            })
    }

    fn missing(&self) -> String {
        let model = self.disk.model.as_deref().unwrap_or("unknown model");
        let serial = self.disk.serial.as_deref().unwrap_or("none");
        let saved = format!(
            "saved disk {} ({model}, serial {serial}, {})",
            self.id, self.disk.size
        );
        if self.choices.mode == Mode::TableRepair {
            return format!(
                "no disk of this machine is the {saved} by its serial number, WWN or size: name it with --disk if it is there"
            );
        }
        let itself = self.inventory.disks.iter().find(|d| {
            crate::plan::disk::same(&d.serial, &self.disk.serial)
                || crate::plan::disk::same(&d.wwn, &self.disk.wwn)
        });
        match itself {
            Some(disk) => format!(
                "{} is the {saved} by its serial number, and has not its partition table any more",
                describe(disk)
            ),
            None => {
                format!("no disk of this machine carries the partition table of the {saved}")
            }
        }
    }
}
