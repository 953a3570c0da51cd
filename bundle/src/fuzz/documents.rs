//! Files of a store that list and describe.

use std::path::Path;
use std::sync::LazyLock;

use super::seeds;
use super::target::InFile;
use crate::document::{Snapshot, SnapshotHeader};
use crate::store::{StoreFile, parse_snapshot};
use crate::verify::verdicts::{How, judge, parse};
use crate::verify::{Scope, sample};
use crate::{Id, codec, index as indexes, pack, parity as parities};

/// `store.json`, as it is and with the hash that it should give.
pub(super) fn store(data: &[u8]) {
    let path = Path::new("store.json");
    for json in [data.to_vec(), seeds::with_sum(data)] {
        let Ok(file) = StoreFile::parse(path, &json) else {
            continue;
        };
        // The next writer makes the file and its copy the same: nothing of it may change on the way.
        let again = file.to_json().unwrap();
        let second = StoreFile::parse(path, again.as_bytes()).unwrap();
        assert_eq!(second.to_json().unwrap(), again);
    }
}

pub(super) fn snapshot(data: &[u8]) {
    let Ok(snapshot) = parse_snapshot(Path::new("x"), data) else {
        return;
    };
    for tree in &snapshot.trees {
        // Where `lifeboat extract` puts it.
        let dest = Path::new("/dest").join(tree.mount_point.trim_start_matches('/'));
        assert!(dest.starts_with("/dest") && !dest.components().any(|c| c.as_os_str() == ".."));
    }
    let header = SnapshotHeader::new(Id::of(data), &snapshot);
    header.shown_time();
    let name = crate::store::snapshot_name(&header.time, &header.id, ".json");
    assert!(!name.contains('/') && name.ends_with(&format!("{}.json", header.id)));
    let again = serde_json::to_vec(&snapshot).unwrap();
    let again = parse_snapshot(Path::new("x"), &again).unwrap();
    // A number of the layout or the facts may be beyond what JSON's readers keep exactly.
    let exact = |s: &Snapshot| Snapshot {
        layout: serde_json::Value::Null,
        facts: serde_json::Value::Null,
        ..s.clone()
    };
    assert_eq!(exact(&again), exact(&snapshot));
}

/// The lines are reports of one store.
pub(super) fn reports(data: &[u8]) {
    let files = data.split(|b| *b == b'\n').enumerate();
    let files = files.map(|(n, json)| (format!("{n}-verify-x.json"), json.to_vec()));
    let reports = parse("s", files.collect());
    assert!(reports.windows(2).all(|two| two[0].time <= two[1].time));
    for (id, verdict) in judge(&reports) {
        if verdict.proof() != Some(true) || verdict.how != How::Whole {
            continue;
        }
        // Nothing is proven that nobody read: one report has all of it, or each of its slices is in one.
        let about = reports.iter().filter(|r| r.snapshots.contains(&id));
        let mut slices = std::collections::BTreeSet::new();
        let mut whole = false;
        for report in about {
            match report.scope {
                Scope::Whole | Scope::Snapshot => whole = true,
                Scope::Sample { slice, of } if slice < of => drop(slices.insert((of, slice))),
                _ => {}
            }
        }
        let complete = |of: u32| slices.range((of, 0)..=(of, of)).count() == of as usize;
        assert!(whole || slices.iter().any(|(of, _)| complete(*of)));
    }
    for percent in [0, 1, 10, 33, 100, u32::MAX] {
        let slice = sample::after(&reports, percent);
        assert!(slice.number < slice.of);
    }
}

/// The JSON of an index, and the file as it is.
pub(super) fn index(data: &[u8]) {
    for stored in [codec::pack_json(data).unwrap(), data.to_vec()] {
        let read = |path: &Path| indexes::read(path, &Id::of(&stored), None);
        for pack in InFile::new(&stored).read(read).unwrap_or_default() {
            let mut map = indexes::Map::default();
            map.push_pack(0, &pack.blobs);
            map.sort();
            for blob in &pack.blobs {
                // What was listed is found, and its numbers fitted into 32 bits.
                let places = map.find(&blob.id);
                let same = |l: &indexes::Location| {
                    (u64::from(l.offset), u64::from(l.stored)) == (blob.offset, blob.stored)
                        && u64::from(l.raw) == blob.raw
                };
                assert!(places.iter().any(same));
                assert!(blob.offset + blob.stored <= pack.size && blob.raw <= codec::MAX_BLOB);
            }
        }
    }
}

/// A whole pack, or the JSON of a footer with hashes that vouch for it.
pub(super) fn footer(data: &[u8]) {
    for pack in [data.to_vec(), seeds::pack(data)] {
        let read = InFile::new(&pack).read(|path| pack::read_footer(path, None));
        if let Ok((size, blobs)) = read {
            assert_eq!(size, pack.len() as u64);
            assert!(blobs.iter().all(|b| b.offset + b.stored <= size));
        }
    }
}

/// A store of one file, with its damaged form.
struct Protected {
    dir: tempfile::TempDir,
    file: std::path::PathBuf,
    content: Vec<u8>,
    bad: Vec<u8>,
    good: Vec<u8>,
}

static PROTECTED: LazyLock<std::sync::Mutex<Protected>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["tmp", "index"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    parities::record(root, 20).unwrap();
    let content: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
    let file = root.join(format!("index/{}.idx", Id::of(&content)));
    std::fs::write(&file, &content).unwrap();
    parities::protect(root, &file).unwrap();
    let good = std::fs::read(parities::path_of(&file)).unwrap();
    let mut bad = content.clone();
    bad[700] ^= 1;
    std::sync::Mutex::new(Protected {
        dir,
        file,
        content,
        bad,
        good,
    })
});

/// A parity file that a writer makes.
pub(super) fn good_parity() -> Vec<u8> {
    PROTECTED.lock().unwrap().good.clone()
}

/// A parity file beside a damaged file.
pub(super) fn parity(data: &[u8]) {
    let store = PROTECTED.lock().unwrap();
    std::fs::write(parities::path_of(&store.file), data).unwrap();
    std::fs::write(&store.file, &store.bad).unwrap();
    assert!(data == store.good || parities::check(&store.file).is_some());
    // Whatever it says: the file is right afterwards, or as it was.
    let repaired = parities::repair(store.dir.path(), &store.file).is_ok();
    let expected = if repaired { &store.content } else { &store.bad };
    assert!(std::fs::read(&store.file).unwrap() == *expected);
}
