//! Master boot records fitted to the present disk.

use std::collections::BTreeSet;

use super::build::Builder;
use super::gpt::grown_end;
use super::{DiskAssignment, PlanError, Step};
use crate::model::{Disk, MbrTable, NodeId, Partition, Table};
use crate::units::{Bytes, Lba, SectorSize};

/// How many sectors an MBR reaches: addresses and lengths have 32 bits.
const REACH: u64 = u32::MAX as u64;

/// Sectors between the MBR and the first partition that GRUB for BIOS wants at least: as many as old cylinder-aligned
/// tables leave.
const GRUB_GAP: u64 = 62;

/// The last sector that a partition may use.
fn last_usable(size: Bytes, sector: SectorSize) -> Lba {
    Lba(size.sectors(sector).min(REACH).saturating_sub(1))
}

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
        if sectors > REACH {
            self.notes.push(format!(
                "{} is bigger than its MBR partition table can say ({}): the rest of it stays free.",
                assigned.device.display(),
                Lba(REACH).offset(sector)
            ));
        }
        let (before, now) = (
            last_usable(disk.size, sector),
            last_usable(assigned.identity.size, sector),
        );
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
        let grown = self.grown_mbr(&parts, before, now, sector);
        let mut partitions = Vec::new();
        for (part_id, part) in parts {
            let end = grown
                .iter()
                .find(|(grown, _)| grown == part_id)
                .map_or(part.end, |(_, end)| *end);
            partitions.push(self.planned(part_id, part, &assigned.device, end));
        }
        // In memory, before anything is erased: what cannot be written must not be found out on an empty disk.
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

    /// The new ends of the last partition and, where that is a logical one, of the extended partition around it.
    fn grown_mbr(
        &self,
        parts: &[(&NodeId, &Partition)],
        before: Lba,
        now: Lba,
        sector: SectorSize,
    ) -> Vec<(NodeId, Lba)> {
        let last = parts
            .iter()
            .filter(|(_, part)| !part.is_extended())
            .max_by_key(|(_, part)| part.end);
        let Some((id, part)) = last.filter(|(id, _)| now > before && self.may_grow(id)) else {
            return Vec::new();
        };
        let extended = parts.iter().find(|(_, part)| part.is_extended());
        match extended {
            Some((around, extended)) if part.is_logical() => {
                if parts
                    .iter()
                    .any(|(_, p)| !p.is_logical() && p.end > extended.end)
                {
                    return Vec::new();
                }
                let end = grown_end(extended.end, before, now, sector);
                // What was free behind it within the extended partition stays free.
                let inner = end
                    .0
                    .saturating_sub(extended.end.0.saturating_sub(part.end.0));
                vec![
                    ((*around).clone(), end),
                    ((*id).clone(), Lba(inner).max(part.end)),
                ]
            }
            // An extended partition without a logical one at its end is in the way.
            Some((_, extended)) if extended.end > part.end => Vec::new(),
            _ => vec![((*id).clone(), grown_end(part.end, before, now, sector))],
        }
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
