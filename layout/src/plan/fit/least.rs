//! What a thing needs at least.
//!
//! Filesystems are made anew and files restored, so every type can become smaller than it was. It must hold what was in
//! use and a tenth more (plus 32 MiB: a host that comes back full is not much of a host), and its own metadata. Where the
//! use is not known (it was not mounted when the backup was made) it keeps its size.

use crate::model::{Btrfs, Ext4, Node, ThinPool, Vfat, Xfs, ZfsMember};
use crate::units::Bytes;

/// Added to what is in use, apart from the tenth.
const MARGIN: u64 = 32 << 20;

/// mkfs.xfs refuses to make anything smaller (xfsprogs 5.19, "Filesystem must be larger than 300MB").
const XFS_LEAST: Bytes = Bytes::mib(300);

/// Parts of a million.
const MILLION: u128 = 1_000_000;

/// What the metadata of ext4 and XFS takes apart from inodes and journal, in parts of a million: bitmaps, group
/// descriptors and their copies, room for more of them; B-trees and what XFS keeps back per allocation group.
const METADATA: u128 = 20_000;

/// Bytes in use and the margin.
fn with_margin(used: Bytes) -> u128 {
    let used = u128::from(used.0);
    used + used.div_ceil(10) + u128::from(MARGIN)
}

/// The size of which `bytes` are left when `parts` of a million are taken off. `None` when next to nothing would be left.
fn gross(bytes: u128, parts: u128) -> Option<u128> {
    let left = MILLION.checked_sub(parts).filter(|l| *l >= MILLION / 10)?;
    Some((bytes * MILLION).div_ceil(left))
}

fn parts_of(part: u128, whole: Bytes) -> u128 {
    (part * MILLION).div_ceil(u128::from(whole.0.max(1)))
}

/// Rounded up to whole MiB; `None` when that is not smaller than `saved`.
fn smaller(bytes: u128, saved: Bytes) -> Option<Bytes> {
    let bytes = u64::try_from(bytes).ok()?;
    let size = Bytes(bytes).round_up(Bytes::MIB);
    (size < saved).then_some(size)
}

/// The least size of a filesystem; `None`: it does not shrink.
pub(super) fn filesystem(node: &Node) -> Option<Bytes> {
    match node {
        Node::Ext4(fs) => ext4(fs),
        Node::Xfs(fs) => xfs(fs),
        Node::Vfat(fs) => vfat(fs),
        Node::Btrfs(fs) => btrfs(fs),
        _ => None,
    }
}

/// The unit that the size of a shrunk filesystem is a multiple of.
pub(super) fn granule(node: &Node) -> Bytes {
    match node {
        Node::Ext4(fs) => fs.block_size,
        Node::Xfs(fs) => fs.block_size,
        // Whole MiB have a geometry that mkfs.vfat does not round.
        Node::Vfat(_) => Bytes::MIB,
        _ => Bytes(1),
    }
}

/// Inodes that are needed whatever the size: those in use, a quarter more and some. Where the use is not known, all.
fn inodes_least(fs: &Ext4) -> u64 {
    fs.inodes_used.map_or(fs.inodes, |used| {
        used.saturating_add(used / 4)
            .saturating_add(1024)
            .min(fs.inodes)
    })
}

/// How many inodes a filesystem gets that is made with `size`: in proportion, and never fewer than the files need.
pub(in crate::plan) fn ext4_inodes(fs: &Ext4, size: Bytes) -> u64 {
    let share = u128::from(fs.inodes) * u128::from(size.0) / u128::from(fs.size.0.max(1));
    let share = u64::try_from(share).unwrap_or(u64::MAX);
    share.max(inodes_least(fs)).min(fs.inodes)
}

/// The journal that mke2fs makes: `ext2fs_default_journal_size` of e2fsprogs 1.47, by number of blocks.
fn journal(fs: &Ext4) -> u128 {
    if !fs.features.iter().any(|f| f == "has_journal") {
        return 0;
    }
    let blocks = match fs.size.0 / fs.block_size.0.max(1) {
        0..32_768 => 1024,
        32_768..262_144 => 4096,
        262_144..524_288 => 8192,
        524_288..4_194_304 => 16_384,
        4_194_304..8_388_608 => 32_768,
        8_388_608..16_777_216 => 65_536,
        16_777_216..33_554_432 => 131_072,
        _ => 262_144,
    };
    blocks * u128::from(fs.block_size.0)
}

