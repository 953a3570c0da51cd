//! Damage is found, named with the files that it affects, and healed from another store.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bundle::backup::Backup;
use bundle::events::Silent;
use bundle::extract::Selection;
use bundle::verify::{VerifyOptions, VerifyReport, check_readable, verify, write_report};
use bundle::{Error, Id};
use store_support::*;

/// A tree with small files and large ones, in two stores.
fn two_stores(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let (tree, one, two) = (dir.join("tree"), dir.join("one"), dir.join("two"));
    fs::create_dir_all(tree.join("etc")).unwrap();
    for n in 0..40 {
        fs::write(tree.join(format!("etc/{n:02}")), noise(20_000)).unwrap();
    }
    fs::write(tree.join("large-a"), noise(5_000_000)).unwrap();
    fs::write(tree.join("large-b"), noise(5_000_000)).unwrap();
    let results = backup_to(&tree, &[&one, &two]);
    assert!(results.iter().all(|r| r.snapshot.is_ok()), "{results:?}");
    (tree, one, two)
}

fn footer(pack: &Path) -> serde_json::Value {
    let script = format!(
        "p={}; n=$(tail -c 94 $p | cut -d ' ' -f 3 | sed 's/^0*//'); tail -c $((n + 94)) $p | head -c $n | zstd -dc",
        pack.display()
    );
    serde_json::from_slice(&sh(Path::new("/"), &script)).unwrap()
}

fn holds_kind(pack: &Path, kind: &str) -> bool {
    let footer = footer(pack);
    let blobs = footer["blobs"].as_array().unwrap();
    blobs.iter().any(|b| b["kind"] == kind)
}

