//! Where partitions start and end.

use super::slack::{exactly, total};
use super::{ALIGNMENT, Fit, STAGES, Sizing, Slack, Squeeze, Stage};
use crate::model::{Disk, GptTable, Node, NodeId, Partition, Table};
use crate::plan::disk::{LEAST_ENTRIES, gpt_tail};
use crate::plan::{Grow, PlanError};
use crate::units::{Bytes, Lba, SectorSize};

/// A partition to be placed. Lengths are in sectors.
struct Slot<'a> {
    id: &'a NodeId,
    part: &'a Partition,
    slack: Slack,
}

/// The partitions of a disk in the order of their place. The container of logical partitions is not among them.
struct Slots<'a> {
    list: Vec<Slot<'a>>,
    /// The container of logical partitions.
    extended: Option<(&'a NodeId, &'a Partition)>,
    first_usable: u64,
    /// [`ALIGNMENT`] in sectors.
    unit: u64,
}

/// How many sectors an MBR reaches: addresses and lengths have 32 bits.
const MBR_REACH: u64 = u32::MAX as u64;

/// The last sector that a partition may use on a disk of `size`.
pub(in crate::plan) fn last_usable(table: &Table, size: Bytes, sector: SectorSize) -> u64 {
    let sectors = size.sectors(sector);
    match table {
        Table::Gpt(table) => sectors.saturating_sub(gpt_tail(table.entries, sector) + 1),
        Table::Mbr(_) => sectors.min(MBR_REACH).saturating_sub(1),
    }
}

/// The first block that a partition may use, in the table that is made.
fn first_usable(table: &GptTable, sector: SectorSize) -> u64 {
    if table.entries < LEAST_ENTRIES {
        let own = gpt_tail(table.entries, sector) + 1;
        table.first_usable.0.max(own)
    } else {
        table.first_usable.0
    }
}

fn length(part: &Partition) -> u64 {
    part.end.0.saturating_add(1).saturating_sub(part.start.0)
}

fn round_up(value: u64, unit: u64) -> u64 {
    value
        .checked_next_multiple_of(unit.max(1))
        .unwrap_or(u64::MAX)
}

impl Slots<'_> {
    /// Places the partitions one after the other, each `taken` shorter than saved, without the gaps between them. None
    /// starts later than it did: the first ones stay where they were.
    ///
    /// Beside logical partitions all stay where they were: records lie between them.
    fn place(&self, taken: &[u64]) -> Vec<(u64, u64)> {
        let mut next = self.first_usable;
        let mut places = Vec::with_capacity(self.list.len());
        for (slot, taken) in self.list.iter().zip(taken) {
            let start = match self.extended {
                Some(_) => slot.part.start.0,
                None => round_up(next, self.unit).min(slot.part.start.0),
            };
            let length = length(slot.part).saturating_sub(*taken).max(1);
            next = start.saturating_add(length);
            places.push((start, next - 1));
        }
        places
    }

    fn end(&self, taken: &[u64]) -> u64 {
        let places = self.place(taken);
        places
            .iter()
            .map(|(_, end)| *end)
            .max()
            .unwrap_or(self.first_usable)
    }

    /// How much each partition gives up when `all` sectors are wanted: stage by stage, within a stage in proportion.
    fn share(&self, all: u64) -> Vec<u64> {
        let mut taken = vec![0u64; self.list.len()];
        let mut left = all;
        for stage in 0..STAGES {
            let here = self
                .list
                .iter()
                .fold(0u64, |sum, slot| sum.saturating_add(slot.slack[stage]));
            let wanted = left.min(here);
            left -= wanted;
            for (taken, slot) in taken.iter_mut().zip(&self.list) {
                // Rounded up, so that more wanted never means less from anyone: the search below relies on it.
                let part = u128::from(wanted) * u128::from(slot.slack[stage]);
                let part = part.div_ceil(u128::from(here.max(1)));
                let part = round_up(u64::try_from(part).unwrap_or(u64::MAX), self.unit);
                *taken = taken.saturating_add(part.min(slot.slack[stage]));
            }
        }
        taken
    }

    fn all_slack(&self) -> u64 {
        self.list
            .iter()
            .fold(0u64, |sum, slot| sum.saturating_add(total(&slot.slack)))
    }

    /// Gives up as little as makes everything end at `last` or before.
    fn squeeze(&self, last: u64) -> Vec<(u64, u64)> {
        let (mut too_little, mut enough) = (0, self.all_slack());
        while too_little < enough {
            let middle = too_little + (enough - too_little) / 2;
            if self.end(&self.share(middle)) <= last {
                enough = middle;
            } else {
                too_little = middle + 1;
            }
        }
        self.place(&self.share(enough))
    }

    /// Where the container of logical partitions ends, when the partitions lie at `places`. Behind its last one it keeps
    /// what was free, unless that is wanted (`tight`).
    fn extended_end(&self, places: &[(u64, u64)], tight: bool) -> Option<u64> {
        let (_, extended) = self.extended?;
        let logical = self.list.iter().zip(places);
        let logical = logical.filter(|(slot, _)| slot.part.is_logical());
        let (before, now) = logical
            .map(|(slot, (_, end))| (slot.part.end.0, *end))
            .max()?;
        let free = extended.end.0.saturating_sub(before);
        Some(if tight || now < before {
            now
        } else {
            now.saturating_add(free)
        })
    }
}

