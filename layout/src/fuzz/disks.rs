//! What is read from disks.

use std::io::Cursor;
use std::sync::LazyLock;

use gpt::disk::LogicalBlockSize;
use gpt::header::HeaderBuilder;
use gpt::partition::Partition;

use super::table as input;
use crate::capture::{devices, esp, fs, gpt as tables, mbr};
use crate::model::NodeId;
use crate::units::SectorSize;

pub(super) const SECTORS: u64 = 128;

pub(super) fn disk_with_table(sector: LogicalBlockSize) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; (SECTORS * sector.as_u64()) as usize]);
    let part = Partition {
        part_type_guid: gpt::partition_types::LINUX_FS,
        part_guid: uuid::Uuid::from_u128(7),
        first_lba: 40,
        last_lba: 50,
        flags: 0,
        name: "name".into(),
    };
    for primary in [false, true] {
        let mut header = HeaderBuilder::new()
            .backup_lba(SECTORS - 1)
            .disk_guid(uuid::Uuid::from_u128(5))
            .num_parts(128)
            .primary(primary)
            .build(sector)
            .unwrap();
        let start = header.part_start;
        Partition::write_zero_entries_to_device(&mut disk, 0, 128, start, sector, 128).unwrap();
        part.write_to_device(&mut disk, 2, start, sector, 128)
            .unwrap();
        if primary {
            header.write_primary(&mut disk, sector).unwrap();
        } else {
            header.write_backup(&mut disk, sector).unwrap();
        }
    }
    gpt::mbr::ProtectiveMBR::with_lb_size(SECTORS as u32 - 1)
        .overwrite_lba0(&mut disk)
        .unwrap();
    disk.into_inner()
}

/// A whole disk for each size of sectors.
static DISKS: LazyLock<[Vec<u8>; 2]> =
    LazyLock::new(|| [LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096].map(disk_with_table));

fn disk(input: &[u8]) -> &'static [u8] {
    &DISKS[usize::from(input::sector(input) == 4096)]
}

pub(super) fn tables() -> Vec<Vec<u8>> {
    let seed = |flags: u8| {
        let disk = disk(&[flags]);
        input::seed(flags, SECTORS, &mut |at, length| {
            disk[at as usize..at as usize + length].to_vec()
        })
    };
    (0..=input::FLAGS).map(seed).collect()
}

pub(super) fn table(data: &[u8]) {
    let mut disk = disk(data).to_vec();
    input::put(data, SECTORS, &mut |at, piece| {
        disk[at as usize..at as usize + piece.len()].copy_from_slice(piece);
    });
    let sector = SectorSize(input::sector(data) as u32);
    // A disk may also end before its table does.
    for length in [disk.len(), disk.len() / 2, 5 * sector.0 as usize] {
        disk.truncate(length);
        if let Ok(table) = tables::read(&mut Cursor::new(&disk), sector) {
            assert!(table.partitions.iter().all(|p| p.start <= p.end));
            table.header();
        }
        if let Ok(table) = mbr::read(&mut Cursor::new(&disk), sector) {
            assert!(table.partitions.iter().all(|p| p.start <= p.end));
            table.header();
        }
    }
}

pub(super) fn superblocks() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../tests/recorded/xfs-superblock.bin").to_vec(),
        include_bytes!("../../tests/recorded/vfat-boot-sector.bin").to_vec(),
    ]
}

pub(super) fn superblock(data: &[u8]) {
    let mut data = data.to_vec();
    data.resize(512, 0);
    let sector: &[u8; 512] = data.as_slice().try_into().unwrap();
    let _ = fs::parse_xfs(sector, NodeId::new("x"));
    for version in [None, Some("FAT12"), Some("FAT32")] {
        let probe = devices::Probe {
            version: version.map(str::to_owned),
            ..devices::Probe::default()
        };
        let _ = fs::parse_vfat(sector, NodeId::new("x"), &probe);
    }
    // What follows is read as tables and directories.
    let mut device = data.repeat(16);
    device.truncate(7000);
    let sys = crate::system::Recorded::new().file("/dev/x", device);
    let _ = esp::Loaders::on_device(&sys, std::path::Path::new("/dev/x"));
}
