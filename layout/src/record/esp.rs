//! Of an EFI system partition a recording keeps the names of boot loaders, and no other.

use crate::system::{BLOCK, Image};

/// Names of files and directories that boot loaders have everywhere.
const KNOWN: [&str; 25] = [
    "efi",
    "boot",
    "loader",
    "loader.conf",
    "entries",
    "grub",
    "grub.cfg",
    "systemd",
    "linux",
    "proxmox",
    "debian",
    "ubuntu",
    "microsoft",
    "bootx64.efi",
    "bootaa64.efi",
    "bootx64.csv",
    "grubx64.efi",
    "grubaa64.efi",
    "shimx64.efi",
    "shimaa64.efi",
    "mmx64.efi",
    "fbx64.efi",
    "systemd-bootx64.efi",
    "lb-boot",
    "lifeboat",
];

/// Whether a name tells nothing of the host's owner.
pub(super) fn is_known(name: &str) -> bool {
    let name = name.to_lowercase();
    let release = name.starts_with(|c: char| c.is_ascii_digit()) && name.ends_with("-pve");
    KNOWN.contains(&name.as_str())
        || release
        || name.starts_with("vmlinuz-")
        || name.starts_with("initrd.img-")
}

fn le16(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 2)
        .map_or(0, |b| u64::from(u16::from_le_bytes([b[0], b[1]])))
}

/// Keeps the tables and directories that were read of a FAT, whose boot sector this is (Microsoft: FAT32 file system
/// specification 1.03).
pub(super) fn keep(image: &Image, boot_sector: &[u8], kept: &mut Image) {
    let sector = le16(boot_sector, 11);
    let (reserved, tables) = (le16(boot_sector, 14), le16(boot_sector, 16) & 0xff);
    let long = le16(boot_sector, 36) | le16(boot_sector, 38) << 16;
    let table_sectors = match le16(boot_sector, 22) {
        0 => long,
        short => short,
    };
    let Some(directories) = tables
        .checked_mul(table_sectors)
        .and_then(|n| n.checked_add(reserved))
        .and_then(|n| n.checked_mul(sector))
    else {
        return;
    };
    let mut run: (u64, Vec<u8>) = (0, Vec::new());
    for (number, bytes) in &image.blocks {
        let at = number.saturating_mul(BLOCK);
        if at < reserved.saturating_mul(sector) {
            continue;
        }
        if at < directories {
            kept.set(at, bytes);
            continue;
        }
        let mut block = bytes.clone();
        block.resize(BLOCK as usize, 0);
        if run.0 + run.1.len() as u64 != at {
            flush(&mut run, kept);
            run.0 = at;
        }
        run.1.extend(block);
    }
    flush(&mut run, kept);
}

/// Keeps the known entries of directories that lie beside each other.
fn flush(run: &mut (u64, Vec<u8>), kept: &mut Image) {
    let (at, mut bytes) = std::mem::take(run);
    let entries = bytes.len() / 32;
    let mut first_of_name = 0;
    let mut long: Vec<u16> = Vec::new();
    for n in 0..entries {
        let entry = &bytes[n * 32..n * 32 + 32];
        if entry[11] & 0x3f == 0x0f && entry[0] != 0xe5 {
            if long.is_empty() {
                first_of_name = n;
            }
            let units = [&entry[1..11], &entry[14..26], &entry[28..32]];
            let part = units.iter().flat_map(|u| u.chunks_exact(2));
            let part = part.map(|u| u16::from_le_bytes([u[0], u[1]]));
            long = part.chain(long.iter().copied()).collect();
            continue;
        }
        let end = long.iter().position(|u| matches!(u, 0 | 0xffff));
        let name = match long.is_empty() {
            true => short(entry),
            false => String::from_utf16_lossy(&long[..end.unwrap_or(long.len())]),
        };
        let first = if long.is_empty() { n } else { first_of_name };
        long.clear();
        let parent = entry[0] == b'.';
        let label = entry[11] & 0x08 != 0;
        if entry[0] == 0 {
            bytes[n * 32..n * 32 + 32].fill(0);
        } else if entry[0] == 0xe5 || label || !(parent || is_known(&name)) {
            for of_name in first..=n {
                let entry = &mut bytes[of_name * 32..of_name * 32 + 32];
                entry.fill(0);
                entry[0] = 0xe5;
            }
        } else {
            // When it was made, read and written; its length.
            let entry = &mut bytes[n * 32..n * 32 + 32];
            entry[13..20].fill(0);
            entry[22..26].fill(0);
            entry[28..32].fill(0);
        }
    }
    // A name whose entry is elsewhere.
    if !long.is_empty() {
        for of_name in first_of_name..entries {
            bytes[of_name * 32..of_name * 32 + 32].fill(0);
            bytes[of_name * 32] = 0xe5;
        }
    }
    kept.set(at, &bytes);
}

fn short(entry: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    match text(&entry[8..11]) {
        extension if extension.is_empty() => text(&entry[..8]),
        extension => format!("{}.{extension}", text(&entry[..8])),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::capture::esp::Loaders;
    use crate::capture::fat::tests::image;
    use crate::system::Recorded;

    #[test]
    fn loaders_stay_and_other_names_go() {
        let bytes = image(
            32,
            &[
                "EFI/systemd/systemd-bootx64.efi",
                "EFI/alice/grubx64.efi",
                "EFI/debian/grubx64.efi",
                "loader/loader.conf",
                "alices-long-secret-name.txt",
                "3f2a7c/vmlinuz-1",
            ],
        );
        let mut real = Image {
            size: bytes.len() as u64,
            ..Image::default()
        };
        real.set(0, &bytes);
        let mut kept = Image {
            size: real.size,
            ..Image::default()
        };
        kept.set(0, &bytes[..512]);
        keep(&real, &bytes[..512], &mut kept);
        let all: Vec<u8> = kept.blocks.values().flatten().copied().collect();
        for secret in [
            "alice",
            "ALICE",
            "a\0l\0i\0c",
            "secret",
            "s\0e\0c\0r",
            "3F2A7C",
            "3\0f\x002",
        ] {
            let found = all.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "{secret:?}");
        }
        let mut sys = Recorded::new();
        sys.images.insert("/dev/sda1".into(), kept);
        let found = Loaders::on_device(&sys, Path::new("/dev/sda1")).unwrap();
        assert_eq!(found.grub, [("debian".to_owned(), false)]);
        assert!(found.systemd_boot && found.loader_conf);
    }
}
