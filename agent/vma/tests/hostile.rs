//! Archives that contradict themselves, with the sums that they should have: each is refused with its own message.
#![allow(clippy::unwrap_used, reason = "a failing test is to panic")]

mod common;

use std::collections::BTreeSet;
use std::io::Read as _;

use common::*;

const SIZE: u64 = 3 * CLUSTER as u64 - 10_000;

fn header() -> RawHeader {
    RawHeader::new()
        .config(b"qemu-server.conf\0", b"name: hostile\n")
        .device(1, b"drive-scsi0\0", SIZE)
}

/// What the reader says of an archive, `refused` or not.
fn said(archive: &[u8]) -> String {
    match read(archive) {
        Ok(_) => "nothing".into(),
        Err(error) => error.to_string(),
    }
}

fn all_refused(cases: Vec<(Vec<u8>, &str)>) {
    let mut messages = BTreeSet::new();
    for (archive, expected) in cases {
        let said = said(&archive);
        assert!(said.contains(expected), "{said:?} and not {expected:?}");
        assert!(messages.insert(said.clone()), "twice: {said}");
    }
}

/// A header, and extents that would go with it.
fn with_extents(header: Vec<u8>) -> Vec<u8> {
    let entries = [entry(1, 0, 0), entry(1, 1, 0), entry(1, 2, 0)];
    [header, extent(&entries, &[])].concat()
}

#[test]
fn headers() {
    let set = |at: usize, number: u32| {
        with_extents(header().damaged(|bytes| {
            bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
        }))
    };
    assert_eq!(said(&with_extents(header().bytes())), "nothing");
    let of = |header: RawHeader| with_extents(header.bytes());
    let name = |name: &[u8]| {
        let mut header = header();
        let at = header.blob(name);
        header.set32(2044, at);
        of(header)
    };
    let data = header().blobs.len() as u32;
    let long = [b'n'; 257].map(|b| b);
    all_refused(vec![
        (set(0, 0x28b5_2ffd), "begins with the bytes 28b52ffd"),
        (set(4, 2), "version 2"),
        (set(4, 0), "version 0"),
        (set(56, u32::MAX), "size is given as 4294967295"),
        (set(56, 0), "size is given as 0 bytes"),
        (set(56, 12288), "size is given as 12288"),
        (set(56, 12801), "size is given as 12801"),
        (set(56, 512 * 1024 + 512), "size is given as 524800"),
        (set(56, 512 * 1024), "within the header"),
        (set(56, 13312), "MD5"),
        (set(48, 12287), "blob buffer (offset 12287, "),
        (set(48, 0), "blob buffer (offset 0, "),
        (set(48, u32::MAX), "blob buffer (offset 4294967295, "),
        (set(52, 513), "blob buffer (offset 12288, 513 bytes)"),
        (set(52, u32::MAX), "4294967295 bytes) is not inside"),
        (set(52, 0), "configuration 0 lies outside"),
        (
            set(3068, u32::MAX),
            "configuration 0 lies outside of the blob buffer (offset 4294967295)",
        ),
        (set(3068, data), "outside of the blob buffer (offset 50)"),
        (
            set(3068, data - 1),
            "outside of the blob buffer (offset 49)",
        ),
        (
            set(2044, data - 3),
            "configuration 0 lies outside of the blob buffer (offset 47)",
        ),
        (set(3068, 0), "configuration 0 has a name and no content"),
        (set(2044, 0), "configuration 0 has content and no name"),
        (set(4096 + 32, data), "device 1 lies outside"),
        (set(4096 + 32, 0), "device 1 has a size and no name"),
        (
            of(header().device(0, b"zero\0", 1)),
            "0 cannot be the number of a device",
        ),
        (
            of(header().device(255, b"last\0", 1)),
            "255 cannot be the number of a device",
        ),
        (
            of(header().device(2, b"vmstate\0", 1)),
            "memory of a running machine",
        ),
        (
            of(header().device(2, b"drive-scsi0\0", 1)),
            "device 2 has a name that is not usable",
        ),
        (
            of(header().config(b"qemu-server.conf\0", b"")),
            "another one has it",
        ),
        (
            of(header().device(2, b"large\0", u64::MAX)),
            "\"large\" has 18446744073709551615 bytes",
        ),
        (
            of(header().device(2, b"large\0", (1 << 48) - SIZE + 1)),
            "may have 2^48",
        ),
        (name(b"no-end"), "does not end with a NUL"),
        (name(b""), "(\"\"): it does not end with a NUL"),
        (name(b"\0"), "(\"\"): it must have 1 to 255 bytes"),
        (
            name(&[&long[..256], b"\0"].concat()),
            "it must have 1 to 255 bytes",
        ),
        (
            name(b"../../etc/passwd\0"),
            "(\"../../etc/passwd\"): it leads to another folder",
        ),
        (name(b"..\0"), "(\"..\"): it leads to another folder"),
        (name(b"two\0names\0"), "it has control characters"),
        (name(b"\x1b[2J\0"), "it has control characters"),
        (name(b"\xff\0"), "it is no text"),
        (b"".to_vec(), "ends at byte 0, within the header"),
        (b"VM".to_vec(), "ends at byte 2, within the header"),
        (b"VX".to_vec(), "begins with the bytes 56580000"),
    ]);
}

