//! Ways in which a restore in place could destroy what it has to leave, none of which leads there.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;
mod in_place;

use std::path::{Path, PathBuf};

use build::{pve, saved};
use in_place::{in_mode, machine, present};
use layout::inventory::{Inventory, InventoryDisk};
use layout::model::{Firmware, Layout, Node, NodeId, PhysicalVolume, Unsupported, VolumeGroup};
use layout::plan::{Choices, DiskChoice, Mode, Plan, PlanError, Step, plan};
use layout::units::{Bytes, Lba};

fn refused(saved: &Layout, now: &Inventory, choices: &Choices) -> String {
    match plan(saved, now, choices) {
        Err(error) => error.to_string(),
        Ok(plan) => panic!("{}", plan.render()),
    }
}

fn unattended(mode: Mode) -> Choices {
    Choices {
        blank_only: true,
        ..in_mode(mode)
    }
}

fn named(saved: &Layout, choice: DiskChoice, with: Choices) -> Choices {
    let id = saved.disks().next().unwrap().0.clone();
    Choices {
        disks: [(id, choice)].into(),
        ..with
    }
}

/// The disk that the saved layout is on, and its partitions, under another kernel name.
fn renamed(now: &mut Inventory, from: &str, to: &str) {
    let other = |path: &Path| -> PathBuf {
        let text = path.to_str().unwrap();
        text.strip_prefix(from)
            .map_or_else(|| path.to_owned(), |rest| format!("{to}{rest}").into())
    };
    for disk in &mut now.disks {
        disk.device = other(&disk.device);
    }
    now.disks.sort_by(|a, b| a.device.cmp(&b.device));
    let seen = present(now);
    seen.tables = std::mem::take(&mut seen.tables)
        .into_iter()
        .map(|(device, table)| (other(&device), table))
        .collect();
    for region in &mut seen.regions {
        region.disk = other(&region.disk);
    }
    for node in seen.layout.nodes.values_mut() {
        match node {
            Node::Disk(disk) => disk.device = other(&disk.device),
            Node::Partition(part) => part.device = other(&part.device),
            _ => {}
        }
    }
}

/// Another disk of the same size and model.
fn neighbour(now: &Inventory, device: &str) -> InventoryDisk {
    InventoryDisk {
        device: device.into(),
        serial: Some("NEIGHBOUR".into()),
        contents: vec!["ext4 'data'".into()],
        ..now.disks[0].clone()
    }
}

fn target(made: &Plan) -> &str {
    made.disks[0].device.to_str().unwrap()
}

#[test]
fn disks_that_changed_their_names_are_told_apart_by_table_and_serial() {
    let saved = pve();
    // What was /dev/vda is /dev/vdb, and another disk has its name.
    let mut now = machine(&saved);
    renamed(&mut now, "/dev/vda", "/dev/vdb");
    now.disks.insert(0, neighbour(&now, "/dev/vda"));
    for mode in [Mode::SystemOnly, Mode::BootRepair] {
        for choices in [in_mode(mode), unattended(mode)] {
            let made = plan(&saved, &now, &choices).unwrap();
            assert_eq!(target(&made), "/dev/vdb");
            assert_eq!(made.fence[0].device, Path::new("/dev/vda"));
            for step in &made.steps {
                for device in step.writes_to() {
                    assert!(!device.to_str().unwrap().starts_with("/dev/vda"), "{step}");
                }
            }
        }
    }
    // Without a table, by its serial.
    present(&mut now).tables.clear();
    for choices in [in_mode(Mode::TableRepair), unattended(Mode::TableRepair)] {
        let made = plan(&saved, &now, &choices).unwrap();
        assert_eq!(target(&made), "/dev/vdb");
    }
    // Named by a kernel name that is another disk's now, it is refused: what was saved is not there.
    let wrong = named(
        &saved,
        DiskChoice::Device("/dev/vda".into()),
        in_mode(Mode::SystemOnly),
    );
    let text = refused(&saved, &now, &wrong);
    assert!(text.contains("is not on /dev/vda any more"), "{text}");
}