/// Flips a byte in the middle of the first blob of a kind; returns the pack's file.
fn flip(store: &Path, kind: &str) -> PathBuf {
    for pack in files(store, "packs", ".pack") {
        let footer = footer(&pack);
        let Some(blob) = footer["blobs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|b| b["kind"] == kind)
        else {
            continue;
        };
        let at = blob["offset"].as_u64().unwrap() + blob["stored"].as_u64().unwrap() / 2;
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(&pack)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        return pack;
    }
    panic!("no {kind} in {}", store.display());
}

fn readable(targets: &[&Path]) -> VerifyReport {
    let stores: Vec<_> = targets
        .iter()
        .map(|t| open_for_reading(t).unwrap())
        .collect();
    let (_, snapshot) = stores[0].snapshot("latest").unwrap();
    check_readable(&stores.iter().collect::<Vec<_>>(), &snapshot, &Silent).unwrap()
}

#[test]
fn a_flipped_byte_in_a_large_file() {
    let dir = scratch();
    let (tree, one, two) = two_stores(dir.path());
    let pack = flip(&one, "chunk");
    let report = check(&one);
    assert_eq!(report.damaged.len(), 1, "{report:#?}");
    let damage = &report.damaged[0];
    assert!(pack.ends_with(&damage.file) && damage.pack.is_some() && damage.blob.is_some());
    assert!(
        damage.files == ["/large-a"] || damage.files == ["/large-b"],
        "{damage:?}"
    );
    assert_eq!(damage.snapshots, report.snapshots);
    let name = damage.files[0].trim_start_matches('/');
    // The same before a restore: of this store alone, and with the other at hand.
    assert_eq!(readable(&[&one]).damaged[0].files, damage.files);
    assert!(readable(&[&one, &two]).ok());
    let store = open_for_reading(&one).unwrap();
    let written = write_report(&store, &report).unwrap();
    assert_eq!(
        serde_json::from_slice::<VerifyReport>(&fs::read(written).unwrap()).unwrap(),
        report
    );

    let out = dir.path().join("out");
    let extracted = extract_from(&[&one], &Selection::All, &out);
    assert!(!extracted.complete());
    assert_eq!(extracted.missing.len(), 1);
    assert_eq!(extracted.missing[0].path, Path::new(name));
    assert!(!out.join(name).exists());
    sh(&out, "test -z \"$(find . -name '.lifeboat*')\"");
    fs::copy(tree.join(name), out.join(name)).unwrap();
    sh(dir.path(), "diff -r tree out");

    let healed = extract_from(&[&one, &two], &Selection::All, &dir.path().join("healed"));
    assert!(healed.complete() && healed.healed > 0, "{healed:#?}");
    assert_same(&tree, &dir.path().join("healed"));
}

#[test]
fn a_flipped_byte_in_a_segment_names_its_files() {
    let dir = scratch();
    let (tree, one, two) = two_stores(dir.path());
    flip(&one, "segment");
    let report = check(&one);
    assert_eq!(report.damaged.len(), 1, "{report:#?}");
    assert!(
        report.damaged[0]
            .files
            .iter()
            .any(|f| f.starts_with("/etc/")),
        "{report:#?}"
    );
    let out = dir.path().join("out");
    let extracted = extract_from(&[&one], &Selection::All, &out);
    assert!(!extracted.complete());
    for file in extracted.missing {
        let name = format!("/{}", file.path.display());
        assert!(
            report.damaged[0].files.contains(&name) && !out.join(&file.path).exists(),
            "{name}"
        );
    }
    // Large files do not depend on the segment for their content.
    assert_eq!(
        fs::read(out.join("large-a")).unwrap(),
        fs::read(tree.join("large-a")).unwrap()
    );
    assert!(extract_from(&[&one, &two], &Selection::All, &dir.path().join("healed")).complete());
}

#[test]
fn a_damaged_catalogue_is_not_a_complete_extraction() {
    let dir = scratch();
    let (tree, one, two) = two_stores(dir.path());
    flip(&one, "catalogue");
    assert!(!check(&one).ok());
    assert!(!extract_from(&[&one], &Selection::All, &dir.path().join("out")).complete());
    assert!(extract_from(&[&one, &two], &Selection::All, &dir.path().join("healed")).complete());
    assert_same(&tree, &dir.path().join("healed"));
}

#[test]
fn truncated_and_missing_packs() {
    let dir = scratch();
    let (tree, one, two) = two_stores(dir.path());
    // What refers to other blobs stays: without it no files can be named.
    let mut packs = files(&one, "packs", ".pack");
    packs.retain(|pack| !holds_kind(pack, "catalogue") && !holds_kind(pack, "content"));
    let size = fs::metadata(&packs[0]).unwrap().len();
    fs::File::options()
        .write(true)
        .open(&packs[0])
        .unwrap()
        .set_len(size / 2)
        .unwrap();
    fs::remove_file(&packs[1]).unwrap();
    let report = check(&one);
    let reason_of = |pack: &Path| {
        let damage = report
            .damaged
            .iter()
            .find(|d| pack.ends_with(&d.file))
            .unwrap();
        assert!(!damage.files.is_empty(), "{damage:?}");
        damage.reason.clone()
    };
    assert!(reason_of(&packs[0]).contains("truncated"), "{report:#?}");
    assert!(reason_of(&packs[1]).contains("missing"), "{report:#?}");
    assert!(!readable(&[&one]).ok() && readable(&[&one, &two]).ok());
    assert!(extract_from(&[&one, &two], &Selection::All, &dir.path().join("out")).complete());
    // The next backup does not rely on what is gone.
    backup(&tree, &one);
    assert!(readable(&[&one]).ok());
    assert!(extract_from(&[&one], &Selection::All, &dir.path().join("again")).complete());
    assert_same(&tree, &dir.path().join("again"));
}

#[test]
fn a_damaged_index_is_replaced_by_the_footers() {
    let dir = scratch();
    let (tree, one, _) = two_stores(dir.path());
    let index = files(&one, "index", ".idx").remove(0);
    let mut bytes = fs::read(&index).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&index, bytes).unwrap();
    let report = check(&one);
    assert_eq!(report.damaged.len(), 1, "{report:#?}");
    assert!(index.ends_with(&report.damaged[0].file) && report.damaged[0].files.is_empty());
    assert!(extract_from(&[&one], &Selection::All, &dir.path().join("out")).complete());
    // A new index lists the packs again.
    fs::remove_file(&index).unwrap();
    let again = backup_to(&tree, &[&one]).remove(0);
    assert_eq!(again.new_blobs, 0);
    let report = check(&one);
    assert!(report.ok() && report.notes.is_empty(), "{report:#?}");
}

