//! Partition tables fitted to the present disk.

use std::path::Path;

use super::build::Builder;
use super::disk::{LEAST_ENTRIES, gpt_tail};
use super::{DiskAssignment, PlanError, PlannedPartition, Step, Substitution, partition_path};
use crate::model::{Disk, GptTable, NodeId, Partition, Table, types};
use crate::units::Lba;

impl Builder<'_> {
    pub(super) fn disk(&mut self, id: &NodeId, disk: &Disk) -> Result<(), PlanError> {
        let Some(assigned) = self.assignment(id).cloned() else {
            return Ok(());
        };
        self.devices.insert(id.clone(), assigned.device.clone());
        let size = assigned.identity.size;
        self.resized(id, "disk".to_owned(), disk.size, size, &["size"]);
        match &disk.table {
            Some(Table::Gpt(table)) => self.gpt_disk(id, disk, &assigned, table),
            Some(Table::Mbr(table)) => self.mbr_disk(id, disk, &assigned, table),
            None => Ok(()),
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
            partitions.extend(self.planned(part_id, part, &assigned.device));
        }
        let device = assigned.device.clone();
        // In memory, before anything is erased: what cannot be written must not be found out on an empty disk.
        use crate::apply::table::DiskTable as _;
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

    /// A partition as it will be, on the disk `disk`; `None`: it is left out.
    pub(super) fn planned(
        &mut self,
        id: &NodeId,
        part: &Partition,
        disk: &Path,
    ) -> Option<PlannedPartition> {
        let (start, end) = self.fit.extent(id)?;
        let device = partition_path(disk, part.number);
        let planned = Partition {
            start,
            end,
            ..part.clone()
        };
        let what = format!("partition {}", part.number);
        self.resized(id, what, part.size(), planned.size(), &["end"]);
        if start != part.start {
            for property in ["start", "end"] {
                let reason = "it lies elsewhere, because one before it is smaller";
                self.accept(id, property, reason);
            }
        }
        self.devices.insert(id.clone(), device.clone());
        Some(PlannedPartition {
            node: id.clone(),
            device,
            number: part.number,
            type_guid: part.type_guid.clone(),
            partuuid: part.partuuid.clone(),
            name: part.name.clone(),
            attributes: part.attributes,
            start,
            end,
        })
    }

    /// Whether the image of a filesystem can be written: to as many bytes, in sectors of the same size.
    fn takes_image(&self, id: &NodeId, part: &Partition) -> bool {
        let converted = |s: &Substitution| s.node == *id && s.what == "sector_size";
        self.room(id).is_some_and(|room| room >= part.size())
            && !self.substitutions.iter().any(converted)
    }

    /// A partition that holds nothing known is written from its image.
    pub(super) fn partition_contents(&mut self, id: &NodeId, part: &Partition) {
        if self.saved.boot.esp_images.contains(id) && !self.takes_image(id, part) {
            self.notes.push(format!(
                "EFI system partition {} was not mounted and is made anew: boot loaders are installed on it, and other files \
                 that it had do not come back, since their image does not suit this disk.",
                part.number
            ));
            return;
        }
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
