//! Segments of which only a part still counts.

use std::collections::BTreeMap;

use super::*;
use crate::catalogue::{Catalogue, Line};
use crate::diff::{Change, diff};
use crate::extract::to_tar;
use crate::read::Readers;

/// Small files: some hundred are in a segment.
fn small_files(count: usize) -> Ground {
    let g = Ground::new(0);
    for n in 0..count {
        g.write(&format!("d{:02}/s{n:04}", n / 40), n as u8, 2000 + n);
    }
    g
}

fn lines(g: &Ground, name: &str) -> Vec<Line> {
    let store = Store::open_read_only(&g.store(name)).unwrap();
    let (_, snapshot) = store.snapshot("latest").unwrap();
    let stores = [&store];
    let lines = Catalogue::new(Readers::new(&stores), &snapshot.trees[0]);
    lines.map(Result::unwrap).collect()
}

/// Bytes of the files that the store is made of.
fn bytes_in(store: &Path) -> u64 {
    let entries = fs::read_dir(store).unwrap().map(Result::unwrap);
    entries
        .map(|e| match e.file_type().unwrap().is_dir() {
            true => bytes_in(&e.path()),
            false => e.metadata().unwrap().len(),
        })
        .sum()
}

/// What a tar archive of the latest snapshot gives, unpacked by tar itself.
fn through_tar(g: &Ground, name: &str) -> BTreeMap<PathBuf, Option<Id>> {
    let store = Store::open_read_only(&g.store(name)).unwrap();
    let (_, snapshot) = store.snapshot("latest").unwrap();
    let out = tempfile::tempdir().unwrap();
    let archive = out.path().join("archive");
    let mut file = File::create(&archive).unwrap();
    let tree = &snapshot.trees[0];
    let report = to_tar(
        &[&store],
        &snapshot,
        tree,
        &Selection::All,
        &mut file,
        &Silent,
    )
    .unwrap();
    assert!(report.complete(), "{report:#?}");
    let dir = out.path().join("tree");
    fs::create_dir(&dir).unwrap();
    let mut unpacked = tar::Archive::new(File::open(&archive).unwrap());
    unpacked.set_unpack_xattrs(true);
    unpacked.set_preserve_permissions(true);
    unpacked.unpack(&dir).unwrap();
    contents(&dir)
}

/// Names, and the hash of what is in the files.
fn contents(root: &Path) -> BTreeMap<PathBuf, Option<Id>> {
    let content = |path: &Path| path.is_file().then(|| Id::of(&fs::read(path).unwrap()));
    let names = manifest(root).into_keys();
    names
        .map(|name| (name.clone(), content(&root.join(name))))
        .collect()
}

#[test]
fn one_changed_file_costs_one_file() {
    let mut g = small_files(800);
    fs::hard_link(g.path("d03/s0130"), g.path("d03/z")).unwrap();
    g.round(&["a"]);
    let (whole, before) = (bytes_in(&g.store("a")), lines(&g, "a"));
    assert!(before.iter().all(|line| !line.part));
    let longest = before.iter().max_by_key(|l| l.entries.len()).unwrap();
    assert!(longest.entries.len() > 50, "{before:#?}");
    let names: Vec<PathBuf> = longest.entries.iter().map(|e| e.path.clone()).collect();
    let files: Vec<&PathBuf> = names
        .iter()
        .filter(|n| g.path("").join(n).is_file())
        .collect();
    let [changed, gone, kept] = [files[10], files[20], files[21]].map(|f| f.to_str().unwrap());
    g.write(changed, 200, 5000);
    fs::remove_file(g.path(gone)).unwrap();
    g.write(&format!("{kept}-new"), 7, 100);
    g.round(&["a"]);
    let read: BTreeSet<String> = [changed.to_string(), format!("{kept}-new")].into();
    assert_eq!(g.opened, read, "nothing else was opened");
    assert!(
        bytes_in(&g.store("a")) - whole < whole / 10,
        "the segment was not stored again"
    );
    let after = lines(&g, "a");
    let of_old: Vec<&Line> = after
        .iter()
        .filter(|l| l.segment == longest.segment)
        .collect();
    assert!(of_old.len() >= 2 && of_old.iter().all(|l| l.part));
    // A batch of lines that have not changed is taken over as it is.
    g.round(&["a"]);
    assert!(g.read_nothing(), "{:?}", g.opened);
    // What the segment still holds beside is not in the snapshot, whoever reads it.
    assert_eq!(through_tar(&g, "a"), contents(&g.path("")));
    let store = Store::open_read_only(&g.store("a")).unwrap();
    let mut snapshots: Vec<Snapshot> = store
        .documents()
        .unwrap()
        .into_iter()
        .map(|(_, document)| document.unwrap().1)
        .collect();
    snapshots.sort_by(|a, b| a.time.cmp(&b.time));
    let mut seen = Vec::new();
    let mut note = |change: Change| {
        if let Change::Added { path, .. }
        | Change::Removed { path, .. }
        | Change::Changed { path, .. } = change
        {
            seen.push(path);
        }
        true
    };
    let (first, second) = (&snapshots[0], &snapshots[1]);
    diff(&[&store], first, second, None, &Silent, &mut note).unwrap();
    for name in [changed, gone, &format!("{kept}-new")] {
        assert!(
            seen.contains(&Path::new("/").join(name)),
            "{name}: {seen:?}"
        );
    }
    assert!(!seen.contains(&Path::new("/").join(kept)));
}

