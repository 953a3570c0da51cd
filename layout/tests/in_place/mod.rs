//! Machines as they were saved, for plans that leave things where they are.

#![allow(clippy::unwrap_used)] // a failing test is to panic
#![allow(dead_code)] // not every test needs all of it

use std::collections::BTreeMap;
use std::path::PathBuf;

use layout::inventory::{FoundTable, Inventory, InventoryDisk, Present, Region};
use layout::model::{Firmware, Layout, Node, NodeId};
use layout::plan::{Choices, Mode};
use layout::units::Bytes;

pub fn device(n: usize) -> String {
    format!("/dev/vd{}", char::from(b'a' + n as u8))
}

/// The machine as it was saved, with disks of other names; nothing on it is open.
pub fn machine(saved: &Layout) -> Inventory {
    let (mut disks, mut tables, mut regions) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut layout = saved.clone();
    layout.mounts.clear();
    for (n, (id, disk)) in saved.disks().enumerate() {
        let at = PathBuf::from(device(n));
        disks.push(InventoryDisk {
            device: at.clone(),
            model: disk.model.clone(),
            serial: disk.serial.clone(),
            wwn: None,
            size: disk.size,
            sector_size: disk.sector_size,
            removable: false,
            transport: Some("ata".into()),
            media: None,
            read_only: false,
            contents: vec!["GPT".into()],
            vgs: Vec::new(),
            in_use: false,
        });
        let name = id.as_str().trim_start_matches("disk:").to_owned();
        let parts = saved.partitions(id);
        if disk.table.is_some() {
            let partitions = parts
                .iter()
                .map(|(_, p)| (p.number, p.partuuid.clone(), p.start, p.end))
                .collect();
            let table = FoundTable {
                name,
                whole: true,
                partitions,
            };
            tables.insert(at.clone(), table);
        }
        for (part_id, part) in parts {
            let (fstype, uuid) = match saved.children(part_id).next() {
                Some((_, Node::PhysicalVolume(pv))) => (Some("LVM2_member"), Some(pv.uuid.clone())),
                Some((_, Node::ZfsMember(_))) => (Some("zfs_member"), None),
                Some((_, node)) => {
                    let fs = node.filesystem();
                    (fs.map(|f| f.fstype), fs.map(|f| f.uuid.to_owned()))
                }
                None => (None, None),
            };
            regions.push(Region {
                partition: part_id.clone(),
                disk: at.clone(),
                fstype: fstype.map(str::to_owned),
                uuid,
                reach: None,
                unreadable: None,
            });
            if let Some(Node::Partition(p)) = layout.nodes.get_mut(part_id) {
                p.device = format!("{}{}", at.display(), part.number).into();
            }
        }
        if let Some(Node::Disk(d)) = layout.nodes.get_mut(id) {
            d.device = at;
        }
    }
    // What is on volumes that are not active is not seen.
    let on_volume = |on: &NodeId| matches!(saved.nodes.get(on), Some(Node::LogicalVolume(_)));
    layout
        .nodes
        .retain(|_, node| !node.on().iter().any(on_volume));
    Inventory {
        firmware: Firmware::Uefi,
        disks,
        memory: Bytes::GIB,
        present: Some(Box::new(Present {
            tables,
            layout,
            regions,
            in_the_way: BTreeMap::new(),
        })),
    }
}

pub fn present(machine: &mut Inventory) -> &mut Present {
    machine.present.as_mut().unwrap()
}

pub fn in_mode(mode: Mode) -> Choices {
    Choices {
        mode,
        ..Choices::default()
    }
}
