//! Every damage is found by name and healed: from another store, or from parity.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bundle::backup::{Backup, BackupOptions, TreeSource};
use bundle::events::Silent;
use bundle::extract::Selection;
use bundle::heal::{HealReport, heal};
use bundle::store::Store;
use bundle::verify::{How, Scope, VerifyOptions, VerifyReport, verdicts, verify, write_report};
use store_support::*;

/// Numbers that are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn new(name: &str) -> Random {
        let seed = 0x11fe_b0a7;
        println!("{name}: seed {seed:#x}");
        Random(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = (0..count.div_ceil(8)).flat_map(|_| self.below(u64::MAX).to_le_bytes());
        words.take(count).collect()
    }
}

fn make_tree(dir: &Path, random: &mut Random) {
    fs::create_dir_all(dir.join("etc")).unwrap();
    for n in 0..60 {
        let size = random.below(30_000) as usize;
        fs::write(dir.join(format!("etc/{n:02}")), random.bytes(size)).unwrap();
    }
    for n in 0..3 {
        let size = 1_500_000 + random.below(2_000_000) as usize;
        fs::write(dir.join(format!("large-{n}")), random.bytes(size)).unwrap();
    }
    fs::write(dir.join("text"), "all work and no play\n".repeat(300_000)).unwrap();
}

/// The files that a store is made of, parity included; not what says what it is, and not the reports.
fn all_files(store: &Path) -> Vec<PathBuf> {
    ["packs", "index", "snapshots"]
        .into_iter()
        .flat_map(|below| files(store, below, ""))
        .filter(|f| f.is_file())
        .collect()
}

fn name_of(store: &Path, file: &Path) -> String {
    let name = file.strip_prefix(store.join("lifeboat")).unwrap();
    name.display().to_string()
}

fn flip_at(file: &Path, at: u64, bits: u8) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ bits], at).unwrap();
}

fn truncate(file: &Path, size: u64) {
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_len(size).unwrap();
}

fn heal_from(store: &Path, others: &[&Path]) -> HealReport {
    let others: Vec<_> = others
        .iter()
        .map(|o| Store::open_read_only(o).unwrap())
        .collect();
    let others: Vec<_> = others.iter().collect();
    let report = heal(Store::open(store).unwrap(), &others, 2, &Silent).unwrap();
    let reader = Store::open_read_only(store).unwrap();
    write_report(&reader, &report.before).unwrap();
    write_report(&reader, &report.after).unwrap();
    report
}

fn names(report: &VerifyReport) -> BTreeSet<String> {
    report.damaged.iter().map(|d| d.file.clone()).collect()
}

/// Damages a store, and sees that each damage is found by name and healed, and that what is said of it is true.
fn damage_and_heal(
    store: &Path,
    others: &[&Path],
    damage: impl FnOnce() -> BTreeSet<PathBuf>,
) -> HealReport {
    let damaged = damage();
    let report = heal_from(store, others);
    let found = names(&report.before);
    for file in &damaged {
        let name = name_of(store, file);
        assert!(
            found.contains(&name),
            "{name} is not in {:#?}",
            report.before
        );
    }
    assert!(report.after.ok(), "{report:#?}");
    let again = check(store);
    assert!(again.ok(), "{again:#?}\n{report:#?}");
    assert_eq!(again.snapshots, report.after.snapshots);
    report
}

