//! On reports recorded from LVM 2.03.16.

use super::*;
use crate::capture::lvm::parse;

/// One volume of each kind that `lvcreate --type` makes, on five physical volumes.
fn kinds() -> (Vec<Row>, BTreeMap<String, NodeId>) {
    let text = include_str!("../../../tests/recorded/lvm-kinds.json");
    let pvs = ["a", "b", "c", "d", "e"].map(|letter| {
        let device = format!("/dev/ubd{letter}");
        (device, NodeId::from(letter))
    });
    (parse(text, "lv").unwrap(), pvs.into())
}

fn ids(letters: &str) -> Vec<NodeId> {
    letters.split_whitespace().map(NodeId::from).collect()
}

#[test]
fn every_kind_is_known_as_what_it_is() {
    let (rows, pvs) = kinds();
    let volumes = Volumes {
        rows: &rows,
        pvs: &pvs,
    };
    let raid = |name: &str| match volumes.segments(name) {
        Ok(Segments::Raid {
            level,
            images,
            copies,
            stripe_size,
            region_size,
        }) => (
            level,
            images,
            copies,
            stripe_size.0 >> 10,
            region_size.0 >> 10,
        ),
        other => panic!("{name}: {other:?}"),
    };
    let expect = |name: &str, level: &str, images, copies, stripe, region| {
        assert_eq!(
            raid(name),
            (level.to_owned(), images, copies, stripe, region)
        );
    };
    expect("l_raid0", "raid0", 2, 1, 64, 0);
    expect("l_raid1", "raid1", 2, 2, 0, 512);
    expect("l_raid10", "raid10", 4, 2, 64, 2048);
    expect("l_raid4", "raid4", 3, 1, 64, 512);
    expect("l_raid5_la", "raid5_la", 3, 1, 64, 512);
    expect("l_raid6_nc", "raid6_nc", 5, 1, 64, 2048);
    let mirror = |log: &str, region: u64| Segments::Mirror {
        images: 2,
        region_size: Bytes(region << 10),
        log: log.to_owned(),
    };
    assert_eq!(volumes.segments("mdisk"), Ok(mirror("disk", 512)));
    assert_eq!(volumes.segments("mcore"), Ok(mirror("core", 2048)));
    assert_eq!(volumes.segments("lin"), Ok(Segments::Linear));
    let pieces = ["striped(2)", "linear"].map(str::to_owned).to_vec();
    assert_eq!(volumes.segments("str"), Ok(Segments::Mixed { pieces }));
    assert_eq!(volumes.segments("absent"), Err("unknown".to_owned()));
}

#[test]
fn a_kind_that_is_not_known_is_never_linear() {
    let (mut rows, pvs) = kinds();
    let text = r#"{"report":[{"lv":[
        {"lv_name":"next","segtype":"linear","devices":"/dev/ubda(0)"},
        {"lv_name":"next","segtype":"holographic","devices":"/dev/ubdb(0)"}]}]}"#;
    rows.extend(parse(text, "lv").unwrap());
    let volumes = Volumes {
        rows: &rows,
        pvs: &pvs,
    };
    assert_eq!(volumes.segments("next"), Err("holographic".to_owned()));
}

#[test]
fn places_are_found_through_hidden_volumes() {
    let (rows, pvs) = kinds();
    let volumes = Volumes {
        rows: &rows,
        pvs: &pvs,
    };
    let pinned = |name: &str| volumes.pinned(name, &volumes.segments(name).unwrap());
    assert_eq!(pinned("l_raid1").len(), 2);
    assert_eq!(pinned("l_raid6"), ids("a b c d e"));
    assert_eq!(pinned("lin").len(), 1);
    // Pieces are made anew wherever there is room.
    assert!(pinned("str").is_empty());
    // One of its disks is missing.
    let mut less = pvs.clone();
    less.remove("/dev/ubdc");
    let volumes = Volumes {
        rows: &rows,
        pvs: &less,
    };
    assert_eq!(volumes.pvs_of("l_raid6"), None);
    assert!(
        volumes
            .pinned("l_raid6", &volumes.segments("l_raid6").unwrap())
            .is_empty()
    );
    // In a group of one there is nothing to choose.
    let one: BTreeMap<String, NodeId> = pvs.into_iter().take(1).collect();
    let volumes = Volumes {
        rows: &rows,
        pvs: &one,
    };
    assert!(volumes.pinned("lin", &Segments::Linear).is_empty());
}
