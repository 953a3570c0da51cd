//! Files that change while they are read, and archives that no writer makes.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::catalogue;
use crate::document::HostIdentity;
use crate::events::Silent;
use crate::extract::{ExtractOptions, ExtractReport, Selection, extract};
use crate::format::Kind;
use crate::list::{Entry, EntryKind, EntryState, entries};
use crate::member::{self, Extra};
use crate::store::StoreOptions;
use crate::verify::{VerifyOptions, verify};

pub(crate) fn draft(trees: Vec<Tree>) -> SnapshotDraft {
    SnapshotDraft {
        host: HostIdentity {
            machine_id: String::new(),
            hostname: String::new(),
        },
        tool_version: String::new(),
        kind: "test".into(),
        layout: serde_json::Value::Null,
        trees,
        images: Vec::new(),
        guest: None,
        guests: Vec::new(),
        facts: serde_json::Value::Null,
    }
}

pub(crate) fn start<'e>(dir: &Path) -> Backup<'e> {
    let store = Store::create(dir, &StoreOptions::default()).unwrap();
    Backup::start(
        vec![store],
        BackupOptions {
            workers: 2,
            ..BackupOptions::default()
        },
        &Silent,
    )
    .unwrap()
}

/// Stores an image in pieces of `cut` bytes, holes where they are zeroes.
pub(crate) fn store_image(
    backup: &mut Backup<'_>,
    node: &str,
    data: &[u8],
    cut: usize,
) -> crate::document::Image {
    let sink = backup.sink().unwrap();
    let pieces: Vec<crate::content::Piece> = data
        .chunks(cut)
        .map(|piece| match piece.iter().all(|b| *b == 0) {
            true => crate::content::Piece::Hole(piece.len() as u64),
            false => crate::content::Piece::Blob {
                id: sink.put_slice(Kind::Chunk, piece).unwrap(),
                size: piece.len() as u64,
            },
        })
        .collect();
    let put = &mut |mut json| sink.put(Kind::Content, &mut json);
    crate::document::Image {
        node: node.to_owned(),
        size: data.len() as u64,
        content: crate::content::write(&pieces, put).unwrap().0,
        error: None,
    }
}

/// Backs a directory up with a hook between the examination and the reading of each file; gives back the tree's
/// summary, its entries, and what an extraction to `out` says.
fn with_hook(root: &Path, hook: &(dyn Fn(&[u8]) + Sync)) -> (Summary, Vec<Entry>, ExtractReport) {
    let dir = root.parent().unwrap();
    let store = dir.join("store");
    fs::create_dir(&store).unwrap();
    let mut backup = start(&store);
    backup.hook = Some(hook);
    let source = TreeSource {
        root: root.into(),
        mount_point: "/".into(),
        filesystem: None,
        exclude: Exclusions::none(),
        instead: Default::default(),
    };
    let tree = backup.tree(&source).unwrap();
    assert!(backup.commit(draft(vec![tree]))[0].snapshot.is_ok());
    let store = Store::open_read_only(&store).unwrap();
    assert!(
        verify(&store, &VerifyOptions::default(), &Silent)
            .unwrap()
            .ok()
    );
    let (_, snapshot) = store.snapshot("latest").unwrap();
    let readers = [&store];
    let listed = entries(&readers, &snapshot.trees[0])
        .collect::<Result<_>>()
        .unwrap();
    let out = dir.join("out");
    fs::create_dir(&out).unwrap();
    let tree = &snapshot.trees[0];
    let report = extract(
        &readers,
        &snapshot,
        tree,
        &Selection::All,
        &out,
        &ExtractOptions::default(),
        &Silent,
    )
    .unwrap();
    (tree.summary.clone(), listed, report)
}

fn state_of(entries: &[Entry], path: &str) -> Option<EntryState> {
    entries
        .iter()
        .find(|e| e.path == Path::new(path))
        .unwrap()
        .state
}

