//! What is kept of a disk: what capture understands, and of that no identifier.

use crate::capture::mbr;
use crate::system::Image;
use crate::units::SectorSize;

use super::names::Names;

/// What a GPT header says of its table (UEFI specification 2.10, table 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Where the entries start, in sectors.
    pub entries: u64,
    /// How many there are.
    pub number: u32,
    /// The size of one, in bytes.
    pub size: u32,
    /// The size of the header, in bytes.
    length: u32,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

impl Header {
    /// Reads a header; `None`: it is none.
    pub fn parse(header: &[u8]) -> Option<Header> {
        if !header.starts_with(b"EFI PART") || header.len() < 92 {
            return None;
        }
        let parsed = Header {
            entries: u64::from(word(header, 72)) | u64::from(word(header, 76)) << 32,
            number: word(header, 80),
            size: word(header, 84),
            length: word(header, 12),
        };
        // Others are refused by capture: nothing of them is kept but the header.
        let usable =
            parsed.number <= 4096 && parsed.size == 128 && (92..=512).contains(&parsed.length);
        Some(if usable {
            parsed
        } else {
            Header {
                number: 0,
                ..parsed
            }
        })
    }

    /// The length of the table in bytes.
    pub fn length(&self) -> usize {
        self.number as usize * 128
    }
}

/// A GUID as it lies on disks: the first three fields are little-endian.
fn guid(names: &mut Names, bytes: &mut [u8]) {
    let Ok(raw) = <[u8; 16]>::try_from(&*bytes) else {
        return;
    };
    let fake = names.uuid(&uuid::Uuid::from_bytes_le(raw).to_string());
    if let Ok(fake) = uuid::Uuid::parse_str(&fake) {
        bytes.copy_from_slice(&fake.to_bytes_le());
    }
}

/// A UUID as filesystems have it.
fn uuid(names: &mut Names, bytes: &mut [u8]) {
    let Ok(raw) = <[u8; 16]>::try_from(&*bytes) else {
        return;
    };
    let fake = names.uuid(&uuid::Uuid::from_bytes(raw).to_string());
    if let Ok(fake) = uuid::Uuid::parse_str(&fake) {
        bytes.copy_from_slice(fake.as_bytes());
    }
}

/// A label that is padded with `pad`.
fn label(names: &mut Names, bytes: &mut [u8], pad: u8) {
    let end = bytes
        .iter()
        .rposition(|b| *b != pad && *b != 0)
        .map_or(0, |at| at + 1);
    let Ok(real) = std::str::from_utf8(&bytes[..end]) else {
        bytes.fill(pad);
        return;
    };
    let fake = names.label(real);
    // Letters beyond ASCII become shorter ones.
    let end = end.min(fake.len());
    bytes.fill(pad);
    bytes[..end].copy_from_slice(&fake.as_bytes()[..end]);
}

/// The same disk with what is known of it.
pub(super) fn anonymous(image: &Image, names: &mut Names) -> Image {
    let mut kept = Image {
        size: image.size,
        ..Image::default()
    };
    let mut first = image.get(0, 512);
    if first.starts_with(b"XFSB") && first.len() == 512 {
        xfs(names, &mut first);
        kept.set(0, &first);
        return kept;
    }
    if fat(names, &mut first) {
        kept.set(0, &first);
        super::esp::keep(image, &first, &mut kept);
        return kept;
    }
    if btrfs(image, names, &mut kept) {
        return kept;
    }
    master_boot_record(&first, names, &mut kept);
    logical_partitions(image, &mut kept);
    for sector in [512, 4096] {
        for at in [sector, (image.size / sector).saturating_sub(1) * sector] {
            table(image, at, sector, names, &mut kept);
        }
    }
    swap(image, names, &mut kept);
    kept
}

/// The disk signature of an MBR as texts have it; `None`: it has none.
fn signature(sector: &[u8]) -> Option<String> {
    let number = word(sector, 440);
    let is_mbr = sector.get(510..512) == Some(&[0x55, 0xaa]);
    (is_mbr && number != 0).then(|| format!("{number:08x}"))
}

/// What has to be known before any text is looked at: type GUIDs mean the same everywhere, PARTUUIDs begin with the disk
/// signature.
pub(super) fn known_first(image: &Image, names: &mut Names) {
    if let Some(signature) = signature(&image.get(0, 512)) {
        names.disk_signature(&signature);
    }
    for sector in [512, 4096] {
        for at in [sector, (image.size / sector).saturating_sub(1) * sector] {
            let Some(header) = Header::parse(&image.get(at, 92)) else {
                continue;
            };
            let entries = image.get(header.entries.saturating_mul(sector), header.length());
            for entry in entries.chunks_exact(128) {
                if let Ok(raw) = <[u8; 16]>::try_from(&entry[..16]) {
                    names.keep(&uuid::Uuid::from_bytes_le(raw).to_string());
                }
            }
        }
    }
}

/// `struct xfs_dsb` (kernel: fs/xfs/libxfs/xfs_format.h): UUID at 32, label at 108, the UUID of the metadata at 248.
fn xfs(names: &mut Names, superblock: &mut [u8]) {
    for at in [32, 248] {
        if superblock[at..at + 16].iter().any(|b| *b != 0) {
            uuid(names, &mut superblock[at..at + 16]);
        }
    }
    label(names, &mut superblock[108..120], 0);
    superblock[264..].fill(0);
}

