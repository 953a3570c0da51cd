//! Whole archives. The first byte of an input is not of the archive: if it is odd, all sums are made right before the
//! archive is read, as otherwise nothing would get past them.

use std::collections::BTreeMap;
use std::io;

use md5::{Digest, Md5};
use uuid::Uuid;

use crate::*;

/// Larger images are read, and not kept.
const KEPT: u64 = 4 << 20;

/// What was read of an archive.
struct Content {
    header: Header,
    /// What is in each cluster of each device.
    clusters: BTreeMap<(u8, u64), Vec<u8>>,
    order: Vec<(u8, u64)>,
    totals: Totals,
}

pub fn read(data: &[u8]) {
    let Some((flag, archive)) = data.split_first() else {
        return;
    };
    let mut archive = archive.to_vec();
    if flag & 1 != 0 {
        repair_sums(&mut archive);
    }
    let first = content(&archive[..]);
    // However the pipe hands it over.
    let slowly = content(Trickle {
        rest: &archive,
        step: 97 + 30 * usize::from(flag >> 1),
        interrupted: false,
    });
    match (&first, &slowly) {
        (Ok(a), Ok(b)) => {
            assert_eq!((&a.header, &a.clusters), (&b.header, &b.clusters));
            assert_eq!((&a.order, a.totals), (&b.order, b.totals));
        }
        (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
        _ => panic!("it depends on how the pipe hands it over"),
    }
    let Ok(first) = first else {
        return;
    };
    assert_eq!(first.totals.bytes, archive.len() as u64);
    assert_eq!(first.totals.clusters, first.order.len() as u64);
    let clusters = first.header.devices.iter();
    let clusters: u64 = clusters.map(|d| d.size.div_ceil(CLUSTER as u64)).sum();
    assert_eq!(first.order.len() as u64, clusters);
    if first.header.devices.iter().any(|d| d.size > KEPT) {
        return;
    }
    assert_eq!(first.clusters.len() as u64, clusters);
    let mut writer = Writer::new(Vec::new(), &first.header).unwrap();
    for (id, offset) in &first.order {
        writer
            .data(*id, *offset, &first.clusters[&(*id, *offset)])
            .unwrap();
    }
    let (written, totals) = writer.finish().unwrap();
    let second = content(&written[..]).unwrap();
    assert_eq!(second.totals, totals);
    assert!(totals.blocks <= first.totals.blocks && totals.blocks_behind_end == 0);
    assert_eq!(second.header, first.header);
    assert!(second.clusters == first.clusters && second.order == first.order);
}

fn content(archive: impl io::Read) -> Result<Content> {
    let mut reader = Reader::new(archive)?;
    let header = reader.header().clone();
    let (mut clusters, mut order) = (BTreeMap::new(), Vec::new());
    loop {
        let cluster = match reader.next_cluster() {
            Ok(Some(cluster)) => cluster,
            Ok(None) => break,
            Err(error) => {
                // It stays unusable.
                assert!(matches!(reader.next_cluster(), Err(Error::Unusable(_))));
                assert!(reader.finish().is_err());
                return Err(error);
            }
        };
        let length: usize = cluster
            .pieces()
            .map(|piece| match piece.content {
                crate::Content::Data(data) => data.len(),
                crate::Content::Zeros(length) => length,
            })
            .sum();
        assert_eq!(length, cluster.bytes.len());
        let end = cluster.offset + length as u64;
        assert!(length > 0 && end <= cluster.device.size);
        assert!(length == CLUSTER || end == cluster.device.size);
        let place = (cluster.device.id, cluster.offset);
        order.push(place);
        if cluster.device.size <= KEPT {
            let twice = clusters.insert(place, cluster.bytes.to_vec());
            assert!(twice.is_none(), "{place:?} came twice");
        }
    }
    Ok(Content {
        header,
        clusters,
        order,
        totals: reader.finish()?,
    })
}

/// Hands out some bytes at a time, with interruptions.
struct Trickle<'a> {
    rest: &'a [u8],
    step: usize,
    interrupted: bool,
}

impl io::Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = self.step.min(buffer.len()).min(self.rest.len());
        let (now, later) = self.rest.split_at(n);
        buffer[..n].copy_from_slice(now);
        self.rest = later;
        Ok(n)
    }
}

fn sum(bytes: &mut [u8], at: usize) {
    bytes[at..at + 16].fill(0);
    let sum = Md5::digest(&bytes);
    bytes[at..at + 16].copy_from_slice(&sum);
}

/// Makes the sums of the header and of all extents right, as far as they can be found.
pub fn repair_sums(archive: &mut [u8]) {
    let Some(size) = archive.get(56..60) else {
        return;
    };
    let size = u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize;
    if size < 64 || size > archive.len() {
        return;
    }
    let (header, mut rest) = archive.split_at_mut(size);
    sum(header, 32);
    while rest.len() >= 512 {
        sum(&mut rest[..512], 24);
        let blocks = usize::from(u16::from_be_bytes([rest[6], rest[7]]));
        let next = (512 + 4096 * blocks).min(rest.len());
        rest = &mut rest[next..];
    }
}

fn header(configs: &[(&str, &[u8])], devices: &[(u8, &str, u64)]) -> Header {
    let config = |(name, data): &(&str, &[u8])| Config {
        name: (*name).into(),
        data: data.to_vec(),
    };
    let device = |(id, name, size): &(u8, &str, u64)| Device {
        id: *id,
        name: (*name).into(),
        size: *size,
    };
    Header {
        uuid: Uuid::from_bytes(*b"seeds of archive"),
        ctime: 1_700_000_000,
        configs: configs.iter().map(config).collect(),
        devices: devices.iter().map(device).collect(),
    }
}

/// Archives of ours, with their sums to be repaired, and one as it is.
pub fn seeds() -> Vec<Vec<u8>> {
    let conf: (&str, &[u8]) = ("qemu-server.conf", b"memory: 512\nname: seed\n");
    let fw: (&str, &[u8]) = ("qemu-server.fw", b"[OPTIONS]\nenable: 1\n");
    let without = header(&[conf], &[]);
    let one = header(&[conf], &[(1, "drive-scsi0", 5000)]);
    let c = CLUSTER as u64;
    let devices = [
        (1, "drive-scsi0", 2 * c + 700),
        (3, "drive-efidisk0", c),
        (254, "d", 1),
    ];
    let several = header(&[conf, fw], &devices);
    let write = |header: &Header, parts: &[(u8, u64, &[u8])], zeros: &[(u8, u64, u64)]| {
        let mut writer = Writer::new(vec![1], header).unwrap();
        parts
            .iter()
            .for_each(|(id, at, data)| writer.data(*id, *at, data).unwrap());
        zeros
            .iter()
            .for_each(|(id, at, length)| writer.zeros(*id, *at, *length).unwrap());
        writer.finish().unwrap().0
    };
    let mut sparse = vec![0; CLUSTER];
    sparse[5 * BLOCK..6 * BLOCK].fill(7);
    sparse[CLUSTER - 1] = 1;
    let parts: [(u8, u64, &[u8]); 3] = [(254, 0, b"x"), (1, 2 * c, &[9; 700]), (1, 0, &sparse)];
    let mut seeds = vec![
        write(&without, &[], &[]),
        write(&one, &[(1, 0, &[3; 5000])], &[]),
        write(&several, &parts, &[(3, 0, c), (1, c, c)]),
    ];
    let mut as_it_is = seeds[1].clone();
    as_it_is[0] = 0;
    seeds.push(as_it_is);
    seeds
}