#[test]
fn files_that_change_while_they_are_read_are_marked_and_keep_their_announced_length() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    for (name, size) in [
        ("grows", 5000),
        ("large", 3_000_000),
        ("rewritten", 5000),
        ("shrinks", 5000),
        ("still", 5000),
    ] {
        fs::write(root.join(name), vec![b'x'; size]).unwrap();
    }
    let (summary, entries, report) = with_hook(&root, &|path| {
        let file = root.join(std::str::from_utf8(path).unwrap());
        match path {
            b"grows" => fs::File::options()
                .append(true)
                .open(file)
                .unwrap()
                .set_len(9000)
                .unwrap(),
            b"shrinks" => fs::File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(1000)
                .unwrap(),
            b"large" => fs::File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(1_000_000)
                .unwrap(),
            b"rewritten" => fs::write(file, vec![b'y'; 5000]).unwrap(),
            _ => {}
        }
    });
    assert_eq!(summary.changed, 4, "{summary:?}");
    for name in ["grows", "shrinks", "large", "rewritten"] {
        assert_eq!(
            state_of(&entries, name),
            Some(EntryState::Changed),
            "{name}"
        );
        assert!(
            summary
                .problems
                .iter()
                .any(|p| p.path == format!("/{name}") && p.what == "changed")
        );
    }
    assert_eq!(state_of(&entries, "still"), None);
    assert!(
        report.complete() && report.doubtful.len() == 4,
        "{report:#?}"
    );
    let out = |name| fs::read(dir.path().join("out").join(name)).unwrap();
    assert_eq!(out("grows"), vec![b'x'; 5000]);
    assert_eq!(out("shrinks"), [vec![b'x'; 1000], vec![0; 4000]].concat());
    assert_eq!(
        out("large"),
        [vec![b'x'; 1_000_000], vec![0; 2_000_000]].concat()
    );
    assert_eq!(out("still"), vec![b'x'; 5000]);
}

#[test]
fn files_that_vanish_or_are_exchanged_are_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    for name in ["a", "b-gone", "c-link", "d-fifo", "e"] {
        fs::write(root.join(name), name).unwrap();
    }
    let done = AtomicBool::new(false);
    let (summary, entries, report) = with_hook(&root, &|path| {
        // While the first is read, what follows was listed already, as all of it is one batch.
        if path == b"a" && !done.swap(true, Ordering::Relaxed) {
            for name in ["b-gone", "c-link", "d-fifo"] {
                fs::remove_file(root.join(name)).unwrap();
            }
            std::os::unix::fs::symlink("/etc/shadow", root.join("c-link")).unwrap();
            nix::unistd::mkfifo(&root.join("d-fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
    });
    assert_eq!(summary.vanished, 3, "{summary:?}");
    for name in ["b-gone", "c-link", "d-fifo"] {
        assert_eq!(
            state_of(&entries, name),
            Some(EntryState::Vanished),
            "{name}"
        );
        assert!(!dir.path().join("out").join(name).exists());
    }
    assert!(
        report.complete() && report.doubtful.len() == 3,
        "{report:#?}"
    );
    assert_eq!(fs::read(dir.path().join("out/e")).unwrap(), b"e");
}

#[test]
fn a_file_is_kept_under_its_second_name_when_the_first_vanishes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    for name in ["0", "a"] {
        fs::write(root.join(name), name).unwrap();
    }
    for link in ["b", "c"] {
        fs::hard_link(root.join("a"), root.join(link)).unwrap();
    }
    let (summary, entries, report) = with_hook(&root, &|path| {
        if path == b"0" {
            fs::remove_file(root.join("a")).unwrap();
        }
    });
    assert_eq!(summary.vanished, 1, "{summary:?}");
    assert_eq!(state_of(&entries, "a"), Some(EntryState::Vanished));
    assert!(report.complete(), "{report:#?}");
    let out = dir.path().join("out");
    assert_eq!(fs::read(out.join("b")).unwrap(), b"a");
    use std::os::unix::fs::MetadataExt;
    let inode = |name| fs::metadata(out.join(name)).unwrap().ino();
    assert_eq!(inode("b"), inode("c"));
}

#[test]
fn further_names_are_not_links_to_a_file_that_took_the_first_name() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    for name in ["0", "a"] {
        fs::write(root.join(name), name).unwrap();
    }
    fs::hard_link(root.join("a"), root.join("b")).unwrap();
    let (summary, _, _) = with_hook(&root, &|path| {
        if path == b"0" {
            fs::write(root.join("new"), "new").unwrap();
            fs::rename(root.join("new"), root.join("a")).unwrap();
        }
    });
    assert_eq!(summary.changed, 1, "{summary:?}");
    let out = |name| fs::read(dir.path().join("out").join(name)).unwrap();
    assert_eq!((out("a"), out("b")), (b"new".to_vec(), b"a".to_vec()));
}