impl<'a> Sizing<'a> {
    /// The partitions of a disk that are made, by place.
    fn slots(&self, disk: &NodeId, table: &Table, sector: SectorSize) -> Slots<'a> {
        let unit = ALIGNMENT.sectors(sector).max(1);
        let mut list: Vec<Slot<'a>> = Vec::new();
        let mut extended = None;
        for (id, node) in &self.saved.nodes {
            let Node::Partition(part) = node else {
                continue;
            };
            if part.on != *disk || self.left_out.contains(id) {
                continue;
            }
            if part.is_extended() {
                extended = Some((id, part));
                continue;
            }
            let slack = self.device_slack(id, part.size());
            let least = part.size().0.saturating_sub(total(&slack));
            let least = round_up(least.div_ceil(u64::from(sector.0.max(1))), unit).max(unit);
            let sectors = slack.map(|bytes| Bytes(bytes).sectors(sector));
            let slack = exactly(&sectors, length(part).saturating_sub(least));
            list.push(Slot { id, part, slack });
        }
        list.sort_by_key(|slot| (slot.part.start, slot.part.end));
        if extended.is_some() {
            // Only what lies last can give way to a disk's end.
            let count = list.len();
            for slot in list.iter_mut().take(count.saturating_sub(1)) {
                slot.slack = [0; STAGES];
            }
        }
        let first = list.first().map_or(0, |slot| slot.part.start.0);
        Slots {
            list,
            extended,
            first_usable: match table {
                Table::Gpt(table) => first_usable(table, sector),
                // What lies before the first partition belongs to boot loaders.
                Table::Mbr(_) => first,
            },
            unit,
        }
    }

    /// See [`super::needed`].
    pub(super) fn needed(&self, id: &NodeId, disk: &Disk, squeeze: Squeeze) -> Bytes {
        let Some(table) = &disk.table else {
            return self.needed_without_table(id, disk, squeeze);
        };
        let sector = disk.sector_size;
        let slots = self.slots(id, table, sector);
        let saved = slots.list.iter().map(|slot| slot.part.end.0).max();
        // An extended partition without a logical one takes what it took.
        let container = slots.extended.map(|(_, part)| part.end.0);
        let mut last = saved.max(container).unwrap_or(slots.first_usable);
        let taken: Vec<u64> = match squeeze {
            Squeeze::Nothing => Vec::new(),
            Squeeze::Free => slots
                .list
                .iter()
                .map(|s| s.slack[Stage::Free as usize])
                .collect(),
            Squeeze::All => slots.list.iter().map(|s| total(&s.slack)).collect(),
        };
        if squeeze != Squeeze::Nothing && saved.is_some() {
            let places = slots.place(&taken);
            let container = match slots.extended_end(&places, true) {
                Some(end) => end,
                None => container.unwrap_or(0),
            };
            last = last.min(slots.end(&taken).max(container));
        }
        let behind = match table {
            Table::Gpt(table) => gpt_tail(table.entries, sector),
            Table::Mbr(_) => 0,
        };
        Lba(last.saturating_add(1 + behind)).offset(sector)
    }

    fn needed_without_table(&self, id: &NodeId, disk: &Disk, squeeze: Squeeze) -> Bytes {
        let all = self
            .saved
            .children(id)
            .map(|(_, node)| match node {
                Node::PhysicalVolume(pv) => pv.pe_start.plus(pv.size),
                Node::Swap(swap) => swap.size,
                Node::Luks(luks) => luks.data_offset.plus(luks.size),
                Node::RaidArray(array) => array
                    .members
                    .iter()
                    .filter(|m| m.on == *id)
                    .map(|m| array.needed(m).min(disk.size))
                    .max()
                    .unwrap_or(Bytes(0)),
                Node::Btrfs(fs) => fs.size_on(id),
                Node::ZfsMember(_) => disk.size,
                other => other.filesystem().map_or(Bytes(0), |fs| fs.size),
            })
            .max()
            .unwrap_or(Bytes(0));
        let slack = self.device_slack(id, all);
        match squeeze {
            Squeeze::Nothing => all,
            Squeeze::Free => all.minus(Bytes(slack[Stage::Free as usize])),
            Squeeze::All => all.minus(Bytes(total(&slack))),
        }
    }

    /// Places the partitions of an assigned disk of `size`.
    pub(super) fn partitions(
        &self,
        fit: &mut Fit,
        id: &NodeId,
        disk: &Disk,
        size: Bytes,
    ) -> Result<(), PlanError> {
        let Some(table) = &disk.table else {
            return Ok(());
        };
        let sector = disk.sector_size;
        let before = match table {
            Table::Gpt(table) => table.last_usable.0,
            Table::Mbr(_) => last_usable(table, disk.size, sector),
        };
        let now = last_usable(table, size, sector);
        let slots = self.slots(id, table, sector);
        let saved_end = slots.list.iter().map(|slot| slot.part.end.0).max();
        let container = slots.extended.map(|(_, part)| part.end.0);
        let squeezed = saved_end.max(container).is_some_and(|end| end > now);
        let places = if squeezed {
            slots.squeeze(now)
        } else {
            slots
                .list
                .iter()
                .map(|slot| {
                    let last = Some(slot.part.end.0) == saved_end;
                    // An extended partition that ends behind the last one, without one of its own there, is in the way.
                    let free = slot.part.is_logical() || container < saved_end;
                    let end = if last && free && self.may_grow(slot.id) {
                        grown_end(slot.part, before, now, sector)
                    } else {
                        slot.part.end.0
                    };
                    (slot.part.start.0, end)
                })
                .collect()
        };
        if let Some((id, part)) = slots.extended {
            let end = slots.extended_end(&places, squeezed);
            let end = end.unwrap_or(part.end.0);
            fit.extents.insert(id.clone(), (part.start, Lba(end)));
            let length = end.saturating_add(1).saturating_sub(part.start.0);
            fit.sizes.insert(id.clone(), Lba(length).offset(sector));
        }
        for pair in places.windows(2) {
            if let [(_, end), (start, _)] = pair {
                if start <= end {
                    return Err(PlanError::Unsupported {
                        node: id.clone(),
                        reason: format!(
                            "its partition table cannot be made again: a partition starts at block {start}, before another \
                             ends at {end}"
                        ),
                    });
                }
            }
        }
        for (slot, (start, end)) in slots.list.iter().zip(places) {
            fit.extents.insert(slot.id.clone(), (Lba(start), Lba(end)));
            let length = end.saturating_add(1).saturating_sub(start);
            fit.sizes
                .insert(slot.id.clone(), Lba(length).offset(sector));
        }
        Ok(())
    }

    /// Whether a partition, the last one, takes the space of a bigger disk.
    fn may_grow(&self, id: &NodeId) -> bool {
        let grow = self.choices.grow;
        if grow == Grow::Untouched {
            return false;
        }
        let Some(root) = self.root() else {
            return false;
        };
        let root_on = self.saved.nodes.get(root).map(Node::on).unwrap_or_default();
        self.saved.children(id).any(|(child, node)| match node {
            // The physical volume grows in any case; what its space is for is the operator's choice.
            Node::PhysicalVolume(_) => self.saved.children(child).any(|(vg, _)| {
                let holds_root = root_on.iter().any(|lv| {
                    self.saved
                        .nodes
                        .get(lv)
                        .is_some_and(|lv| lv.on().contains(vg))
                });
                holds_root || (grow == Grow::ThinPool && self.biggest_pool(vg).is_some())
            }),
            Node::Luks(_) => self.may_grow(child),
            Node::ZfsMember(member) => {
                grow == Grow::Root && root_on.contains(&NodeId::pool(&member.pool))
            }
            _ => child == root && grow == Grow::Root,
        })
    }
}

/// Where the last partition ends on a disk that could be used up to the block `before`, and now can up to `now`.
fn grown_end(part: &Partition, before: u64, now: u64, sector: SectorSize) -> u64 {
    if now <= before {
        return part.end.0;
    }
    // Space left free behind the last partition was left on purpose: as much stays free.
    let tail = before.saturating_sub(part.end.0);
    let unit = ALIGNMENT.sectors(sector).max(1);
    let end = (now - tail.min(now) + 1) / unit * unit;
    end.saturating_sub(1).max(part.end.0)
}
