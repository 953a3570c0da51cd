//! A saved disk whose volume group is spread over further disks.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use build::{Content, Host, Volume, golden, machine, saved};
use layout::diff::diff;
use layout::inventory::InventoryDisk;
use layout::model::{Disk, GptTable, Layout, Node, NodeId, Partition, PhysicalVolume, Table};
use layout::plan::{
    Choices, DiskChoice, Grow, LeaveOut, Plan, PlanError, Step, check_shapes, plan,
};
use layout::units::{Bytes, SectorSize};
use proptest::prelude::*;

fn blank(device: &str, mib: u64) -> InventoryDisk {
    build::blank(device, mib << 20)
}

fn first(layout: &Layout) -> NodeId {
    layout.disks().next().unwrap().0.clone()
}

/// The first saved disk onto all of these together.
fn chosen(layout: &Layout, disks: &str) -> Choices {
    Choices {
        disks: BTreeMap::from([(first(layout), DiskChoice::parse(disks))]),
        ..Choices::default()
    }
}

/// Onto `/dev/vda` and `/dev/vdb` of these sizes.
fn two(layout: &Layout, a: u64, b: u64, choices: &Choices) -> Result<Plan, PlanError> {
    let disks = machine(vec![blank("/dev/vda", a), blank("/dev/vdb", b)]);
    plan(layout, &disks, choices)
}

fn both(layout: &Layout, a: u64, b: u64) -> Result<Plan, PlanError> {
    two(layout, a, b, &chosen(layout, "/dev/vda+/dev/vdb"))
}

fn refused(result: Result<Plan, PlanError>) -> String {
    match result.unwrap_err() {
        PlanError::BadChoice { disk, reason } => {
            assert!(disk.as_str().starts_with("disk:"), "{disk}");
            reason
        }
        other => panic!("{other}"),
    }
}

/// Volumes and data of pools by name, in MiB.
fn volumes(plan: &Plan) -> BTreeMap<String, u64> {
    let volumes = plan.steps.iter().filter_map(|s| match s {
        Step::LvCreate { name, size, .. } | Step::ThinPoolCreate { name, size, .. } => {
            Some((name.clone(), size.0 >> 20))
        }
        _ => None,
    });
    volumes.collect()
}

#[test]
fn plans_on_two_disks_read_as_recorded() {
    for (name, a, b) in [
        ("pve-ext4-lvm", 1200, 1300),
        ("pve-ext4-lvm-smaller", 1000, 800),
    ] {
        let layout = saved(name);
        let text = both(&layout, a, b).unwrap().render();
        golden(&format!("{name}-one-to-two"), &text);
    }
}

#[test]
fn volumes_keep_their_sizes_where_both_disks_have_room() {
    let layout = saved("pve-ext4-lvm");
    let plan = both(&layout, 1200, 1300).unwrap();
    let before = [("data", 512), ("root", 1024), ("swap", 128)];
    let before = before.map(|(name, mib)| (name.to_owned(), mib));
    assert_eq!(volumes(&plan), BTreeMap::from(before));
    let groups = plan.steps.iter().find_map(|s| match s {
        Step::VgCreate { devices, .. } => Some(devices.clone()),
        _ => None,
    });
    assert_eq!(
        groups.unwrap(),
        [PathBuf::from("/dev/vda3"), PathBuf::from("/dev/vdb1")]
    );
    // Both are erased and none is fenced, and nothing says of the further one that it is a saved disk.
    let wiped = plan.steps.iter();
    let wiped = wiped.filter(|s| matches!(s, Step::Wipe { .. })).count();
    assert_eq!((wiped, plan.fence.len(), plan.disks.len()), (2, 0, 2));
    let joins = plan.disks.iter().find_map(|d| d.joins.as_ref()).unwrap();
    assert_eq!(
        (&joins.saved, joins.group.as_str()),
        (&first(&layout), "pve")
    );
    assert_eq!(plan, both(&layout, 1200, 1300).unwrap());
}