#[test]
fn disks_that_changed_places_are_erased_for_what_was_on_each() {
    let saved = saved("md1-lvm");
    let mut now = machine(&saved);
    let [one, two] = now.disks.as_mut_slice() else {
        panic!("two disks")
    };
    std::mem::swap(&mut one.device, &mut two.device);
    let serials: Vec<_> = now.disks.iter().map(|d| d.serial.clone()).collect();
    now.disks.reverse();
    now.present = None;
    for choices in [in_mode(Mode::BareMetal), unattended(Mode::BareMetal)] {
        let made = plan(&saved, &now, &choices).unwrap();
        for (n, ((id, _), device)) in saved.disks().zip(["/dev/vdb", "/dev/vda"]).enumerate() {
            let disk = made.disks.iter().find(|d| d.saved == *id).unwrap();
            assert_eq!(disk.device, Path::new(device));
            assert_eq!(disk.identity.serial, serials[n]);
        }
    }
}

#[test]
fn a_copy_of_the_disk_is_not_taken_for_it() {
    let saved = pve();
    for mode in [Mode::SystemOnly, Mode::BootRepair, Mode::TableRepair] {
        let mut now = machine(&saved);
        // The copy carries the table; the saved disk has lost its own.
        now.disks[0].serial = Some("COPY".into());
        let itself = InventoryDisk {
            device: "/dev/vdz".into(),
            serial: machine(&saved).disks[0].serial.clone(),
            contents: Vec::new(),
            ..now.disks[0].clone()
        };
        now.disks.push(itself);
        for table in present(&mut now).tables.values_mut() {
            table.whole = false;
        }
        for choices in [in_mode(mode), unattended(mode)] {
            match plan(&saved, &now, &choices) {
                Err(PlanError::Ambiguous { candidates, .. }) => assert_eq!(candidates.len(), 2),
                other => panic!("{mode}: {other:?}"),
            }
        }
        // Said which, it is taken.
        let choices = named(&saved, DiskChoice::Serial("COPY".into()), in_mode(mode));
        assert_eq!(target(&plan(&saved, &now, &choices).unwrap()), "/dev/vda");
        // The copy alone: whoever looks sees what it is; with nobody looking it is refused.
        now.disks.pop();
        let made = plan(&saved, &now, &in_mode(mode)).unwrap();
        assert!(made.disks[0].why.contains("another disk"), "{mode}");
        let text = refused(&saved, &now, &unattended(mode));
        assert!(text.contains("another serial number"), "{mode}: {text}");
        let choices = named(&saved, DiskChoice::Serial("COPY".into()), unattended(mode));
        plan(&saved, &now, &choices).unwrap();
    }
}

#[test]
fn the_bundle_is_never_repaired_away() {
    let saved = pve();
    let mut now = machine(&saved);
    for table in present(&mut now).tables.values_mut() {
        table.whole = false;
    }
    let choices = Choices {
        never: vec!["/dev/vda".into()],
        ..in_mode(Mode::TableRepair)
    };
    plan(&saved, &now, &choices).unwrap_err();
}

#[test]
fn nobody_is_asked_so_no_disk_is_guessed_by_its_size() {
    let saved = pve();
    let mut now = machine(&saved);
    now.disks[0].serial = None;
    present(&mut now).tables.clear();
    plan(&saved, &now, &in_mode(Mode::TableRepair)).unwrap();
    let text = refused(&saved, &now, &unattended(Mode::TableRepair));
    assert!(text.contains("name it with --disk"), "{text}");
    // That another disk was named says nothing of this one.
    let two = build::saved("md1-lvm");
    let mut now = machine(&two);
    present(&mut now).tables.clear();
    now.disks[1].serial = None;
    let first = now.disks[0].serial.clone().unwrap();
    let choices = named(
        &two,
        DiskChoice::Serial(first),
        unattended(Mode::TableRepair),
    );
    plan(&two, &now, &choices).unwrap_err();
}

/// Gives what is on a partition now another content.
fn now_holds(now: &mut Inventory, part: &NodeId, id: NodeId, node: Node) {
    let seen = &mut present(now).layout;
    let old: Vec<NodeId> = seen.children(part).map(|(id, _)| id.clone()).collect();
    for id in old {
        seen.nodes.remove(&id);
    }
    seen.nodes.insert(id, node);
}

fn other_pv(on: &NodeId) -> Node {
    let layout = pve();
    let pv = layout.nodes.values().find_map(|node| match node {
        Node::PhysicalVolume(pv) => Some(pv.clone()),
        _ => None,
    });
    Node::PhysicalVolume(PhysicalVolume {
        on: on.clone(),
        uuid: "guests-pv".into(),
        ..pv.unwrap()
    })
}

