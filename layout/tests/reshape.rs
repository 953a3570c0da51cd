//! Saved disks that share the place of another one, or that are done without.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;

use std::path::Path;

use build::{disk_ids as ids, golden, machine, saved};
use layout::diff::diff;
use layout::inventory::InventoryDisk;
use layout::model::{GrubBios, Layout, Node, NodeId, Segments, types};
use layout::plan::{Choices, DiskChoice, Plan, PlanError, Step, plan};
use layout::units::SectorSize;
use proptest::prelude::*;

fn blank(device: &str, mib: u64) -> InventoryDisk {
    build::blank(device, mib << 20)
}

/// Saved disks by index, each with what is chosen for it.
fn choose(layout: &Layout, choices: &[(usize, DiskChoice)]) -> Choices {
    let ids = ids(layout);
    Choices {
        disks: choices
            .iter()
            .map(|(n, choice)| (ids[*n].clone(), choice.clone()))
            .collect(),
        ..Choices::default()
    }
}

fn onto(layout: &Layout, n: usize) -> DiskChoice {
    DiskChoice::Onto(ids(layout)[n].clone())
}

/// On one disk of `mib`.
fn one(layout: &Layout, mib: u64, choices: &[(usize, DiskChoice)]) -> Result<Plan, PlanError> {
    let disks = machine(vec![blank("/dev/vda", mib)]);
    plan(layout, &disks, &choose(layout, choices))
}

fn arrays(plan: &Plan) -> Vec<(usize, u32)> {
    let steps = plan.steps.iter();
    steps
        .filter_map(|s| match s {
            Step::RaidCreate { devices, array, .. } => Some((devices.len(), array.raid_devices)),
            _ => None,
        })
        .collect()
}

fn partitions(plan: &Plan) -> Vec<&layout::plan::PlannedPartition> {
    let steps = plan.steps.iter();
    steps
        .flat_map(|s| match s {
            Step::WriteGpt { partitions, .. } => partitions.as_slice(),
            _ => &[],
        })
        .collect()
}

#[test]
fn plans_on_fewer_disks_read_as_recorded() {
    let text = |plan: Plan| {
        let text = plan.render();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        text
    };
    let mirror = saved("md1-lvm");
    let together = one(&mirror, 1400, &[(1, onto(&mirror, 0))]).unwrap();
    golden("md1-lvm-two-to-one", &text(together));
    for lost in [0, 1] {
        let plan = one(&mirror, 1400, &[(lost, DiskChoice::Missing)]).unwrap();
        golden(&format!("md1-lvm-without-{lost}"), &text(plan));
    }
    let groups = saved("lvm-two-groups");
    let plan = one(&groups, 4000, &[(1, onto(&groups, 0))]).unwrap();
    golden("lvm-two-groups-two-to-one", &text(plan));
    let btrfs = saved("btrfs-raid1");
    let plan = one(&btrfs, 4000, &[(1, DiskChoice::Missing)]).unwrap();
    golden("btrfs-raid1-without-one", &text(plan));
}

#[test]
fn one_half_of_a_mirror_is_made_and_nothing_is_copied_onto_its_disk() {
    let layout = saved("md1-lvm");
    for choice in [onto(&layout, 0), DiskChoice::Missing] {
        let plan = one(&layout, 1400, &[(1, choice)]).unwrap();
        assert_eq!(arrays(&plan), [(1, 2)]);
        assert_eq!(partitions(&plan).len(), 3, "nothing of the other disk");
        assert!(plan.notes.iter().any(|n| n.contains("mdadm --add")));
        assert!(
            !plan
                .steps
                .iter()
                .any(|s| matches!(s, Step::RestoreImage { .. }))
        );
    }
}