#[test]
fn further_room_grows_what_the_choice_says() {
    let layout = saved("pve-ext4-lvm");
    for (grow, name, saved) in [(Grow::Root, "root", 1024), (Grow::ThinPool, "data", 512)] {
        let mut choices = chosen(&layout, "/dev/vda+/dev/vdb");
        choices.grow = grow;
        // The saved size, and 2 GiB more without what the new partition table takes.
        let plan = two(&layout, 3072, 2048, &choices).unwrap();
        let now = volumes(&plan)[name];
        assert!((saved + 2030..saved + 2048).contains(&now), "{name}: {now}");
        // The first one is smaller, and together they have 1 GiB more.
        let plan = two(&layout, 2048, 2048, &choices).unwrap();
        let now = volumes(&plan)[name];
        assert!((saved + 1000..saved + 1024).contains(&now), "{name}: {now}");
    }
    let mut choices = chosen(&layout, "/dev/vda+/dev/vdb");
    choices.grow = Grow::Nothing;
    let plan = two(&layout, 3072, 2048, &choices).unwrap();
    assert_eq!(volumes(&plan)["root"], 1024);
}

#[test]
fn three_disks_are_joined_too() {
    let layout = saved("pve-ext4-lvm");
    let disks = ["/dev/vda", "/dev/vdb", "/dev/vdc"].map(|device| blank(device, 700));
    let choices = chosen(&layout, "/dev/vda+/dev/vdb+/dev/vdc");
    let plan = plan(&layout, &machine(disks.to_vec()), &choices).unwrap();
    assert_eq!(volumes(&plan)["root"], 1024);
    assert_eq!(plan.disks.iter().filter(|d| d.joins.is_some()).count(), 2);
}

#[test]
fn what_another_disk_would_help_against_is_told() {
    let layout = saved("pve-ext4-lvm");
    let alone = |mib| two(&layout, mib, 16, &chosen(&layout, "/dev/vda")).unwrap_err();
    let text = alone(1200).to_string();
    let id = first(&layout);
    let advice = format!(
        "use a bigger disk, or a further one for a part of volume group pve ({id}=/dev/vda+ANOTHER)"
    );
    assert!(text.ends_with(&advice), "{text}");
    // Not where the boot partitions have no room.
    let text = alone(60).to_string();
    assert!(text.ends_with("use a bigger disk"), "{text}");
    // With one that has not enough either, the bytes are exact.
    let PlanError::TooSmall {
        missing, spread, ..
    } = both(&layout, 1000, 600).unwrap_err()
    else {
        panic!("not too small")
    };
    assert!(spread.is_some());
    let more = |bytes: u64| {
        let mut disks = machine(vec![blank("/dev/vda", 1000), blank("/dev/vdb", 600)]);
        disks.disks[0].size.0 += bytes;
        plan(&layout, &disks, &chosen(&layout, "/dev/vda+/dev/vdb"))
    };
    more(missing.0).unwrap();
    more(missing.0 - 1).unwrap_err();
}