fn ext4(fs: &Ext4) -> Option<Bytes> {
    if fs.block_size == Bytes(0) {
        return None;
    }
    let inode = u128::from(fs.inode_size.0);
    let fixed = u128::from(inodes_least(fs));
    let reserved = parts_of(
        u128::from(fs.reserved_blocks) * u128::from(fs.block_size.0),
        fs.size,
    );
    let per_size = parts_of(u128::from(fs.inodes) * inode, fs.size);
    let data = with_margin(fs.used?) + journal(fs);
    // Inodes in proportion, inodes as needed, and a group has no more inodes than blocks: the strictest counts.
    let least = gross(data, METADATA + reserved + per_size)?
        .max(gross(data + fixed * inode, METADATA + reserved)?)
        .max(fixed * u128::from(fs.block_size.0));
    smaller(least, fs.size)
}

fn xfs(fs: &Xfs) -> Option<Bytes> {
    // The log: 64 MiB at least (xfsprogs 5.19 and later), beyond 128 GiB the 2048th part.
    let log = u128::from(Bytes::mib(64).0.max(fs.size.0 / 2048));
    let least = gross(with_margin(fs.used?) + log, METADATA)?;
    smaller(least.max(u128::from(XFS_LEAST.0)), fs.size)
}

/// What btrfs keeps back at most for its metadata (linux: fs/btrfs/block-rsv.c, `btrfs_update_global_block_rsv`).
const BTRFS_RESERVE: u64 = 512 << 20;

/// On one device. What is in use counts data only once it is allocated in chunks of up to a tenth of the filesystem, of data
/// and of metadata: two of each stay free.
fn btrfs(fs: &Btrfs) -> Option<Bytes> {
    if fs.on.len() != 1 {
        return None;
    }
    let used = with_margin(fs.used?);
    // Metadata is there twice (DUP), and takes up to a tenth of the data.
    let data = used + used.div_ceil(5) + u128::from(BTRFS_RESERVE);
    smaller(gross(data, 200_000)?, fs.size)
}

fn vfat(fs: &Vfat) -> Option<Bytes> {
    // By the number of clusters a driver tells the types apart (Microsoft's FAT specification 1.03): the type stays only
    // when there are enough of them. A few more, because mkfs.vfat aligns the data area.
    let clusters: u128 = match fs.fat_bits {
        32 => 65_525 + 512,
        16 => 4085 + 64,
        _ => 64,
    };
    if fs.cluster_size == Bytes(0) {
        return None;
    }
    let cluster = u128::from(fs.cluster_size.0);
    let clusters = clusters.max(with_margin(fs.used?).div_ceil(cluster));
    // Two copies of the table; reserved sectors and root directory.
    let tables = (clusters + 2) * u128::from(fs.fat_bits).div_ceil(8) * 2;
    smaller(clusters * cluster + tables + (64 << 10), fs.size)
}

/// The least size of what carries a swap area of `size`: a quarter, and 64 MiB. It is a safety net, and what it held is
/// gone in any case.
pub(super) fn swap(size: Bytes) -> Bytes {
    Bytes(size.0 / 4)
        .max(Bytes::mib(64))
        .round_up(Bytes::MIB)
        .min(size)
}

/// The least size of a device in a ZFS pool: its share of what is in use, and what the pool keeps for itself.
///
/// OpenZFS keeps back the 32nd part of a pool, 128 MiB at least (zfs(4), `spa_slop_shift`), has labels of 4.5 MiB, and rounds
/// down to whole metaslabs.
pub(super) fn zfs_member(member: &ZfsMember, size: Bytes) -> Bytes {
    let Some(used) = member.used else {
        return size;
    };
    let kept = u128::from(Bytes::mib(192).0);
    let least = gross(with_margin(used), MILLION / 16).map(|bytes| bytes + kept);
    least.and_then(|bytes| smaller(bytes, size)).unwrap_or(size)
}

/// The least size of a thin pool: what its guests had in use, which comes back from their dumps, and a tenth more.
pub(super) fn pool(pool: &ThinPool) -> Bytes {
    let Some(used) = pool.used else {
        return pool.size;
    };
    let least = u64::try_from(with_margin(used)).unwrap_or(u64::MAX);
    Bytes(least).max(pool.chunk_size).min(pool.size)
}
