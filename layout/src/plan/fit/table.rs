//! Where partitions start and end.

use super::slack::{exactly, total};
use super::{ALIGNMENT, Fit, STAGES, Sizing, Slack, Squeeze, Stage};
use crate::model::{Disk, GptTable, Node, NodeId, Partition};
use crate::plan::disk::{LEAST_ENTRIES, gpt_tail};
use crate::plan::{Grow, PlanError};
use crate::units::{Bytes, Lba, SectorSize};

/// A partition to be placed. Lengths are in sectors.
struct Slot<'a> {
    id: &'a NodeId,
    part: &'a Partition,
    slack: Slack,
}

/// The partitions of a disk in the order of their place.
struct Slots<'a> {
    list: Vec<Slot<'a>>,
    first_usable: u64,
    /// [`ALIGNMENT`] in sectors.
    unit: u64,
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
    fn place(&self, taken: &[u64]) -> Vec<(u64, u64)> {
        let mut next = self.first_usable;
        let mut places = Vec::with_capacity(self.list.len());
        for (slot, taken) in self.list.iter().zip(taken) {
            let start = round_up(next, self.unit).min(slot.part.start.0);
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
}

impl<'a> Sizing<'a> {
    /// The partitions of a disk that are made, by place.
    fn slots(&self, disk: &NodeId, table: &GptTable, sector: SectorSize) -> Slots<'a> {
        let unit = ALIGNMENT.sectors(sector).max(1);
        let mut list: Vec<Slot<'a>> = Vec::new();
        for (id, node) in &self.saved.nodes {
            let Node::Partition(part) = node else {
                continue;
            };
            if part.on != *disk || self.left_out.contains(id) {
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
        Slots {
            list,
            first_usable: first_usable(table, sector),
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
        let mut last = saved.unwrap_or(table.first_usable.0);
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
            last = last.min(slots.end(&taken));
        }
        Lba(last.saturating_add(1 + gpt_tail(table.entries, sector))).offset(sector)
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
        let tail = gpt_tail(table.entries, sector);
        let last_usable = size.sectors(sector).saturating_sub(tail + 1);
        let slots = self.slots(id, table, sector);
        let saved_end = slots.list.iter().map(|slot| slot.part.end.0).max();
        let places = if saved_end.is_some_and(|end| end > last_usable) {
            slots.squeeze(last_usable)
        } else {
            slots
                .list
                .iter()
                .map(|slot| {
                    let last = Some(slot.part.end.0) == saved_end;
                    let end = if last && self.may_grow(slot.id) {
                        grown_end(slot.part, table, last_usable, sector)
                    } else {
                        slot.part.end.0
                    };
                    (slot.part.start.0, end)
                })
                .collect()
        };
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
            _ => child == root && grow == Grow::Root,
        })
    }
}

/// Where the last partition ends on a disk whose last usable block is `last_usable`.
fn grown_end(part: &Partition, table: &GptTable, last_usable: u64, sector: SectorSize) -> u64 {
    if last_usable <= table.last_usable.0 {
        return part.end.0;
    }
    // Space left free behind the last partition was left on purpose: as much stays free.
    let tail = table.last_usable.0.saturating_sub(part.end.0);
    let unit = ALIGNMENT.sectors(sector).max(1);
    let end = (last_usable - tail.min(last_usable) + 1) / unit * unit;
    end.saturating_sub(1).max(part.end.0)
}