/// Of what is not used by version 1, only what could hide something is refused.
#[test]
fn what_is_reserved_in_a_header_is_not_looked_at() {
    let mut odd = header();
    odd.fixed[60..2044].fill(0xaa);
    odd.fixed[4092..4096].fill(0xaa);
    odd.fixed[4096 + 32 + 4..4096 + 32 + 8].fill(0xaa);
    odd.fixed[4096 + 32 + 16..4096 + 32 + 32].fill(0xaa);
    // A device needs a size.
    let at = odd.blob(b"drive-scsi1\0");
    odd.set32(4096 + 64, at);
    let read_odd = read(&with_extents(odd.bytes())[..]).unwrap();
    let read_plain = read(&with_extents(header().bytes())[..]).unwrap();
    assert_eq!(read_odd.header, read_plain.header);
}

#[test]
fn extents() {
    let blocks = noise(16 * 4096, 9);
    let start = header().bytes();
    let with = |extents: &[Vec<u8>]| [&start[..], &extents.concat()].concat();
    let all = [entry(1, 0, 1), entry(1, 1, 0), entry(1, 2, 0)];
    let one = |entries: &[u64], stored: usize| with(&[extent(entries, &blocks[..stored * 4096])]);
    let damaged = |at: usize, bytes: &[u8]| {
        with(&[damaged_extent(&all, &blocks[..4096], |extent| {
            extent[at..at + bytes.len()].copy_from_slice(bytes);
        })])
    };
    let mut flipped = one(&all, 1);
    flipped[start.len() + 100] ^= 1;
    assert_eq!(said(&one(&all, 1)), "nothing");
    all_refused(vec![
        (flipped, "byte 12800 of the archive is damaged: its MD5 sum"),
        (damaged(0, b"VMAF"), "does not begin with \"VMAE\""),
        (damaged(8, b"x"), "belongs to another archive"),
        (damaged(5, &[1]), "reserved bytes"),
        (
            damaged(6, &[0, 0]),
            "announces 0 blocks, and its clusters have 1",
        ),
        (
            damaged(6, &[0, 2]),
            "announces 2 blocks, and its clusters have 1",
        ),
        (damaged(6, &[0xff, 0xff]), "announces 65535 blocks"),
        (
            one(&[entry(0, 0, 1), all[0]], 2),
            "entry 0 stores blocks of no device",
        ),
        (
            one(&[all[0], entry(2, 0, 0)], 1),
            "entry 1 is a cluster of device 2",
        ),
        (
            one(&[all[0], entry(255, 0, 0)], 1),
            "entry 1 is a cluster of device 255",
        ),
        (
            one(&[entry(1, 3, 0)], 0),
            "entry 0 is cluster 3 of \"drive-scsi0\", which has 3 clusters only",
        ),
        (one(&[entry(1, u32::MAX, 0)], 0), "is cluster 4294967295 of"),
        (
            one(&[all[0], all[0]], 2),
            "entry 1 is cluster 0 of \"drive-scsi0\" (byte 0 of the device) for the second",
        ),
        (
            one(&[all[0], entry(1, 2, 0), entry(1, 2, 0)], 1),
            "(byte 131072 of the device)",
        ),
        // In another extent: it is named.
        (
            with(&[extent(&all, &blocks[..4096]), extent(&all[1..2], &[])]),
            "byte 17408 of the archive is damaged: entry 0",
        ),
        (
            one(&all[..1], 1),
            "2 of the 3 clusters of \"drive-scsi0\" are missing, the first at byte 65536",
        ),
        (
            one(&all[1..], 0),
            "1 of the 3 clusters of \"drive-scsi0\" are missing, the first at byte 0 ",
        ),
        (one(&[], 0), "3 of the 3 clusters"),
        (start.clone(), "ends at byte 12800, before the first extent"),
    ]);
    let reserved = said(&damaged(42, &[1]));
    assert!(reserved.contains("reserved bytes"), "{reserved}");
}

