//! Encrypted stores: nothing to be read without a key, and each way of being deceived has a name of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::fs;
use std::path::{Path, PathBuf};

use bundle::backup::{Backup, BackupOptions};
use bundle::crypt::{KeyFile, KeyRing, NewSlot, Secret};
use bundle::events::Silent;
use bundle::extract::Selection;
use bundle::store::{Store, StoreOptions};
use bundle::verify::write_report;
use bundle::{Error, Id};
use store_support::*;

fn sealed(dir: &Path) -> Store {
    fs::create_dir_all(dir).unwrap();
    let mut store = Store::create(dir, &StoreOptions::default()).unwrap();
    store.encrypt(&[passphrase(PASSPHRASE)]).unwrap();
    store
}

/// A tree in an encrypted store, of two packs or more. One worker keeps the order of blobs: the catalogue is in the last
/// pack, which is smaller than the others.
fn stored(dir: &Path) -> (PathBuf, PathBuf, Id) {
    let (tree, store) = (dir.join("tree"), dir.join("store"));
    fs::create_dir_all(tree.join("etc-with-a-telling-name")).unwrap();
    fs::write(
        tree.join("etc-with-a-telling-name/secret.conf"),
        "password=hunter2-and-more\n".repeat(50),
    )
    .unwrap();
    for n in 0..3 {
        fs::write(tree.join(format!("disk-image-{n}")), noise(3_000_000)).unwrap();
    }
    drop(sealed(&store));
    let one = BackupOptions {
        workers: 1,
        ..options()
    };
    let mut backup = Backup::start(vec![open(&store)], one, &Silent).unwrap();
    let saved = backup.tree(&source(&tree)).unwrap();
    let id = backup
        .commit(draft(vec![saved]))
        .remove(0)
        .snapshot
        .unwrap();
    (tree, store, id)
}

fn snapshots(store: &Path) -> Vec<PathBuf> {
    files(store, "snapshots", ".sealed")
}

#[test]
fn nothing_of_the_host_is_readable_without_a_key() {
    let dir = scratch();
    let (_, store, id) = stored(dir.path());
    // A verdict on damage names files of the host.
    let size = |pack: &PathBuf| fs::metadata(pack).unwrap().len();
    let pack = files(&store, "packs", ".pack")
        .into_iter()
        .max_by_key(size)
        .unwrap();
    let good = fs::read(&pack).unwrap();
    let mut bad = good.clone();
    bad[60_000] ^= 1;
    fs::write(&pack, bad).unwrap();
    let report = check(&store);
    assert!(!report.ok());
    let opened = open_for_reading(&store).unwrap();
    write_report(&opened, &report).unwrap();
    assert_eq!(opened.reports().len(), 1, "and with the key it is read");
    fs::write(&pack, good).unwrap();
    let known = id.to_string();
    let content = Id::of("password=hunter2-and-more\n".repeat(50).as_bytes());
    let words: [&[u8]; 12] = [
        b"telling-name",
        b"secret.conf",
        b"hunter2",
        b"disk-image",
        b"hostname",
        b"machine_id",
        b"mount_point",
        b"\"why\"",
        b"blobs",
        &[0x28, 0xb5, 0x2f, 0xfd],
        known.as_bytes(),
        content.as_bytes(),
    ];
    let mut seen = 0;
    for file in files(&store, ".", "") {
        let text = file.display().to_string();
        let bytes = fs::read(&file).unwrap_or_default();
        seen += bytes.len();
        for word in &words {
            // Four bytes may come up in 10 MB of noise.
            let by_chance = word.len() < 5 && bytes.len() > 10_000;
            let holds = bytes.windows(word.len()).any(|w| w == *word);
            assert!(
                by_chance || !holds,
                "{} holds {:?}",
                file.display(),
                String::from_utf8_lossy(word)
            );
            assert!(
                !text
                    .rsplit('/')
                    .next()
                    .unwrap()
                    .as_bytes()
                    .windows(word.len())
                    .any(|w| w == *word)
            );
        }
    }
    assert!(seen > 9_000_000, "the store was looked at: {seen}");
}

#[test]
fn no_key_and_a_wrong_passphrase_are_told_apart() {
    let dir = scratch();
    let (_, store, _) = stored(dir.path());
    let error = Store::open_read_only(&store).unwrap_err();
    assert!(matches!(error, Error::KeyNeeded { .. }) && error.to_string().contains("passphrase"));
    for opened in [
        Store::open_read_only_with(&store, &ring("incorrect horse")),
        Store::open_with(&store, &ring("incorrect horse")),
    ] {
        let error = opened.unwrap_err();
        assert!(matches!(error, Error::WrongKey { .. }), "{error}");
        assert!(error.to_string().contains("wrong passphrase"), "{error}");
    }
}