#[test]
fn a_damaged_snapshot_document_is_named_and_the_other_still_read() {
    let dir = scratch();
    let (tree, one, _) = two_stores(dir.path());
    let document = files(&one, "snapshots", ".json").remove(0);
    fs::write(tree.join("new"), "new").unwrap();
    let newer = backup(&tree, &one);
    let text = fs::read_to_string(&document)
        .unwrap()
        .replace("\"test\"", "\"text\"");
    fs::write(&document, text).unwrap();
    let report = check(&one);
    assert_eq!(report.damaged.len(), 1, "{report:#?}");
    assert!(
        document.ends_with(&report.damaged[0].file) && report.damaged[0].reason.contains("hash")
    );
    let store = open_for_reading(&one).unwrap();
    assert_eq!(
        store
            .snapshots()
            .unwrap()
            .iter()
            .map(|s| s.id)
            .collect::<Vec<_>>(),
        [newer]
    );
    assert_eq!(store.damaged_documents().unwrap().len(), 1);
}

#[test]
fn other_versions_and_unknown_fields_are_refused_by_name() {
    let dir = scratch();
    let (_, one, _) = two_stores(dir.path());
    let file = one.join("lifeboat/store.json");
    let good = fs::read_to_string(&file).unwrap();
    let refused = |from: &str, to: &str| {
        assert!(good.contains(from));
        fs::write(&file, good.replace(from, to)).unwrap();
        let error = open_for_reading(&one).unwrap_err();
        assert!(error.to_string().contains("store.json"), "{error}");
        error
    };
    assert!(matches!(
        refused("\"format\":1", "\"format\":2"),
        Error::UnknownFormat { .. }
    ));
    assert!(matches!(
        refused("\"format\":1", "\"format\":2,\"more\":1"),
        Error::UnknownFormat { .. }
    ));
    assert!(matches!(
        refused("\"format\":1", "\"format\":1,\"more\":1"),
        Error::Malformed { .. }
    ));
    assert!(matches!(
        refused("\"encryption\":null", "\"encryption\":{\"slots\":[]}"),
        Error::Malformed { .. }
    ));
    fs::write(&file, &good).unwrap();

    // A document of a later version, with the name that fits it.
    let old = files(&one, "snapshots", ".json").remove(0);
    let text = fs::read_to_string(&old)
        .unwrap()
        .replacen("\"format\": 1", "\"format\": 7", 1);
    let name = old
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .split('-')
        .next()
        .unwrap()
        .to_string();
    let new = old.with_file_name(format!("{name}-{}.json", Id::of(text.as_bytes())));
    fs::write(&new, text).unwrap();
    let store = open_for_reading(&one).unwrap();
    let damaged = store.damaged_documents().unwrap();
    assert!(
        damaged[0].reason.contains("format 7") && damaged[0].file == new,
        "{damaged:?}"
    );
    // The same for an index.
    let index = one.join("lifeboat/index");
    sh(
        &index,
        "printf '{\"format\":9,\"packs\":[]}' | zstd -q > new; mv new $(sha256sum < new | cut -c1-64).idx",
    );
    assert!(
        matches!(open_for_reading(&one), Err(Error::UnknownFormat { found, .. }) if found == "9")
    );
}

#[test]
fn one_failing_target_does_not_stop_the_other() {
    let dir = scratch();
    let (tree, good, bad) = (
        dir.path().join("tree"),
        dir.path().join("good"),
        dir.path().join("bad"),
    );
    fs::create_dir(&tree).unwrap();
    for n in 0..30 {
        fs::write(tree.join(format!("{n}")), noise(1_500_000)).unwrap();
    }
    let stores = vec![open(&bad), open(&good)];
    // The first pack cannot be given its name: the target fails in the middle.
    let block = || {
        sh(
            &bad,
            "rm -rf lifeboat/packs; echo in the way > lifeboat/packs",
        )
    };
    block();
    let mut backup = Backup::start(stores, options(), &Silent).unwrap();
    let saved = backup.tree(&source(&tree)).unwrap();
    let results = backup.commit(draft(vec![saved]));
    assert!(
        results[0]
            .snapshot
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("bad"),
        "{results:?}"
    );
    assert!(results[1].snapshot.is_ok());
    assert!(files(&bad, "snapshots", ".json").is_empty());
    assert!(check(&good).ok());
    assert!(extract_from(&[&good], &Selection::All, &dir.path().join("out")).complete());
    // With no target left, the backup ends with an error instead of reading on.
    sh(&bad, "rm lifeboat/packs; mkdir lifeboat/packs");
    let stores = vec![open(&bad)];
    block();
    let mut backup = Backup::start(stores, options(), &Silent).unwrap();
    assert!(matches!(
        backup.tree(&source(&tree)),
        Err(Error::NoTarget(_))
    ));
}

