//! An independent maker of archives: it puts bytes where the table of the format says, and knows nothing of the crate's
//! writer. What it makes can be damaged field by field.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use sha2::Sha256;
use vma::{Content, Header, Reader, Totals};

pub const UUID: [u8; 16] = *b"0123456789abcdef";
pub const CLUSTER: usize = 65536;

/// Bytes without a pattern; never a block of zeroes.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(size);
    out
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A header, as bytes that can be changed before [`RawHeader::bytes`] sums them up.
pub struct RawHeader {
    pub fixed: Vec<u8>,
    pub blobs: Vec<u8>,
    configs: usize,
}

impl RawHeader {
    pub fn new() -> RawHeader {
        let mut fixed = vec![0; 12288];
        fixed[..4].copy_from_slice(b"VMA\0");
        fixed[7] = 1;
        fixed[8..24].copy_from_slice(&UUID);
        fixed[24..32].copy_from_slice(&1_700_000_000u64.to_be_bytes());
        RawHeader {
            fixed,
            blobs: vec![0],
            configs: 0,
        }
    }

    pub fn set32(&mut self, at: usize, number: u32) {
        self.fixed[at..at + 4].copy_from_slice(&number.to_be_bytes());
    }

    pub fn blob(&mut self, bytes: &[u8]) -> u32 {
        let at = self.blobs.len();
        let length = bytes.len();
        self.blobs
            .extend_from_slice(&[length as u8, (length >> 8) as u8]);
        self.blobs.extend_from_slice(bytes);
        at as u32
    }

    pub fn config(mut self, name: &[u8], data: &[u8]) -> RawHeader {
        let (name, data) = (self.blob(name), self.blob(data));
        self.set32(2044 + 4 * self.configs, name);
        self.set32(3068 + 4 * self.configs, data);
        self.configs += 1;
        self
    }

    pub fn device(mut self, id: usize, name: &[u8], size: u64) -> RawHeader {
        let name = self.blob(name);
        self.set32(4096 + 32 * id, name);
        self.fixed[4096 + 32 * id + 8..][..8].copy_from_slice(&size.to_be_bytes());
        self
    }

    /// Its bytes, with the places and sizes that it should have, then changed by `damage`, then summed up.
    pub fn damaged(&self, damage: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = [&self.fixed[..], &self.blobs].concat();
        bytes.resize(bytes.len().div_ceil(512) * 512, 0);
        let size = bytes.len() as u32;
        bytes[48..52].copy_from_slice(&12288u32.to_be_bytes());
        bytes[52..56].copy_from_slice(&(self.blobs.len() as u32).to_be_bytes());
        bytes[56..60].copy_from_slice(&size.to_be_bytes());
        damage(&mut bytes);
        let sum = Md5::digest(&bytes);
        bytes[32..48].copy_from_slice(&sum);
        bytes
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.damaged(|_| {})
    }
}

/// An entry of an extent: device, cluster, mask.
pub fn entry(device: u8, cluster: u32, mask: u16) -> u64 {
    u64::from(mask) << 48 | u64::from(device) << 32 | u64::from(cluster)
}

/// An extent, its header changed by `damage` before it is summed up.
pub fn damaged_extent(entries: &[u64], blocks: &[u8], damage: impl FnOnce(&mut [u8])) -> Vec<u8> {
    assert!(entries.len() <= 59 && blocks.len() % 4096 == 0);
    let mut bytes = vec![0; 512];
    bytes[..4].copy_from_slice(b"VMAE");
    bytes[6..8].copy_from_slice(&((blocks.len() / 4096) as u16).to_be_bytes());
    bytes[8..24].copy_from_slice(&UUID);
    for (n, entry) in entries.iter().enumerate() {
        bytes[40 + 8 * n..48 + 8 * n].copy_from_slice(&entry.to_be_bytes());
    }
    damage(&mut bytes);
    let sum = Md5::digest(&bytes);
    bytes[24..40].copy_from_slice(&sum);
    bytes.extend_from_slice(blocks);
    bytes
}

pub fn extent(entries: &[u64], blocks: &[u8]) -> Vec<u8> {
    damaged_extent(entries, blocks, |_| {})
}

/// An archive of these images, its clusters in this order (device's position, cluster), so many per extent.
pub fn archive(
    header: &RawHeader,
    images: &[(u8, &[u8])],
    order: &[(usize, u32)],
    per: usize,
) -> Vec<u8> {
    let mut bytes = header.bytes();
    for group in order.chunks(per) {
        let (mut entries, mut blocks) = (Vec::new(), Vec::new());
        for (position, cluster) in group {
            let (id, image) = images[*position];
            let rest = &image[*cluster as usize * CLUSTER..];
            let mut mask = 0;
            for (n, block) in rest[..rest.len().min(CLUSTER)].chunks(4096).enumerate() {
                if block.iter().any(|b| *b != 0) {
                    mask |= 1 << n;
                    blocks.extend_from_slice(block);
                    blocks.resize(blocks.len().div_ceil(4096) * 4096, 0);
                }
            }
            entries.push(entry(id, *cluster, mask));
        }
        bytes.extend(extent(&entries, &blocks));
    }
    if order.is_empty() {
        bytes.extend(extent(&[], &[]));
    }
    bytes
}

/// All that is in an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    pub header: Header,
    pub images: BTreeMap<String, Vec<u8>>,
    /// Device and offset of each cluster, in the order of the archive.
    pub order: Vec<(u8, u64)>,
    pub totals: Totals,
}

/// Reads an archive by its pieces, and compares them with the clusters.
pub fn read(archive: impl std::io::Read) -> vma::Result<Read> {
    let mut reader = Reader::new(archive)?;
    let header = reader.header().clone();
    let size = |d: &vma::Device| (d.name.clone(), vec![0xee; d.size as usize]);
    let mut images: BTreeMap<_, _> = header.devices.iter().map(size).collect();
    let mut order = Vec::new();
    while let Some(cluster) = reader.next_cluster()? {
        order.push((cluster.device.id, cluster.offset));
        let image = images.get_mut(&cluster.device.name).unwrap();
        let mut next = cluster.offset as usize;
        let mut has_data = false;
        for piece in cluster.pieces() {
            assert_eq!((piece.device, piece.offset), (cluster.device, next as u64));
            match piece.content {
                Content::Data(data) => {
                    image[next..next + data.len()].copy_from_slice(data);
                    next += data.len();
                    has_data = true;
                }
                Content::Zeros(length) => {
                    image[next..next + length].fill(0);
                    next += length;
                }
            }
        }
        assert_eq!(has_data, !cluster.is_zeros());
        let start = cluster.offset as usize;
        assert!(
            &image[start..next] == cluster.bytes,
            "pieces are not the cluster"
        );
        assert_eq!(next, image.len().min(start + CLUSTER));
    }
    // It stays at the end.
    assert!(reader.next_cluster()?.is_none());
    Ok(Read {
        header,
        images,
        order,
        totals: reader.finish()?,
    })
}

/// Writes what was read again, its clusters in the same order.
pub fn write(read: &Read) -> Vec<u8> {
    let mut writer = vma::Writer::new(Vec::new(), &read.header).unwrap();
    for (id, offset) in &read.order {
        let image = &read.images[&read.header.device(*id).unwrap().name];
        let rest = &image[*offset as usize..];
        let cluster = &rest[..rest.len().min(CLUSTER)];
        writer.data(*id, *offset, cluster).unwrap();
    }
    let (bytes, totals) = writer.finish().unwrap();
    assert_eq!(totals.bytes, bytes.len() as u64);
    bytes
}
