//! Table repair: the saved partition table is written around contents that are still there.

use std::collections::BTreeSet;

use super::{InPlace, Kept, Remade, finish, refusal};
use crate::apply::table::DiskTable as _;
use crate::apply::{gpt, mbr};
use crate::inventory::{FoundTable, Inventory, Present, Region};
use crate::model::{Disk, GptTable, Layout, Node, NodeId, Table, VdevRole, types};
use crate::plan::build::Builder;
use crate::plan::disk::{describe, gpt_tail};
use crate::plan::fit::Fit;
use crate::plan::step::count_of_partitions;
use crate::plan::{
    Choices, DiskAssignment, Plan, PlanError, PlannedPartition, Step, partition_path,
};
use crate::units::{Lba, SectorSize};

pub(super) fn plan(
    saved: &Layout,
    inventory: &Inventory,
    present: &Present,
    choices: &Choices,
    disks: Vec<DiskAssignment>,
) -> Result<Plan, PlanError> {
    let mut builder = Builder {
        saved,
        inventory,
        choices,
        disks: disks.clone(),
        merged: Vec::new(),
        switch_off: Vec::new(),
        crypttab_off: Vec::new(),
        names: crate::plan::reshape::device_names(saved),
        relevant: BTreeSet::new(),
        devices: Default::default(),
        fit: Fit::default(),
        steps: Vec::new(),
        sizes: Vec::new(),
        notes: Vec::new(),
        substitutions: Vec::new(),
    };
    let fence = builder.fence();
    builder.steps.push(Step::Fence {
        disks: fence.iter().map(|d| d.device.clone()).collect(),
        targets: disks.iter().map(|d| d.device.clone()).collect(),
        vgs: Vec::new(),
    });
    let (mut problems, mut remade, mut compared) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut kept = Vec::new();
    for assigned in &disks {
        let Some(Node::Disk(disk)) = saved.nodes.get(&assigned.saved) else {
            continue;
        };
        let one = One {
            saved,
            inventory,
            present,
            assigned,
            disk,
        };
        match one.step() {
            Ok(step) => builder.steps.push(step),
            Err(reasons) => problems.extend(reasons),
        }
        if let (Some(Table::Gpt(table)), true) = (&disk.table, assigned.identity.size != disk.size)
        {
            if one.fitted(table).last_usable != table.last_usable {
                let reason = "the backup table is at the end of a disk of another size";
                builder.accept(&assigned.saved, "table.last_usable", reason);
            }
            builder.accept(&assigned.saved, "size", "the disk has another size now");
        }
        remade.push(Remade {
            disk: assigned.device.clone(),
            what: format!(
                "the partition table ({}), and nothing else",
                count_of_partitions(saved.partitions(&assigned.saved).len())
            ),
        });
        kept.push(Kept {
            disk: assigned.device.clone(),
            what: vec!["the contents of all partitions, and the boot code".to_owned()],
        });
        compared.insert(assigned.saved.clone());
        compared.extend(
            saved
                .partitions(&assigned.saved)
                .iter()
                .map(|(id, _)| (*id).clone()),
        );
    }
    if !problems.is_empty() {
        return Err(refusal(choices.mode, problems));
    }
    let bios = saved.boot.grub_bios.iter();
    if bios.filter(|g| compared.contains(&g.disk)).count() > 0 {
        builder.notes.push(
            "The first sector keeps the boot code that is in it. Should the machine not start afterwards, repair its boot \
             loader next (boot repair)."
                .to_owned(),
        );
    }
    let in_place = InPlace {
        mode: choices.mode,
        remade,
        kept,
        compared,
    };
    finish(builder, in_place)
}

/// Whether a table that was found has the saved partitions, and no others.
pub(super) fn same_partitions(saved: &Layout, disk: &NodeId, found: &FoundTable) -> bool {
    let mut before: Vec<(u32, String, Lba, Lba)> = saved
        .partitions(disk)
        .iter()
        .map(|(_, p)| (p.number, p.partuuid.to_lowercase(), p.start, p.end))
        .collect();
    let mut now: Vec<_> = found
        .partitions
        .iter()
        .map(|(n, uuid, start, end)| (*n, uuid.to_lowercase(), *start, *end))
        .collect();
    before.sort();
    now.sort();
    before == now
}

