//! Makes saved hosts for tests.

#![allow(dead_code)] // each test binary uses a part of it

use std::path::{Path, PathBuf};

use layout::inventory::{Inventory, InventoryDisk};
use layout::model::{
    Disk, Ext4, Firmware, FstabEntry, GptTable, GroupSettings, GrubBios, GrubEfi, Layout,
    LogicalVolume, Mount, Node, NodeId, Partition, PhysicalVolume, Segments, Swap, Table, ThinPool,
    ThinVolume, Vfat, VolumeGroup, VolumeSettings, Xfs, types,
};
use layout::plan::{Choices, DiskChoice};
use layout::units::{Bytes, Lba, SectorSize};
use proptest::sample::Index;

/// What is on a partition; sizes in MiB.
#[derive(Debug, Clone)]
pub enum Content {
    Ext4 { mib: u64, used: Option<u64> },
    Xfs { mib: u64, used: Option<u64> },
    Esp { mib: u64, used: Option<u64> },
    Swap { mib: u64 },
    Image { mib: u64 },
    BiosBoot,
}

/// A volume of the group; sizes in MiB.
#[derive(Debug, Clone)]
pub enum Volume {
    Root { mib: u64, used: Option<u64> },
    Ext4 { mib: u64, used: Option<u64> },
    Swap { mib: u64 },
    Pool { mib: u64, used: Option<u64> },
    Guest { mib: u64 },
    Empty { mib: u64 },
}

/// A saved host with one disk.
#[derive(Debug, Clone)]
pub struct Host {
    pub layout: Layout,
    /// The disk's size.
    pub size: u64,
    next: u64,
    count: u32,
}

const DISK: &str = "00000000-0000-4000-8000-000000000000";
const EXTENT: Bytes = Bytes::mib(4);

pub fn blank(device: &str, size: u64) -> InventoryDisk {
    InventoryDisk {
        device: device.into(),
        model: None,
        serial: None,
        wwn: None,
        size: Bytes(size),
        sector_size: SectorSize::S512,
        removable: false,
        transport: None,
        media: None,
        read_only: false,
        contents: Vec::new(),
        vgs: Vec::new(),
        in_use: false,
    }
}

/// A machine with these disks that was started through UEFI.
pub fn machine(disks: Vec<InventoryDisk>) -> Inventory {
    started(Firmware::Uefi, disks)
}

/// A machine with these disks.
pub fn started(firmware: Firmware, disks: Vec<InventoryDisk>) -> Inventory {
    Inventory {
        firmware,
        disks,
        memory: Bytes::GIB,
        present: None,
    }
}

/// A place in this crate.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The layout in a layout file of the storage floor.
pub fn saved(name: &str) -> Layout {
    let path = here(&format!("../vm-tests/layouts/{name}.json"));
    let text = std::fs::read_to_string(path).expect("a layout file");
    let case: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    Layout::from_value(case["layout"].clone()).expect("a layout")
}

/// The layout of a PVE host with both boot loaders.
pub fn pve() -> Layout {
    let mut layout = saved("pve-ext4-lvm");
    layout.boot.grub_bios = disk_ids(&layout)
        .into_iter()
        .take(1)
        .map(|disk| GrubBios { disk })
        .collect();
    layout.boot.grub_efi = vec![GrubEfi {
        esp: NodeId::fs("5A1B-0001"),
        bootloader_id: "proxmox".into(),
        shim: true,
        fallback: true,
    }];
    layout.boot.kernels = vec!["6.8.12-1-pve".into()];
    layout
}

/// The saved disks in the order of their ids.
pub fn disk_ids(layout: &Layout) -> Vec<NodeId> {
    layout.disks().map(|(id, _)| id.clone()).collect()
}

/// The saved disks in the order of their old names.
pub fn by_name(layout: &Layout) -> Vec<NodeId> {
    let mut ids = disk_ids(layout);
    ids.sort_by_key(|id| layout.nodes[id].device().map(Path::to_owned));
    ids
}

/// `/dev/sda` and so on.
pub fn device(index: usize) -> PathBuf {
    PathBuf::from(format!("/dev/sd{}", (b'a' + index as u8) as char))
}

/// Blank disks of these sizes in MiB, in a machine that was started through BIOS.
pub fn blanks(mib: &[u64]) -> Inventory {
    let disks = mib.iter().enumerate().map(|(index, mib)| InventoryDisk {
        device: device(index),
        ..blank("", mib << 20)
    });
    started(Firmware::Bios, disks.collect())
}

/// These saved disks onto `/dev/sda` and so on.
pub fn in_order(ids: impl IntoIterator<Item = NodeId>) -> Choices {
    let devices = ids.into_iter().enumerate();
    Choices {
        disks: devices
            .map(|(index, id)| (id, DiskChoice::Device(device(index))))
            .collect(),
        ..Choices::default()
    }
}

