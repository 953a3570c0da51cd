use super::*;
use crate::capture::capture;
use crate::model::Layout;
use crate::system::{BlockDevice, Recorded};

/// As `mkfs.btrfs -L 'root fs' -d raid1 -m raid1 -U 5e0f5a3c-... --csum xxhash` wrote it on the second of two devices.
const RECORDED: &[u8; 4096] = include_bytes!("../../../tests/recorded/btrfs-superblock.bin");

const UUID: &str = "5e0f5a3c-0000-4000-8000-000000000031";

#[test]
fn a_superblock_is_understood() {
    let found = parse_superblock(RECORDED).unwrap();
    assert_eq!(found.uuid, UUID);
    assert_eq!(found.label.as_deref(), Some("root fs"));
    assert_eq!(
        (
            found.devices,
            found.sector_size,
            found.node_size,
            found.checksum
        ),
        (2, 4096, 16384, "xxhash")
    );
    assert_eq!(
        found.features,
        ["extref", "free-space-tree", "no-holes", "skinny-metadata"]
    );
    assert_eq!((found.unknown, found.seeding), ((0, 0), false));
    assert_eq!(found.device, (2, 300 << 20));
    assert_eq!(found.total, 600 << 20);
    let mut newer = *RECORDED;
    newer[0xbc + 1] |= 0x20;
    assert_eq!(
        parse_superblock(&newer).unwrap().unknown,
        (1 << 13, 0),
        "unknown features are not passed over"
    );
    newer[0xc4] = 9;
    assert!(parse_superblock(&newer).is_err());
    assert!(parse_superblock(&[0; 4096]).is_err());
}

#[test]
fn lines_of_btrfs_are_understood() {
    let line = "ID 257 gen 9 top level 5 parent_uuid -                                    path @home/my path x";
    assert_eq!(parse_subvolume(line), Some((257, false, "@home/my path x")));
    let copy = "ID 300 gen 9 top level 256 parent_uuid 12345678-0000-4000-8000-000000000000 path @/.snapshots/1";
    assert_eq!(parse_subvolume(copy), Some((300, true, "@/.snapshots/1")));
    assert_eq!(parse_subvolume("ID 5 (FS_TREE)"), None);
    for (path, within) in [
        ("<FS_TREE>/@/srv", "@home"),
        ("@/srv", "@"),
        ("srv", "@"),
        ("@/srv", ""),
    ] {
        assert_eq!(from_top(path, within), "@/srv");
    }
}

/// The disk's first superblock, of device `number`.
fn device(number: u8) -> Vec<u8> {
    let mut disk = vec![0; 65_536];
    disk.extend(RECORDED);
    disk[65_536 + 0xc9] = number;
    disk
}

fn machine(mounts: &str) -> Recorded {
    let mut sys = Recorded::new()
        .file("/proc/self/mountinfo", mounts)
        .file(
            "/etc/fstab",
            format!("UUID={UUID} / btrfs subvol=@ 0 0\nUUID={UUID} /data btrfs subvol=@data 0 0\n"),
        )
        .command(
            "btrfs subvolume list -a -q /",
            "ID 256 gen 9 top level 5 parent_uuid - path <FS_TREE>/@\n\
             ID 257 gen 9 top level 5 parent_uuid - path <FS_TREE>/@home\n\
             ID 258 gen 9 top level 256 parent_uuid - path @/srv\n\
             ID 259 gen 9 top level 256 parent_uuid - path @/opt/covered\n\
             ID 260 gen 9 top level 256 parent_uuid 1 path @/.snapshots/1\n\
             ID 261 gen 9 top level 256 parent_uuid - path @/images/100/vm-100-disk-0\n\
             ID 262 gen 9 top level 5 parent_uuid - path <FS_TREE>/@data\n\
             ID 263 gen 9 top level 5 parent_uuid 1 path <FS_TREE>/.lifeboat-snapshots/lifeboat-snap-0a1b2c3d-1\n",
        )
        .command(
            "btrfs subvolume list -a -r /",
            "ID 260 gen 9 top level 256 path @/.snapshots/1\n",
        )
        .command(
            "btrfs subvolume get-default /",
            "ID 256 gen 9 top level 5 path @\n",
        );
    for (kind, profile, size) in [
        ("data", "raid1", "8192"),
        ("data", "single", "4096"),
        ("metadata", "raid1", "4096"),
    ] {
        let base = format!("/sys/fs/btrfs/{UUID}/allocation/{kind}");
        sys = sys
            .file(format!("{base}/total_bytes"), "1")
            .file(format!("{base}/{profile}/total_bytes"), size);
    }
    for (name, number) in [("sda", 2), ("sdb", 1)] {
        sys = sys
            .file(format!("/dev/{name}"), device(number))
            .file(format!("/sys/class/block/{name}/size"), "614400")
            .command(
                &format!("blkid -p -o udev /dev/{name}"),
                &format!("ID_FS_TYPE=btrfs\nID_FS_UUID_ENC={UUID}\n"),
            )
            .device(BlockDevice {
                name: name.into(),
                node: Path::new("/dev").join(name),
                ..BlockDevice::default()
            });
    }
    sys
}

