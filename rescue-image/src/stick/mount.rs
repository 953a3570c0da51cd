//! Mounting the data partition.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sys_mount::{Mount, MountFlags, UnmountFlags};

use super::{Stick, device, table};
use crate::error::{Error, Result};

/// Where mount points are made: gone at the next boot.
pub const FOLDER: &str = "/run/lifeboat";
/// How long a medium that is in use is waited for at the end.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// The mounted data partition. Unmount with [`MountedStick::unmount`]; dropping it does the same, but only logs errors.
#[derive(Debug)]
pub struct MountedStick {
    dir: PathBuf,
    /// The device or image file, for errors and to sync.
    path: PathBuf,
    image: bool,
    mounted: bool,
    read_only: bool,
}

pub(super) fn mount(stick: &Stick, read_only: bool) -> Result<MountedStick> {
    let image = !device::is_block(&stick.path);
    let (offset, len) = stick.table.bytes(stick.table.data);
    let protected = if image {
        read_only
    } else {
        device::is_read_only(&stick.path)
    };
    // Image files have no partition nodes, nor have disks on kernels that do not look for partitions on them. The loop
    // device lives until the file system is mounted, and then as long as that.
    let partition = if image {
        None
    } else {
        device::partition_node(&stick.path, table::DATA_NUMBER, offset)
    };
    let attached;
    let (node, protected) = match partition {
        Some(node) => {
            let protected = protected || device::is_read_only(&node);
            (node, protected)
        }
        None => {
            attached = device::Loop::attach(&stick.path, offset, len, read_only)?;
            (attached.node.clone(), read_only)
        }
    };
    if protected && !read_only {
        return Err(Error::Refused {
            device: stick.path.clone(),
            reasons: vec!["it is write protected".into()],
        });
    }
    fs::create_dir_all(FOLDER).map_err(Error::io("create directory", FOLDER))?;
    let dir = tempfile::Builder::new()
        .prefix("medium-")
        .tempdir_in(FOLDER)
        .map_err(Error::io("create a directory in", FOLDER))?
        .keep();
    let mut flags =
        MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let mut options = "errors=remount-ro";
    if read_only {
        flags |= MountFlags::RDONLY;
        if protected {
            options = "noload";
        }
    }
    let result = Mount::builder()
        .fstype("ext4")
        .flags(flags)
        .data(options)
        .mount(&node, &dir);
    match result {
        // Not the guard of sys-mount, which swallows errors: `MountedStick` unmounts.
        Ok(_mount) => Ok(MountedStick {
            dir,
            path: stick.path.clone(),
            image,
            mounted: true,
            read_only,
        }),
        Err(error) => {
            let _ = fs::remove_dir(&dir);
            Err(Error::io(
                "mount the data partition (check it with fsck.ext4) of",
                &stick.path,
            )(error))
        }
    }
}

impl MountedStick {
    /// The mount point: the store is in `lifeboat/` below it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Syncs and unmounts, detaches the loop device, and says whether that worked. When it did not (something on it is
    /// still in use), dropping the value tries once more.
    pub fn unmount(mut self) -> Result<()> {
        self.end(BUSY_FOR)
    }

    fn end(&mut self, patience: Duration) -> Result<()> {
        if !self.mounted {
            return Ok(());
        }
        // A medium that was pulled out, or that fails, takes nothing more; the mount has to go nevertheless.
        let synced = match self.read_only {
            true => Ok(()),
            false => self.sync(),
        };
        unmount_within(&self.dir, patience).map_err(Error::io("unmount", &self.dir))?;
        self.mounted = false;
        fs::remove_dir(&self.dir).map_err(Error::io("remove", &self.dir))?;
        synced?;
        if self.image && !self.read_only {
            let file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
            file.sync_all().map_err(Error::io("sync", &self.path))?;
        }
        Ok(())
    }
}

impl MountedStick {
    fn sync(&self) -> Result<()> {
        let root = File::open(&self.dir).map_err(Error::io("open", &self.dir))?;
        nix::unistd::syncfs(&root)
            .map_err(|e| Error::io("write everything to", &self.path)(e.into()))
    }
}

/// Unmounts; what looks at it for a moment (a desktop, a process between fork and exec) does not make that fail.
fn unmount_within(dir: &Path, patience: Duration) -> std::io::Result<()> {
    let start = Instant::now();
    loop {
        match sys_mount::unmount(dir, UnmountFlags::empty()) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && start.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(100));
            }
            result => return result,
        }
    }
}

impl Drop for MountedStick {
    fn drop(&mut self) {
        if let Err(error) = self.end(Duration::ZERO) {
            tracing::error!(%error, "the medium stays mounted");
        }
    }
}
