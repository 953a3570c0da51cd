use std::fs::{self, File};
use std::path::Path;

use super::super::tests::draft;
use super::*;
use crate::backup::BackupOptions;
use crate::events::Silent;
use crate::extract::image_to;
use crate::store::{Store, StoreOptions};
use crate::verify::{VerifyOptions, verify};

/// Bytes that look random, the same for the same seed.
fn noise(mut seed: u64, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out.extend_from_slice(&(seed >> 16).to_le_bytes()[..6]);
    }
    out.truncate(length);
    out
}

fn disk(clusters: usize) -> Vec<u8> {
    let mut disk = noise(1, clusters * CLUSTER);
    // Zeroes at the begin, in the middle, and across the end of a blob.
    for hole in [0..2, 17..20, clusters - 3..clusters - 1] {
        disk[hole.start * CLUSTER..hole.end * CLUSTER].fill(0);
    }
    disk.extend_from_slice(&noise(2, 1000));
    disk
}

fn store(dir: &Path) -> Store {
    fs::create_dir_all(dir).unwrap();
    Store::create(dir, &StoreOptions::default())
        .or_else(|_| Store::open(dir))
        .unwrap()
}

type Order<'o> = &'o dyn Fn(&mut Vec<(usize, usize)>);

/// Stores the disks, whose clusters come in `order`; `tune` can change the limits. Returns the new blobs.
fn save(
    dir: &Path,
    disks: &[&[u8]],
    order: Order<'_>,
    tune: &dyn Fn(&mut Devices<'_>),
) -> (Vec<Image>, u64, u64) {
    let options = BackupOptions {
        workers: 2,
        ..BackupOptions::default()
    };
    let mut backup = Backup::start(vec![store(dir)], options, &Silent).unwrap();
    let names: Vec<_> = (0..disks.len())
        .map(|n| (format!("drive-scsi{n}"), disks[n].len() as u64))
        .collect();
    let mut devices = backup.devices(&names).unwrap();
    tune(&mut devices);
    let mut clusters = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        clusters.extend((0..disk.len().div_ceil(CLUSTER)).map(|c| (number, c)));
    }
    order(&mut clusters);
    for (number, cluster) in clusters {
        let start = cluster * CLUSTER;
        let end = (start + CLUSTER).min(disks[number].len());
        devices
            .cluster(number, start as u64, &disks[number][start..end])
            .unwrap();
    }
    let images = devices.finish().unwrap();
    let mut draft = draft(Vec::new());
    draft.images = images.clone();
    let result = backup.commit(draft).remove(0);
    result.snapshot.unwrap();
    (images, result.new_blobs, result.bytes_written)
}

fn restored(dir: &Path, image: &Image) -> Vec<u8> {
    let opened = Store::open_read_only(dir).unwrap();
    assert!(
        verify(&opened, &VerifyOptions::default(), &Silent)
            .unwrap()
            .ok()
    );
    let path = dir.join("out.raw");
    let out = File::create(&path).unwrap();
    image_to(&[&opened], image, &out, &Silent).unwrap();
    fs::read(path).unwrap()
}

fn in_order(_: &mut Vec<(usize, usize)>) {}

#[allow(clippy::ptr_arg, reason = "it is an order")]
fn shuffled(clusters: &mut Vec<(usize, usize)>) {
    clusters.sort_by_key(|(disk, cluster)| {
        crate::Id::of(format!("{disk} {cluster}").as_bytes()).leading()
    });
}

fn in_groups_of(group: u64) -> impl Fn(&mut Devices<'_>) {
    move |devices| {
        for device in &mut devices.devices {
            device.group = group;
        }
    }
}

#[test]
fn disks_come_back_and_order_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (disk(40), disk(33));
    let all = [a.as_slice(), &b[CLUSTER * 4..]];
    for (group, at) in [(1, "1"), (4, "4"), (64, "64")] {
        let dir = dir.path().join(at);
        let tune = in_groups_of(group);
        let (images, ..) = save(&dir, &all, &in_order, &tune);
        let (again, new, _) = save(&dir, &all, &shuffled, &tune);
        assert_eq!((&images, new), (&again, 0), "groups of {group}");
        for (image, disk) in images.iter().zip(all) {
            assert_eq!(image.size, disk.len() as u64);
            assert!(restored(&dir, image) == disk, "groups of {group}");
        }
    }
}