#[test]
fn an_inode_number_that_is_used_again_is_another_inode() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a");
    fs::write(&file, "a").unwrap();
    fs::hard_link(&file, dir.path().join("b")).unwrap();
    let stat = crate::walk::stat_fd(fs::File::open(&file).unwrap().as_fd()).unwrap();
    let later = crate::walk::Stat {
        btime: (stat.btime.0 + 1, 0),
        ..stat
    };
    let mut links = links::Links::default();
    assert!(matches!(links.role(&stat), links::Role::First(_)));
    assert!(matches!(links.role(&stat), links::Role::Later(_)));
    assert!(matches!(links.role(&later), links::Role::First(_)));
}

#[test]
fn attributes_that_cannot_be_listed_are_reported() {
    // More names than the system lists at once; ext4 has no room for so many.
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return eprintln!("ignored: needs /dev/shm");
    };
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "content").unwrap();
    for n in 0..300 {
        let name = format!("user.{n}{}", "x".repeat(240));
        if let Err(error) = xattr::set(root.join("file"), name, b"") {
            return eprintln!("ignored: no extended attributes on /dev/shm: {error}");
        }
    }
    let (summary, ..) = with_hook(&root, &|_| ());
    assert_eq!(summary.unreadable, 1, "{summary:?}");
    assert_eq!(summary.problems[0].path, "/file");
}

#[test]
fn a_reader_that_panics_ends_the_backup_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (root, store) = (dir.path().join("root"), dir.path().join("store"));
    fs::create_dir(&store).unwrap();
    // More batches than may be on their way at once, and names enough for some of them to wait for one that never comes.
    for n in 0..400 {
        let sub = root.join(format!("{n:03}"));
        fs::create_dir_all(&sub).unwrap();
        for m in 0..40 {
            let large = fs::File::create(sub.join(m.to_string())).unwrap();
            large.set_len(1 << 20).unwrap();
        }
    }
    let mut backup = start(&store);
    backup.hook = Some(&|path| assert_ne!(path, b"000/3", "a defect"));
    let source = TreeSource {
        root,
        mount_point: "/".into(),
        filesystem: None,
        exclude: Exclusions::none(),
        instead: Default::default(),
    };
    let error = backup.tree(&source).unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    drop(backup);
    let store = Store::open(&store).unwrap();
    assert!(store.snapshots().unwrap().is_empty());
}

fn entry(path: &str, kind: EntryKind, target: Option<&str>) -> Entry {
    Entry {
        path: path.into(),
        kind,
        size: 0,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        ctime: (0, 0),
        ino: 0,
        rdev: None,
        target: target.map(PathBuf::from),
        content: None,
        state: None,
    }
}

