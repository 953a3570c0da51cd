//! A disk with sectors of another size in the place of a saved one: the same bytes, counted in other sectors.
//!
//! Partitions start where they did. Their ends, and the start of GRUB's own partition, give way by less than a sector
//! where nothing is lost by it. What cannot live on bigger sectors is refused by name.

use super::disk::{LEAST_ENTRIES, gpt_tail};
use super::{DiskAssignment, PlanError, Substitution};
use crate::model::{Disk, Layout, Node, NodeId, Partition, Table, types};
use crate::units::{Bytes, Lba, SectorSize};

const WHY: &str = "the disk in its place has sectors of another size";

/// A layout counted in the sectors of present disks, with what that changes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Converted {
    pub layout: Layout,
    pub substitutions: Vec<Substitution>,
    pub notes: Vec<String>,
}

/// All assigned disks; `None` when no sector size differs.
pub(super) fn fit(
    saved: &Layout,
    disks: &[DiskAssignment],
) -> Result<Option<Converted>, PlanError> {
    let mut all: Option<Converted> = None;
    for assigned in disks {
        let now = &assigned.identity;
        let layout = all.as_ref().map_or(saved, |c| &c.layout);
        let Some(Node::Disk(disk)) = layout.nodes.get(&assigned.saved) else {
            continue;
        };
        if disk.sector_size == now.sector_size {
            continue;
        }
        let converted = convert(layout, &assigned.saved, disk, now.sector_size, now.size);
        let mut converted = converted.map_err(|reason| PlanError::SectorSize {
            disk: assigned.saved.clone(),
            device: assigned.device.clone(),
            saved: disk.sector_size,
            now: now.sector_size,
            reason,
        })?;
        if let Some(before) = all.take() {
            converted.substitutions.extend(before.substitutions);
            converted.notes.extend(before.notes);
        }
        all = Some(converted);
    }
    Ok(all)
}

/// The layout with one disk counted in sectors of `to`, on a disk of `size`.
pub(super) fn convert(
    saved: &Layout,
    id: &NodeId,
    disk: &Disk,
    to: SectorSize,
    size: Bytes,
) -> Result<Converted, String> {
    let from = disk.sector_size;
    let known = [512, 4096];
    if !known.contains(&from.0) || !known.contains(&to.0) {
        return Err("only sectors of 512 and 4096 bytes are known".to_owned());
    }
    let mut made = Converted {
        layout: saved.clone(),
        substitutions: Vec::new(),
        notes: Vec::new(),
    };
    let mut accept = |node: &NodeId, what: &str| {
        made.substitutions.push(Substitution {
            node: node.clone(),
            what: what.to_owned(),
            reason: WHY.to_owned(),
        });
    };
    let mut new = disk.clone();
    new.sector_size = to;
    accept(id, "sector_size");
    let (mut first, mut last) = (Lba(1), Lba(size.sectors(to).saturating_sub(1)));
    match &mut new.table {
        Some(Table::Gpt(table)) => {
            table.entries = table.entries.max(LEAST_ENTRIES);
            let tail = gpt_tail(table.entries, to);
            first = Lba(tail.saturating_add(1));
            last = Lba(size.sectors(to).saturating_sub(tail.saturating_add(1)));
            table.first_usable = first;
            let end = after(table.last_usable).offset(from).sectors(to);
            table.last_usable = Lba(end.saturating_sub(1));
            accept(id, "table");
        }
        Some(Table::Mbr(table)) => {
            for record in &mut table.records {
                *record = exactly(*record, from, to)
                    .ok_or("a record of logical partitions lies within a sector")?;
            }
            accept(id, "table");
        }
        None => {}
    }
    made.layout.nodes.insert(id.clone(), Node::Disk(new));
    for (part_id, part) in saved.partitions(id) {
        let moved = partition(part, to, first, last).ok_or_else(|| {
            format!(
                "partition {} starts within a sector, or where the partition table has to be",
                part.number
            )
        })?;
        if moved.size() < part.size() && !part.is_extended() {
            still_fits(saved, part_id, part, moved.size())?;
        }
        for what in ["start", "end", "sector_size"] {
            accept(part_id, what);
        }
        made.layout
            .nodes
            .insert(part_id.clone(), Node::Partition(moved));
    }
    if to.0 > from.0 && saved.boot.grub_bios.iter().any(|grub| grub.disk == *id) {
        made.notes.push(format!(
            "Hardly any BIOS boots from a disk with sectors of {to}: switch the firmware to UEFI if this machine does not start."
        ));
    }
    for (node_id, node) in &saved.nodes {
        if saved.disks_below(node_id).contains(id) {
            contents(&mut made, node_id, node, to)?;
        }
    }
    Ok(made)
}