/// An entry that is not in use does not end the table.
#[test]
fn entries_may_be_unused_between_others() {
    let blocks = noise(4 * 4096, 5);
    let mut table = [0; 59];
    table[3] = entry(1, 2, 0b1);
    // What is left of an old number says nothing.
    table[4] = entry(0, 77, 0);
    table[30] = entry(1, 0, 0b1000_0000_0000_0001);
    table[58] = entry(1, 1, 0b10);
    let archive = [header().bytes(), extent(&table, &blocks)].concat();
    let read = read(&archive[..]).unwrap();
    let image = &read.images["drive-scsi0"];
    let mut expected = vec![0; SIZE as usize];
    for (n, at) in [2 * CLUSTER, 0, 15 * 4096, CLUSTER + 4096]
        .iter()
        .enumerate()
    {
        expected[*at..at + 4096].copy_from_slice(&blocks[n * 4096..][..4096]);
    }
    assert!(*image == expected);
    assert_eq!(read.order, [(1, 131_072), (1, 0), (1, 65536)]);
}

/// QEMU hands over whole clusters: what is behind the end is nobody's.
#[test]
fn blocks_behind_the_end_are_left_out() {
    // 10,000 bytes short of three clusters: the last one has 14 blocks, the last of them a partial one.
    let blocks = noise(16 * 4096, 5);
    let entries = [entry(1, 2, 0xffff), entry(1, 0, 0), entry(1, 1, 0)];
    let archive = [header().bytes(), extent(&entries, &blocks)].concat();
    let read = read(&archive[..]).unwrap();
    let image = &read.images["drive-scsi0"];
    assert_eq!(image.len() as u64, SIZE);
    assert!(image[..2 * CLUSTER].iter().all(|b| *b == 0));
    assert!(image[2 * CLUSTER..] == blocks[..CLUSTER - 10_000]);
    assert_eq!((read.totals.blocks, read.totals.blocks_behind_end), (16, 2));
    // They are not written again.
    let again = common::read(&write(&read)[..]).unwrap();
    assert_eq!(
        (again.totals.blocks, again.totals.blocks_behind_end),
        (14, 0)
    );
    assert!(again.images == read.images);
}

/// A few bytes cannot make the reader take much memory or time, whatever they announce.
#[test]
fn sizes_are_not_believed() {
    let mut large = RawHeader::new();
    for id in 1..=254 {
        large = large.device(id, format!("drive-{id}\0").as_bytes(), 1 << 40);
    }
    let clusters: Vec<u64> = (0..59)
        .map(|n| entry(n as u8 + 1, 0xff_ffff - n, 0))
        .collect();
    let archive = [large.bytes(), extent(&clusters, &[])].concat();
    let before = memory();
    let mut reader = vma::Reader::new(&archive[..]).unwrap();
    for _ in 0..59 {
        assert!(reader.next_cluster().unwrap().unwrap().is_zeros());
    }
    let error = reader.next_cluster().unwrap_err().to_string();
    assert!(
        error.contains("16777215 of the 16777216 clusters of \"drive-1\""),
        "{error}"
    );
    assert!(memory() < before + (64 << 20));
}

/// The peak of this process.
fn memory() -> u64 {
    let mut status = String::new();
    let mut file = std::fs::File::open("/proc/self/status").unwrap();
    file.read_to_string(&mut status).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}
