//! What there is to choose from on this machine.

use std::path::{Path, PathBuf};

use layout::model::Layout;
use layout::system::System;
use layout::units::Bytes;
use rescue_image::stick::{Stick, refusals};

use crate::commands::prepare::SMALLEST;
use crate::doctor::place::mounts;
use crate::history::Space;

/// A disk that may become a stick, or is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The name that stays the same when it is plugged in elsewhere.
    pub path: PathBuf,
    /// `/dev/sdX`
    pub device: PathBuf,
    /// Model, serial and size, for people.
    pub title: String,
    /// Whether it is a stick already.
    pub ours: bool,
}

/// A file system on another disk than the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Its type.
    pub fstype: String,
    /// Room.
    pub space: Space,
}

/// All there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Removable disks that are not in use.
    pub sticks: Vec<Disk>,
    /// The one with the most room first.
    pub drives: Vec<Drive>,
}

/// File systems that keep files for years, and the names of files as they are.
const LASTING: [&str; 9] = [
    "ext4", "ext3", "xfs", "btrfs", "zfs", "nfs", "nfs4", "cifs", "smb3",
];
/// Less is of no use.
const LEAST: u64 = 1 << 30;

impl Machine {
    /// Looks around. What cannot be found out is not offered.
    pub fn look(sys: &dyn System) -> Machine {
        let layout = layout::capture::capture(sys);
        Machine {
            sticks: sticks(sys),
            drives: layout.map_or_else(|_| Vec::new(), |layout| drives(sys, &layout, Space::of)),
        }
    }
}

fn sticks(sys: &dyn System) -> Vec<Disk> {
    let Ok(inventory) = layout::inventory::inventory(sys) else {
        return Vec::new();
    };
    let usb = |transport: &Option<String>| transport.as_deref() == Some("usb");
    let free = inventory
        .disks
        .into_iter()
        .filter(|disk| (disk.removable || usb(&disk.transport)) && !disk.in_use && !disk.read_only);
    let mut found: Vec<Disk> = free
        .filter(|disk| {
            refusals(sys, &disk.device, Bytes(SMALLEST)).is_ok_and(|reasons| reasons.is_empty())
        })
        .map(|disk| Disk {
            path: lasting_name(sys, &disk.device),
            title: [
                Some(disk.device.display().to_string()),
                disk.model,
                disk.serial.map(|serial| format!("serial {serial}")),
                Some(disk.size.to_string()),
            ]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("  "),
            ours: Stick::open(&disk.device).is_ok(),
            device: disk.device,
        })
        .collect();
    found.sort_by(|a, b| (!a.ours, &a.device).cmp(&(!b.ours, &b.device)));
    found
}

/// udev's name of a disk by model and serial, where it has one.
fn lasting_name(sys: &dyn System, device: &Path) -> PathBuf {
    let dir = Path::new("/dev/disk/by-id");
    let names = sys.list_dir(dir).unwrap_or_default();
    let mut leading: Vec<String> = names
        .into_iter()
        .filter(|name| {
            sys.canonicalize(&dir.join(name))
                .is_ok_and(|to| to == device)
        })
        .collect();
    leading.sort_by_key(|name| (!name.starts_with("usb-"), name.starts_with("wwn-")));
    match leading.first() {
        Some(name) => dir.join(name),
        None => device.to_owned(),
    }
}

fn drives(sys: &dyn System, layout: &Layout, space: impl Fn(&Path) -> Option<Space>) -> Vec<Drive> {
    let text = sys
        .text(Path::new("/proc/self/mountinfo"))
        .unwrap_or_default();
    let system = layout.system_disks();
    let elsewhere = |point: &Path, fstype: &str| match layout.mount_at(point) {
        Some(mount) => {
            let disks = layout.disks_below(&mount.node);
            !disks.is_empty() && disks.is_disjoint(&system)
        }
        None => fstype.starts_with("nfs") || matches!(fstype, "cifs" | "smb3"),
    };
    let mut found: Vec<(String, Drive)> = Vec::new();
    for mount in mounts(&text) {
        let good = mount.writable
            && LASTING.contains(&mount.fstype.as_str())
            && !mount.point.starts_with("/run")
            && elsewhere(&mount.point, &mount.fstype);
        // The same one at a second place.
        if !good || found.iter().any(|(source, _)| *source == mount.source) {
            continue;
        }
        let Some(space) = space(&mount.point).filter(|s| s.free >= LEAST) else {
            continue;
        };
        let drive = Drive {
            point: mount.point,
            fstype: mount.fstype,
            space,
        };
        found.push((mount.source, drive));
    }
    let mut drives: Vec<Drive> = found.into_iter().map(|(_, drive)| drive).collect();
    drives.sort_by_key(|drive| std::cmp::Reverse(drive.space.free));
    drives
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::system::Recorded;

    #[test]
    fn names_that_stay_the_same_come_first() {
        let sys = Recorded::new()
            .link("/dev/disk/by-id/wwn-0x5", "/dev/sdx")
            .link("/dev/disk/by-id/usb-Stick_1-0:0", "/dev/sdx")
            .link("/dev/disk/by-id/usb-Stick_1-0:0-part1", "/dev/sdx1");
        let name = lasting_name(&sys, Path::new("/dev/sdx"));
        assert_eq!(name, Path::new("/dev/disk/by-id/usb-Stick_1-0:0"));
        assert_eq!(
            lasting_name(&sys, Path::new("/dev/sdy")),
            Path::new("/dev/sdy")
        );
    }

    #[test]
    fn drives_are_not_where_the_host_is() {
        let text = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../layout/tests/hosts/gpt-ext4-xfs-swap/host.json"
        ))
        .unwrap();
        let mut sys = layout::record::replay(&text).unwrap();
        let layout = layout::capture::capture(&sys).unwrap();
        let mounts = sys
            .files
            .get_mut(Path::new("/proc/self/mountinfo"))
            .unwrap();
        mounts.extend(
            b"90 1 0:90 / /mnt/net rw - nfs4 server:/a rw\n91 1 0:91 / /mnt/ram rw - tmpfs tmpfs rw\n\
              92 1 0:92 / /mnt/ro ro - nfs4 server:/b rw\n93 1 0:90 / /mnt/again rw - nfs4 server:/a rw\n\
              94 1 0:94 / /mnt/small rw - nfs4 server:/c rw\n",
        );
        let room = |point: &Path| {
            let free = if point.ends_with("small") {
                1000
            } else {
                9 << 30
            };
            Some(Space {
                free,
                size: 10 << 30,
            })
        };
        let points: Vec<PathBuf> = drives(&sys, &layout, room)
            .into_iter()
            .map(|d| d.point)
            .collect();
        assert_eq!(points, [PathBuf::from("/mnt/net")]);
    }
}
