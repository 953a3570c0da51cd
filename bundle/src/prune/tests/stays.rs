//! What must not be removed.

use super::*;
use crate::document::guest::GuestDump;

#[test]
fn a_document_that_cannot_be_read_stops_all() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = six_days(dir.path());
    let snapshots = store.join("lifeboat/snapshots");
    let name = &fsutil_names(&snapshots)[6];
    let whole = fs::read(snapshots.join(name)).unwrap();
    let newer =
        String::from_utf8(whole.clone())
            .unwrap()
            .replacen("\"format\": 1", "\"format\": 2", 1);
    let newer_name = format!("20300607T020000000Z-{}.json", Id::of(newer.as_bytes()));
    for (name, content) in [
        (name, &whole[..whole.len() - 9]),
        (&newer_name, newer.as_bytes()),
    ] {
        fs::write(snapshots.join(name), content).unwrap();
        let before = (fsutil_names(&snapshots), packs(&store));
        let prune = plan(&store);
        assert!(prune.plan().blocked.is_some());
        let error = prune.apply(&Silent).unwrap_err().to_string();
        assert!(error.contains(name.as_str()), "{error}");
        assert_eq!(before, (fsutil_names(&snapshots), packs(&store)));
        fs::write(snapshots.join(name), &whole).unwrap();
    }
}

#[test]
fn a_catalogue_that_cannot_be_read_stops_all() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = six_days(dir.path());
    let opened = Store::open_read_only(&store).unwrap();
    let (_, snapshot) = opened.snapshot("latest").unwrap();
    for list in [snapshot.trees[0].catalogue[0], list_of(&opened, &snapshot)] {
        let place = opened.map().find(&list)[0];
        let pack = opened.pack_path(&opened.packs()[place.pack as usize]);
        let whole = fs::read(&pack).unwrap();
        let mut damaged = whole.clone();
        damaged[place.offset as usize + 9] ^= 1;
        fs::write(&pack, damaged).unwrap();
        let before = (
            fsutil_names(&store.join("lifeboat/snapshots")),
            packs(&store),
        );
        let error = plan(&store).apply(&Silent).unwrap_err().to_string();
        assert!(error.contains(&list.to_string()), "{error}");
        let after = (
            fsutil_names(&store.join("lifeboat/snapshots")),
            packs(&store),
        );
        assert_eq!(before, after);
        fs::write(&pack, whole).unwrap();
    }
}

fn list_of(store: &Store, snapshot: &Snapshot) -> Id {
    let stores = [store];
    let entries = crate::list::entries(&stores, &snapshot.trees[0]);
    let mut lists = entries.filter_map(|e| e.unwrap().content);
    lists.next().unwrap()
}

#[test]
fn others_and_the_host_before_its_new_installation_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (store, expected) = six_days(dir.path());
    let of = |whose| {
        let options = PruneOptions {
            guests: Policy::GUESTS,
            whose,
            ..two_days()
        };
        Prune::at(Store::open(&store).unwrap(), &options, NOW, &Silent)
    };
    let renewed = HostIdentity {
        machine_id: "fresh".into(),
        ..host("one")
    };
    let prune = of(Whose::This(renewed)).unwrap();
    assert_eq!(prune.plan().going(), 0);
    let why = prune.plan().restore_points[0].why[0].to_string();
    assert!(
        why.contains("installed before") && why.contains("--host one-machine"),
        "{why}"
    );
    drop(prune);
    let nameless = HostIdentity {
        machine_id: String::new(),
        ..host("one")
    };
    assert_eq!(of(Whose::This(nameless)).unwrap().plan().going(), 0);
    for wrong in ["", "three"] {
        let error = of(Whose::Named(wrong.into())).unwrap_err().to_string();
        assert!(error.contains("two-machine"), "{error}");
    }
    assert_eq!(of(Whose::Named("two".into())).unwrap().plan().going(), 0);
    let prune = of(Whose::Named("one-mach".into())).unwrap();
    assert_eq!(prune.plan().going(), 4);
    prune.apply(&Silent).unwrap();
    assert_eq!(check(&store, &expected), 3);
}

