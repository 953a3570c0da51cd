use super::*;
use crate::capture::capture_at;
use crate::model::Layout;
use crate::system::Recorded;

const STATUS: &str = include_str!("../../../tests/recorded/zfs/status-rpool.txt");
const STATUS_TANK: &str = include_str!("../../../tests/recorded/zfs/status-tank.txt");
const LIST: &str = include_str!("../../../tests/recorded/zfs/list-rpool.txt");
const LIST_TANK: &str = include_str!("../../../tests/recorded/zfs/list-tank.txt");
const GET: &str = include_str!("../../../tests/recorded/zfs/get-rpool.txt");
const GET_ALTROOT: &str = include_str!("../../../tests/recorded/zfs/get-whole.txt");
const DATASETS: &str = include_str!("../../../tests/recorded/zfs/datasets-rpool.txt");
const PROPERTIES: &str = include_str!("../../../tests/recorded/zfs/properties-rpool.txt");
const LABEL: &str = include_str!("../../../tests/recorded/zfs/label-rpool.txt");

fn shown(text: &str) -> Vec<String> {
    let all = parse_status(text);
    all.iter()
        .map(|v| {
            let leaves: Vec<String> = v.leaves.iter().map(|(p, s)| format!("{p} {s}")).collect();
            format!("{} {}: {}", v.role, v.name, leaves.join(", "))
        })
        .collect()
}

#[test]
fn every_kind_of_vdev_is_seen() {
    assert_eq!(
        shown(STATUS_TANK),
        [
            "data raidz2-0: /dev/vdd1 ONLINE, /dev/vde1 ONLINE, /dev/vdf1 ONLINE, /dev/vdg1 ONLINE",
            "special mirror-1: /dev/vdd2 ONLINE, /dev/vde2 ONLINE",
            "log mirror-2: /dev/vdd3 ONLINE, /dev/vde3 ONLINE",
            "cache /dev/vdd4: /dev/vdd4 ONLINE",
            "spare /dev/vde4: /dev/vde4 AVAIL",
        ]
    );
    let used = parse_allocated(LIST_TANK);
    assert_eq!(used["raidz2-0"], Bytes(105_151_488));
    assert_eq!(used["mirror-1"], Bytes(240_128));
    let raidz = &parse_status(STATUS_TANK)[0];
    assert_eq!(share(raidz, "raidz2", &used), Some(Bytes(26_287_872)));
}

/// In the form of zpool's print_status_config (OpenZFS 2.1, cmd/zpool/zpool_main.c).
#[test]
fn what_is_missing_or_being_replaced_is_seen() {
    let text = "  pool: rpool\n state: DEGRADED\nconfig:\n\n\tNAME  STATE\n\trpool  DEGRADED 0 0 0\n\
                \t  mirror-0  DEGRADED 0 0 0\n\t    replacing-0  DEGRADED 0 0 0\n\t      /dev/sda3/old  UNAVAIL 0 0 0\n\
                \t      /dev/sdc3  ONLINE 0 0 0  (resilvering)\n\t    16875457214840469647  UNAVAIL 0 0 0  was /dev/sdb3\n\
                \t  /dev/sdd3  ONLINE 0 0 0\n\nerrors: No known data errors\n";
    assert_eq!(
        shown(text),
        [
            "data mirror-0: /dev/sdc3 ONLINE, 16875457214840469647 UNAVAIL",
            "data /dev/sdd3: /dev/sdd3 ONLINE",
        ]
    );
    for (name, expected) in [
        ("mirror-0", Some("mirror")),
        ("raidz3-12", Some("raidz3")),
        ("/dev/sda3", Some("single")),
        ("draid1:2d:4c:0s-0", None),
        ("indirect-0", None),
    ] {
        assert_eq!(kind(name), expected, "{name}");
    }
}

#[test]
fn host_ids_are_numbers_of_the_machine() {
    // The label of the same host says 2826704170.
    assert_eq!(
        parse_hostid(b"\x2a\x15\x7c\xa8").as_deref(),
        Some("a87c152a")
    );
    assert_eq!(u32::from_str_radix("a87c152a", 16), Ok(2_826_704_170));
    assert_eq!(parse_hostid(&[0; 4]), None);
    assert_eq!(parse_hostid(b"text"), Some("74786574".to_owned()));
    assert_eq!(parse_hostid(b"long text"), None);
}

#[test]
fn mount_points_are_those_of_the_host_itself() {
    for (value, altroot, expected) in [
        ("/altroot", "/altroot", "/"),
        ("/altroot/x", "/altroot", "/x"),
        ("/altroots", "/altroot", "/altroots"),
        ("legacy", "/altroot", "legacy"),
        ("/x", "", "/x"),
        ("/", "", "/"),
    ] {
        assert_eq!(below(value, altroot), expected);
    }
    assert_eq!(pool_property(GET_ALTROOT, "altroot"), Some("/altroot"));
}