#[test]
fn a_place_that_belongs_to_a_volume_group_now_is_not_erased() {
    // The EFI system partition of a PVE host, and the root partition of a host without LVM.
    let esp = NodeId::partition("00000001-0000-4000-8000-000000000003");
    let plain = saved("gpt-ext4-xfs-swap");
    let root = plain.mount_at(Path::new("/")).unwrap().node.clone();
    let root = plain.nodes[&root].on()[0].clone();
    for (saved, part, modes) in [
        (
            pve(),
            esp.clone(),
            &[Mode::SystemOnly, Mode::BootRepair][..],
        ),
        (plain, root, &[Mode::SystemOnly]),
    ] {
        for mode in modes {
            let mut now = machine(&saved);
            let pv = NodeId::pv("guests-pv");
            now_holds(&mut now, &part, pv.clone(), other_pv(&part));
            let group: VolumeGroup = match saved_group() {
                Node::VolumeGroup(vg) => VolumeGroup {
                    name: "guests".into(),
                    on: vec![pv],
                    ..vg
                },
                other => panic!("{other:?}"),
            };
            let seen = &mut present(&mut now).layout;
            seen.nodes
                .insert(NodeId::vg("guests"), Node::VolumeGroup(group));
            let text = refused(&saved, &now, &in_mode(*mode));
            assert!(
                text.contains("is now a physical volume of volume group guests"),
                "{text}"
            );
            for what in ["zfs_member", "linux_raid_member", "crypto_LUKS", "bcache"] {
                let member = Unsupported {
                    on: vec![part.clone()],
                    device: "/dev/x".into(),
                    what: what.into(),
                    size: Bytes::GIB,
                    meaning: String::new(),
                };
                let mut now = machine(&saved);
                now_holds(
                    &mut now,
                    &part,
                    NodeId::other("x"),
                    Node::Unsupported(member),
                );
                let text = refused(&saved, &now, &in_mode(*mode));
                assert!(text.contains(&format!("is now {what}")), "{text}");
            }
        }
    }
}

fn saved_group() -> Node {
    pve().nodes[&NodeId::vg("pve")].clone()
}

#[test]
fn a_whole_disk_that_is_a_physical_volume_now_is_not_erased() {
    let saved = saved("whole-disk-ext4");
    let now = machine(&saved);
    let made = plan(&saved, &now, &in_mode(Mode::SystemOnly)).unwrap();
    assert!(made.steps.iter().any(|s| matches!(s, Step::Clear { .. })));
    let mut now = machine(&saved);
    let (id, _) = saved.disks().next().unwrap();
    now_holds(&mut now, id, NodeId::pv("guests-pv"), other_pv(id));
    let text = refused(&saved, &now, &in_mode(Mode::SystemOnly));
    assert!(text.contains("is now an LVM physical volume"), "{text}");
}

#[test]
fn what_is_opened_first_is_looked_at_before_the_first_write() {
    let saved = saved("luks2-lvm");
    let made = plan(&saved, &machine(&saved), &in_mode(Mode::SystemOnly)).unwrap();
    let at = |wanted: &dyn Fn(&Step) -> bool| made.steps.iter().position(wanted).unwrap();
    let checked = at(&|s| {
        matches!(s, Step::CheckPlaces { devices }
            if devices.iter().any(|d| d == Path::new("/dev/pve/root")))
    });
    assert!(at(&|s| matches!(s, Step::VolumeUse { .. })) < checked);
    assert!(checked < at(&|s| matches!(s, Step::Clear { .. })));
}

