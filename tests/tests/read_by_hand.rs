//! `scripts/read-by-hand` restores a tree with standard tools alone, and refuses what it must not trust.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

use bundle::backup::Backup;
use bundle::events::Silent;
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

/// A container's archive lists directories in any order: a hard link's first name may come after it.
#[test]
fn it_restores_a_container_with_links_before_their_first_names() {
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    fs::create_dir(&tree).unwrap();
    sh(
        &tree,
        r#"
        mkdir -p a z; echo small >z/small; head -c 3000000 /dev/urandom >z/large
        ln z/small a/small; ln z/large a/large; echo own >a/own
        touch -d '2020-02-02 02:02:02.002Z' z a .
        "#,
    );
    let archive = sh(
        &tree,
        "tar cf - --format=posix --no-recursion ./ ./z ./z/small ./z/large ./a ./a/own ./a/large ./a/small",
    );
    let mut backup = Backup::start(vec![open(&store)], options(), &Silent).unwrap();
    let (tree_of, configs) = backup.archive(&mut &archive[..]).unwrap();
    assert!(configs.is_empty());
    let mut draft = draft(vec![tree_of]);
    draft.kind = bundle::document::guest::KIND.into();
    draft.guest = Some(bundle::document::guest::GuestDump {
        id: 101,
        kind: bundle::document::guest::GuestKind::Lxc,
        name: None,
        dumped: "2026-11-20T20:31:36.250Z".into(),
        source: "vzdump".into(),
        configs,
        vma: None,
    });
    let id = backup.commit(draft).remove(0).snapshot.unwrap();
    let theirs = dir.path().join("by-hand");
    let output = by_hand(&store, "latest", &theirs);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("no restore point latest"),
        "{said}"
    );
    let output = by_hand(&store, &id.to_string(), &theirs);
    assert!(output.status.success(), "{output:?}");
    assert_same(&tree, &theirs);

    // The program, into a directory and as a tar.
    let opened = open_for_reading(&store).unwrap();
    let (_, snapshot) = opened.snapshot(&id.to_string()).unwrap();
    let (ours, of_tar) = (dir.path().join("ours"), dir.path().join("of-tar"));
    for dest in [&ours, &of_tar] {
        fs::create_dir(dest).unwrap();
    }
    let (all, tree_of) = (Selection::All, &snapshot.trees[0]);
    let options = bundle::extract::ExtractOptions::default();
    let report = bundle::extract::extract(
        &[&opened],
        &snapshot,
        tree_of,
        &all,
        &ours,
        &options,
        &Silent,
    );
    assert!(report.unwrap().complete());
    assert_same(&tree, &ours);
    // One link of a file whose first name is not selected becomes the file.
    for (selection, expected) in [
        (
            all,
            vec![
                "a", "a/large", "a/own", "a/small", "z", "z/large", "z/small",
            ],
        ),
        (
            Selection::Paths(vec!["a/small".into()]),
            vec!["a", "a/small"],
        ),
        (
            Selection::Paths(vec!["a/small".into(), "z".into()]),
            vec!["a", "a/small", "z", "z/large", "z/small"],
        ),
    ] {
        let mut archive = Vec::new();
        let report = bundle::extract::to_tar(
            &[&opened],
            &snapshot,
            tree_of,
            &selection,
            &mut archive,
            &Silent,
        );
        assert!(report.unwrap().complete());
        fs::write(dir.path().join("archive"), &archive).unwrap();
        fs::remove_dir_all(&of_tar).unwrap();
        fs::create_dir(&of_tar).unwrap();
        sh(&of_tar, "tar xpf ../archive");
        let found = sh(&of_tar, "find . -mindepth 1 -printf '%P\n' | sort");
        assert_eq!(
            String::from_utf8(found)
                .unwrap()
                .lines()
                .collect::<Vec<_>>(),
            expected
        );
        assert_eq!(fs::read(of_tar.join("a/small")).unwrap(), b"small\n");
        if expected.len() == 7 {
            assert_same(&tree, &of_tar);
        }
    }
}
