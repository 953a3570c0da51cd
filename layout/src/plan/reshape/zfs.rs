//! Pools: of the halves of a mirror one on each disk; what is no mirror needs all of its devices.

use std::collections::{BTreeMap, BTreeSet};

use super::{Work, refuse};
use crate::model::{Node, NodeId, VdevRole, ZfsPool};
use crate::plan::PlanError;

const WHY: &str = "there are fewer disks, as chosen";

impl Work {
    pub(super) fn pools(&mut self) -> Result<(), PlanError> {
        let pools: Vec<(NodeId, ZfsPool)> = self
            .layout
            .nodes
            .iter()
            .filter_map(|(id, node)| match node {
                Node::ZfsPool(pool) => Some((id.clone(), pool.clone())),
                _ => None,
            })
            .collect();
        for (id, pool) in pools {
            self.pool(&id, pool)?;
        }
        Ok(())
    }

    fn pool(&mut self, id: &NodeId, mut pool: ZfsPool) -> Result<(), PlanError> {
        let mut all = Vec::new();
        let name = pool.name.clone();
        for vdev in &mut pool.vdevs {
            let mirror = vdev.kind == "mirror";
            let dropped = self.surplus(&vdev.members, mirror);
            if vdev.kind != "single" && self.beside(&vdev.members, &dropped) {
                self.notes.push(format!(
                    "Pool {name}: devices of its {vdev} are on one disk, so that it does not outlive that disk."
                ));
            }
            if dropped.is_empty() {
                continue;
            }
            if vdev.role != VdevRole::Data {
                // The pool works without, and the plan says what is not made.
                continue;
            }
            if !mirror || dropped.len() == vdev.members.len() {
                return Err(refuse(
                    id,
                    format!(
                        "its {vdev} would lack {} of its devices, and zpool makes no incomplete one: give all of its disks a place",
                        dropped.len()
                    ),
                ));
            }
            vdev.members.retain(|member| !dropped.contains(member));
            let missing = u32::try_from(dropped.len()).unwrap_or(u32::MAX);
            vdev.missing = vdev.missing.saturating_add(missing);
            all.extend(dropped);
        }
        if all.is_empty() {
            return Ok(());
        }
        self.notes.push(format!(
            "Pool {} loses {} of its devices, as there are fewer disks.",
            pool.name,
            all.len()
        ));
        self.accept(id, "vdevs", WHY);
        self.layout.nodes.insert(id.clone(), Node::ZfsPool(pool));
        for member in all {
            self.drop_down(&member, WHY);
        }
        Ok(())
    }

    /// Whether members that were on several disks, and are all made, will be on one.
    fn beside(&self, members: &[NodeId], dropped: &[NodeId]) -> bool {
        let mut seen: BTreeMap<BTreeSet<NodeId>, bool> = BTreeMap::new();
        members
            .iter()
            .filter(|m| !dropped.contains(m))
            .any(|member| {
                let moved = self.is_moved(member);
                let before = seen.insert(self.places(member).0, moved);
                before.is_some_and(|other| moved || other)
            })
    }
}
