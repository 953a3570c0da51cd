//! A few files instead of a bundle.

use std::fs;
use std::io::Write;
use std::path::Path;

use layout::apply::{Content, ContentError};
use layout::model::{Layout, Node, NodeId};

use crate::luks;

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

    fn restore_image(&mut self, node: &NodeId, device: &Path) -> Result<(), ContentError> {
        let image = match self.saved.nodes.get(node) {
            Some(Node::Luks(saved)) => luks::header(saved)
                .map_err(|e| ContentError::new(format!("header of {node}: {e:#}")))?,
            _ => PATTERN.repeat(1000),
        };
        let write = || {
            fs::OpenOptions::new()
                .write(true)
                .open(device)?
                .write_all(&image)
        };
        write().map_err(|e| ContentError::caused(format!("image to {}", device.display()), e))
    }

    fn luks_key(&mut self, _: &NodeId, _: &str) -> Result<Vec<u8>, ContentError> {
        Ok(luks::KEY.to_vec())
    }
}

impl Files<'_> {
    /// crypttab with the saved lines.
    fn crypttab(&self) -> String {
        let lines = self.saved.nodes.values().filter_map(|node| match node {
            Node::Luks(luks) => luks.crypttab.as_ref(),
            _ => None,
        });
        lines
            .map(|e| {
                format!(
                    "{} {} {} {}\n",
                    e.name,
                    e.source,
                    e.key,
                    e.options.join(",")
                )
            })
            .collect()
    }

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
                entry.spec, entry.file, entry.fstype, entry.freq, entry.passno
            ));
        }
        fs::create_dir_all(into.join("etc"))?;
        fs::write(into.join("etc/fstab"), fstab)?;
        fs::write(into.join("etc/crypttab"), self.crypttab())?;
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
