//! Partition tables fitted to the present disk.

use std::path::Path;

use super::build::Builder;
use super::disk::{LEAST_ENTRIES, gpt_tail};
use super::{DiskAssignment, Grow, PlanError, PlannedPartition, Step, partition_path};
use crate::model::{Disk, GptTable, Node, NodeId, Partition, Table, types};
use crate::units::{Bytes, Lba, SectorSize};

/// Ends of grown partitions are aligned to this, as partitioning tools align.
const ALIGNMENT: Bytes = Bytes::MIB;

/// The new end of a partition that grows from a disk that could be used up to `before` to one that can be up to `now`.
pub(super) fn grown_end(end: Lba, before: Lba, now: Lba, sector: SectorSize) -> Lba {
    // Space left free behind the last partition was left on purpose: as much stays free.
    let tail = before.0.saturating_sub(end.0);
    let unit = ALIGNMENT.sectors(sector).max(1);
    let aligned = now.0.saturating_sub(tail).saturating_add(1) / unit * unit;
    Lba(aligned.saturating_sub(1)).max(end)
}

impl Builder<'_> {
    pub(super) fn disk(&mut self, id: &NodeId, disk: &Disk) -> Result<(), PlanError> {
        let Some(assigned) = self.assignment(id).cloned() else {
            return Ok(());
        };
        self.devices.insert(id.clone(), assigned.device.clone());
        self.space.insert(id.clone(), assigned.identity.size);
        if assigned.identity.size != disk.size {
            self.sizes.push(super::SizeChange {
                node: id.clone(),
                what: "disk".to_owned(),
                saved: disk.size,
                now: assigned.identity.size,
            });
            self.accept(id, "size", "the disk in its place has another size");
        }
        match &disk.table {
            Some(Table::Gpt(table)) => self.gpt_disk(id, disk, &assigned, table),
            Some(Table::Mbr(table)) => self.mbr_disk(id, disk, &assigned, table),
            None => {
                if assigned.identity.size > disk.size {
                    self.grown.insert(id.clone());
                }
                Ok(())
            }
        }
    }

    fn gpt_disk(
        &mut self,
        id: &NodeId,
        disk: &Disk,
        assigned: &DiskAssignment,
        table: &GptTable,
    ) -> Result<(), PlanError> {
        let sector = disk.sector_size;
        let sectors = assigned.identity.size.sectors(sector);
        let tail = gpt_tail(table.entries, sector);
        let last_usable = Lba(sectors.saturating_sub(tail + 1));
        let mut new_table = GptTable {
            last_usable,
            ..table.clone()
        };
        if table.entries < LEAST_ENTRIES {
            new_table.entries = LEAST_ENTRIES;
            new_table.first_usable = table.first_usable.max(Lba(tail + 1));
            for what in ["table.entries", "table.first_usable"] {
                self.accept(id, what, "a table is made with 128 entries at least");
            }
        }
        if last_usable != table.last_usable {
            self.accept(
                id,
                "table.last_usable",
                "the backup table is at the end of a disk of another size",
            );
        }
        let mut partitions = Vec::new();
        for (part_id, part) in self.saved.partitions(id) {
            let end = self.new_end(id, part_id, part, table, last_usable, sector);
            partitions.push(self.planned(part_id, part, &assigned.device, end));
        }
        let device = assigned.device.clone();
        // In memory, before anything is erased: what cannot be written must not be found out on an empty disk.
        let rehearsal = crate::apply::gpt::Table {
            table: &new_table,
            sector,
            sectors,
            partitions: &partitions,
        };
        if let Err(reason) = rehearsal.rehearse() {
            return Err(PlanError::Unsupported {
                node: id.clone(),
                reason: format!("its partition table cannot be made again: {reason}"),
            });
        }
        self.steps.push(Step::WriteGpt {
            device,
            table: new_table,
            sector_size: sector,
            sectors,
            partitions,
        });
        Ok(())
    }

    /// A partition as it will be, on the disk `disk` and with another end.
    pub(super) fn planned(
        &mut self,
        id: &NodeId,
        part: &Partition,
        disk: &Path,
        end: Lba,
    ) -> PlannedPartition {
        let device = partition_path(disk, part.number);
        let planned = Partition {
            end,
            ..part.clone()
        };
        if end > part.end {
            self.grown.insert(id.clone());
            self.sizes.push(super::SizeChange {
                node: id.clone(),
                what: format!("partition {}", part.number),
                saved: part.size(),
                now: planned.size(),
            });
            self.accept(id, "end", "the partition grows to the end of a bigger disk");
        }
        self.devices.insert(id.clone(), device.clone());
        self.space.insert(id.clone(), planned.size());
        PlannedPartition {
            node: id.clone(),
            device,
            number: part.number,
            type_guid: part.type_guid.clone(),
            partuuid: part.partuuid.clone(),
            name: part.name.clone(),
            attributes: part.attributes,
            start: part.start,
            end,
        }
    }

    /// Where a partition ends on the present disk: only the last one grows, and only when root lies on it.
    fn new_end(
        &self,
        disk: &NodeId,
        id: &NodeId,
        part: &Partition,
        table: &GptTable,
        last_usable: Lba,
        sector: SectorSize,
    ) -> Lba {
        let last = self.saved.partitions(disk).iter().map(|(_, p)| p.end).max();
        if last_usable <= table.last_usable || Some(part.end) != last || !self.may_grow(id) {
            return part.end;
        }
        grown_end(part.end, table.last_usable, last_usable, sector)
    }

    pub(super) fn may_grow(&self, id: &NodeId) -> bool {
        let Some(root) = self.root_fs() else {
            return false;
        };
        let root_on = self.saved.nodes.get(root).map(Node::on).unwrap_or_default();
        self.saved.children(id).any(|(child, node)| match node {
            // The physical volume grows in any case; whether root does too is the operator's choice.
            Node::PhysicalVolume(_) => self.saved.children(child).any(|(vg, _)| {
                root_on.iter().any(|lv| {
                    self.saved
                        .nodes
                        .get(lv)
                        .is_some_and(|lv| lv.on().contains(vg))
                })
            }),
            _ => child == root && self.choices.grow == Grow::Root,
        })
    }

    /// A partition that holds nothing known is written from its image.
    pub(super) fn partition_contents(&mut self, id: &NodeId, part: &Partition) {
        let unknown = self.saved.unknown_partitions();
        if let (Some(found), Some(device)) =
            (unknown.iter().find(|u| u.id == *id), self.devices.get(id))
        {
            self.steps.push(Step::RestoreImage {
                node: id.clone(),
                device: device.clone(),
                size: found.size,
            });
        } else if part.type_guid != types::BIOS_BOOT
            && !part.is_extended()
            && self.saved.children(id).next().is_none()
        {
            self.notes.push(format!(
                "Partition {} of a data disk is made again and stays empty.",
                part.number
            ));
        }
    }
}
