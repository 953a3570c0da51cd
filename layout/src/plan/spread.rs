//! A saved disk whose volume group does not fit on one disk at hand: further ones take a part of the group.
//!
//! A pass over the saved layout before anything is sized, as [`super::reshape`] is. The first disk takes the place of the
//! saved one, with its table, boot partitions and all that is not LVM. Each further one gets a GPT with one partition, a
//! physical volume on that, and joins the group. How much of the group lies where is left to LVM.

use std::collections::BTreeSet;

use super::disk::{LEAST_ENTRIES, chosen, describe, gpt_tail};
use super::reshape::guid;
use super::{
    Choices, DiskAssignment, DiskChoice, Joins, PlanError, Substitution, fit, partition_path,
};
use crate::inventory::{Inventory, InventoryDisk};
use crate::model::{
    Disk, GptTable, Layout, Node, NodeId, Partition, PhysicalVolume, Table, VolumeGroup, types,
};
use crate::units::{Bytes, Lba};

/// Where the extents of a physical volume start, as LVM has it by default.
const PE_START: Bytes = Bytes::MIB;

/// The volume group that is spread.
pub(super) struct Group {
    pub id: NodeId,
    pub name: String,
}

/// A layout with further disks.
pub(super) struct Spread {
    pub layout: Layout,
    /// Those for the layout: one disk for each.
    pub choices: Choices,
    substitutions: Vec<Substitution>,
}

/// The volume group on a saved disk that can be spread; or why there is none.
pub(super) fn group_on(saved: &Layout, disk: &NodeId) -> Result<Group, String> {
    let groups: Vec<(&NodeId, &VolumeGroup)> = saved
        .nodes
        .iter()
        .filter_map(|(id, node)| match node {
            Node::VolumeGroup(vg) if saved.disks_below(id).contains(disk) => Some((id, vg)),
            _ => None,
        })
        .collect();
    let (id, vg) = match groups.as_slice() {
        [] => {
            return Err(
                "no volume group lies on it, and nothing else is spread over a further disk: give it one disk that is big \
                 enough"
                    .to_owned(),
            );
        }
        [one] => *one,
        several => {
            let names: Vec<&str> = several.iter().map(|(_, vg)| vg.name.as_str()).collect();
            return Err(format!(
                "several volume groups lie on it ({}), and which of them a further disk is for cannot be said: give it one \
                 disk that is big enough",
                names.join(", ")
            ));
        }
    };
    let name = &vg.name;
    for pv in &vg.on {
        let on = saved.nodes.get(pv).map(Node::on).unwrap_or_default();
        let Some(below) = on.first() else { continue };
        let reason = match saved.nodes.get(below) {
            Some(Node::Disk(_)) => continue,
            Some(Node::Partition(part))
                if matches!(saved.nodes.get(&part.on), Some(Node::Disk(_))) =>
            {
                continue;
            }
            Some(Node::Luks(luks)) => format!(
                "it lies in the LUKS container {}, and a further disk would hold a part of it that is not encrypted",
                luks.name
            ),
            Some(Node::RaidArray(array)) => format!(
                "it lies on the array {}, and a further disk would hold a part of it without the array's protection",
                array.name
            ),
            _ => format!("it lies on {below}, which is neither a disk nor a plain partition"),
        };
        return Err(format!(
            "volume group {name} cannot be spread over a further disk: {reason}. Give it one disk that is big enough"
        ));
    }
    Ok(Group {
        id: id.clone(),
        name: name.clone(),
    })
}

/// The saved disks for which several are chosen.
fn wanted(choices: &Choices) -> impl Iterator<Item = (&NodeId, &[DiskChoice])> {
    choices
        .disks
        .iter()
        .filter_map(|(id, choice)| match choice {
            DiskChoice::Spread(all) => Some((id, all.as_slice())),
            _ => None,
        })
}

/// Refuses what cannot be meant, whatever disks there are.
pub(super) fn check(saved: &Layout, choices: &Choices) -> Result<(), PlanError> {
    for (id, all) in wanted(choices) {
        let bad = |reason: String| {
            Err(PlanError::BadChoice {
                disk: id.clone(),
                reason,
            })
        };
        if !matches!(saved.nodes.get(id), Some(Node::Disk(_))) {
            return bad("the saved layout has no such disk".to_owned());
        }
        let is_disk = |choice: &&DiskChoice| {
            matches!(
                choice,
                DiskChoice::Serial(_) | DiskChoice::Wwn(_) | DiskChoice::Device(_)
            )
        };
        if let Some(other) = all.iter().find(|choice| !is_disk(choice)) {
            return bad(format!(
                "\"{other}\" names no disk that another one can join"
            ));
        }
        let group = match group_on(saved, id) {
            Ok(group) => group,
            Err(reason) => return bad(reason),
        };
        if let Some(Node::VolumeGroup(vg)) = saved.nodes.get(&group.id) {
            let most = vg.settings.max_physical_volumes as usize;
            if most > 0 && vg.on.len() + all.len() > most + 1 {
                return bad(format!(
                    "volume group {} may have {most} physical volumes only",
                    vg.name
                ));
            }
        }
    }
    Ok(())
}

