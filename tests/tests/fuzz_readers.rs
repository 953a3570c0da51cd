//! Any damage to the files of a store: it is noticed, or does no harm. What is extracted is right or is named.
#![allow(clippy::unwrap_used, reason = "a failing test is to panic")]

#[path = "../fuzz/mutate.rs"]
mod mutate;
mod store_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bundle::events::Silent;
use bundle::extract::{ExtractOptions, Selection, extract};
use bundle::store::Store;
use bundle::verify::{VerifyOptions, check_readable, verify};
use store_support::{backup, noise};

/// Files with their contents, links with their targets, directories with nothing.
fn look(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        let content = if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            Vec::new()
        } else if kind.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        seen.insert(path.strip_prefix(dir).unwrap().to_owned(), content);
    }
    seen
}

fn write(dir: &Path, files: &BTreeMap<PathBuf, Vec<u8>>, dirs: &[&str]) {
    for sub in dirs {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    for (name, content) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

#[test]
fn fuzz_damaged_stores() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, target) = (dir.path().join("tree"), dir.path().join("target"));
    let files = BTreeMap::from([
        ("a/text".into(), b"text ".repeat(100)),
        ("a/noise".into(), noise(3000)),
        ("large".into(), noise(1_200_000)),
        ("empty".into(), Vec::new()),
    ]);
    write(&tree, &files, &["a/dir"]);
    std::os::unix::fs::symlink("a/text", tree.join("link")).unwrap();
    let original = look(&tree);
    let id = backup(&tree, &target);
    let mut store: BTreeMap<PathBuf, Vec<u8>> = look(&target.join("lifeboat"));
    store.retain(|_, content| !content.is_empty());
    let names: Vec<PathBuf> = store.keys().cloned().collect();
    mutate::rounds("damaged stores", 120, |random| {
        let round = tempfile::tempdir_in(dir.path()).unwrap();
        let root = round.path().join("lifeboat");
        let mut damaged = store.clone();
        for _ in 0..1 + random.below(2) {
            let name = random.pick(&names);
            match (random.below(6), damaged.get_mut(name)) {
                (0, _) => drop(damaged.remove(name)),
                (1, _) => drop(damaged.insert(name.clone(), store[random.pick(&names)].clone())),
                (_, Some(content)) => *content = mutate::mutate(random, &[std::mem::take(content)]),
                (_, None) => {}
            }
        }
        write(&root, &damaged, &["packs", "index", "snapshots"]);
        let Ok(store) = Store::open_read_only(round.path()) else {
            return;
        };
        let verified = verify(&store, &VerifyOptions::default(), &Silent).unwrap();
        let Ok((_, snapshot)) = store.snapshot(&id.to_string()) else {
            return;
        };
        let readable = check_readable(&[&store], &snapshot, &Silent).unwrap();
        let dest = round.path().join("dest");
        fs::create_dir(&dest).unwrap();
        let tree = &snapshot.trees[0];
        let options = ExtractOptions::default();
        let report = extract(
            &[&store],
            &snapshot,
            tree,
            &Selection::All,
            &dest,
            &options,
            &Silent,
        );
        let report = report.unwrap();
        let (complete, now) = (report.complete(), look(&dest));
        assert!(complete || !verified.ok(), "{report:?}");
        assert!(complete || !readable.ok(), "{report:?}");
        assert!(!complete || now == original);
        for (path, content) in &now {
            assert_eq!(original.get(path), Some(content), "{}", path.display());
        }
    });
}