#[test]
fn blobs_that_wait_too_long_are_stored_by_clusters() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(64);
    let tune = |devices: &mut Devices<'_>| {
        in_groups_of(8)(devices);
        devices.most_waiting = 10 * CLUSTER;
    };
    let (images, ..) = save(dir.path(), &[&disk], &shuffled, &tune);
    assert!(restored(dir.path(), &images[0]) == disk);
}

/// A guest writes everywhere while its disk is dumped: what it is about to overwrite comes first.
#[test]
fn neighbours_are_one_blob_where_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(256);
    let written_first = |clusters: &mut Vec<(usize, usize)>| {
        clusters.sort_by_key(|(_, cluster)| (cluster % 8 != 3, *cluster));
    };
    let mut counts = Vec::new();
    for most_apart in [APART, 0] {
        let tune = |devices: &mut Devices<'_>| {
            in_groups_of(8)(devices);
            devices.most_waiting = 10 * CLUSTER;
            devices.most_apart = most_apart;
        };
        let dir = dir.path().join(most_apart.to_string());
        let (images, ..) = save(&dir, &[&disk], &written_first, &tune);
        assert!(restored(&dir, &images[0]) == disk);
        let shuffle = dir.join("shuffled");
        let (images_too, ..) = save(&shuffle, &[&disk], &shuffled, &tune);
        assert!(restored(&shuffle, &images_too[0]) == disk);
        let store = Store::open_read_only(&dir).unwrap();
        let mut pieces = 0;
        let stores = [&store];
        let mut readers = crate::read::Readers::new(&stores);
        content::read(
            &mut readers,
            &images[0].content,
            images[0].size,
            &mut |_| (),
            &mut |_, _| {
                pieces += 1;
                Ok(())
            },
        )
        .unwrap();
        counts.push(pieces);
    }
    // All but the holes, or three of each group.
    assert!(counts[0] > 240 && counts[1] <= 3 * 32 + 10, "{counts:?}");
}

#[test]
fn one_percent_changed_costs_one_percent() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = noise(3, 2000 * CLUSTER);
    save(dir.path(), &[&disk], &in_order, &|_| ());
    for changed in 0..20 {
        disk[(changed * 97 + 11) * CLUSTER + 5] ^= 1;
    }
    let (images, new, bytes) = save(dir.path(), &[&disk], &shuffled, &|_| ());
    // The clusters, and the content list.
    assert_eq!(new, 21);
    assert!(bytes < disk.len() as u64 * 12 / 1000, "{bytes}");
    assert!(restored(dir.path(), &images[0]) == disk);
}

#[test]
fn lists_are_cut_into_parts() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = vec![0; (PART + 3) * CLUSTER];
    disk[7] = 1;
    disk[PART * CLUSTER] = 2;
    let (images, new, _) = save(dir.path(), &[&disk], &in_order, &|_| ());
    // Two blobs, two parts of the list, and the list of these.
    assert_eq!(new, 5);
    assert!(restored(dir.path(), &images[0]) == disk);
}

#[test]
fn what_does_not_come_or_comes_twice_is_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut backup = Backup::start(vec![store], BackupOptions::default(), &Silent).unwrap();
    let size = 3 * CLUSTER as u64 + 5;
    let cluster = noise(4, CLUSTER);
    for group in [1, 2] {
        let mut devices = backup.devices(&[("drive-scsi0".into(), size)]).unwrap();
        devices.devices[0].group = group;
        devices.cluster(0, 0, &cluster).unwrap();
        assert!(devices.cluster(0, 0, &cluster).is_err(), "twice");
        assert!(devices.cluster(0, 5, &cluster).is_err(), "between clusters");
        let behind = 4 * CLUSTER as u64;
        assert!(devices.cluster(0, behind, &cluster).is_err(), "behind it");
        let last = 3 * CLUSTER as u64;
        assert!(devices.cluster(0, last, &cluster).is_err(), "too long");
        assert!(devices.cluster(1, 0, &cluster).is_err(), "no device");
        assert!(devices.finish().is_err(), "incomplete");
    }
    assert!(backup.devices(&[("drive-scsi0".into(), u64::MAX)]).is_err());
}