/// The layout with the further disks in it; `None`: the choices ask for none. `original` is the layout as it was saved.
pub(super) fn spread(
    saved: &Layout,
    original: &Layout,
    inventory: &Inventory,
    choices: &Choices,
) -> Result<Option<Spread>, PlanError> {
    if wanted(choices).next().is_none() {
        return Ok(None);
    }
    check(saved, choices)?;
    let mut spread = Spread {
        layout: saved.clone(),
        choices: choices.clone(),
        substitutions: Vec::new(),
    };
    for (id, all) in wanted(choices) {
        let (Some(Node::Disk(disk)), Ok(group)) = (saved.nodes.get(id), group_on(saved, id)) else {
            continue;
        };
        let mut named: Vec<&InventoryDisk> = Vec::new();
        for choice in all {
            let present = chosen(id, disk, choice, inventory, choices)?;
            if named.iter().any(|other| other.device == present.device) {
                return Err(PlanError::BadChoice {
                    disk: id.clone(),
                    reason: format!("{} is named twice", describe(present)),
                });
            }
            if named.is_empty() {
                spread.choices.disks.insert(id.clone(), choice.clone());
            } else {
                spread.join(original, id, &group, choice, present)?;
            }
            named.push(present);
        }
        spread.lay_out_anew(id, &group);
    }
    Ok(Some(spread))
}

