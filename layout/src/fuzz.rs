//! Every reader of disks, tools and documents, fed with damaged input. None may panic.

#[path = "../../tests/fuzz/table.rs"]
mod damage;
#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;

use std::io::{Cursor, Seek, SeekFrom, Write};
use std::path::Path;

use gpt::disk::LogicalBlockSize;
use gpt::header::HeaderBuilder;
use gpt::partition::Partition;

use crate::capture::{boot, devices, fs, gpt as table, lvm, mount};
use crate::inventory::{Inventory, InventoryDisk};
use crate::model::{Firmware, Layout, NodeId};
use crate::plan::{Choices, Grow, plan};
use crate::render;
use crate::system::Recorded;
use crate::units::{Bytes, SectorSize};
use mutate::{damaged, mutate, rounds};

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

#[test]
fn fuzz_superblocks() {
    let xfs = include_bytes!("../tests/recorded/xfs-superblock.bin").to_vec();
    let vfat = include_bytes!("../tests/recorded/vfat-boot-sector.bin").to_vec();
    damaged("superblocks", 20_000, &[xfs, vfat], |data| {
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
    });
}

#[test]
fn fuzz_what_tools_print() {
    let seeds = [
        include_bytes!("../tests/recorded/dumpe2fs.txt").to_vec(),
        br#"{"report":[{"lv":[{"lv_name":"data","lv_size":"53","lv_tags":["a",1],"zero":null}]}],"log":[]}"#.to_vec(),
        b"ID_FS_LABEL_ENC=a\\x20b\nID_FS_TYPE=ext4\nID_FS_UUID_ENC=x-y\n".to_vec(),
        b"BootOrder: 0004,0000\nBoot0004* proxmox\tHD(2,GPT,5E0F,0x800,0x100)/File(\\EFI\\shimx64.efi)\n\
          Boot0005  \xc3\xa4\tHD(2,GPT,5e0f,0x8)/\\EFI\\debian\\grubx64.efi0000\n".to_vec(),
        b"/dev/pve/root / ext4 errors=remount-ro 0 1\nUUID=AB-CD /boot/a\\040b vfat\n".to_vec(),
        b"31 30 8:3 /sub /target/a\\040b ro shared:1 - xfs /dev/sda3 rw\n".to_vec(),
    ];
    damaged("tools", 10_000, &seeds, |data| {
        let text = text(data);
        let _ = fs::parse_dumpe2fs(&text, NodeId::new("x"), "ext4");
        for row in lvm::parse(&text, "lv").unwrap_or_default() {
            let _ = (row.bytes("lv_size"), row.tags("lv_tags"), row.text("zero"));
        }
        devices::parse_blkid(&text);
        boot::parse_efibootmgr(&text);
        mount::parse_fstab(&text);
        let sys = Recorded::new()
            .file("/proc/self/mountinfo", data)
            .file("/proc/swaps", data);
        let _ = mount::mounted(&sys, Path::new("/target"));
        mount::active_swaps(&sys);
        lvm::is_guest_volume(&text);
    });
}

fn disk_with_table(sector: LogicalBlockSize, sectors: u64) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; (sectors * sector.as_u64()) as usize]);
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
            .backup_lba(sectors - 1)
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
    gpt::mbr::ProtectiveMBR::with_lb_size(sectors as u32 - 1)
        .overwrite_lba0(&mut disk)
        .unwrap();
    disk.into_inner()
}

#[test]
fn fuzz_partition_tables() {
    for (sector, size) in [
        (LogicalBlockSize::Lb512, SectorSize::S512),
        (LogicalBlockSize::Lb4096, SectorSize::S4096),
    ] {
        let step = sector.as_u64() as usize;
        let good = disk_with_table(sector, 128);
        let read = table::read(&mut Cursor::new(good.clone()), size).unwrap();
        assert_eq!((read.partitions.len(), read.both_headers), (1, true));
        rounds("partition tables", 1500, |random| {
            let mut disk = good.clone();
            if random.below(3) == 0 {
                let at = random.below(34 * 512);
                let piece = disk[at..at + 512].to_vec();
                let piece = mutate(random, &[piece]);
                let mut cursor = Cursor::new(disk);
                cursor.seek(SeekFrom::Start(at as u64)).unwrap();
                cursor.write_all(&piece).unwrap();
                disk = cursor.into_inner();
            } else {
                if random.below(2) == 0 {
                    damage::header(random, &mut disk, step);
                }
                let last = good.len() - step;
                damage::header(random, &mut disk, last);
            }
            if random.below(8) == 0 {
                disk.truncate(random.below(good.len()));
            }
            if let Ok(table) = table::read(&mut Cursor::new(disk), size) {
                assert!(table.partitions.iter().all(|p| p.start <= p.end));
            }
        });
    }
}

fn layouts() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm-tests/layouts");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    // Some cases take the layout of another file.
    let layout = |path: &std::path::PathBuf| {
        let case: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let layout = case.get("layout").filter(|l| l.is_object())?;
        Some(serde_json::to_vec(layout).unwrap())
    };
    files.iter().filter_map(layout).collect()
}

/// What a snapshot says of a host is planned for this machine: refused or planned, but never a panic.
#[test]
fn fuzz_layouts() {
    let disk = |device: &str, mib: u64| InventoryDisk {
        device: device.into(),
        model: None,
        serial: Some(device.into()),
        wwn: None,
        size: Bytes::mib(mib),
        sector_size: SectorSize::S512,
        removable: false,
        transport: None,
        media: None,
        read_only: false,
        contents: Vec::new(),
        vgs: Vec::new(),
        in_use: false,
    };
    let machine = |disks: Vec<InventoryDisk>| Inventory {
        firmware: Firmware::Uefi,
        disks,
        memory: Bytes::GIB,
    };
    let machines = [
        machine(vec![disk("/dev/sda", 20_000)]),
        machine(vec![disk("/dev/sda", 1500), disk("/dev/sdb", 100)]),
    ];
    let seeds = layouts();
    let mut planned = 0;
    for seed in &seeds {
        let layout = Layout::from_json(&text(seed)).unwrap();
        planned += usize::from(plan(&layout, &machines[0], &Choices::default()).is_ok());
    }
    assert!(planned > 2, "{planned}");
    damaged("layouts", 6000, &seeds, |data| {
        let Ok(layout) = Layout::from_json(&text(data)) else {
            return;
        };
        render::tree(&layout);
        layout.unknown_partitions();
        for (grow, machine) in [(Grow::Root, 0), (Grow::Nothing, 0), (Grow::Root, 1)] {
            let choices = Choices {
                grow,
                ..Choices::default()
            };
            if let Ok(plan) = plan(&layout, &machines[machine], &choices) {
                plan.render();
                crate::diff::diff(&layout, &layout, &plan);
            }
        }
    });
}