/// Stores a segment of these entries as it is, with a catalogue that lists `listed`, and extracts it.
fn forged(dir: &Path, members: &[(Entry, &[u8])], listed: &[Entry]) -> ExtractReport {
    let store = dir.join("store");
    fs::create_dir(&store).unwrap();
    let backup = start(&store);
    let mut segment = Vec::new();
    for (entry, data) in members {
        member::push_header(&mut segment, entry, &Extra::default(), data.len() as u64);
        segment.extend_from_slice(data);
        member::pad(&mut segment, data.len() as u64);
    }
    member::push_end(&mut segment);
    let raw = segment.len() as u64;
    let sink = backup.sink().unwrap().clone();
    let id = sink.put(Kind::Segment, &mut segment).unwrap();
    let line = catalogue::line(id, raw, listed).unwrap();
    let catalogue = vec![sink.put_slice(Kind::Catalogue, &line).unwrap()];
    drop(sink);
    let summary = Summary::default();
    let tree = Tree {
        mount_point: "/".into(),
        filesystem: None,
        catalogue,
        entries: 0,
        files: 0,
        bytes: 0,
        segments: 1,
        summary,
    };
    assert!(backup.commit(draft(vec![tree]))[0].snapshot.is_ok());
    let store = Store::open_read_only(&store).unwrap();
    let (_, snapshot) = store.snapshot("latest").unwrap();
    let out = dir.join("out");
    fs::create_dir(&out).unwrap();
    let options = ExtractOptions {
        workers: 1,
        ..ExtractOptions::default()
    };
    extract(
        &[&store],
        &snapshot,
        &snapshot.trees[0],
        &Selection::All,
        &out,
        &options,
        &Silent,
    )
    .unwrap()
}

#[test]
fn a_link_in_the_archive_is_not_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let file = entry("way/evil", EntryKind::File, None);
    let link = entry("way", EntryKind::Symlink, outside.to_str());
    let good = entry("good", EntryKind::File, None);
    let listed = [link.clone(), file.clone(), good.clone()];
    let report = forged(
        dir.path(),
        &[(link, b""), (file, b"evil"), (good, b"good")],
        &listed,
    );
    assert_eq!(report.missing.len(), 1, "{report:#?}");
    assert_eq!(report.missing[0].path, Path::new("way/evil"));
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
    assert_eq!(fs::read(dir.path().join("out/good")).unwrap(), b"good");
}

#[test]
fn paths_that_lead_out_make_nothing_outside() {
    for path in ["../evil", "a/../../evil", "/evil"] {
        let dir = tempfile::tempdir().unwrap();
        // The catalogue is refused as a whole...
        let evil = entry(path, EntryKind::File, None);
        let report = forged(
            dir.path(),
            &[(evil.clone(), b"evil")],
            std::slice::from_ref(&evil),
        );
        assert!(
            !report.complete() && report.entries == 0,
            "{path}: {report:#?}"
        );
        assert!(!dir.path().join("evil").exists() && !Path::new("/evil").exists());
        // ... and so is a segment that says something else than its catalogue.
        let dir = tempfile::tempdir().unwrap();
        let report = forged(
            dir.path(),
            &[(evil, b"evil")],
            &[entry("innocent", EntryKind::File, None)],
        );
        assert!(
            !report.complete() && report.missing[0].path == Path::new("innocent"),
            "{path}: {report:#?}"
        );
        assert!(!dir.path().join("evil").exists() && !Path::new("/evil").exists());
    }
}

#[test]
fn hard_links_that_lead_out_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    for target in ["../secret", "/etc/passwd"] {
        let link = entry("link", EntryKind::Hardlink, Some(target));
        let dir = dir.path().join(target.replace('/', "_"));
        fs::create_dir(&dir).unwrap();
        let report = forged(&dir, &[(link.clone(), b"")], &[link]);
        assert!(
            !report.complete() && !dir.join("out/link").exists(),
            "{report:#?}"
        );
    }
}

#[test]
fn a_stop_ends_the_backup_and_leaves_no_snapshot() {
    struct Stop;
    impl crate::events::Events for Stop {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), &StoreOptions::default()).unwrap();
    let mut backup = Backup::start(vec![store], BackupOptions::default(), &Stop).unwrap();
    let source = TreeSource {
        root: dir.path().into(),
        mount_point: "/".into(),
        filesystem: None,
        exclude: Exclusions::none(),
        instead: Default::default(),
    };
    assert!(matches!(
        crate::exclude::estimate(&source, &Stop),
        Err(Error::Cancelled)
    ));
    assert!(matches!(backup.tree(&source), Err(Error::Cancelled)));
    drop(backup);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.snapshots().unwrap().is_empty());
    assert!(matches!(
        verify(&store, &VerifyOptions::default(), &Stop),
        Err(Error::Cancelled)
    ));
}

