//! Backups after a first one: what changed is read, what did not is not opened, and what is extracted is the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::*;
use crate::document::HostIdentity;
use crate::events::Silent;
use crate::extract::{ExtractOptions, Selection, extract};
use crate::store::StoreOptions;
use crate::verify::{VerifyOptions, verify};

mod parts;

const MACHINE: &str = "0123456789abcdef";
/// Milliseconds: more than the clock's tick, so that few files are read for their age alone.
const RACY: i64 = 20;

/// A tree on the disk of the build (a tmpfs would do as well), and stores beside it.
struct Ground {
    dir: tempfile::TempDir,
    filesystem: String,
    /// Files that the last backup opened.
    opened: BTreeSet<String>,
    stats: Stats,
    racy: i64,
}

impl Ground {
    /// `files` files in directories of ten, each in about one segment of its own with its neighbours.
    fn new(files: usize) -> Ground {
        let ground = Ground {
            dir: tempfile::tempdir().unwrap(),
            filesystem: "fs-1".into(),
            opened: BTreeSet::new(),
            stats: Stats::default(),
            racy: RACY,
        };
        for n in 0..files {
            ground.write(&format!("d{:02}/f{n:03}", n / 10), n as u8, 150_000 + n);
        }
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn write(&self, name: &str, seed: u8, size: usize) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut data: Vec<u8> = (0..size).map(|i| (i / 7 * (i % 251)) as u8).collect();
        data.iter_mut().for_each(|b| *b ^= seed);
        fs::write(path, data).unwrap();
    }

    fn store(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn backup(&mut self, stores: &[&str]) -> Vec<TargetResult> {
        self.backup_as(stores, Some(MACHINE))
    }

    fn backup_as(&mut self, stores: &[&str], since: Option<&str>) -> Vec<TargetResult> {
        std::thread::sleep(Duration::from_millis(40));
        let targets = stores
            .iter()
            .map(|name| {
                let dir = self.store(name);
                if dir.exists() {
                    return Store::open(&dir).unwrap();
                }
                fs::create_dir(&dir).unwrap();
                Store::create(&dir, &StoreOptions::default()).unwrap()
            })
            .collect();
        let options = BackupOptions {
            workers: 3,
            pack_size: 1 << 20,
            since: since.map(str::to_string),
            ..BackupOptions::default()
        };
        let opened = Mutex::new(BTreeSet::new());
        let hook = |path: &[u8]| {
            let path = String::from_utf8_lossy(path).into_owned();
            opened.lock().unwrap().insert(path);
        };
        let mut backup = Backup::start(targets, options, &Silent).unwrap();
        backup.hook = Some(&hook);
        backup.racy = self.racy;
        let source = TreeSource {
            root: self.path(""),
            mount_point: "/".into(),
            filesystem: Some(self.filesystem.clone()),
            exclude: Exclusions::none(),
            instead: Default::default(),
        };
        let tree = backup.tree(&source).unwrap();
        self.stats = backup.stats();
        assert_eq!(
            self.stats.bytes_read + self.stats.bytes_referenced,
            tree.bytes
        );
        let results = backup.commit(SnapshotDraft {
            host: HostIdentity {
                machine_id: MACHINE.into(),
                hostname: String::new(),
            },
            tool_version: String::new(),
            kind: "test".into(),
            layout: serde_json::Value::Null,
            trees: vec![tree],
            images: Vec::new(),
            guest: None,
            guests: Vec::new(),
            facts: serde_json::Value::Null,
        });
        self.opened = opened.into_inner().unwrap();
        results
    }

    /// Backs up, and compares what each store gives alone with the tree.
    fn round(&mut self, stores: &[&str]) {
        for result in self.backup(stores) {
            result.snapshot.unwrap();
        }
        let live = manifest(&self.path(""));
        for name in stores {
            self.compare(name, &live);
        }
    }

    fn compare(&self, name: &str, live: &BTreeMap<PathBuf, String>) {
        let store = Store::open_read_only(&self.store(name)).unwrap();
        let (_, snapshot) = store.snapshot("latest").unwrap();
        let out = tempfile::tempdir().unwrap();
        let (all, how) = (Selection::All, ExtractOptions::default());
        let tree = &snapshot.trees[0];
        let report = extract(&[&store], &snapshot, tree, &all, out.path(), &how, &Silent).unwrap();
        assert!(report.complete(), "{name}: {report:#?}");
        let extracted = manifest(out.path());
        for (path, what) in live {
            assert_eq!(
                Some(what),
                extracted.get(path),
                "{name}: {}",
                path.display()
            );
        }
        assert_eq!(live.len(), extracted.len());
        let whole = VerifyOptions {
            snapshot: Some("latest".into()),
            ..VerifyOptions::default()
        };
        assert!(verify(&store, &whole, &Silent).unwrap().ok());
    }

    fn read_nothing(&self) -> bool {
        self.opened.is_empty() && self.stats.bytes_read == 0
    }

    /// Was this file read, and only a part of the others?
    fn read_only_about(&self, name: &str) -> bool {
        self.opened.contains(name) && self.stats.segments_reused > 0
    }
}

/// Everything that a restore must give back, of every entry.
fn manifest(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_path_buf();
        let mut what = format!(
            "{:o} {}:{} {}.{:09}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        for key in xattr::list(&path).unwrap() {
            what += &format!(" {key:?}={:?}", xattr::get(&path, &key).unwrap());
        }
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if meta.is_symlink() {
            what += &format!(" -> {:?}", fs::read_link(&path).unwrap());
        } else if meta.is_file() {
            what += &format!(" {} {}", meta.len(), Id::of(&fs::read(&path).unwrap()));
        }
        if meta.nlink() > 1 && !meta.is_dir() {
            first
                .entry(meta.ino())
                .or_insert_with(Vec::new)
                .push(name.clone());
        }
        found.insert(name, what);
    }
    for mut names in first.into_values() {
        names.sort();
        for name in &names {
            found
                .get_mut(name)
                .unwrap()
                .push_str(&format!(" with {names:?}"));
        }
    }
    found
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    let how = UtimensatFlags::NoFollowSymlink;
    utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, how).unwrap();
}