#[test]
fn a_tampered_or_truncated_snapshot_document_is_named() {
    let dir = scratch();
    let (_, store, _) = stored(dir.path());
    let document = snapshots(&store).remove(0);
    let good = fs::read(&document).unwrap();
    let mut tampered = good.clone();
    tampered[good.len() / 2] ^= 4;
    for bad in [&tampered[..], &good[..good.len() - 1], &good[..20], b""] {
        // Under its old name, and under one that fits what was made of it.
        let (time, _) = document
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .split_once('-')
            .unwrap();
        let fitting = document.with_file_name(format!("{time}-{}.sealed", Id::of(bad)));
        for name in [&document, &fitting] {
            fs::remove_file(&document).unwrap();
            fs::write(name, bad).unwrap();
            let opened = open_for_reading(&store).unwrap();
            assert!(opened.snapshots().unwrap().is_empty());
            let damaged = opened.damaged_documents().unwrap();
            assert!(
                damaged[0].reason.contains("truncated, tampered with"),
                "{damaged:?}"
            );
            assert!(check(&store).damaged[0].reason.contains("tampered"));
            fs::remove_file(name).unwrap();
            fs::write(&document, &good).unwrap();
        }
    }
    assert!(check(&store).ok());
}

#[test]
fn an_older_document_in_place_of_a_newer_one_is_named() {
    let dir = scratch();
    let (tree, store, older) = stored(dir.path());
    let old = snapshots(&store).remove(0);
    fs::write(tree.join("more"), "more").unwrap();
    backup(&tree, &store);
    let new = snapshots(&store).into_iter().find(|p| *p != old).unwrap();
    let time = new
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .split('-')
        .next()
        .unwrap()
        .to_owned();
    let bytes = fs::read(&old).unwrap();
    fs::remove_file(&new).unwrap();
    // The hash in the name shows the first; only the time within the document shows the second.
    let fitting = new.with_file_name(format!("{time}-{}.sealed", Id::of(&bytes)));
    for name in [&new, &fitting] {
        fs::write(name, &bytes).unwrap();
        let opened = open_for_reading(&store).unwrap();
        let ids: Vec<_> = opened.snapshots().unwrap().iter().map(|s| s.id).collect();
        assert_eq!(ids, [older]);
        let damaged = opened.damaged_documents().unwrap();
        assert_eq!(damaged.len(), 1);
        assert!(
            damaged[0].reason.contains("under another one's name"),
            "{damaged:?}"
        );
        assert!(check(&store).damaged[0].reason.contains("was replaced"));
        fs::remove_file(name).unwrap();
    }
}

#[test]
fn swapped_packs_are_named() {
    let dir = scratch();
    let (_, store, _) = stored(dir.path());
    // The largest hold pieces of the large files, and at most the lists of some.
    let mut packs = files(&store, "packs", ".pack");
    packs.sort_by_key(|p| std::cmp::Reverse(fs::metadata(p).unwrap().len()));
    let (one, two) = (fs::read(&packs[0]).unwrap(), fs::read(&packs[1]).unwrap());
    // One under the other's name, then both exchanged.
    fs::write(&packs[0], &two).unwrap();
    for expected in [1, 2] {
        let report = check(&store);
        assert_eq!(report.damaged.len(), expected, "{report:#?}");
        for damage in &report.damaged {
            assert!(damage.reason.contains("swapped"), "{damage:?}");
        }
        // Whose pieces are in the one pack is not known where the other held the list of them.
        let named = report.damaged.iter().any(|d| !d.files.is_empty());
        assert!(named, "{report:#?}");
        fs::write(&packs[1], &one).unwrap();
    }
    // Also said when a file is read.
    let report = extract_from(&[&store], &Selection::All, &dir.path().join("out"));
    assert!(report.missing[0].reason.contains("swapped"), "{report:#?}");
}

#[test]
fn a_store_that_says_it_is_plain_now_gets_nothing() {
    let dir = scratch();
    let (_, store, _) = stored(dir.path());
    let mut host = KeyRing::default();
    let opened = open_for_reading(&store).unwrap();
    host.add_data_key(opened.id(), opened.data_key().unwrap().clone());
    assert!(Store::open_read_only_with(&store, &host).is_ok());
    let plain = format!(
        "{{\"format\":1,\"id\":\"{}\",\"created\":\"2026-11-20T00:00:00Z\",\"encryption\":null}}\n",
        opened.id()
    );
    drop(opened);
    fs::write(store.join("lifeboat/store.json"), plain).unwrap();
    // The copy tells anyone, the host's key tells the host.
    assert!(matches!(
        Store::open(&store),
        Err(Error::NoLongerEncrypted { .. })
    ));
    fs::remove_file(store.join("lifeboat/store.json.copy")).unwrap();
    assert!(matches!(
        Store::open_with(&store, &host),
        Err(Error::NoLongerEncrypted { .. })
    ));
}

#[test]
fn a_lost_store_file_is_replaced_by_its_copy() {
    let dir = scratch();
    let (tree, store, _) = stored(dir.path());
    let (file, copy) = (
        store.join("lifeboat/store.json"),
        store.join("lifeboat/store.json.copy"),
    );
    let good = fs::read(&file).unwrap();
    assert_eq!(good, fs::read(&copy).unwrap());
    for lost in [&file, &copy] {
        for bad in [Some(&good[..good.len() / 2]), None] {
            match bad {
                Some(bad) => fs::write(lost, bad).unwrap(),
                None => fs::remove_file(lost).unwrap(),
            }
            let report = check(&store);
            assert_eq!(report.damaged.len(), 1, "{report:#?}");
            assert!(lost.ends_with(&report.damaged[0].file), "{report:#?}");
            backup(&tree, &store);
            assert!(check(&store).ok());
            assert_eq!(fs::read(lost).unwrap(), good);
        }
    }
    fs::remove_file(&file).unwrap();
    assert!(matches!(
        Store::create(&store, &StoreOptions::default()),
        Err(Error::StoreExists { .. })
    ));
}

