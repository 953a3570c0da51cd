//! Whole stores that no writer of ours made, whose hashes are all right.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::mutate::{Random, rounds};
use super::seeds::{entries, push};
use crate::codec::Encoding;
use crate::document::{Image, Snapshot, Stats, Summary, Tree};
use crate::events::Silent;
use crate::extract::{ExtractOptions, ExtractReport, Selection, extract, image_to, to_tar};
use crate::format::Kind;
use crate::list::{Entry, EntryKind};
use crate::member::{self, Extra};
use crate::pack::PackWriter;
use crate::store::{Store, StoreOptions};
use crate::verify::{VerifyOptions, check_readable, verify};
use crate::{Id, bytes, catalogue, index, list};

fn store_of(dir: &Path, blobs: &[Vec<u8>]) -> Store {
    let store = Store::create(dir, &StoreOptions::default()).unwrap();
    let mut pack = PackWriter::create(store.root(), None).unwrap();
    for blob in blobs {
        let size = blob.len() as u64;
        pack.append(Id::of(blob), Kind::Segment, Encoding::Raw, blob, size)
            .unwrap();
    }
    let pack = pack.finish().unwrap().seal().unwrap();
    index::write(store.root(), &[pack], None).unwrap();
    drop(store);
    Store::open_read_only(dir).unwrap()
}

fn tree_of(catalogue: &[u8]) -> Tree {
    Tree {
        mount_point: "/".into(),
        filesystem: None,
        catalogue: vec![Id::of(catalogue)],
        entries: 0,
        files: 0,
        bytes: 0,
        segments: 0,
        summary: Summary::default(),
    }
}

fn snapshot_of(tree: Tree) -> Snapshot {
    Snapshot {
        format: 1,
        host: crate::document::HostIdentity {
            machine_id: "m".into(),
            hostname: "h".into(),
        },
        time: "2026-11-20T20:31:36Z".into(),
        tool_version: "1".into(),
        kind: "host".into(),
        layout: serde_json::Value::Null,
        trees: vec![tree],
        images: Vec::new(),
        guest: None,
        guests: Vec::new(),
        summary: Summary::default(),
        stats: Stats::default(),
        facts: serde_json::Value::Null,
    }
}

/// A store of one segment with these members, listed as they are.
fn simple(dir: &Path, members: &[(Entry, Extra)]) -> (Store, Snapshot) {
    let mut segment = Vec::new();
    for (entry, extra) in members {
        push(&mut segment, entry, extra);
    }
    member::push_end(&mut segment);
    let entries: Vec<_> = members.iter().map(|(entry, _)| entry.clone()).collect();
    let line = catalogue::line(Id::of(&segment), 0, &entries).unwrap();
    let tree = tree_of(&line);
    (store_of(dir, &[segment, line]), snapshot_of(tree))
}

fn unpack(store: &Store, snapshot: &Snapshot, to: &Path, privileged: bool) -> ExtractReport {
    let options = ExtractOptions {
        workers: 2,
        privileged,
    };
    let tree = &snapshot.trees[0];
    extract(
        &[store],
        snapshot,
        tree,
        &Selection::All,
        to,
        &options,
        &Silent,
    )
    .unwrap()
}

/// What a directory outside the destination looks like.
fn look(dir: &Path) -> Vec<(String, u32, u32, i64, i64, Vec<u8>)> {
    let mut seen = Vec::new();
    for entry in fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .chain([dir.into()])
    {
        let m = fs::symlink_metadata(&entry).unwrap();
        let content = fs::read(&entry).unwrap_or_default();
        seen.push((
            entry.display().to_string(),
            m.mode(),
            m.uid(),
            m.mtime(),
            m.mtime_nsec(),
            content,
        ));
    }
    seen.sort();
    seen
}

