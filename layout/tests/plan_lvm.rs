//! The planner on LVM's layouts: kinds of volumes, places, growth, refusals.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;

use std::path::PathBuf;

use build::{blanks, by_name, in_order, saved};
use layout::model::{Layout, LogicalVolume, Node, NodeId, Segments};
use layout::plan::{Plan, PlanError, Step, plan};
use layout::units::Bytes;

/// Plans for disks of these sizes in MiB; the first takes the place of the first saved one, and so on.
fn planned(layout: &Layout, mib: &[u64]) -> Result<Plan, PlanError> {
    // Their numbers end with their place.
    plan(layout, &blanks(mib), &in_order(by_name(layout)))
}

fn sizes(layout: &Layout) -> Vec<u64> {
    let mut disks: Vec<_> = layout.disks().map(|(_, disk)| disk).collect();
    disks.sort_by_key(|disk| disk.device.clone());
    disks.iter().map(|disk| disk.size.0 >> 20).collect()
}

fn volume<'a>(layout: &'a mut Layout, name: &str) -> &'a mut LogicalVolume {
    let found = layout.nodes.values_mut().find_map(|node| match node {
        Node::LogicalVolume(lv) if lv.name == name => Some(lv),
        _ => None,
    });
    found.unwrap()
}

/// Name, size, kind and places of the volumes in the order in which they are made.
fn made(plan: &Plan) -> Vec<(String, Bytes, Segments, Vec<String>)> {
    let place = |p: &PathBuf| p.to_string_lossy().into_owned();
    let steps = plan.steps.iter().filter_map(|step| match step {
        Step::LvCreate {
            name,
            size,
            segments,
            pvs,
            ..
        }
        | Step::ThinPoolCreate {
            name,
            size,
            segments,
            pvs,
            ..
        } => Some((
            name.clone(),
            *size,
            segments.clone(),
            pvs.iter().map(place).collect(),
        )),
        _ => None,
    });
    steps.collect()
}

#[test]
fn a_mirrored_root_grows_by_what_both_disks_have() {
    let layout = saved("lvm-raid1");
    let root = |sizes: &[u64]| {
        let plan = planned(&layout, sizes).unwrap();
        let (_, size, segments, pvs) = made(&plan).remove(0);
        assert!(matches!(segments, Segments::Raid { .. }), "{segments}");
        assert_eq!(pvs, ["/dev/sda2", "/dev/sdb2"]);
        size
    };
    let same = root(&[1024, 1024]);
    assert_eq!(same, Bytes::mib(512));
    assert_eq!(root(&[1400, 1024]), same);
    let more = root(&[1400, 1200]);
    assert!(more > same && more <= Bytes::mib(512 + 176), "{more}");
    assert_eq!(root(&[1200, 1400]), more);
}

#[test]
fn striped_and_parity_volumes_grow_by_whole_stripes() {
    let layout = saved("lvm-raid5");
    let plan = planned(&layout, &[840, 840, 840]).unwrap();
    let root = made(&plan).into_iter().find(|v| v.0 == "root").unwrap();
    // 50 extents more on each of the two data images.
    assert_eq!(root.1, Bytes::mib(512 + 2 * 200));
    assert_eq!(root.1.0 % (2 * (4 << 20)), 0);
}

