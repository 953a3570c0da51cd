//! Sizes on disks that are smaller or bigger than the saved ones: random layouts, and each rule by itself.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;

use std::collections::BTreeMap;

use build::{Content, Host, Volume, blank, machine};
use layout::inventory::InventoryDisk;
use layout::model::{Layout, Node, NodeId};
use layout::plan::{Choices, Grow, LeaveOut, Plan, PlanError, PlannedPartition, Step, plan};
use layout::units::{Bytes, Lba};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn onto(layout: &Layout, size: u64, choices: &Choices) -> Result<Plan, PlanError> {
    plan(layout, &machine(vec![blank("/dev/vda", size)]), choices)
}

fn too_small(result: &Result<Plan, PlanError>) -> Option<(u64, Vec<LeaveOut>)> {
    match result {
        Err(PlanError::TooSmall {
            missing, without, ..
        }) => Some((missing.0, without.clone())),
        _ => None,
    }
}

fn partitions(plan: &Plan) -> &[PlannedPartition] {
    let table = plan.steps.iter().find_map(|s| match s {
        Step::WriteGpt { partitions, .. } => Some(partitions.as_slice()),
        _ => None,
    });
    table.unwrap_or(&[])
}

/// Volumes and data of pools by name.
fn volumes(plan: &Plan) -> BTreeMap<&str, u64> {
    let volumes = plan.steps.iter().filter_map(|s| match s {
        Step::LvCreate { name, size, .. } | Step::ThinPoolCreate { name, size, .. } => {
            Some((name.as_str(), size.0))
        }
        _ => None,
    });
    volumes.collect()
}

fn length(part: &PlannedPartition) -> u64 {
    (part.end.0 + 1 - part.start.0) * 512
}

/// Sizes of devices by their node, as planned.
fn devices(layout: &Layout, plan: &Plan) -> BTreeMap<NodeId, u64> {
    let mut sizes = BTreeMap::new();
    for part in partitions(plan) {
        sizes.insert(part.node.clone(), length(part));
    }
    for (name, size) in volumes(plan) {
        sizes.insert(NodeId::lv("vg", name), size);
    }
    for (id, disk) in layout.disks() {
        if disk.table.is_none() {
            sizes.insert(id.clone(), plan.disks[0].identity.size.0);
        }
    }
    sizes
}

fn metadata(plan: &Plan, pool: &str) -> u64 {
    let found = plan.steps.iter().find_map(|s| match s {
        Step::ThinPoolCreate {
            name,
            metadata_size,
            ..
        } if name == pool => Some(metadata_size.0),
        _ => None,
    });
    found.unwrap()
}

