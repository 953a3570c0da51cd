//! Prunes that are cut short, and that have no room.

mod stays;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::backup::{Backup, BackupOptions, Codec, TreeSource};
use crate::document::SnapshotDraft;
use crate::events::Silent;
use crate::exclude::Exclusions;
use crate::extract::{ExtractOptions, Selection, extract};
use crate::store::StoreOptions;
use crate::verify::{VerifyOptions, verify, write_report};

const NOW: &str = "2031-01-01T00:00:00.000Z";
const ROOM: u64 = 1 << 40;

fn host(name: &str) -> HostIdentity {
    HostIdentity {
        machine_id: format!("{name}-machine"),
        hostname: name.into(),
    }
}

/// Bytes that no compressor makes smaller.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

fn full() -> Error {
    Error::io("write", "a test")(std::io::Error::from_raw_os_error(libc::ENOSPC))
}

fn backup(tree: &Path, store: &Path, of: &HostIdentity, time: &str) -> Id {
    let opened = if store.join("lifeboat").exists() {
        Store::open(store)
    } else {
        fs::create_dir_all(store).unwrap();
        Store::create(store, &StoreOptions::default())
    };
    let options = BackupOptions {
        // One: what lies in which pack is always the same.
        workers: 1,
        pack_size: 200_000,
        compression: Codec::Zstd(1),
        ..BackupOptions::default()
    };
    let mut backup = Backup::start(vec![opened.unwrap()], options, &Silent).unwrap();
    let source = TreeSource {
        root: tree.into(),
        mount_point: "/".into(),
        exclude: Exclusions::none(),
        filesystem: None,
        instead: Default::default(),
    };
    let trees = vec![backup.tree(&source).unwrap()];
    let draft = SnapshotDraft {
        host: of.clone(),
        tool_version: "0".into(),
        kind: "host".into(),
        layout: serde_json::Value::Null,
        trees,
        images: Vec::new(),
        guest: None,
        guests: Vec::new(),
        facts: serde_json::Value::Null,
    };
    let id = backup.commit(draft).remove(0).snapshot.unwrap();
    redate(store, &id, time)
}

/// Gives a snapshot another time.
fn redate(store: &Path, id: &Id, time: &str) -> Id {
    let dir = store.join("lifeboat/snapshots");
    let name = fsutil_names(&dir)
        .into_iter()
        .find(|n| n.contains(&id.to_string()))
        .unwrap();
    let mut snapshot: Snapshot =
        serde_json::from_slice(&fs::read(dir.join(&name)).unwrap()).unwrap();
    snapshot.time = time.into();
    let json = serde_json::to_vec_pretty(&snapshot).unwrap();
    fs::remove_file(dir.join(name)).unwrap();
    let id = Id::of(&json);
    fs::write(
        dir.join(crate::store::snapshot_name(time, &id, ".json")),
        json,
    )
    .unwrap();
    id
}

fn fsutil_names(dir: &Path) -> Vec<String> {
    crate::fsutil::names(dir).unwrap()
}

