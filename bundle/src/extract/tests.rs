//! Images in the order of the packs.

use std::fs;
use std::path::Path;

use super::*;
use crate::Error;
use crate::backup::tests::{draft, store_image};
use crate::events::Silent;

const UNIT: u64 = 64 << 10;

/// Bytes that look like nothing, other ones for each seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Zero clusters at both ends and in the middle, one content twice, an odd size.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 3 * UNIT as usize];
    disk.extend(noise(5 * UNIT as usize, 1));
    disk.extend(vec![0; UNIT as usize]);
    disk.extend(noise(UNIT as usize, 2));
    disk.extend(noise(UNIT as usize, 2));
    disk.extend(vec![0; 2 * UNIT as usize]);
    disk.extend(noise(1000, 3));
    disk
}

/// Stores of images, each cut every so many bytes.
fn stored(dir: &Path, images: &[(&str, Vec<u8>, usize)]) -> Vec<Image> {
    fs::create_dir_all(dir).unwrap();
    let mut stored = Vec::new();
    let mut backup = crate::backup::tests::start(dir);
    for (name, content, cut) in images {
        stored.push(store_image(&mut backup, name, content, *cut));
    }
    let draft = crate::document::SnapshotDraft {
        images: stored.clone(),
        ..draft(Vec::new())
    };
    assert!(backup.commit(draft)[0].snapshot.is_ok());
    stored
}

#[allow(clippy::type_complexity)]
fn read(stores: &[&Store], images: &[Image]) -> Result<(Vec<Vec<u8>>, Vec<(usize, u64)>)> {
    let mut disks: Vec<Vec<u8>> = images.iter().map(|i| vec![0xee; i.size as usize]).collect();
    let mut order = Vec::new();
    blocks(stores, images, UNIT, &Silent, &mut |n, offset, block| {
        assert_eq!(offset % UNIT, 0);
        let end = offset + block.size();
        assert!(end % UNIT == 0 || end == images[n].size, "{offset} {end}");
        let place = &mut disks[n][offset as usize..end as usize];
        assert!(place.iter().all(|b| *b == 0xee), "given twice");
        match block {
            Block::Data(data) => place.copy_from_slice(data),
            Block::Zeroes(_) => place.fill(0),
        }
        order.push((n, offset));
        Ok(())
    })?;
    Ok((disks, order))
}

#[test]
fn every_cluster_comes_once_however_the_image_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (disk(), noise(3 * UNIT as usize + 7, 9));
    for cuts in [
        [UNIT as usize; 2],
        [100_000, UNIT as usize],
        [1 << 20, 777],
        [1001, 1 << 20],
    ] {
        let store = dir.path().join(format!("{cuts:?}"));
        let images = [
            ("drive-scsi0", a.clone(), cuts[0]),
            ("drive-scsi1", b.clone(), cuts[1]),
        ];
        let images = stored(&store, &images);
        let store = Store::open_read_only(&store).unwrap();
        let (disks, _) = read(&[&store], &images).unwrap();
        assert!(disks == [a.clone(), b.clone()], "{cuts:?}");
    }
}

/// The clusters of two disks lie in the packs as they were dumped, not disk by disk.
#[test]
fn the_order_is_that_of_the_packs() {
    let dir = tempfile::tempdir().unwrap();
    let shared = noise(4 * UNIT as usize, 5);
    let other: Vec<u8> = shared
        .chunks(UNIT as usize)
        .rev()
        .flatten()
        .copied()
        .collect();
    let images = [("a", shared, UNIT as usize), ("b", other, UNIT as usize)];
    let images = stored(dir.path(), &images);
    let store = Store::open_read_only(dir.path()).unwrap();
    let (_, order) = read(&[&store], &images).unwrap();
    // A blob is read once for both.
    for pair in order.chunks(2) {
        let [(0, first), (1, second)] = pair else {
            panic!("{order:?}")
        };
        assert_eq!(first + second, 3 * UNIT, "{order:?}");
    }
}

#[test]
fn damage_is_healed_by_another_store_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let stores = ["one", "two"].map(|name| dir.path().join(name));
    let images = stores
        .each_ref()
        .map(|store| stored(store, &[("drive-scsi0", disk(), UNIT as usize)]));
    assert_eq!(images[0], images[1]);
    for entry in fs::read_dir(stores[0].join("lifeboat/packs")).unwrap() {
        for pack in fs::read_dir(entry.unwrap().path()).unwrap() {
            let pack = pack.unwrap().path();
            let mut bytes = fs::read(&pack).unwrap();
            // In the middle of the blobs.
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            fs::write(&pack, bytes).unwrap();
        }
    }
    let open = stores.each_ref().map(|s| Store::open_read_only(s).unwrap());
    let (disks, _) = read(&[&open[0], &open[1]], &images[0]).unwrap();
    assert!(disks[0] == disk());
    let error = read(&[&open[0]], &images[0]).unwrap_err().to_string();
    assert!(
        error.contains("drive-scsi0") && error.contains("bytes "),
        "{error}"
    );
}

#[test]
fn what_the_taker_refuses_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let images = stored(dir.path(), &[("a", disk(), UNIT as usize)]);
    let store = Store::open_read_only(dir.path()).unwrap();
    let mut calls = 0;
    let ended = blocks(&[&store], &images, UNIT, &Silent, &mut |_, _, _| {
        calls += 1;
        Err(Error::Cancelled)
    });
    assert!(matches!(ended, Err(Error::Cancelled)) && calls == 1);
}

#[test]
fn what_is_not_there_is_known_without_reading_it() {
    let dir = tempfile::tempdir().unwrap();
    let stores = ["one", "two"].map(|name| dir.path().join(name));
    for store in &stores {
        stored(store, &[("drive-scsi0", disk(), UNIT as usize)]);
    }
    let whole = Store::open_read_only(&stores[1]).unwrap();
    let (_, snapshot) = whole.snapshot("latest").unwrap();
    for entry in fs::read_dir(stores[0].join("lifeboat/packs")).unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    let empty = Store::open_read_only(&stores[0]).unwrap();
    let said = crate::verify::missing(&[&empty], &snapshot).unwrap();
    assert!(
        said.contains("drive-scsi0") || said.contains("list"),
        "{said}"
    );
    assert_eq!(crate::verify::missing(&[&empty, &whole], &snapshot), None);
    assert_eq!(crate::verify::missing(&[&whole], &snapshot), None);
}