/// What must be true of every plan.
fn check(layout: &Layout, plan: &Plan) -> Result<(), TestCaseError> {
    let last_usable = plan.disks[0].identity.size.0 / 512 - 34;
    let mut placed: Vec<_> = partitions(plan).iter().collect();
    placed.sort_by_key(|p| p.start);
    for pair in placed.windows(2) {
        prop_assert!(
            pair[0].end < pair[1].start,
            "{} overlaps {}",
            pair[0].node,
            pair[1].node
        );
    }
    for part in &placed {
        let Some(Node::Partition(saved)) = layout.nodes.get(&part.node) else {
            panic!("{} is not saved", part.node)
        };
        prop_assert!(part.start >= Lba(34) && part.start <= part.end);
        prop_assert!(
            part.end.0 <= last_usable,
            "{} ends behind the disk",
            part.node
        );
        prop_assert!(part.start == saved.start || part.start.0 % 2048 == 0);
        prop_assert_eq!(
            (part.number, &part.partuuid),
            (saved.number, &saved.partuuid)
        );
    }
    let devices = devices(layout, plan);
    for step in &plan.steps {
        let (id, size) = match step {
            Step::MakeExt4 { fs, fill, .. } => {
                let Some(Node::Ext4(saved)) = layout.nodes.get(&NodeId::fs(&fs.uuid)) else {
                    panic!("not saved")
                };
                prop_assert!(*fill || fs.inodes >= saved.inodes_used.unwrap_or(saved.inodes));
                prop_assert!(
                    u128::from(fs.inodes) * u128::from(fs.inode_size.0) < u128::from(fs.size.0)
                );
                (NodeId::fs(&fs.uuid), fs.size.0)
            }
            Step::MakeXfs { fs, .. } => (NodeId::fs(&fs.uuid), fs.size.0),
            Step::MakeVfat { fs, .. } => (NodeId::fs(&fs.uuid), fs.size.0),
            _ => continue,
        };
        let saved = layout.nodes[&id].filesystem().unwrap();
        prop_assert!(size <= saved.size.0, "{} is bigger than saved", id);
        prop_assert!(size <= devices[saved.on], "{} does not fit its device", id);
        match saved.used {
            Some(used) if size < saved.size.0 => prop_assert!(size >= used.0 + used.0 / 10),
            _ => prop_assert_eq!(size, saved.size.0, "{} has unknown use and shrinks", id),
        }
    }
    for (id, node) in &layout.nodes {
        let (Some(now), Node::Partition(_) | Node::LogicalVolume(_)) = (devices.get(id), node)
        else {
            continue;
        };
        // Images, empty volumes and boot partitions keep their size.
        if layout.children(id).next().is_none() {
            let saved = match node {
                Node::Partition(part) => part.size().0,
                Node::LogicalVolume(lv) => lv.size.0,
                _ => unreachable!(),
            };
            prop_assert_eq!(*now, saved, "{}", id);
        }
    }
    for (id, node) in &layout.nodes {
        let Node::VolumeGroup(vg) = node else {
            continue;
        };
        let Some(Node::PhysicalVolume(pv)) = layout.nodes.get(&vg.on[0]) else {
            panic!("no physical volume")
        };
        let extent = vg.extent_size.0;
        let room = (devices[&pv.on] - pv.pe_start.0) / extent;
        let (mut need, mut spare) = (0, 0);
        for (volume, node) in layout.children(id) {
            let made = devices.get(volume).copied();
            match node {
                // Its guest comes back and finds its room.
                Node::LogicalVolume(lv) if made.is_none() && lv.name.starts_with("vm-") => {
                    need += lv.size.0 / extent
                }
                Node::LogicalVolume(_) => need += made.unwrap_or(0).div_ceil(extent),
                Node::ThinPool(pool) => {
                    if let Some(size) = made {
                        prop_assert!(size >= pool.used.map_or(pool.size.0, |used| used.0));
                        let metadata = metadata(plan, &pool.name).div_ceil(extent);
                        need += size.div_ceil(extent) + metadata;
                        // One reserve for all pools.
                        spare = spare.max(metadata);
                    }
                }
                _ => {}
            }
        }
        prop_assert!(
            need + spare <= room,
            "{} and {} extents of {}",
            need,
            spare,
            room
        );
    }
    Ok(())
}

fn used(size: u64) -> impl Strategy<Value = Option<u64>> {
    prop_oneof![1 => Just(None), 4 => (0..=size).prop_map(Some)]
}

fn content() -> impl Strategy<Value = Content> {
    let fs = |most: u64| (1..most).prop_flat_map(|mib| (Just(mib), used(mib)));
    prop_oneof![
        3 => fs(3000).prop_map(|(mib, used)| Content::Ext4 { mib: mib + 64, used }),
        2 => fs(3000).prop_map(|(mib, used)| Content::Xfs { mib: mib + 300, used }),
        1 => fs(1000).prop_map(|(mib, used)| Content::Esp { mib: mib + 40, used }),
        1 => (1..4000u64).prop_map(|mib| Content::Swap { mib }),
        1 => (1..500u64).prop_map(|mib| Content::Image { mib }),
        1 => Just(Content::BiosBoot),
    ]
}

fn volume() -> impl Strategy<Value = Volume> {
    let fs = || (17..700u64).prop_flat_map(|n| (Just(4 * n), used(4 * n)));
    prop_oneof![
        3 => fs().prop_map(|(mib, used)| Volume::Ext4 { mib, used }),
        2 => (1..500u64).prop_map(|n| Volume::Swap { mib: 4 * n }),
        3 => fs().prop_map(|(mib, used)| Volume::Pool { mib, used }),
        1 => (1..100u64).prop_map(|n| Volume::Guest { mib: 4 * n }),
        1 => (1..100u64).prop_map(|n| Volume::Empty { mib: 4 * n }),
    ]
}

