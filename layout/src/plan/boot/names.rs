//! Names of devices that another disk, or the same one elsewhere, does not have.

use crate::capture::mounts::is_fragile;
use crate::model::{Node, NodeId};
use crate::plan::Step;
use crate::plan::build::Builder;

impl Builder<'_> {
    /// Steps for fstab, crypttab and other files. Says why the initramfs has a stale copy of one, when that is known.
    pub(super) fn follow_names(&mut self, new_esps: &[NodeId]) -> Option<&'static str> {
        if !self.restores_root() {
            return None;
        }
        self.steps.push(Step::UpdateFstab {
            replace: self.fstab_replacements(),
            switch_off: self.left_out_of_fstab(),
            add: self.line_of_esp(new_esps).into_iter().collect(),
        });
        let replace = self.crypttab_replacements();
        let switch_off = self.crypttab_off.clone();
        if replace.is_empty() && switch_off.is_empty() {
            return None;
        }
        let why = match replace.is_empty() {
            true => "it has a copy of crypttab with containers that are not made",
            false => "it has a copy of crypttab with names of the saved disks",
        };
        self.steps.push(Step::UpdateCrypttab {
            replace,
            switch_off,
        });
        Some(why)
    }

    /// First fields of the fstab lines of swap areas that are left out: at each start they would be waited for.
    fn left_out_of_fstab(&self) -> Vec<String> {
        let left_out = self.fit.left_out().iter();
        let mut specs: Vec<String> = left_out
            .filter_map(|id| match self.saved.nodes.get(id) {
                Some(Node::Swap(swap)) => Some(swap.fstab.as_ref()?.spec.clone()),
                _ => None,
            })
            .collect();
        specs.extend(self.switch_off.iter().cloned());
        specs.sort();
        specs.dedup();
        specs
    }

    /// Names of devices that another disk does not have, and what to write instead. Disks that are left alone may have
    /// another kernel name now, too.
    fn fstab_replacements(&self) -> Vec<(String, String)> {
        let mut replace = Vec::new();
        let mounts = self
            .saved
            .mounts
            .iter()
            .filter_map(|m| Some((&m.node, m.fstab.as_ref()?)));
        let swaps = self.saved.nodes.iter().filter_map(|(id, node)| match node {
            Node::Swap(swap) => Some((id, swap.fstab.as_ref()?)),
            _ => None,
        });
        for (id, entry) in mounts.chain(swaps) {
            if !is_fragile(entry) || self.fit.left_out().contains(id) {
                continue;
            }
            if let Some(uuid) = self.content_uuid(id) {
                replace.push((entry.spec.clone(), format!("UUID={uuid}")));
            }
        }
        // Names that fstab does not have, but the kernel's command line may.
        for (name, id) in &self.names {
            if self.fit.left_out().contains(id) {
                continue;
            }
            if let Some(uuid) = self.content_uuid(id) {
                replace.push((name.clone(), format!("UUID={uuid}")));
            }
        }
        replace.sort();
        replace.dedup();
        replace
    }

    /// The UUID of a filesystem or swap area.
    fn content_uuid(&self, id: &NodeId) -> Option<&str> {
        match self.saved.nodes.get(id)? {
            Node::Swap(swap) => Some(&swap.uuid),
            node => node.filesystem().map(|fs| fs.uuid),
        }
    }
}