#[test]
fn volumes_with_a_place_come_first_and_get_it() {
    let layout = saved("lvm-known-places");
    let plan = planned(&layout, &sizes(&layout)).unwrap();
    let order: Vec<(String, Vec<String>)> = made(&plan)
        .into_iter()
        .map(|(name, _, _, pvs)| (name, pvs))
        .collect();
    let order: Vec<(&str, String)> = order
        .iter()
        .map(|(name, pvs)| (name.as_str(), pvs.join(" ")))
        .collect();
    assert_eq!(
        order,
        [
            ("root", "/dev/sda1".to_owned()),
            ("z-fills-the-second", "/dev/sdb".to_owned()),
            ("data", "/dev/sdc".to_owned()),
            ("a-spans", String::new()),
        ]
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    for (name, mib) in [("z-fills-the-second", 256), ("a-spans", 512)] {
        let mut layout = saved("lvm-known-places");
        let sizes = sizes(&layout);
        volume(&mut layout, name).size = Bytes::mib(mib);
        let error = planned(&layout, &sizes).unwrap_err();
        assert!(
            matches!(&error, PlanError::Unsupported { reason, .. } if reason.contains(&format!("{name} needs"))),
            "{error}"
        );
    }
}

#[test]
fn a_volume_whose_group_lacks_disks_is_made_linear_and_that_is_said() {
    let layout = saved("lvm-raid1-alone");
    let plan = planned(&layout, &sizes(&layout)).unwrap();
    assert_eq!(made(&plan)[0].2, Segments::Linear);
    let said = plan.notes.iter().any(|note| {
        note.contains("pve/root") && note.contains("raid1 of 2 images") && note.contains("linear")
    });
    assert!(said, "{:?}", plan.notes);
    let id = NodeId::lv("pve", "root");
    let accepted = |what: &str| {
        plan.substitutions
            .iter()
            .any(|s| s.node == id && s.what == what)
    };
    assert!(accepted("segments"));
}

#[test]
fn damaged_documents_are_refused() {
    let refused = |change: &dyn Fn(&mut LogicalVolume), words: &str| {
        let mut layout = saved("lvm-raid5");
        let sizes = sizes(&layout);
        change(volume(&mut layout, "root"));
        let error = planned(&layout, &sizes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let raid = |level: &str, images, copies| Segments::Raid {
        level: level.to_owned(),
        images,
        copies,
        stripe_size: Bytes(65536),
        region_size: Bytes::MIB,
    };
    refused(
        &|lv| lv.pvs = vec![NodeId::pv("elsewhere")],
        "not in group vg-0",
    );
    refused(
        &|lv| lv.segments = raid("raid7", 3, 1),
        "no RAID called raid7",
    );
    refused(&|lv| lv.segments = raid("raid5", 0, 1), "cannot be");
    refused(&|lv| lv.segments = raid("raid10", 3, 2), "cannot be");
    refused(&|lv| lv.segments = raid("raid1", 2, 0), "cannot be");
    refused(&|lv| lv.size = Bytes::mib(508), "damaged");
    refused(&|lv| lv.size = Bytes(0), "damaged");
    refused(&|lv| lv.size = Bytes(u64::MAX), "needs");
}

#[test]
fn a_cache_comes_last_and_one_that_is_not_known_is_left_out() {
    let layout = saved("lvm-cache");
    let plan = planned(&layout, &sizes(&layout)).unwrap();
    let at = |wanted: fn(&Step) -> bool| plan.steps.iter().position(wanted).unwrap();
    let unmount = at(|s| matches!(s, Step::Unmount));
    let attach = at(|s| matches!(s, Step::CacheAttach { .. }));
    let last = at(|s| matches!(s, Step::Deactivate { .. }));
    assert!(unmount < attach && attach < last);
    assert!(plan.tools.iter().any(|t| t == "cache_check"));

    let mut layout = saved("lvm-cache");
    for name in ["root", "var", "srv"] {
        let cache = volume(&mut layout, name).cache.as_mut().unwrap();
        match name {
            "root" => cache.mode = "other".to_owned(),
            "var" => cache.kind = "newer".to_owned(),
            _ => cache.pvs = vec![NodeId::pv("missing")],
        }
    }
    let plan = planned(&layout, &sizes(&layout)).unwrap();
    assert!(
        !plan
            .steps
            .iter()
            .any(|s| matches!(s, Step::CacheAttach { .. }))
    );
    let said = plan
        .notes
        .iter()
        .filter(|n| n.contains("without its cache"));
    assert_eq!(said.count(), 3, "{:?}", plan.notes);

    let mut layout = saved("lvm-cache");
    volume(&mut layout, "root").cache.as_mut().unwrap().name = "../root".to_owned();
    let error = planned(&layout, &sizes(&layout)).unwrap_err().to_string();
    assert!(error.contains("leads elsewhere"), "{error}");
}

#[test]
fn settings_that_would_be_in_the_way_come_last() {
    let layout = saved("lvm-attributes");
    let plan = planned(&layout, &sizes(&layout)).unwrap();
    let Some(Step::VgSettings { settings, pvs, .. }) = plan.steps.iter().rev().nth(1) else {
        panic!("{:?}", plan.steps);
    };
    assert_eq!(settings.max_volumes, 5);
    assert_eq!(pvs.len(), 2);
    assert!(!pvs.iter().all(|pv| pv.allocatable));
    // Nothing of that where everything is as usual.
    let layout = saved("lvm-raid5");
    let plan = planned(&layout, &sizes(&layout)).unwrap();
    assert!(
        !plan
            .steps
            .iter()
            .any(|s| matches!(s, Step::VgSettings { .. }))
    );
}