/// The recorded pool, on two whole disks.
fn machine() -> Recorded {
    let mut sys = Recorded::new()
        .file(
            "/proc/self/mountinfo",
            "30 1 0:26 / / rw - zfs rpool/ROOT/pve-1 rw,xattr,posixacl\n\
             31 30 0:27 / /rpool rw - zfs rpool rw\n\
             32 30 0:28 / /rpool/data/subvol-101-disk-0 rw - zfs rpool/data/subvol-101-disk-0 rw\n\
             33 30 0:29 / /rpool/secret rw - zfs rpool/secret rw\n",
        )
        .file("/etc/fstab", "rpool/legacy /legacy zfs defaults 0 0\n")
        .file("/etc/hostid", b"\x2a\x15\x7c\xa8".to_vec())
        .command("zpool list -Hp -o name", "rpool\n");
    let whole = |text: &str| {
        text.replace("/dev/vdb1", "/dev/vdb")
            .replace("/dev/vdc1", "/dev/vdc")
    };
    for (line, text) in [
        ("zpool status -P rpool".to_owned(), STATUS),
        ("zpool list -HpvP rpool".to_owned(), LIST),
        ("zpool get -Hp all rpool".to_owned(), GET),
        ("zdb -l /dev/vdb".to_owned(), LABEL),
        (
            format!("zfs list -Hp -r -t filesystem,volume -o {COLUMNS} rpool"),
            DATASETS,
        ),
        (
            "zfs get -Hp -r -t filesystem,volume -s local,received -o name,property,value,source all rpool"
                .to_owned(),
            PROPERTIES,
        ),
    ] {
        sys = sys.command(&line, &whole(text));
    }
    for name in ["vdb", "vdc"] {
        sys = sys
            .device(BlockDevice {
                name: name.to_owned(),
                node: Path::new("/dev").join(name),
                parent: None,
                properties: [
                    ("ID_FS_TYPE", "zfs_member"),
                    ("ID_FS_LABEL", "rpool"),
                    ("ID_SERIAL", name),
                ]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            })
            .file(format!("/sys/class/block/{name}/size"), "1843200");
    }
    sys
}

fn captured(sys: &Recorded) -> Layout {
    capture_at(sys, Path::new("/"), None).unwrap()
}

#[test]
fn a_pool_is_captured() {
    let layout = captured(&machine());
    let Some(Node::ZfsPool(pool)) = layout.nodes.get(&NodeId::pool("rpool")) else {
        panic!("no pool in {:?}", layout.nodes.keys());
    };
    assert_eq!(pool.vdevs.len(), 1);
    assert_eq!(
        (pool.vdevs[0].kind.as_str(), pool.vdevs[0].ashift),
        ("mirror", Some(12))
    );
    assert_eq!(pool.bootfs.as_deref(), Some("rpool/ROOT/pve-1"));
    assert_eq!(pool.hostid.as_deref(), Some("a87c152a"));
    assert!(pool.properties.is_empty(), "{:?}", pool.properties);
    assert_eq!(pool.features.len(), 34);
    assert_eq!(layout.system_disks().len(), 2);
    let dataset = |name: &str| match layout.nodes.get(&NodeId::dataset(name)) {
        Some(Node::ZfsDataset(dataset)) => dataset.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(dataset("rpool").properties.len(), 3);
    assert_eq!(dataset("rpool/ROOT/pve-1").properties["acltype"], "posix");
    assert_eq!(dataset("rpool/odd").properties["casesensitivity"], "mixed");
    assert_eq!(
        dataset("rpool/odd").properties["com.example:note"],
        "hello world"
    );
    assert!(dataset("rpool/secret/inner").encrypted && !dataset("rpool/secret/inner").is_made());
    assert!(matches!(
        layout.nodes.get(&NodeId::dataset("rpool/data/vm-100-disk-0")),
        Some(Node::ZfsVolume(volume)) if volume.size == Bytes(104_857_600)
    ));
    let member = layout
        .nodes
        .get(&NodeId::zfs_member("rpool", VdevRole::Data, 0, 1));
    assert!(matches!(member, Some(Node::ZfsMember(m)) if m.used == Some(Bytes(54_407_168))));
    // Neither what a guest has nor what is encrypted becomes files of the host.
    let places: Vec<_> = layout
        .mounts
        .iter()
        .map(|m| m.mount_point.display().to_string())
        .collect();
    assert_eq!(places, ["/", "/legacy", "/rpool"]);
    assert!(
        layout
            .warnings
            .iter()
            .any(|w| w.contains("rpool/secret, rpool/secret/inner")),
        "{:?}",
        layout.warnings
    );
}

#[test]
fn a_pool_that_is_not_imported_is_named() {
    let mut sys = machine();
    sys.commands.remove("zpool list -Hp -o name");
    let layout = captured(&sys);
    assert!(!layout.nodes.contains_key(&NodeId::pool("rpool")));
    let named = layout
        .warnings
        .iter()
        .filter(|w| w.contains("zpool import"));
    assert_eq!(named.count(), 2, "{:?}", layout.warnings);
}

#[test]
fn a_missing_member_is_counted_and_named() {
    let mut sys = machine();
    let status = sys.commands.get_mut("zpool status -P rpool").unwrap();
    status.stdout = String::from_utf8_lossy(&status.stdout)
        .replace("/dev/vdc  ONLINE", "147515725957312989  UNAVAIL")
        .into_bytes();
    let layout = captured(&sys);
    let Some(Node::ZfsPool(pool)) = layout.nodes.get(&NodeId::pool("rpool")) else {
        panic!("no pool");
    };
    assert_eq!((pool.vdevs[0].members.len(), pool.vdevs[0].missing), (1, 1));
    assert!(layout.warnings.iter().any(|w| w.contains("degraded")));
    // The label of the disk that is not in the pool any more.
    assert!(
        layout.warnings.iter().any(|w| w.contains("/dev/vdc")),
        "{:?}",
        layout.warnings
    );
}
