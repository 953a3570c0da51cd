//! Every damage of a small archive is found, but that of the blocks, which have no sum in this format.
#![allow(clippy::unwrap_used, reason = "a failing test is to panic")]

mod common;

use std::collections::BTreeMap;

use common::*;
use vma::Error;

/// Two extents with blocks, and one without: a first device that ends within its second block, and a second one with
/// blocks left out.
struct Small {
    bytes: Vec<u8>,
    /// For every stored byte that is one of a device: where it is stored, then the device and its place there.
    stored: BTreeMap<usize, (&'static str, usize)>,
    /// Where the headers are.
    headers: Vec<std::ops::Range<usize>>,
}

fn small() -> Small {
    let (first, mut second) = (noise(5000, 1), vec![0; 70_000]);
    second[..4096].copy_from_slice(&noise(4096, 2));
    second[5 * 4096..6 * 4096].copy_from_slice(&noise(4096, 3));
    second[65536..].copy_from_slice(&noise(4464, 4));
    let header = RawHeader::new()
        .config(b"qemu-server.conf\0", b"name: small\n")
        .device(1, b"drive-efidisk0\0", 5000)
        .device(7, b"drive-scsi0\0", 70_000);
    let images: [(u8, &[u8]); 2] = [(1, &first), (7, &second)];
    let mut bytes = archive(&header, &images, &[(1, 1), (0, 0), (1, 0)], 2);
    bytes.extend(extent(&[], &[]));
    let (a, b) = (12800, 12800 + 512 + 4 * 4096);
    let c = b + 512 + 2 * 4096;
    assert_eq!(bytes.len(), c + 512);
    let headers = vec![0..12800, a..a + 512, b..b + 512, c..c + 512];
    let mut stored = BTreeMap::new();
    for (at, device, place, length) in [
        (a + 512, "drive-scsi0", 65536, 4464),
        (a + 512 + 8192, "drive-efidisk0", 0, 5000),
        (b + 512, "drive-scsi0", 0, 4096),
        (b + 512 + 4096, "drive-scsi0", 5 * 4096, 4096),
    ] {
        stored.extend((0..length).map(|n| (at + n, (device, place + n))));
    }
    Small {
        bytes,
        stored,
        headers,
    }
}

/// What is not in the headers is the content of the blocks, and what follows the end of a device in its last block.
/// Nothing in the format covers them: a byte changed there is that byte of the device, and no other, or nothing at all.
#[test]
fn every_changed_byte_is_found_or_is_one_byte_of_a_device() {
    let small = small();
    let good = read(&small.bytes[..]).unwrap();
    let (mut found, mut changed, mut harmless) = (0, 0, 0);
    for at in 0..small.bytes.len() {
        // One bit of the large header, and elsewhere the whole byte, too.
        let flips = [1 << (at % 8), 0xff];
        for flip in &flips[..if at < 12800 { 1 } else { 2 }] {
            let mut bytes = small.bytes.clone();
            bytes[at] ^= flip;
            let read = read(&bytes[..]);
            if small.headers.iter().any(|header| header.contains(&at)) {
                let error = read.expect_err("a changed header is found").to_string();
                assert!(
                    error.contains("MD5")
                        || error.contains("begins")
                        || error.contains("begin with")
                        || error.contains("version")
                        || error.contains("size is given")
                        || error.contains("cut off"),
                    "{at}: {error}"
                );
                found += 1;
                continue;
            }
            let mut read = read.expect("nothing covers it");
            match small.stored.get(&at) {
                Some((device, place)) => {
                    read.images.get_mut(*device).unwrap()[*place] ^= flip;
                    changed += 1;
                }
                None => harmless += 1,
            }
            assert!(read == good, "{at}");
        }
    }
    assert_eq!(found, 12800 + 2 * 3 * 512);
    assert_eq!(changed, 2 * (5000 + 4464 + 2 * 4096));
    assert_eq!(harmless, 2 * (4 * 4096 - 5000 - 4464));
}

#[test]
fn every_truncation_is_found() {
    let small = small();
    let full = small.bytes.len();
    // The last extent has no clusters: the archive is complete without it.
    let complete = small.headers[3].start;
    let (mut cut_off, mut missing) = ([0; 4], 0);
    for length in 0..complete {
        match read(&small.bytes[..length]).unwrap_err() {
            Error::CutOff { offset, within } => {
                assert_eq!(offset, length as u64);
                cut_off[within as usize] += 1;
            }
            Error::Missing { .. } => missing += 1,
            error => panic!("{length}: {error}"),
        }
    }
    assert_eq!((cut_off, missing), ([12800, 1, 2 * 511, 6 * 4096], 1));
    assert!(read(&small.bytes[..complete]).is_ok());
    for length in complete + 1..full {
        let error = read(&small.bytes[..length]).unwrap_err();
        assert!(matches!(error, Error::CutOff { .. }), "{length}: {error}");
    }
}

#[test]
fn whatever_follows_is_found() {
    let small = small();
    for (more, expected) in [
        (vec![0], "within the header of an extent"),
        (b"VMAE".to_vec(), "within the header of an extent"),
        (vec![0; 512], "does not begin with \"VMAE\""),
        (small.bytes.clone(), "does not begin with \"VMAE\""),
        (small.bytes[12800..].to_vec(), "for the second time"),
    ] {
        let bytes = [&small.bytes[..], &more].concat();
        let error = read(&bytes[..]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let empty = extent(&[], &[]);
    let good = read(&small.bytes[..]).unwrap();
    let longer = read(&[&small.bytes[..], &empty, &empty].concat()[..]).unwrap();
    assert_eq!((&longer.images, &longer.order), (&good.images, &good.order));
}

#[test]
fn a_pipe_that_fails_is_no_end() {
    struct Fails<'a>(&'a [u8]);
    impl std::io::Read for Fails<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Err(std::io::Error::other("the pipe broke"));
            }
            self.0.read(buffer)
        }
    }
    let small = small();
    for length in [0, 100, 12800, 12801, 13312, 20_000, small.bytes.len()] {
        let error = read(Fails(&small.bytes[..length])).unwrap_err();
        assert!(matches!(&error, Error::Read { .. }), "{error}");
        let text = format!("cannot read the archive at byte {length}: the pipe broke");
        assert_eq!(error.to_string(), text);
    }
}

/// A pipe hands over what it has, and is interrupted by signals.
#[test]
fn it_does_not_matter_how_the_pipe_hands_it_over() {
    struct Slow<'a>(&'a [u8], usize, bool);
    impl std::io::Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.2 = !self.2;
            if self.2 {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            let n = self.1.min(buffer.len());
            self.0.read(&mut buffer[..n])
        }
    }
    let small = small();
    let good = read(&small.bytes[..]).unwrap();
    for step in [1, 511, 4096, 65536] {
        assert!(read(Slow(&small.bytes, step, false)).unwrap() == good);
    }
}

#[test]
fn nothing_is_proven_before_the_end() {
    let small = small();
    let mut reader = vma::Reader::new(&small.bytes[..]).unwrap();
    for _ in 0..3 {
        assert!(reader.next_cluster().unwrap().is_some());
    }
    let error = reader.finish().unwrap_err();
    assert!(matches!(error, Error::NotAtEnd(_)), "{error}");
    let mut reader = vma::Reader::new(&small.bytes[..20_000]).unwrap();
    while let Ok(cluster) = reader.next_cluster() {
        assert!(cluster.is_some());
    }
    assert!(matches!(
        reader.next_cluster(),
        Err(Error::Unusable(20_000))
    ));
    assert!(matches!(reader.finish(), Err(Error::Unusable(20_000))));
}
