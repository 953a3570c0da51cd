//! Facts asked of sgdisk, blkid, LVM and the kernel, not of the code under test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use layout::model::{Layout, Node, NodeId, types};
use layout::plan::{Plan, Step};
use nix::mount::{MsFlags, mount, umount};

use crate::content;
use crate::machine::{settle, text, tool};
use crate::stack;
use crate::volumes;

fn has(text: &str, what: &str, of: &str) -> Result<()> {
    ensure!(
        text.to_lowercase().contains(&what.to_lowercase()),
        "{of}: \"{what}\" is not in: {text}"
    );
    Ok(())
}

fn tags(device: &Path) -> Result<BTreeMap<String, String>> {
    let out = text(&["blkid", "-p", "-o", "export", &device.to_string_lossy()])?;
    Ok(out
        .lines()
        .filter_map(|l| l.split_once('='))
        // blkid writes a backslash before what a shell would take for more than text.
        .map(|(k, v)| (k.to_owned(), v.replace('\\', "")))
        .collect())
}

pub fn signed(device: &Path, kind: &str, uuid: &str, label: Option<&str>) -> Result<()> {
    let tags = tags(device)?;
    let get = |key: &str| tags.get(key).map(String::as_str);
    let what = device.display();
    ensure!(get("TYPE") == Some(kind), "{what} is {tags:?}, not {kind}");
    ensure!(
        get("UUID").is_some_and(|u| u.eq_ignore_ascii_case(uuid)),
        "{what} is {tags:?}, not {uuid}"
    );
    ensure!(
        get("LABEL") == label,
        "{what} is {tags:?}, its label should be {label:?}"
    );
    Ok(())
}

/// Checks the restored disks.
pub fn check(saved: &Layout, plan: &Plan) -> Result<()> {
    for step in &plan.steps {
        if let Step::WriteGpt {
            device,
            table,
            partitions,
            ..
        } = step
        {
            let disk = device.to_string_lossy();
            // sgdisk verifies both headers and the backup's place.
            has(&text(&["sgdisk", "-v", &disk])?, "No problems found", &disk)?;
            has(&text(&["sgdisk", "-p", &disk])?, &table.disk_guid, &disk)?;
            for part in partitions {
                let info = text(&["sgdisk", "-i", &part.number.to_string(), &disk])?;
                for what in [
                    &part.partuuid,
                    &part.type_guid,
                    &format!("'{}'", part.name),
                    &format!("{:016X}", part.attributes),
                ] {
                    has(&info, what, &disk)?;
                }
                has(&info, &format!("First sector: {} ", part.start.0), &disk)?;
                has(&info, &format!("Last sector: {} ", part.end.0), &disk)?;
            }
            let listed = text(&["sgdisk", "-p", &disk])?;
            let count = listed
                .lines()
                .filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit()))
                .count();
            ensure!(count == partitions.len(), "{disk} has {count} partitions");
            // sgdisk tries whether it could write, so udev reads the table again: the partitions are gone for a moment.
            settle()?;
        }
        if let Step::WriteMbr {
            device,
            table,
            partitions,
            ..
        } = step
        {
            crate::mbr::check(device, table, partitions)?;
        }
        if let Step::RestoreImage { node, device, .. } = step {
            if saved.boot.esp_images.contains(node) {
                continue;
            }
            let found = std::fs::read(device).with_context(|| device.display().to_string())?;
            ensure!(
                found.starts_with(&content::image()),
                "{} does not hold its image",
                device.display()
            );
        }
    }
    active(saved, plan)
}

/// An LVM command that sees the plan's physical volumes.
pub fn lvm(plan: &Plan, args: &[&str]) -> Result<String> {
    let mut argv: Vec<String> = ["lvm", args[0]].map(str::to_owned).to_vec();
    for step in &plan.steps {
        if let Step::PvCreate { device, .. } = step {
            argv.extend(["--devices".to_owned(), device.display().to_string()]);
        }
    }
    argv.extend(args[1..].iter().map(|a| (*a).to_owned()));
    text(&argv.iter().map(String::as_str).collect::<Vec<_>>())
}

