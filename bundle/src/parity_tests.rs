//! What parity repairs, and what it does not.

use std::fs;

use super::*;

fn store() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tmp", "packs", "index", "snapshots"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let root = dir.path().to_path_buf();
    (dir, root)
}

fn noise(size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut state = Id::of(b"noise");
    while out.len() < size {
        out.extend_from_slice(state.as_bytes());
        state = Id::of(state.as_bytes());
    }
    out.truncate(size);
    out
}

fn put(root: &Path, bytes: &[u8]) -> PathBuf {
    let path = root.join(format!("index/{}.idx", Id::of(bytes)));
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn headers_have_their_size_and_read_themselves_only() {
    for size in [0, 1, 64, 5000, 1 << 20, (64 << 20) + 1, u64::from(u32::MAX)] {
        let header = Header::new(size, Id::of(b"x"), 5);
        let line = header.line();
        assert_eq!(line.len(), HEADER);
        assert_eq!(Header::parse(line.as_bytes()), Some(header.clone()));
        let shards: u64 = (0..header.groups).map(|g| header.data(g)).sum();
        assert_eq!(shards, header.shards());
        assert!(header.data(0) * header.shard <= GROUP);
        for at in 0..line.len() {
            let mut flipped = line.clone().into_bytes();
            flipped[at] ^= 1;
            assert_eq!(Header::parse(&flipped), None, "{at}");
        }
    }
}

#[test]
fn damage_up_to_the_parity_is_repaired_and_more_is_not() {
    let (_dir, root) = store();
    record(&root, 5).unwrap();
    for size in [1, 63, 700, 40_000, 3_000_000, 20_000_000] {
        let bytes = noise(size);
        let path = put(&root, &bytes);
        let written = protect(&root, &path).unwrap();
        assert_eq!(written, fs::metadata(path_of(&path)).unwrap().len());
        assert_eq!(check(&path), None);
        // A burst of 4 % (of a small file: one shard), and a truncation of as much.
        let burst = (size / 25).max(1);
        let mut damaged = bytes.clone();
        damaged[size / 3..size / 3 + burst]
            .iter_mut()
            .for_each(|b| *b ^= 0x55);
        for bad in [
            damaged,
            bytes[..size - burst].to_vec(),
            [&bytes[..], b"more"].concat(),
        ] {
            fs::write(&path, bad).unwrap();
            repair(&root, &path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        fs::write(&path, vec![0xaa; size]).unwrap();
        if size > 1000 {
            assert!(repair(&root, &path).is_err());
            assert_eq!(fs::read(&path).unwrap(), vec![0xaa; size]);
        }
        assert!(fsutil::names(&root.join("tmp")).unwrap().is_empty());
    }
}

#[test]
fn damage_of_the_parity_is_seen_and_does_not_stop_a_repair() {
    let (_dir, root) = store();
    record(&root, 10).unwrap();
    let bytes = noise(100_000);
    let path = put(&root, &bytes);
    protect(&root, &path).unwrap();
    let good = fs::read(path_of(&path)).unwrap();
    let mut damaged = bytes.clone();
    damaged[50_000] ^= 1;
    for at in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 4;
        fs::write(path_of(&path), bad).unwrap();
        assert!(check(&path).is_some(), "{at}");
        fs::write(&path, &damaged).unwrap();
        repair(&root, &path).unwrap();
    }
    fs::write(path_of(&path), &good[..good.len() / 2]).unwrap();
    assert!(check(&path).is_some());
    assert_eq!(complete(&root, true).unwrap().written, [path_of(&path)]);
    assert_eq!(fs::read(path_of(&path)).unwrap(), good);
}

#[test]
fn damaged_parity_of_a_store_that_makes_none_any_more_goes() {
    let (_dir, root) = store();
    record(&root, 10).unwrap();
    let paths = [b"one", b"two", b"bad"].map(|bytes| put(&root, bytes));
    for path in &paths {
        protect(&root, path).unwrap();
    }
    record(&root, 0).unwrap();
    let [whole, other, damaged] = &paths;
    for path in [whole, damaged] {
        fs::write(path_of(path), "not parity").unwrap();
    }
    fs::write(damaged, "BAD").unwrap();
    assert_eq!(complete(&root, false).unwrap(), Completed::default());
    let done = complete(&root, true).unwrap();
    assert_eq!(done.removed, [path_of(whole)]);
    assert!(done.written.is_empty() && check(whole).is_none());
    assert!(path_of(other).exists() && path_of(damaged).exists());
}

#[test]
fn missing_parity_is_made_of_whole_files_and_orphans_go() {
    let (_dir, root) = store();
    let (one, two) = (put(&root, b"one"), put(&root, b"two"));
    assert_eq!(protect(&root, &one).unwrap(), 0);
    assert_eq!(complete(&root, true).unwrap(), Completed::default());
    record(&root, 5).unwrap();
    fs::write(&two, "bad").unwrap();
    let orphan = root.join("index").join(format!("{}.idx.par", Id::of(b"3")));
    fs::write(&orphan, "").unwrap();
    assert_eq!(complete(&root, false).unwrap().written, [path_of(&one)]);
    assert!(!orphan.exists() && !path_of(&two).exists());
    // A damaged record is replaced by what was made before.
    fs::write(root.join(SETTING), "{").unwrap();
    assert!(recorded(&root).is_err());
    assert_eq!(percent(&root), 5);
}
