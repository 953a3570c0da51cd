//! A few files instead of a bundle.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use layout::apply::{Content, ContentError};
use layout::model::{Layout, Node, NodeId};

use crate::failpoint::{How, Trap};
use crate::luks;
use crate::machine::text;

/// What an image is made of.
pub const PATTERN: &[u8] = b"lifeboat image ";
/// How often.
const REPEATS: usize = 1000;
/// Size of the bigger file in each filesystem: more than one write, and nothing to wait for.
const DATA: usize = 300_000;

/// The image of every partition.
pub fn image() -> Vec<u8> {
    PATTERN.repeat(REPEATS)
}

/// The bigger file of the filesystem that is mounted there.
pub fn data(mount_point: &Path) -> Vec<u8> {
    let mut unit = mount_point.as_os_str().as_encoded_bytes().to_vec();
    unit.push(b'\n');
    unit.into_iter().cycle().take(DATA).collect()
}

/// Writes into each filesystem a file with its mount point and a bigger one, and into `/` an fstab and the mount points.
pub struct Files<'a> {
    pub saved: &'a Layout,
    /// How many trees were restored.
    pub trees: usize,
    /// Comes past when half is written.
    pub trap: &'a Trap,
}

impl Content for Files<'_> {
    fn restore_tree(&mut self, mount_point: &Path, into: &Path) -> Result<(), ContentError> {
        let what = format!("files of {}", mount_point.display());
        self.write(mount_point, into, &what)
            .map_err(|e| ContentError::caused(what, e))?;
        self.trees += 1;
        Ok(())
    }

    fn restore_image(&mut self, node: &NodeId, device: &Path) -> Result<(), ContentError> {
        let what = format!("image to {}", device.display());
        if self.saved.boot.esp_images.contains(node) {
            return crate::boot::esp_image(self.saved, node, device)
                .map_err(|e| ContentError::new(format!("{what}: {e:#}")));
        }
        let image = match self.saved.nodes.get(node) {
            Some(Node::Luks(saved)) => luks::header(saved)
                .map_err(|e| ContentError::new(format!("header of {node}: {e:#}")))?,
            _ => image(),
        };
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).open(device)?;
            let (first, second) = image.split_at(image.len() / 2);
            file.write_all(first)?;
            self.half_way(&what, None)?;
            file.write_all(second)?;
            // As whoever writes an image has to.
            file.sync_all()
        };
        write().map_err(|e| ContentError::caused(what.clone(), e))
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

    /// What a host with pools has in `/etc`.
    fn zfs(&self, into: &Path) -> io::Result<()> {
        let pool = self.saved.nodes.values().find_map(|node| match node {
            Node::ZfsPool(pool) => Some(pool),
            _ => None,
        });
        let Some(pool) = pool else {
            return Ok(());
        };
        let hostid = pool.hostid.as_ref();
        if let Some(hostid) = hostid.and_then(|id| u32::from_str_radix(id, 16).ok()) {
            fs::write(into.join("etc/hostid"), hostid.to_le_bytes())?;
        }
        fs::create_dir_all(into.join("etc/zfs"))?;
        fs::write(into.join("etc/zfs/zpool.cache"), crate::zfs::STALE_CACHE)
    }

    fn half_way(&self, what: &str, mount_point: Option<&Path>) -> io::Result<()> {
        match (self.trap.content(what), mount_point) {
            (None, _) => Ok(()),
            (Some(How::Broken), Some(at)) => break_device(at),
            (Some(_), _) => Err(io::Error::other("made to fail by the test")),
        }
    }

    fn write(&self, mount_point: &Path, into: &Path, what: &str) -> io::Result<()> {
        fs::write(
            into.join("floor.txt"),
            mount_point.as_os_str().as_encoded_bytes(),
        )?;
        let data = data(mount_point);
        let (first, second) = data.split_at(data.len() / 2);
        let mut file = fs::File::create(into.join("floor.data"))?;
        file.write_all(first)?;
        self.half_way(what, Some(into))?;
        file.write_all(second)?;
        drop(file);
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
        fs::write(into.join("etc/crypttab"), self.crypttab())?;
        self.zfs(into)?;
        crate::boot::programs(self.saved, into)?;
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

/// The device-mapper device below what is mounted there; `None`: it is on a plain partition or disk.
fn mapped(mount_point: &Path) -> Option<PathBuf> {
    let at = mount_point.to_string_lossy();
    let source = text(&["findmnt", "-n", "-o", "SOURCE", "--mountpoint", &at]).ok()?;
    let source = PathBuf::from(source.trim());
    let real = fs::canonicalize(&source).ok()?;
    real.file_name()?
        .to_string_lossy()
        .starts_with("dm-")
        .then_some(source)
}

/// Gives the device below a mounted filesystem a table that fails every read and write, as a cable that came off does.
fn break_device(mount_point: &Path) -> io::Result<()> {
    let device = mapped(mount_point)
        .ok_or_else(|| io::Error::other("made to fail by the test: not on device-mapper"))?;
    text(&[
        "dmsetup",
        "wipe_table",
        "--force",
        "--noflush",
        "--nolockfs",
        "--noudevsync",
        &device.to_string_lossy(),
    ])
    .map(drop)
    .map_err(io::Error::other)
}
