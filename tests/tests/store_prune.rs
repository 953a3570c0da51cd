//! Sixty restore points of two hosts, pruned by the default policy.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bundle::Id;
use bundle::backup::Backup;
use bundle::document::HostIdentity;
use bundle::events::Silent;
use bundle::extract::{ExtractOptions, Selection, extract};
use bundle::prune::{Policy, Prune, PruneOptions, Whose};
use bundle::store::Store;
use store_support::*;

fn host(name: &str) -> HostIdentity {
    HostIdentity {
        machine_id: format!("{name}-id"),
        hostname: name.into(),
    }
}

/// A backup of `tree`, as if it had been made at `time`.
fn backup_at(tree: &Path, store: &Path, host: HostIdentity, time: &str) -> Id {
    let mut backup = Backup::start(vec![open(store)], options(), &Silent).unwrap();
    let trees = vec![backup.tree(&source(tree)).unwrap()];
    let mut draft = draft(trees);
    draft.host = host;
    let id = backup.commit(draft).remove(0).snapshot.unwrap();
    let written = files(store, "snapshots", &format!("{id}.json")).remove(0);
    let mut document: serde_json::Value =
        serde_json::from_slice(&fs::read(&written).unwrap()).unwrap();
    document["time"] = time.into();
    // The same order of fields as the program's.
    let snapshot: bundle::document::Snapshot = serde_json::from_value(document).unwrap();
    fs::remove_file(written).unwrap();
    let json = serde_json::to_vec_pretty(&snapshot).unwrap();
    let (day, id) = (time.replace(['-', ':', '.'], ""), Id::of(&json));
    let name = store.join(format!("lifeboat/snapshots/{day}-{id}.json"));
    fs::write(name, json).unwrap();
    id
}

fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries
        .map(|e| {
            let name = e.file_name().into_string().unwrap();
            (name, fs::read(e.path()).unwrap())
        })
        .collect()
}

#[test]
fn prune_on_60_snapshots_with_the_default_policy_keeps_exactly_what_the_table_said() {
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("constant"), noise(700_000)).unwrap();
    let mut expected = BTreeMap::new();
    // 50 days of one host, sometimes twice a day; ten of another.
    let mut made = 0;
    for day in 0..50 {
        fs::write(tree.join("log"), noise(90_000)).unwrap();
        fs::write(tree.join(format!("added-{day:02}")), noise(20_000)).unwrap();
        if day % 7 == 0 {
            fs::write(tree.join("image"), noise(1_500_000)).unwrap();
        }
        let date = format!("2025-{:02}-{:02}", 9 + day / 25, 1 + day % 25);
        let id = backup_at(&tree, &store, host("one"), &format!("{date}T02:00:00.000Z"));
        expected.insert(id, content(&tree));
        made += 1;
        if day % 5 == 0 {
            fs::write(tree.join("log"), noise(90_000)).unwrap();
            let other = if day % 10 == 0 { "one" } else { "two" };
            let time = format!("{date}T14:30:00.000Z");
            let id = backup_at(&tree, &store, host(other), &time);
            expected.insert(id, content(&tree));
            made += 1;
        }
    }
    assert_eq!(made, 60);
    let before = Store::open_read_only(&store).unwrap().stats();

    let options = PruneOptions {
        guests: Policy::GUESTS,
        policy: Policy::default(),
        whose: Whose::This(host("one")),
    };
    // The table of a dry run, without a lock, is the one of the prune.
    let shown = Prune::new(Store::open_read_only(&store).unwrap(), &options, &Silent).unwrap();
    let table = shown.plan().restore_points.clone();
    drop(shown);
    assert_eq!(table.len(), 60);
    assert!(
        table
            .iter()
            .filter(|r| r.host.hostname == "two")
            .all(|r| r.stays)
    );
    for row in &table {
        assert_eq!(row.stays, !row.why.is_empty());
    }
    let stay: Vec<Id> = table.iter().filter(|r| r.stays).map(|r| r.id).collect();
    // Five of the other host; seven last days of October, four weeks, September.
    assert_eq!(stay.len(), 5 + 7 + 3, "{table:#?}");
    let prune = Prune::new(Store::open(&store).unwrap(), &options, &Silent).unwrap();
    assert_eq!(prune.plan().restore_points, table);
    let done = prune.apply(&Silent).unwrap();
    assert!(done.notes.is_empty(), "{done:#?}");

    let opened = Store::open_read_only(&store).unwrap();
    let left: Vec<Id> = opened.snapshots().unwrap().iter().map(|s| s.id).collect();
    assert_eq!(left, stay);
    assert_eq!(
        before.stored_bytes - opened.stats().stored_bytes,
        done.freed
    );
    let report = check(&store);
    assert!(report.ok() && report.notes.is_empty(), "{report:#?}");
    assert_eq!(report.snapshots.len(), stay.len());
    for id in &stay {
        let (_, snapshot) = opened.snapshot(&id.to_string()).unwrap();
        let out = scratch();
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
        assert!(content(out.path()) == expected[id], "{id}");
    }
    drop(opened);
    // What was added meanwhile is stored once more where it went, and the store stays right.
    let id = backup_at(&tree, &store, host("one"), "2025-10-26T02:00:00.000Z");
    assert!(check(&store).ok());
    let (newest, _) = Store::open_read_only(&store)
        .unwrap()
        .snapshot("latest")
        .unwrap();
    assert_eq!(newest, id);
}