/// A store of six days of one host and one of another, with packs that are dead, mostly dead and alive when only the
/// last two days stay. Returns what each restore point must give.
fn six_days(dir: &Path) -> (PathBuf, BTreeMap<Id, BTreeMap<String, Vec<u8>>>) {
    let (tree, store) = (dir.join("tree"), dir.join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("always"), noise(1, 300_000)).unwrap();
    let mut expected = BTreeMap::new();
    for day in 1..=6u64 {
        fs::write(tree.join("daily"), noise(day + 10, 130_000)).unwrap();
        // What stays for good, a blob of its own, is a small part of its pack.
        fs::write(tree.join(format!("new-{day}")), noise(day + 20, 20_000)).unwrap();
        let new = fs::File::options()
            .write(true)
            .open(tree.join(format!("new-{day}")));
        new.unwrap().set_len(1 << 18).unwrap();
        if day == 1 || day == 6 {
            fs::write(tree.join("passing"), noise(day + 30, 1_100_000)).unwrap();
        }
        let time = format!("2030-06-{day:02}T02:00:00.000Z");
        let id = backup(&tree, &store, &host("one"), &time);
        expected.insert(id, files(&tree));
        if day == 2 {
            fs::write(tree.join("other"), noise(77, 100_000)).unwrap();
            let id = backup(&tree, &store, &host("two"), "2030-06-02T05:00:00.000Z");
            expected.insert(id, files(&tree));
            fs::remove_file(tree.join("other")).unwrap();
        }
    }
    (store, expected)
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = fsutil_names(dir).into_iter();
    names
        .map(|n| (n.clone(), fs::read(dir.join(n)).unwrap()))
        .collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in fsutil_names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

fn two_days() -> PruneOptions {
    PruneOptions {
        guests: Policy::GUESTS,
        policy: Policy {
            daily: 2,
            ..Policy::NOTHING
        },
        whose: Whose::This(host("one")),
    }
}

fn plan(store: &Path) -> Prune {
    Prune::at(Store::open(store).unwrap(), &two_days(), NOW, &Silent).unwrap()
}

/// Every snapshot there is verifies, and gives what it must.
fn check(store: &Path, expected: &BTreeMap<Id, BTreeMap<String, Vec<u8>>>) -> usize {
    let opened = Store::open_read_only(store).unwrap();
    let report = verify(&opened, &VerifyOptions::default(), &Silent).unwrap();
    assert!(report.ok(), "{report:#?}");
    for id in &report.snapshots {
        let (_, snapshot) = opened.snapshot(&id.to_string()).unwrap();
        let out = tempfile::tempdir().unwrap();
        let report = extract(
            &[&opened],
            &snapshot,
            &snapshot.trees[0],
            &Selection::All,
            out.path(),
            &ExtractOptions::default(),
            &Silent,
        );
        assert!(report.unwrap().complete());
        assert!(files(out.path()) == expected[id], "{id} is another tree");
    }
    report.snapshots.len()
}

fn packs(store: &Path) -> Vec<String> {
    let dir = store.join("lifeboat/packs");
    let mut names: Vec<_> = fsutil_names(&dir)
        .iter()
        .flat_map(|sub| fsutil_names(&dir.join(sub)))
        .collect();
    names.sort();
    names
}

fn size(store: &Path) -> u64 {
    Store::open_read_only(store).unwrap().stats().stored_bytes
}

#[test]
fn removes_what_the_plan_says_and_frees_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let (store, expected) = six_days(dir.path());
    let before = size(&store);
    let prune = plan(&store);
    let table = prune.plan().clone();
    assert_eq!((table.restore_points.len(), table.going()), (7, 4));
    assert!(
        table.dead_packs > 0 && table.mostly_dead_packs > 0,
        "{table:#?}"
    );
    let done = prune.apply(&Silent).unwrap();
    assert!(done.notes.is_empty() && done.packs_written > 0, "{done:#?}");
    assert_eq!(
        done.packs_removed,
        table.dead_packs + table.mostly_dead_packs
    );
    let mut gone: Vec<Id> = table
        .restore_points
        .iter()
        .filter(|r| !r.stays)
        .map(|r| r.id)
        .collect();
    gone.sort();
    let mut removed = done.snapshots.clone();
    removed.sort();
    assert_eq!(gone, removed);
    assert_eq!(check(&store, &expected), 3);
    assert_eq!(before - size(&store), done.freed);
    // What was foretold, but for the footers of new packs.
    assert!(
        table.freed - done.freed < 8192,
        "{} {}",
        table.freed,
        done.freed
    );
    let again = plan(&store);
    assert!(again.plan().is_empty(), "{:#?}", again.plan());
}

#[test]
fn cut_short_at_every_step_nothing_is_lost_and_the_next_one_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, expected) = six_days(dir.path());
    // With room for all, for no copies, for some of them at a time, and for no index.
    let table = plan(&store).plan().clone();
    assert!(table.mostly_dead_packs > 1, "{table:#?}");
    let some = (16 << 20) + table.copied * 2 / 3;
    for (room, index) in [(ROOM, true), (16 << 20, true), (some, true), (ROOM, false)] {
        let full_once = Cell::new(!index);
        let no_room = |name: &str| name == "write the new index" && full_once.take();
        let prune = |store: &Path, stop: usize| {
            let mut count = 0;
            plan(store).apply_with(&Silent, &|| Ok(room), &mut |name| {
                count += 1;
                match () {
                    () if count > stop => Err(Error::Internal("cut short")),
                    () if no_room(name) => Err(full()),
                    () => Ok(()),
                }
            })
        };
        let whole = dir.path().join("whole");
        copy(&store, &whole);
        let done = prune(&whole, usize::MAX).unwrap();
        assert!(done.packs_removed > 0);
        assert_eq!(check(&whole, &expected), 3);
        let kept = size(&whole);
        let mut steps = 0;
        for stop in 0.. {
            full_once.set(!index);
            let crashed = dir.path().join("crashed");
            copy(&store, &crashed);
            let result = prune(&crashed, stop);
            if result.is_ok() {
                steps = stop;
            } else {
                check(&crashed, &expected);
                // Either the next prune ends it, or a backup comes first.
                let mut expected = expected.clone();
                if stop % 3 == 0 {
                    let tree = dir.path().join("tree");
                    let id = backup(&tree, &crashed, &host("one"), "2030-06-06T03:00:00.000Z");
                    expected.insert(id, files(&tree));
                    plan(&crashed).apply(&Silent).unwrap();
                } else {
                    prune(&crashed, usize::MAX).unwrap();
                    assert!(
                        room != ROOM || size(&crashed) <= kept,
                        "step {stop}: something stayed behind"
                    );
                }
                assert_eq!(check(&crashed, &expected), 3);
                assert!(room != ROOM || plan(&crashed).plan().is_empty());
            }
            fs::remove_dir_all(&crashed).unwrap();
            if steps > 0 {
                break;
            }
        }
        fs::remove_dir_all(&whole).unwrap();
        assert!(steps > 15, "only {steps} steps");
        println!("{steps} steps with {room} bytes free, an index at once: {index}");
    }
}