#[test]
fn the_mounted_efi_partition_takes_the_place_of_its_mirror() {
    // The disk with the partition that was mounted is the one that is lost.
    let layout = saved("md1-lvm");
    let plan = one(&layout, 1400, &[(0, DiskChoice::Missing)]).unwrap();
    let esp = partitions(&plan)
        .into_iter()
        .find(|p| p.type_guid == types::ESP)
        .unwrap();
    assert!(plan.steps.iter().any(
        |s| matches!(s, Step::MakeVfat { device, fs } if *device == esp.device && fs.uuid == "5A12-0009")
    ));
    // Without a mirror the system cannot be started, and that is said.
    let mut alone = layout.clone();
    alone.nodes.retain(|_, node| {
        !matches!(node, Node::Partition(p) if p.type_guid == types::ESP && p.on == ids(&layout)[1])
    });
    let error = one(&alone, 1400, &[(0, DiskChoice::Missing)]).unwrap_err();
    assert!(
        error.to_string().contains("/boot/efi lies on it"),
        "{error}"
    );
}

#[test]
fn what_is_missing_where_there_is_only_one_disk_is_offered() {
    let layout = saved("md1-lvm");
    let error = one(&layout, 1400, &[]).unwrap_err();
    let PlanError::NoDiskFor { disk, instead, .. } = &error else {
        panic!("{error}")
    };
    let other = ids(&layout).into_iter().find(|id| id != disk).unwrap();
    assert_eq!(
        *instead,
        [DiskChoice::Missing, DiskChoice::Onto(other.clone())]
    );
    let text = error.to_string();
    for words in [format!("{disk}=missing"), format!("{disk}=onto:{other}")] {
        assert!(text.contains(&words), "{text}");
    }
    // Of what is not there twice, nothing is offered that does not work.
    let striped = saved("lvm-two-groups");
    let error = one(&striped, 1024, &[]).unwrap_err();
    assert!(
        matches!(&error, PlanError::NoDiskFor { instead, .. } if instead.is_empty())
            || matches!(&error, PlanError::TooSmall { .. }),
        "{error}"
    );
}

#[test]
fn partitions_of_both_disks_lie_one_behind_the_other() {
    let layout = saved("lvm-two-groups");
    let before: Vec<_> = layout
        .nodes
        .values()
        .filter_map(|n| match n {
            Node::Partition(p) => Some((p.partuuid.clone(), p.size())),
            _ => None,
        })
        .collect();
    let plan = one(&layout, 4000, &[(1, onto(&layout, 0))]).unwrap();
    let parts = partitions(&plan);
    for (uuid, _) in &before {
        assert_eq!(parts.iter().filter(|p| p.partuuid == *uuid).count(), 1);
    }
    let mut numbers: Vec<u32> = parts.iter().map(|p| p.number).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), parts.len());
    for pair in parts.windows(2) {
        assert!(pair[0].end < pair[1].start);
        assert_eq!(pair[1].start.0 % 2048, 0);
    }
    // The sizing pass sees the sum.
    let error = one(&layout, 1200, &[(1, onto(&layout, 0))]).unwrap_err();
    assert!(matches!(error, PlanError::TooSmall { .. }), "{error}");
}

