use super::*;
use crate::system::Recorded;

const LVS: &str = "lvs --reportformat json --units b --nosuffix --config devices/scan_lvs=0 -o \
    vg_name,lv_name,lv_tags,lv_attr,lv_size,origin,pool_lv,vg_free,vg_extent_size,data_percent,metadata_percent,lv_snapshot_invalid";

fn row(vg: &str, lv: &str, rest: &str) -> String {
    format!(
        r#"{{"vg_name":"{vg}","lv_name":"{lv}","vg_free":"17179869184","vg_extent_size":"4194304"{rest}}}"#
    )
}

fn answer(rows: &[String]) -> String {
    format!(r#"{{"report":[{{"lv":[{}]}}]}}"#, rows.join(","))
}

fn with(rows: &[String]) -> Recorded {
    Recorded::new().command(LVS, &answer(rows))
}

fn layout(name: &str) -> Layout {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../vm-tests/layouts/{name}.json"));
    let mut case: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    Layout::from_value(case["layout"].take()).unwrap()
}

fn points(layout: &Layout) -> Vec<PathBuf> {
    let mounts = layout.mounts.iter().filter(|m| m.mounted);
    mounts.map(|m| m.mount_point.clone()).collect()
}

fn of<'c>(choices: &'c [Choice], mount_point: &str) -> &'c Result<Way, Live> {
    let mut choices = choices.iter();
    let found = choices.find(|c| c.mount_point == Path::new(mount_point));
    &found.unwrap().way
}

#[test]
fn a_node_of_proxmox_has_a_classic_snapshot_of_its_root() {
    let layout = layout("pve-ext4-lvm");
    let root = row(
        "pve",
        "root",
        r#","lv_size":"107374182400","lv_attr":"-wi-ao----""#,
    );
    let sys = with(&[root]);
    let choices = choose(&sys, &layout, &points(&layout), &Limits::default());
    // 20 % would be 20 GiB; three quarters of the 16 GiB that are free are 12.
    let Ok(Way::Lvm { vg, lv, size, .. }) = of(&choices, "/") else {
        panic!("{choices:?}");
    };
    assert_eq!((vg.as_str(), lv.as_str(), *size), ("pve", "root", 12 << 30));
    let esp = of(&choices, "/boot/efi").as_ref().unwrap_err();
    assert!(esp.reason.contains("vfat") && !esp.unchanging, "{esp:?}");
}

#[test]
fn without_room_or_answer_it_is_read_live_and_says_why() {
    let layout = layout("pve-ext4-lvm");
    let points = points(&layout);
    let mut full = row("pve", "root", r#","lv_size":"107374182400""#);
    full = full.replace("17179869184", "8388608");
    let choices = choose(&with(&[full]), &layout, &points, &Limits::default());
    let why = &of(&choices, "/").as_ref().unwrap_err().reason;
    assert!(why.contains("too little free space"), "{why}");
    let choices = choose(&Recorded::new(), &layout, &points, &Limits::default());
    assert!(of(&choices, "/").is_err());
    let choices = choose(&with(&[]), &layout, &points, &Limits::default());
    let why = &of(&choices, "/").as_ref().unwrap_err().reason;
    assert!(why.contains("does not know"), "{why}");
}

#[test]
fn a_thin_pool_has_to_have_room_for_data_and_metadata() {
    let layout = layout("lvm-thin-host");
    let thin = layout.nodes.values().find_map(|node| match node {
        Node::LogicalVolume(lv) => match layout.nodes.get(&lv.on) {
            Some(Node::ThinPool(pool)) => Some((lv.clone(), pool.clone())),
            _ => None,
        },
        _ => None,
    });
    let (lv, pool) = thin.unwrap();
    let vg = pool.on.as_str().trim_start_matches("vg:").to_owned();
    let fs = layout.nodes.iter().find_map(|(id, node)| {
        (node.filesystem().is_some() && node.on() == [NodeId::lv(&vg, &lv.name)]).then_some(id)
    });
    let mount = layout.mounts.iter().find(|m| Some(&m.node) == fs).unwrap();
    let point = mount.mount_point.clone();
    let try_with = |data: &str, metadata: &str| {
        let used = format!(r#","data_percent":"{data}","metadata_percent":"{metadata}""#);
        let sys = with(&[row(&vg, &pool.name, &used)]);
        choose(
            &sys,
            &layout,
            std::slice::from_ref(&point),
            &Limits::default(),
        )
        .remove(0)
        .way
    };
    assert!(matches!(try_with("89.99", "10.00"), Ok(Way::Thin { .. })));
    let why = try_with("90.00", "10.00").unwrap_err().reason;
    assert!(why.contains("90 % of the data"), "{why}");
    let why = try_with("10.00", "91.50").unwrap_err().reason;
    assert!(why.contains("of the metadata"), "{why}");
    let why = try_with("", "").unwrap_err().reason;
    assert!(why.contains("unknown"), "{why}");
}

#[test]
fn what_does_not_change_needs_no_snapshot() {
    let mut layout = layout("pve-ext4-lvm");
    for mount in &mut layout.mounts {
        mount.options = vec!["relatime".to_owned(), "ro".to_owned()];
    }
    let choices = choose(
        &Recorded::new(),
        &layout,
        &points(&layout),
        &Limits::default(),
    );
    assert!(
        choices
            .iter()
            .all(|c| c.way.as_ref().unwrap_err().unchanging)
    );
}

fn classic() -> Way {
    Way::Lvm {
        vg: "pve".to_owned(),
        lv: "root".to_owned(),
        size: 64 << 20,
        fstype: "ext4".to_owned(),
    }
}

fn thin() -> Way {
    Way::Thin {
        vg: "pve".to_owned(),
        lv: "root".to_owned(),
        pool: "data".to_owned(),
        fstype: "ext4".to_owned(),
    }
}

pub(super) fn snapshot<'s>(sys: &'s Recorded, way: Way) -> Snapshot<'s> {
    Snapshot {
        sys,
        mount_point: "/".into(),
        way,
        name: "lifeboat-snap-0a1b2c3d-1".to_owned(),
        root: None,
        top: None,
        removed: false,
    }
}

