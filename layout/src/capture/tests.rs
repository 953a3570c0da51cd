//! What is met and not supported is named, with what it means for a restore; what is supported is not.

use std::path::Path;

use super::capture;
use crate::model::{Layout, Node, NodeId, Table};
use crate::system::{BlockDevice, Recorded};

fn device(name: &str, parent: Option<&str>) -> BlockDevice {
    BlockDevice {
        name: name.to_owned(),
        node: Path::new("/dev").join(name),
        parent: parent.map(str::to_owned),
        ..BlockDevice::default()
    }
}

/// A machine that runs from memory, with block devices and what blkid says of each.
fn machine(devices: &[(&str, Option<&str>, &str)]) -> Recorded {
    let mut sys =
        Recorded::new().file("/proc/self/mountinfo", "22 1 0:20 / / rw - tmpfs none rw\n");
    for (name, parent, probe) in devices {
        sys = sys
            .device(device(name, *parent))
            .file(format!("/sys/class/block/{name}/size"), "204800")
            .command(&format!("blkid -p -o udev /dev/{name}"), probe);
        if let Some(number) = parent.and_then(|parent| name.strip_prefix(parent)) {
            sys = sys.file(format!("/sys/class/block/{name}/partition"), number);
        }
    }
    sys
}

fn names(layout: &Layout, device: &str, what: &str) -> bool {
    layout
        .warnings
        .iter()
        .any(|w| w.contains(device) && w.contains(what))
}

#[test]
fn unsupported_contents_are_named() {
    for what in [
        "bcache",
        "drbd",
        "mpath_member",
        "ceph_bluestore",
        "stratis",
    ] {
        let layout = capture(&machine(&[("sda", None, &format!("ID_FS_TYPE={what}\n"))])).unwrap();
        assert!(
            names(&layout, "/dev/sda", what),
            "{what}: {:?}",
            layout.warnings
        );
        assert!(matches!(
            layout.nodes.get(&NodeId::other("sda")),
            Some(Node::Unsupported(_))
        ));
    }
}

#[test]
fn devices_made_of_others_are_no_disks() {
    let mut sys = machine(&[
        ("sda", None, "ID_FS_TYPE=bcache\n"),
        ("bcache0", None, "ID_FS_TYPE=ext4\n"),
        ("dm-0", None, "ID_FS_TYPE=ext4\n"),
        ("zram0", None, "ID_FS_TYPE=swap\n"),
    ]);
    sys = sys
        .file(
            "/sys/class/block/dm-0/dm/uuid",
            "mpath-3600508b400105e210000900000490000",
        )
        .file("/sys/class/block/dm-0/dm/name", "mpatha");
    let layout = capture(&sys).unwrap();
    assert_eq!(layout.disks().count(), 1);
    assert!(
        names(&layout, "/dev/bcache0", "not restored"),
        "{:?}",
        layout.warnings
    );
    assert!(
        names(&layout, "/dev/dm-0", "multipath"),
        "{:?}",
        layout.warnings
    );
    assert!(
        !layout.warnings.iter().any(|w| w.contains("zram")),
        "{:?}",
        layout.warnings
    );
}

/// An MBR with a partition for BSD and an extended one.
fn table() -> Vec<u8> {
    let mut disk = vec![0; 8192 * 512];
    disk[440..444].copy_from_slice(&[0x3c, 0x5a, 0x0f, 0x5e]);
    for (slot, kind, start, sectors) in [(0, 0xa5, 63u32, 1000u32), (1, 0x05, 2048, 6000)] {
        let at = 446 + 16 * slot;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

#[test]
fn partitions_inside_of_partitions_are_named() {
    let sys = machine(&[
        ("sda", None, "ID_PART_TABLE_TYPE=dos\n"),
        ("sda1", Some("sda"), "ID_PART_TABLE_TYPE=bsd\n"),
        ("sda2", Some("sda"), ""),
        ("sda5", Some("sda"), "ID_FS_TYPE=ufs\n"),
    ])
    .file("/dev/sda", table());
    let layout = capture(&sys).unwrap();
    let Some(Node::Disk(disk)) = layout.nodes.get(&NodeId::disk("5e0f5a3c")) else {
        panic!("{:?}", layout.nodes);
    };
    assert!(matches!(&disk.table, Some(Table::Mbr(t)) if t.signature == "5e0f5a3c"));
    assert!(layout.nodes.contains_key(&NodeId::partition("5e0f5a3c-02")));
    assert!(
        names(&layout, "/dev/sda5", "inside of another"),
        "{:?}",
        layout.warnings
    );
    assert!(
        names(&layout, "/dev/sda1", "(bsd)"),
        "{:?}",
        layout.warnings
    );
    assert_eq!(layout.warnings.len(), 2, "{:?}", layout.warnings);
}

#[test]
fn the_second_of_two_disks_with_one_signature_is_named() {
    let sys = machine(&[
        ("sda", None, "ID_PART_TABLE_TYPE=dos\n"),
        ("sdb", None, "ID_PART_TABLE_TYPE=dos\n"),
    ])
    .file("/dev/sda", table())
    .file("/dev/sdb", table());
    let layout = capture(&sys).unwrap();
    assert!(
        names(&layout, "/dev/sdb", "signature of another disk"),
        "{:?}",
        layout.warnings
    );
}