fn after(last: Lba) -> Lba {
    Lba(last.0.saturating_add(1))
}

/// The same place; `None` when no sector starts there.
fn exactly(lba: Lba, from: SectorSize, to: SectorSize) -> Option<Lba> {
    let bytes = lba.0.checked_mul(from.0.into())?;
    (bytes % u64::from(to.0) == 0).then(|| Lba(bytes / u64::from(to.0)))
}

/// A partition in other sectors, between the first and the last usable one.
fn partition(part: &Partition, to: SectorSize, first: Lba, last: Lba) -> Option<Partition> {
    let from = part.sector_size;
    let start = match exactly(part.start, from, to) {
        Some(start) if start >= first => start,
        // What GRUB has there is written anew wherever it starts.
        _ if part.type_guid == types::BIOS_BOOT => {
            let up = part.start.offset(from).0.div_ceil(u64::from(to.0));
            Lba(up).max(first)
        }
        _ => return None,
    };
    let end = Lba(after(part.end).offset(from).sectors(to).saturating_sub(1)).min(last);
    (end >= start).then(|| Partition {
        start,
        end,
        sector_size: to,
        ..part.clone()
    })
}

/// Whether what lies on a partition still has room in `now`.
fn still_fits(saved: &Layout, id: &NodeId, part: &Partition, now: Bytes) -> Result<(), String> {
    let mut needed = Bytes(0);
    let mut empty = true;
    for (_, node) in saved.children(id) {
        empty = false;
        let this = match node {
            Node::PhysicalVolume(pv) => pv.pe_start.plus(pv.size),
            // They are made as big as their device.
            Node::Swap(_) | Node::ZfsMember(_) => Bytes(0),
            Node::Btrfs(fs) => fs.size_on(id).round_down(Bytes(4096)),
            other => other.filesystem().map_or(part.size(), |fs| fs.size),
        };
        needed = needed.max(this);
    }
    if empty && part.type_guid != types::BIOS_BOOT {
        needed = part.size();
    }
    if needed > now {
        return Err(format!(
            "partition {} becomes smaller by {} bytes, and what is on it needs them",
            part.number,
            part.size().minus(now).0
        ));
    }
    Ok(())
}

/// What lies somewhere on the disk.
fn contents(made: &mut Converted, id: &NodeId, node: &Node, to: SectorSize) -> Result<(), String> {
    let sector = Bytes(to.0.into());
    let mut accept = |what: &str| {
        made.substitutions.push(Substitution {
            node: id.clone(),
            what: what.to_owned(),
            reason: WHY.to_owned(),
        });
    };
    let too_small = |block: Bytes| {
        Err(format!(
            "filesystem {id} has blocks of {block}, which are smaller than a sector"
        ))
    };
    match node {
        // Nothing is known of blocks of no size: it is made with the defaults.
        Node::Ext4(fs) if fs.block_size < sector && fs.block_size > Bytes(0) => {
            return too_small(fs.block_size);
        }
        Node::Xfs(fs) if fs.block_size < sector => return too_small(fs.block_size),
        Node::Btrfs(fs) if fs.sector_size < sector => return too_small(fs.sector_size),
        Node::Xfs(fs) if fs.sector_size < sector => {
            accept("sector_size");
            let fs = crate::model::Xfs {
                sector_size: sector,
                ..fs.clone()
            };
            made.layout.nodes.insert(id.clone(), Node::Xfs(fs));
        }
        // mkfs.vfat takes the sectors of the device.
        Node::Vfat(fs) => {
            for what in ["cluster_size", "size"] {
                accept(what);
            }
            let fs = crate::model::Vfat {
                cluster_size: fs.cluster_size.max(sector),
                size: fs.size.round_down(sector),
                ..fs.clone()
            };
            made.layout.nodes.insert(id.clone(), Node::Vfat(fs));
        }
        Node::PhysicalVolume(pv) if pv.pe_start.0 % sector.0 != 0 => {
            return Err(format!("the extents of {id} start within a sector"));
        }
        Node::Swap(_) => accept("size"),
        Node::ZfsPool(pool) => {
            let least = pool.vdevs.iter().filter_map(|v| v.ashift).min();
            if let Some(ashift) = least.filter(|a| sector.0 > 1u64.checked_shl(*a).unwrap_or(0)) {
                return Err(format!(
                    "pool {} was made for sectors of {} (ashift {ashift}), which are smaller than those of the disk",
                    pool.name,
                    Bytes(1u64.checked_shl(ashift).unwrap_or(0))
                ));
            }
        }
        _ => {}
    }
    Ok(())
}
