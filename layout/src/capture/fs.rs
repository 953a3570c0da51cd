//! Filesystems: the tools' and the superblocks' view.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::CaptureError;
use super::devices::Probe;
use crate::model::{Ext4, NodeId, Vfat, Xfs};
use crate::system::{Cmd, System};
use crate::units::Bytes;

/// Features that come and go while the filesystem is in use.
const PASSING: [&str; 2] = ["needs_recovery", "orphan_present"];

/// Reads an ext2/3/4 through `dumpe2fs -h`.
pub(crate) fn ext4(
    sys: &dyn System,
    device: &Path,
    on: NodeId,
    probe: &Probe,
) -> Result<Ext4, CaptureError> {
    let text = sys
        .run(&Cmd::new("dumpe2fs").arg("-h").path(device))?
        .text();
    parse_dumpe2fs(&text, on, probe.fstype.as_deref().unwrap_or("ext4"))
        .map_err(|reason| CaptureError::parse(format!("dumpe2fs -h {}", device.display()), reason))
}

pub(crate) fn parse_dumpe2fs(text: &str, on: NodeId, fstype: &str) -> Result<Ext4, String> {
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
            .ok_or_else(|| format!("no line \"{name}\""))
    };
    let number = |name: &str| -> Result<u64, String> {
        field(name)?
            .parse()
            .map_err(|_| format!("\"{name}\" is not a number"))
    };
    let words = |name: &str| -> Result<Vec<String>, String> {
        let mut all: Vec<String> = field(name)?
            .split_whitespace()
            .filter(|w| !PASSING.contains(w) && *w != "(none)")
            .map(str::to_owned)
            .collect();
        all.sort();
        Ok(all)
    };
    let block_size = number("Block size")?;
    let blocks = number("Block count")?;
    Ok(Ext4 {
        on,
        fstype: fstype.to_owned(),
        uuid: field("Filesystem UUID")?.to_owned(),
        label: Some(field("Filesystem volume name")?)
            .filter(|l| !l.is_empty() && *l != "<none>")
            .map(str::to_owned),
        block_size: Bytes(block_size),
        // Only with the feature bigalloc is there such a line.
        cluster_size: number("Cluster size").ok().map(Bytes),
        inode_size: Bytes(number("Inode size")?),
        inodes: number("Inode count")?,
        features: words("Filesystem features")?,
        default_options: words("Default mount options")?,
        reserved_blocks: number("Reserved block count")?,
        size: Bytes(blocks.saturating_mul(block_size)),
        used: Some(Bytes(
            blocks
                .saturating_sub(number("Free blocks")?)
                .saturating_mul(block_size),
        )),
        inodes_used: number("Free inodes")
            .ok()
            .and_then(|free| number("Inode count").ok()?.checked_sub(free)),
    })
}

fn read_at<const N: usize>(
    sys: &dyn System,
    device: &Path,
    offset: u64,
) -> Result<[u8; N], CaptureError> {
    let mut file = sys.open(device)?;
    let mut buf = [0u8; N];
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(&mut buf))
        .map_err(|e| CaptureError::parse(device.display().to_string(), e))?;
    Ok(buf)
}

/// Reads an XFS superblock.
pub(crate) fn xfs(
    sys: &dyn System,
    device: &Path,
    on: NodeId,
) -> Result<(Xfs, Vec<String>), CaptureError> {
    let superblock: [u8; 512] = read_at(sys, device, 0)?;
    parse_xfs(&superblock, on)
        .map_err(|reason| CaptureError::parse(device.display().to_string(), reason))
}

fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}
fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}
fn be64(b: &[u8], at: usize) -> u64 {
    u64::from(be32(b, at)) << 32 | u64::from(be32(b, at + 4))
}

/// Offsets and bits: `struct xfs_dsb` in the kernel's fs/xfs/libxfs/xfs_format.h. The second value are warnings.
pub(crate) fn parse_xfs(sb: &[u8; 512], on: NodeId) -> Result<(Xfs, Vec<String>), String> {
    if &sb[..4] != b"XFSB" {
        return Err("no XFS superblock".to_owned());
    }
    let block_size = be32(sb, 4);
    let version = be16(sb, 100);
    let v5 = version & 0xf == 5;
    let (ro_compat, incompat) = if v5 {
        (be32(sb, 212), be32(sb, 216))
    } else {
        (0, 0)
    };
    let mut features = Vec::new();
    if v5 {
        features.push("crc");
    }
    for (bits, bit, name) in [
        (ro_compat, 1, "finobt"),
        (ro_compat, 2, "rmapbt"),
        (ro_compat, 4, "reflink"),
        (ro_compat, 8, "inobtcount"),
        (incompat, 2, "sparse"),
        (incompat, 8, "bigtime"),
        (incompat, 0x20, "nrext64"),
        (incompat, 0x40, "exchange"),
        (incompat, 0x80, "parent"),
    ] {
        if bits & bit != 0 {
            features.push(name);
        }
    }
    features.sort_unstable();
    let mut warnings = Vec::new();
    // With a meta UUID the visible one was changed later; mkfs sets both alike, which the kernel does not mind.
    if ro_compat & !0xf != 0 || incompat & !0xff != 0 {
        warnings.push(format!(
            "the XFS filesystem has features that this version does not know (ro {ro_compat:#x}, incompat {incompat:#x}): \
             a restore makes it without them"
        ));
    }
    if be64(sb, 48) == 0 {
        warnings.push(
            "the XFS filesystem has an external log: a restore makes it with an internal one"
                .to_owned(),
        );
    }
    if be64(sb, 16) != 0 {
        warnings.push(
            "the XFS filesystem has a realtime section: a restore makes it without".to_owned(),
        );
    }
    let label: Vec<u8> = sb[108..120]
        .iter()
        .copied()
        .take_while(|b| *b != 0)
        .collect();
    let blocks = be64(sb, 8);
    let size = blocks.saturating_mul(u64::from(block_size));
    let xfs = Xfs {
        on,
        uuid: uuid::Uuid::from_slice(&sb[32..48])
            .map_err(|e| e.to_string())?
            .to_string(),
        label: (!label.is_empty()).then(|| String::from_utf8_lossy(&label).into_owned()),
        block_size: Bytes(block_size.into()),
        sector_size: Bytes(be16(sb, 102).into()),
        inode_size: Bytes(be16(sb, 104).into()),
        features: features.into_iter().map(str::to_owned).collect(),
        ascii_ci: version & 0x4000 != 0,
        size: Bytes(size),
        used: Some(Bytes(
            blocks
                .saturating_sub(be64(sb, 144))
                .saturating_mul(u64::from(block_size)),
        )),
    };
    Ok((xfs, warnings))
}

