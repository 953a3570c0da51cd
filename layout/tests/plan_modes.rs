//! Plans that leave partitions and volumes where they are.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;
mod in_place;

use std::path::{Path, PathBuf};

use build::{golden, here, pve, saved};
use in_place::{in_mode, machine, present};
use layout::inventory::Inventory;
use layout::model::{Firmware, Layout, Node, NodeId, Table, ThinVolume, Unsupported};
use layout::plan::{Choices, DiskChoice, Mode, Plan, PlanError, Step, plan};
use layout::units::{Bytes, Lba, SectorSize};

fn planned(saved: &Layout, machine: &Inventory, mode: Mode) -> Plan {
    plan(saved, machine, &in_mode(mode)).unwrap_or_else(|e| panic!("{mode}: {e}"))
}

fn refused(saved: &Layout, machine: &Inventory, mode: Mode) -> String {
    refusal(saved, machine, in_mode(mode))
}

/// Whatever the disks look like: they are named.
fn refused_when_named(saved: &Layout, machine: &Inventory, mode: Mode) -> String {
    let ids = saved.disks().map(|(id, _)| id.clone());
    let chosen = ids.zip(machine.disks.iter().map(|d| d.device.clone()));
    let choices = Choices {
        disks: chosen
            .map(|(id, device)| (id, DiskChoice::Device(device)))
            .collect(),
        ..in_mode(mode)
    };
    refusal(saved, machine, choices)
}

fn refusal(saved: &Layout, machine: &Inventory, choices: Choices) -> String {
    match plan(saved, machine, &choices) {
        Err(error @ PlanError::NotInPlace { .. }) => error.to_string(),
        other => panic!("{}: {other:?}", choices.mode),
    }
}

#[test]
fn plans_read_as_recorded() {
    let saved = pve();
    let mut now = machine(&saved);
    // A guest that was made after the backup, and a partition.
    let guest = ThinVolume {
        on: NodeId::lv("pve", "data"),
        vg: "pve".into(),
        name: "vm-105-disk-0".into(),
        size: Bytes::GIB,
    };
    let id = NodeId::lv("pve", "vm-105-disk-0");
    present(&mut now)
        .layout
        .nodes
        .insert(id, Node::ThinVolume(guest));
    for mode in [Mode::SystemOnly, Mode::BootRepair] {
        let text = planned(&saved, &now, mode).render();
        golden(&format!("pve-{}", mode.word()), &text);
    }
    now.firmware = Firmware::Bios;
    let text = planned(&saved, &now, Mode::BootRepair).render();
    golden("pve-boot-repair-bios", &text);
    present(&mut now).tables.clear();
    let text = planned(&saved, &now, Mode::TableRepair).render();
    golden("pve-table-repair", &text);
    let luks = build::saved("luks2-lvm");
    let mut now = machine(&luks);
    let seen = &mut present(&mut now).layout;
    close(seen);
    golden(
        "luks2-lvm-system-only",
        &planned(&luks, &now, Mode::SystemOnly).render(),
    );
}

/// Takes away what cannot be seen in closed containers.
fn close(seen: &mut Layout) {
    let closed: Vec<NodeId> = seen
        .nodes
        .iter_mut()
        .filter_map(|(id, node)| match node {
            Node::Luks(luks) => {
                luks.open = false;
                Some(id.clone())
            }
            _ => None,
        })
        .collect();
    let mut gone = closed;
    while let Some(below) = gone.pop() {
        let above: Vec<NodeId> = seen.children(&below).map(|(id, _)| id.clone()).collect();
        for id in above {
            seen.nodes.remove(&id);
            gone.push(id);
        }
    }
}

