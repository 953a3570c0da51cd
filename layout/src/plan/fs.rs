//! Filesystems and swap areas.

use super::build::Builder;
use super::{Grow, PlanError, SizeChange, Step};
use crate::model::{Ext4, NodeId, Swap, Vfat, Xfs};
use crate::units::Bytes;

impl Builder<'_> {
    /// Whether the filesystem takes all of its device, which grew.
    fn fills(&mut self, id: &NodeId, on: &NodeId, what: &str, size: Bytes) -> bool {
        let grows = self.choices.grow == Grow::Root
            && self.root_fs() == Some(id)
            && self.grown.contains(on);
        if grows {
            let now = self.space.get(on).copied().unwrap_or(size);
            self.sizes.push(SizeChange {
                node: id.clone(),
                what: format!("{what} filesystem"),
                saved: size,
                now,
            });
            for property in ["size", "inodes", "reserved_blocks"] {
                self.accept(
                    id,
                    property,
                    "the root filesystem takes the space of the bigger disk",
                );
            }
        }
        grows
    }

    pub(super) fn must_fit(&self, id: &NodeId, on: &NodeId, size: Bytes) -> Result<(), PlanError> {
        match self.space.get(on) {
            Some(space) if *space < size => Err(PlanError::Unsupported {
                node: id.clone(),
                reason: format!(
                    "it needs {size}, and {on} has {space}: the saved layout is damaged"
                ),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn ext4(&mut self, id: &NodeId, fs: &Ext4) -> Result<(), PlanError> {
        let device = self.device(id, &fs.on)?;
        // Without a block size nothing was known about it (the device could not be read): made with defaults.
        let unknown = fs.block_size == Bytes(0);
        if unknown {
            self.notes.push(format!(
                "The features of filesystem {id} are not known: it is made with the defaults."
            ));
            for property in [
                "block_size",
                "inode_size",
                "inodes",
                "features",
                "default_options",
                "reserved_blocks",
                "size",
                "label",
            ] {
                self.accept(id, property, "it was not known when the backup was made");
            }
        } else {
            self.must_fit(id, &fs.on, fs.size)?;
        }
        let fill = self.fills(id, &fs.on, &fs.fstype, fs.size) || unknown;
        self.steps.push(Step::MakeExt4 {
            device,
            fs: fs.clone(),
            fill,
        });
        Ok(())
    }

    pub(super) fn xfs(&mut self, id: &NodeId, fs: &Xfs) -> Result<(), PlanError> {
        let device = self.device(id, &fs.on)?;
        self.must_fit(id, &fs.on, fs.size)?;
        let fill = self.fills(id, &fs.on, "xfs", fs.size);
        self.steps.push(Step::MakeXfs {
            device,
            fs: fs.clone(),
            fill,
        });
        Ok(())
    }

    pub(super) fn vfat(&mut self, id: &NodeId, fs: &Vfat) -> Result<(), PlanError> {
        let device = self.device(id, &fs.on)?;
        self.must_fit(id, &fs.on, fs.size)?;
        self.steps.push(Step::MakeVfat {
            device,
            fs: fs.clone(),
        });
        Ok(())
    }

    pub(super) fn swap(&mut self, id: &NodeId, swap: &Swap) -> Result<(), PlanError> {
        let device = self.device(id, &swap.on)?;
        self.steps.push(Step::MakeSwap {
            device,
            uuid: swap.uuid.clone(),
            label: swap.label.clone(),
            page_size: swap.page_size,
        });
        Ok(())
    }
}