/// With the volumes active: signatures, LVM's own view, files, a check of every filesystem.
fn active(saved: &Layout, plan: &Plan) -> Result<()> {
    let lvm = |args: &[&str]| lvm(plan, args);
    stack::with(plan, &lvm, || {
        volumes(plan, &lvm)?;
        contents(saved, plan, &lvm)
    })
}

fn volumes(plan: &Plan, lvm: stack::Lvm) -> Result<()> {
    for step in &plan.steps {
        if let Step::PvCreate {
            device,
            uuid,
            pe_start,
        } = step
        {
            let out = lvm(&[
                "pvs",
                "--noheadings",
                "--units",
                "b",
                "--nosuffix",
                "-o",
                "pv_uuid,pe_start",
                &device.to_string_lossy(),
            ])?;
            ensure!(
                out.split_whitespace()
                    .eq([uuid.as_str(), &pe_start.0.to_string()]),
                "physical volume: {out}"
            );
        }
    }
    Ok(())
}

fn contents(saved: &Layout, plan: &Plan, lvm: stack::Lvm) -> Result<()> {
    for step in &plan.steps {
        match step {
            Step::LvCreate { .. } => volumes::volume(plan, step, lvm)?,
            Step::ThinPoolCreate { .. } => volumes::pool(step, lvm)?,
            Step::VgSettings { .. } => volumes::group(step, lvm)?,
            Step::MakeExt4 { device, fs, fill } => {
                signed(device, &fs.fstype, &fs.uuid, fs.label.as_deref())?;
                tool(&["e2fsck", "-f", "-n", &device.to_string_lossy()])?;
                let header = text(&["dumpe2fs", "-h", &device.to_string_lossy()])?;
                let number = |name: &str| {
                    let line = header.lines().find_map(|l| l.strip_prefix(name));
                    line.and_then(|l| l.trim().parse::<u64>().ok())
                        .with_context(|| format!("no {name}"))
                };
                let size = number("Block count:")? * fs.block_size.0;
                // mke2fs drops a last group that is too short for its own metadata.
                let drop = 8 * fs.block_size.0 * fs.block_size.0;
                ensure!(
                    *fill || (size <= fs.size.0 && size + drop > fs.size.0),
                    "{} has {size} bytes, planned were {}",
                    device.display(),
                    fs.size.0
                );
                ensure!(
                    *fill || number("Inode count:")? >= fs.inodes,
                    "{} has too few inodes",
                    device.display()
                );
                let line = header
                    .lines()
                    .find_map(|l| l.strip_prefix("Filesystem features:"))
                    .context("no features")?;
                let mut found: Vec<&str> = line.split_whitespace().collect();
                found.sort_unstable();
                ensure!(
                    found == fs.features,
                    "{}: {found:?} instead of {:?}",
                    device.display(),
                    fs.features
                );
            }
            Step::MakeXfs { device, fs, .. } => {
                signed(device, "xfs", &fs.uuid, fs.label.as_deref())?;
                tool(&["xfs_repair", "-n", &device.to_string_lossy()])?;
            }
            Step::MakeVfat { device, fs } => {
                signed(device, "vfat", &fs.uuid, fs.label.as_deref())?;
                tool(&["fsck.vfat", "-n", &device.to_string_lossy()])?;
            }
            Step::ZpoolCreate { pool, vdevs, .. } => crate::zfs::check(pool, vdevs, saved)?,
            Step::UpdateFstab { switch_off, .. } => active_lines(plan, switch_off)?,
            Step::MakeBtrfs { devices, fs } => {
                crate::btrfs::check(devices, fs)?;
                let made = plan.steps.iter().find_map(|s| match s {
                    Step::MakeSubvolumes {
                        devices: of,
                        subvolumes,
                        default,
                    } if of == devices => Some((subvolumes.as_slice(), default.as_str())),
                    _ => None,
                });
                let (made, default) = made.unwrap_or_default();
                crate::btrfs::subvolumes(devices, made, default, fs)?;
            }
            Step::MakeSwap {
                device,
                uuid,
                label,
                ..
            } => signed(device, "swap", uuid, label.as_deref())?,
            _ => {}
        }
    }
    crate::boot::check(plan)?;
    crate::btrfs::swap_files(plan)?;
    files(saved, plan)
}