#[test]
fn what_differs_is_named() {
    let saved = pve();
    let refuse = |change: &dyn Fn(&mut Layout)| {
        let mut now = machine(&saved);
        change(&mut present(&mut now).layout);
        refused(&saved, &now, Mode::SystemOnly)
    };
    let text = refuse(&|now| {
        now.nodes.remove(&NodeId::lv("pve", "root"));
    });
    assert!(
        text.contains("logical volume pve/root is not there any more"),
        "{text}"
    );
    assert!(text.contains("bare metal"), "{text}");
    let text = refuse(&|now| {
        if let Some(Node::LogicalVolume(lv)) = now.nodes.get_mut(&NodeId::lv("pve", "root")) {
            lv.size = Bytes::mib(512);
        }
    });
    assert!(
        text.contains("/dev/pve/root has 512 MiB (536870912 bytes) now"),
        "{text}"
    );
    let text = refuse(&|now| {
        if let Some(Node::LogicalVolume(lv)) = now.nodes.get_mut(&NodeId::lv("pve", "root")) {
            lv.writeable = false;
        }
    });
    assert!(text.contains("pve/root is read-only"), "{text}");
    let esp = NodeId::partition("00000001-0000-4000-8000-000000000003");
    let text = refuse(&|now| {
        now.nodes.remove(&NodeId::fs("5A1B-0001"));
        now.nodes.remove(&esp);
    });
    assert!(
        text.contains(
            "partition 2 (64 MiB, PARTUUID 00000001-0000-4000-8000-000000000003) is not on /dev/vda"
        ),
        "{text}"
    );
    let pv = NodeId::pv("Lif3b0-at00-0000-0000-0000-0000-000001");
    let text = refuse(&|now| {
        now.nodes
            .retain(|id, node| *id != pv && !node.on().contains(&pv));
        for name in ["root", "swap", "data", "vm-100-disk-0", "base-9000-disk-0"] {
            now.nodes.remove(&NodeId::lv("pve", name));
        }
    });
    assert!(
        text.contains("/dev/vda3 does not hold the LVM physical volume Lif3b0-at00"),
        "{text}"
    );
    let text = refuse(&|now| {
        if let Some(Node::VolumeGroup(vg)) = now.nodes.get_mut(&NodeId::vg("pve")) {
            vg.on.push(NodeId::pv("another"));
        }
    });
    assert!(text.contains("also lies on pv:another"), "{text}");
    let mut now = machine(&saved);
    present(&mut now).tables.clear();
    let text = refused(&saved, &now, Mode::SystemOnly);
    assert!(
        text.contains("has not its partition table any more") && text.contains("Table repair"),
        "{text}"
    );
    now.disks[0].serial = None;
    let text = refused(&saved, &now, Mode::BootRepair);
    assert!(
        text.contains("no disk of this machine carries the partition table"),
        "{text}"
    );
    now.present = None;
    let text = refused(&saved, &now, Mode::SystemOnly);
    assert!(text.contains("does not say what is on the disks"), "{text}");
}

#[test]
fn a_container_or_filesystem_of_another_kind_is_refused() {
    let saved = saved("luks2-lvm");
    let mut now = machine(&saved);
    let seen = &mut present(&mut now).layout;
    close(seen);
    let luks = seen
        .nodes
        .iter()
        .find_map(|(id, node)| matches!(node, Node::Luks(_)).then(|| id.clone()));
    let luks = luks.unwrap();
    seen.nodes.remove(&luks);
    let text = refused(&saved, &now, Mode::SystemOnly);
    assert!(text.contains("does not hold the LUKS container"), "{text}");
    let saved = build::saved("btrfs-subvolumes");
    let text = refused(&saved, &machine(&saved), Mode::SystemOnly);
    assert!(text.contains("is btrfs, which this version"), "{text}");
}

#[test]
fn arrays_are_started_and_not_made() {
    let saved = saved("md1-lvm");
    let mut now = machine(&saved);
    let seen = &mut present(&mut now).layout;
    // Not running: members are known by their signature, and nothing above them.
    let members: Vec<(NodeId, PathBuf)> = seen
        .nodes
        .values()
        .filter_map(|node| match node {
            Node::RaidArray(array) => Some(array.members.iter().map(|m| m.on.clone())),
            _ => None,
        })
        .flatten()
        .map(|on| {
            let device = seen.nodes[&on].device().unwrap().to_owned();
            (on, device)
        })
        .collect();
    seen.nodes
        .retain(|_, node| matches!(node, Node::Disk(_) | Node::Partition(_)));
    for (on, device) in members.clone() {
        let member = Unsupported {
            on: vec![on],
            device: device.clone(),
            what: "linux_raid_member".into(),
            size: Bytes::GIB,
            meaning: String::new(),
        };
        let id = NodeId::other(&device.display().to_string());
        seen.nodes.insert(id, Node::Unsupported(member));
    }
    let made = planned(&saved, &now, Mode::SystemOnly);
    let starts = made
        .steps
        .iter()
        .filter(|s| matches!(s, Step::RaidUse { .. }))
        .count();
    let stops = made
        .steps
        .iter()
        .filter(|s| matches!(s, Step::RaidStop { .. }))
        .count();
    assert!(starts > 0 && starts == stops, "{}", made.render());
    let seen = &mut present(&mut now).layout;
    let (_, device) = &members[0];
    seen.nodes
        .remove(&NodeId::other(&device.display().to_string()));
    let text = refused(&saved, &now, Mode::SystemOnly);
    assert!(
        text.contains(&format!("{} is no member of array", device.display())),
        "{text}"
    );
}

