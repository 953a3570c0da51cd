//! Recorded machines with arrays on whole disks.

use super::*;
use crate::capture::capture;
use crate::model::Layout;
use crate::system::Recorded;

const UUID: &str = "7c8e9b5a:11223344:55667788:99aabbcc";
const EXPORT: &str = include_str!("../../../tests/recorded/mdadm-detail-export.txt");

fn device(name: &str, fstype: &str, uuid: &str) -> BlockDevice {
    let properties = [("ID_FS_TYPE", fstype), ("ID_FS_UUID_ENC", uuid)];
    BlockDevice {
        name: name.to_owned(),
        node: Path::new("/dev").join(name),
        parent: None,
        properties: properties.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
    }
}

/// Two disks with the metadata of an array.
fn disks() -> Recorded {
    let mut sys =
        Recorded::new().file("/proc/self/mountinfo", "22 1 0:20 / / rw - tmpfs none rw\n");
    for name in ["sda", "sdb"] {
        let uuid = "7c8e9b5a-1122-3344-5566-778899aabbcc";
        sys = sys
            .device(device(name, "linux_raid_member", uuid))
            .file(format!("/sys/class/block/{name}/size"), "2097152");
    }
    sys
}

/// The same with the array running; `members`: name, slot, state.
fn running(members: &[(&str, &str, &str)]) -> Recorded {
    let mut sys = disks()
        .device(device("md0", "swap", "5eed"))
        .file("/sys/class/block/md0/size", "2093056")
        .command("mdadm --detail --export /dev/md0", EXPORT);
    for (file, text) in [
        ("array_state", "clean\n"),
        ("level", "raid1"),
        ("raid_disks", "2"),
        ("metadata_version", "1.2"),
        ("chunk_size", "0"),
        ("layout", "0"),
        ("component_size", "1046528"),
        ("reshape_position", "none"),
        ("consistency_policy", "bitmap"),
        ("bitmap/location", "+8"),
        ("bitmap/chunksize", "67108864"),
    ] {
        sys = sys.file(format!("/sys/class/block/md0/md/{file}"), text);
    }
    for (name, slot, state) in members {
        let dir = format!("/sys/class/block/md0/md/dev-{name}");
        sys = sys
            .file(format!("{dir}/slot"), *slot)
            .file(format!("{dir}/state"), *state)
            .file(format!("{dir}/offset"), "2048")
            .file(format!("/sys/class/block/md0/slaves/{name}"), "");
    }
    sys
}

fn array(layout: &Layout) -> &RaidArray {
    match &layout.nodes[&NodeId::raid(UUID)] {
        Node::RaidArray(array) => array,
        other => panic!("{other:?}"),
    }
}

fn slots(layout: &Layout) -> Vec<(&str, Option<u32>)> {
    let members = array(layout).members.iter();
    members.map(|m| (m.on.as_str(), m.slot)).collect()
}

#[test]
fn a_mirror_is_understood() {
    let layout = capture(&running(&[
        ("sdb", "0", "in_sync"),
        ("sda", "1", "in_sync,write_mostly"),
    ]))
    .unwrap();
    let found = array(&layout);
    assert_eq!(
        slots(&layout),
        [("disk:sdb", Some(0)), ("disk:sda", Some(1))]
    );
    assert_eq!(
        (found.name.as_str(), found.level.as_str()),
        ("pve:0", "raid1")
    );
    assert_eq!(found.component_size, Bytes(1_046_528 * 1024));
    assert_eq!(found.bitmap_chunk, Some(Bytes::mib(64)));
    assert_eq!(found.members[0].data_offset, Bytes::MIB);
    assert_eq!(found.layout, None);
    assert!(!found.members[0].write_mostly && found.members[1].write_mostly);
    assert_eq!(
        layout.nodes[&NodeId::swap("5eed")].on(),
        [NodeId::raid(UUID)]
    );
    assert!(layout.warnings.is_empty(), "{:?}", layout.warnings);
}

#[test]
fn a_member_that_was_thrown_out_gets_its_slot_again() {
    for (members, words) in [
        (
            &[("sda", "0", "in_sync"), ("sdb", "none", "faulty")][..],
            "thrown out",
        ),
        // Removed, and its metadata are still there.
        (&[("sda", "0", "in_sync")], "thrown out"),
    ] {
        let layout = capture(&running(members)).unwrap();
        assert_eq!(
            slots(&layout),
            [("disk:sda", Some(0)), ("disk:sdb", Some(1))]
        );
        assert!(
            layout.warnings.len() == 1 && layout.warnings[0].contains(words),
            "{:?}",
            layout.warnings
        );
    }
}

#[test]
fn a_degraded_array_keeps_its_number_of_slots() {
    let mut sys = running(&[("sdb", "1", "in_sync")]);
    sys.devices.retain(|d| d.name != "sda");
    let layout = capture(&sys).unwrap();
    assert_eq!(slots(&layout), [("disk:sdb", Some(1))]);
    assert_eq!(
        (array(&layout).raid_devices, array(&layout).missing()),
        (2, 1)
    );
    assert!(
        layout.warnings[0].contains("degraded, 1 of 2"),
        "{:?}",
        layout.warnings
    );
}

#[test]
fn what_cannot_be_made_again_is_named() {
    let unsupported = |sys: &Recorded| -> Vec<String> {
        let layout = capture(sys).unwrap();
        let nodes = layout.nodes.into_values();
        nodes
            .filter_map(|node| match node {
                Node::Unsupported(what) => Some(format!("{}: {}", what.what, what.meaning)),
                _ => None,
            })
            .collect()
    };
    let stopped = unsupported(&disks());
    assert!(
        stopped.len() == 2 && stopped[0].contains("not running"),
        "{stopped:?}"
    );
    for (file, text, words) in [
        ("level", "linear", "level linear"),
        ("metadata_version", "0.90", "version 0.90"),
        ("reshape_position", "2048", "reshaped"),
        ("consistency_policy", "ppl", "ppl"),
        ("bitmap/location", "file", "bitmap in a file"),
    ] {
        let sys = running(&[("sda", "0", "in_sync"), ("sdb", "1", "in_sync")])
            .file(format!("/sys/class/block/md0/md/{file}"), text);
        let found = unsupported(&sys);
        assert!(
            found.len() == 1 && found[0].contains(words),
            "{file}: {found:?}"
        );
    }
}

#[test]
fn layouts_have_the_names_of_mdadm() {
    for (level, number, name) in [
        ("raid5", 2, Some("left-symmetric")),
        ("raid10", 0x102, Some("n2")),
        ("raid10", 0x301, Some("f3")),
        ("raid10", 0x1_0201, Some("o2")),
        ("raid0", 2, Some("alternate")),
        ("raid0", -1, None),
        ("raid1", 0, None),
    ] {
        assert_eq!(
            layout_name(level, number).unwrap().as_deref(),
            name,
            "{level}"
        );
    }
    for (level, number) in [
        ("raid5", 16),
        ("raid10", 0x202),
        ("raid10", -1),
        ("raid10", 0),
    ] {
        layout_name(level, number).unwrap_err();
    }
}
