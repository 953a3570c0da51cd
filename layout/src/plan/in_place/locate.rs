//! Finds what saved filesystems lie on, on the disks at hand, and how it is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::capture::volumes::lv_path;
use crate::model::{
    Layout, LogicalVolume, Luks, Node, NodeId, Partition, PhysicalVolume, RaidArray, VolumeGroup,
};
use crate::plan::fit::saved_size;
use crate::plan::luks::mapping;
use crate::plan::raid::ours;
use crate::plan::{DiskAssignment, Step, UsedPartition, UsedPv};
use crate::units::Bytes;

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    /// Its device; for a volume group none that is used.
    pub device: PathBuf,
    /// Its size, where it can be seen.
    pub size: Option<Bytes>,
    /// Whether it, or what lies on it, cannot be seen before something is opened.
    pub hidden: bool,
}

/// What is there of what was saved.
pub(super) struct Ground<'a> {
    pub saved: &'a Layout,
    pub present: &'a Layout,
    pub disks: Vec<DiskAssignment>,
    /// Whether volumes are only looked at.
    pub read_only: bool,
    /// Saved nodes that were found.
    pub spots: BTreeMap<NodeId, Spot>,
    /// What opens them, in order.
    pub uses: Vec<Step>,
    /// What is not as it was saved.
    pub problems: Vec<String>,
    /// Containers and arrays whose contents cannot be seen.
    pub hidden_names: Vec<String>,
    /// Where filesystems are made anew.
    pub places: Vec<PathBuf>,
    /// Present partitions that are used, by device.
    used: BTreeMap<PathBuf, UsedPartition>,
    failed: BTreeSet<NodeId>,
}

impl<'a> Ground<'a> {
    pub fn new(
        saved: &'a Layout,
        present: &'a Layout,
        disks: Vec<DiskAssignment>,
        read_only: bool,
    ) -> Ground<'a> {
        Ground {
            saved,
            present,
            disks,
            read_only,
            spots: BTreeMap::new(),
            uses: Vec::new(),
            problems: Vec::new(),
            hidden_names: Vec::new(),
            places: Vec::new(),
            used: BTreeMap::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Devices of what was found.
    pub fn devices(&self) -> BTreeMap<NodeId, PathBuf> {
        let spots = self.spots.iter();
        spots
            .map(|(id, s)| (id.clone(), s.device.clone()))
            .collect()
    }

    /// Names of the groups that are used.
    pub fn groups(&self) -> Vec<String> {
        let names = self.uses.iter().filter_map(|step| match step {
            Step::GroupUse { name, .. } => Some(name.clone()),
            _ => None,
        });
        names.collect()
    }

    /// Partitions of a disk that are used.
    pub fn used_on(&self, disk: &Path) -> Vec<UsedPartition> {
        let parts = self.partitions_on(disk).into_iter();
        parts
            .filter_map(|p| self.used.get(&p.device).cloned())
            .collect()
    }

    /// Partitions of a disk that are not used. An extended partition is no place of its own.
    pub fn others_on(&self, disk: &Path) -> Vec<PathBuf> {
        let parts = self.partitions_on(disk).into_iter();
        parts
            .filter(|p| !self.used.contains_key(&p.device) && !p.is_extended())
            .map(|p| p.device.clone())
            .collect()
    }

    /// The partitions that are on a disk now, by number.
    pub fn partitions_on(&self, disk: &Path) -> Vec<&'a Partition> {
        let id = self.present.disks().find(|(_, d)| d.device == disk);
        id.map_or_else(Vec::new, |(id, _)| {
            let parts = self.present.partitions(id).into_iter();
            parts.map(|(_, part)| part).collect()
        })
    }

    /// Marks a present partition as used.
    pub fn use_partition(&mut self, part: &Partition) {
        self.used.insert(
            part.device.clone(),
            UsedPartition {
                device: part.device.clone(),
                size: part.size(),
            },
        );
    }

    /// A partition that is looked at only may become read-only.
    pub fn only_read(&mut self, device: &Path) {
        self.used.remove(device);
    }

    fn problem(&mut self, id: &NodeId, what: String) -> Option<Spot> {
        if self.failed.insert(id.clone()) && !self.problems.contains(&what) {
            self.problems.push(what);
        }
        None
    }

