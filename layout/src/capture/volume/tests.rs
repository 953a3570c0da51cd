//! A machine with everything that LVM has, as LVM 2.03.16 reports it.

use crate::capture::capture;
use crate::capture::lvm::line;
use crate::model::{Layout, LogicalVolume, Node, NodeId, Segments, ThinPool};
use crate::system::{BlockDevice, Recorded};
use crate::units::Bytes;

fn machine(change: &dyn Fn(&str) -> String) -> Recorded {
    let mut sys = Recorded::new().file("/proc/self/mountinfo", "");
    for letter in ["a", "b", "c", "d"] {
        let name = format!("ubd{letter}");
        sys = sys
            .file(format!("/sys/class/block/{name}/size"), "524288")
            .device(BlockDevice {
                node: format!("/dev/{name}").into(),
                properties: [("ID_FS_TYPE".to_owned(), "LVM2_member".to_owned())].into(),
                name,
                ..BlockDevice::default()
            });
    }
    for (key, text) in [
        ("pv", include_str!("../../../tests/recorded/lvm-pvs.json")),
        ("vg", include_str!("../../../tests/recorded/lvm-vgs.json")),
        ("lv", include_str!("../../../tests/recorded/lvm-lvs.json")),
    ] {
        sys = sys.command(&line(key), &change(text));
    }
    sys
}

fn captured(change: &dyn Fn(&str) -> String) -> Layout {
    capture(&machine(change)).unwrap()
}

fn volume<'a>(layout: &'a Layout, name: &str) -> &'a LogicalVolume {
    match &layout.nodes[&NodeId::lv("vg", name)] {
        Node::LogicalVolume(lv) => lv,
        other => panic!("{name}: {other:?}"),
    }
}

fn pool<'a>(layout: &'a Layout, vg: &str, name: &str) -> &'a ThinPool {
    match &layout.nodes[&NodeId::lv(vg, name)] {
        Node::ThinPool(pool) => pool,
        other => panic!("{name}: {other:?}"),
    }
}

fn warned(layout: &Layout, words: &[&str]) {
    let said = layout
        .warnings
        .iter()
        .any(|w| words.iter().all(|word| w.contains(word)));
    assert!(said, "{words:?}: {:#?}", layout.warnings);
}

/// The physical volume on a disk.
fn pv(layout: &Layout, device: &str) -> NodeId {
    let found = layout.nodes.iter().find(|(_, node)| {
        matches!(node, Node::PhysicalVolume(pv)
            if layout.nodes[&pv.on].device() == Some(std::path::Path::new(device)))
    });
    found.unwrap().0.clone()
}

/// What a backup has for its own time is not the host's: with it, the layout is the same.
#[test]
fn snapshots_of_a_backup_are_not_there() {
    let plain = captured(&str::to_owned);
    let row = |name: &str, tag: &str| {
        format!(
            r#"{{"vg_name":"vg","vg_uuid":"EHSq6d-l8sk-jH8H-OoOg-hOPE-FfBU-IbRDEu","lv_name":"{name}","lv_uuid":"{name}",
            "lv_size":"16777216","lv_attr":"sri-a-s---","segtype":"linear","lv_tags":"{tag}","origin":"root"}},"#
        )
    };
    let with = |name: &str, tag: &str| {
        let layout = captured(&|text| {
            let rows = format!("\"lv\": [{}", row(name, tag));
            // The classic snapshot's space is not free meanwhile.
            text.replacen("\"lv\": [", &rows, 1)
                .replace("\"vg_free\": \"264241152\"", "\"vg_free\": \"247463936\"")
        });
        let Node::VolumeGroup(vg) = &layout.nodes[&NodeId::vg("vg")] else {
            panic!("no group");
        };
        (vg.free, layout)
    };
    let (free, layout) = with("lifeboat-snap-0a1b2c3d-1", "lifeboat-snapshot");
    assert_eq!(free, Bytes(264_241_152));
    assert_eq!(layout, plain);
    for (name, tag) in [("lifeboat-snap-mine", ""), ("daily", "lifeboat-snapshot")] {
        let (free, layout) = with(name, tag);
        assert_eq!(free, Bytes(247_463_936));
        warned(&layout, &[name, "snapshots are not restored"]);
    }
}

#[test]
fn caches_are_seen_through() {
    let layout = captured(&str::to_owned);
    let (slow, fast) = (pv(&layout, "/dev/ubda"), pv(&layout, "/dev/ubdb"));
    let root = volume(&layout, "root");
    assert_eq!(root.segments, Segments::Linear);
    assert_eq!(root.pvs, std::slice::from_ref(&slow));
    let cache = root.cache.as_ref().unwrap();
    assert_eq!(
        (cache.kind.as_str(), cache.name.as_str()),
        ("cache", "fast")
    );
    assert!(!cache.pool);
    assert_eq!(cache.size, Bytes::mib(32));
    assert_eq!(cache.chunk_size, Bytes(65536));
    assert_eq!(
        (cache.mode.as_str(), cache.policy.as_str()),
        ("writethrough", "smq")
    );
    assert_eq!(cache.pvs, std::slice::from_ref(&fast));

    let cache = volume(&layout, "var").cache.as_ref().unwrap();
    assert_eq!((cache.name.as_str(), cache.pool), ("cpool", true));
    assert_eq!(cache.metadata_size, Bytes::mib(8));
    assert_eq!(cache.chunk_size, Bytes(131_072));
    assert_eq!(cache.mode, "writeback");

    let cache = volume(&layout, "srv").cache.as_ref().unwrap();
    assert_eq!(
        (cache.kind.as_str(), cache.name.as_str()),
        ("writecache", "wlog")
    );
    assert_eq!(cache.size, Bytes::mib(32));
    assert!(cache.mode.is_empty());

    warned(&layout, &["vg/unused", "cache-pool", "attached to nothing"]);
}

