//! The planner on layouts with ZFS pools.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;

use build::{blanks, by_name, in_order, saved};
use layout::model::{Layout, Node, NodeId, VdevRole, ZfsPool};
use layout::plan::{Choices, Grow, Plan, PlanError, Step, plan};

/// Plans with the first saved disks mapped to the first present ones.
fn planned(layout: &Layout, mib: &[u64], mapped: usize, grow: Grow) -> Result<Plan, PlanError> {
    let choices = Choices {
        grow,
        ..in_order(by_name(layout).into_iter().take(mapped))
    };
    plan(layout, &blanks(mib), &choices)
}

fn words(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(ToString::to_string).collect()
}

fn pool<'a>(layout: &'a mut Layout, name: &str) -> &'a mut ZfsPool {
    match layout.nodes.get_mut(&NodeId::pool(name)) {
        Some(Node::ZfsPool(pool)) => pool,
        _ => panic!("no pool"),
    }
}

#[test]
fn a_mirror_is_made_before_its_datasets_and_exported_last() {
    let layout = saved("zfs-mirror-root");
    let plan = planned(&layout, &[1000, 1000, 1000], 2, Grow::Nothing).unwrap();
    let words = words(&plan);
    let at = |what: &str| {
        words
            .iter()
            .position(|w| w.starts_with(what))
            .unwrap_or_else(|| panic!("no step {what} in {words:#?}"))
    };
    let order = [
        "Make ZFS pool rpool: mirror /dev/sda3, /dev/sdb3",
        "Make ZFS filesystem rpool/ROOT",
        "Make ZFS filesystem rpool/ROOT/pve-1",
        "Mount rpool/ROOT/pve-1 as /",
        "Restore the files of /",
        "Mount rpool as /rpool",
        "Mount rpool/ROOT as /rpool/ROOT",
        "Mount rpool/var-lib-vz as /var/lib/vz",
        "Make pool rpool known to the restored host",
        "Set readonly=on on rpool/archive",
        "Unmount everything",
        "Export pool rpool",
    ];
    let places: Vec<usize> = order.iter().map(|what| at(what)).collect();
    assert!(places.is_sorted(), "{places:?} in {words:#?}");
    assert_eq!(places.last(), Some(&(words.len() - 1)));
    for absent in ["vm-100", "subvol-101", "rpool/secret"] {
        assert!(!words.iter().any(|w| w.contains(absent)), "{absent}");
        assert!(plan.notes.iter().any(|n| n.contains(absent)), "{absent}");
    }
    // Read-only from the start, nothing could be restored into it.
    let archive = plan.steps.iter().find_map(|step| match step {
        Step::ZfsCreate { name, properties } if name == "rpool/archive" => Some(properties),
        _ => None,
    });
    assert_eq!(archive.map(|p| p.len()), Some(0));
    for tool in ["zfs", "zpool", "zdb"] {
        assert!(plan.tools.iter().any(|t| t == tool), "{tool}");
    }
}

#[test]
fn devices_that_hold_no_data_are_left_out_where_their_disk_is_not_mapped() {
    let layout = saved("zfs-raidz2-special-log");
    // The fifth disk has a cache only: it is none of the system, and not asked for.
    assert_eq!(layout.system_disks().len(), 4);
    let all = planned(&layout, &[1400, 1400, 1400, 1400, 500], 5, Grow::Nothing).unwrap();
    let vdevs = |plan: &Plan| {
        plan.steps
            .iter()
            .find_map(|step| match step {
                Step::ZpoolCreate { vdevs, .. } => {
                    Some(vdevs.iter().map(|v| v.role).collect::<Vec<_>>())
                }
                _ => None,
            })
            .unwrap()
    };
    use VdevRole::{Cache, Data, Log, Spare, Special};
    assert_eq!(vdevs(&all), [Data, Special, Log, Cache, Cache, Spare]);
    assert!(!all.notes.iter().any(|n| n.contains("is made without")));
    let four = planned(&layout, &[1400, 1400, 1400, 1400], 4, Grow::Nothing).unwrap();
    assert_eq!(vdevs(&four), [Data, Special, Log, Cache, Spare]);
    assert!(
        four.notes
            .iter()
            .any(|n| n.contains("is made without cache single of 1")),
        "{:?}",
        four.notes
    );
    // None of them is taken for a partition that holds something unknown.
    assert!(layout.unknown_partitions().is_empty());
}