#[test]
fn a_volume_that_grew_is_filled() {
    let saved = pve();
    let mut now = machine(&saved);
    if let Some(Node::LogicalVolume(lv)) = present(&mut now)
        .layout
        .nodes
        .get_mut(&NodeId::lv("pve", "root"))
    {
        lv.size = Bytes::mib(2048);
    }
    let made = planned(&saved, &now, Mode::SystemOnly);
    let fills = made.steps.iter().any(
        |s| matches!(s, Step::MakeExt4 { fill: true, device, .. } if device == Path::new("/dev/pve/root")),
    );
    assert!(fills, "{}", made.render());
    assert!(made.sizes.iter().any(|s| s.now == Bytes::mib(2048)));
}

#[test]
fn a_table_is_written_only_around_its_contents() {
    let saved = pve();
    let mut now = machine(&saved);
    let text = refused(&saved, &now, Mode::TableRepair);
    assert!(text.contains("is there and as it was saved"), "{text}");
    // One copy is damaged.
    for table in present(&mut now).tables.values_mut() {
        table.whole = false;
    }
    planned(&saved, &now, Mode::TableRepair);
    // It has a partition that is not in the backup.
    let one_more = (4, "new".to_owned(), Lba(6_291_000), Lba(6_291_100));
    for table in present(&mut now).tables.values_mut() {
        table.partitions.push(one_more.clone());
    }
    let text = refused(&saved, &now, Mode::TableRepair);
    assert!(text.contains("it is not replaced"), "{text}");
    present(&mut now).tables.clear();
    let made = planned(&saved, &now, Mode::TableRepair);
    let table = made.steps.iter().find_map(|s| match s {
        Step::RestoreTable {
            table: Table::Gpt(table),
            partitions,
            ..
        } => Some((table.clone(), partitions.len())),
        _ => None,
    });
    assert_eq!(table.unwrap().1, 3);
    // The BIOS boot partition may hold anything; the others may not.
    for region in &mut present(&mut now).regions {
        region.uuid = Some("other".into());
    }
    let text = refused(&saved, &now, Mode::TableRepair);
    assert!(
        text.contains("where partition 2 lay") && text.contains("where partition 3 lay"),
        "{text}"
    );
    assert!(!text.contains("where partition 1 lay"), "{text}");
    let mut now = machine(&saved);
    present(&mut now).tables.clear();
    now.disks[0].size = now.disks[0].size.minus(Bytes::MIB);
    let text = refused_when_named(&saved, &now, Mode::TableRepair);
    assert!(text.contains("too small"), "{text}");
    now.disks[0].sector_size = SectorSize::S4096;
    let text = refused_when_named(&saved, &now, Mode::TableRepair);
    assert!(text.contains("has sectors of 4096"), "{text}");
}

#[test]
fn a_plan_that_would_destroy_what_stays_is_found_out() {
    let saved = pve();
    let made = planned(&saved, &machine(&saved), Mode::BootRepair);
    assert_eq!(made.writes_outside(), None);
    let protected = made.steps.iter().find_map(|s| match s {
        Step::KeepOthers { protect, .. } => protect.first().cloned(),
        _ => None,
    });
    for bad in [
        Step::Clear {
            device: protected.unwrap(),
        },
        Step::Clear {
            device: "/dev/vda".into(),
        },
        Step::Wipe {
            device: "/dev/vda".into(),
            size: Bytes::GIB,
        },
    ] {
        let mut worse = made.clone();
        worse.steps.push(bad);
        assert!(worse.writes_outside().is_some());
    }
    let text = serde_json::to_string(&made).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), made);
}

#[test]
fn every_layout_file_has_a_safe_plan_or_a_reason() {
    let (mut plans, mut refusals) = (0, 0);
    for entry in std::fs::read_dir(here("../vm-tests/layouts")).unwrap() {
        let path = entry.unwrap().path();
        let case: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let Ok(saved) = Layout::from_value(case["layout"].clone()) else {
            continue;
        };
        for mode in [Mode::SystemOnly, Mode::BootRepair, Mode::TableRepair] {
            let mut now = machine(&saved);
            if mode == Mode::TableRepair {
                present(&mut now).tables.clear();
            }
            match plan(&saved, &now, &in_mode(mode)) {
                Ok(made) => {
                    plans += 1;
                    assert_eq!(made.writes_outside(), None);
                    let kept = made.in_place.as_ref().unwrap();
                    assert!(!kept.remade.is_empty(), "{}: {mode}", path.display());
                    assert!(
                        kept.remade.iter().all(|r| r.disk.starts_with("/dev")),
                        "{}: {:?}",
                        path.display(),
                        kept.remade
                    );
                }
                Err(PlanError::NotInPlace { .. } | PlanError::NothingToRestore) => refusals += 1,
                Err(other) => panic!("{}: {mode}: {other}", path.display()),
            }
        }
    }
    assert!(plans > 30 && refusals > 10, "{plans} {refusals}");
}