#[test]
fn pools_keep_what_is_set_for_them() {
    let layout = captured(&str::to_owned);
    let data = pool(&layout, "vg", "data");
    assert!(matches!(&data.segments, Segments::Raid { level, .. } if level == "raid1"));
    assert!(matches!(&data.metadata_segments, Segments::Raid { .. }));
    assert_eq!(data.pvs.len(), 2);
    assert_eq!(data.metadata_pvs, data.pvs);
    assert_eq!(data.chunk_size, Bytes(196_608));
    assert_eq!(data.discards, "ignore");
    assert!(data.error_when_full && !data.zero);
    let p2 = pool(&layout, "g-2", "p2");
    assert_eq!(p2.segments, Segments::Linear);
    assert!(p2.zero && p2.spare && !p2.error_when_full);
    assert!(p2.pvs.is_empty());
    assert!(matches!(
        &layout.nodes[&NodeId::lv("vg", "vm-100-disk-0")],
        Node::ThinVolume(_)
    ));
}

#[test]
fn settings_are_kept() {
    let layout = captured(&str::to_owned);
    let attr = volume(&layout, "attr");
    assert_eq!(attr.tags, ["a", "b", "c"]);
    assert_eq!(attr.settings.allocation.as_deref(), Some("contiguous"));
    assert_eq!(attr.settings.read_ahead, Some(Bytes(131_072)));
    assert!(!attr.settings.autoactivation && attr.settings.skip_activation);
    let ro = volume(&layout, "ro");
    assert!(!ro.writeable && ro.settings.autoactivation && !ro.settings.skip_activation);
    assert_eq!(ro.settings.read_ahead, Some(Bytes(0)));
    assert_eq!(volume(&layout, "root").settings, Default::default());
    let Node::VolumeGroup(vg) = &layout.nodes[&NodeId::vg("vg")] else {
        panic!("no group");
    };
    assert_eq!(vg.settings.allocation.as_deref(), Some("cling"));
    assert_eq!(
        (vg.settings.max_volumes, vg.settings.max_physical_volumes),
        (40, 8)
    );
    assert!(!vg.settings.autoactivation);
    let Node::VolumeGroup(other) = &layout.nodes[&NodeId::vg("g-2")] else {
        panic!("no group");
    };
    assert_eq!(other.settings, Default::default());
    assert_eq!(other.extent_size, Bytes(640 << 10));
    let Node::PhysicalVolume(third) = &layout.nodes[&pv(&layout, "/dev/ubdc")] else {
        panic!("no physical volume");
    };
    assert_eq!(third.tags, ["b", "fast"]);
    assert!(!third.allocatable);
    warned(&layout, &["vg/integ", "checksums"]);
}

#[test]
fn what_a_missing_disk_takes_along_is_named() {
    // The second disk is gone, as LVM says it.
    let layout = captured(&|text| text.replace("/dev/ubdb", "[unknown]"));
    assert!(matches!(
        &layout.nodes[&NodeId::lv("vg", "data")],
        Node::ThinPool(_)
    ));
    warned(&layout, &["vg/data", "missing"]);
    warned(&layout, &["vg/root", "without a cache"]);
    assert_eq!(volume(&layout, "root").cache, None);
    // Other volumes of the first disk are there.
    assert_eq!(volume(&layout, "root").segments, Segments::Linear);
}

#[test]
fn a_volume_of_a_kind_to_come_is_not_restored_and_that_is_said() {
    let layout = captured(&|text| text.replace("\"writecache\"", "\"newcache\""));
    assert!(matches!(
        &layout.nodes[&NodeId::lv("vg", "srv")],
        Node::Unsupported(_)
    ));
    warned(&layout, &["vg/srv", "newcache", "not restored"]);
}

#[test]
fn a_group_that_is_not_shown_is_named() {
    let none = r#"{"report":[{"vg":[]}]}"#;
    let layout = captured(&|text| {
        if text.contains("\"vg_extent_size\"") {
            none.to_owned()
        } else {
            text.to_owned()
        }
    });
    warned(&layout, &["/dev/ubda", "does not show the volume group"]);
}

#[test]
fn a_report_that_failed_is_no_empty_report() {
    use crate::system::Output;
    let mut sys = machine(&str::to_owned);
    let failed = Output {
        stdout: b"{\"report\": []}".to_vec(),
        stderr: b"  Unrecognised field: lv_autoactivation\n".to_vec(),
        status: 5,
        ..Output::default()
    };
    sys.commands.insert(line("lv"), failed.clone());
    let older = line("lv").replace(",lv_autoactivation", "");
    sys.commands.insert(older.clone(), failed);
    let error = capture(&sys).unwrap_err().to_string();
    assert!(error.contains("Unrecognised field"), "{error}");
    // LVM before 2.03.12 is asked without.
    let text = include_str!("../../../tests/recorded/lvm-lvs.json");
    let layout = capture(&sys.command(&older, text)).unwrap();
    assert!(layout.nodes.contains_key(&NodeId::lv("vg", "root")));
}
