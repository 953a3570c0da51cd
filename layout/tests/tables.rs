//! The planner on MBR disks, btrfs, swap files, and disks with other sectors.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;

use std::path::PathBuf;

use build::saved;
use layout::inventory::InventoryDisk;
use layout::model::{Firmware, GrubBios, Layout, MbrTable, Node, Table};
use layout::plan::{Choices, DiskChoice, Plan, PlanError, PlannedPartition, Step, plan};
use layout::units::{Bytes, Lba, SectorSize};

fn disk(device: &str, serial: &str, size: Bytes) -> InventoryDisk {
    InventoryDisk {
        serial: Some(serial.into()),
        ..build::blank(device, size.0)
    }
}

/// Plans on disks that are named for the saved ones, in their order.
fn on(layout: &Layout, sizes: &[Bytes]) -> Result<Plan, PlanError> {
    on_sectors(layout, sizes, SectorSize::S512)
}

fn on_sectors(layout: &Layout, sizes: &[Bytes], sector: SectorSize) -> Result<Plan, PlanError> {
    let disks = sizes.iter().enumerate().map(|(n, size)| InventoryDisk {
        sector_size: sector,
        ..disk(
            &format!("/dev/sd{}", (b'a' + n as u8) as char),
            &format!("OLD-DISK-{}", n + 1),
            *size,
        )
    });
    let machine = build::started(Firmware::Bios, disks.collect());
    let named = layout.disks().zip(&machine.disks);
    let choices = Choices {
        disks: named
            .map(|((id, _), disk)| (id.clone(), DiskChoice::Device(disk.device.clone())))
            .collect(),
        ..Choices::default()
    };
    plan(layout, &machine, &choices)
}

fn mbr(plan: &Plan) -> (&MbrTable, &[PlannedPartition]) {
    plan.steps
        .iter()
        .find_map(|step| match step {
            Step::WriteMbr {
                table, partitions, ..
            } => Some((table, partitions.as_slice())),
            _ => None,
        })
        .unwrap()
}

fn ends(plan: &Plan) -> Vec<(u32, u64)> {
    mbr(plan).1.iter().map(|p| (p.number, p.end.0)).collect()
}

#[test]
fn the_last_logical_partition_grows_with_the_extended_one_around_it() {
    let layout = saved("mbr-lvm");
    assert_eq!(
        ends(&on(&layout, &[Bytes::mib(2048)]).unwrap())[1..],
        [(2, 4_194_303), (5, 4_194_303)]
    );
    let plan = on(&layout, &[Bytes::mib(3072)]).unwrap();
    assert_eq!(ends(&plan)[1..], [(2, 6_291_455), (5, 6_291_455)]);
    assert!(plan.sizes.iter().any(|s| s.what.contains("debian-vg/root")));
    assert_eq!(mbr(&plan).0.signature, "5e0f5a22");
}