/// Reads a FAT boot sector.
pub(crate) fn vfat(
    sys: &dyn System,
    device: &Path,
    on: NodeId,
    probe: &Probe,
) -> Result<Vfat, CaptureError> {
    let sector: [u8; 512] = read_at(sys, device, 0)?;
    parse_vfat(&sector, on, probe)
        .map_err(|reason| CaptureError::parse(device.display().to_string(), reason))
}

/// Offsets: Microsoft's FAT specification 1.03, section "Boot Sector and BPB".
pub(crate) fn parse_vfat(sector: &[u8; 512], on: NodeId, probe: &Probe) -> Result<Vfat, String> {
    let le16 = |at: usize| u64::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
    let le32 = |at: usize| {
        u64::from(u32::from_le_bytes([
            sector[at],
            sector[at + 1],
            sector[at + 2],
            sector[at + 3],
        ]))
    };
    let bytes_per_sector = le16(11);
    let sectors = if le16(19) != 0 { le16(19) } else { le32(32) };
    let fat_bits = match probe.version.as_deref() {
        Some("FAT12") => 12,
        Some("FAT16") => 16,
        Some("FAT32") => 32,
        // A FAT32 has no size of the FAT in the 16-bit field.
        _ if le16(22) == 0 => 32,
        _ => 16,
    };
    if bytes_per_sector == 0 || sector[13] == 0 {
        return Err("no FAT boot sector".to_owned());
    }
    let serial = le32(if fat_bits == 32 { 67 } else { 39 });
    let uuid = probe
        .uuid
        .clone()
        .unwrap_or_else(|| format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff));
    Ok(Vfat {
        on,
        uuid,
        label: probe.label.clone(),
        fat_bits,
        cluster_size: Bytes(u64::from(sector[13]) * bytes_per_sector),
        size: Bytes(sectors * bytes_per_sector),
        used: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMPE2FS: &str = include_str!("../../tests/recorded/dumpe2fs.txt");

    #[test]
    fn dumpe2fs_is_understood() {
        let fs = parse_dumpe2fs(DUMPE2FS, NodeId::lv("pve", "root"), "ext4").unwrap();
        assert_eq!(fs.uuid, "54807796-235e-400c-9a32-b642a681af58");
        assert_eq!(fs.label, None);
        assert_eq!(fs.block_size, Bytes(1024));
        assert_eq!(fs.size, Bytes::mib(300));
        assert_eq!(fs.reserved_blocks, 15360);
        assert_eq!(fs.default_options, ["acl", "user_xattr"]);
        assert!(fs.features.contains(&"metadata_csum".to_owned()));
        assert!(
            !fs.features.contains(&"needs_recovery".to_owned()),
            "it is there while mounted only"
        );
    }

    #[test]
    fn a_missing_line_is_named() {
        let error = parse_dumpe2fs("Block size: 1024\n", NodeId::new("x"), "ext4").unwrap_err();
        assert!(error.contains("Block count"), "{error}");
    }

    #[test]
    fn an_xfs_superblock_is_understood() {
        let sb: &[u8; 512] = include_bytes!("../../tests/recorded/xfs-superblock.bin");
        let (fs, warnings) = parse_xfs(sb, NodeId::new("x")).unwrap();
        assert_eq!(fs.uuid, "f3af626e-2c77-4fdc-bc73-7c248d348957");
        assert_eq!(
            fs.features,
            [
                "bigtime",
                "crc",
                "finobt",
                "inobtcount",
                "reflink",
                "sparse"
            ]
        );
        assert_eq!(
            (fs.block_size, fs.sector_size, fs.inode_size),
            (Bytes(4096), Bytes(512), Bytes(512))
        );
        assert_eq!(fs.size, Bytes::mib(300));
        assert!(warnings.is_empty(), "{warnings:?}");
        let mut newer = *sb;
        newer[218] = 0x80;
        assert_eq!(
            parse_xfs(&newer, NodeId::new("x")).unwrap().1.len(),
            1,
            "unknown features are not passed over"
        );
    }

    #[test]
    fn a_fat_boot_sector_is_understood() {
        let sector: &[u8; 512] = include_bytes!("../../tests/recorded/vfat-boot-sector.bin");
        let fs = parse_vfat(sector, NodeId::new("x"), &Probe::default()).unwrap();
        assert_eq!(fs.uuid, "1034-FAB5");
        assert_eq!((fs.fat_bits, fs.size), (32, Bytes(614_376 * 512)));
    }
}