    /// Finds a node and all that it lies on. `None`: it is not there, and why is among the problems.
    pub fn locate(&mut self, id: &NodeId) -> Option<Spot> {
        if let Some(spot) = self.spots.get(id) {
            return Some(spot.clone());
        }
        // A damaged layout may go round in circles.
        if self.failed.contains(id) {
            return None;
        }
        self.failed.insert(id.clone());
        let saved = self.saved;
        let spot = match saved.nodes.get(id) {
            Some(Node::Disk(disk)) => self.disk(id, disk.size),
            Some(Node::Partition(part)) => self.partition(id, part),
            Some(Node::RaidArray(array)) => self.array(id, array),
            Some(Node::Luks(luks)) => self.container(id, luks),
            Some(Node::PhysicalVolume(pv)) => self.physical_volume(id, pv),
            Some(Node::VolumeGroup(vg)) => self.group(id, vg),
            Some(Node::ThinPool(pool)) => self.locate(&pool.on),
            Some(Node::LogicalVolume(lv)) => self.volume(id, lv),
            _ => {
                self.failed.remove(id);
                self.problem(id, format!("{id} is nothing that is restored in place"))
            }
        }?;
        self.failed.remove(id);
        self.spots.insert(id.clone(), spot.clone());
        Some(spot)
    }

    fn tell(&mut self, id: &NodeId, what: String) -> Option<Spot> {
        self.failed.remove(id);
        self.problem(id, what)
    }

    fn disk(&mut self, id: &NodeId, _saved: Bytes) -> Option<Spot> {
        match self.disks.iter().find(|d| d.saved == *id) {
            Some(disk) => Some(Spot {
                device: disk.device.clone(),
                size: Some(disk.identity.size),
                hidden: false,
            }),
            None => self.tell(id, format!("the saved disk {id} has no place")),
        }
    }

    fn partition(&mut self, id: &NodeId, part: &Partition) -> Option<Spot> {
        let disk = self.locate(&part.on)?.device;
        let here = self.partitions_on(&disk).into_iter();
        let found = here
            .filter(|p| p.partuuid.eq_ignore_ascii_case(&part.partuuid))
            .collect::<Vec<_>>();
        // On an MBR disk it is a number, which another partition gets when one is removed: only the place tells.
        let start = |p: &Partition| p.start.offset(p.sector_size);
        if let (Some(other), true) = (
            found.iter().find(|p| start(p) != start(part)),
            part.type_guid.starts_with("0x"),
        ) {
            let what = format!(
                "partition {} began {} bytes into the disk, and what has its number on {} now begins at {}: it is another one",
                part.number,
                start(part).0,
                disk.display(),
                start(other).0
            );
            return self.tell(id, what);
        }
        let [found] = found.as_slice() else {
            let name = if part.name.is_empty() {
                String::new()
            } else {
                format!(" \"{}\"", part.name)
            };
            let what = format!(
                "partition {}{name} ({}, PARTUUID {}) is not on {} any more",
                part.number,
                part.size(),
                part.partuuid,
                disk.display()
            );
            return self.tell(id, what);
        };
        let found: Partition = (*found).clone();
        self.use_partition(&found);
        Some(Spot {
            device: found.device.clone(),
            size: Some(found.size()),
            hidden: false,
        })
    }

    /// What is on a device now, in words.
    fn content_of(&self, device: &Path) -> String {
        let id = self.present.nodes.iter().find(|(_, node)| {
            node.device() == Some(device) && matches!(node, Node::Disk(_) | Node::Partition(_))
        });
        let child = id.and_then(|(id, _)| self.present.children(id).next());
        match child {
            None => "nothing known".to_owned(),
            Some((_, Node::Unsupported(what))) => what.what.clone(),
            Some((id, _)) => id.to_string(),
        }
    }