#[test]
fn a_smaller_disk_is_enough_as_long_as_what_is_in_use_fits() {
    let layout = saved("zfs-mirror-root");
    let smaller = planned(&layout, &[600, 600], 2, Grow::Nothing).unwrap();
    let ends: Vec<u64> = smaller
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::WriteGpt { partitions, .. } => partitions.last().map(|p| p.end.0),
            _ => None,
        })
        .collect();
    assert!(
        ends.len() == 2 && ends.iter().all(|end| *end < 600 << 11),
        "{ends:?}"
    );
    assert!(
        smaller
            .substitutions
            .iter()
            .any(|s| s.node == NodeId::pool("rpool") && s.what == "size")
    );
    match planned(&layout, &[200, 200], 2, Grow::Nothing) {
        Err(PlanError::TooSmall { missing, .. }) => assert!(missing.0 > 0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bigger_disk_is_used_where_the_root_is_to_grow() {
    let layout = saved("zfs-mirror-root");
    let end = |grow: Grow| {
        let plan = planned(&layout, &[2000, 2000], 2, grow).unwrap();
        plan.steps
            .iter()
            .find_map(|step| match step {
                Step::WriteGpt { partitions, .. } => partitions.last().map(|p| p.end.0),
                _ => None,
            })
            .unwrap()
    };
    let saved = 2048 + 900 * 2048 - 1;
    assert_eq!(end(Grow::Nothing), saved);
    assert!(end(Grow::Root) > saved + 900 * 2048, "{}", end(Grow::Root));
}

#[test]
fn a_raidz_that_was_not_whole_is_refused_and_half_a_mirror_is_made() {
    let mut layout = saved("zfs-raidz1");
    pool(&mut layout, "tank").vdevs[0].missing = 1;
    let error = planned(&layout, &[1000, 1000, 1000], 3, Grow::Nothing).unwrap_err();
    assert!(error.to_string().contains("replace the disk"), "{error}");

    let mut layout = saved("zfs-mirror-root");
    let vdev = &mut pool(&mut layout, "rpool").vdevs[0];
    vdev.missing = 1;
    let gone = vdev.members.pop().unwrap();
    layout.nodes.remove(&gone);
    let plan = planned(&layout, &[1000], 1, Grow::Nothing).unwrap();
    let words = words(&plan);
    assert!(
        words
            .iter()
            .any(|w| w == "Make ZFS pool rpool: single /dev/sda3"),
        "{words:#?}"
    );
    assert!(plan.notes.iter().any(|n| n.contains("zpool attach")));
}

#[test]
fn a_root_that_is_encrypted_is_refused() {
    let mut layout = saved("zfs-mirror-root");
    for node in layout.nodes.values_mut() {
        if let Node::ZfsDataset(dataset) = node {
            dataset.encrypted |= dataset.name == "rpool/ROOT/pve-1";
        }
    }
    let error = planned(&layout, &[1000, 1000], 2, Grow::Nothing).unwrap_err();
    assert!(error.to_string().contains("encrypted"), "{error}");
}

fn set<'a>(layout: &'a mut Layout, name: &str) -> &'a mut layout::model::ZfsDataset {
    match layout.nodes.get_mut(&NodeId::dataset(name)) {
        Some(Node::ZfsDataset(dataset)) => dataset,
        _ => panic!("no dataset {name}"),
    }
}

#[test]
fn a_smaller_pool_promises_no_space() {
    let mut layout = saved("zfs-mirror-root");
    let root = set(&mut layout, "rpool/ROOT/pve-1");
    root.properties
        .insert("reservation".to_owned(), "512M".to_owned());
    let made_with = |plan: &Plan| {
        plan.steps.iter().any(|step| {
            matches!(step, Step::ZfsCreate { name, properties }
                if name == "rpool/ROOT/pve-1" && properties.contains_key("reservation"))
        })
    };
    let same = planned(&layout, &[1000, 1000], 2, Grow::Nothing).unwrap();
    assert!(made_with(&same));
    let smaller = planned(&layout, &[600, 600], 2, Grow::Nothing).unwrap();
    assert!(!made_with(&smaller));
    assert!(smaller.notes.iter().any(|n| n.contains("512M")));
    assert!(smaller.substitutions.iter().any(|s| {
        s.node == NodeId::dataset("rpool/ROOT/pve-1") && s.what == "properties.reservation"
    }));
}

