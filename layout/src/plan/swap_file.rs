//! Swap files, which are made anew once the files around them are there.

use super::Step;
use super::build::Builder;
use crate::model::Node;

impl Builder<'_> {
    pub(super) fn swap_files(&mut self) {
        let saved = self.saved;
        let trees = saved.filesystems_to_save();
        for id in self.relevant.clone() {
            let Some(Node::SwapFile(swap)) = saved.nodes.get(&id) else {
                continue;
            };
            if !trees.iter().any(|m| m.node == swap.on) {
                continue;
            }
            self.steps.push(Step::MakeSwapFile {
                path: swap.path.clone(),
                size: swap.size,
                uuid: swap.uuid.clone(),
                label: swap.label.clone(),
                page_size: swap.page_size,
                no_cow: matches!(saved.nodes.get(&swap.on), Some(Node::Btrfs(_))),
            });
            if saved.boot.kernel_command_line.contains("resume_offset=") {
                self.notes.push(format!(
                    "{} lies in other blocks than before: set resume_offset= on the kernel's command line anew before the \
                     machine is put to sleep.",
                    swap.path.display()
                ));
            }
        }
    }
}