    /// What lies on a place now that would be lost with it, and is no filesystem of its own; `None`: nothing that is known.
    pub fn more_on(&self, device: &Path) -> Option<String> {
        let here = |node: &Node| node.device() == Some(device);
        let mut places = self.present.nodes.iter().filter(|(_, node)| here(node));
        places.find_map(|(id, _)| {
            let mut above = self.present.children(id);
            above.find_map(|(above, node)| match node {
                Node::PhysicalVolume(_) => {
                    let groups = self.present.children(above).filter_map(|(_, n)| match n {
                        Node::VolumeGroup(vg) => Some(vg.name.as_str()),
                        _ => None,
                    });
                    let groups: Vec<&str> = groups.collect();
                    Some(match groups.as_slice() {
                        [] => "an LVM physical volume".to_owned(),
                        names => format!("a physical volume of volume group {}", names.join(", ")),
                    })
                }
                Node::Luks(luks) => Some(format!("LUKS container {}", luks.uuid)),
                Node::RaidArray(array) => Some(format!("a member of array {}", array.name)),
                Node::ZfsMember(member) => Some(format!("a device of ZFS pool {}", member.pool)),
                Node::Btrfs(fs) if fs.on.len() > 1 => {
                    Some(format!("a device of btrfs {}, which has several", fs.uuid))
                }
                Node::Unsupported(what) if super::is_part_of_more(&what.what) => {
                    Some(what.what.clone())
                }
                Node::Partition(_) => Some("a partition table".to_owned()),
                _ => None,
            })
        })
    }

    /// The filesystem or swap area at a place, where it is another kind than FAT.
    pub fn other_filesystem(&self, device: &Path) -> Option<String> {
        self.alone_on(device).and_then(|node| match node {
            Node::Vfat(_) => None,
            Node::Swap(swap) => Some(format!("swap area {}", swap.uuid)),
            node => node
                .filesystem()
                .map(|fs| format!("{} {}", fs.fstype, fs.uuid)),
        })
    }