#[test]
fn what_covered_whole_disks_gets_partitions() {
    let layout = saved("md10-whole-disks");
    // Four disks on two: one member of each pair.
    let choices = [(1, onto(&layout, 0)), (3, onto(&layout, 2))];
    let two = machine(vec![blank("/dev/vda", 400), blank("/dev/vdb", 400)]);
    let plan_of = |choices: &[(usize, DiskChoice)]| plan(&layout, &two, &choose(&layout, choices));
    assert_eq!(arrays(&plan_of(&choices).unwrap()), [(2, 4)]);
    // The halves of other pairs: one copy of everything is left.
    plan_of(&[(2, onto(&layout, 0)), (3, onto(&layout, 1))]).unwrap_err();
    // Both copies of the same data gone.
    let error = plan_of(&[(2, DiskChoice::Missing), (3, DiskChoice::Missing)]).unwrap_err();
    assert!(error.to_string().contains("too few"), "{error}");
    // Striped, all members are needed: both get a partition.
    let mut striped = layout.clone();
    for node in striped.nodes.values_mut() {
        if let Node::RaidArray(array) = node {
            array.level = "raid0".into();
            array.layout = None;
            array.members.truncate(2);
            array.raid_devices = 2;
        }
    }
    striped
        .nodes
        .retain(|id, _| !["disk:OLD-DISK-3", "disk:OLD-DISK-4"].contains(&id.as_str()));
    let plan = one(&striped, 1000, &[(1, onto(&striped, 0))]).unwrap();
    assert_eq!(arrays(&plan), [(2, 2)]);
    let parts = partitions(&plan);
    assert_eq!(parts.len(), 2);
    assert!(parts.iter().all(|p| p.type_guid == types::RAID));
    let again = one(&striped, 1000, &[(1, onto(&striped, 0))]).unwrap();
    assert_eq!(plan, again, "the same choices make the same plan");
}

#[test]
fn boot_loaders_are_written_once_for_each_disk() {
    let mut layout = saved("md1-lvm");
    layout.boot.grub_bios = ids(&layout)
        .into_iter()
        .map(|disk| GrubBios { disk })
        .collect();
    for choice in [onto(&layout, 0), DiskChoice::Missing] {
        let plan = one(&layout, 1400, &[(1, choice)]).unwrap();
        let grub: Vec<&Step> = plan
            .steps
            .iter()
            .filter(|s| matches!(s, Step::GrubBios { .. }))
            .collect();
        assert!(
            matches!(grub[..], [Step::GrubBios { device, .. }] if device == Path::new("/dev/vda")),
            "{grub:?}"
        );
    }
    // It was only on the one that is lost.
    layout.boot.grub_bios.truncate(1);
    let plan = one(&layout, 1400, &[(0, DiskChoice::Missing)]).unwrap();
    assert!(
        plan.steps
            .iter()
            .any(|s| matches!(s, Step::GrubBios { .. }))
    );
}

#[test]
fn choices_that_cannot_be_meant_are_refused() {
    let layout = saved("md1-lvm");
    let refused = |choices: &[(usize, DiskChoice)]| match one(&layout, 1400, choices).unwrap_err() {
        PlanError::BadChoice { reason, .. } => reason,
        other => panic!("{other}"),
    };
    let missing = DiskChoice::Missing;
    assert!(refused(&[(0, missing.clone()), (1, missing.clone())]).contains("no disk"));
    assert!(refused(&[(0, onto(&layout, 1)), (1, onto(&layout, 0))]).contains("no place"));
    assert!(refused(&[(0, onto(&layout, 0))]).contains("no place"));
    assert!(refused(&[(0, missing.clone()), (1, onto(&layout, 0))]).contains("no place"));
    assert!(refused(&[(0, DiskChoice::Onto("disk:x".into()))]).contains("no disk disk:x"));
    let mut data = layout.clone();
    let (_, disk) = layout.disks().next().unwrap();
    let disk = layout::model::Disk {
        serial: Some("DATA".into()),
        table: None,
        ..disk.clone()
    };
    data.nodes.insert(NodeId::disk("a-data"), Node::Disk(disk));
    let choices = Choices {
        disks: [("disk:a-data".into(), DiskChoice::Missing)].into(),
        ..Choices::default()
    };
    let error = plan(&data, &machine(Vec::new()), &choices).unwrap_err();
    assert!(error.to_string().contains("data disk"), "{error}");
}

