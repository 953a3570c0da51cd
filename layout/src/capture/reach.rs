//! How far the contents of a partition say that they reach, read from their superblocks: where no tool is to be asked,
//! because the partition is not there any more.

use std::io::SeekFrom;

use crate::system::ReadSeek;
use crate::units::Bytes;

/// What a filesystem, volume or array that begins at `start` takes of its device; `None`: it does not say, or it is no kind
/// that is known here.
pub(crate) fn reach(device: &mut dyn ReadSeek, start: Bytes, fstype: &str) -> Option<Bytes> {
    let mut block = |at: u64| -> Option<[u8; 512]> {
        let mut bytes = [0u8; 512];
        device
            .seek(SeekFrom::Start(start.0.checked_add(at)?))
            .ok()?;
        device.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    let bytes = match fstype {
        "ext2" | "ext3" | "ext4" => ext(&block(1024)?),
        "xfs" => xfs(&block(0)?),
        // LVM looks for its label in the first four sectors (lvm2: lib/label/label.h).
        "LVM2_member" => (0..4).find_map(|n| physical_volume(&block(n * 512)?)),
        // The superblock at 64 KiB.
        "btrfs" => btrfs(&block(64 << 10)?),
        // Version 1.2; 1.1 is at the start, 1.0 at the end, where it is found only when nothing has moved.
        "linux_raid_member" => [4096, 0].iter().find_map(|at| member(&block(*at)?)),
        _ => None,
    };
    bytes.map(Bytes)
}

fn le(block: &[u8], at: usize, length: usize) -> u64 {
    let bytes = block[at..at + length].iter().rev();
    bytes.fold(0, |n, byte| n << 8 | u64::from(*byte))
}

/// Linux: fs/ext4/ext4.h, `struct ext4_super_block`.
fn ext(sb: &[u8; 512]) -> Option<u64> {
    const WITH_64_BITS: u64 = 0x80;
    if le(sb, 0x38, 2) != 0xef53 {
        return None;
    }
    let high = match le(sb, 0x60, 4) & WITH_64_BITS {
        0 => 0,
        _ => le(sb, 0x150, 4),
    };
    let block = 1024u64.checked_shl(le(sb, 0x18, 4).min(63) as u32)?;
    (high << 32 | le(sb, 0x4, 4)).checked_mul(block)
}

/// Linux: fs/xfs/libxfs/xfs_format.h, `struct xfs_dsb`; big-endian.
fn xfs(sb: &[u8; 512]) -> Option<u64> {
    let be = |at: usize, length: usize| {
        let bytes = sb[at..at + length].iter();
        bytes.fold(0u64, |n, byte| n << 8 | u64::from(*byte))
    };
    if &sb[..4] != b"XFSB" {
        return None;
    }
    be(8, 8).checked_mul(be(4, 4))
}

/// lvm2: lib/format_text/layout.h, `struct pv_header` behind the label header.
fn physical_volume(label: &[u8; 512]) -> Option<u64> {
    if &label[..8] != b"LABELONE" || &label[24..32] != b"LVM2 001" {
        return None;
    }
    let header = le(label, 20, 4) as usize;
    let size = label.get(header.checked_add(32)?..header.checked_add(40)?)?;
    Some(le(size, 0, 8))
}

/// btrfs on-disk format, "DEV_ITEM": what this device has of it.
fn btrfs(sb: &[u8; 512]) -> Option<u64> {
    (&sb[0x40..0x48] == b"_BHRfS_M").then(|| le(sb, 0xd1, 8))
}

/// Linux: drivers/md/md.c, `struct mdp_superblock_1`; in sectors of 512 bytes.
fn member(sb: &[u8; 512]) -> Option<u64> {
    if le(sb, 0, 4) != 0xa92b_4efc || le(sb, 4, 4) != 1 {
        return None;
    }
    le(sb, 128, 8).checked_add(le(sb, 136, 8))?.checked_mul(512)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn recorded(name: &str) -> Vec<u8> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/");
        std::fs::read(format!("{dir}{name}")).unwrap()
    }

    /// Bytes at a place of a partition that begins at 1 MiB.
    fn read(fstype: &str, at: usize, bytes: &[u8]) -> Option<Bytes> {
        let start = 1 << 20;
        let mut disk = vec![0u8; start + (128 << 10)];
        disk[start + at..start + at + bytes.len()].copy_from_slice(bytes);
        reach(&mut Cursor::new(disk), Bytes::MIB, fstype)
    }

    #[test]
    fn superblocks_of_real_filesystems_are_read() {
        let xfs = recorded("xfs-superblock.bin");
        let known: [u8; 512] = xfs[..512].try_into().unwrap();
        let (fs, _) = crate::capture::fs::parse_xfs(&known, "x".into()).unwrap();
        assert_eq!(read("xfs", 0, &known), Some(fs.size));
        let btrfs = recorded("btrfs-superblock.bin");
        let found = read("btrfs", 64 << 10, &btrfs).unwrap();
        assert!(found >= Bytes::mib(100) && found.0 % 4096 == 0, "{found}");
    }

    #[test]
    fn sizes_are_where_the_formats_have_them() {
        let mut ext = [0u8; 512];
        ext[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        ext[0x18] = 2;
        ext[0x4..0x8].copy_from_slice(&1000u32.to_le_bytes());
        assert_eq!(read("ext4", 1024, &ext), Some(Bytes(4_096_000)));
        ext[0x60] = 0x80;
        ext[0x150] = 1;
        assert_eq!(
            read("ext4", 1024, &ext),
            Some(Bytes((1000 + (1 << 32)) * 4096))
        );
        let mut label = [0u8; 512];
        label[..8].copy_from_slice(b"LABELONE");
        label[20] = 32;
        label[24..32].copy_from_slice(b"LVM2 001");
        label[64..72].copy_from_slice(&(5u64 << 30).to_le_bytes());
        assert_eq!(read("LVM2_member", 512, &label), Some(Bytes(5 << 30)));
        label[20] = 255;
        label[22] = 255;
        assert_eq!(read("LVM2_member", 512, &label), None);
        let mut md = [0u8; 512];
        md[..4].copy_from_slice(&0xa92b_4efcu32.to_le_bytes());
        md[4] = 1;
        md[128] = 8;
        md[136] = 16;
        assert_eq!(read("linux_raid_member", 4096, &md), Some(Bytes(24 * 512)));
    }

    #[test]
    fn what_cannot_be_understood_says_nothing() {
        for kind in [
            "ext4",
            "xfs",
            "LVM2_member",
            "btrfs",
            "linux_raid_member",
            "vfat",
        ] {
            assert_eq!(read(kind, 0, &[0xff; 4096]), None, "{kind}");
            let mut short = Cursor::new(vec![0u8; 100]);
            assert_eq!(reach(&mut short, Bytes(u64::MAX), kind), None, "{kind}");
        }
    }
}