fn any_entry(random: &mut Random, outside: &Path, content: Id) -> (Entry, Extra) {
    let paths = [
        ".",
        "a",
        "a/b",
        "a/b/c",
        "link",
        "link/x",
        "link/secret",
        "loop",
        "loop/loop",
        "gone",
        "gone/x",
        "up",
        "..",
        "../outside/x",
        "a/../../outside/secret",
        "dir",
        "dir/file",
        "large",
        "a\nb",
        "file",
    ];
    let mut entry = random.pick(&entries()).clone();
    entry.path = random.pick(&paths).into();
    if random.below(20) == 0 {
        entry.path = outside.join("secret");
    }
    if entry.target.is_some() {
        let out = outside.to_string_lossy().into_owned();
        let secret = format!("{out}/secret");
        let targets = [
            "..",
            "../outside",
            "../outside/secret",
            "/",
            "a",
            "link/secret",
            ".",
            &out,
            &secret,
        ];
        entry.target = Some(random.pick(&targets).into());
    }
    if entry.kind == EntryKind::File && random.below(3) == 0 {
        entry.content = Some(content);
        entry.size = *random.pick(&[10, 9, 0, 1 << 40, u64::MAX]);
    } else {
        entry.content = None;
    }
    entry.mtime = (
        random.odd_number() as i64,
        *random.pick(&[0, 5, 999_999_999, 1_073_741_823, u32::MAX]),
    );
    entry.uid = random.odd_number() as u32;
    let flags = random.below(3) as u32 * 0x40;
    (
        entry,
        Extra {
            xattrs: vec![(b"user.x".to_vec(), b"1".to_vec())],
            flags,
        },
    )
}