#[test]
fn without_room_for_copies_dead_packs_go_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (store, expected) = six_days(dir.path());
    let prune = plan(&store);
    let table = prune.plan().clone();
    let done = prune
        .apply_with(&Silent, &|| Ok(0), &mut |_| Ok(()))
        .unwrap();
    assert_eq!(done.packs_removed, table.dead_packs);
    assert!(done.notes[0].contains("no room"), "{done:?}");
    assert_eq!(check(&store, &expected), 3);
}

#[test]
fn packs_of_a_backup_that_was_cut_short_stay_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = six_days(dir.path());
    let tree = dir.path().join("more");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(99, 900_000)).unwrap();
    let id = backup(&tree, &store, &host("one"), "2030-06-07T02:00:00.000Z");
    let snapshots = store.join("lifeboat/snapshots");
    let cut_short = |dated: &str| {
        for name in fsutil_names(&snapshots) {
            if name.contains(&id.to_string()) {
                fs::remove_file(snapshots.join(name)).unwrap();
            }
        }
        fs::remove_dir_all(store.join("lifeboat/index")).unwrap();
        fs::create_dir(store.join("lifeboat/index")).unwrap();
        let newest = Store::open_read_only(&store)
            .unwrap()
            .snapshots()
            .unwrap()
            .pop()
            .unwrap();
        redate(&store, &newest.id, dated);
    };
    // Written before the newest restore point: nobody will ever finish it.
    cut_short("2030-06-06T02:00:00.000Z");
    let dead = plan(&store).plan().dead_packs;
    let opened = Store::open_read_only(&store).unwrap();
    for (n, header) in opened.snapshots().unwrap().iter().enumerate() {
        redate(
            &store,
            &header.id,
            &format!("2020-06-0{}T02:00:00.000Z", n + 1),
        );
    }
    let prune = plan(&store);
    assert!(prune.plan().dead_packs < dead);
    let note = &prune.plan().notes[0];
    assert!(note.contains("cut short"), "{note}");
}

#[test]
fn a_damaged_copy_that_is_renewed_is_not_removed_as_the_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, expected) = six_days(dir.path());
    // Cut short right after the new packs have their names.
    let result = plan(&store).apply_with(&Silent, &|| Ok(ROOM), &mut |name| match name {
        "write the new index" => Err(Error::Internal("cut short")),
        _ => Ok(()),
    });
    assert!(result.is_err());
    // All that they hold goes bad.
    let opened = Store::open_read_only(&store).unwrap();
    let new: Vec<_> = opened.packs().iter().filter(|p| p.unindexed).collect();
    assert!(!new.is_empty());
    for place in opened.map().all() {
        let pack = &opened.packs()[place.pack as usize];
        if pack.unindexed {
            let path = opened.pack_path(pack);
            let mut bytes = fs::read(&path).unwrap();
            bytes[place.offset as usize] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    drop(opened);
    plan(&store).apply(&Silent).unwrap();
    assert_eq!(check(&store, &expected), 3);
}

#[test]
fn nothing_is_removed_under_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let (store, expected) = six_days(dir.path());
    let reader = Store::open_read_only(&store).unwrap();
    let error = plan(&store).apply(&Silent).unwrap_err();
    assert!(matches!(error, Error::BeingRead { .. }), "{error}");
    assert_eq!(check(&store, &expected), 7);
    drop(reader);
    let opened = plan(&store);
    let lock = opened.store.lock_readers_out().unwrap();
    assert!(matches!(
        Store::open_read_only(&store),
        Err(Error::Locked { .. })
    ));
    drop(lock);
    opened.apply(&Silent).unwrap();
    assert_eq!(check(&store, &expected), 3);
}