#[test]
fn boot_repair_erases_no_other_filesystem_and_says_when_a_fat_is_another_one() {
    let saved = pve();
    let esp = NodeId::partition("00000001-0000-4000-8000-000000000003");
    let fs = NodeId::fs("5A1B-0001");
    let mut now = machine(&saved);
    let Node::Vfat(mut fat) = saved.nodes[&fs].clone() else {
        panic!("no FAT");
    };
    fat.uuid = "0BAD-CAFE".into();
    now_holds(&mut now, &esp, NodeId::fs("0BAD-CAFE"), Node::Vfat(fat));
    let made = plan(&saved, &now, &in_mode(Mode::BootRepair)).unwrap();
    let remade = &made.in_place.as_ref().unwrap().remade;
    assert!(
        remade.iter().any(|r| r
            .what
            .contains("0BAD-CAFE that is there is not the saved one")),
        "{remade:?}"
    );
    let root = saved.mount_at(Path::new("/")).unwrap().node.clone();
    let Node::Ext4(mut ext4) = saved.nodes[&root].clone() else {
        panic!("no ext4");
    };
    ext4.on = esp.clone();
    let mut now = machine(&saved);
    now_holds(&mut now, &esp, root, Node::Ext4(ext4));
    let text = refused(&saved, &now, &in_mode(Mode::BootRepair));
    assert!(
        text.contains("should be the EFI system partition, and holds ext4"),
        "{text}"
    );
}

#[test]
fn an_mbr_partition_that_got_the_number_of_the_saved_one_is_another() {
    let saved = saved("mbr-lvm");
    let made = plan(&saved, &machine(&saved), &in_mode(Mode::SystemOnly)).unwrap();
    let Some(Step::KeepOthers { used, .. }) = made
        .steps
        .iter()
        .find(|s| matches!(s, Step::KeepOthers { .. }))
    else {
        panic!("{}", made.render());
    };
    let device = used.last().unwrap().device.clone();
    let mut now = machine(&saved);
    for node in present(&mut now).layout.nodes.values_mut() {
        if let Node::Partition(part) = node {
            if part.device == device {
                part.start = Lba(part.start.0 + 2048);
            }
        }
    }
    let text = refused(&saved, &now, &in_mode(Mode::SystemOnly));
    assert!(text.contains("it is another one"), "{text}");
}

#[test]
fn boot_code_is_told_where_the_machine_was_started_another_way() {
    // A host that boots through UEFI only, with a BIOS boot partition and GRUB's modules for BIOS, started through BIOS.
    let mut saved = pve();
    saved.boot.grub_bios.clear();
    saved.boot.grub_platforms = vec!["i386-pc".into(), "x86_64-efi".into()];
    let mut now = machine(&saved);
    now.firmware = Firmware::Bios;
    let made = plan(&saved, &now, &in_mode(Mode::SystemOnly)).unwrap();
    assert!(
        made.steps
            .iter()
            .any(|s| matches!(s, Step::GrubBios { .. }))
    );
    let remade = &made.in_place.as_ref().unwrap().remade;
    assert!(
        remade.iter().any(|r| r.what.contains("boot code")),
        "{remade:?}"
    );
    for step in &made.steps {
        if let Step::KeepOthers { used, protect, .. } = step {
            let first = Path::new("/dev/vda1");
            assert!(used.iter().any(|u| u.device == first), "{used:?}");
            assert!(!protect.iter().any(|p| p == first));
        }
    }
}

/// The disk has lost its table.
fn without_table(saved: &Layout) -> Inventory {
    let mut now = machine(saved);
    present(&mut now).tables.clear();
    now
}

#[test]
fn no_table_is_written_over_what_takes_the_whole_disk() {
    let saved = pve();
    let mut now = without_table(&saved);
    plan(&saved, &now, &in_mode(Mode::TableRepair)).unwrap();
    present(&mut now).in_the_way.insert(
        "/dev/vda".into(),
        "LVM2_member x, which takes the whole disk".into(),
    );
    let text = refused(&saved, &now, &in_mode(Mode::TableRepair));
    assert!(text.contains("holds LVM2_member x"), "{text}");
}

#[test]
fn no_table_cuts_off_what_was_made_bigger_after_the_backup() {
    let saved = pve();
    let mut now = without_table(&saved);
    let parts: Vec<Bytes> = present(&mut now)
        .regions
        .iter()
        .map(|region| match &saved.nodes[&region.partition] {
            Node::Partition(part) => part.size(),
            other => panic!("{other:?}"),
        })
        .collect();
    for (region, size) in present(&mut now).regions.iter_mut().zip(&parts) {
        region.reach = Some(*size);
    }
    plan(&saved, &now, &in_mode(Mode::TableRepair)).unwrap();
    let regions = &mut present(&mut now).regions;
    let last = regions.last_mut().unwrap();
    last.reach = Some(parts[parts.len() - 1].plus(Bytes(512)));
    let text = refused(&saved, &now, &in_mode(Mode::TableRepair));
    assert!(text.contains("was made bigger after the backup"), "{text}");
}

