//! Steps in words, as plans and progress show them.

use std::fmt;
use std::path::PathBuf;

use super::Step;
use crate::model::Segments;

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "no other disk".to_owned();
    }
    paths
        .iter()
        .map(|p| p.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// How many partitions, in words.
pub(in crate::plan) fn count_of_partitions(n: usize) -> String {
    format!("{n} partition{}", if n == 1 { "" } else { "s" })
}

/// Says how a volume lies on physical volumes, where that is more than usual.
fn spread(f: &mut fmt::Formatter<'_>, segments: &Segments, pvs: &[PathBuf]) -> fmt::Result {
    if *segments != Segments::Linear {
        write!(f, ", {segments}")?;
    }
    if !pvs.is_empty() {
        write!(f, " on {}", list(pvs))?;
    }
    Ok(())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Fence { disks, targets, .. } => {
                write!(
                    f,
                    "Make {} read-only and check {}",
                    list(disks),
                    list(targets)
                )
            }
            Step::Wipe { device, .. } => write!(f, "Erase {}", device.display()),
            Step::WriteGpt {
                device, partitions, ..
            }
            | Step::WriteMbr {
                device, partitions, ..
            } => {
                write!(
                    f,
                    "Write the partition table of {} ({})",
                    device.display(),
                    count_of_partitions(partitions.len())
                )
            }
            Step::LuksKey { name, .. } => write!(f, "Try the key of LUKS container {name}"),
            Step::LuksHeader { device, luks, .. } => write!(
                f,
                "Write the saved LUKS header {} to {}",
                luks.uuid,
                device.display()
            ),
            Step::LuksOpen { device, name, .. } => {
                write!(f, "Open LUKS container {name} on {}", device.display())
            }
            Step::LuksErase { name } => {
                write!(f, "Erase both ends of LUKS container {name}")
            }
            Step::LuksClose { name } => write!(f, "Close LUKS container {name}"),
            Step::UpdateCrypttab { .. } => f.write_str("Check device names in /etc/crypttab"),
            Step::RaidCreate {
                device,
                devices,
                array,
            } => {
                let missing = match array.missing() {
                    0 => String::new(),
                    n => format!(" ({n} missing)"),
                };
                write!(
                    f,
                    "Make {} array {} on {}{missing} as {}",
                    array.level,
                    array.name,
                    list(devices),
                    device.display()
                )
            }
            Step::PvCreate { device, .. } => {
                write!(f, "Make {} an LVM physical volume", device.display())
            }
            Step::VgCreate { name, devices, .. } => {
                write!(f, "Make volume group {name} on {}", list(devices))
            }
            Step::LvCreate {
                vg,
                name,
                size,
                segments,
                pvs,
                ..
            } => {
                write!(f, "Make logical volume {vg}/{name} of {size}")?;
                spread(f, segments, pvs)
            }
            Step::ThinPoolCreate {
                vg,
                name,
                size,
                segments,
                pvs,
                ..
            } => {
                write!(f, "Make thin pool {vg}/{name} of {size}")?;
                spread(f, segments, pvs)
            }
            Step::CacheCreate { vg, cache, pvs } => {
                write!(f, "Make cache {vg}/{} of {}", cache.name, cache.size)?;
                spread(f, &Segments::Linear, pvs)
            }
            Step::CacheAttach { vg, volume, cache } => {
                write!(f, "Put cache {} in front of {vg}/{volume}", cache.name)
            }
            Step::VgSettings { name, .. } => {
                write!(f, "Set the attributes of volume group {name}")
            }
            Step::MakeExt4 { device, fs, .. } => {
                write!(
                    f,
                    "Make {} filesystem {} on {}",
                    fs.fstype,
                    fs.uuid,
                    device.display()
                )
            }
            Step::MakeXfs { device, fs, .. } => {
                write!(f, "Make xfs filesystem {} on {}", fs.uuid, device.display())
            }
            Step::MakeVfat { device, fs } => write!(
                f,
                "Make vfat filesystem {} on {}",
                fs.uuid,
                device.display()
            ),
            Step::MakeBtrfs { devices, fs } => {
                write!(f, "Make btrfs filesystem {} on {}", fs.uuid, list(devices))
            }
            Step::MakeSubvolumes {
                devices,
                subvolumes,
                ..
            } => {
                let paths: Vec<&str> = subvolumes.iter().map(|s| s.path.as_str()).collect();
                write!(
                    f,
                    "Make subvolumes {} on {}",
                    paths.join(", "),
                    list(devices)
                )
            }
            Step::MountSubvolume {
                devices,
                subvolume,
                mount_point,
                ..
            } => {
                write!(
                    f,
                    "Mount subvolume /{subvolume} of {} as {}",
                    list(devices),
                    mount_point.display()
                )
            }
            Step::SealSubvolumes { mount_points } => {
                write!(f, "Make the subvolumes at {} read-only", list(mount_points))
            }
            Step::NameSubvolumes { .. } => {
                f.write_str("Replace numbers of subvolumes in /etc/fstab")
            }
            Step::MakeSwap { device, uuid, .. } => {
                write!(f, "Make swap area {uuid} on {}", device.display())
            }
            Step::RestoreImage { node, device, .. } => {
                write!(f, "Write the saved image of {node} to {}", device.display())
            }
            Step::Mount {
                device,
                mount_point,
                ..
            } => {
                write!(f, "Mount {} as {}", device.display(), mount_point.display())
            }
            Step::MakeSwapFile { path, size, .. } => {
                write!(f, "Make swap file {} of {size}", path.display())
            }
            Step::RestoreTree { mount_point } => {
                write!(f, "Restore the files of {}", mount_point.display())
            }
            Step::UpdateFstab { .. } => f.write_str("Check device names in /etc/fstab"),
            Step::InitramfsDrivers { devices } => {
                write!(
                    f,
                    "See that the initramfs has the drivers of {}",
                    list(devices)
                )
            }
            Step::UpdateInitramfs { .. } => f.write_str("Make the initramfs again"),
            Step::GrubBios { device, .. } => {
                write!(f, "Install GRUB for BIOS on {}", device.display())
            }
            Step::GrubEfi {
                esp,
                device,
                bootloader_id,
                ..
            } => {
                let on = device.as_ref().unwrap_or(esp);
                write!(
                    f,
                    "Install GRUB for UEFI as {bootloader_id} on {}",
                    on.display()
                )
            }
            Step::ProxmoxBoot { esps } => {
                let devices: Vec<PathBuf> = esps.iter().map(|e| e.device.clone()).collect();
                write!(f, "Have proxmox-boot-tool set up {}", list(&devices))
            }
            Step::GrubConfig => f.write_str("Write GRUB's configuration"),
            Step::EfiBootEntry { label, .. } => write!(f, "Make EFI boot entry \"{label}\""),
            Step::ZpoolCreate { pool, vdevs, .. } => {
                write!(f, "Make ZFS pool {}:", pool.name)?;
                for vdev in vdevs {
                    let role = vdev.role.keyword().map(|w| format!("{w} "));
                    let role = role.unwrap_or_default();
                    write!(f, " {role}{} {}", vdev.kind, list(&vdev.devices))?;
                }
                Ok(())
            }
            Step::ZfsCreate { name, .. } => write!(f, "Make ZFS filesystem {name}"),
            Step::ZpoolFinish { pool, .. } => {
                write!(f, "Make pool {pool} known to the restored host")
            }
            Step::ZfsSet {
                name,
                property,
                value,
            } => write!(f, "Set {property}={value} on {name}"),
            Step::ZpoolExport { pool } => write!(f, "Export pool {pool}"),
            Step::Unmount => f.write_str("Unmount everything"),
            Step::Deactivate { vgs, .. } => write!(f, "Deactivate volume group {}", vgs.join(", ")),
            Step::RaidStop { device } => write!(f, "Stop array {}", device.display()),
            Step::KeepOthers {
                device, protect, ..
            } => {
                write!(f, "Check the partitions of {}", device.display())?;
                match protect.as_slice() {
                    [] => Ok(()),
                    protect => write!(f, ", and make {} read-only", list(protect)),
                }
            }
            Step::LuksUse { device, name, .. } => {
                write!(f, "Open LUKS container {name} on {}", device.display())
            }
            Step::RaidUse {
                device,
                devices,
                array,
            } => write!(
                f,
                "Start array {} on {} as {}",
                array.name,
                list(devices),
                device.display()
            ),
            Step::GroupUse { name, .. } => write!(f, "Check volume group {name}"),
            Step::VolumeUse {
                vg,
                name,
                read_only,
                ..
            } => {
                let how = if *read_only { " read-only" } else { "" };
                write!(f, "Activate logical volume {vg}/{name}{how}, and no other")
            }
            Step::CheckPlaces { devices } => {
                write!(f, "Check that nothing else lies on {}", list(devices))
            }
            Step::Clear { device } => {
                write!(f, "Remove old signatures from {}", device.display())
            }
            Step::RestoreTable {
                device, partitions, ..
            } => write!(
                f,
                "Write the saved partition table of {} back ({})",
                device.display(),
                count_of_partitions(partitions.len())
            ),
            Step::KeepVfat { device, fs } => write!(
                f,
                "Check vfat filesystem {} on {}, and make it anew if it is damaged",
                fs.uuid,
                device.display()
            ),
            Step::MountReadOnly {
                device,
                mount_point,
                ..
            } => write!(
                f,
                "Mount {} read-only as {}",
                device.display(),
                mount_point.display()
            ),
            Step::CheckBoot { .. } => {
                f.write_str("Check that GRUB's configuration and kernels are there")
            }
            Step::GrubFromHost { esp, .. } => write!(
                f,
                "Bring GRUB on {} to the version of the installed system",
                esp.display()
            ),
            Step::BootCode { device } => {
                write!(f, "Write GRUB's boot code to {}", device.display())
            }
        }
    }
}