#[test]
fn a_saved_disk_that_is_left_out_must_not_stay_in_the_machine() {
    let layout = saved("md1-lvm");
    let mut old = blank("/dev/vdb", 1400);
    old.serial = Some("OLD-DISK-2".into());
    old.contents = vec!["member of RAID array 'floor:pve'".into()];
    let two = machine(vec![blank("/dev/vda", 1400), old.clone()]);
    let without = choose(&layout, &[(1, DiskChoice::Missing)]);
    let error = plan(&layout, &two, &without).unwrap_err();
    assert!(error.to_string().contains("take it out"), "{error}");
    // It may well be the one that is restored onto.
    let alone = machine(vec![old]);
    let choices = choose(&layout, &[(0, DiskChoice::Missing)]);
    assert_eq!(
        plan(&layout, &alone, &choices).unwrap().disks[0].why,
        "same serial number"
    );
}

#[test]
fn groups_do_without_a_physical_volume_where_the_rest_has_room() {
    let layout = saved("lvm-raid1");
    let volumes: Vec<Segments> = layout
        .nodes
        .values()
        .filter_map(|n| match n {
            Node::LogicalVolume(lv) => Some(lv.segments.clone()),
            _ => None,
        })
        .collect();
    assert!(volumes.iter().any(|s| matches!(s, Segments::Raid { .. })));
    let size = layout.disks().map(|(_, d)| d.size.0 >> 20).max().unwrap();
    let last = layout.disks().count() - 1;
    let disks = (0..last).map(|n| blank(&format!("/dev/vd{}", (b'a' + n as u8) as char), size));
    let disks = machine(disks.collect());
    let choices = choose(&layout, &[(last, DiskChoice::Missing)]);
    match plan(&layout, &disks, &choices) {
        Ok(plan) => {
            assert!(
                plan.notes
                    .iter()
                    .any(|n| n.contains("without 1 of its physical"))
            );
            for step in &plan.steps {
                if let Step::LvCreate { segments, .. } = step {
                    assert!(segments.images() as usize <= last.max(1));
                }
            }
        }
        Err(error) => assert!(error.to_string().contains("needs"), "{error}"),
    }
}

#[test]
fn of_a_mirrored_pool_one_half_is_made() {
    let layout = saved("zfs-mirror-root");
    let count = ids(&layout).len();
    let sizes: Vec<u64> = layout.disks().map(|(_, d)| d.size.0 >> 20).collect();
    let pools = |plan: &Plan| -> Vec<usize> {
        let steps = plan.steps.iter();
        steps
            .filter_map(|s| match s {
                Step::ZpoolCreate { vdevs, .. } => Some(vdevs[0].devices.len()),
                _ => None,
            })
            .collect()
    };
    for n in 0..count.min(2) {
        for choice in [DiskChoice::Missing, onto(&layout, 1 - n)] {
            let plan = one(&layout, sizes[1 - n], &[(n, choice)]).unwrap();
            assert_eq!(pools(&plan), [1]);
            assert!(
                plan.notes.iter().any(|n| n.contains("zpool attach")),
                "{:?}",
                plan.notes
            );
        }
    }
    let parity = saved("zfs-raidz1");
    let disks = machine(
        (0..ids(&parity).len())
            .map(|n| blank(&format!("/dev/vd{n}"), 8192))
            .collect(),
    );
    let last = ids(&parity).len() - 1;
    let error = plan(
        &parity,
        &disks,
        &choose(&parity, &[(last, DiskChoice::Missing)]),
    );
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("give all of its disks") || error.contains("data disk"),
        "{error}"
    );
}

#[test]
fn what_stays_in_place_needs_all_of_its_disks() {
    let layout = saved("md1-lvm");
    let choices = Choices {
        mode: layout::plan::Mode::SystemOnly,
        ..choose(&layout, &[(1, DiskChoice::Missing)])
    };
    let error = plan(&layout, &machine(Vec::new()), &choices).unwrap_err();
    assert!(error.to_string().contains("bare metal only"), "{error}");
}

