//! Any damaged byte of a store is reported, with the name of its file, or does not matter.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::fs;
use std::path::{Path, PathBuf};

use bundle::backup::Backup;
use bundle::events::Silent;
use bundle::verify::{VerifyOptions, VerifyReport, verify, write_report};
use store_support::*;

/// Bytes between two that are changed in a file.
const STEP: usize = 97;

/// A small store with two snapshots, several packs and indexes, and a report.
fn small(dir: &Path) -> PathBuf {
    let (tree, store) = (dir.join("tree"), dir.join("store"));
    fs::create_dir(&tree).unwrap();
    for round in 0..2 {
        for n in 0..6 {
            fs::write(tree.join(format!("{round}-{n}")), noise(300)).unwrap();
        }
        // Zeroes but for a little: a content list, and a chunk that takes no room.
        let mut large = vec![0; 1_400_000];
        large[..300].copy_from_slice(&noise(300));
        fs::write(tree.join(format!("{round}-large")), large).unwrap();
        backup(&tree, &store);
    }
    let report = check(&store);
    assert!(report.ok(), "{report:#?}");
    write_report(&open_for_reading(&store).unwrap(), &report).unwrap();
    store
}

/// What `lifeboat verify` would say; an error is that it cannot be done.
fn verdict(store: &Path) -> Result<VerifyReport, bundle::Error> {
    let store = open_for_reading(store)?;
    verify(&store, &VerifyOptions::default(), &Silent)
}

fn names(report: &VerifyReport, file: &str) -> bool {
    report.damaged.iter().any(|d| d.file == file)
}

/// Is it of no consequence that this byte is another? `store.json` has no hash: its id and its date are texts that
/// nothing is read by. Reports are read by nobody but people, and the lock is empty.
fn harmless(file: &str, content: &[u8], at: usize) -> bool {
    if file.starts_with("reports/") || file == "lock" {
        return true;
    }
    let text = String::from_utf8_lossy(content);
    file == "store.json"
        && ["\"id\":\"", "\"created\":\""].iter().any(|key| {
            let start = text.find(key).unwrap() + key.len();
            (start..start + text[start..].find('"').unwrap()).contains(&at)
        })
}

#[test]
fn no_changed_byte_is_called_good() {
    let dir = scratch();
    let store = small(dir.path());
    let root = store.join("lifeboat");
    let (mut changed, mut silent) = (0, 0);
    for path in files(&store, "", "") {
        if !path.is_file() {
            continue;
        }
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let content = fs::read(&path).unwrap();
        // Every byte where a file is small or ends.
        let step = if content.len() < 400 { 1 } else { STEP };
        let end = content.len().saturating_sub(100);
        for at in (0..end).step_by(step).chain(end..content.len()) {
            let mut damaged = content.clone();
            damaged[at] ^= if at % 2 == 0 { 0x01 } else { 0x20 };
            fs::write(&path, &damaged).unwrap();
            changed += 1;
            match verdict(&store) {
                Ok(report) if report.ok() => {
                    assert!(harmless(file, &content, at), "{file}, byte {at}");
                    silent += 1;
                }
                Ok(report) => assert!(names(&report, file), "{file}, byte {at}: {report:#?}"),
                Err(error) => assert!(error.to_string().contains(file), "{file}: {error}"),
            }
        }
        fs::write(&path, &content).unwrap();
    }
    assert!(
        changed > 500 && silent < changed / 2,
        "{silent} of {changed}"
    );
    assert!(verdict(&store).unwrap().ok());
}

