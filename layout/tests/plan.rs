//! The planner on the layout files of the storage floor: pure, therefore tested without a disk.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;

use std::path::{Path, PathBuf};

use build::{golden, machine, pve, saved};
use layout::inventory::InventoryDisk;
use layout::model::{Disk, GrubBios, GrubEfi, Layout, ModelError, Node, NodeId, Table};
use layout::plan::{Choices, DiskChoice, Grow, PlanError, Step, plan};
use layout::units::{Bytes, Lba, SectorSize};
use proptest::prelude::*;

fn disk(device: &str, serial: &str, mib: u64) -> InventoryDisk {
    InventoryDisk {
        model: Some("Test Disk".into()),
        serial: (!serial.is_empty()).then(|| serial.into()),
        transport: Some("ata".into()),
        contents: vec!["GPT, 3 partitions".into(), "LVM PV of VG pve".into()],
        vgs: vec!["pve".into()],
        ..build::blank(device, mib << 20)
    }
}

#[test]
fn plans_read_as_recorded() {
    let two = machine(vec![
        disk("/dev/nvme0n1", "NEW", 8192),
        disk("/dev/sda", "DATA", 2048),
    ]);
    let choices = Choices {
        never: vec!["/dev/sda".into()],
        ..Choices::default()
    };
    let text = plan(&pve(), &two, &choices).unwrap().render();
    golden("pve-both-loaders-bigger", &text);
    for (name, mib) in [
        ("pve-ext4-lvm-smaller", 1840),
        ("gpt-smaller", 1840),
        ("gpt-smaller", 865),
    ] {
        let layout = saved(name);
        let text = plan(
            &layout,
            &machine(vec![disk("/dev/vda", "", mib)]),
            &Choices::default(),
        )
        .unwrap()
        .render();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        golden(&format!("{name}-{mib}"), &text);
    }
    for name in [
        "pve-xfs-lvm",
        "gpt-ext4-xfs-swap",
        "gpt-gaps-and-names",
        "whole-disk-ext4",
    ] {
        let layout = saved(name);
        let size = layout.disks().next().unwrap().1.size.0 >> 20;
        let text = plan(
            &layout,
            &machine(vec![disk("/dev/vda", "", size)]),
            &Choices::default(),
        )
        .unwrap()
        .render();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        golden(name, &text);
    }
}

