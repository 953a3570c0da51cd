//! What was only on a disk that is done without.

use super::{Work, refuse};
use crate::model::{Node, NodeId};
use crate::plan::PlanError;

const WHY: &str = "its disk is done without, as chosen";

impl Work {
    /// Drops what can be done without; refuses where the system needs it.
    pub(super) fn missing(&mut self) -> Result<(), PlanError> {
        let missing: Vec<NodeId> = self
            .gone
            .iter()
            .filter(|(_, onto)| onto.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut lost: Vec<NodeId> = Vec::new();
        for (id, node) in &self.layout.nodes {
            let below = self.layout.disks_below(id);
            if missing.contains(id) || below.iter().all(|disk| !missing.contains(disk)) {
                continue;
            }
            let rest = below.iter().any(|disk| !missing.contains(disk));
            if rest && !matches!(node, Node::Unsupported(_)) {
                return Err(refuse(
                    id,
                    "it also lies on a disk that is done without: give that disk a place"
                        .to_owned(),
                ));
            }
            lost.push(id.clone());
        }
        for mount in &self.layout.mounts {
            if lost.contains(&mount.node) && mount.mounted && mount.belongs_to_the_system() {
                return Err(refuse(
                    &mount.node,
                    format!(
                        "{} lies on it, and on a disk that is done without: give that disk a place, or put it onto another one",
                        mount.mount_point.display()
                    ),
                ));
            }
        }
        self.tell_lost(&lost);
        for id in lost.iter().chain(&missing) {
            self.remove(id, WHY);
        }
        Ok(())
    }

    fn tell_lost(&mut self, lost: &[NodeId]) {
        let mut words: Vec<String> = Vec::new();
        for id in lost {
            let of = |m: &&crate::model::Mount| m.node == *id && m.mounted;
            words.extend(
                self.layout
                    .mounts
                    .iter()
                    .filter(of)
                    .map(|m| format!("the files of {}", m.mount_point.display())),
            );
            let of_it = |m: &crate::model::Mount| of(&m);
            match self.layout.nodes.get(id) {
                Some(Node::Swap(swap)) => words.push(format!("swap area {}", swap.uuid)),
                Some(Node::VolumeGroup(vg)) => words.push(format!("volume group {}", vg.name)),
                Some(Node::ZfsPool(pool)) => words.push(format!("ZFS pool {}", pool.name)),
                Some(Node::RaidArray(array)) => words.push(format!("array {}", array.name)),
                Some(Node::Luks(luks)) => words.push(format!("LUKS container {}", luks.name)),
                Some(node)
                    if node.filesystem().is_some() && !self.layout.mounts.iter().any(of_it) =>
                {
                    words.push(format!("filesystem {id}, which was not mounted"));
                }
                Some(Node::Partition(part)) if self.layout.children(id).next().is_none() => {
                    words.push(format!("partition {} of {}", part.number, part.on));
                }
                _ => {}
            }
        }
        if !words.is_empty() {
            self.notes.push(format!(
                "Not restored, as its disk is done without: {}. Lines of fstab for it are switched off.",
                words.join(", ")
            ));
        }
    }
}