/// Compares with a file; `UPDATE_GOLDEN=1` writes it.
pub fn golden(name: &str, text: &str) {
    let path = here(&format!("tests/golden/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("a file");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{} differs (UPDATE_GOLDEN=1 writes it):\n{text}",
        path.display()
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

fn uuid(n: u32) -> String {
    format!("{n:08x}-0000-4000-8000-000000000000")
}

fn ext4(on: NodeId, n: u32, mib: u64, used: Option<u64>) -> Ext4 {
    Ext4 {
        on,
        fstype: "ext4".into(),
        uuid: uuid(n),
        label: None,
        block_size: Bytes(4096),
        cluster_size: None,
        inode_size: Bytes(256),
        inodes: mib * 64,
        features: vec!["extent".into(), "has_journal".into()],
        default_options: Vec::new(),
        reserved_blocks: mib * 256 / 20,
        size: Bytes::mib(mib),
        used: used.map(Bytes::mib),
        inodes_used: used.map(|mib| mib * 16),
    }
}

fn xfs(on: NodeId, n: u32, mib: u64, used: Option<u64>) -> Xfs {
    Xfs {
        on,
        uuid: uuid(n),
        label: None,
        block_size: Bytes(4096),
        sector_size: Bytes(512),
        inode_size: Bytes(512),
        features: vec!["crc".into()],
        ascii_ci: false,
        size: Bytes::mib(mib),
        used: used.map(Bytes::mib),
    }
}

fn swap(on: NodeId, n: u32, mib: u64, spec: String) -> Swap {
    Swap {
        on,
        uuid: uuid(n),
        label: None,
        page_size: Bytes(4096),
        size: Bytes(Bytes::mib(mib).0 - 4096),
        active: true,
        fstab: Some(FstabEntry {
            spec,
            file: "none".into(),
            fstype: "swap".into(),
            options: vec!["sw".into()],
            freq: 0,
            passno: 0,
        }),
    }
}

fn disk(guid: &str, size: u64, serial: &str) -> Disk {
    Disk {
        device: "/dev/nvme0n1".into(),
        model: Some("Saved".into()),
        serial: Some(serial.into()),
        wwn: None,
        size: Bytes(size),
        sector_size: SectorSize::S512,
        transport: Some("nvme".into()),
        removable: false,
        table: Some(Table::Gpt(GptTable {
            disk_guid: guid.into(),
            first_usable: Lba(34),
            last_usable: Lba(size / 512 - 34),
            entries: 128,
        })),
    }
}

fn root_mount(node: NodeId) -> Mount {
    Mount {
        node,
        mount_point: "/".into(),
        fstype: "ext4".into(),
        options: Vec::new(),
        mounted: true,
        fstab: None,
    }
}

impl Host {
    pub fn new() -> Host {
        Host {
            layout: Layout::new(Firmware::Uefi),
            size: 0,
            next: 2048,
            count: 0,
        }
    }

    pub fn gap_sectors(&mut self, sectors: u64) {
        self.next += sectors;
    }

    fn node(&mut self, id: NodeId, node: Node) {
        assert!(self.layout.nodes.insert(id, node).is_none());
    }

    fn add(&mut self, bytes: u64, kind: &str) -> NodeId {
        self.count += 1;
        let (n, start) = (self.count, self.next);
        self.next += bytes.div_ceil(512);
        let id = NodeId::partition(&uuid(1000 + n));
        let part = Partition {
            on: NodeId::disk(DISK),
            device: format!("/dev/nvme0n1p{n}").into(),
            number: n,
            type_guid: kind.into(),
            partuuid: uuid(1000 + n),
            name: String::new(),
            attributes: 0,
            start: Lba(start),
            end: Lba(self.next - 1),
            sector_size: SectorSize::S512,
        };
        self.node(id.clone(), Node::Partition(part));
        id
    }

    pub fn partition(&mut self, content: Content) {
        let n = 2000 + self.count;
        match content {
            Content::Ext4 { mib, used } => {
                let on = self.add(mib << 20, types::LINUX);
                self.node(NodeId::fs(&uuid(n)), Node::Ext4(ext4(on, n, mib, used)));
            }
            Content::Xfs { mib, used } => {
                let on = self.add(mib << 20, types::LINUX);
                self.node(NodeId::fs(&uuid(n)), Node::Xfs(xfs(on, n, mib, used)));
            }
            Content::Esp { mib, used } => {
                let on = self.add(mib << 20, types::ESP);
                let fs = Vfat {
                    on,
                    uuid: uuid(n),
                    label: None,
                    fat_bits: 32,
                    cluster_size: Bytes(if mib < 300 { 512 } else { 4096 }),
                    size: Bytes::mib(mib),
                    used: used.map(Bytes::mib),
                };
                self.node(NodeId::fs(&uuid(n)), Node::Vfat(fs));
            }
            Content::Swap { mib } => {
                let on = self.add(mib << 20, types::SWAP);
                let spec = format!("UUID={}", uuid(n));
                self.node(NodeId::swap(&uuid(n)), Node::Swap(swap(on, n, mib, spec)));
            }
            Content::Image { mib } => {
                self.add(mib << 20, types::LINUX);
            }
            Content::BiosBoot => {
                self.add(1 << 20, types::BIOS_BOOT);
            }
        }
    }

    /// A partition with a volume group, `free` MiB of which are free.
    pub fn group(&mut self, volumes: &[Volume], free: u64) {
        let vg = NodeId::vg("vg");
        let mut extents = free / 4;
        let mut spare = 0;
        for (n, volume) in (3000..).zip(volumes) {
            let (name, mib) = match volume {
                Volume::Root { mib, .. } => ("root".to_owned(), *mib),
                Volume::Ext4 { mib, .. } => (format!("fs{n}"), *mib),
                Volume::Swap { mib } if volumes.len() == 3 => ("swap".to_owned(), *mib),
                Volume::Swap { mib } => (format!("swap{n}"), *mib),
                Volume::Pool { mib, .. } if volumes.len() == 3 => ("data".to_owned(), *mib),
                Volume::Pool { mib, .. } => (format!("data{n}"), *mib),
                Volume::Guest { mib } => (format!("vm-{n}-disk-0"), *mib),
                Volume::Empty { mib } => (format!("empty{n}"), *mib),
            };
            // Several volumes of one kind in a group of three.
            let name = if self.layout.nodes.contains_key(&NodeId::lv("vg", &name)) {
                format!("{name}{n}")
            } else {
                name
            };
            extents += mib / 4;
            let id = NodeId::lv("vg", &name);
            let device = std::path::PathBuf::from(format!("/dev/vg/{name}"));
            if let Volume::Pool { used, .. } = volume {
                extents += 16;
                spare = 16;
                let pool = ThinPool {
                    on: vg.clone(),
                    name: name.clone(),
                    uuid: name.clone(),
                    size: Bytes::mib(mib),
                    used: used.map(Bytes::mib),
                    chunk_size: Bytes(65536),
                    metadata_size: Bytes::mib(64),
                    zero: true,
                    discards: "passdown".into(),
                    spare: true,
                    active: true,
                    tags: Vec::new(),
                    error_when_full: false,
                    segments: Segments::Linear,
                    metadata_segments: Segments::Linear,
                    pvs: Vec::new(),
                    metadata_pvs: Vec::new(),
                    settings: VolumeSettings::default(),
                };
                self.node(id.clone(), Node::ThinPool(pool));
                let guest = ThinVolume {
                    on: id,
                    vg: "vg".into(),
                    name: format!("vm-{n}-disk-0"),
                    size: Bytes::GIB,
                };
                let name = format!("vm-{n}-disk-0");
                self.node(NodeId::lv("vg", &name), Node::ThinVolume(guest));
                continue;
            }
            let lv = LogicalVolume {
                on: vg.clone(),
                device,
                name: name.clone(),
                uuid: name.clone(),
                size: Bytes::mib(mib),
                active: true,
                writeable: true,
                tags: Vec::new(),
                cache: None,
                pvs: Vec::new(),
                segments: Segments::Linear,
                settings: VolumeSettings::default(),
            };
            self.node(id.clone(), Node::LogicalVolume(lv));
            match volume {
                Volume::Root { used, .. } | Volume::Ext4 { used, .. } => {
                    let fs = ext4(id, n, mib, *used);
                    self.node(NodeId::fs(&uuid(n)), Node::Ext4(fs));
                }
                Volume::Swap { .. } => {
                    let area = swap(id, n, mib, format!("/dev/vg/{name}"));
                    self.node(NodeId::swap(&uuid(n)), Node::Swap(area));
                }
                _ => {}
            }
        }
        let size = EXTENT.0 * (extents + spare);
        // As partitions happen to end: not at a whole extent.
        let on = self.add((1 << 20) + size + (1 << 20) + 512, types::LVM);
        let pv = PhysicalVolume {
            on,
            uuid: "pv".into(),
            pe_start: Bytes::MIB,
            size: Bytes(size),
            tags: Vec::new(),
            allocatable: true,
        };
        self.node(NodeId::pv("pv"), Node::PhysicalVolume(pv));
        let group = VolumeGroup {
            on: vec![NodeId::pv("pv")],
            name: "vg".into(),
            uuid: "vg".into(),
            extent_size: EXTENT,
            free: Bytes::mib(free / 4 * 4),
            tags: Vec::new(),
            settings: GroupSettings::default(),
        };
        self.node(vg, Node::VolumeGroup(group));
    }

    /// The disk ends `behind` MiB behind the last partition; one of the ext4 filesystems becomes `/`.
    pub fn finish(mut self, behind: u64, root: Index) -> Host {
        let filesystems = |layout: &Layout| -> Vec<NodeId> {
            let ids = layout.nodes.iter();
            ids.filter(|(_, n)| matches!(n, Node::Ext4(_)))
                .map(|(id, _)| id.clone())
                .collect()
        };
        if filesystems(&self.layout).is_empty() {
            self.partition(Content::Ext4 {
                mib: 1000,
                used: Some(300),
            });
        }
        let all = filesystems(&self.layout);
        let root = root.get(&all).clone();
        self.close(behind, root)
    }

    /// As [`Host::finish`] with nothing behind, and with the volume `root`.
    pub fn finish_with_root(self) -> Host {
        let root = self
            .layout
            .children(&NodeId::lv("vg", "root"))
            .next()
            .map(|(id, _)| id.clone());
        self.close(0, root.expect("a volume called root"))
    }

    fn close(mut self, behind: u64, root: NodeId) -> Host {
        self.size = (self.next + 33) * 512 + (behind << 20);
        let node = Node::Disk(disk(DISK, self.size, "SAVED-1"));
        self.node(NodeId::disk(DISK), node);
        self.layout.mounts.push(root_mount(root));
        self
    }
}

/// Two disks with equal tables. `shared`: both hold physical volumes of one group; else each has an ext4 of its own.
pub fn two_disks(shared: bool) -> Layout {
    let mut layout = Layout::new(Firmware::Bios);
    let size = 2u64 << 30;
    let mut pvs = Vec::new();
    for n in 1..=2u32 {
        let guid = uuid(n);
        let on = NodeId::disk(&guid);
        layout.nodes.insert(
            on.clone(),
            Node::Disk(disk(&guid, size, &format!("OLD-{n}"))),
        );
        let id = NodeId::partition(&uuid(10 + n));
        layout.nodes.insert(
            id.clone(),
            Node::Partition(Partition {
                on,
                device: format!("/dev/sd{n}1").into(),
                number: 1,
                type_guid: types::LINUX.into(),
                partuuid: uuid(10 + n),
                name: String::new(),
                attributes: 0,
                start: Lba(2048),
                end: Lba(2048 + (1 << 21) - 1),
                sector_size: SectorSize::S512,
            }),
        );
        if shared {
            let pv = NodeId::pv(&n.to_string());
            layout.nodes.insert(
                pv.clone(),
                Node::PhysicalVolume(PhysicalVolume {
                    on: id,
                    uuid: n.to_string(),
                    pe_start: Bytes::MIB,
                    size: Bytes::mib(1020),
                    tags: Vec::new(),
                    allocatable: true,
                }),
            );
            pvs.push(pv);
        } else {
            let fs = Node::Ext4(ext4(id, 20 + n, 1024, None));
            let fs_id = NodeId::fs(&uuid(20 + n));
            layout.nodes.insert(fs_id.clone(), fs);
            let mut mount = root_mount(fs_id);
            mount.mount_point = ["/", "/home"][n as usize - 1].into();
            layout.mounts.push(mount);
        }
    }
    if shared {
        layout.nodes.insert(
            NodeId::vg("vg"),
            Node::VolumeGroup(VolumeGroup {
                on: pvs,
                name: "vg".into(),
                uuid: "vg".into(),
                extent_size: EXTENT,
                free: Bytes::mib(16),
                tags: Vec::new(),
                settings: GroupSettings::default(),
            }),
        );
        let root = NodeId::lv("vg", "root");
        layout.nodes.insert(
            root.clone(),
            Node::LogicalVolume(LogicalVolume {
                on: NodeId::vg("vg"),
                device: "/dev/vg/root".into(),
                name: "root".into(),
                uuid: "root".into(),
                size: Bytes::mib(2024),
                active: true,
                writeable: true,
                tags: Vec::new(),
                cache: None,
                pvs: Vec::new(),
                segments: Segments::Linear,
                settings: VolumeSettings::default(),
            }),
        );
        let fs = NodeId::fs(&uuid(30));
        layout
            .nodes
            .insert(fs.clone(), Node::Ext4(ext4(root, 30, 2024, None)));
        layout.mounts.push(root_mount(fs));
    }
    layout
}