#[test]
fn the_difference_is_explained_and_nothing_else() {
    // What a machine looks like that was restored with the second half of the mirror missing.
    let layout = saved("md1-lvm");
    let plan = one(&layout, 1400, &[(1, DiskChoice::Missing)]).unwrap();
    let lost = ids(&layout)[1].clone();
    let mut now = layout.clone();
    now.nodes.retain(|id, _| {
        let below = layout.disks_below(id);
        !(below.len() == 1 && below.contains(&lost))
    });
    for node in now.nodes.values_mut() {
        match node {
            Node::RaidArray(array) => {
                array.members.truncate(1);
            }
            Node::Disk(disk) => disk.device = "/dev/vda".into(),
            _ => {}
        }
    }
    let bad = |now: &Layout| {
        diff(&layout, now, &plan)
            .into_iter()
            .filter(|d| !d.accepted)
            .map(|d| d.to_string())
            .filter(|d| !d.contains("uuid"))
            .collect::<Vec<_>>()
    };
    assert_eq!(bad(&now), Vec::<String>::new());
    now.nodes.retain(|id, _| !id.as_str().contains("root"));
    assert!(!bad(&now).is_empty());
}

#[test]
fn sectors_of_both_disks_become_those_of_the_present_one() {
    let layout = saved("md1-lvm");
    let mut disk = blank("/dev/vda", 1600);
    disk.sector_size = SectorSize::S4096;
    let choices = choose(&layout, &[(1, DiskChoice::Missing)]);
    // FAT with clusters of 512 bytes and 64 MiB gives way; what counts is that there is a plan or a reason.
    match plan(&layout, &machine(vec![disk]), &choices) {
        Ok(plan) => assert_eq!(plan.writes_outside(), None),
        Err(error) => assert!(matches!(error, PlanError::SectorSize { .. }), "{error}"),
    }
}

const CASES: [&str; 8] = [
    "md1-lvm",
    "md1-boot-efi-root",
    "md5-lvm",
    "md10-whole-disks",
    "lvm-two-groups",
    "lvm-raid1",
    "btrfs-raid1",
    "btrfs-raid10",
];

proptest! {
    /// Whatever shares whose place, a plan writes to assigned disks only, in partitions that do not overlap, and everything
    /// has the size that it needs.
    #[test]
    fn fewer_disks_never_write_elsewhere(
        case in 0usize..CASES.len(),
        picks in proptest::collection::vec(0usize..6, 4),
        sizes in proptest::collection::vec(300u64..6000, 1..5),
    ) {
        let layout = saved(CASES[case]);
        let ids = ids(&layout);
        let choices: Vec<(usize, DiskChoice)> = picks
            .iter()
            .take(ids.len())
            .enumerate()
            .filter_map(|(n, pick)| match pick {
                0 | 1 => Some((n, DiskChoice::Onto(ids[pick % ids.len()].clone()))),
                2 => Some((n, DiskChoice::Missing)),
                _ => None,
            })
            .collect();
        let disks: Vec<InventoryDisk> = sizes
            .iter()
            .enumerate()
            .map(|(n, mib)| blank(&format!("/dev/vd{}", (b'a' + n as u8) as char), *mib))
            .collect();
        let inventory = machine(disks.clone());
        if let Ok(plan) = plan(&layout, &inventory, &choose(&layout, &choices)) {
            prop_assert_eq!(plan.writes_outside(), None);
            prop_assert_eq!(plan.leads_outside(), None);
            prop_assert_eq!(plan.fence.len() + plan.disks.len(), disks.len());
            prop_assert_eq!(plan.merged.len(), choices.len());
            for step in &plan.steps {
                let Step::WriteGpt { device, partitions, sectors, .. } = step else { continue };
                let mut parts: Vec<_> = partitions.iter().collect();
                parts.sort_by_key(|p| p.start);
                prop_assert!(parts.windows(2).all(|w| w[0].end < w[1].start), "{device:?}");
                prop_assert!(parts.iter().all(|p| p.end.0 < *sectors));
            }
            let again = layout::plan::plan(&layout, &inventory, &choose(&layout, &choices)).unwrap();
            prop_assert_eq!(plan, again);
        }
    }
}