impl Spread {
    fn accept(&mut self, node: &NodeId, what: &str, reason: &str) {
        self.substitutions.push(Substitution {
            node: node.clone(),
            what: what.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// Adds a disk to the group that lies on the saved disk `id`.
    fn join(
        &mut self,
        original: &Layout,
        id: &NodeId,
        group: &Group,
        choice: &DiskChoice,
        present: &InventoryDisk,
    ) -> Result<(), PlanError> {
        let Some(Node::VolumeGroup(vg)) = self.layout.nodes.get(&group.id) else {
            return Ok(());
        };
        let (extent, sector) = (vg.extent_size, present.sector_size);
        let tail = gpt_tail(LEAST_ENTRIES, sector);
        let unit = Bytes::MIB.sectors(sector).max(1);
        let last_usable = present.size.sectors(sector).saturating_sub(tail + 1);
        let start = (tail + 1).next_multiple_of(unit);
        let after = (last_usable + 1) / unit * unit;
        let length = Lba(after.saturating_sub(start)).offset(sector);
        let size = length.minus(PE_START).round_down(extent);
        if size == Bytes(0) || extent == Bytes(0) {
            return Err(PlanError::BadChoice {
                disk: id.clone(),
                reason: format!(
                    "{} is too small for a part of volume group {}: not one extent of {extent} has room on it",
                    describe(present),
                    group.name
                ),
            });
        }
        // The same choices make the same names, and a host that came back like this before has others.
        let salt = format!("{} {}", vg.uuid, id);
        let mut names = (1u32..).map(|n| {
            let name = |what: &str| guid(&salt, &format!("{what} {n}"));
            (name("disk"), name("partition"), pv_uuid(&name("volume")))
        });
        let is_free = |(disk, part, pv): &(String, String, String)| {
            [NodeId::disk(disk), NodeId::partition(part), NodeId::pv(pv)]
                .iter()
                .all(|id| !self.layout.nodes.contains_key(id) && !original.nodes.contains_key(id))
        };
        let Some((disk_guid, partuuid, uuid)) = names.find(is_free) else {
            return Ok(());
        };
        let (disk_id, part_id, pv_id) = (
            NodeId::disk(&disk_guid),
            NodeId::partition(&partuuid),
            NodeId::pv(&uuid),
        );
        // What tells disks apart stays empty: it is no saved one.
        let disk = Disk {
            device: present.device.clone(),
            model: None,
            serial: None,
            wwn: None,
            size: present.size,
            sector_size: sector,
            transport: present.transport.clone(),
            removable: present.removable,
            table: Some(Table::Gpt(GptTable {
                disk_guid,
                first_usable: Lba(tail + 1),
                last_usable: Lba(last_usable),
                entries: LEAST_ENTRIES,
            })),
        };
        let part = Partition {
            on: disk_id.clone(),
            device: partition_path(&present.device, 1),
            number: 1,
            type_guid: types::LVM.to_owned(),
            partuuid,
            name: String::new(),
            attributes: 0,
            start: Lba(start),
            end: Lba(after - 1),
            sector_size: sector,
        };
        let pv = PhysicalVolume {
            on: part_id.clone(),
            uuid,
            pe_start: PE_START,
            size,
            tags: Vec::new(),
            allocatable: true,
        };
        if let Some(Node::VolumeGroup(vg)) = self.layout.nodes.get_mut(&group.id) {
            vg.on.push(pv_id.clone());
        }
        for (what, added, node) in [
            ("disk", &disk_id, Node::Disk(disk)),
            ("partition", &part_id, Node::Partition(part)),
            ("physical volume", &pv_id, Node::PhysicalVolume(pv)),
        ] {
            self.layout.nodes.insert(added.clone(), node);
            let reason = format!(
                "a further {what} for volume group {}, as chosen",
                group.name
            );
            self.accept(added, "*", &reason);
        }
        self.accept(
            &group.id,
            "on",
            "it is spread over a further disk, as chosen",
        );
        self.choices.disks.insert(disk_id.clone(), choice.clone());
        self.choices.further.insert(disk_id, id.clone());
        Ok(())
    }

    /// What had its place on a physical volume of the saved disk, which may be smaller now, gets any.
    fn lay_out_anew(&mut self, id: &NodeId, group: &Group) {
        let Some(Node::VolumeGroup(vg)) = self.layout.nodes.get(&group.id) else {
            return;
        };
        let on_disk = |pv: &&NodeId| self.layout.disks_below(pv).contains(id);
        let here: BTreeSet<NodeId> = vg.on.iter().filter(on_disk).cloned().collect();
        fit::clear_places(&mut self.layout, &group.id, &here);
    }

    /// Says of the disks at hand which are further ones, and what that means; refuses what LVM would.
    pub fn assigned(
        &self,
        disks: &mut [DiskAssignment],
    ) -> Result<(Vec<Substitution>, Vec<String>), PlanError> {
        let mut groups: Vec<(NodeId, Group)> = Vec::new();
        for assigned in disks.iter_mut() {
            let Some(saved) = self.choices.further.get(&assigned.saved) else {
                continue;
            };
            let Ok(group) = group_on(&self.layout, saved) else {
                continue;
            };
            assigned.joins = Some(Joins {
                saved: saved.clone(),
                group: group.name.clone(),
            });
            if groups.iter().all(|(_, known)| known.id != group.id) {
                groups.push((saved.clone(), group));
            }
        }
        let mut notes = Vec::new();
        for (saved, group) in groups {
            let below = self.layout.disks_below(&group.id);
            let mut parts: Vec<&DiskAssignment> =
                disks.iter().filter(|d| below.contains(&d.saved)).collect();
            parts.sort_by_key(|d| (d.joins.is_some(), &d.device));
            let sectors = |d: &DiskAssignment| d.identity.sector_size;
            if let [first, others @ ..] = parts.as_slice() {
                if let Some(other) = others.iter().find(|d| sectors(d) != sectors(first)) {
                    return Err(PlanError::BadChoice {
                        disk: saved,
                        reason: format!(
                            "{} has sectors of {}, {} of {}: LVM makes no volume group ({}) of both",
                            other.device.display(),
                            sectors(other),
                            first.device.display(),
                            sectors(first),
                            group.name
                        ),
                    });
                }
            }
            let names: Vec<String> = parts
                .iter()
                .map(|d| d.device.display().to_string())
                .collect();
            notes.push(format!(
                "Volume group {} is spread over {}: when one of them fails, the whole group is lost, with what lies on the \
                 others, too.",
                group.name,
                names.join(" and ")
            ));
        }
        Ok((self.substitutions.clone(), notes))
    }
}

/// As LVM writes its UUIDs.
fn pv_uuid(guid: &str) -> String {
    let digits: String = guid.chars().filter(|c| *c != '-').collect();
    let mut rest = digits.as_str();
    let mut parts = Vec::new();
    for length in [6, 4, 4, 4, 4, 4, 6] {
        let (part, left) = rest.split_at_checked(length).unwrap_or((rest, ""));
        parts.push(part);
        rest = left;
    }
    parts.join("-")
}

/// An error about a disk that only this pass knows, told of the saved one.
pub(super) fn in_saved_terms(mut error: PlanError, choices: &Choices) -> PlanError {
    if let PlanError::TooSmall { disk, .. }
    | PlanError::NoDiskFor { disk, .. }
    | PlanError::Doubtful { disk, .. }
    | PlanError::Ambiguous { disk, .. }
    | PlanError::BadChoice { disk, .. }
    | PlanError::SectorSize { disk, .. } = &mut error
    {
        if let Some(saved) = choices.further.get(disk) {
            disk.clone_from(saved);
        }
    }
    error
}

/// The disks that take a saved one's place.
pub(super) fn without_further(disks: &[DiskAssignment]) -> Vec<DiskAssignment> {
    let own = disks.iter().filter(|d| d.joins.is_none());
    own.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_written_as_lvm_does() {
        let uuid = pv_uuid("01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(uuid, "012345-6789-ab4d-ef81-2345-6789-abcdef");
    }
}