/// A file whose content is another's: small in place of large, and large in place of small.
#[test]
fn a_copy_stands_for_the_content_of_a_file_and_for_nothing_else() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let (root, store, out) = (
        dir.path().join("root"),
        dir.path().join("store"),
        dir.path().join("out"),
    );
    for path in [&root, &store, &out] {
        fs::create_dir(path).unwrap();
    }
    let (small, large) = (b"small".to_vec(), vec![b'l'; 3_000_000]);
    for (name, own, copy) in [("shrinks", &large, &small), ("grows", &small, &large)] {
        let file = root.join(name);
        fs::write(&file, own).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        xattr::set(&file, "user.own", b"kept").unwrap();
        fs::write(dir.path().join(name), copy).unwrap();
    }
    let source = TreeSource {
        root: root.clone(),
        mount_point: "/var".into(),
        filesystem: Some("a".into()),
        exclude: Exclusions::none(),
        instead: ["shrinks", "grows"]
            .map(|name| (Path::new("/var").join(name), dir.path().join(name)))
            .into(),
    };
    let mut backup = start(&store);
    let tree = backup.tree(&source).unwrap();
    assert_eq!(tree.summary, Summary::default());
    assert!(backup.commit(draft(vec![tree]))[0].snapshot.is_ok());
    // What it stands for has not changed, and it has.
    fs::write(dir.path().join("shrinks"), "later").unwrap();
    let options = BackupOptions {
        since: Some(String::new()),
        ..BackupOptions::default()
    };
    let writer = Store::open(&store).unwrap();
    let mut backup = Backup::start(vec![writer], options, &Silent).unwrap();
    let tree = backup.tree(&source).unwrap();
    assert!(backup.commit(draft(vec![tree]))[0].snapshot.is_ok());
    let store = Store::open_read_only(&store).unwrap();
    let (_, snapshot) = store.snapshot("latest").unwrap();
    let (readers, tree) = ([&store], &snapshot.trees[0]);
    let options = ExtractOptions::default();
    let all = Selection::All;
    let report = extract(&readers, &snapshot, tree, &all, &out, &options, &Silent).unwrap();
    assert!(report.complete(), "{report:#?}");
    assert_eq!(fs::read(out.join("shrinks")).unwrap(), b"later");
    assert!(fs::read(out.join("grows")).unwrap() == large);
    for name in ["shrinks", "grows"] {
        let (file, copy) = (out.join(name), dir.path().join(name));
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        assert_eq!(metadata.mtime(), fs::metadata(copy).unwrap().mtime());
        assert_eq!(xattr::get(&file, "user.own").unwrap().unwrap(), b"kept");
    }
}

/// What cannot be read is no restore point without it.
#[test]
fn a_copy_that_is_missing_ends_the_backup() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "own").unwrap();
    let store = dir.path().join("store");
    fs::create_dir(&store).unwrap();
    let source = TreeSource {
        root,
        mount_point: "/".into(),
        filesystem: None,
        exclude: Exclusions::none(),
        instead: [("/file".into(), dir.path().join("gone"))].into(),
    };
    let error = start(&store).tree(&source).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn every_byte_that_is_read_is_held_against_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("small"), vec![1; 5000]).unwrap();
    fs::write(root.join("large"), vec![1; 3_000_000]).unwrap();
    let store = Store::create(dir.path(), &StoreOptions::default()).unwrap();
    let options = BackupOptions {
        io_limit: Some(u64::MAX),
        ..BackupOptions::default()
    };
    let mut backup = Backup::start(vec![store], options, &Silent).unwrap();
    let source = TreeSource {
        root: root.clone(),
        mount_point: "/".into(),
        filesystem: None,
        exclude: Exclusions::none(),
        instead: Default::default(),
    };
    backup.tree(&source).unwrap();
    let taken = |b: &Backup<'_>| {
        b.shared
            .limit
            .as_ref()
            .unwrap()
            .taken
            .load(Ordering::Relaxed)
    };
    assert_eq!(taken(&backup), 3_005_000);
    let image = ImageSource {
        node: "part:1".into(),
        path: root.join("large"),
    };
    backup.image(&image).unwrap();
    assert_eq!(taken(&backup), 6_005_000);
}
