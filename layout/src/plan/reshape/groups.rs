//! Volume groups: one that lost a physical volume is made on the others. That its volumes fit there is found out where all
//! groups are looked at.

use super::Work;
use crate::model::{Node, NodeId, Segments};

const WHY: &str = "a physical volume of its group is done without, as chosen";

impl Work {
    pub(super) fn groups(&mut self) {
        let groups: Vec<(NodeId, Vec<NodeId>)> = self
            .layout
            .nodes
            .iter()
            .filter_map(|(id, node)| match node {
                Node::VolumeGroup(vg) => Some((id.clone(), vg.on.clone())),
                _ => None,
            })
            .collect();
        for (id, pvs) in groups {
            let dropped = self.surplus(&pvs, false);
            if dropped.is_empty() {
                self.on_one_disk(&id, &pvs);
            } else if dropped.len() < pvs.len() {
                self.without(&id, &dropped);
            }
        }
    }

    fn without(&mut self, id: &NodeId, dropped: &[NodeId]) {
        if let Some(Node::VolumeGroup(vg)) = self.layout.nodes.get_mut(id) {
            vg.on.retain(|pv| !dropped.contains(pv));
            self.notes.push(format!(
                "Volume group {} is made without {} of its physical volumes.",
                vg.name,
                dropped.len()
            ));
        }
        self.accept(id, "on", WHY);
        // Whatever had its place there gets another one.
        for node in self.layout.nodes.values_mut() {
            let places: Vec<&mut Vec<NodeId>> = match node {
                Node::LogicalVolume(lv) if lv.on == *id => vec![&mut lv.pvs],
                Node::ThinPool(pool) if pool.on == *id => {
                    vec![&mut pool.pvs, &mut pool.metadata_pvs]
                }
                _ => continue,
            };
            for pvs in places {
                if pvs.iter().any(|pv| dropped.contains(pv)) {
                    pvs.clear();
                }
            }
        }
        for pv in dropped {
            self.drop_down(pv, WHY);
        }
    }

    /// Copies on one disk protect from nothing.
    fn on_one_disk(&mut self, id: &NodeId, pvs: &[NodeId]) {
        let mut beside = false;
        for (n, pv) in pvs.iter().enumerate() {
            let places = self.places(pv).0;
            beside |= self.is_moved(pv)
                && pvs
                    .iter()
                    .enumerate()
                    .any(|(m, other)| n != m && self.places(other).0 == places);
        }
        let copies = |segments: &Segments| {
            matches!(segments, Segments::Mirror { .. })
                || matches!(segments, Segments::Raid { level, .. } if !level.starts_with("raid0"))
        };
        let redundant = self.layout.children(id).any(|(_, node)| match node {
            Node::LogicalVolume(lv) => copies(&lv.segments),
            Node::ThinPool(pool) => copies(&pool.segments),
            _ => false,
        });
        if let (true, true, Some(Node::VolumeGroup(vg))) =
            (beside, redundant, self.layout.nodes.get(id))
        {
            self.notes.push(format!(
                "RAID volumes of group {} have several images on one disk: when that disk fails, all of them are lost.",
                vg.name
            ));
        }
    }
}