#[test]
fn no_truncated_missing_or_exchanged_file_is_called_good() {
    let dir = scratch();
    let store = small(dir.path());
    let root = store.join("lifeboat");
    let relative = |path: &Path| {
        let path = path.strip_prefix(&root).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (packs, indexes, snapshots) = (
        files(&store, "packs", ".pack"),
        files(&store, "index", ".idx"),
        files(&store, "snapshots", ".json"),
    );
    for path in packs.iter().chain(&indexes).chain(&snapshots) {
        let content = fs::read(path).unwrap();
        for length in [0, 1, content.len() / 2, content.len() - 1] {
            fs::write(path, &content[..length]).unwrap();
            let report = verdict(&store).unwrap();
            assert!(
                names(&report, &relative(path)),
                "{}: {report:#?}",
                relative(path)
            );
        }
        fs::write(path, [&content[..], b"\n"].concat()).unwrap();
        assert!(names(&verdict(&store).unwrap(), &relative(path)));
        fs::remove_file(path).unwrap();
        let report = verdict(&store).unwrap();
        if packs.contains(path) {
            assert!(names(&report, &relative(path)), "{report:#?}");
        } else if indexes.contains(path) {
            // Nothing is lost: the footers say the same.
            assert!(report.ok() && !report.notes.is_empty(), "{report:#?}");
        } else {
            // A snapshot that is gone was removed, as far as the store can tell.
            assert!(report.ok() && report.snapshots.len() == 1, "{report:#?}");
        }
        fs::write(path, &content).unwrap();
    }
    // Each under the other's name.
    for two in [&packs[..2], &indexes[..2], &snapshots[..2]] {
        sh(
            &root,
            &format!(
                "mv {0} x; mv {1} {0}; mv x {1}",
                two[0].display(),
                two[1].display()
            ),
        );
        let report = verdict(&store).unwrap();
        for path in two {
            assert!(names(&report, &relative(path)), "{report:#?}");
        }
        sh(
            &root,
            &format!(
                "mv {0} x; mv {1} {0}; mv x {1}",
                two[0].display(),
                two[1].display()
            ),
        );
    }
    // Once more under another name, and in another directory.
    let other = root.join(format!("packs/00/{}.pack", "0".repeat(64)));
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::copy(&packs[0], &other).unwrap();
    assert!(names(&verdict(&store).unwrap(), &relative(&other)));
    fs::remove_file(&other).unwrap();
    let away = root.join("packs/zz");
    fs::create_dir(&away).unwrap();
    let moved = away.join(packs[0].file_name().unwrap());
    fs::rename(&packs[0], &moved).unwrap();
    let report = verdict(&store).unwrap();
    assert!(names(&report, &relative(&packs[0])) && names(&report, &relative(&moved)));
    fs::rename(&moved, &packs[0]).unwrap();
    let report = verdict(&store).unwrap();
    assert!(report.ok(), "{report:#?}");
}

#[test]
fn what_cannot_be_examined_takes_nothing_else_with_it() {
    let dir = scratch();
    let store = small(dir.path());
    let pack = &files(&store, "packs", ".pack")[0];
    // A link to itself is what root, too, can neither examine nor open.
    fs::rename(pack, dir.path().join("kept")).unwrap();
    std::os::unix::fs::symlink(pack, pack).unwrap();
    let report = verdict(&store).unwrap();
    assert!(!report.ok() && report.packs > 1, "{report:#?}");
    fs::remove_file(pack).unwrap();
    fs::rename(dir.path().join("kept"), pack).unwrap();
    assert!(verdict(&store).unwrap().ok());
}

#[test]
fn a_directory_of_packs_that_cannot_be_listed_takes_nothing_else_with_it() {
    let dir = scratch();
    let store = small(dir.path());
    let pack = &files(&store, "packs", ".pack")[0];
    let sub = pack.parent().unwrap();
    fs::rename(sub, dir.path().join("kept")).unwrap();
    std::os::unix::fs::symlink(sub, sub).unwrap();
    let report = verdict(&store).unwrap();
    assert!(names(
        &report,
        sub.strip_prefix(store.join("lifeboat"))
            .unwrap()
            .to_str()
            .unwrap()
    ));
    assert!(report.packs > 1, "{report:#?}");
}

#[test]
fn a_backup_that_ends_during_a_verification_is_no_damage() {
    let dir = scratch();
    let store = small(dir.path());
    let opened = open_for_reading(&store).unwrap();
    fs::write(dir.path().join("tree/later"), noise(3000)).unwrap();
    backup(&dir.path().join("tree"), &store);
    let report = verify(&opened, &VerifyOptions::default(), &Silent).unwrap();
    assert!(report.ok() && report.snapshots.len() == 2, "{report:#?}");
    assert_eq!(verdict(&store).unwrap().snapshots.len(), 3);
}

#[test]
fn a_target_that_is_exchanged_during_a_backup_gets_no_snapshot() {
    let dir = scratch();
    let store = small(dir.path());
    // Nothing is new: no pack is written that could not be given its name.
    let mut backup = Backup::start(vec![open(&store)], options(), &Silent).unwrap();
    let saved = backup.tree(&source(&dir.path().join("tree"))).unwrap();
    fs::rename(store.join("lifeboat"), dir.path().join("away")).unwrap();
    drop(open(&store));
    assert!(
        backup
            .commit(draft(vec![saved]))
            .remove(0)
            .snapshot
            .is_err()
    );
    assert!(verdict(&store).unwrap().snapshots.is_empty());
}

#[test]
fn the_same_of_encrypted_stores() {
    again_encrypted(&[]);
}