#[test]
fn a_group_that_cannot_be_spread_is_refused_by_name() {
    let mut none = saved("pve-ext4-lvm");
    none.nodes
        .retain(|_, n| !matches!(n, Node::VolumeGroup(_) | Node::PhysicalVolume(_)));
    assert!(refused(both(&none, 4000, 4000)).contains("no volume group"));

    for (name, words) in [
        ("md1-lvm", ["volume group", "array"]),
        ("luks2-lvm", ["volume group", "not encrypted"]),
    ] {
        let layout = saved(name);
        let mut choices = chosen(&layout, "/dev/vda+/dev/vdb");
        if name == "md1-lvm" {
            let other = layout.disks().nth(1).unwrap().0.clone();
            choices
                .disks
                .insert(other, DiskChoice::Device("/dev/vdc".into()));
        }
        let disks = ["/dev/vda", "/dev/vdb", "/dev/vdc"].map(|device| blank(device, 4000));
        let reason = refused(plan(&layout, &machine(disks.to_vec()), &choices));
        assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
        check_shapes(&layout, &choices).unwrap_err();
    }

    // Two groups on one disk are named.
    let mut several = saved("pve-ext4-lvm");
    let Some(Node::VolumeGroup(vg)) = several.nodes.get(&NodeId::vg("pve")) else {
        panic!("no group")
    };
    let mut other = vg.clone();
    other.name = "tank".to_owned();
    several
        .nodes
        .insert(NodeId::vg("tank"), Node::VolumeGroup(other));
    let reason = refused(both(&several, 2000, 2000));
    assert!(reason.contains("(pve, tank)"), "{reason}");

    let mut limited = saved("pve-ext4-lvm");
    if let Some(Node::VolumeGroup(vg)) = limited.nodes.get_mut(&NodeId::vg("pve")) {
        vg.settings.max_physical_volumes = 1;
    }
    let reason = refused(both(&limited, 2000, 2000));
    assert!(reason.contains("1 physical volumes only"), "{reason}");
}

#[test]
fn disks_that_cannot_join_are_refused() {
    let layout = saved("pve-ext4-lvm");
    let on = |words: &str, change: &dyn Fn(&mut Vec<InventoryDisk>, &mut Choices)| {
        let mut disks = vec![blank("/dev/vda", 1200), blank("/dev/vdb", 1300)];
        let mut choices = chosen(&layout, words);
        change(&mut disks, &mut choices);
        refused(plan(&layout, &machine(disks), &choices))
    };
    let pair = "/dev/vda+/dev/vdb";
    type Change = dyn Fn(&mut Vec<InventoryDisk>, &mut Choices);
    let cases: [(&str, &Change, &str); 7] = [
        (
            pair,
            &|_, c| c.never.push("/dev/vdb".into()),
            "holds the bundle",
        ),
        (pair, &|d, _| d[1].in_use = true, "in use"),
        (
            pair,
            &|d, _| d[1].size = Bytes::mib(3),
            "too small for a part",
        ),
        (
            pair,
            &|d, _| d[1].sector_size = SectorSize::S4096,
            "/dev/vdb has sectors of 4096 B, /dev/vda of 512 B: LVM makes no volume group",
        ),
        // Nobody is asked, and a kernel name may be another disk's by then.
        (
            pair,
            &|d, c| {
                c.blank_only = true;
                d[1].serial = Some("X".into());
                d[1].contents = vec!["ext4".into()];
            },
            "not blank",
        ),
        ("/dev/vda+/dev/vda", &|_, _| {}, "named twice"),
        ("/dev/vda+/dev/vdx", &|_, _| {}, "no disk /dev/vdx"),
    ];
    for (words, change, reason) in cases {
        let found = on(words, change);
        assert!(found.contains(reason), "{found}");
    }
    // What is there for another saved disk.
    let groups = saved("lvm-two-groups");
    let ids: Vec<NodeId> = groups.disks().map(|(id, _)| id.clone()).collect();
    let mut choices = Choices::default();
    choices
        .disks
        .insert(ids[0].clone(), DiskChoice::parse("/dev/vda+/dev/vdb"));
    choices
        .disks
        .insert(ids[1].clone(), DiskChoice::parse("/dev/vdb"));
    let reason = refused(two(&groups, 900, 900, &choices));
    assert!(reason.contains("two saved disks"), "{reason}");
    // What stays in place stays where it is.
    let mut choices = chosen(&layout, pair);
    choices.mode = layout::plan::Mode::SystemOnly;
    let reason = refused(two(&layout, 1200, 1300, &choices));
    assert!(reason.contains("bare metal only"), "{reason}");
}