/// No line of fstab names what was left out, and each such line is still there as a comment.
fn active_lines(plan: &Plan, left_out: &[String]) -> Result<()> {
    let root = plan.steps.iter().find_map(|s| match s {
        Step::Mount {
            device,
            fstype,
            mount_point,
        } if mount_point == Path::new("/") => Some((device, fstype)),
        _ => None,
    });
    let Some((device, fstype)) = root.filter(|_| !left_out.is_empty()) else {
        return Ok(());
    };
    mount(
        Some(device),
        "/run/look",
        Some(fstype.as_str()),
        MsFlags::MS_RDONLY,
        None::<&str>,
    )?;
    let text = std::fs::read_to_string("/run/look/etc/fstab");
    umount("/run/look")?;
    let text = text.context("fstab")?;
    for spec in left_out {
        ensure!(
            !text.lines().any(|l| l.starts_with(spec.as_str())) && text.contains(spec.as_str()),
            "fstab still has {spec}, or lost its line: {text}"
        );
    }
    Ok(())
}

fn files(saved: &Layout, plan: &Plan) -> Result<()> {
    for step in &plan.steps {
        if let Step::MountSubvolume {
            devices,
            subvolume,
            mount_point,
            ..
        } = step
        {
            let text = crate::btrfs::look(devices, Some(subvolume), MsFlags::MS_RDONLY, |dir| {
                if mount_point == Path::new("/") {
                    crate::boot::check_list(saved, dir)?;
                }
                Ok(std::fs::read_to_string(dir.join("floor.txt"))?)
            })
            .with_context(|| format!("the file in subvolume {subvolume}"))?;
            ensure!(
                Path::new(&text) == mount_point,
                "subvolume {subvolume} has the files of {text}"
            );
        }
        if let Step::Mount {
            device,
            fstype,
            mount_point,
        } = step
        {
            // XFS writes to its log when it is unmounted, after it was only to be read as well
            // (linux: fs/xfs/xfs_log.c, `xfs_log_writable`).
            let options = (fstype == "xfs").then_some("norecovery");
            mount(
                Some(device),
                "/run/look",
                Some(fstype.as_str()),
                MsFlags::MS_RDONLY,
                options,
            )
            .with_context(|| format!("mounting {}", device.display()))?;
            let text = std::fs::read_to_string("/run/look/floor.txt");
            let data = std::fs::read("/run/look/floor.data");
            let cache = match fstype.as_str() {
                "zfs" if mount_point == Path::new("/") => {
                    crate::zfs::cache(&plan.steps, Path::new("/run/look"))
                }
                _ => Ok(()),
            };
            umount("/run/look")?;
            cache?;
            let found = PathBuf::from(
                text.with_context(|| format!("the file on {}", mount_point.display()))?,
            );
            ensure!(
                found == *mount_point,
                "{} has the files of {}",
                mount_point.display(),
                found.display()
            );
            ensure!(
                data.with_context(|| format!("the data on {}", mount_point.display()))?
                    == content::data(mount_point),
                "the data on {} is not whole",
                mount_point.display()
            );
        }
    }
    // What a partition is now; one of a disk that has no place may not be made.
    let made = |id: &NodeId| {
        plan.steps.iter().find_map(|s| match s {
            Step::WriteGpt { partitions, .. } | Step::WriteMbr { partitions, .. } => {
                partitions.iter().find(|p| p.node == *id)
            }
            _ => None,
        })
    };
    let formatted = |at: &Path| {
        let mut steps = plan.steps.iter();
        steps.any(|s| matches!(s, Step::MakeVfat { device, .. } if device == at))
    };
    // A BIOS boot partition and an empty one are no images.
    let images = plan
        .steps
        .iter()
        .filter(|s| matches!(s, Step::RestoreImage { .. }))
        .count();
    let expected = saved.nodes.iter().filter(|(id, node)| {
        matches!(node, Node::Partition(p) if p.type_guid != types::BIOS_BOOT && !p.is_extended())
            && saved.children(id).next().is_none()
            && made(id).is_some_and(|p| !formatted(&p.device))
    });
    if images != expected.count() + saved.boot.esp_images.len() {
        bail!("{images} images were restored");
    }
    Ok(())
}