#[test]
fn too_small_gives_the_missing_bytes() {
    let onto = |size: Bytes| {
        let mut small = disk("/dev/sda", "", 0);
        small.size = size;
        plan(&pve(), &machine(vec![small]), &Choices::default())
    };
    // Up to the group 65 MiB, then its volumes without the free space: what they use is not known.
    // Swap gives up half.
    let needed = Bytes(Bytes::mib(65 + 1 + 402 * 4).0 + 33 * 512);
    let error = onto(Bytes::mib(1024)).unwrap_err();
    assert!(
        matches!(&error, PlanError::TooSmall { missing, needed: n, .. } if *n == needed && *missing == needed.minus(Bytes::GIB)),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("681591296 bytes (650 MiB) are missing: use a bigger disk"),
        "{error}"
    );
    // One sector less than needed is too little, too.
    onto(needed).unwrap();
    let error = onto(needed.minus(Bytes(512))).unwrap_err();
    assert!(
        matches!(
            error,
            PlanError::TooSmall {
                missing: Bytes(512),
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("are missing: leave out swap, or use a bigger disk"),
        "{error}"
    );
    let error = onto(Bytes::mib(1300)).unwrap_err().to_string();
    assert!(
        error.contains("leave out the thin pool of the guests, or"),
        "{error}"
    );
}

#[test]
fn a_table_that_cannot_be_written_is_refused_and_a_small_one_grows() {
    let with = |entries: u32, first: u64| {
        let mut layout = pve();
        for node in layout.nodes.values_mut() {
            if let Node::Disk(Disk {
                table: Some(Table::Gpt(t)),
                ..
            }) = node
            {
                t.entries = entries;
                t.first_usable = Lba(first);
            }
        }
        plan(
            &layout,
            &machine(vec![disk("/dev/sda", "", 4096)]),
            &Choices::default(),
        )
    };
    for entries in [1, 4, 56, 127, 128] {
        let plan = with(entries, 34).unwrap_or_else(|e| panic!("{entries}: {e}"));
        let Some(Step::WriteGpt { table, .. }) = plan
            .steps
            .iter()
            .find(|s| matches!(s, Step::WriteGpt { .. }))
        else {
            panic!("no table");
        };
        assert_eq!(table.entries, entries.max(128));
    }
    // The first partition starts before the table ends.
    let error = with(128, 1 << 20).unwrap_err();
    assert!(
        matches!(&error, PlanError::Unsupported { reason, .. } if reason.contains("cannot be made")),
        "{error}"
    );
}

#[test]
fn an_ambiguous_choice_names_the_candidates() {
    let disks = vec![disk("/dev/sda", "A", 4096), disk("/dev/sdb", "B", 4096)];
    let error = plan(&pve(), &machine(disks.clone()), &Choices::default()).unwrap_err();
    let PlanError::Ambiguous { candidates, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(candidates.len(), 2);
    assert!(error.to_string().contains("serial A") && error.to_string().contains("serial B"));

    let id = pve().disks().next().unwrap().0.clone();
    let choices = Choices {
        disks: [(id, DiskChoice::Serial("B".into()))].into(),
        ..Choices::default()
    };
    let plan = plan(&pve(), &machine(disks), &choices).unwrap();
    assert_eq!(plan.disks[0].device, Path::new("/dev/sdb"));
    assert_eq!(plan.fence[0].device, Path::new("/dev/sda"));
}

#[test]
fn the_same_disk_is_known_by_its_serial_whatever_its_name() {
    let disks = vec![
        disk("/dev/sda", "X", 4096),
        disk("/dev/sdb", "OLD-DISK-1", 3072),
    ];
    let mut disks = disks;
    disks[1].model = Some("OLD MODEL".into());
    let plan = plan(&pve(), &machine(disks), &Choices::default()).unwrap();
    assert_eq!(plan.disks[0].device, Path::new("/dev/sdb"));
    assert_eq!(plan.disks[0].why, "same serial number");
}

#[test]
fn a_number_that_two_saved_disks_share_identifies_neither() {
    // Cheap bridges give every disk the same number. The system's disk is gone, the one with the data is there.
    for wwn in [false, true] {
        let mut layout = pve();
        let (_, first) = layout.disks().next().unwrap();
        let mut first = first.clone();
        first.serial = Some("0123456789".into());
        first.wwn = wwn.then(|| "0x1234".into());
        let id = layout.disks().next().unwrap().0.clone();
        layout.nodes.insert(id, Node::Disk(first.clone()));
        first.table = None;
        layout.nodes.insert(NodeId::disk("data"), Node::Disk(first));
        let mut data = disk("/dev/sda", "0123456789", 4096);
        data.wwn = wwn.then(|| "0x1234".into());
        data.contents = vec!["ext4 'photos'".into()];
        let unattended = Choices {
            blank_only: true,
            ..Choices::default()
        };
        for choices in [Choices::default(), unattended] {
            let error = plan(&layout, &machine(vec![data.clone()]), &choices).unwrap_err();
            assert!(matches!(error, PlanError::NoDiskFor { .. }), "{error}");
            let mut blank = disk("/dev/sdb", "NEW", 4096);
            blank.contents.clear();
            let both = machine(vec![data.clone(), blank]);
            let plan = plan(&layout, &both, &choices).unwrap();
            assert_eq!(plan.disks[0].device, Path::new("/dev/sdb"));
        }
    }
}

#[test]
fn disks_that_must_not_be_written_to_are_passed_over() {
    for spoil in [
        (|d| d.read_only = true) as fn(&mut InventoryDisk),
        |d| d.in_use = true,
        |d| d.removable = true,
        |d| d.sector_size = SectorSize(520),
    ] {
        let mut bad = disk("/dev/sda", "A", 4096);
        spoil(&mut bad);
        let plan = plan(
            &pve(),
            &machine(vec![bad, disk("/dev/sdb", "B", 4096)]),
            &Choices::default(),
        )
        .unwrap();
        assert_eq!(plan.disks[0].device, Path::new("/dev/sdb"));
    }
    let choices = Choices {
        never: vec!["/dev/sda".into()],
        ..Choices::default()
    };
    let only = machine(vec![disk("/dev/sda", "A", 4096)]);
    assert!(matches!(
        plan(&pve(), &only, &choices).unwrap_err(),
        PlanError::NoDiskFor { .. }
    ));
    let mut other = disk("/dev/sda", "A", 4096);
    other.sector_size = SectorSize::S4096;
    let small_blocks = saved("gpt-gaps-and-names");
    assert!(matches!(
        plan(&small_blocks, &machine(vec![other]), &Choices::default()).unwrap_err(),
        PlanError::SectorSize { .. }
    ));
}

#[test]
fn without_anybody_to_ask_a_disk_that_is_not_blank_is_not_guessed() {
    let choices = Choices {
        blank_only: true,
        ..Choices::default()
    };
    let mut blank = disk("/dev/sda", "A", 4096);
    blank.contents.clear();
    let mut full = disk("/dev/sdb", "B", 4096);
    full.contents = vec!["ext4 'photos'".into()];

    let alone = machine(vec![full.clone()]);
    let error = plan(&pve(), &alone, &choices).unwrap_err().to_string();
    assert!(error.contains("not blank (ext4 'photos')"), "{error}");

    let both = machine(vec![full, blank]);
    let chosen = plan(&pve(), &both, &choices).unwrap();
    assert_eq!(chosen.disks[0].device, Path::new("/dev/sda"));

    let named = Choices {
        disks: [(
            chosen.disks[0].saved.clone(),
            DiskChoice::Serial("B".into()),
        )]
        .into(),
        ..choices
    };
    let chosen = plan(&pve(), &both, &named).unwrap();
    assert_eq!(chosen.disks[0].device, Path::new("/dev/sdb"));
}

#[test]
fn growth_follows_the_choice() {
    let bigger = machine(vec![disk("/dev/sda", "", 4096)]);
    let root = |grow| {
        let plan = plan(
            &pve(),
            &bigger,
            &Choices {
                grow,
                ..Choices::default()
            },
        )
        .unwrap();
        plan.steps.iter().find_map(|s| match s {
            Step::LvCreate { name, size, .. } if name == "root" => Some(*size),
            _ => None,
        })
    };
    assert_eq!(root(Grow::Nothing), Some(Bytes::mib(1024)));
    assert_eq!(root(Grow::Root), Some(Bytes::mib(2048)));
}

#[test]
fn a_circle_and_a_dangling_edge_are_errors() {
    let mut layout = pve();
    if let Some(Node::LogicalVolume(lv)) = layout.nodes.get_mut(&NodeId::lv("pve", "root")) {
        lv.on = NodeId::vg("pve");
    }
    if let Some(Node::VolumeGroup(vg)) = layout.nodes.get_mut(&NodeId::vg("pve")) {
        vg.on.push(NodeId::lv("pve", "root"));
    }
    let error = plan(
        &layout,
        &machine(vec![disk("/dev/sda", "", 4096)]),
        &Choices::default(),
    )
    .unwrap_err();
    assert!(
        matches!(&error, PlanError::Cycle { nodes } if nodes.contains(&NodeId::vg("pve"))),
        "{error:?}"
    );

    let mut layout = pve();
    layout.nodes.remove(&NodeId::vg("pve"));
    let error = Layout::from_json(&layout.to_json().unwrap()).unwrap_err();
    assert!(matches!(error, ModelError::Dangling { .. }), "{error}");
}

#[test]
fn documents_come_back_as_written_and_others_are_refused() {
    let layout = pve();
    let text = layout.to_json().unwrap();
    assert_eq!(Layout::from_json(&text).unwrap(), layout);
    let newer = text.replace("\"format_version\": 1", "\"format_version\": 2");
    assert!(matches!(
        Layout::from_json(&newer).unwrap_err(),
        ModelError::Version { found: 2, .. }
    ));
    for field in [
        "\"firmware\"",
        "\"sector_size\"",
        "\"pe_start\"",
        "\"secure_boot\"",
    ] {
        let unknown = text.replacen(field, &format!("\"surprise\": 1, {field}"), 1);
        assert!(
            matches!(
                Layout::from_json(&unknown).unwrap_err(),
                ModelError::Json(_)
            ),
            "{field}"
        );
    }
    let plan = plan(
        &layout,
        &machine(vec![disk("/dev/sda", "", 4096)]),
        &Choices::default(),
    )
    .unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(
        serde_json::from_str::<layout::plan::Plan>(&text).unwrap(),
        plan
    );
}

proptest! {
    /// Whatever disks there are, a plan writes to assigned ones only, and all others are fenced.
    #[test]
    fn nothing_outside_of_the_assigned_disks_is_written_to(
        sizes in proptest::collection::vec((0u64..6000, any::<bool>(), any::<bool>(), any::<bool>()), 0..5),
        never in 0usize..5,
        case in 0usize..4,
    ) {
        let layout = [pve, || saved("pve-xfs-lvm"), || saved("gpt-gaps-and-names"), || saved("whole-disk-ext4")][case]();
        let disks: Vec<InventoryDisk> = sizes.iter().enumerate().map(|(i, (mib, ro, used, old))| {
            let mut disk = disk(&format!("/dev/sd{}", (b'a' + i as u8) as char), if *old { "OLD-DISK-1" } else { "" }, *mib);
            disk.read_only = *ro;
            disk.in_use = *used;
            disk
        }).collect();
        let never: Vec<PathBuf> = disks.get(never).map(|d| d.device.clone()).into_iter().collect();
        let choices = Choices { never: never.clone(), ..Choices::default() };
        if let Ok(plan) = plan(&layout, &machine(disks.clone()), &choices) {
            prop_assert_eq!(plan.writes_outside(), None);
            prop_assert_eq!(plan.fence.len() + plan.disks.len(), disks.len());
            for assigned in &plan.disks {
                let disk = disks.iter().find(|d| d.device == assigned.device).unwrap();
                prop_assert!(!disk.read_only && !disk.in_use && !never.contains(&disk.device));
            }
            // The check itself sees a step that strays.
            let mut bad = plan.clone();
            bad.steps.push(Step::Wipe { device: "/dev/elsewhere".into(), size: Bytes(0) });
            prop_assert!(bad.writes_outside().is_some());
            bad = plan.clone();
            bad.steps.swap(0, 1);
            prop_assert!(bad.writes_outside().is_some());
        }
    }
}

/// As many disks as the layout has, each the saved one.
fn same_disks(layout: &Layout) -> Vec<InventoryDisk> {
    let disks = layout.disks().enumerate();
    disks
        .map(|(n, (_, saved))| {
            let letter = (b'a' + n as u8) as char;
            let mut disk = disk(&format!("/dev/vd{letter}"), "", saved.size.0 >> 20);
            disk.serial.clone_from(&saved.serial);
            disk.model.clone_from(&saved.model);
            disk.contents.clear();
            disk
        })
        .collect()
}

#[test]
fn stacks_are_taken_down_in_reverse() {
    for name in [
        "md1-boot-efi-root",
        "md1-lvm",
        "luks2-lvm",
        "luks-on-md-and-lv",
    ] {
        let layout = saved(name);
        let inventory = machine(same_disks(&layout));
        let plan = plan(&layout, &inventory, &Choices::default()).unwrap();
        let text = plan.render();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        golden(name, &text);
        for (index, step) in plan.steps.iter().enumerate() {
            // The key is tried before the first disk is erased.
            if matches!(step, Step::LuksKey { .. }) {
                assert!(
                    !plan.steps[..index]
                        .iter()
                        .any(|s| matches!(s, Step::Wipe { .. }))
                );
            }
        }
    }
}

#[test]
fn an_array_needs_all_of_its_disks() {
    let layout = saved("md1-boot-efi-root");
    let mut disks = same_disks(&layout);
    let lost = disks.pop().unwrap();
    let error = plan(&layout, &machine(disks), &Choices::default()).unwrap_err();
    let (id, _) = layout
        .disks()
        .find(|(_, d)| d.serial == lost.serial)
        .unwrap();
    assert!(
        matches!(&error, PlanError::NoDiskFor { disk, .. } if disk == id),
        "{error}"
    );
}

#[test]
fn every_disk_of_a_mirror_boots() {
    let mut layout = saved("md1-boot-efi-root");
    let disks: Vec<NodeId> = layout.disks().map(|(id, _)| id.clone()).collect();
    layout.boot.grub_bios = disks
        .iter()
        .map(|disk| GrubBios { disk: disk.clone() })
        .collect();
    let esp = layout
        .mount_at(Path::new("/boot/efi"))
        .unwrap()
        .node
        .clone();
    layout.boot.grub_efi = vec![GrubEfi {
        esp,
        bootloader_id: "debian".into(),
        shim: true,
        fallback: true,
    }];
    let plan = plan(&layout, &machine(same_disks(&layout)), &Choices::default()).unwrap();
    let mut bios = Vec::new();
    let mut entries = Vec::new();
    for step in &plan.steps {
        match step {
            Step::GrubBios { device, modules } => {
                assert!(modules.contains(&"mdraid1x".to_owned()), "{modules:?}");
                bios.push(device.clone());
            }
            Step::EfiBootEntry { device, .. } => entries.push(device.clone()),
            _ => {}
        }
    }
    let both = [PathBuf::from("/dev/vda"), PathBuf::from("/dev/vdb")];
    assert_eq!(
        (bios.as_slice(), entries.as_slice()),
        (&both[..], &both[..])
    );
}

fn arrays(layout: &mut Layout, change: impl Fn(&mut layout::model::RaidArray)) {
    for node in layout.nodes.values_mut() {
        if let Node::RaidArray(array) = node {
            change(array);
        }
    }
}

#[test]
fn arrays_that_no_capture_made_are_refused() {
    let refused = |change: &dyn Fn(&mut layout::model::RaidArray)| {
        let mut layout = saved("md1-lvm");
        arrays(&mut layout, change);
        let inventory = machine(same_disks(&layout));
        plan(&layout, &inventory, &Choices::default())
            .unwrap_err()
            .to_string()
    };
    for (error, words) in [
        (refused(&|a| a.name = "floor:--run".into()), "name"),
        (refused(&|a| a.name = "a b".into()), "name"),
        (refused(&|a| a.uuid = "--run".into()), "UUID"),
        (refused(&|a| a.level = "linear".into()), "level"),
        (refused(&|a| a.metadata = "0.90".into()), "metadata"),
        (refused(&|a| a.layout = Some("-x".into())), "layout"),
        (refused(&|a| a.raid_devices = u32::MAX), "members"),
        (refused(&|a| a.raid_devices = 1), "members"),
        (
            refused(&|a| a.component_size = Bytes(u64::MAX)),
            "bigger disk",
        ),
        (refused(&|a| a.members[1].slot = Some(0)), "members"),
        (
            refused(&|a| {
                a.members.remove(0);
                a.level = "raid0".into();
            }),
            "cannot run",
        ),
        (
            refused(&|a| {
                let on = a.members[0].on.clone();
                a.members[1].on = on;
            }),
            "member of two arrays",
        ),
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_degraded_array_is_made_degraded_and_that_is_said() {
    let layout = saved("md-degraded-and-spare");
    let plan = plan(&layout, &machine(same_disks(&layout)), &Choices::default()).unwrap();
    assert!(
        plan.notes
            .iter()
            .any(|n| n.contains("with 1 of its 2 members")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn disks_that_are_alike_take_each_others_places() {
    let layout = saved("md1-boot-efi-root");
    let mut disks = same_disks(&layout);
    for disk in &mut disks {
        disk.serial = Some(format!("NEW-{}", disk.device.display()));
    }
    let assigned =
        |disks: &[InventoryDisk]| plan(&layout, &machine(disks.to_vec()), &Choices::default());
    let plan = assigned(&disks).unwrap();
    assert_eq!(plan.disks.len(), 2);
    assert_ne!(plan.disks[0].device, plan.disks[1].device);
    // A third one that would do as well: which two are to be erased?
    let mut third = disks[0].clone();
    third.device = "/dev/vdc".into();
    third.serial = Some("NEW-C".into());
    let mut three = disks.clone();
    three.push(third);
    assert!(matches!(
        assigned(&three).unwrap_err(),
        PlanError::Ambiguous { .. }
    ));
    // Of different kinds, it matters which is which.
    disks[1].transport = Some("nvme".into());
    assert!(matches!(
        assigned(&disks).unwrap_err(),
        PlanError::Ambiguous { .. }
    ));
}

#[test]
fn containers_grow_with_their_partition_and_lead_nowhere_else() {
    let layout = saved("luks2-lvm");
    let mut disks = same_disks(&layout);
    disks[0].size = disks[0].size.plus(Bytes::mib(400));
    disks[0].serial = None;
    let bigger = machine(disks);
    let plan_of = |layout: &Layout| plan(layout, &bigger, &Choices::default());
    let grown = plan_of(&layout).unwrap();
    let root = grown.steps.iter().find_map(|s| match s {
        Step::LvCreate { name, size, .. } if name == "root" => Some(*size),
        _ => None,
    });
    assert_eq!(root, Some(Bytes::mib(1040)));
    for name in ["../sda", "control", "-x", ""] {
        let mut forged = layout.clone();
        for node in forged.nodes.values_mut() {
            if let Node::Luks(luks) = node {
                luks.name = name.into();
            }
        }
        let error = plan_of(&forged).unwrap_err().to_string();
        assert!(error.contains("forged"), "{error}");
    }
    let mut damaged = layout.clone();
    for node in damaged.nodes.values_mut() {
        if let Node::Luks(luks) = node {
            luks.data_offset = Bytes(u64::MAX);
        }
    }
    plan_of(&damaged).unwrap_err();
}
