//! Disks with a past.

use std::path::{Path, PathBuf};

use anyhow::Result;
use vm_tests::uml::case::Dirt;

use crate::machine::{settle, tool};

fn pve(device: &str, active: bool) -> Result<()> {
    let lvm = |argv: &[&str]| {
        let mut all = vec!["lvm", argv[0], "--devices", device];
        all.extend(&argv[1..]);
        tool(&all)
    };
    lvm(&["pvcreate", "-y", "-ff", device])?;
    lvm(&["vgcreate", "-y", "pve", device])?;
    lvm(&["lvcreate", "-y", "-Wy", "-L", "64m", "-n", "root", "pve"])?;
    tool(&[
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-L",
        "stale",
        "/dev/pve/root",
    ])?;
    if !active {
        lvm(&["vgchange", "-an", "pve"])?;
    }
    Ok(())
}

/// Gives a disk its past. At most one can have active volumes, the last one.
pub fn make(device: &str, dirt: Dirt) -> Result<()> {
    match dirt {
        Dirt::Pve => pve(device, false)?,
        Dirt::ActivePve => pve(device, true)?,
        Dirt::PveInPartition => {
            tool(&["sgdisk", "-n", "3:1M:0", "-t", "3:8e00", device])?;
            settle()?;
            pve(&format!("{device}3"), false)?;
        }
        Dirt::Ext4AndOldBackup => {
            tool(&["sgdisk", "-n", "5:40M:100M", "-n", "7:200M:0", device])?;
            settle()?;
            tool(&[
                "mke2fs",
                "-q",
                "-F",
                "-t",
                "ext4",
                "-L",
                "old-part",
                &format!("{device}5"),
            ])?;
            tool(&["mkswap", &format!("{device}7")])?;
            // Only the primary table is gone; the backup would come back to life.
            tool(&[
                "mke2fs", "-q", "-F", "-t", "ext4", "-L", "old-disk", device, "32M",
            ])?;
        }
    }
    settle()
}

/// Takes away what is on a disk, so that the same dirt can be made again. Nothing on it may be active.
pub fn clear(device: &Path) -> Result<()> {
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(format!("/sys/class/block/{name}"))? {
        let entry = entry?.file_name().to_string_lossy().into_owned();
        if entry.starts_with(&*name) {
            parts.push(Path::new("/dev").join(entry));
        }
    }
    for at in parts.iter().map(PathBuf::as_path).chain([device]) {
        tool(&["wipefs", "-a", "-f", "-q", &at.to_string_lossy()])?;
    }
    // udev looks at what was changed, and has the disk meanwhile.
    settle()?;
    tool(&["blockdev", "--rereadpt", &device.to_string_lossy()])?;
    settle()
}