/// Entries of the latest snapshot by the segment that they are in.
fn entries_of_segments(g: &Ground) -> BTreeMap<Id, usize> {
    let mut entries = BTreeMap::new();
    for line in lines(g, "a") {
        *entries.entry(line.segment).or_insert(0) += line.entries.len();
    }
    entries
}

#[test]
fn parts_are_gathered_before_they_are_many() {
    let mut g = small_files(300);
    g.round(&["a"]);
    let batches = lines(&g, "a").len();
    let mut most = 0;
    for day in 0..24u8 {
        // Other files every day.
        for n in (usize::from(day)..300).step_by(24) {
            g.write(&format!("d{:02}/s{n:04}", n / 40), 100 + day, 2500 + n);
        }
        g.round(&["a"]);
        let segments = entries_of_segments(&g).len();
        assert!(segments <= 9 * batches, "day {day}: {segments}");
        most = most.max(segments);
    }
    assert!(most > 3, "days do not share a segment: {most}");
}

#[test]
fn a_segment_that_hardly_counts_is_read_again() {
    let mut g = small_files(300);
    g.round(&["a"]);
    let before = entries_of_segments(&g);
    let (old, held) = before.iter().max_by_key(|(_, n)| **n).unwrap();
    // A third of the files goes: the segment still counts. Then another one: it does not.
    for third in 0..2 {
        for n in (third..300).step_by(3) {
            fs::remove_file(g.path(&format!("d{:02}/s{n:04}", n / 40))).unwrap();
        }
        g.round(&["a"]);
        let counts = entries_of_segments(&g).get(old).copied().unwrap_or(0);
        match third {
            0 => assert!(counts > held / 2 && counts < *held, "{counts} of {held}"),
            _ => assert_eq!(counts, 0, "of {held}"),
        }
    }
}

#[test]
fn links_across_parts_stay_links() {
    let mut g = small_files(200);
    fs::hard_link(g.path("d01/s0050"), g.path("d02/link")).unwrap();
    fs::hard_link(g.path("d01/s0051"), g.path("d01/s0051-link")).unwrap();
    g.round(&["a"]);
    // The first name is read again, the others stay; then the other way round.
    g.write("d01/s0052", 1, 10);
    g.round(&["a"]);
    xattr::set(g.path("d01/s0050"), "user.test", b"1").unwrap();
    g.round(&["a"]);
    fs::remove_file(g.path("d01/s0051")).unwrap();
    g.round(&["a"]);
    fs::rename(g.path("d02/link"), g.path("d00/a-link")).unwrap();
    g.round(&["a"]);
    g.round(&["a"]);
    assert!(g.read_nothing(), "{:?}", g.opened);
}
