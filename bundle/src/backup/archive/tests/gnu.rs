//! Out and back again through GNU tar, as `vzdump` and `pct restore` call it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::support::*;
use crate::Error;
use crate::catalogue::Catalogue;
use crate::diff::{Change, What};
use crate::events::Silent;
use crate::extract::{guest_tar, guest_tar_with_losses};
use crate::format::Kind;
use crate::list::{self, EntryKind};
use crate::read::Readers;
use crate::store::Store;
use crate::verify::{VerifyOptions, verify};

#[test]
fn a_container_comes_back_with_every_attribute() {
    let dir = tempfile::tempdir().unwrap();
    let (root, store, out) = (
        dir.path().join("root"),
        dir.path().join("store"),
        dir.path().join("out"),
    );
    everything(&root);
    let archive = pack(&root, &configs(dir.path()), &[], &["./"]);
    let saved = save(&store, &archive).unwrap();
    let opened = Store::open_read_only(&store).unwrap();
    assert!(
        verify(&opened, &VerifyOptions::default(), &Silent)
            .unwrap()
            .ok()
    );
    let tree = &saved.snapshot.trees[0];
    assert_eq!(
        (tree.mount_point.as_str(), tree.summary.unreadable),
        ("/", 0),
        "{tree:#?}"
    );
    let entries: Vec<_> = list::entries(&[&opened], tree)
        .map(Result::unwrap)
        .collect();
    assert_eq!(entries.len(), manifest(&root).len());
    assert_eq!(tree.entries, entries.len() as u64);
    let files = entries.iter().filter(|e| e.kind == EntryKind::File);
    assert_eq!(tree.files, files.clone().count() as u64);
    assert_eq!(tree.bytes, files.map(|e| e.size).sum::<u64>());
    let guest = saved.snapshot.guest.as_ref().unwrap();
    assert_eq!(
        guest.config("pct.conf").unwrap(),
        "arch: amd64\n#café\n".as_bytes()
    );
    assert_eq!(guest.config("pct.fw").unwrap(), b"");
    let names: Vec<_> = guest.configs.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["etc/vzdump/pct.conf", "etc/vzdump/pct.fw"]);

    let back = give_back(&store, &saved);
    assert!(back.len() < 64 << 20, "holes stay holes: {}", back.len());
    let (good, said) = unpack(&back, &out);
    assert!(good, "{said}");
    let conf = fs::read(out.join("etc/vzdump/pct.conf")).unwrap();
    assert_eq!(conf, "arch: amd64\n#café\n".as_bytes());
    fs::remove_dir_all(out.join("etc")).unwrap();
    set_time(&out, 1_111_111_111, 123_456_789);
    assert_same(&root, &out);

    // And once more: what was given back is what comes in.
    let again = save(&dir.path().join("again"), &back).unwrap();
    assert_eq!(again.snapshot.trees[0].entries, tree.entries);
    let known = save(&store, &back).unwrap();
    assert!(known.new <= 2, "{known:#?}");
}

/// Forms that `vzdump` does not ask for, and older ones did.
#[test]
fn every_form_that_gnu_tar_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for (name, size, places) in [
        ("few", 3_000_000u64, vec![0, 1_000_000]),
        ("many", 9_000_000, (0..60).map(|n| n * 140_000).collect()),
        ("ends", 2_000_000, vec![1_999_990]),
        ("nothing", 5_000_000, vec![]),
    ] {
        fs::create_dir_all(root.join("sparse")).unwrap();
        let file = fs::File::create(root.join("sparse").join(name)).unwrap();
        file.set_len(size).unwrap();
        for place in places {
            file.write_all_at(b"data", place).unwrap();
        }
        set_time(&root.join("sparse").join(name), 1_500_000_000, 0);
    }
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    file(&root.join(&long), b"x");
    set_time(&root.join(&long), 1_500_000_001, 0);
    std::os::unix::fs::symlink("t".repeat(200), root.join("link")).unwrap();
    set_time(&root.join("link"), 1_500_000_002, 0);
    fs::hard_link(root.join(&long), root.join("e")).unwrap();
    for dir in [
        Path::new(&long).parent().unwrap(),
        "sparse".as_ref(),
        "".as_ref(),
    ] {
        set_time(&root.join(dir), 1_500_000_003, 0);
    }
    let conf = configs(dir.path());
    let mut segments = Vec::new();
    for (n, form) in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
        &["--format=posix", "--hole-detection=raw"],
    ]
    .iter()
    .enumerate()
    {
        // Extended attributes have room in one form only.
        let archive = pack_plain(&root, &conf, form);
        let store = dir.path().join("store");
        let saved = save(&store, &archive).unwrap();
        let out = dir.path().join(n.to_string());
        let (good, said) = unpack(&give_back(&store, &saved), &out);
        assert!(good, "{said}");
        fs::remove_dir_all(out.join("etc")).unwrap();
        set_time(&out, 1_500_000_003, 0);
        assert_same(&root, &out);
        let opened = Store::open_read_only(&store).unwrap();
        let stores = [&opened];
        let lines = Catalogue::new(Readers::new(&stores), &saved.snapshot.trees[0]);
        segments.push(lines.map(|l| l.unwrap().segment).collect::<Vec<_>>());
    }
    // The last form finds other holes than the file system does.
    assert!(segments[..5].windows(2).all(|pair| pair[0] == pair[1]));
}