#[test]
fn the_places_of_pools_are_looked_at() {
    let saved = saved("zfs-single");
    let mut now = without_table(&saved);
    let made = plan(&saved, &now, &in_mode(Mode::TableRepair));
    made.unwrap_or_else(|e| panic!("{e}"));
    for region in &mut present(&mut now).regions {
        if region.fstype.as_deref() == Some("zfs_member") {
            region.fstype = None;
        }
    }
    let text = refused(&saved, &now, &in_mode(Mode::TableRepair));
    assert!(text.contains("should be zfs_member"), "{text}");
}

#[test]
fn a_damaged_table_is_refused_before_the_disk_is_touched() {
    let good = pve();
    type Change = fn(&mut Layout);
    let damages: [(&str, Change); 4] = [
        ("entries is not supported", |l| entries(l, u32::MAX)),
        // Times 128 this is small again in 32 bits.
        ("entries is not supported", |l| entries(l, (1 << 25) + 128)),
        ("cannot be written", |l| entries(l, 4096)),
        ("saved in sectors of 4096", |l| {
            for node in l.nodes.values_mut() {
                if let Node::Partition(part) = node {
                    part.sector_size = layout::units::SectorSize::S4096;
                }
            }
        }),
    ];
    for (words, change) in damages {
        let mut saved = good.clone();
        change(&mut saved);
        let now = without_table(&good);
        let text = refused(&saved, &now, &in_mode(Mode::TableRepair));
        assert!(text.contains(words), "{words}: {text}");
    }
}

fn entries(saved: &mut Layout, number: u32) {
    for node in saved.nodes.values_mut() {
        if let Node::Disk(disk) = node {
            if let Some(layout::model::Table::Gpt(table)) = &mut disk.table {
                table.entries = number;
            }
        }
    }
}

#[test]
fn a_step_of_another_mode_is_found_out() {
    let saved = pve();
    let now = machine(&saved);
    let system = plan(&saved, &now, &in_mode(Mode::SystemOnly)).unwrap();
    let boot = plan(&saved, &now, &in_mode(Mode::BootRepair)).unwrap();
    let table = plan(&saved, &without_table(&saved), &in_mode(Mode::TableRepair)).unwrap();
    let step = |of: &Plan, wanted: fn(&Step) -> bool| -> Step {
        of.steps.iter().find(|s| wanted(s)).unwrap().clone()
    };
    let clear_esp = Step::Clear {
        device: "/dev/vda2".into(),
    };
    for (to, bad) in [
        (&boot, clear_esp.clone()),
        (&boot, step(&system, |s| matches!(s, Step::MakeVfat { .. }))),
        (
            &boot,
            step(&table, |s| matches!(s, Step::RestoreTable { .. })),
        ),
        (
            &system,
            step(&table, |s| matches!(s, Step::RestoreTable { .. })),
        ),
        (&system, step(&boot, |s| matches!(s, Step::KeepVfat { .. }))),
        (
            &table,
            Step::BootCode {
                device: "/dev/vda".into(),
            },
        ),
        (
            &table,
            Step::Mount {
                device: "/dev/vda".into(),
                fstype: "ext4".into(),
                mount_point: "/".into(),
            },
        ),
    ] {
        let mut worse = to.clone();
        assert_eq!(worse.writes_outside(), None);
        worse.steps.push(bad.clone());
        assert!(worse.writes_outside().is_some(), "{}: {bad}", to.mode());
    }
    let mut worse = system.clone();
    worse.steps.push(Step::LuksErase {
        name: "elsewhere".into(),
    });
    assert!(worse.writes_outside().is_some());
}

#[test]
fn disks_of_guests_in_the_root_filesystem_are_told() {
    let told = |saved: &Layout| {
        let made = plan(saved, &machine(saved), &in_mode(Mode::SystemOnly)).unwrap();
        made.notes.iter().any(|n| n.contains("/var/lib/vz/images"))
    };
    let mut saved = pve();
    assert!(told(&saved));
    saved.boot.kernels = vec!["6.1.0-30-amd64".into()];
    assert!(!told(&saved));
}
