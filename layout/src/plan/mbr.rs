//! Master boot records fitted to the present disk.

use std::collections::BTreeSet;

use super::build::Builder;
use super::fit::last_usable;
use super::{DiskAssignment, PlanError, Step};
use crate::model::{Disk, MbrTable, NodeId, Table};
use crate::units::Lba;

/// Sectors between the MBR and the first partition that GRUB for BIOS wants at least: as many as old cylinder-aligned
/// tables leave.
const GRUB_GAP: u64 = 62;

impl Builder<'_> {
    pub(super) fn mbr_disk(
        &mut self,
        id: &NodeId,
        disk: &Disk,
        assigned: &DiskAssignment,
        table: &MbrTable,
    ) -> Result<(), PlanError> {
        let sector = disk.sector_size;
        let sectors = assigned.identity.size.sectors(sector);
        let whole = Table::Mbr(table.clone());
        let reach = last_usable(&whole, assigned.identity.size, sector).saturating_add(1);
        if sectors > reach {
            self.notes.push(format!(
                "{} is bigger than its MBR partition table can say ({}): the rest of it stays free.",
                assigned.device.display(),
                Lba(reach).offset(sector)
            ));
        }
        let saved = self.saved;
        let parts = saved.partitions(id);
        let first = parts.iter().map(|(_, part)| part.start.0).min();
        if saved.boot.grub_bios.iter().any(|grub| grub.disk == *id)
            && first.is_some_and(|first| first <= GRUB_GAP)
        {
            self.notes.push(format!(
                "The first partition of {} starts in block {}: if GRUB does not fit before it, its installation fails.",
                assigned.device.display(),
                first.unwrap_or_default()
            ));
        }
        let mut partitions = Vec::new();
        for (part_id, part) in parts {
            partitions.extend(self.planned(part_id, part, &assigned.device));
        }
        // In memory, before anything is erased: what cannot be written must not be found out on an empty disk.
        use crate::apply::table::DiskTable as _;
        let rehearsal = crate::apply::mbr::Table {
            table,
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
        self.steps.push(Step::WriteMbr {
            device: assigned.device.clone(),
            table: table.clone(),
            sector_size: sector,
            sectors,
            partitions,
        });
        Ok(())
    }

    /// GRUB's modules for the partition tables of the disks below a node.
    pub(super) fn table_modules(&self, node: Option<&NodeId>) -> Vec<String> {
        let disks = node
            .map(|id| self.saved.disks_below(id))
            .unwrap_or_default();
        let tables: BTreeSet<&str> = self
            .saved
            .disks()
            .filter(|(id, _)| disks.contains(*id))
            .filter_map(|(_, disk)| match disk.table.as_ref()? {
                Table::Gpt(_) => Some("part_gpt"),
                Table::Mbr(_) => Some("part_msdos"),
            })
            .collect();
        if tables.is_empty() {
            return vec!["part_gpt".to_owned()];
        }
        tables.into_iter().map(str::to_owned).collect()
    }
}