#[test]
fn flips_and_truncations_with_two_targets() {
    let mut random = Random::new("two targets");
    let dir = scratch();
    let (tree, one, two) = (
        dir.path().join("tree"),
        dir.path().join("one"),
        dir.path().join("two"),
    );
    make_tree(&tree, &mut random);
    backup_to(&tree, &[&one, &two]);
    fs::write(tree.join("later"), random.bytes(400_000)).unwrap();
    backup_to(&tree, &[&one, &two]);
    let (mut flips, mut truncations) = (0, 0);
    for round in 0..25 {
        let (store, other) = if round % 2 == 0 {
            (&one, &two)
        } else {
            (&two, &one)
        };
        damage_and_heal(store, &[other], || {
            let files = all_files(store);
            let mut seen = BTreeSet::new();
            let mut damaged = BTreeSet::new();
            let mut places = Vec::new();
            while places.len() < 8 {
                let file = files[random.below(files.len() as u64) as usize].clone();
                let at = random.below(fs::metadata(&file).unwrap().len());
                if seen.insert((file.clone(), at)) {
                    places.push((file, at));
                }
            }
            for (file, at) in places {
                flip_at(&file, at, 1 << random.below(8));
                flips += 1;
                damaged.insert(file);
            }
            for _ in 0..2 {
                let file = files[random.below(files.len() as u64) as usize].clone();
                let size = fs::metadata(&file).unwrap().len();
                truncate(&file, random.below(size.max(1)));
                truncations += 1;
                damaged.insert(file);
            }
            damaged
        });
    }
    assert_eq!((flips, truncations), (200, 50));
    for (n, store) in [&one, &two].into_iter().enumerate() {
        assert_eq!(check(store).snapshots.len(), 2);
        let out = dir.path().join(format!("out-{n}"));
        assert!(extract_from(&[store], &Selection::All, &out).complete());
        assert_same(&tree, &out);
    }
}

#[test]
fn damage_below_the_parity_with_one_target() {
    let mut random = Random::new("parity");
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    make_tree(&tree, &mut random);
    open(&store).set_parity(5).unwrap();
    backup(&tree, &store);
    fs::write(tree.join("later"), random.bytes(400_000)).unwrap();
    backup(&tree, &store);
    let before = all_files(&store);
    let is_parity = |f: &&PathBuf| f.extension().is_some_and(|e| e == "par");
    assert_eq!(before.iter().filter(is_parity).count() * 2, before.len());
    for round in 0..10 {
        let report = damage_and_heal(&store, &[], || {
            let mut damaged = BTreeSet::new();
            for file in &before {
                // Of a file and its parity only one.
                if damaged.contains(&file.with_extension("")) {
                    continue;
                }
                let size = fs::metadata(file).unwrap().len();
                match (random.below(4), round % 3) {
                    // Single bytes; of those that are left, a burst or a truncation of 3 % of a pack.
                    (0, _) => {
                        let mut seen = BTreeSet::new();
                        for _ in 0..3 {
                            let at = random.below(size);
                            if seen.insert(at) {
                                flip_at(file, at, 1 << random.below(8));
                            }
                        }
                    }
                    (1, 0) if size > 100_000 => {
                        let start = random.below(size - size / 30);
                        (start..start + size / 30).for_each(|at| flip_at(file, at, 0x5a));
                    }
                    (1, 1) => truncate(file, size - (size / 40).max(1)),
                    _ => continue,
                }
                damaged.insert(file.clone());
            }
            damaged
        });
        assert!(!report.before.ok());
        assert_eq!(all_files(&store), before);
    }
    let out = dir.path().join("out");
    assert!(extract_from(&[&store], &Selection::All, &out).complete());
    assert_same(&tree, &out);
}

#[test]
fn what_is_missing_comes_back() {
    let mut random = Random::new("missing");
    let dir = scratch();
    let (tree, one, two) = (
        dir.path().join("tree"),
        dir.path().join("one"),
        dir.path().join("two"),
    );
    make_tree(&tree, &mut random);
    backup_to(&tree, &[&one, &two]);
    for what in ["packs", "index", "both"] {
        damage_and_heal(&one, &[&two], || {
            for below in ["packs", "index"]
                .iter()
                .filter(|b| what == "both" || **b == what)
            {
                for file in files(&one, below, "") {
                    if file.is_file() {
                        fs::remove_file(file).unwrap();
                    }
                }
            }
            BTreeSet::new()
        });
    }
    // A damaged document of a restore point that only the other store has whole.
    let document = files(&one, "snapshots", ".json").remove(0);
    damage_and_heal(&one, &[&two], || {
        fs::write(&document, "{}").unwrap();
        BTreeSet::from([document.clone()])
    });
    // Without parity, one that is gone may have been removed on purpose; with it, that is known.
    open(&one).set_parity(5).unwrap();
    heal_from(&one, &[]);
    let expected = fs::read(&document).unwrap();
    damage_and_heal(&one, &[&two], || {
        fs::remove_file(&document).unwrap();
        BTreeSet::from([document.clone()])
    });
    assert_eq!(fs::read(&document).unwrap(), expected);
    let out = dir.path().join("out");
    assert!(extract_from(&[&one], &Selection::All, &out).complete());
    assert_same(&tree, &out);
}