#[test]
fn an_mbr_ends_where_its_numbers_end() {
    let plan = on(&saved("mbr-lvm"), &[Bytes(3 << 40)]).unwrap();
    let (_, end) = ends(&plan)[2];
    assert!(end < 1 << 32 && end > (1 << 32) - 5000, "{end}");
    assert!(
        plan.notes.iter().any(|n| n.contains("bigger than its MBR")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn an_mbr_disk_that_is_too_small_is_refused_with_the_missing_bytes() {
    let saved = saved("mbr-lvm");
    let size = Bytes::mib(600);
    let Err(PlanError::TooSmall { missing, .. }) = on(&saved, &[size]) else {
        panic!("600 MiB are too small");
    };
    let least = size.plus(missing);
    assert!(least < Bytes::mib(2048), "free space is given up: {least}");
    assert!(on(&saved, &[Bytes(least.0 - 512)]).is_err());
    let plan = on(&saved, &[least]).unwrap();
    let ends = ends(&plan);
    assert_eq!(
        ends[1].1, ends[2].1,
        "the extended partition ends with the logical one"
    );
    assert_eq!(
        Lba(ends[2].1 + 1).offset(SectorSize::S512),
        least,
        "nothing is left over"
    );
    assert_eq!(ends[0], (1, 411_647), "the first partition stays");
}

#[test]
fn grub_gets_the_module_of_the_table_and_a_narrow_gap_is_told() {
    let mut layout = saved("mbr-cylinders");
    let id = layout.disks().next().unwrap().0.clone();
    layout.boot.grub_bios = vec![GrubBios { disk: id.clone() }];
    let plan_of = |layout: &Layout| on(layout, &[Bytes::mib(1024)]).unwrap();
    let plan = plan_of(&layout);
    assert!(plan.steps.iter().any(
        |s| matches!(s, Step::GrubBios { modules, .. } if modules[..] == ["part_msdos", "ext2"])
    ));
    assert!(!plan.notes.iter().any(|n| n.contains("GRUB does not fit")));
    for node in layout.nodes.values_mut() {
        match node {
            Node::Partition(part) if part.number == 1 => part.start = Lba(32),
            _ => {}
        }
    }
    assert!(
        plan_of(&layout)
            .notes
            .iter()
            .any(|n| n.contains("GRUB does not fit"))
    );
}

#[test]
fn a_forged_mbr_is_not_planned() {
    let with = |change: &dyn Fn(&mut MbrTable)| {
        let mut layout = saved("mbr-logical");
        for node in layout.nodes.values_mut() {
            if let Node::Disk(disk) = node {
                let Some(Table::Mbr(table)) = &mut disk.table else {
                    panic!()
                };
                change(table);
            }
        }
        on(&layout, &[Bytes::mib(1024)])
    };
    assert!(with(&|_| {}).is_ok());
    for error in [
        with(&|t| t.signature = "x".into()),
        with(&|t| t.records.clear()),
        with(&|t| t.records[1] = t.records[0]),
        with(&|t| t.records[2] = Lba(u64::MAX)),
    ] {
        let error = error.unwrap_err();
        assert!(
            error.to_string().contains("cannot be made again"),
            "{error}"
        );
    }
    let mut plan = with(&|_| {}).unwrap();
    for step in &mut plan.steps {
        if let Step::WriteMbr { partitions, .. } = step {
            partitions[0].device = "/dev/sdz1".into();
        }
    }
    assert!(plan.writes_outside().unwrap().contains("/dev/sdz1"));
}

fn position(plan: &Plan, what: &str) -> usize {
    let found = plan.steps.iter().position(|s| s.to_string().contains(what));
    found.unwrap_or_else(|| panic!("{what} is not in {}", plan.render()))
}

#[test]
fn subvolumes_are_made_mounted_filled_and_sealed_in_this_order() {
    let plan = on(&saved("btrfs-subvolumes"), &[Bytes::mib(1024)]).unwrap();
    let order = [
        "Make btrfs filesystem",
        "Make subvolumes @archive, @home, @rootfs, @rootfs/srv, @rootfs/var/lib/machines on",
        "Mount subvolume /@rootfs of",
        "Restore the files of /",
        "Mount subvolume /@rootfs/srv of /dev/sda2 as /srv",
        "Mount subvolume /@archive of",
        "Make swap file /home/swap file",
        "Replace numbers of subvolumes",
        "Make the subvolumes at /srv/archive read-only",
        "Unmount everything",
    ];
    let places: Vec<usize> = order.iter().map(|what| position(&plan, what)).collect();
    assert!(places.is_sorted(), "{places:?}\n{}", plan.render());
    for what in [
        "Snapshots of btrfs",
        "@rootfs/.snapshots/1",
        "images/100/vm-100-disk-0",
    ] {
        assert!(
            plan.notes.iter().any(|n| n.contains(what)),
            "{what}: {:?}",
            plan.notes
        );
    }
    let compressed = plan.steps.iter().any(
        |s| matches!(s, Step::MountSubvolume { options, .. } if options[..] == ["compress=zstd:3"]),
    );
    assert!(compressed);
    for tool in ["btrfs", "mkfs.btrfs", "chattr", "mkswap"] {
        assert!(plan.tools.iter().any(|t| t == tool), "{:?}", plan.tools);
    }
}

#[test]
fn a_filesystem_over_several_disks_needs_all_of_them() {
    let layout = saved("btrfs-raid1");
    let plan = on(&layout, &[Bytes::mib(1024), Bytes::mib(1024)]).unwrap();
    position(&plan, "on /dev/sda3, /dev/sdb3");
    assert!(on(&layout, &[Bytes::mib(1024)]).is_err());
    let mut alone = layout.clone();
    for node in alone.nodes.values_mut() {
        if let Node::Btrfs(fs) = node {
            fs.on.truncate(1);
            fs.sizes.truncate(1);
        }
    }
    let error = on(&alone, &[Bytes::mib(1024), Bytes::mib(1024)]).unwrap_err();
    assert!(
        error.to_string().contains("raid1 needs 2 devices"),
        "{error}"
    );
}

#[test]
fn forged_subvolumes_are_not_planned() {
    for name in ["../outside", "/etc", "a/../../b", "a,device=/dev/sdb", ""] {
        let mut layout = saved("btrfs-subvolumes");
        for node in layout.nodes.values_mut() {
            if let Node::Btrfs(fs) = node {
                let one = fs.subvolumes["@home"].clone();
                fs.subvolumes.insert(name.to_owned(), one);
            }
        }
        let error = on(&layout, &[Bytes::mib(1024)]).unwrap_err();
        assert!(
            error.to_string().contains("leads elsewhere"),
            "{name}: {error}"
        );
    }
    let mut layout = saved("btrfs-subvolumes");
    layout.mounts[0]
        .options
        .push("compress=zstd,device=/dev/sdb".to_owned());
    assert!(on(&layout, &[Bytes::mib(1024)]).is_err());
    let mut layout = saved("swap-files");
    for node in layout.nodes.values_mut() {
        if let Node::SwapFile(swap) = node {
            swap.path = PathBuf::from("/../dev/sdb");
        }
    }
    assert!(on(&layout, &[Bytes::mib(1024)]).is_err());
}

#[test]
fn other_sectors_keep_the_places_of_partitions() {
    let layout = saved("pve-ext4-lvm");
    for (size, grows) in [(3072, false), (4096, true)] {
        let plan = on_sectors(&layout, &[Bytes::mib(size)], SectorSize::S4096).unwrap();
        let Some(Step::WriteGpt {
            table,
            partitions,
            sector_size,
            ..
        }) = plan
            .steps
            .iter()
            .find(|s| matches!(s, Step::WriteGpt { .. }))
        else {
            panic!("no table");
        };
        assert_eq!(*sector_size, SectorSize::S4096);
        assert_eq!(table.first_usable, Lba(6));
        let starts: Vec<u64> = partitions.iter().map(|p| p.start.0).collect();
        // GRUB's own partition gives way; the others start at the same byte.
        assert_eq!(starts, [6, 256, 16640]);
        assert_eq!(partitions[1].end, Lba(16639));
        assert_eq!(
            plan.sizes.iter().any(|s| s.what.contains("root")),
            grows,
            "{:?}",
            plan.sizes
        );
        let accepted = |node: &str, what: &str| {
            plan.substitutions
                .iter()
                .any(|s| s.node.as_str() == node && s.what == what)
        };
        assert!(accepted(
            "part:00000001-0000-4000-8000-000000000003",
            "start"
        ));
        assert!(accepted("fs:5A1B-0001", "cluster_size"));
    }
}

#[test]
fn what_cannot_live_on_bigger_sectors_is_named() {
    for (name, size, what) in [
        ("gpt-gaps-and-names", 1024, "blocks of 1 KiB"),
        ("mbr-logical", 1024, "blocks of 1 KiB"),
        ("mbr-cylinders", 1024, "within a sector"),
    ] {
        let error = on_sectors(&saved(name), &[Bytes::mib(size)], SectorSize::S4096).unwrap_err();
        assert!(
            matches!(error, PlanError::SectorSize { .. }),
            "{name}: {error}"
        );
        assert!(
            error.to_string().contains(what) || name == "mbr-logical",
            "{name}: {error}"
        );
    }
    let mut odd = saved("pve-ext4-lvm");
    for node in odd.nodes.values_mut() {
        if let Node::Disk(disk) = node {
            disk.sector_size = SectorSize(520);
        }
    }
    let error = on_sectors(&odd, &[Bytes::mib(4096)], SectorSize::S4096).unwrap_err();
    assert!(error.to_string().contains("512 and 4096"), "{error}");
    // The last partition becomes smaller by what the bigger table takes, and the volume needs it.
    let mut full = saved("pve-ext4-lvm");
    for node in full.nodes.values_mut() {
        if let Node::PhysicalVolume(pv) = node {
            pv.size = Bytes((6_291_422 - 133_120 + 1) * 512 - pv.pe_start.0);
        }
    }
    let error = on_sectors(&full, &[Bytes::mib(3072)], SectorSize::S4096).unwrap_err();
    assert!(
        error.to_string().contains("partition 3 becomes smaller"),
        "{error}"
    );
}

#[test]
fn bigger_sectors_become_smaller_ones() {
    let layout = saved("pve-ext4-lvm");
    let there = on_sectors(&layout, &[Bytes::mib(3072)], SectorSize::S4096).unwrap();
    // The layout as it would be captured on the disk with bigger sectors.
    let mut big = layout.clone();
    for step in &there.steps {
        if let Step::WriteGpt {
            table, partitions, ..
        } = step
        {
            for node in big.nodes.values_mut() {
                match node {
                    Node::Disk(disk) => {
                        disk.sector_size = SectorSize::S4096;
                        disk.table = Some(Table::Gpt(table.clone()));
                    }
                    Node::Partition(part) => {
                        let planned = partitions
                            .iter()
                            .find(|p| p.partuuid == part.partuuid)
                            .unwrap();
                        (part.start, part.end, part.sector_size) =
                            (planned.start, planned.end, SectorSize::S4096);
                    }
                    _ => {}
                }
            }
        }
    }
    let back = on(&big, &[Bytes::mib(3072)]).unwrap();
    let starts = back.steps.iter().find_map(|s| match s {
        Step::WriteGpt { partitions, .. } => {
            Some(partitions.iter().map(|p| p.start.0).collect::<Vec<_>>())
        }
        _ => None,
    });
    assert_eq!(starts.unwrap(), [48, 2048, 133_120]);
}