struct One<'a> {
    saved: &'a Layout,
    inventory: &'a Inventory,
    present: &'a Present,
    assigned: &'a DiskAssignment,
    disk: &'a Disk,
}

impl One<'_> {
    fn step(&self) -> Result<Step, Vec<String>> {
        let name = self.name();
        let Some(table) = &self.disk.table else {
            return Err(vec![format!(
                "the saved disk {} had no partition table",
                self.assigned.saved
            )]);
        };
        let identity = &self.assigned.identity;
        if identity.sector_size != self.disk.sector_size {
            return Err(vec![format!(
                "{name} has sectors of {}, the saved disk had {}",
                identity.sector_size, self.disk.sector_size
            )]);
        }
        let mut problems = Vec::new();
        if let Some(found) = self.present.tables.get(&self.assigned.device) {
            if !same_partitions(self.saved, &self.assigned.saved, found) {
                problems.push(format!(
                    "{name} has a partition table that can be read and is not the saved one (its name is {}): it is not \
                     replaced",
                    found.name
                ));
            }
        }
        if let Some(what) = self.present.in_the_way.get(&self.assigned.device) {
            problems.push(format!(
                "{name} holds {what}, and would lose it to the partition table"
            ));
        }
        problems.extend(self.mismatches());
        let table = match table {
            Table::Gpt(gpt) => Table::Gpt(self.fitted(gpt)),
            Table::Mbr(mbr) => Table::Mbr(mbr.clone()),
        };
        let last = match &table {
            Table::Gpt(gpt) => gpt.last_usable,
            Table::Mbr(_) => Lba(identity
                .size
                .sectors(identity.sector_size)
                .saturating_sub(1)),
        };
        let partitions = self.partitions();
        if let Some(part) = partitions.iter().find(|p| p.end > last) {
            problems.push(format!(
                "{name} is too small: partition {} would end behind its end",
                part.number
            ));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let sectors = identity.size.sectors(identity.sector_size);
        if let Err(reason) = rehearsed(&table, identity.sector_size, sectors, &partitions) {
            return Err(vec![format!(
                "the saved partition table cannot be written to {name}: {reason}"
            )]);
        }
        Ok(Step::RestoreTable {
            device: self.assigned.device.clone(),
            table,
            sector_size: identity.sector_size,
            sectors,
            partitions,
        })
    }

    fn name(&self) -> String {
        let disks = &self.inventory.disks;
        let disk = disks.iter().find(|d| d.device == self.assigned.device);
        disk.map_or_else(|| self.assigned.device.display().to_string(), describe)
    }

    /// The saved table at the ends of the present disk.
    fn fitted(&self, table: &GptTable) -> GptTable {
        let sector = self.assigned.identity.sector_size;
        let sectors = self.assigned.identity.size.sectors(sector);
        let last_usable = if self.assigned.identity.size == self.disk.size {
            table.last_usable
        } else {
            Lba(sectors.saturating_sub(gpt_tail(table.entries, sector) + 1))
        };
        GptTable {
            last_usable,
            ..table.clone()
        }
    }

    fn partitions(&self) -> Vec<PlannedPartition> {
        let parts = self.saved.partitions(&self.assigned.saved).into_iter();
        parts
            .map(|(id, part)| PlannedPartition {
                node: id.clone(),
                device: partition_path(&self.assigned.device, part.number),
                number: part.number,
                type_guid: part.type_guid.clone(),
                partuuid: part.partuuid.clone(),
                name: part.name.clone(),
                attributes: part.attributes,
                start: part.start,
                end: part.end,
            })
            .collect()
    }

    /// The saved partitions whose contents are not where they were.
    fn mismatches(&self) -> Vec<String> {
        let (mut wrong, mut right) = (Vec::new(), 0);
        for (id, part) in self.saved.partitions(&self.assigned.saved) {
            if part.sector_size != self.disk.sector_size {
                wrong.push(format!(
                    "partition {} was saved in sectors of {}, and its disk in those of {}: the saved layout is damaged",
                    part.number, part.sector_size, self.disk.sector_size
                ));
            }
            let expected = self
                .saved
                .children(id)
                .find_map(|(_, node)| signature(node));
            let Some((kind, uuid)) =
                expected.filter(|_| part.type_guid != types::BIOS_BOOT && !part.is_extended())
            else {
                // It held nothing known, and anything may be there.
                continue;
            };
            let region = self
                .present
                .regions
                .iter()
                .find(|r| r.partition == *id && r.disk == self.assigned.device);
            let grown = region
                .and_then(|r| r.reach)
                .filter(|reach| *reach > part.size());
            let is_it = region.is_some_and(|r| matches(r, &kind, uuid.as_deref()));
            if let (true, Some(reach)) = (is_it, grown) {
                wrong.push(format!(
                    "the {kind} of partition {} takes {reach} ({} bytes) now, and the saved partition has {} ({} bytes): it \
                     was made bigger after the backup",
                    part.number,
                    reach.0,
                    part.size(),
                    part.size().0
                ));
                continue;
            }
            if is_it {
                right += 1;
                continue;
            }
            let uuid = uuid.map(|u| format!(" {u}")).unwrap_or_default();
            wrong.push(format!(
                "where partition {} lay ({} at {} bytes) should be {kind}{uuid}, and {}",
                part.number,
                part.size(),
                part.start.offset(part.sector_size).0,
                found(region)
            ));
        }
        if wrong.is_empty() && right == 0 {
            wrong.push(format!(
                "no partition of the saved disk {} held anything that tells it from others: that this is the disk cannot be \
                 checked",
                self.assigned.saved
            ));
        }
        wrong
    }
}