#[test]
fn what_an_encrypted_dataset_has_is_not_asked_of_a_plain_one() {
    // The first dataset of the pool is encrypted, and what is below it is not.
    let mut layout = saved("zfs-mirror-root");
    let top = set(&mut layout, "rpool");
    top.encrypted = true;
    for (name, value) in [
        ("keylocation", "prompt"),
        ("encryption", "aes-256-gcm"),
        ("atime", "off"),
    ] {
        top.properties.insert(name.to_owned(), value.to_owned());
    }
    let plan = planned(&layout, &[1000, 1000], 2, Grow::Nothing).unwrap();
    let root = plan.steps.iter().find_map(|step| match step {
        Step::ZpoolCreate { root, .. } => Some(root),
        _ => None,
    });
    let root = root.unwrap();
    assert_eq!(root.get("atime").map(String::as_str), Some("off"));
    for name in ["keylocation", "encryption"] {
        assert!(!root.contains_key(name), "{name}");
    }
    let accepted = |id: &NodeId| {
        plan.substitutions
            .iter()
            .any(|s| s.node == *id && s.what == "*")
    };
    assert!(accepted(&NodeId::dataset("rpool")));
    assert!(
        plan.notes
            .iter()
            .any(|n| n.contains("rpool") && n.contains("without encryption")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn a_dataset_has_a_parent_although_that_was_encrypted() {
    let mut layout = saved("zfs-mirror-root");
    set(&mut layout, "rpool/secret").encrypted = true;
    let mut inner = set(&mut layout, "rpool/archive").clone();
    inner.name = "rpool/secret/plain".into();
    layout
        .nodes
        .insert(NodeId::dataset(&inner.name), Node::ZfsDataset(inner));
    set(&mut layout, "rpool/secret")
        .properties
        .insert("keylocation".into(), "prompt".into());
    let plan = planned(&layout, &[1000, 1000], 2, Grow::Nothing).unwrap();
    let made: Vec<(&str, bool)> = plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::ZfsCreate { name, properties } if name.starts_with("rpool/secret") => {
                assert!(!properties.contains_key("keylocation"));
                let off = properties.get("canmount").is_some_and(|v| v == "off");
                Some((name.as_str(), off))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        made,
        [("rpool/secret", true), ("rpool/secret/plain", false)]
    );
}

#[test]
fn forged_names_are_refused() {
    type Forge = fn(&mut Layout);
    let forged: [Forge; 5] = [
        |layout| {
            let file = "/etc/ld.so.preload".to_owned();
            pool(layout, "rpool")
                .properties
                .insert("cachefile".to_owned(), file);
        },
        |layout| {
            let place = "/../../etc".to_owned();
            let archive = set(layout, "rpool/archive");
            archive.properties.insert("mountpoint".to_owned(), place);
        },
        |layout| pool(layout, "rpool").name = "-f".to_owned(),
        |layout| pool(layout, "rpool").features.push("x=y -o z".to_owned()),
        |layout| {
            for node in layout.nodes.values_mut() {
                if let Node::ZfsDataset(dataset) = node {
                    dataset.name = dataset.name.replace("rpool/data", "other/data");
                }
            }
        },
    ];
    for (n, forge) in forged.iter().enumerate() {
        let mut layout = saved("zfs-mirror-root");
        forge(&mut layout);
        assert!(
            planned(&layout, &[1000, 1000], 2, Grow::Nothing).is_err(),
            "forgery {n}"
        );
    }
}

#[test]
fn a_pool_of_the_same_name_on_a_disk_that_stays_is_named() {
    let layout = saved("zfs-mirror-root");
    let mut present = blanks(&[1000, 1000, 1000]);
    present.disks[2].contents = vec!["member of ZFS pool 'rpool'".to_owned()];
    let plan = plan(&layout, &present, &in_order(by_name(&layout))).unwrap();
    assert!(
        plan.notes.iter().any(|n| n.contains("two of that name")),
        "{:?}",
        plan.notes
    );
}