/// Damages every blob of a kind.
fn damage(store: &Path, kind: Kind) -> usize {
    let mut count = 0;
    for pack in walk(&store.join("lifeboat/packs")) {
        let (_, blobs) = crate::pack::read_footer(&pack, None).unwrap();
        let file = fs::File::options().write(true).open(&pack).unwrap();
        for blob in blobs.iter().filter(|b| b.kind == kind) {
            file.write_all_at(&[0x55; 8], blob.offset + blob.stored / 2)
                .unwrap();
            count += 1;
        }
    }
    count
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries
        .flat_map(|p| if p.is_dir() { walk(&p) } else { vec![p] })
        .collect()
}

#[test]
fn what_is_lost_is_no_shorter_container() {
    for kind in [Kind::Segment, Kind::Chunk, Kind::Catalogue, Kind::Content] {
        let dir = tempfile::tempdir().unwrap();
        let (root, store) = (dir.path().join("root"), dir.path().join("store"));
        file(&root.join("a/small"), &noise(1, 1000));
        file(&root.join("large"), &noise(2, 3_000_000));
        fs::hard_link(root.join("large"), root.join("a/large-too")).unwrap();
        let archive = pack(
            &root,
            &configs(dir.path()),
            &["--sort=name"],
            &["./large", "./"],
        );
        // Its root comes first, as it must.
        assert!(save(&store, &archive).is_err());
        let archive = pack(&root, &configs(dir.path()), &[], &["./"]);
        let saved = save(&store, &archive).unwrap();
        assert!(damage(&store, kind) > 0);
        let opened = Store::open_read_only(&store).unwrap();
        let mut out = Vec::new();
        let result = guest_tar(&[&opened], &saved.snapshot, &mut out, &Silent);
        let error = result.unwrap_err();
        assert!(
            matches!(error, Error::Incomplete { .. }),
            "{kind:?}: {error}"
        );
        let (good, said) = unpack(&out, &dir.path().join("out"));
        assert!(!good && said.contains("Unexpected EOF"), "{kind:?}: {said}");
        // Who accepts it gets the rest, and is told.
        let mut out = Vec::new();
        let report = guest_tar_with_losses(&[&opened], &saved.snapshot, &mut out, &Silent).unwrap();
        assert!(!report.missing.is_empty(), "{kind:?}");
        let rest = dir.path().join("rest");
        let (good, said) = unpack(&out, &rest);
        assert!(good, "{kind:?}: {said}");
        assert!(rest.join("etc/vzdump/pct.conf").exists());
        if matches!(kind, Kind::Chunk | Kind::Content) {
            let missing: Vec<_> = report.missing.iter().map(|m| m.path.clone()).collect();
            assert_eq!(missing, [Path::new("a/large-too"), Path::new("large")]);
            assert!(rest.join("a/small").exists() && !rest.join("large").exists());
        }
        // Another store heals it.
        let other = dir.path().join("other");
        save(&other, &archive).unwrap();
        let other = Store::open_read_only(&other).unwrap();
        let mut out = Vec::new();
        let report = guest_tar(&[&opened, &other], &saved.snapshot, &mut out, &Silent).unwrap();
        assert!(
            report.complete() && (kind == Kind::Catalogue || report.healed > 0),
            "{kind:?}: {report:?}"
        );
        assert!(unpack(&out, &dir.path().join("healed")).0);
    }
}

#[test]
fn an_archive_that_was_stopped_is_not_taken_for_a_whole_one() {
    struct Stops(std::sync::atomic::AtomicU64);
    impl crate::events::Events for Stops {
        fn cancelled(&self) -> bool {
            self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 1
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (root, store) = (dir.path().join("root"), dir.path().join("store"));
    for name in ["a", "b/c", "d"] {
        file(&root.join(name), &noise(1, 700));
    }
    let archive = pack(&root, &configs(dir.path()), &[], &["./"]);
    let saved = save(&store, &archive).unwrap();
    let opened = Store::open_read_only(&store).unwrap();
    let mut stopped = 0;
    for after in 1..100 {
        let mut out = Vec::new();
        let events = Stops(after.into());
        match guest_tar(&[&opened], &saved.snapshot, &mut out, &events) {
            Err(Error::Cancelled) => stopped += 1,
            other => {
                assert!(other.unwrap().complete());
                break;
            }
        }
        let (good, said) = unpack(&out, &dir.path().join(after.to_string()));
        assert!(!good, "{after}: {said}");
    }
    assert!(stopped > 10, "{stopped}");
}

/// Archives without a time of change say less about what has changed.
#[test]
fn what_changed_is_seen_without_a_time_of_change() {
    let dir = tempfile::tempdir().unwrap();
    let (root, store) = (dir.path().join("root"), dir.path().join("store"));
    let conf = configs(dir.path());
    let saved = [b"one", b"two"].map(|content| {
        for (name, content) in [("same", b"xxx"), ("other", content)] {
            file(&root.join(name), content);
            set_time(&root.join(name), 1_500_000_000, 0);
        }
        set_time(&root, 1_500_000_000, 0);
        save(&store, &pack_plain(&root, &conf, &["--format=gnu"])).unwrap()
    });
    let [first, second] = saved.map(|saved| saved.snapshot);
    let store = Store::open_read_only(&store).unwrap();
    let mut found = Vec::new();
    let mut each = |change| {
        found.push(change);
        true
    };
    let stores = [&store];
    let report = crate::diff::diff(&stores, &first, &second, None, &Silent, &mut each).unwrap();
    assert_eq!((report.changed, report.lost.len()), (1, 0), "{found:#?}");
    let [Change::Changed { path, what, .. }] = &found[..] else {
        panic!("{found:#?}");
    };
    assert_eq!(
        (path.as_path(), &what[..]),
        (Path::new("/other"), &[What::Content][..])
    );
}
