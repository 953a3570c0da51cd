//! What goes into a store comes out again, judged by GNU tar, rsync, find, getfattr and lsattr.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bundle::backup::{Backup, ImageSource};
use bundle::events::Silent;
use bundle::extract::{Selection, image_to, to_tar};
use bundle::list::{EntryKind, entries};
use store_support::*;

#[test]
fn every_kind_of_metadata_returns() {
    let dir = scratch();
    let (tree, store, out) = (
        dir.path().join("tree"),
        dir.path().join("store"),
        dir.path().join("out"),
    );
    make_everything(&tree);
    sh(&tree, "mkfifo socket-stand-in; rm socket-stand-in");
    let socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    sh(&tree, "touch -d '2020-02-02 02:02:02.2Z' .");
    let results = backup_to(&tree, &[&store]);
    assert!(results[0].snapshot.is_ok());
    drop(socket);
    fs::remove_file(tree.join("socket")).unwrap();
    sh(&tree, "touch -d '2020-02-02 02:02:02.2Z' .");

    // What stands in the way is replaced, and links in it are not followed.
    let outside = dir.path().join("outside");
    fs::create_dir_all(out.join("long")).unwrap();
    fs::write(&outside, "untouched").unwrap();
    std::os::unix::fs::symlink(&outside, out.join("big")).unwrap();
    std::os::unix::fs::symlink(dir.path(), out.join("plain")).unwrap();
    fs::write(out.join("zz-link"), "old").unwrap();

    let report = extract_from(&[&store], &Selection::All, &out);
    assert!(report.complete(), "{report:#?}");
    assert!(report.doubtful.is_empty(), "{report:#?}");
    assert_same(&tree, &out);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
    for name in ["sparse", "all-hole", "short-sparse"] {
        let blocks = |root: &Path| fs::metadata(root.join(name)).unwrap().blocks();
        assert!(blocks(&out) <= blocks(&tree), "{name} lost its holes");
    }
    let opened = open_for_reading(&store).unwrap();
    let (_, snapshot) = opened.snapshot("latest").unwrap();
    assert_eq!(snapshot.summary.sockets, 1);
    let readers = [&opened];
    let listed: Vec<_> = entries(&readers, &snapshot.trees[0])
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(listed.len() as u64, snapshot.trees[0].entries);
    assert_eq!(listed[0].path, Path::new("."));
    let link = listed
        .iter()
        .find(|e| e.path == Path::new("zz-link"))
        .unwrap();
    assert_eq!(
        (link.kind, link.target.as_deref()),
        (EntryKind::Hardlink, Some(Path::new("plain/file")))
    );
    assert!(check(&store).ok());
    release(&tree);
    release(&out);
}

#[test]
fn a_segment_is_read_by_hand() {
    let dir = scratch();
    let (tree, store, out) = (
        dir.path().join("tree"),
        dir.path().join("store"),
        dir.path().join("out"),
    );
    fs::create_dir_all(tree.join("etc")).unwrap();
    sh(
        &tree,
        "echo root > etc/passwd; ln etc/passwd etc/link; ln -s passwd etc/sym; setfattr -n user.a -v b etc/passwd",
    );
    if is_root() {
        sh(
            &tree,
            "cp /bin/true etc/true; setcap cap_net_raw=ep etc/true",
        );
    }
    backup(&tree, &store);
    fs::create_dir(&out).unwrap();
    // As docs/bundle-format.md says it, with nothing but jq, zstd, coreutils and GNU tar.
    let script = r#"
        cd lifeboat
        for pack in packs/*/*.pack; do
            test "$(sha256sum < "$pack" | cut -c1-64)" = "$(basename "$pack" .pack)"
            size=$(stat -c %s "$pack")
            length=$(tail -c 94 "$pack" | cut -d ' ' -f 3 | sed 's/^0*//')
            tail -c $((length + 94)) "$pack" | head -c "$length" | zstd -dc |
                jq -r '.blobs[] | select(.kind == "segment") | "\(.id) \(.codec) \(.offset) \(.stored)"' |
                while read -r id codec offset stored; do
                    tail -c +$((offset + 1)) "$pack" | head -c "$stored" > ../blob
                    if [ "$codec" = zstd ]; then zstd -dc ../blob > ../segment; else cp ../blob ../segment; fi
                    test "$(sha256sum < ../segment | cut -c1-64)" = "$id"
                    tar --xattrs --xattrs-include='*' --warning=no-unknown-keyword -C ../../out -xpf ../segment
                done
        done
    "#;
    sh(&store, script);
    assert_same(&tree, &out);
}

#[test]
fn the_tar_stream_is_read_by_gnu_tar() {
    let dir = scratch();
    let (tree, store, out) = (
        dir.path().join("tree"),
        dir.path().join("store"),
        dir.path().join("out"),
    );
    make_everything(&tree);
    // Tar has no inode flags, GNU tar no holes in an ordinary archive.
    release(&tree);
    sh(
        &tree,
        "rm all-hole; if [ -d many ]; then chattr -R -dA many plain || true; fi",
    );
    backup(&tree, &store);
    let opened = open_for_reading(&store).unwrap();
    let (_, snapshot) = opened.snapshot("latest").unwrap();
    let mut archive = fs::File::create(dir.path().join("all.tar")).unwrap();
    let report = to_tar(
        &[&opened],
        &snapshot,
        &snapshot.trees[0],
        &Selection::All,
        &mut archive,
        &Silent,
    )
    .unwrap();
    assert!(report.complete(), "{report:#?}");
    fs::create_dir(&out).unwrap();
    sh(
        &out,
        "tar --numeric-owner --xattrs --xattrs-include='*' -xpf ../all.tar",
    );
    assert_same(&tree, &out);
}