#[test]
fn fuzz_extraction_stays_inside() {
    rounds("extraction", 150, |random| {
        let dir = tempfile::tempdir().unwrap();
        let (outside, dest) = (dir.path().join("outside"), dir.path().join("dest"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::set_permissions(outside.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(&dest).unwrap();
        for (name, to) in [
            ("link", "../outside"),
            ("loop", "loop"),
            ("gone", "../nowhere"),
            ("file", "../outside/secret"),
        ] {
            if random.below(2) == 0 {
                symlink(to, dest.join(name)).unwrap();
            }
        }
        let chunk = b"0123456789".to_vec();
        let list = format!(
            r#"{{"size":10,"pieces":[{{"blob":"{}","size":10}}]}}"#,
            Id::of(&chunk)
        )
        .into_bytes();
        let mut blobs = vec![chunk, list.clone()];
        let mut catalogue = Vec::new();
        for _ in 0..1 + random.below(3) {
            let members: Vec<_> = (0..random.below(8))
                .map(|_| any_entry(random, &outside, Id::of(&list)))
                .collect();
            let mut segment = Vec::new();
            for (entry, extra) in &members {
                push(&mut segment, entry, extra);
            }
            member::push_end(&mut segment);
            // What is listed and what is there may differ.
            let mut listed = Vec::new();
            for (mut entry, _) in members {
                if random.below(4) == 0 {
                    entry = any_entry(random, &outside, Id::of(&list)).0;
                }
                if bytes::is_inside(bytes::of(&entry.path)) || random.below(8) == 0 {
                    listed.push(entry);
                }
            }
            catalogue.extend(catalogue::line(Id::of(&segment), 0, &listed).unwrap());
            blobs.push(segment);
        }
        let tree = tree_of(&catalogue);
        blobs.push(catalogue);
        let target = dir.path().join("target");
        fs::create_dir(&target).unwrap();
        let store = store_of(&target, &blobs);
        let snapshot = snapshot_of(tree);
        let before = look(&outside);
        unpack(&store, &snapshot, &dest, random.below(2) == 0);
        assert_eq!(look(&outside), before);
        list::entries(&[&store], &snapshot.trees[0]).for_each(drop);
        let some = Selection::Paths(vec!["a".into(), "link/x".into()]);
        for selection in [Selection::All, some] {
            let _ = to_tar(
                &[&store],
                &snapshot,
                &snapshot.trees[0],
                &selection,
                &mut Vec::new(),
                &Silent,
            );
        }
        verify(&store, &VerifyOptions::default(), &Silent).unwrap();
        check_readable(&[&store], &snapshot, &Silent).unwrap();
    });
}

fn file(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.into(),
        kind,
        size: 700,
        mode: 0o4755,
        uid: 0,
        gid: 0,
        target: None,
        content: None,
        rdev: None,
        ..entries()[0].clone()
    }
}

#[test]
fn set_uid_is_not_kept_without_the_owner() {
    let dir = tempfile::tempdir().unwrap();
    let dest = tempfile::tempdir().unwrap();
    let (store, snapshot) = simple(
        dir.path(),
        &[(file("su", EntryKind::File), Extra::default())],
    );
    unpack(&store, &snapshot, dest.path(), false);
    let mode = fs::metadata(dest.path().join("su")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
    // Where the owner cannot be set: no such owner exists in any user namespace.
    let other = tempfile::tempdir().unwrap();
    let mut foreign = file("su", EntryKind::File);
    foreign.uid = u32::MAX - 1;
    let (store, snapshot) = simple(other.path(), &[(foreign, Extra::default())]);
    let report = unpack(&store, &snapshot, dest.path(), true);
    let m = fs::metadata(dest.path().join("su")).unwrap();
    if m.uid() != u32::MAX - 1 {
        assert_eq!(m.mode() & 0o7000, 0);
        assert!(
            report
                .incomplete_metadata
                .iter()
                .any(|p| p.reason.contains("set-uid"))
        );
    }
}

#[test]
fn flags_of_what_has_none_open_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dest = tempfile::tempdir().unwrap();
    let extra = Extra {
        xattrs: Vec::new(),
        flags: 0x40,
    };
    let (store, snapshot) = simple(dir.path(), &[(file("pipe", EntryKind::Fifo), extra)]);
    let report = unpack(&store, &snapshot, dest.path(), true);
    let flags = |p: &&crate::extract::FileProblem| p.reason.contains("flags");
    assert_eq!(report.incomplete_metadata.iter().find(flags), None);
}

#[test]
fn sizes_that_overflow_are_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let dest = tempfile::tempdir().unwrap();
    let large = |path| Entry {
        size: u64::MAX - 5,
        content: Some(Id::of(b"absent")),
        ..file(path, EntryKind::File)
    };
    let members = [large("a"), large("b")].map(|e| (e, Extra::default()));
    let (store, snapshot) = simple(dir.path(), &members);
    assert_eq!(
        unpack(&store, &snapshot, dest.path(), false).missing.len(),
        2
    );
}

#[test]
fn lists_that_name_one_another_do_not_fill_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut blobs = vec![br#"{"size":0,"pieces":[{"hole":0}]}"#.to_vec()];
    for _ in 0..3 {
        let piece = format!(
            r#"{{"list":"{}","size":0}}"#,
            Id::of(&blobs[blobs.len() - 1])
        );
        let pieces = vec![piece; 1000].join(",");
        blobs.push(format!(r#"{{"size":0,"pieces":[{pieces}]}}"#).into_bytes());
    }
    let image = Image {
        node: "part:x".into(),
        size: 0,
        content: Id::of(&blobs[3]),
        error: None,
    };
    let store = store_of(dir.path(), &blobs);
    let out = tempfile::tempfile().unwrap();
    let error = image_to(&[&store], &image, &out, &Silent).unwrap_err();
    assert!(error.to_string().contains("pieces"), "{error}");
}

/// A medium of somebody else: its names may be links and pipes.
#[test]
fn a_store_made_of_links_and_pipes_harms_nothing() {
    let pipe = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "1").unwrap();
    for name in ["tmp", "packs", "index", "snapshots"] {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::create(dir.path(), &StoreOptions::default()).unwrap());
        let sub = dir.path().join("lifeboat").join(name);
        fs::remove_dir(&sub).unwrap();
        symlink(outside.path(), &sub).unwrap();
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        assert!(outside.path().join("precious").exists(), "{name}");
    }
    let dir = tempfile::tempdir().unwrap();
    drop(Store::create(dir.path(), &StoreOptions::default()).unwrap());
    let root = dir.path().join("lifeboat");
    let id = Id::of(b"x").to_string();
    fs::create_dir(root.join("packs").join(&id[..2])).unwrap();
    pipe(&root.join(format!("packs/{}/{id}.pack", &id[..2])));
    pipe(&root.join(format!("index/{id}.idx")));
    pipe(&root.join("snapshots/x.json"));
    fs::remove_file(root.join("lock")).unwrap();
    pipe(&root.join("lock"));
    assert!(Store::open(dir.path()).is_err());
    let store = Store::open_read_only(dir.path()).unwrap();
    assert_eq!(store.damaged_documents().unwrap().len(), 1);
    let report = verify(&store, &VerifyOptions::default(), &Silent).unwrap();
    assert_eq!(report.damaged.len(), 3);
    fs::remove_file(root.join("store.json")).unwrap();
    pipe(&root.join("store.json"));
    assert!(Store::open_read_only(dir.path()).is_err());
}
