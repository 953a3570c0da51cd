//! Members of arrays: none twice on one disk.

use std::collections::BTreeSet;

use super::{Work, refuse};
use crate::model::{Node, NodeId, RaidArray};
use crate::plan::PlanError;

impl Work {
    /// Drops members whose disk is done without, or has another member already; the array comes back degraded.
    pub(super) fn arrays(&mut self) -> Result<(), PlanError> {
        let arrays: Vec<(NodeId, RaidArray)> = self
            .layout
            .nodes
            .iter()
            .filter_map(|(id, node)| match node {
                Node::RaidArray(array) => Some((id.clone(), array.clone())),
                _ => None,
            })
            .collect();
        for (id, array) in arrays {
            self.array(&id, array)?;
        }
        Ok(())
    }

    fn array(&mut self, id: &NodeId, mut array: RaidArray) -> Result<(), PlanError> {
        let ids = |members: Vec<&crate::model::RaidMember>| -> Vec<NodeId> {
            members.iter().map(|m| m.on.clone()).collect()
        };
        let active = ids(array.members.iter().filter(|m| m.slot.is_some()).collect());
        let spares = ids(array.spares().collect());
        let redundant = array.level != "raid0";
        // Active members come first, so that a spare beside one of them goes.
        let mut dropped = self.surplus(&active, redundant);
        let kept = active.iter().filter(|on| !dropped.contains(on));
        let taken: BTreeSet<NodeId> = kept.flat_map(|on| self.places(on).0).collect();
        dropped.extend(spares.into_iter().filter(|on| {
            let (places, missing) = self.places(on);
            missing || redundant && self.is_moved(on) && !taken.is_disjoint(&places)
        }));
        if dropped.is_empty() {
            if !redundant && self.all_beside(&active) {
                self.notes.push(format!(
                    "Array {} is striped over partitions of one disk, which makes it slow.",
                    array.name
                ));
            }
            return Ok(());
        }
        let (before, seats) = (active.len(), array.raid_devices);
        array.members.retain(|m| !dropped.contains(&m.on));
        let left = array.members.iter().filter(|m| m.slot.is_some()).count();
        if !array.can_run() || left == 0 {
            return Err(refuse(
                id,
                format!(
                    "its {left} members on separate disks would be too few of {seats} for {}: give each of its disks a place, or \
                     fewer of them none",
                    array.level
                ),
            ));
        }
        if array.members.iter().all(|m| m.write_mostly) {
            array
                .members
                .iter_mut()
                .for_each(|m| m.write_mostly = false);
        }
        if left < before {
            self.notes.push(format!(
                "Array {} loses {} of its {before} members, as there are fewer disks.",
                array.name,
                before - left
            ));
        }
        self.accept(id, "members", "there are fewer disks, as chosen");
        self.layout.nodes.insert(id.clone(), Node::RaidArray(array));
        for member in dropped {
            let disk = self.layout.disks_below(&member).into_iter().next();
            let reason = disk.map_or("there are fewer disks, as chosen", |disk| self.why(&disk));
            self.drop_down(&member, reason);
        }
        Ok(())
    }

    /// Whether devices that were on several disks will be on one.
    fn all_beside(&self, devices: &[NodeId]) -> bool {
        let mut places = devices.iter().map(|id| self.places(id).0);
        let first = places.next();
        devices.iter().any(|id| self.is_moved(id)) && places.all(|p| Some(p) == first)
    }
}