#[test]
fn selections_and_links_whose_first_name_is_not_selected() {
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    sh(
        dir.path(),
        r"mkdir -p tree/a tree/z/sub; echo small > tree/a/first; ln tree/a/first tree/z/second; ln tree/a/first tree/z/third
          head -c 3000000 /dev/urandom > tree/a/large; ln tree/a/large tree/z/sub/large; chmod 750 tree/z",
    );
    backup(&tree, &store);
    let select = |paths: &[&str]| Selection::Paths(paths.iter().map(PathBuf::from).collect());
    let out = dir.path().join("out");
    let report = extract_from(
        &[&store],
        &select(&["/z/second", "z/third", "z/sub", "none/such"]),
        &out,
    );
    assert_eq!(report.not_found, [PathBuf::from("none/such")]);
    assert!(report.missing.is_empty(), "{report:#?}");
    assert_eq!(fs::read_to_string(out.join("z/third")).unwrap(), "small\n");
    assert_eq!(
        fs::metadata(out.join("z/second")).unwrap().ino(),
        fs::metadata(out.join("z/third")).unwrap().ino()
    );
    assert_eq!(
        fs::read(out.join("z/sub/large")).unwrap(),
        fs::read(tree.join("a/large")).unwrap()
    );
    assert_eq!(fs::metadata(out.join("z")).unwrap().mode() & 0o7777, 0o750);
    assert!(!out.join("a").exists());

    let opened = open_for_reading(&store).unwrap();
    let (_, snapshot) = opened.snapshot("latest").unwrap();
    let mut archive = Vec::new();
    let selection = select(&["z"]);
    to_tar(
        &[&opened],
        &snapshot,
        &snapshot.trees[0],
        &selection,
        &mut archive,
        &Silent,
    )
    .unwrap();
    fs::write(dir.path().join("z.tar"), archive).unwrap();
    fs::create_dir(dir.path().join("untar")).unwrap();
    sh(
        &dir.path().join("untar"),
        "tar -xpf ../z.tar && cmp z/sub/large ../tree/a/large && cmp z/third ../tree/a/first && test ! -e a",
    );
}

#[test]
fn an_unchanged_tree_is_stored_once_and_a_new_file_changes_one_segment() {
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    fs::create_dir_all(&tree).unwrap();
    for n in 0..3000 {
        fs::write(tree.join(format!("{n:05}")), noise(4000)).unwrap();
    }
    // So that the root's entry, which is in the first segment, does not change as well.
    sh(&tree, "touch -d 2020-01-01 .");
    backup(&tree, &store);
    let again = backup_to(&tree, &[&store]).remove(0);
    assert_eq!(again.new_blobs, 0, "{again:?}");
    fs::write(tree.join("01500-new"), noise(4000)).unwrap();
    sh(&tree, "touch -d 2020-01-01 .");
    let third = backup_to(&tree, &[&store]).remove(0);
    // The segment and its part of the catalogue, or two of each when a boundary lies there; the root's ctime changed.
    assert!(third.new_blobs <= 5, "{third:?}");
    assert!(third.known_blobs >= 3, "{third:?}");
}

#[test]
fn images_keep_holes_and_content() {
    let dir = scratch();
    let store = dir.path().join("store");
    let image = dir.path().join("disk");
    sh(
        dir.path(),
        "head -c 9000000 /dev/urandom > disk; truncate -s 64M disk; printf end | dd of=disk bs=1 seek=60000000 conv=notrunc status=none; head -c 30000000 /dev/zero >> disk",
    );
    let mut backup = Backup::start(vec![open(&store)], options(), &Silent).unwrap();
    let saved = backup
        .image(&ImageSource {
            node: "part:1".into(),
            path: image.clone(),
        })
        .unwrap();
    let mut draft = draft(Vec::new());
    draft.images = vec![saved.clone()];
    assert!(backup.commit(draft)[0].snapshot.is_ok());
    assert!(check(&store).ok());
    let opened = open_for_reading(&store).unwrap();
    assert!(
        opened.stats().raw_bytes < 20_000_000,
        "{:?}",
        opened.stats()
    );
    let out = dir.path().join("out");
    fs::write(&out, "old content that must not show through").unwrap();
    image_to(
        &[&opened],
        &saved,
        &fs::File::options().write(true).open(&out).unwrap(),
        &Silent,
    )
    .unwrap();
    sh(dir.path(), "cmp disk out");
    assert!(fs::metadata(&out).unwrap().blocks() * 512 < 20_000_000);
}

#[test]
fn the_same_of_encrypted_stores() {
    again_encrypted(&["read_by_hand"]);
}