/// Writes it in memory: what cannot be written must not be found out on the disk.
fn rehearsed(
    table: &Table,
    sector: SectorSize,
    sectors: u64,
    partitions: &[PlannedPartition],
) -> Result<(), String> {
    match table {
        Table::Gpt(table) => gpt::Table {
            table,
            sector,
            sectors,
            partitions,
        }
        .rehearse(),
        Table::Mbr(table) => mbr::Table {
            table,
            sector,
            sectors,
            partitions,
        }
        .rehearse(),
    }
}

/// What blkid says of a node's device.
fn signature(node: &Node) -> Option<(String, Option<String>)> {
    Some(match node {
        Node::PhysicalVolume(pv) => ("LVM2_member".to_owned(), Some(pv.uuid.clone())),
        Node::Luks(luks) => ("crypto_LUKS".to_owned(), Some(luks.uuid.clone())),
        Node::RaidArray(array) => ("linux_raid_member".to_owned(), Some(array.uuid.clone())),
        Node::Swap(swap) => ("swap".to_owned(), Some(swap.uuid.clone())),
        Node::Btrfs(fs) => ("btrfs".to_owned(), Some(fs.uuid.clone())),
        // Caches and spares have no signature.
        Node::ZfsMember(member) if member.role == VdevRole::Data => ("zfs_member".to_owned(), None),
        Node::Unsupported(what) => (what.what.clone(), None),
        node => {
            let fs = node.filesystem()?;
            (fs.fstype.to_owned(), Some(fs.uuid.to_owned()))
        }
    })
}

/// UUIDs are written with different separators.
fn digits(uuid: &str) -> String {
    let kept = uuid.chars().filter(char::is_ascii_alphanumeric);
    kept.collect::<String>().to_lowercase()
}

fn matches(region: &Region, kind: &str, uuid: Option<&str>) -> bool {
    // LVM's UUIDs tell upper and lower case apart.
    let same = |a: &str, b: &str| match kind {
        "LVM2_member" => a == b,
        _ => digits(a) == digits(b),
    };
    region.unreadable.is_none()
        && region.fstype.as_deref() == Some(kind)
        && uuid.is_none_or(|uuid| {
            region
                .uuid
                .as_deref()
                .is_some_and(|found| same(found, uuid))
        })
}

fn found(region: Option<&Region>) -> String {
    let Some(region) = region else {
        return "it was not looked at".to_owned();
    };
    match (&region.unreadable, &region.fstype) {
        (Some(reason), _) => format!("it cannot be read: {reason}"),
        (None, None) => "nothing known is there".to_owned(),
        (None, Some(kind)) => {
            let uuid = region.uuid.as_deref().unwrap_or("no UUID");
            format!("{kind} {uuid} is there")
        }
    }
}