/// `/`, `/home`, something over `/opt`, and a bind mount.
const MOUNTS: &str = "22 1 0:20 /@ / rw - btrfs /dev/sda rw,compress=zstd:3,subvolid=256,subvol=/@\n\
    23 22 0:20 /@home /home rw - btrfs /dev/sda rw,subvolid=257,subvol=/@home\n\
    24 22 0:20 /@/etc /bound rw - btrfs /dev/sda rw,subvolid=256,subvol=/@\n\
    25 22 0:30 / /opt rw - tmpfs none rw\n";

fn one(layout: &Layout) -> &Btrfs {
    match layout.nodes.get(&NodeId::fs(UUID)) {
        Some(Node::Btrfs(fs)) => fs,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_filesystem_over_two_disks_is_one_node_with_every_mount() {
    let layout = capture(&machine(MOUNTS)).unwrap();
    let fs = one(&layout);
    assert_eq!(fs.on, [NodeId::disk("sdb"), NodeId::disk("sda")]);
    assert_eq!(fs.sizes, [Bytes::mib(300), Bytes::mib(300)]);
    assert_eq!(
        (fs.data.as_deref(), fs.metadata.as_deref()),
        (Some("raid1"), Some("raid1"))
    );
    assert_eq!(fs.default_subvolume, "@");
    // Not that of a backup under way.
    assert_eq!(fs.subvolumes.len(), 7);
    assert!(fs.subvolumes["@/.snapshots/1"].read_only && fs.subvolumes["@/.snapshots/1"].snapshot);
    let places: Vec<_> = layout
        .filesystems_to_save()
        .iter()
        .map(|m| {
            (
                m.mount_point.display().to_string(),
                m.subvolume().unwrap().to_owned(),
            )
        })
        .collect();
    let own = |list: &[(&str, &str)]| {
        list.iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        places,
        own(&[("/", "@"), ("/home", "@home"), ("/srv", "@/srv")])
    );
    assert!(
        layout
            .mounts
            .iter()
            .any(|m| !m.mounted && m.subvolume() == Some("@data")),
        "{:?}",
        layout.mounts
    );
    assert_eq!(layout.system_disks().len(), 2);
}

#[test]
fn what_is_not_saved_of_it_is_named() {
    let layout = capture(&machine(MOUNTS)).unwrap();
    let named = |what: &str| layout.warnings.iter().filter(|w| w.contains(what)).count();
    assert_eq!(
        named("subvolume @data is not mounted"),
        1,
        "{:?}",
        layout.warnings
    );
    assert_eq!(named("subvolume @/opt/covered is not mounted"), 1);
    assert_eq!(named("data is in several profiles (single, raid1)"), 1);
    // Snapshots and guests are told of when the restore is planned.
    assert_eq!(layout.warnings.len(), 3, "{:?}", layout.warnings);
}

#[test]
fn without_its_tools_it_is_not_taken_for_known() {
    let mut sys = machine(MOUNTS);
    sys.commands.retain(|line, _| !line.starts_with("btrfs"));
    let layout = capture(&sys).unwrap();
    assert!(!layout.nodes.contains_key(&NodeId::fs(UUID)));
    assert!(
        layout.warnings[0].contains("is the program installed"),
        "{:?}",
        layout.warnings
    );
}

#[test]
fn a_missing_device_and_a_copied_one_are_named() {
    let sys = machine(MOUNTS).file("/dev/sdb", device(2));
    let layout = capture(&sys).unwrap();
    let named = |what: &str| layout.warnings.iter().any(|w| w.contains(what));
    assert!(
        named("it is a copy of a device") && named("1 of its 2 devices"),
        "{:?}",
        layout.warnings
    );
    assert_eq!(one(&layout).on.len(), 1);
}
