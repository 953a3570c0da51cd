//! A few files instead of a bundle.

use std::fs;
use std::io::Write;
use std::path::Path;

use layout::apply::{Content, ContentError};
use layout::model::{Layout, Node, NodeId};

/// What an image is made of.
pub const PATTERN: &[u8] = b"lifeboat image ";

/// Writes into each filesystem a file with its mount point, and into `/` an fstab and the mount points.
pub struct Files<'a> {
    pub saved: &'a Layout,
    /// How many trees were restored.
    pub trees: usize,
}

impl Content for Files<'_> {
    fn restore_tree(&mut self, mount_point: &Path, into: &Path) -> Result<(), ContentError> {
        self.trees += 1;
        self.write(mount_point, into)
            .map_err(|e| ContentError::caused(format!("files of {}", mount_point.display()), e))
    }

    fn restore_image(&mut self, _: &NodeId, device: &Path) -> Result<(), ContentError> {
        let write = || {
            fs::OpenOptions::new()
                .write(true)
                .open(device)?
                .write_all(&PATTERN.repeat(1000))
        };
        write().map_err(|e| ContentError::caused(format!("image to {}", device.display()), e))
    }
}

impl Files<'_> {
    fn write(&self, mount_point: &Path, into: &Path) -> std::io::Result<()> {
        fs::write(
            into.join("floor.txt"),
            mount_point.as_os_str().as_encoded_bytes(),
        )?;
        if mount_point != Path::new("/") {
            return Ok(());
        }
        let mut fstab = String::from("# fstab of the floor\n");
        let swaps = self.saved.nodes.values().filter_map(|node| match node {
            Node::Swap(swap) => swap.fstab.as_ref(),
            Node::SwapFile(swap) => swap.fstab.as_ref(),
            _ => None,
        });
        for entry in self
            .saved
            .mounts
            .iter()
            .filter_map(|m| m.fstab.as_ref())
            .chain(swaps)
        {
            let options = entry.options.join(",");
            fstab.push_str(&format!(
                "{} {} {} {options} {} {}\n",
                entry.spec.replace(' ', "\\040"),
                entry.file,
                entry.fstype,
                entry.freq,
                entry.passno
            ));
        }
        fs::create_dir_all(into.join("etc"))?;
        fs::write(into.join("etc/fstab"), fstab)?;
        for mount in &self.saved.mounts {
            fs::create_dir_all(
                into.join(
                    mount
                        .mount_point
                        .strip_prefix("/")
                        .unwrap_or(&mount.mount_point),
                ),
            )?;
        }
        Ok(())
    }
}
