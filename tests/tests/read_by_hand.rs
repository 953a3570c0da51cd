//! `scripts/read-by-hand` restores a tree with standard tools alone, and refuses what it must not trust.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

use bundle::extract::Selection;
use store_support::*;

fn by_hand(store: &Path, snapshot: &str, dest: &Path) -> Output {
    command(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../scripts/read-by-hand"
    ))
    .args([store, Path::new(snapshot), Path::new("/"), dest])
    .output()
    .unwrap()
}

#[test]
fn it_restores_what_the_program_restores() {
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    make_everything(&tree);
    // The script says that it does not keep these.
    release(&tree);
    sh(&tree, "chattr -R -f -dA . || true");
    sh(
        &tree,
        r#"
        dd if=/dev/urandom of="$(printf 'large\377 name
')" bs=1M count=6 status=none
        touch -d '2020-02-02 02:02:02.002Z' .
        "#,
    );
    backup(&tree, &store);
    let (theirs, ours) = (dir.path().join("by-hand"), dir.path().join("by-program"));
    let output = by_hand(&store, "latest", &theirs);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(extract_from(&[&store], &Selection::All, &ours).complete());
    assert_same(&ours, &theirs);
    assert_same(&tree, &theirs);
}

#[test]
fn it_refuses_damage_and_what_it_does_not_know() {
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(100_000)).unwrap();
    let id = backup(&tree, &store).to_string();
    let refused = |snapshot: &str, text: &str| {
        let dest = tempfile::tempdir_in(dir.path()).unwrap();
        let output = by_hand(&store, snapshot, dest.path());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(text), "{said}");
    };
    refused("ffff", "no restore point ffff");
    let dest = tempfile::tempdir_in(dir.path()).unwrap();
    assert!(by_hand(&store, &id[..8], dest.path()).status.success());

    let pack = files(&store, "packs", ".pack").pop().unwrap();
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&pack)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 50_000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 50_000).unwrap();
    refused("latest", "is damaged");
    file.write_all_at(&byte, 50_000).unwrap();

    let document = files(&store, "snapshots", ".json").pop().unwrap();
    let mut json = fs::read(&document).unwrap();
    json.push(b' ');
    fs::write(&document, json).unwrap();
    refused("latest", "is damaged");
    let json = store.join("lifeboat/store.json");
    let text = fs::read_to_string(&json).unwrap();
    fs::write(
        &json,
        text.replace("\"encryption\":null", "\"encryption\":{}"),
    )
    .unwrap();
    refused("latest", "is encrypted");
}
