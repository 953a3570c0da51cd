//! Partitions of one disk behind those of another.

use super::{Work, refuse};
use crate::model::{Disk, GptTable, Node, NodeId, Partition, Table, types};
use crate::plan::disk::{LEAST_ENTRIES, gpt_tail};
use crate::plan::{PlanError, partition_path};
use crate::units::{Bytes, Lba, SectorSize};

const WHY: &str = "its disk shares the place of another one, as chosen";

/// Where GRUB for BIOS puts its core image on a disk that had no partition table.
const BIOS_BOOT: Bytes = Bytes::MIB;

/// A GUID that follows from what it is for: the same choices make the same plan.
pub(in crate::plan) fn guid(of: &str, what: &str) -> String {
    let mut bytes = [0u8; 16];
    // FNV-1a, two times with different beginnings.
    for (half, seed) in bytes
        .chunks_mut(8)
        .zip([0xcbf2_9ce4_8422_2325u64, 0x6c62_272e_07bb_0142])
    {
        let mut hash = seed;
        for byte in of.bytes().chain([0]).chain(what.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        half.copy_from_slice(&hash.to_be_bytes());
    }
    uuid::Builder::from_custom_bytes(bytes)
        .into_uuid()
        .to_string()
}

/// The first block at or behind `next` that is a whole number of MiB from the start.
fn aligned(next: u64, sector: SectorSize) -> u64 {
    let unit = Bytes::MIB.sectors(sector).max(1);
    next.checked_next_multiple_of(unit).unwrap_or(u64::MAX)
}

impl Work {
    /// Puts what is left on disks that share a place where it goes.
    pub(super) fn tables(&mut self) -> Result<(), PlanError> {
        let pairs: Vec<(NodeId, NodeId)> = self
            .gone
            .iter()
            .filter_map(|(id, onto)| Some((id.clone(), onto.clone()?)))
            .collect();
        for (id, onto) in pairs {
            self.put_onto(&id, &onto)?;
            self.remove(&id, WHY);
        }
        Ok(())
    }

    fn disk(&self, id: &NodeId) -> Result<Disk, PlanError> {
        match self.layout.nodes.get(id) {
            Some(Node::Disk(disk)) => Ok(disk.clone()),
            _ => Err(refuse(id, "it is no disk".to_owned())),
        }
    }

    fn put_onto(&mut self, id: &NodeId, onto: &NodeId) -> Result<(), PlanError> {
        let unsupported: Vec<NodeId> = self
            .layout
            .children(id)
            .filter(|(_, node)| matches!(node, Node::Unsupported(_)))
            .map(|(child, _)| child.clone())
            .collect();
        for child in unsupported {
            self.remove(&child, "not supported, as the plan said");
        }
        if self.layout.children(id).next().is_none() {
            return Ok(());
        }
        let (disk, mut target) = (self.disk(id)?, self.disk(onto)?);
        let mbr = |disk: &Disk| matches!(disk.table, Some(Table::Mbr(_)));
        if mbr(&disk) || mbr(&target) {
            return Err(PlanError::BadChoice {
                disk: id.clone(),
                reason: format!(
                    "partitions cannot be put into an MBR partition table, nor out of one into that of {onto}: give each of the \
                     two a disk"
                ),
            });
        }
        if target.table.is_none() {
            self.wrap(onto, &mut target)?;
        }
        let mut parts: Vec<(NodeId, Partition)> = self
            .layout
            .partitions(id)
            .into_iter()
            .map(|(id, part)| (id.clone(), part.clone()))
            .collect();
        parts.sort_by_key(|(_, part)| part.start);
        for (part_id, part) in parts {
            let length = part.end.0.saturating_add(1).saturating_sub(part.start.0);
            let (number, start, end) = self.next_place(id, onto, &target, length)?;
            let moved = Partition {
                on: onto.clone(),
                device: partition_path(&target.device, number),
                number,
                start: Lba(start),
                end: Lba(end),
                ..part
            };
            for what in ["on", "number", "start", "end"] {
                self.accept(&part_id, what, WHY);
            }
            self.layout.nodes.insert(part_id, Node::Partition(moved));
        }
        if self.layout.children(id).next().is_some() {
            self.partition_for(id, id, onto, &target, disk.size)?;
        }
        self.enlarge(onto, target);
        Ok(())
    }

    /// The disk becomes as big as its partitions need.
    fn enlarge(&mut self, onto: &NodeId, mut target: Disk) {
        let sector = target.sector_size;
        let parts = self.layout.partitions(onto);
        let last = parts.iter().map(|(_, part)| part.end.0).max().unwrap_or(0);
        if let Some(Table::Gpt(table)) = &mut target.table {
            let tail = gpt_tail(table.entries, sector);
            let size = Lba(last.saturating_add(1).saturating_add(tail)).offset(sector);
            target.size = target.size.max(size);
            table.last_usable = table.last_usable.max(Lba(last));
        }
        for what in ["size", "table"] {
            self.accept(onto, what, "another disk shares its place, as chosen");
        }
        self.layout.nodes.insert(onto.clone(), Node::Disk(target));
    }

    /// Number, first and last block of a partition behind all others.
    fn next_place(
        &self,
        disk: &NodeId,
        onto: &NodeId,
        target: &Disk,
        length: u64,
    ) -> Result<(u32, u64, u64), PlanError> {
        let Some(Table::Gpt(table)) = &target.table else {
            return Err(refuse(onto, "it has no GUID partition table".to_owned()));
        };
        let parts = self.layout.partitions(onto);
        let number = parts.iter().map(|(_, part)| part.number).max().unwrap_or(0);
        let number = number.saturating_add(1);
        if number > table.entries.max(LEAST_ENTRIES) {
            return Err(PlanError::BadChoice {
                disk: disk.clone(),
                reason: format!("the partition table of {onto} has no numbers left"),
            });
        }
        let next = parts
            .iter()
            .map(|(_, part)| part.end.0.saturating_add(1))
            .max();
        let start = aligned(
            next.unwrap_or(0).max(table.first_usable.0),
            target.sector_size,
        );
        let end = start.saturating_add(length.max(1)).saturating_sub(1);
        Ok((number, start, end))
    }

    /// A disk without a partition table gets one, with its contents in a partition.
    fn wrap(&mut self, id: &NodeId, disk: &mut Disk) -> Result<(), PlanError> {
        let sector = disk.sector_size;
        let tail = gpt_tail(LEAST_ENTRIES, sector);
        disk.table = Some(Table::Gpt(GptTable {
            disk_guid: guid(id.as_str(), "disk"),
            first_usable: Lba(tail + 1),
            last_usable: Lba(disk.size.sectors(sector).saturating_sub(tail + 1)),
            entries: LEAST_ENTRIES,
        }));
        let boots = |grub: &crate::model::GrubBios| {
            grub.disk == *id || matches!(self.gone.get(&grub.disk), Some(Some(onto)) if onto == id)
        };
        if self.layout.boot.grub_bios.iter().any(boots) {
            self.new_partition(id, id, id, disk, (types::BIOS_BOOT, BIOS_BOOT))?;
        }
        self.partition_for(id, id, id, disk, disk.size)
    }

    /// Makes a partition of `size` for what covers the disk `from`, on the disk `onto`.
    fn partition_for(
        &mut self,
        disk: &NodeId,
        from: &NodeId,
        onto: &NodeId,
        target: &Disk,
        size: Bytes,
    ) -> Result<(), PlanError> {
        let covering: Vec<NodeId> = self
            .layout
            .children(from)
            .filter(|(_, node)| !matches!(node, Node::Partition(_)))
            .map(|(id, _)| id.clone())
            .collect();
        let kind = covering.first().and_then(|id| self.layout.nodes.get(id));
        let type_guid = match kind {
            None => return Ok(()),
            Some(Node::PhysicalVolume(_)) => types::LVM,
            Some(Node::RaidArray(_)) => types::RAID,
            Some(Node::Swap(_)) => types::SWAP,
            Some(Node::ZfsMember(_)) => types::ZFS,
            Some(_) => types::LINUX,
        };
        let part = self.new_partition(disk, from, onto, target, (type_guid, size))?;
        for child in covering {
            self.rest_on(&child, from, &part);
        }
        Ok(())
    }

    fn new_partition(
        &mut self,
        disk: &NodeId,
        from: &NodeId,
        onto: &NodeId,
        target: &Disk,
        (type_guid, size): (&str, Bytes),
    ) -> Result<NodeId, PlanError> {
        let sector = target.sector_size;
        let length = size.round_up(Bytes::MIB).sectors(sector);
        let (number, start, end) = self.next_place(disk, onto, target, length)?;
        let partuuid = guid(from.as_str(), type_guid);
        let id = NodeId::partition(&partuuid);
        let part = Partition {
            on: onto.clone(),
            device: partition_path(&target.device, number),
            number,
            type_guid: type_guid.to_owned(),
            partuuid,
            name: String::new(),
            attributes: 0,
            start: Lba(start),
            end: Lba(end),
            sector_size: sector,
        };
        self.accept(&id, "*", "what covered a whole disk gets a partition");
        self.layout.nodes.insert(id.clone(), Node::Partition(part));
        Ok(id)
    }

    /// A node lies on `new` instead of `old`.
    fn rest_on(&mut self, id: &NodeId, old: &NodeId, new: &NodeId) {
        let swap = |on: &mut NodeId| {
            if on == old {
                on.clone_from(new);
            }
        };
        let what = match self.layout.nodes.get_mut(id) {
            Some(Node::RaidArray(array)) => {
                array.members.iter_mut().for_each(|m| swap(&mut m.on));
                "members"
            }
            Some(Node::Btrfs(fs)) => {
                fs.on.iter_mut().for_each(swap);
                "on"
            }
            Some(node) => {
                match node {
                    Node::Luks(n) => swap(&mut n.on),
                    Node::PhysicalVolume(n) => swap(&mut n.on),
                    Node::Ext4(n) => swap(&mut n.on),
                    Node::Xfs(n) => swap(&mut n.on),
                    Node::Vfat(n) => swap(&mut n.on),
                    Node::Swap(n) => swap(&mut n.on),
                    Node::ZfsMember(n) => swap(&mut n.on),
                    _ => {}
                }
                "on"
            }
            None => return,
        };
        self.accept(id, what, WHY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_follow_from_what_they_are_for() {
        let one = guid("disk:a", types::LVM);
        assert_eq!(one, guid("disk:a", types::LVM));
        assert_ne!(one, guid("disk:b", types::LVM));
        assert_ne!(one, guid("disk:a", types::RAID));
        assert_eq!(uuid::Uuid::parse_str(&one).unwrap().to_string(), one);
    }

    #[test]
    fn partitions_start_at_whole_mebibytes() {
        assert_eq!(aligned(34, SectorSize::S512), 2048);
        assert_eq!(aligned(2048, SectorSize::S512), 2048);
        assert_eq!(aligned(2049, SectorSize::S512), 4096);
        assert_eq!(aligned(u64::MAX, SectorSize::S512), u64::MAX);
    }
}