#[test]
fn they_are_made_readable_only_tagged_and_not_active_after_a_reboot() {
    let sys = Recorded::new()
        .file("/etc/machine-id", "0123\n")
        .command(
            "lvcreate --autobackup n --yes --snapshot --permission r --name n --addtag lifeboat-snapshot-0123 \
             --size 67108864b pve/root",
            "",
        )
        .command(
            "lvcreate --autobackup n --yes --snapshot --permission r --name n --addtag lifeboat-snapshot-0123 \
             --setactivationskip y --ignoreactivationskip pve/root",
            "",
        );
    lvm::make(&sys, &classic(), "n").unwrap();
    lvm::make(&sys, &thin(), "n").unwrap();
    let none = Recorded::new();
    let views = make(
        &none,
        vec![Choice {
            mount_point: "/".into(),
            way: Ok(thin()),
        }],
        "0",
    );
    let why = &views[0].snapshot.as_ref().unwrap_err().reason;
    assert!(why.starts_with("no snapshot could be made"), "{why}");
}

#[test]
fn a_snapshot_is_removed_once_however_it_ends() {
    let line = "lvremove --autobackup n --yes pve/lifeboat-snap-0a1b2c3d-1";
    let sys = Recorded::new().command(line, "");
    let removals = || {
        let log = sys.log.lock().unwrap();
        log.iter().filter(|l| l.contains("lvremove")).count()
    };
    drop(snapshot(&sys, classic()));
    assert_eq!(removals(), 1);
    snapshot(&sys, classic()).remove().unwrap();
    assert_eq!(removals(), 2);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _held = snapshot(&sys, thin());
        panic!("in the middle");
    }));
    assert!(caught.is_err());
    assert_eq!(removals(), 3);
}

#[test]
fn one_that_ran_full_or_a_pool_that_fills_up_is_noticed() {
    let name = "lifeboat-snap-0a1b2c3d-1";
    let after = |rows: &[String], way: Way| {
        let sys = with(rows);
        let other =
            Recorded::new().command(&format!("lvremove --autobackup n --yes pve/{name}"), "");
        let it = snapshot(&other, way);
        let found = examine(&sys, &[&it], &Limits::default());
        found.into_iter().map(|(_, why)| why).next()
    };
    let classic_row = |rest: &str| [row("pve", name, rest)];
    let good =
        classic_row(r#","lv_attr":"sri-a-s---","data_percent":"12.50","lv_snapshot_invalid":"""#);
    assert_eq!(after(&good, classic()), None);
    for bad in [
        r#","lv_attr":"Sri-I-s---","data_percent":"100.00","lv_snapshot_invalid":"snapshot invalid""#,
        r#","lv_attr":"sri-a-s---","data_percent":"100.00","lv_snapshot_invalid":"""#,
        r#","lv_attr":"sri-I-s---","data_percent":"50.00","lv_snapshot_invalid":"""#,
        r#","lv_attr":"sri-a-s---","data_percent":"","lv_snapshot_invalid":"""#,
    ] {
        let why = after(&classic_row(bad), classic()).unwrap();
        assert!(why.contains("ran full"), "{bad}: {why}");
    }
    assert!(after(&[], classic()).unwrap().contains("is gone"));
    let pool = |used: &str| {
        let used = format!(r#","data_percent":"{used}","metadata_percent":"1.00""#);
        [
            row("pve", name, r#","data_percent":"40.00""#),
            row("pve", "data", &used),
        ]
    };
    assert_eq!(after(&pool("89.00"), thin()), None);
    assert!(after(&pool("95.00"), thin()).unwrap().contains("95 %"));
}

#[test]
fn only_what_has_tag_and_name_and_is_a_snapshot_is_left_over() {
    let tagged = |name: &str, origin: &str, tag: &str| {
        row(
            "pve",
            name,
            &format!(r#","lv_tags":"{tag}","origin":"{origin}""#),
        )
    };
    let sys = with(&[
        tagged("root", "", ""),
        tagged(
            "lifeboat-snap-0a1b2c3d-1",
            "root",
            "other,lifeboat-snapshot-0123",
        ),
        // Of another host, which sees the group, too; and of nobody that is known.
        tagged("lifeboat-snap-4e5f-1", "root", "lifeboat-snapshot-4567"),
        tagged("lifeboat-snap-6a7b-1", "root", "lifeboat-snapshot"),
        tagged("lifeboat-snap-mine", "root", ""),
        tagged("lifeboat-snap-volume", "", "lifeboat-snapshot-0123"),
        tagged("daily", "root", "lifeboat-snapshot-0123"),
    ])
    .file("/etc/machine-id", "0123\n")
    .command(
        "lvremove --autobackup n --yes pve/lifeboat-snap-0a1b2c3d-1",
        "",
    );
    let done = remove_leftovers(&sys, &layout("pve-ext4-lvm"));
    assert_eq!(done, [Ok("pve/lifeboat-snap-0a1b2c3d-1".to_owned())]);
}

#[test]
fn one_program_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let first = Lock::take(&path).unwrap();
    assert!(first.is_some());
    assert!(Lock::take(&path).unwrap().is_none());
    drop(first);
    assert!(Lock::take(&path).unwrap().is_some());
}