/// Names the directory in which the child finds the stores.
const CHILD: &str = "LIFEBOAT_TEST_HEAL_CHILD";

#[test]
#[ignore = "the program that a_healing_that_is_killed kills, not a test of its own"]
fn child() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let dir = Path::new(&dir);
        heal_from(&dir.join("one"), &[&dir.join("two")]);
    }
}

#[test]
fn a_healing_that_is_killed_makes_nothing_worse() {
    let mut random = Random::new("killed");
    let dir = scratch();
    let (tree, one, two) = (
        dir.path().join("tree"),
        dir.path().join("one"),
        dir.path().join("two"),
    );
    make_tree(&tree, &mut random);
    backup_to(&tree, &[&one, &two]);
    let lost = |report: &VerifyReport| -> BTreeSet<String> {
        let damaged = report.damaged.iter();
        damaged.flat_map(|d| d.files.iter().cloned()).collect()
    };
    let mut whole = std::time::Duration::ZERO;
    let mut killed = 0;
    for round in 0..9 {
        for (n, pack) in files(&one, "packs", ".pack").iter().enumerate() {
            let size = fs::metadata(pack).unwrap().len();
            match n % 3 {
                0 => flip_at(pack, size / 2, 1),
                1 => truncate(pack, size / 2),
                _ => {}
            }
        }
        truncate(&files(&one, "index", ".idx")[0], 50);
        let before = check(&one);
        let mut child = command(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored"])
            .env(CHILD, dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        if round == 0 {
            let begin = std::time::Instant::now();
            assert!(child.wait().unwrap().success());
            whole = begin.elapsed();
        } else {
            // Spread over the whole run, not timed: whatever point is met, what follows must hold.
            std::thread::sleep(whole.mul_f64(0.1 * f64::from(round)));
            child.kill().unwrap();
            killed += usize::from(!child.wait().unwrap().success());
        }
        let after = check(&one);
        // Where the catalogue was lost, not every file could be named before.
        let named = !before.notes.iter().any(|n| n.contains("catalogue"));
        assert!(
            !named || lost(&after).is_subset(&lost(&before)),
            "{before:#?} {after:#?}"
        );
        assert_eq!(after.snapshots, before.snapshots);
        assert!(heal_from(&one, &[&two]).after.ok());
        assert!(check(&one).ok());
    }
    assert!(
        killed > 3,
        "only {killed} of 8 were killed before their end"
    );
    assert!(extract_from(&[&one], &Selection::All, &dir.path().join("out")).complete());
    assert_same(&tree, &dir.path().join("out"));
}

#[test]
fn what_nobody_has_stays_as_it_is() {
    let mut random = Random::new("nobody");
    let dir = scratch();
    let (tree, one, two) = (
        dir.path().join("tree"),
        dir.path().join("one"),
        dir.path().join("two"),
    );
    make_tree(&tree, &mut random);
    // The same blobs in the same places, so that the same ones are damaged.
    backup(&tree, &one);
    sh(dir.path(), "cp -a one two");
    for store in [&one, &two] {
        for pack in files(store, "packs", ".pack") {
            flip_at(&pack, 500, 1);
        }
    }
    let before = all_files(&one);
    let report = heal_from(&one, &[&two]);
    assert!(
        !report.after.ok() && report.healed.is_empty(),
        "{report:#?}"
    );
    assert_eq!(names(&report.after), names(&report.before));
    assert_eq!(all_files(&one), before);
    // What is read again from the host heals both.
    backup_to(&tree, &[&one, &two]);
    for (store, other) in [(&one, &two), (&two, &one)] {
        assert!(heal_from(store, &[other]).after.ok());
        assert!(check(store).ok());
    }
}

#[test]
fn a_backup_does_not_rely_on_what_was_found_damaged() {
    let mut random = Random::new("reliance");
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    make_tree(&tree, &mut random);
    backup(&tree, &store);
    for pack in files(&store, "packs", ".pack") {
        flip_at(&pack, 500, 1);
    }
    // Nobody looked yet.
    assert_eq!(backup_to(&tree, &[&store]).remove(0).new_blobs, 0);
    let report = check(&store);
    assert!(!report.ok());
    write_report(&Store::open_read_only(&store).unwrap(), &report).unwrap();
    assert!(backup_to(&tree, &[&store]).remove(0).new_blobs > 0);
    assert_eq!(backup_to(&tree, &[&store]).remove(0).new_blobs, 0);
    assert!(extract_from(&[&store], &Selection::All, &dir.path().join("out")).complete());
    assert_same(&tree, &dir.path().join("out"));
    assert!(check(&store).damaged.iter().all(|d| d.files.is_empty()));
    // Without any help from outside, the damaged packs are replaced.
    assert!(heal_from(&store, &[]).after.ok());
    assert!(check(&store).ok());
}

#[test]
fn what_was_found_damaged_is_read_again_although_the_files_are_unchanged() {
    let mut random = Random::new("unchanged");
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    make_tree(&tree, &mut random);
    let later = || {
        let options = BackupOptions {
            since: Some("0".repeat(32)),
            ..options()
        };
        let source = TreeSource {
            filesystem: Some("one".into()),
            ..source(&tree)
        };
        let mut backup = Backup::start(vec![open(&store)], options, &Silent).unwrap();
        let tree = backup.tree(&source).unwrap();
        let (reused, result) = (
            backup.stats().segments_reused,
            backup.commit(draft(vec![tree])).remove(0),
        );
        result.snapshot.unwrap();
        (reused, result.new_blobs)
    };
    // Younger files could change again without a trace.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    later();
    let (reused, new) = later();
    assert!(reused > 0 && new == 0, "{reused} {new}");
    // A chunk of a large file: its segment and its list are as they were.
    let pack = flip_chunk(&store);
    let report = check(&store);
    assert!(names(&report).contains(&name_of(&store, &pack)));
    write_report(&Store::open_read_only(&store).unwrap(), &report).unwrap();
    assert!(later().1 > 0);
    assert!(extract_from(&[&store], &Selection::All, &dir.path().join("out")).complete());
}

/// Damages a chunk and nothing else; returns its pack.
fn flip_chunk(store: &Path) -> PathBuf {
    for pack in files(store, "packs", ".pack") {
        let script = format!(
            "p={}; n=$(tail -c 94 $p | cut -d ' ' -f 3 | sed 's/^0*//'); tail -c $((n + 94)) $p | head -c $n | zstd -dc",
            pack.display()
        );
        let footer: serde_json::Value =
            serde_json::from_slice(&sh(Path::new("/"), &script)).unwrap();
        let chunk = footer["blobs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|b| b["kind"] == "chunk");
        if let Some(chunk) = chunk {
            flip_at(&pack, chunk["offset"].as_u64().unwrap() + 10, 1);
            return pack;
        }
    }
    panic!("no chunk in {}", store.display());
}

#[test]
fn the_check_of_a_backup_reads_what_it_wrote_and_sees_what_else_is_lost() {
    let mut random = Random::new("check");
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    make_tree(&tree, &mut random);
    backup(&tree, &store);
    let old = files(&store, "packs", ".pack");
    fs::write(tree.join("later"), random.bytes(400_000)).unwrap();
    let check = |expected: bool| {
        let result = backup_to(&tree, &[&store]).remove(0);
        let reader = Store::open_read_only(&store).unwrap();
        let options = VerifyOptions {
            snapshot: Some(result.snapshot.unwrap().to_string()),
            cold: true,
            packs: Some(result.packs.clone()),
            ..VerifyOptions::default()
        };
        let report = verify(&reader, &options, &Silent).unwrap();
        assert_eq!(report.ok(), expected, "{report:#?}");
        assert_eq!(report.scope, Scope::Written);
        write_report(&reader, &report).unwrap();
        (report, result.new_blobs)
    };
    let (report, _) = check(true);
    assert!(report.packs <= 2 && old.len() > 2);
    let store_now = Store::open_read_only(&store).unwrap();
    let verdict = verdicts(&store_now).unwrap()[&report.snapshots[0]].clone();
    assert!(verdict.good && verdict.how == How::Written);
    // A pack that was not written by it, and is gone.
    fs::remove_file(&old[0]).unwrap();
    fs::write(tree.join("latest"), random.bytes(100)).unwrap();
    check(true);
    fs::remove_file(&old[1]).unwrap();
    let reader = Store::open_read_only(&store).unwrap();
    let options = VerifyOptions {
        snapshot: Some("latest".into()),
        packs: Some(Vec::new()),
        ..VerifyOptions::default()
    };
    assert!(!verify(&reader, &options, &Silent).unwrap().ok());
}

#[test]
fn the_next_writer_replaces_a_damaged_index() {
    let mut random = Random::new("index");
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    make_tree(&tree, &mut random);
    backup(&tree, &store);
    let index = files(&store, "index", ".idx").remove(0);
    flip_at(&index, 100, 1);
    assert_eq!(
        names(&check(&store)),
        BTreeSet::from([name_of(&store, &index)])
    );
    assert_eq!(backup_to(&tree, &[&store]).remove(0).new_blobs, 0);
    let report = check(&store);
    assert!(report.ok() && report.notes.is_empty(), "{report:#?}");
    // The new one may have the same content, and so the same name.
    assert!(!files(&store, "index", ".idx").is_empty());
}

#[test]
fn ten_samples_find_every_damage() {
    let mut random = Random::new("sample");
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    make_tree(&tree, &mut random);
    backup(&tree, &store);
    let sample = || {
        let reader = Store::open_read_only(&store).unwrap();
        let options = VerifyOptions {
            cold: true,
            sample: Some(10),
            ..VerifyOptions::default()
        };
        let report = verify(&reader, &options, &Silent).unwrap();
        write_report(&reader, &report).unwrap();
        report
    };
    let newest = || {
        let reader = Store::open_read_only(&store).unwrap();
        let id = reader.snapshot("latest").unwrap().0;
        verdicts(&reader).unwrap().get(&id).cloned()
    };
    let whole = check(&store);
    let mut blobs = 0;
    for n in 0..10 {
        let report = sample();
        assert!(report.ok() && report.blobs < whole.blobs / 3, "{report:#?}");
        blobs += report.blobs;
        let verdict = newest().unwrap();
        assert_eq!(verdict.how == How::Whole, n == 9);
    }
    assert_eq!(blobs, whole.blobs);
    // A pack that is new in the middle of a turn has its turn as well.
    sample();
    fs::write(tree.join("later"), random.bytes(3_000_000)).unwrap();
    let known = files(&store, "packs", ".pack");
    backup(&tree, &store);
    assert!(newest().is_none());
    let mut packs = files(&store, "packs", ".pack");
    packs.retain(|p| !known.contains(p));
    packs.push(known[0].clone());
    for pack in &packs {
        flip_at(pack, 500, 1);
    }
    let mut found = BTreeSet::new();
    for _ in 0..10 {
        found.extend(names(&sample()));
    }
    let all: BTreeSet<_> = packs.iter().map(|p| name_of(&store, p)).collect();
    assert_eq!(found, all);
    assert!(!newest().unwrap().good);
    // A sample that finds nothing does not make it good.
    sample();
    assert!(!newest().unwrap().good);
}

#[test]
fn what_is_pruned_takes_its_parity_along() {
    use bundle::prune::{Policy, Prune, PruneOptions, Whose};
    let mut random = Random::new("prune");
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    open(&store).set_parity(5).unwrap();
    for _ in 0..2 {
        make_tree(&tree, &mut random);
        let id = backup(&tree, &store);
        let reader = Store::open_read_only(&store).unwrap();
        write_report(&reader, &check(&store)).unwrap();
        assert_eq!(verdicts(&reader).unwrap()[&id].proof(), Some(true));
    }
    let before = all_files(&store).len();
    let options = PruneOptions {
        guests: Policy::GUESTS,
        policy: Policy::NOTHING,
        whose: Whose::Named("test".into()),
    };
    let done = Prune::new(open(&store), &options, &Silent)
        .unwrap()
        .apply(&Silent)
        .unwrap();
    assert!(
        done.snapshots.len() == 1 && done.packs_removed > 0,
        "{done:?}"
    );
    let after = all_files(&store);
    assert!(after.len() < before);
    let parity = after
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "par"));
    assert!(parity.clone().all(|p| p.with_extension("").exists()));
    assert_eq!(parity.count() * 2, after.len());
    let report = check(&store);
    assert!(report.ok() && report.notes.is_empty(), "{report:#?}");
}
