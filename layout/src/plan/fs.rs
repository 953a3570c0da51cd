//! Filesystems and swap areas.

use super::build::Builder;
use super::fit::ext4_inodes;
use super::{PlanError, Step};
use crate::model::{Ext4, NodeId, Swap, Vfat, Xfs};
use crate::units::Bytes;

impl Builder<'_> {
    /// The size that a filesystem gets, told and accepted.
    fn fitted(&mut self, id: &NodeId, what: &str, saved: Bytes, properties: &[&str]) -> Bytes {
        let size = self.fit.size(id).unwrap_or(saved);
        let place = self.saved.mounts.iter().find(|m| m.node == *id);
        let place = place.map_or_else(String::new, |m| format!(" of {}", m.mount_point.display()));
        let what = format!("{what} filesystem{place}");
        self.resized(id, what, saved, size, properties);
        size
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
        }
        let mut made = fs.clone();
        if !unknown {
            let properties = ["size", "inodes", "reserved_blocks"];
            let size = self.fitted(id, &fs.fstype, fs.size, &properties);
            if size < fs.size {
                made.size = size;
                made.inodes = ext4_inodes(fs, size);
                made.reserved_blocks = share(fs.reserved_blocks, size, fs.size);
            }
        }
        self.steps.push(Step::MakeExt4 {
            device,
            fs: made,
            fill: unknown || self.fit.fills(id),
        });
        Ok(())
    }

    pub(super) fn xfs(&mut self, id: &NodeId, fs: &Xfs) -> Result<(), PlanError> {
        let device = self.device(id, &fs.on)?;
        let size = self.fitted(id, "xfs", fs.size, &["size"]);
        if size < fs.size && fs.features.iter().any(|f| f == "reflink") {
            self.notes.push(format!(
                "XFS filesystem {id} becomes smaller. Copies that shared their blocks there take room of their own \
                 afterwards: if it had many of them, use a bigger disk."
            ));
        }
        self.steps.push(Step::MakeXfs {
            device,
            fs: Xfs {
                size: size.min(fs.size),
                ..fs.clone()
            },
            fill: self.fit.fills(id),
        });
        Ok(())
    }

    pub(super) fn vfat(&mut self, id: &NodeId, fs: &Vfat) -> Result<(), PlanError> {
        let device = self.device(id, &fs.on)?;
        let size = self.fitted(id, "vfat", fs.size, &["size"]);
        let from_image = |s: &Step| matches!(s, Step::RestoreImage { node, .. } if *node == fs.on);
        if self.steps.iter().any(from_image) {
            return Ok(());
        }
        self.steps.push(Step::MakeVfat {
            device,
            fs: Vfat { size, ..fs.clone() },
        });
        Ok(())
    }

    pub(super) fn swap(&mut self, id: &NodeId, swap: &Swap) -> Result<(), PlanError> {
        let device = self.device(id, &swap.on)?;
        let size = self.fit.size(id).unwrap_or(swap.size);
        self.resized(id, "swap area".to_owned(), swap.size, size, &["size"]);
        self.steps.push(Step::MakeSwap {
            device,
            uuid: swap.uuid.clone(),
            label: swap.label.clone(),
            page_size: swap.page_size,
        });
        Ok(())
    }
}

/// The same share of a smaller whole.
fn share(part: u64, size: Bytes, of: Bytes) -> u64 {
    let share = u128::from(part) * u128::from(size.0) / u128::from(of.0.max(1));
    u64::try_from(share).unwrap_or(part)
}