#[test]
fn what_did_not_change_is_not_opened() {
    let mut g = Ground::new(60);
    g.round(&["a"]);
    assert_eq!(g.opened.len(), 60);
    assert_eq!(g.stats.segments_reused, 0);
    g.round(&["a"]);
    assert!(g.read_nothing(), "{:?}", g.opened);
    // The store knows one more document, and nothing else.
    g.round(&["a"]);
    assert!(g.read_nothing());
    let store = Store::open_read_only(&g.store("a")).unwrap();
    let (_, snapshot) = store.snapshot("latest").unwrap();
    assert_eq!(snapshot.stats.bytes_referenced, snapshot.trees[0].bytes);
    assert_eq!(snapshot.stats.segments_reused, snapshot.trees[0].segments);
}

#[test]
fn without_a_machine_or_a_file_system_all_is_read() {
    let mut g = Ground::new(20);
    g.round(&["a"]);
    g.backup_as(&["a"], None);
    assert_eq!(g.opened.len(), 20, "--reread");
    g.backup_as(&["a"], Some("another machine"));
    assert_eq!(g.opened.len(), 20);
    // Another file system at the same place, that has the same files in every respect.
    g.filesystem = "fs-2".into();
    g.round(&["a"]);
    assert_eq!(g.opened.len(), 20);
    g.round(&["a"]);
    assert!(g.read_nothing());
    // The first one is back.
    g.filesystem = "fs-1".into();
    g.round(&["a"]);
    assert!(g.read_nothing());
}