#[test]
fn one_writer_at_a_time() {
    let dir = scratch();
    let first = open(dir.path());
    assert!(matches!(
        open_for_writing(dir.path()),
        Err(Error::Locked { .. })
    ));
    assert!(open_for_reading(dir.path()).is_ok());
    drop(first);
    assert!(open_for_writing(dir.path()).is_ok());
}

#[test]
fn one_snapshot_of_several_is_verified_alone() {
    let dir = scratch();
    let (tree, one, _) = two_stores(dir.path());
    let first = open_for_reading(&one)
        .unwrap()
        .snapshot("latest")
        .unwrap()
        .0;
    let packs = files(&one, "packs", ".pack");
    fs::write(tree.join("later"), noise(3_000_000)).unwrap();
    backup(&tree, &one);
    let later: Vec<_> = files(&one, "packs", ".pack")
        .into_iter()
        .filter(|p| !packs.contains(p))
        .collect();
    later.iter().for_each(|p| fs::remove_file(p).unwrap());
    let store = open_for_reading(&one).unwrap();
    let verify = |snapshot: &str| {
        let options = VerifyOptions {
            snapshot: Some(snapshot.into()),
            cold: true,
            workers: 2,
            ..VerifyOptions::default()
        };
        verify(&store, &options, &Silent).unwrap()
    };
    assert!(verify(&first.to_string()[..12]).ok());
    assert!(!verify("latest").ok());
}

#[test]
fn a_lost_catalogue_is_said_to_hide_what_else_is_lost() {
    let dir = scratch();
    let (_, one, _) = two_stores(dir.path());
    flip(&one, "catalogue");
    let report = check(&one);
    let lost = report.damaged.iter().find(|d| d.blob.is_some()).unwrap();
    assert_eq!(lost.snapshots.len(), 1, "{report:#?}");
    assert!(lost.files[0].contains("catalogue"), "{report:#?}");
    assert!(
        report.notes.iter().any(|n| n.contains("may cost it more")),
        "{report:#?}"
    );
}

/// Keeps the warnings.
#[derive(Debug, Default)]
struct Heard(std::sync::Mutex<Vec<String>>);

impl bundle::events::Events for Heard {
    fn warn(&self, text: &str) {
        self.0.lock().unwrap().push(text.into());
    }
}

#[test]
fn a_clock_that_was_set_back_is_said() {
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    fs::create_dir(&tree).unwrap();
    backup(&tree, &store);
    let document = files(&store, "snapshots", ".json").pop().unwrap();
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(&document).unwrap()).unwrap();
    json["time"] = "2999-01-01T00:00:00.000Z".into();
    let json = serde_json::to_vec(&json).unwrap();
    let name = format!("29990101T000000000Z-{}.json", Id::of(&json));
    fs::write(document.with_file_name(name), json).unwrap();
    let heard = Heard::default();
    drop(Backup::start(vec![open(&store)], options(), &heard).unwrap());
    let heard = heard.0.into_inner().unwrap();
    assert!(heard.iter().any(|t| t.contains("the clock")), "{heard:?}");
}

#[test]
fn the_same_of_encrypted_stores() {
    again_encrypted(&[
        "other_versions_and_unknown_fields",
        "a_damaged_snapshot_document",
        "a_clock_that_was_set_back",
        "a_flipped_byte",
        "lost_catalogue",
        "damaged_catalogue",
        "truncated_and_missing_packs",
    ]);
}