#[test]
fn the_newest_verified_stays_beyond_the_policy() {
    let dir = tempfile::tempdir().unwrap();
    let (store, expected) = six_days(dir.path());
    let opened = Store::open(&store).unwrap();
    let oldest = opened.snapshots().unwrap()[0].id;
    let options = VerifyOptions {
        snapshot: Some(oldest.to_string()),
        ..VerifyOptions::default()
    };
    write_report(&opened, &verify(&opened, &options, &Silent).unwrap()).unwrap();
    // The verdict on a newer one is bad.
    let mut bad = verify(
        &opened,
        &VerifyOptions {
            snapshot: Some("latest".into()),
            ..options
        },
        &Silent,
    )
    .unwrap();
    bad.damaged.push(crate::verify::Damage {
        file: String::new(),
        pack: None,
        blob: None,
        lost: Vec::new(),
        reason: "a test".into(),
        files: Vec::new(),
        snapshots: bad.snapshots.clone(),
    });
    write_report(&opened, &bad).unwrap();
    drop(opened);
    let prune = plan(&store);
    let first = &prune.plan().restore_points[0];
    assert_eq!(
        (first.verified, first.why.as_slice()),
        (Some(true), &[Reason::NewestVerified][..])
    );
    assert_eq!(prune.plan().going(), 3);
    prune.apply(&Silent).unwrap();
    assert_eq!(check(&store, &expected), 4);
}

#[test]
fn a_clock_that_went_back_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = six_days(dir.path());
    let prune = Prune::at(
        Store::open(&store).unwrap(),
        &two_days(),
        "2030-06-05T00:00:00.000Z",
        &Silent,
    )
    .unwrap();
    assert!(prune.plan().clock_behind && prune.plan().notes[0].contains("clock"));
    drop(prune);
    assert!(!plan(&store).plan().clock_behind);
}

#[test]
fn without_any_restore_point_nothing_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = six_days(dir.path());
    let snapshots = store.join("lifeboat/snapshots");
    for name in fsutil_names(&snapshots) {
        fs::remove_file(snapshots.join(name)).unwrap();
    }
    let before = packs(&store);
    assert!(plan(&store).plan().is_empty());
    plan(&store).apply(&Silent).unwrap();
    assert_eq!(before, packs(&store));
}

#[test]
fn a_small_backup_does_not_replace_the_one_of_the_host() {
    let snapshot = |kind: &str, trees: &[&str]| Snapshot {
        format: 1,
        host: host("one"),
        time: String::new(),
        tool_version: String::new(),
        kind: kind.into(),
        layout: serde_json::Value::Null,
        trees: trees
            .iter()
            .map(|t| crate::document::Tree {
                mount_point: (*t).into(),
                filesystem: None,
                catalogue: Vec::new(),
                entries: 0,
                files: 0,
                bytes: 0,
                segments: 0,
                summary: Default::default(),
            })
            .collect(),
        images: Vec::new(),
        guest: None,
        guests: Vec::new(),
        summary: Default::default(),
        stats: Default::default(),
        facts: serde_json::Value::Null,
    };
    let same = |a: &Snapshot, b: &Snapshot| Sequence::of(a) == Sequence::of(b);
    assert!(same(
        &snapshot("host", &["/"]),
        &snapshot("host", &["/", "/var"])
    ));
    assert!(!same(
        &snapshot("host", &["/"]),
        &snapshot("directories", &["/"])
    ));
    assert!(!same(
        &snapshot("directories", &["/etc"]),
        &snapshot("directories", &["/srv"])
    ));
    let guest = |kind, id| Snapshot {
        guest: Some(GuestDump {
            id,
            kind,
            name: None,
            dumped: String::new(),
            source: String::new(),
            configs: Vec::new(),
            vma: None,
        }),
        ..snapshot(KIND, &[])
    };
    assert!(same(
        &guest(GuestKind::Lxc, 101),
        &guest(GuestKind::Lxc, 101)
    ));
    for other in [guest(GuestKind::Lxc, 102), guest(GuestKind::Qemu, 101)] {
        assert!(!same(&guest(GuestKind::Lxc, 101), &other));
    }
}