#[test]
fn every_change_is_seen() {
    let mut g = Ground::new(60);
    for (n, links) in [("l1", "d01/f015"), ("l2", "d04/f041")] {
        fs::hard_link(g.path(links), g.path(&format!("d05/{n}"))).unwrap();
    }
    std::os::unix::fs::symlink("f000", g.path("d02/link")).unwrap();
    g.write("d03/large", 9, 3_000_000);
    File::create(g.path("d03/sparse"))
        .unwrap()
        .set_len(5 << 20)
        .unwrap();
    g.round(&["a"]);
    g.round(&["a"]);
    assert!(g.read_nothing(), "{:?}", g.opened);

    // Other content of the same size, and the old time put back.
    let old = g.path("d01/f010").metadata().unwrap();
    g.write("d01/f010", 99, 150_010);
    set_mtime(&g.path("d01/f010"), old.mtime(), old.mtime_nsec());
    assert_eq!(g.path("d01/f010").metadata().unwrap().len(), old.len());
    g.round(&["a"]);
    assert!(g.read_only_about("d01/f010"));
    // The same in a file that has a content list, and in a hole.
    let old = g.path("d03/large").metadata().unwrap();
    g.write("d03/large", 10, 3_000_000);
    set_mtime(&g.path("d03/large"), old.mtime(), old.mtime_nsec());
    g.round(&["a"]);
    assert!(g.read_only_about("d03/large"));
    let sparse = File::options()
        .write(true)
        .open(g.path("d03/sparse"))
        .unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"data", 1 << 20).unwrap();
    g.round(&["a"]);
    assert!(g.read_only_about("d03/sparse"));

    type Change = fn(&Ground);
    let changes: [(&str, Change); 14] = [
        ("d02/f020", |g| {
            set_mtime(&g.path("d02/f020"), 1_000_000_000, 1)
        }),
        ("d02/f021", |g| {
            fs::set_permissions(g.path("d02/f021"), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("d02/f022", |g| {
            xattr::set(g.path("d02/f022"), "user.test", b"value").unwrap();
        }),
        ("d02/g", |g| {
            fs::rename(g.path("d02/f023"), g.path("d02/g")).unwrap()
        }),
        // Another inode with the same size and times under the name.
        ("d02/f024", |g| {
            let old = g.path("d02/f024").metadata().unwrap();
            g.write("new", 77, old.len() as usize);
            set_mtime(&g.path("new"), old.mtime(), old.mtime_nsec());
            fs::rename(g.path("new"), g.path("d02/f024")).unwrap();
        }),
        ("d02/f025", |g| {
            fs::hard_link(g.path("d02/f025"), g.path("d02/z")).unwrap()
        }),
        ("d02/f025", |g| fs::remove_file(g.path("d02/z")).unwrap()),
        // The first name of a content goes: the next one carries it.
        ("d05/l1", |g| fs::remove_file(g.path("d01/f015")).unwrap()),
        // A link becomes a file, with the other file's content.
        ("d05/l2", |g| {
            fs::copy(g.path("d05/l2"), g.path("copy")).unwrap();
            fs::rename(g.path("copy"), g.path("d05/l2")).unwrap();
        }),
        ("d03/f030-more", |g| g.write("d03/f030-more", 3, 1000)),
        ("d03/f032", |g| fs::remove_file(g.path("d03/f031")).unwrap()),
        ("e/f000", |g| {
            fs::rename(g.path("d00"), g.path("e")).unwrap()
        }),
        ("d04/f040", |g| {
            fs::remove_file(g.path("d04/f040")).unwrap();
            g.write("d04/f040", 1, 10);
        }),
        ("", |g| {
            fs::remove_file(g.path("d02/link")).unwrap();
            std::os::unix::fs::symlink("f001", g.path("d02/link")).unwrap();
        }),
    ];
    for (n, (opened, change)) in changes.into_iter().enumerate() {
        change(&g);
        g.round(&["a"]);
        assert!(g.stats.segments_reused > 0, "{n}");
        // Neighbours of what was removed may lie in the next segment.
        if !matches!(opened, "" | "d03/f032") {
            assert!(g.opened.contains(opened), "{n}: {:?}", g.opened);
        }
        g.round(&["a"]);
        assert!(g.read_nothing(), "{n}: {:?}", g.opened);
    }
}

#[test]
fn files_as_young_as_the_snapshot_are_read_again() {
    let mut g = Ground::new(20);
    g.racy = previous::RACY;
    g.round(&["a"]);
    g.round(&["a"]);
    assert_eq!(
        g.opened.len(),
        20,
        "their times are of the last two seconds"
    );
    g.racy = RACY;
    g.round(&["a"]);
    assert!(g.read_nothing());
    // A time that is yet to come proves nothing.
    set_mtime(&g.path("d00/f003"), 4_000_000_000, 0);
    g.round(&["a"]);
    g.round(&["a"]);
    assert!(g.opened.contains("d00/f003"));
}

#[test]
fn damage_of_the_store_makes_it_slower_only() {
    let packs = |dir: &Path| -> Vec<PathBuf> {
        let mut found = Vec::new();
        for sub in fs::read_dir(dir.join("lifeboat/packs")).unwrap() {
            found.extend(
                fs::read_dir(sub.unwrap().path())
                    .unwrap()
                    .map(|e| e.unwrap().path()),
            );
        }
        found.sort();
        found
    };
    let mut g = Ground::new(40);
    g.write("d00/large", 5, 6_000_000);
    g.round(&["a"]);
    // Each pack in turn is missing, is short, or has other bytes where its catalogue may be.
    for n in 0..packs(&g.store("a")).len() {
        let all = packs(&g.store("a"));
        let pack = &all[n % all.len()];
        match n % 3 {
            0 => fs::remove_file(pack).unwrap(),
            1 => File::options()
                .write(true)
                .open(pack)
                .unwrap()
                .set_len(1000)
                .unwrap(),
            // With its index: nothing is known of it any more.
            _ => {
                fs::remove_file(pack).unwrap();
                for index in fs::read_dir(g.store("a").join("lifeboat/index")).unwrap() {
                    fs::remove_file(index.unwrap().path()).unwrap();
                }
            }
        }
        // Without the mark of completeness, which an index that is gone as well would keep: all is looked up.
        if n % 3 == 2 {
            g.backup_as(&["a"], None);
        }
        let live = manifest(&g.path(""));
        for result in g.backup(&["a"]) {
            result.snapshot.unwrap();
        }
        g.compare("a", &live);
        g.round(&["a"]);
    }
}

#[test]
fn a_damaged_catalogue_is_passed_over() {
    let mut g = Ground::new(30);
    g.round(&["a"]);
    let (place, path) = {
        let store = Store::open_read_only(&g.store("a")).unwrap();
        let (_, snapshot) = store.snapshot("latest").unwrap();
        let place = store.map().find(&snapshot.trees[0].catalogue[0])[0];
        (place, store.pack_path(&store.packs()[place.pack as usize]))
    };
    let pack = File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_at(&pack, b"xxxxxxxx", u64::from(place.offset) + 20).unwrap();
    g.backup(&["a"]);
    assert_eq!(g.opened.len(), 30);
}

#[test]
fn a_target_with_another_history_gets_everything() {
    let mut g = Ground::new(40);
    g.write("d00/large", 5, 6_000_000);
    g.round(&["a"]);
    // New and empty: all is read for it, and written once only.
    g.round(&["a", "b"]);
    assert_eq!(g.opened.len(), 41);
    g.round(&["a", "b"]);
    assert!(g.read_nothing());
    // One of them misses a change that the other one has.
    g.write("d01/f011", 200, 5000);
    g.write("d00/large", 6, 6_000_000);
    g.round(&["a"]);
    g.round(&["a", "b"]);
    assert!(g.opened.contains("d01/f011") && g.opened.contains("d00/large"));
    assert!(g.stats.segments_reused > 0);
    g.round(&["b"]);
    assert!(g.read_nothing());
    // The newest snapshot is only on one, but the other has all of its content: the lists are looked into.
    g.round(&["a"]);
    g.round(&["a", "b"]);
    assert!(g.read_nothing(), "{:?}", g.opened);
    // A piece of a list is missing on the one that does not have the newest snapshot.
    g.round(&["a"]);
    let store = Store::open_read_only(&g.store("b")).unwrap();
    let chunks: Vec<_> = store.packs().iter().map(|p| store.pack_path(p)).collect();
    drop(store);
    for pack in &chunks[1..] {
        fs::remove_file(pack).unwrap();
    }
    g.round(&["a", "b"]);
    assert!(!g.opened.is_empty());
}

/// Random edits between backups; after each, what is extracted is the tree.
#[test]
fn random_edits() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut g = Ground::new(40);
    g.write("d00/large", 5, 2_500_000);
    let mut reused = 0;
    for round in 0..30 {
        for _ in 0..random(5) {
            let mut files: Vec<PathBuf> = manifest(&g.path(""))
                .into_keys()
                .map(|name| g.dir.path().join("root").join(name))
                .filter(|path| path.is_file())
                .collect();
            files.sort();
            let file = files[random(files.len() as u64) as usize].clone();
            let other = g.path(&format!("d{:02}/n{}", random(6), random(1000)));
            fs::create_dir_all(other.parent().unwrap()).unwrap();
            let old = file.metadata().unwrap();
            match random(10) {
                0 => fs::write(&file, vec![random(256) as u8; random(200_000) as usize]).unwrap(),
                1 => {
                    fs::write(&file, vec![random(256) as u8; old.len() as usize]).unwrap();
                    set_mtime(&file, old.mtime(), old.mtime_nsec());
                }
                2 => fs::rename(&file, &other).unwrap(),
                3 if files.len() > 5 => fs::remove_file(&file).unwrap(),
                4 => drop(fs::hard_link(&file, &other)),
                5 => fs::write(&other, vec![1; random(3_000_000) as usize]).unwrap(),
                6 => set_mtime(
                    &file,
                    random(2_000_000_000) as i64,
                    random(1_000_000_000) as i64,
                ),
                7 => {
                    let mode = 0o600 + random(8) as u32;
                    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
                }
                8 => {
                    let (from, to) = (random(6), random(1000));
                    let _ = fs::rename(g.path(&format!("d{from:02}")), g.path(&format!("m{to}")));
                }
                _ => xattr::set(&file, "user.n", &[random(256) as u8]).unwrap(),
            }
        }
        let stores: &[&str] = match random(4) {
            0 => &["a"],
            1 => &["b"],
            _ => &["a", "b"],
        };
        g.round(stores);
        reused += g.stats.segments_reused;
        assert!(round == 0 || g.stats.bytes_read + g.stats.bytes_referenced > 0);
    }
    assert!(reused > 20, "{reused}");
}