fn host() -> impl Strategy<Value = Host> {
    let parts = proptest::collection::vec((content(), 0..300u64, 0..4096u64), 0..5);
    let group = proptest::option::of((proptest::collection::vec(volume(), 1..5), 0..300u64));
    let behind = 0..500u64;
    (parts, group, behind, any::<prop::sample::Index>()).prop_map(|(parts, group, behind, root)| {
        let mut host = Host::new();
        for (content, gap, crooked) in parts {
            // Old tables are not aligned.
            host.gap_sectors(gap * 2048 + crooked % 3);
            host.partition(content);
        }
        if let Some((volumes, free)) = group {
            host.group(&volumes, free);
        }
        host.finish(behind, root)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// On any disk everything fits and keeps what it needs, or the missing bytes are exact.
    #[test]
    fn plans_fit_and_refusals_are_exact(
        host in host(),
        size in 0u64..30_000 * MIB,
        grow in prop::sample::select(Grow::ALL.to_vec()),
        leave in prop::sample::subsequence(LeaveOut::ALL.to_vec(), 0..=2),
    ) {
        let layout = &host.layout;
        let choices = Choices { grow, leave_out: leave.into_iter().collect(), ..Choices::default() };
        let result = onto(layout, size, &choices);
        if let Ok(plan) = &result {
            check(layout, plan)?;
        } else {
            let (missing, without) = too_small(&result).unwrap_or_else(|| panic!("{result:?}"));
            let exact = onto(layout, size + missing, &choices);
            prop_assert!(exact.is_ok(), "{} and {missing} more: {exact:?}", size);
            check(layout, &exact.unwrap())?;
            let short = onto(layout, size + missing - 1, &choices);
            prop_assert_eq!(too_small(&short).map(|s| s.0), Some(1));
            if !without.is_empty() {
                let mut less = choices.clone();
                less.leave_out.extend(without);
                check(layout, &onto(layout, size, &less).unwrap())?;
            }
        }
    }

    /// The saved size gives the saved sizes, and a disk of any other size that holds all of it, too.
    #[test]
    fn nothing_shrinks_without_need(host in host(), more in 0u64..2000 * MIB) {
        let choices = Choices { grow: Grow::Untouched, ..Choices::default() };
        let plan = onto(&host.layout, host.size + more, &choices).unwrap();
        check(&host.layout, &plan)?;
        for change in &plan.sizes {
            prop_assert_eq!(&change.what, "disk");
        }
    }
}

/// A host like the installer of PVE makes it: ESP, and a group with root, swap and a thin pool; `free` MiB are free.
fn pve(root_used: Option<u64>, pool_used: Option<u64>, free: u64) -> Host {
    let mut host = Host::new();
    host.partition(Content::BiosBoot);
    host.partition(Content::Esp {
        mib: 512,
        used: Some(10),
    });
    let volumes = [
        Volume::Root {
            mib: 4096,
            used: root_used,
        },
        Volume::Swap { mib: 1024 },
        Volume::Pool {
            mib: 8192,
            used: pool_used,
        },
    ];
    host.group(&volumes, free);
    host.finish_with_root()
}

#[test]
fn space_is_given_up_in_order() {
    let host = pve(Some(1000), Some(2000), 1024);
    let at = |less: u64| {
        let plan = onto(&host.layout, host.size - less * MIB, &Choices::default()).unwrap();
        let of = |name: &str| volumes(&plan)[name] / MIB;
        let esp = partitions(&plan)
            .iter()
            .find(|p| p.number == 2)
            .map(length)
            .unwrap();
        (of("data"), of("root"), of("swap"), esp / MIB)
    };
    assert_eq!(at(0), (8192, 4096, 1024, 512));
    // The group's free space.
    assert_eq!(at(1000), (8192, 4096, 1024, 512));
    // Then the pool, down to what the guests use and a margin.
    assert_eq!(at(2024), (7192, 4096, 1024, 512));
    let (pool, root, swap, esp) = at(1024 + 5900);
    assert!((2232..2300).contains(&pool), "{pool}");
    assert_eq!((root, swap, esp), (4096, 1024, 512));
    // Then the filesystem, swap, and last the EFI system partition.
    let (_, root, swap, _) = at(8500);
    assert!(root < 4096 && swap == 1024, "{root} {swap}");
    let least = too_small(&onto(&host.layout, MIB, &Choices::default())).unwrap();
    let plan = onto(&host.layout, MIB + least.0, &Choices::default()).unwrap();
    let volumes = volumes(&plan);
    assert_eq!(volumes["swap"] / MIB, 256);
    assert!(volumes["root"] / MIB > 1132 && volumes["root"] / MIB < 1500);
    let esp = partitions(&plan).iter().find(|p| p.number == 2).unwrap();
    assert!(length(esp) / MIB < 300 && length(esp) / MIB > 256);
    let told: Vec<_> = plan.sizes.iter().map(|c| c.what.as_str()).collect();
    for what in [
        "disk",
        "partition 2",
        "partition 3",
        "logical volume vg/root",
        "logical volume vg/swap",
        "thin pool vg/data",
        "swap area",
    ] {
        assert!(told.contains(&what), "{what} is not in {told:?}");
    }
}

#[test]
fn what_is_in_use_is_not_known_keeps_its_size() {
    let host = pve(None, None, 0);
    let (missing, without) = too_small(&onto(
        &host.layout,
        host.size - 4096 * MIB,
        &Choices::default(),
    ))
    .unwrap();
    assert!(missing > 0);
    // Without the pool the rest fits.
    assert_eq!(without, [LeaveOut::GuestPool]);
}

#[test]
fn the_space_of_a_bigger_disk_goes_where_the_choice_says() {
    let host = pve(Some(1000), None, 1024);
    let at = |grow| {
        let choices = Choices {
            grow,
            ..Choices::default()
        };
        let plan = onto(&host.layout, host.size + 100 * 1024 * MIB, &choices).unwrap();
        let pool = plan.steps.iter().find_map(|s| match s {
            Step::ThinPoolCreate {
                size,
                metadata_size,
                ..
            } => Some((size.0 / MIB, metadata_size.0 / MIB)),
            _ => None,
        });
        let end = partitions(&plan).iter().map(|p| p.end.0).max().unwrap();
        (
            volumes(&plan)["root"] / MIB,
            pool.unwrap(),
            end > 2048 * 20_000,
        )
    };
    assert_eq!(at(Grow::Root), (4096 + 100 * 1024, (8192, 64), true));
    // 108 GiB in chunks of 64 KiB need 108 MiB of metadata, twice.
    let metadata = 108;
    let rest = 8192 + 100 * 1024 - 2 * (metadata - 64);
    assert_eq!(at(Grow::ThinPool), (4096, (rest, metadata), true));
    assert_eq!(at(Grow::Nothing), (4096, (8192, 64), true));
    assert_eq!(at(Grow::Untouched), (4096, (8192, 64), false));
}

#[test]
fn what_is_left_out_is_not_made_and_its_line_in_fstab_goes() {
    let host = pve(None, None, 0);
    let choices = Choices {
        leave_out: LeaveOut::ALL.into(),
        ..Choices::default()
    };
    let plan = onto(&host.layout, host.size, &choices).unwrap();
    assert_eq!(volumes(&plan).keys().copied().collect::<Vec<_>>(), ["root"]);
    assert!(plan.steps.iter().any(
        |s| matches!(s, Step::UpdateFstab { switch_off, .. } if switch_off == &["/dev/vg/swap"])
    ));
    let text = plan.render();
    assert!(
        text.contains("Left out by choice") && text.contains("cannot come back"),
        "{text}"
    );
    // What is missing afterwards is explained.
    let mut now = host.layout.clone();
    now.nodes.retain(|id, node| {
        !id.as_str().contains("swap")
            && !id.as_str().contains("data")
            && !matches!(node, Node::ThinVolume(_))
    });
    let bad: Vec<_> = layout::diff::diff(&host.layout, &now, &plan)
        .into_iter()
        .filter(|d| !d.accepted)
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn without_anybody_to_ask_no_volume_shrinks() {
    let host = pve(Some(1000), Some(1000), 1024);
    let unattended = Choices {
        blank_only: true,
        ..Choices::default()
    };
    // Free space may go.
    onto(&host.layout, host.size - 1000 * MIB, &unattended).unwrap();
    let error = onto(&host.layout, host.size - 2000 * MIB, &unattended).unwrap_err();
    assert!(
        matches!(&error, PlanError::NoDiskFor { reason, .. } if reason.contains("would have to shrink")),
        "{error}"
    );
    // Asked, or named, it does.
    let plan = onto(&host.layout, host.size - 2000 * MIB, &Choices::default()).unwrap();
    assert!(plan.disks[0].why.contains("smaller volumes"));
    // A disk that takes everything as it was comes first.
    let two = vec![
        blank("/dev/vda", host.size - 2000 * MIB),
        blank("/dev/vdb", host.size),
    ];
    let plan = layout::plan::plan(&host.layout, &machine(two), &Choices::default()).unwrap();
    assert_eq!(plan.disks[0].device.to_str(), Some("/dev/vdb"));
    let two = vec![
        blank("/dev/vda", host.size - 2000 * MIB),
        blank("/dev/vdb", host.size - 2001 * MIB),
    ];
    let error = layout::plan::plan(&host.layout, &machine(two), &Choices::default()).unwrap_err();
    assert!(matches!(error, PlanError::Ambiguous { .. }), "{error}");
}

#[test]
fn disks_are_told_apart_by_model_or_connection_only_without_doubt() {
    let host = pve(None, None, 0);
    let disk = |name: &str, model: &str, transport: &str| {
        let mut disk: InventoryDisk = blank(name, host.size);
        disk.model = Some(model.to_owned());
        disk.transport = Some(transport.to_owned());
        disk
    };
    let with = |disks: Vec<InventoryDisk>| plan(&host.layout, &machine(disks), &Choices::default());
    let chosen = |disks| {
        with(disks).unwrap().disks[0]
            .device
            .to_str()
            .unwrap()
            .to_owned()
    };
    // The saved disk is an nvme of model "Saved".
    let disks = vec![
        disk("/dev/sda", "Other", "ata"),
        disk("/dev/sdb", "Saved", "ata"),
    ];
    assert_eq!(chosen(disks), "/dev/sdb");
    let disks = vec![
        disk("/dev/nvme0n1", "Other", "nvme"),
        disk("/dev/sda", "New", "ata"),
    ];
    assert_eq!(chosen(disks), "/dev/nvme0n1");
    for doubtful in [
        vec![
            disk("/dev/sda", "Saved", "ata"),
            disk("/dev/sdb", "Saved", "ata"),
        ],
        vec![
            disk("/dev/nvme0n1", "A", "nvme"),
            disk("/dev/nvme1n1", "B", "nvme"),
        ],
        vec![disk("/dev/sda", "A", "ata"), disk("/dev/sdb", "B", "ata")],
    ] {
        assert!(matches!(
            with(doubtful).unwrap_err(),
            PlanError::Ambiguous { .. }
        ));
    }
    // One of the two may not be written to, but it is there: that the other is meant is not certain.
    let mut medium = disk("/dev/nvme1n1", "B", "nvme");
    medium.size = Bytes(host.size * 2);
    let disks = vec![
        disk("/dev/nvme0n1", "A", "nvme"),
        disk("/dev/sda", "C", "ata"),
        medium,
    ];
    let choices = Choices {
        never: vec!["/dev/nvme1n1".into()],
        ..Choices::default()
    };
    let error = plan(&host.layout, &machine(disks), &choices).unwrap_err();
    assert!(matches!(error, PlanError::Ambiguous { .. }), "{error}");
}

#[test]
fn the_halves_of_a_mirror_take_any_two_alike_disks() {
    let layout = build::two_disks(true);
    let size = layout.disks().next().unwrap().1.size.0;
    let three = |third: u64| {
        let mut disks = vec![blank("/dev/sdc", size), blank("/dev/sdd", size)];
        if third > 0 {
            disks.push(blank("/dev/sde", third));
        }
        machine(disks)
    };
    let plan_of = |layout: &Layout, third| plan(layout, &three(third), &Choices::default());
    let plan = plan_of(&layout, 0).unwrap();
    assert_eq!(plan.disks.len(), 2);
    assert_ne!(plan.disks[0].device, plan.disks[1].device);
    // A third that would do makes it a question, a small one does not.
    assert!(matches!(
        plan_of(&layout, size * 2).unwrap_err(),
        PlanError::Ambiguous { .. }
    ));
    plan_of(&layout, 1 << 20).unwrap();
    // Two disks that share nothing are not alike.
    let error = plan_of(&build::two_disks(false), 0).unwrap_err();
    assert!(matches!(error, PlanError::Ambiguous { .. }), "{error}");
}
