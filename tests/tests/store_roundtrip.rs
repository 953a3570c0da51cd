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
use bundle::store::Store;
use store_support::*;

/// Every kind of file and metadata that the format keeps.
fn make_everything(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    sh(
        dir,
        r#"
        mkdir -p plain/empty.d 'with space' deep/er
        echo hello > plain/file; : > plain/empty; printf 'x\0y' > 'with space/new
line'
        chmod 4711 plain/file; chmod 1777 plain/empty.d; chmod 0 plain/empty
        ln plain/file plain/link; ln plain/file zz-link
        ln -s ../plain/file deep/symlink; ln -s nowhere deep/dangling
        ln plain/empty deep/er/empty-link
        mkfifo deep/fifo; chmod 620 deep/fifo
        printf bytes > "$(printf 'deep/not-utf8-\377\376')"
        ln -s "$(printf 'to-\377')" "$(printf 'deep/link-\377')"
        long=$(printf 'n%.0s' $(seq 200)); mkdir -p "long/$long/$long/$long"
        echo deep > "long/$long/$long/$long/$long"
        ln "long/$long/$long/$long/$long" "long/$long/second"
        ln -s "$long/$long/$long" long/symlink
        setfattr -n user.plain -v value plain/file
        setfattr -n user.binary -v 0x000a0d3d00ff plain/file
        setfattr -n 'user.odd=%name' -v 1 plain/empty.d
        setfacl -m u:1234:rw,g:99:r plain/file; setfacl -d -m u:1234:rwx plain; setfacl -m u:77:x deep
        dd if=/dev/urandom of=big bs=1M count=7 status=none
        truncate -s 40M sparse; printf middle | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
        truncate -s 200M all-hole; printf short > short-sparse; truncate -s 100000 short-sparse
        ln sparse sparse-link
        touch -d '1960-02-03 04:05:06.789012345Z' plain/empty
        touch -d '2106-02-08 01:02:03.000000001Z' big
        touch -h -d '2001-01-01 00:00:00.5Z' deep/dangling
        touch -d '1999-12-31 23:59:59.999999999Z' plain/empty.d deep/er
        "#,
    );
    // Many small files, so that there are several segments.
    fs::create_dir(dir.join("many")).unwrap();
    for n in 0..600 {
        fs::write(dir.join(format!("many/{n:04}")), noise(9000)).unwrap();
    }
    if is_root() {
        sh(
            dir,
            r"
            mknod deep/null c 1 3; mknod deep/disk b 259 70000; chmod 666 deep/null
            chown 12345:54321 plain/link; chmod 4711 plain/link; chown -h 7:8 deep/dangling; chown 3000000000:4000000000 big
            chown 33:33 deep/fifo
            cp /bin/true capable; setcap cap_net_bind_service,cap_net_raw=ep capable
            setfattr -n trusted.secret -v 1 plain; setfattr -h -n trusted.link -v 2 deep/symlink
            echo fixed > immutable; echo log > append; mkdir frozen; echo in > frozen/inside
            touch -d '2010-10-10 10:10:10.123456789Z' immutable
            chattr +i immutable frozen; chattr +a append; chattr +d plain/empty.d; chattr +A many
            ",
        );
    }
}

/// Flags would keep the scratch directory from being removed.
fn release(dir: &Path) {
    if is_root() {
        sh(
            dir,
            "find . -name 'immutable' -o -name append -o -name frozen | xargs -r chattr -ia",
        );
    }
}

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
    let opened = Store::open_read_only(&store).unwrap();
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
    let opened = Store::open_read_only(&store).unwrap();
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

    let opened = Store::open_read_only(&store).unwrap();
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
    let opened = Store::open_read_only(&store).unwrap();
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