    /// The FAT at a place, where it is another one than the saved one.
    pub fn other_fat(&self, device: &Path, saved: &str) -> Option<&'a str> {
        match self.alone_on(device)? {
            Node::Vfat(fs) if !fs.uuid.eq_ignore_ascii_case(saved) => Some(&fs.uuid),
            _ => None,
        }
    }

    fn alone_on(&self, device: &Path) -> Option<&'a Node> {
        let present = self.present;
        let mut here = present.nodes.iter();
        let (id, _) = here.find(|(_, node)| node.device() == Some(device))?;
        let mut above = present.children(id);
        above.next().map(|(_, node)| node)
    }

    /// The place of a filesystem that is made anew: nothing else may lie on it.
    pub fn place(&mut self, on: &NodeId, at: &Path) -> Option<Spot> {
        let spot = self.locate(on)?;
        if let Some(more) = self.more_on(&spot.device) {
            self.problems.push(format!(
                "{} is now {more}, and would be erased for the filesystem of {}",
                spot.device.display(),
                at.display()
            ));
            return None;
        }
        self.places.push(spot.device.clone());
        Some(spot)
    }

    /// Whether a present node lies directly on a device.
    fn is_on(&self, on: &NodeId, device: &Path) -> bool {
        self.present
            .nodes
            .get(on)
            .and_then(Node::device)
            .is_some_and(|d| d == device)
    }

    fn array(&mut self, id: &NodeId, array: &RaidArray) -> Option<Spot> {
        let mut devices = Vec::new();
        for member in &array.members {
            devices.push(self.locate(&member.on)?.device);
        }
        let running = matches!(self.present.nodes.get(id), Some(Node::RaidArray(_)));
        if !running {
            for device in &devices {
                let now = self.content_of(device);
                if now != "linux_raid_member" {
                    let what = format!(
                        "{} is no member of array {} any more (on it now: {now})",
                        device.display(),
                        array.name
                    );
                    return self.tell(id, what);
                }
            }
            self.hidden_names.push(format!("array {}", array.name));
        }
        let count = self
            .uses
            .iter()
            .filter(|s| matches!(s, Step::RaidUse { .. }))
            .count();
        let device = ours(count);
        self.uses.push(Step::RaidUse {
            device: device.clone(),
            devices,
            array: array.clone(),
        });
        Some(Spot {
            device,
            size: None,
            hidden: !running,
        })
    }

    fn container(&mut self, id: &NodeId, luks: &Luks) -> Option<Spot> {
        let below = self.locate(&luks.on)?;
        let now = match self.present.nodes.get(id) {
            Some(Node::Luks(now)) => Some(now),
            _ => None,
        };
        if !below.hidden && now.is_none() {
            let what = format!(
                "{} does not hold the LUKS container {} with UUID {} any more (on it now: {})",
                below.device.display(),
                luks.name,
                luks.uuid,
                self.content_of(&below.device)
            );
            return self.tell(id, what);
        }
        let open = !below.hidden && now.is_some_and(|now| now.open);
        if !open {
            self.hidden_names
                .push(format!("LUKS container {}", luks.name));
        }
        self.uses.push(Step::LuksUse {
            node: id.clone(),
            device: below.device,
            name: luks.name.clone(),
            uuid: luks.uuid.clone(),
        });
        Some(Spot {
            device: mapping(&luks.name),
            size: now.filter(|_| open).map(|now| now.size),
            hidden: !open,
        })
    }

    fn physical_volume(&mut self, id: &NodeId, pv: &PhysicalVolume) -> Option<Spot> {
        let below = self.locate(&pv.on)?;
        let there = match self.present.nodes.get(id) {
            // On a container or array the path is another one.
            Some(Node::PhysicalVolume(now)) => {
                self.is_on(&now.on, &below.device)
                    || !matches!(
                        self.present.nodes.get(&now.on),
                        Some(Node::Disk(_) | Node::Partition(_))
                    )
            }
            _ => below.hidden,
        };
        if there {
            return Some(below);
        }
        let what = format!(
            "{} does not hold the LVM physical volume {} any more (on it now: {})",
            below.device.display(),
            pv.uuid,
            self.content_of(&below.device)
        );
        self.tell(id, what)
    }

    fn group(&mut self, id: &NodeId, vg: &VolumeGroup) -> Option<Spot> {
        let (mut pvs, mut hidden) = (Vec::new(), false);
        for on in &vg.on {
            let spot = self.locate(on)?;
            hidden |= spot.hidden;
            if let Some(Node::PhysicalVolume(pv)) = self.saved.nodes.get(on) {
                pvs.push(UsedPv {
                    device: spot.device,
                    uuid: pv.uuid.clone(),
                });
            }
        }
        match self.present.nodes.get(id) {
            Some(Node::VolumeGroup(now)) => {
                if let Some(more) = now.on.iter().find(|on| !vg.on.contains(on)) {
                    let what = format!(
                        "volume group {} also lies on {more} now, which was not part of it when the backup was made",
                        vg.name
                    );
                    return self.tell(id, what);
                }
            }
            _ if hidden => {}
            _ => {
                let what = format!("volume group {} is not there any more", vg.name);
                return self.tell(id, what);
            }
        }
        self.uses.push(Step::GroupUse {
            name: vg.name.clone(),
            pvs,
        });
        Some(Spot {
            device: PathBuf::from("/dev").join(&vg.name),
            size: None,
            hidden,
        })
    }

    fn volume(&mut self, id: &NodeId, lv: &LogicalVolume) -> Option<Spot> {
        let below = self.locate(&lv.on)?;
        let vg = match self.saved.nodes.get(&lv.on) {
            Some(Node::ThinPool(pool)) => &pool.on,
            _ => &lv.on,
        };
        let Some(Node::VolumeGroup(vg)) = self.saved.nodes.get(vg) else {
            return self.tell(id, format!("{id} is in no volume group"));
        };
        let name = format!("{}/{}", vg.name, lv.name);
        let size = match self.present.nodes.get(id) {
            Some(Node::LogicalVolume(now)) if !now.writeable && !self.read_only => {
                let what =
                    format!("logical volume {name} is read-only (lvchange --permission rw {name})");
                return self.tell(id, what);
            }
            Some(Node::LogicalVolume(now)) => Some(now.size),
            Some(Node::Unsupported(what)) => {
                let what = format!("logical volume {name} is now a {}", what.what);
                return self.tell(id, what);
            }
            _ if below.hidden => None,
            _ => {
                return self.tell(id, format!("logical volume {name} is not there any more"));
            }
        };
        self.uses.push(Step::VolumeUse {
            vg: vg.name.clone(),
            name: lv.name.clone(),
            at_least: self.least(id, lv.size),
            read_only: self.read_only,
        });
        Some(Spot {
            device: lv_path(&vg.name, &lv.name),
            size,
            hidden: below.hidden,
        })
    }

    /// What a volume must have for what was on it.
    fn least(&self, id: &NodeId, size: Bytes) -> Bytes {
        if self.read_only {
            return Bytes(0);
        }
        let on_it = self.saved.children(id);
        let least = on_it
            .filter_map(|(_, node)| node.filesystem())
            .map(|f| f.size);
        least.max().unwrap_or(size)
    }

    /// Whether a device has more room than the saved one had.
    pub fn grew(&self, id: &NodeId) -> Option<Bytes> {
        let now = self.spots.get(id)?.size?;
        (now > saved_size(self.saved, id)?).then_some(now)
    }
}