/// A FAT boot sector keeps its parameters. The volume's number is at 67 with FAT32 (whose type's name is at 82), else at 39;
/// the label follows (Microsoft: FAT32 file system specification 1.03, page 11).
fn fat(names: &mut Names, sector: &mut [u8]) -> bool {
    if sector.len() < 512 || sector[510..512] != [0x55, 0xaa] {
        return false;
    }
    let at = if sector[82..].starts_with(b"FAT32") {
        67
    } else if sector[54..].starts_with(b"FAT1") {
        39
    } else {
        return false;
    };
    let number = word(sector, at);
    let real = format!("{:04X}-{:04X}", number >> 16, number & 0xffff);
    let fake = names.serial(&real).replace('-', "");
    if let Ok(fake) = u32::from_str_radix(&fake, 16) {
        sector[at..at + 4].copy_from_slice(&fake.to_le_bytes());
    }
    if !sector[at + 4..].starts_with(b"NO NAME") {
        label(names, &mut sector[at + 4..at + 15], b' ');
    }
    sector[90..510].fill(0);
    true
}

/// The first superblock (btrfs on-disk format): the filesystem's UUID at 0x20, the number and sizes of the device until its
/// UUID at 0x10b, the label from 0x12b to 0x22b. Behind that are the trees' places. Its checksum is nobody's business.
fn btrfs(image: &Image, names: &mut Names, kept: &mut Image) -> bool {
    let mut block = image.get(65_536, 4096);
    if block.get(0x40..0x48) != Some(b"_BHRfS_M") || block.len() < 4096 {
        return false;
    }
    for at in [0x20, 0x10b, 0x11b] {
        uuid(names, &mut block[at..at + 16]);
    }
    label(names, &mut block[0x12b..0x22b], 0);
    block[0x22b..].fill(0);
    kept.set(65_536, &block);
    true
}

/// The records of the logical partitions, as far as the chain was read.
fn logical_partitions(image: &Image, kept: &mut Image) {
    for sector in [SectorSize::S512, SectorSize(4096)] {
        let Ok(table) = mbr::read(&mut image.reader(), sector) else {
            continue;
        };
        for record in table.records {
            let at = record.offset(sector).0.saturating_add(446);
            kept.set(at, &image.get(at, 66));
        }
    }
}

/// Of the boot code only whether it is GRUB's; the disk signature at 440, which PARTUUIDs begin with; the table of
/// partitions.
fn master_boot_record(sector: &[u8], names: &mut Names, kept: &mut Image) {
    let code = sector.get(..440).unwrap_or_default();
    if let Some(at) = code.windows(4).position(|w| w == b"GRUB") {
        kept.set(at as u64, b"GRUB");
    }
    if sector.get(510..512) == Some(&[0x55, 0xaa]) {
        let fake = signature(sector).map(|real| names.disk_signature(&real));
        if let Some(fake) = fake.and_then(|fake| u32::from_str_radix(&fake, 16).ok()) {
            kept.set(440, &fake.to_le_bytes());
        }
        kept.set(446, &sector[446..512]);
    }
}

/// A GPT with other GUIDs and names, and the checksums that belong to them.
fn table(image: &Image, at: u64, sector: u64, names: &mut Names, kept: &mut Image) {
    let mut bytes = image.get(at, 512);
    let Some(header) = Header::parse(&bytes) else {
        return;
    };
    let damaged = {
        let mut zeroed = bytes.clone();
        zeroed[16..20].fill(0);
        crc32(zeroed.get(..header.length as usize).unwrap_or_default()) != word(&bytes, 16)
    };
    let start = header.entries.saturating_mul(sector);
    let mut entries = image.get(start, header.length());
    let torn = header.number == 0 || crc32(&entries) != word(&bytes, 88);
    for entry in entries.chunks_exact_mut(128) {
        if entry[..16].iter().all(|b| *b == 0) {
            entry.fill(0);
            continue;
        }
        guid(names, &mut entry[16..32]);
        let units: Vec<u16> = entry[56..]
            .chunks_exact(2)
            .map(|u| u16::from_le_bytes([u[0], u[1]]))
            .take_while(|u| *u != 0)
            .collect();
        let fake = names.label(&String::from_utf16_lossy(&units));
        entry[56..].fill(0);
        for (place, unit) in entry[56..].chunks_exact_mut(2).zip(fake.encode_utf16()) {
            place.copy_from_slice(&unit.to_le_bytes());
        }
    }
    guid(names, &mut bytes[56..72]);
    bytes[92..].fill(0);
    // What is damaged stays damaged.
    let sum = crc32(&entries) ^ u32::from(torn);
    bytes[88..92].copy_from_slice(&sum.to_le_bytes());
    bytes[16..20].fill(0);
    let end = (header.length as usize).min(bytes.len());
    let sum = crc32(&bytes[..end]) ^ u32::from(damaged);
    bytes[16..20].copy_from_slice(&sum.to_le_bytes());
    kept.set(start, &entries);
    kept.set(at, &bytes);
}

/// `union swap_header` (kernel: include/linux/swap.h): version and sizes from 1024, UUID at 1036, label at 1052; the
/// signature ends the page.
fn swap(image: &Image, names: &mut Names, kept: &mut Image) {
    let mut head = image.get(0, 65536);
    let pages = [4096usize, 8192, 16384, 32768, 65536];
    let page = pages.into_iter().find(|page| {
        head.get(page - 10..*page)
            .is_some_and(|signature| signature == b"SWAPSPACE2")
    });
    let Some(page) = page else {
        return;
    };
    uuid(names, &mut head[1036..1052]);
    label(names, &mut head[1052..1068], 0);
    kept.set(1024, &head[1024..1068]);
    kept.set((page - 10) as u64, &head[page - 10..page]);
}

/// The checksum of GPT (CRC-32 of IEEE 802.3).
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