/// What a plug pulled between the two files leaves.
#[test]
fn a_copy_of_before_a_change_opens_nothing_and_is_renewed() {
    let dir = scratch();
    let (tree, store, _) = stored(dir.path());
    let copy = store.join("lifeboat/store.json.copy");
    let before = fs::read(&copy).unwrap();
    let mut opened = open_for_writing(&store).unwrap();
    let id = opened.keys().unwrap()[0].id.clone();
    opened
        .rotate_key(&id, &passphrase("battery staple"))
        .unwrap();
    opened.rotate_key(&id, &passphrase(PASSPHRASE)).unwrap();
    drop(opened);
    fs::write(&copy, &before).unwrap();
    let report = check(&store);
    assert_eq!(report.damaged.len(), 1, "{report:#?}");
    assert!(
        report.damaged[0].reason.contains("other keys"),
        "{report:#?}"
    );
    backup(&tree, &store);
    assert_ne!(fs::read(&copy).unwrap(), before);
    assert!(check(&store).ok());
}

#[test]
fn keys_change_and_the_data_stay() {
    let dir = scratch();
    let (tree, store, id) = stored(dir.path());
    let packs = || files(&store, "packs", ".pack");
    let before = packs();
    let file = dir.path().join("file.key");
    let opens = |ring: &KeyRing| Store::open_read_only_with(&store, ring).is_ok();
    let mut opened = open_for_writing(&store).unwrap();
    let (_, recovery) = opened.add_key(&NewSlot::Recovery).unwrap();
    let recovery = recovery.unwrap().to_text();
    opened
        .add_key(&NewSlot::KeyFile(KeyFile::create(&file).unwrap()))
        .unwrap();
    let first = opened.keys().unwrap()[0].id.clone();
    opened
        .rotate_key(&first, &passphrase("battery staple"))
        .unwrap();
    drop(opened);
    let mut with_file = KeyRing::default();
    with_file.add(Secret::KeyFile(KeyFile::read(&file).unwrap()));
    assert!(opens(&ring(&recovery)) && opens(&with_file) && opens(&ring("battery staple")));
    assert!(
        !opens(&ring(PASSPHRASE)),
        "the old passphrase opens nothing any more"
    );
    let mut opened = Store::open_with(&store, &ring(&recovery)).unwrap();
    opened.remove_key(&first).unwrap();
    assert!(!opens(&ring("battery staple")));
    for slot in opened.keys().unwrap().iter().skip(1) {
        opened.remove_key(&slot.id).unwrap();
    }
    let last = opened.keys().unwrap()[0].id.clone();
    assert!(
        opened
            .remove_key(&last)
            .unwrap_err()
            .to_string()
            .contains("last key")
    );
    drop(opened);
    assert_eq!(packs(), before);
    let opened = Store::open_read_only_with(&store, &ring(&recovery)).unwrap();
    assert_eq!(opened.snapshots().unwrap()[0].id, id);
    drop(tree);
}

#[test]
fn only_an_empty_store_can_be_encrypted() {
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("a"), "a").unwrap();
    backup(&tree, &store);
    let mut opened = Store::open(&store).unwrap();
    let error = opened.encrypt(&[passphrase("x")]).unwrap_err();
    assert!(error.to_string().contains("only an empty one"), "{error}");
    assert!(!store.join("lifeboat/store.json.copy").exists());
}

/// One read feeds a plain and an encrypted target alike; the restore point is the same, and one heals the other.
#[test]
fn plain_and_encrypted_targets_of_one_backup() {
    let dir = scratch();
    let (tree, _, _) = stored(dir.path());
    let (plain, locked) = (dir.path().join("plain"), dir.path().join("locked"));
    drop(sealed(&locked));
    let results = backup_to(&tree, &[&plain, &locked]);
    let ids: Vec<_> = results.into_iter().map(|r| r.snapshot.unwrap()).collect();
    assert_eq!(ids[0], ids[1]);
    let damage = |store: &Path| {
        let pack = files(store, "packs", ".pack").remove(0);
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&pack, bytes).unwrap();
    };
    for (bad, good) in [(&plain, &locked), (&locked, &plain)] {
        damage(bad);
        let out = dir
            .path()
            .join(format!("out-{}", bad.file_name().unwrap().display()));
        let report = extract_from(&[bad, good], &Selection::All, &out);
        assert!(report.complete(), "{report:#?}");
        assert_same(&tree, &out);
        fs::remove_dir_all(bad.join("lifeboat")).unwrap();
        drop(if bad == &locked {
            sealed(bad)
        } else {
            open(bad)
        });
        backup(&tree, bad);
    }
}
