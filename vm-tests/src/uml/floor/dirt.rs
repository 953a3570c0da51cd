//! Disks with a past.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vm_tests::uml::case::Dirt;

use crate::luks;
use crate::machine::{settle, tool};
use crate::raid;

/// The UUID of the physical volume in the layout `pve-ext4-lvm`.
const SAVED_PV: &str = "Lif3b0-at00-0000-0000-0000-0000-000001";

/// `/dev/ubdb` after `/dev/ubda`.
fn next(device: &str) -> Result<String> {
    let letter = device.bytes().last().context("a device without a name")?;
    let start = &device[..device.len() - 1];
    Ok(format!("{start}{}", char::from(letter + 1)))
}

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

/// An array's device, a different one for each disk.
fn array(device: &str) -> String {
    let letter = device.bytes().next_back().unwrap_or(b'a');
    format!("/dev/md{}", letter.saturating_sub(b'a'))
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
        Dirt::PveWithNext => {
            let next = next(device)?;
            let lvm = |argv: &[&str]| {
                let mut all = vec!["lvm", argv[0], "--devices", device, "--devices", &next];
                all.extend(&argv[1..]);
                tool(&all)
            };
            let uuid = ["--norestorefile", "--uuid", SAVED_PV];
            lvm(&[&["pvcreate", "-y", "-ff"][..], &uuid[..], &[device][..]].concat())?;
            lvm(&["pvcreate", "-y", "-ff", &next])?;
            lvm(&["vgcreate", "-y", "pve", device, &next])?;
            // More than the first disk has.
            lvm(&[
                "lvcreate", "-y", "-Wy", "-l", "100%FREE", "-n", "root", "pve",
            ])?;
            tool(&["mke2fs", "-q", "-F", "-t", "ext4", "/dev/pve/root"])?;
        }
        Dirt::ActiveLuks => luks::stale(device)?,
        Dirt::Raid => raid::stale(device, None, "--metadata=1.2", &array(device), false)?,
        Dirt::ActiveRaid => raid::stale(device, None, "--metadata=1.2", &array(device), true)?,
        Dirt::RaidInPartition => {
            tool(&["sgdisk", "-n", "2:1M:0", "-t", "2:fd00", device])?;
            settle()?;
            let part = format!("{device}2");
            raid::stale(&part, None, "--metadata=1.0", &array(device), false)?;
        }
        Dirt::ActiveRaidWithNext => {
            let (start, letter) = device.split_at(device.len() - 1);
            let next = letter.bytes().next().map_or('b', |b| (b + 1) as char);
            let next = format!("{start}{next}");
            raid::stale(device, Some(&next), "--metadata=1.2", &array(device), true)?;
        }
        Dirt::Pool => crate::zfs::stale(device, false)?,
        Dirt::ActivePool => crate::zfs::stale(device, true)?,
        Dirt::PoolInPartition => {
            tool(&["sgdisk", "-n", "3:1M:0", "-t", "3:bf01", device])?;
            settle()?;
            crate::zfs::stale(&format!("{device}3"), false)?;
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