#[test]
fn a_further_disk_is_never_chosen_by_itself() {
    let layout = saved("pve-ext4-lvm");
    for choices in [Choices::default(), chosen(&layout, "/dev/vda")] {
        match two(&layout, 1200, 1300, &choices) {
            Err(PlanError::TooSmall { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What a machine looks like that was restored like this.
fn restored(layout: &Layout, plan: &Plan) -> Layout {
    let mut now = layout.clone();
    let assigned: BTreeMap<&Path, &NodeId> = plan
        .disks
        .iter()
        .map(|d| (d.device.as_path(), &d.saved))
        .collect();
    for step in &plan.steps {
        match step {
            Step::WriteGpt {
                device,
                table,
                sector_size,
                sectors,
                partitions,
            } => {
                let id = assigned[device.as_path()].clone();
                let disk = Disk {
                    device: device.clone(),
                    model: None,
                    serial: None,
                    wwn: None,
                    size: Bytes(sectors * 512),
                    sector_size: *sector_size,
                    transport: None,
                    removable: false,
                    table: Some(Table::Gpt(GptTable { ..table.clone() })),
                };
                now.nodes.insert(id.clone(), Node::Disk(disk));
                for part in partitions {
                    let node = Partition {
                        on: id.clone(),
                        device: part.device.clone(),
                        number: part.number,
                        type_guid: part.type_guid.clone(),
                        partuuid: part.partuuid.clone(),
                        name: part.name.clone(),
                        attributes: part.attributes,
                        start: part.start,
                        end: part.end,
                        sector_size: *sector_size,
                    };
                    now.nodes.insert(part.node.clone(), Node::Partition(node));
                }
            }
            Step::PvCreate {
                device,
                uuid,
                pe_start,
            } => {
                let on = now.nodes.iter().find_map(|(id, node)| match node {
                    Node::Partition(part) if part.device == *device => Some(id.clone()),
                    _ => None,
                });
                let pv = PhysicalVolume {
                    on: on.unwrap(),
                    uuid: uuid.clone(),
                    pe_start: *pe_start,
                    size: Bytes::mib(4),
                    tags: Vec::new(),
                    allocatable: true,
                };
                now.nodes.insert(NodeId::pv(uuid), Node::PhysicalVolume(pv));
            }
            _ => {}
        }
    }
    let pvs: Vec<NodeId> = now
        .nodes
        .iter()
        .filter(|(_, node)| matches!(node, Node::PhysicalVolume(_)))
        .map(|(id, _)| id.clone())
        .collect();
    for node in now.nodes.values_mut() {
        match node {
            Node::VolumeGroup(vg) => vg.on.clone_from(&pvs),
            Node::LogicalVolume(lv) => lv.pvs = vec![pvs[0].clone()],
            Node::ThinPool(pool) => pool.pvs = vec![pvs[1].clone()],
            _ => {}
        }
    }
    now
}

#[test]
fn what_is_added_is_an_accepted_difference_and_nothing_else_is() {
    let layout = saved("pve-ext4-lvm");
    let plan = both(&layout, 1200, 1300).unwrap();
    let mut now = restored(&layout, &plan);
    let found = diff(&layout, &now, &plan);
    let bad: Vec<String> = found
        .iter()
        .filter(|d| !d.accepted)
        .map(ToString::to_string)
        .collect();
    assert_eq!(bad, Vec::<String>::new());
    for kind in ["disk", "partition", "physical volume"] {
        let reason = format!("a further {kind} for volume group pve, as chosen");
        let named = found.iter().filter(|d| d.reason.as_ref() == Some(&reason));
        assert_eq!(named.count(), 1, "{kind}: {found:#?}");
    }
    // Another partition on the further disk is none of ours.
    let (id, part) = now
        .nodes
        .iter()
        .find_map(|(id, node)| match node {
            Node::Partition(part) if part.device == Path::new("/dev/vdb1") => {
                Some((id.clone(), part.clone()))
            }
            _ => None,
        })
        .unwrap();
    let other = NodeId::new(format!("{id}-other"));
    now.nodes.insert(other.clone(), Node::Partition(part));
    let found = diff(&layout, &now, &plan);
    assert!(found.iter().any(|d| d.node == other && !d.accepted));
}

#[test]
fn a_host_that_came_back_like_this_can_come_back_like_this_again() {
    let layout = saved("pve-ext4-lvm");
    let now = restored(&layout, &both(&layout, 1200, 1300).unwrap());
    let choices = Choices {
        disks: BTreeMap::from([
            (first(&layout), DiskChoice::parse("/dev/vda+/dev/vdb")),
            (
                now.disks()
                    .find(|(id, _)| **id != first(&layout))
                    .unwrap()
                    .0
                    .clone(),
                DiskChoice::parse("/dev/vdc"),
            ),
        ]),
        ..Choices::default()
    };
    let mut now = now;
    for node in now.nodes.values_mut() {
        if let Node::PhysicalVolume(pv) = node {
            pv.size = Bytes::mib(1100);
        }
    }
    let disks = [("/dev/vda", 700), ("/dev/vdb", 700), ("/dev/vdc", 1300)];
    let disks = disks.map(|(device, mib)| blank(device, mib));
    let plan = plan(&now, &machine(disks.to_vec()), &choices).unwrap();
    let made = plan.steps.iter().filter_map(|s| match s {
        Step::PvCreate { uuid, .. } => Some(uuid.clone()),
        _ => None,
    });
    let mut made: Vec<String> = made.collect();
    assert_eq!(made.len(), 3);
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 3, "each has a UUID of its own");
}

#[test]
fn two_partitions_of_a_group_shrink_and_are_spread_together() {
    let layout = saved("pve-ext4-lvm-two-volumes-smaller");
    let root_on = |plan: &Plan| {
        plan.steps.iter().find_map(|s| match s {
            Step::LvCreate { name, pvs, .. } if name == "root" => Some(pvs.len()),
            _ => None,
        })
    };
    let alone = |mib: u64| {
        let disks = machine(vec![blank("/dev/vda", mib)]);
        plan(&layout, &disks, &chosen(&layout, "/dev/vda"))
    };
    assert_eq!(root_on(&alone(3072).unwrap()), Some(1));
    // As small as with one partition, but for what the second one takes.
    let whole = saved("pve-ext4-lvm-smaller");
    let least = |layout: &Layout| match two(layout, 100, 16, &chosen(layout, "/dev/vda")) {
        Err(PlanError::TooSmall { needed, .. }) => needed.0 >> 20,
        other => panic!("{other:?}"),
    };
    assert!((least(&whole)..least(&whole) + 24).contains(&least(&layout)));
    for mib in [2500, 2000, least(&layout) + 1] {
        let plan = alone(mib).unwrap();
        assert_eq!(root_on(&plan), Some(0), "{mib}");
        assert!(volumes(&plan)["root"] > 300, "{mib}");
    }
    let plan = both(&layout, 1000, 2600).unwrap();
    assert!(volumes(&plan)["root"] >= 1024);
    assert_eq!(volumes(&plan)["data"], 1828);
    both(&layout, 1000, 700).unwrap();
}

fn volume() -> impl Strategy<Value = Volume> {
    let fs = || {
        (17..400u64).prop_flat_map(|n| {
            let used = prop_oneof![1 => Just(None), 4 => (0..4 * n).prop_map(Some)];
            (Just(4 * n), used)
        })
    };
    prop_oneof![
        3 => fs().prop_map(|(mib, used)| Volume::Ext4 { mib, used }),
        2 => (1..200u64).prop_map(|n| Volume::Swap { mib: 4 * n }),
        3 => fs().prop_map(|(mib, used)| Volume::Pool { mib, used }),
        1 => (1..100u64).prop_map(|n| Volume::Guest { mib: 4 * n }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// On any two disks all volumes have room and keep what they need, or the missing bytes are exact.
    #[test]
    fn plans_on_two_disks_fit_and_refusals_are_exact(
        list in proptest::collection::vec(volume(), 1..5),
        free in 0u64..300,
        behind in 0u64..300,
        root in any::<prop::sample::Index>(),
        first_mib in 500u64..5000,
        second_mib in 8u64..5000,
        grow in prop::sample::select(Grow::ALL.to_vec()),
        leave in prop::sample::subsequence(LeaveOut::ALL.to_vec(), 0..=2),
    ) {
        let mut host = Host::new();
        host.partition(Content::BiosBoot);
        host.partition(Content::Esp { mib: 256, used: Some(10) });
        host.group(&list, free);
        let host = host.finish(behind, root);
        let layout = &host.layout;
        prop_assume!(layout.system_disks().len() == 1);
        let mut choices = chosen(layout, "/dev/vda+/dev/vdb");
        choices.grow = grow;
        choices.leave_out = leave.into_iter().collect();
        let with = |more: u64| {
            let mut disks = machine(vec![blank("/dev/vda", first_mib), blank("/dev/vdb", second_mib)]);
            disks.disks[0].size.0 += more;
            plan(layout, &disks, &choices)
        };
        let made = match with(0) {
            Err(PlanError::TooSmall { missing, .. }) => {
                let short = with(missing.0 - 1);
                prop_assert!(matches!(short, Err(PlanError::TooSmall { missing: Bytes(1), .. })), "{:?}", short);
                with(missing.0)
            }
            other => other,
        };
        prop_assert!(made.is_ok(), "{:?}", made);
        let made = made.unwrap();
        let extent = 4u64 << 20;
        let mut parts: BTreeMap<&Path, u64> = BTreeMap::new();
        let (mut room, mut need, mut spare) = (0, 0, 0);
        for step in &made.steps {
            match step {
                Step::WriteGpt { partitions, sectors, .. } => for part in partitions {
                    prop_assert!(part.end.0 < sectors - 33);
                    parts.insert(&part.device, (part.end.0 + 1 - part.start.0) * 512);
                },
                Step::PvCreate { device, pe_start, .. } => {
                    room += (parts[device.as_path()] - pe_start.0) / extent;
                }
                Step::LvCreate { size, .. } => need += size.0.div_ceil(extent),
                Step::ThinPoolCreate { size, metadata_size, .. } => {
                    need += size.0.div_ceil(extent) + metadata_size.0.div_ceil(extent);
                    spare = spare.max(metadata_size.0.div_ceil(extent));
                }
                Step::MakeExt4 { fs, .. } => {
                    if let Some(Node::Ext4(saved)) = layout.nodes.get(&NodeId::fs(&fs.uuid)) {
                        match saved.used {
                            Some(used) if fs.size < saved.size => prop_assert!(fs.size.0 > used.0 + used.0 / 10),
                            _ => prop_assert_eq!(fs.size, saved.size),
                        }
                    }
                }
                _ => {}
            }
        }
        for (_, node) in layout.children(&NodeId::vg("vg")) {
            if let Node::LogicalVolume(lv) = node {
                if lv.name.starts_with("vm-") {
                    need += lv.size.0 / extent;
                }
            }
        }
        prop_assert!(need + spare <= room, "{} and {} extents of {}", need, spare, room);
        // Nothing shrinks while there is room for all of it.
        let whole: u64 = layout.nodes.values().map(|n| match n { Node::PhysicalVolume(pv) => pv.size.0, _ => 0 }).sum();
        if room * extent >= whole {
            for (name, mib) in volumes(&made) {
                let saved = match layout.nodes.get(&NodeId::lv("vg", &name)) {
                    Some(Node::LogicalVolume(lv)) => lv.size.0,
                    Some(Node::ThinPool(pool)) => pool.size.0,
                    _ => 0,
                };
                prop_assert!(mib << 20 >= saved, "{} has {} MiB", name, mib);
            }
        }
    }
}
