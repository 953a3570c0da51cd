//! What boots, and what names devices, where there are fewer disks than before.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;

use std::path::Path;

use build::{disk_ids as ids, machine, saved};
use layout::inventory::InventoryDisk;
use layout::model::{
    CrypttabEntry, Firmware, GrubEfi, Layout, Luks, Node, NodeId, ProxmoxEsp, Swap, types,
};
use layout::plan::{Choices, DiskChoice, Plan, PlanError, Step, plan};
use layout::units::{Bytes, Lba, SectorSize};

fn blank(device: &str, mib: u64) -> InventoryDisk {
    build::blank(device, mib << 20)
}

fn with(
    layout: &Layout,
    disks: Vec<InventoryDisk>,
    n: usize,
    choice: DiskChoice,
) -> Result<Plan, PlanError> {
    let choices = Choices {
        disks: [(ids(layout)[n].clone(), choice)].into(),
        ..Choices::default()
    };
    plan(layout, &machine(disks), &choices)
}

fn without(layout: &Layout, n: usize) -> Result<Plan, PlanError> {
    with(
        layout,
        vec![blank("/dev/vda", 1400)],
        n,
        DiskChoice::Missing,
    )
}

fn onto(layout: &Layout, n: usize, other: usize, mib: u64) -> Result<Plan, PlanError> {
    let choice = DiskChoice::Onto(ids(layout)[other].clone());
    with(layout, vec![blank("/dev/vda", mib)], n, choice)
}

fn replaced(plan: &Plan) -> &[(String, String)] {
    let found = plan.steps.iter().find_map(|s| match s {
        Step::UpdateFstab { replace, .. } => Some(replace.as_slice()),
        _ => None,
    });
    found.unwrap()
}

/// The EFI system partition on a disk.
fn esp_on(layout: &Layout, n: usize) -> NodeId {
    let disk = &ids(layout)[n];
    let parts = layout.partitions(disk);
    let esp = parts.iter().find(|(_, p)| p.type_guid == types::ESP);
    esp.unwrap().0.clone()
}

/// A mirror, and a data disk that was a system disk once: it has an EFI system partition still.
fn with_old_disk() -> Layout {
    let mut layout = saved("md1-lvm");
    let data = NodeId::disk("a-data-disk");
    let (Node::Disk(mut disk), Node::Partition(mut part)) = (
        layout.nodes[&ids(&layout)[0]].clone(),
        layout.nodes[&esp_on(&layout, 1)].clone(),
    ) else {
        panic!("no disk")
    };
    (disk.device, disk.serial) = ("/dev/sdz".into(), Some("DATA".into()));
    // In the order of the names it comes first.
    part.partuuid = "00000000-0000-4000-8000-000000000000".into();
    (part.on, part.device) = (data.clone(), "/dev/sdz2".into());
    let id = NodeId::partition(&part.partuuid);
    layout.nodes.insert(id, Node::Partition(part));
    layout.nodes.insert(data, Node::Disk(disk));
    layout
}

#[test]
fn no_data_disk_becomes_a_target_for_an_efi_partition() {
    let layout = with_old_disk();
    let mut present = blank("/dev/vdb", 1400);
    present.serial = Some("DATA".into());
    present.contents = vec!["photographs".into()];
    let lost = ids(&layout)
        .iter()
        .position(|id| id.as_str() == "disk:00000012-0000-4000-8000-000000000001")
        .unwrap();
    let disks = vec![blank("/dev/vda", 1400), present];
    let plan = with(&layout, disks, lost, DiskChoice::Missing).unwrap();
    let targets: Vec<&Path> = plan.disks.iter().map(|d| d.device.as_path()).collect();
    assert_eq!(targets, [Path::new("/dev/vda")]);
    assert!(
        plan.steps
            .iter()
            .any(|s| matches!(s, Step::MakeVfat { .. }))
    );
}

#[test]
fn the_last_boot_loader_is_not_done_without() {
    let mut layout = saved("md1-lvm");
    layout.firmware = Firmware::Uefi;
    layout
        .mounts
        .retain(|m| m.mount_point != Path::new("/boot/efi"));
    let first = NodeId::fs("5A12-0009");
    // The second disk has no EFI system partition.
    let second = esp_on(&layout, 1);
    layout.nodes.remove(&second);
    layout.boot.proxmox_esps = vec![ProxmoxEsp {
        esp: first.clone(),
        systemd_boot: true,
        grub_efi: false,
        grub: false,
    }];
    let error = without(&layout, 0).unwrap_err();
    assert!(error.to_string().contains("boot loader"), "{error}");
    // What does not boot goes.
    let plan = without(&layout, 1).unwrap();
    assert!(
        plan.steps
            .iter()
            .any(|s| matches!(s, Step::ProxmoxBoot { .. }))
    );
    layout.boot.proxmox_esps.clear();
    layout.boot.grub_efi = vec![grub(&first)];
    let error = without(&layout, 0).unwrap_err();
    assert!(error.to_string().contains("boot loader"), "{error}");
}

fn grub(esp: &NodeId) -> GrubEfi {
    GrubEfi {
        esp: esp.clone(),
        bootloader_id: "proxmox".into(),
        shim: true,
        fallback: true,
    }
}

#[test]
fn an_efi_partition_that_boots_is_not_dropped_for_one_that_does_not() {
    let mut layout = saved("md1-lvm");
    layout
        .mounts
        .retain(|m| m.mount_point != Path::new("/boot/efi"));
    layout.boot.proxmox_esps = vec![ProxmoxEsp {
        esp: NodeId::fs("5A12-0009"),
        systemd_boot: true,
        grub_efi: false,
        grub: false,
    }];
    // The disk whose place is shared has an empty one.
    let plan = onto(&layout, 0, 1, 1600).unwrap();
    assert!(
        plan.steps
            .iter()
            .any(|s| matches!(s, Step::ProxmoxBoot { .. })),
        "{:?}",
        plan.notes
    );
}

#[test]
fn a_copy_that_is_taken_over_gets_one_loader() {
    let mut layout = saved("md1-lvm");
    layout.boot.grub_efi = vec![grub(&NodeId::fs("5A12-0009")), grub(&esp_on(&layout, 1))];
    layout.boot.grub_platforms = vec!["x86_64-efi".into()];
    let plan = without(&layout, 0).unwrap();
    let loaders = |s: &&Step| matches!(s, Step::GrubEfi { .. } | Step::EfiBootEntry { .. });
    let loaders: Vec<&Step> = plan.steps.iter().filter(loaders).collect();
    assert_eq!(loaders.len(), 2, "{loaders:#?}");
    let explained = plan.substitutions.iter();
    let mut explained = explained.filter(|s| s.node == NodeId::new("boot"));
    assert!(explained.any(|s| s.what == "grub_efi"));
}

#[test]
fn names_that_the_saved_host_used_are_replaced_and_no_others() {
    let mut layout = saved("lvm-two-groups");
    // A swap area on the disk that goes, named by the kernel's command line only.
    let all = ids(&layout);
    let gone = all.iter().position(|id| !layout.partitions(id).is_empty());
    let gone = gone.unwrap();
    let disk = all[gone].clone();
    let parts = layout.partitions(&disk);
    let (last, part) = parts.into_iter().max_by_key(|(_, p)| p.end).unwrap();
    let mut part = part.clone();
    let sectors = (64 << 20) / 512;
    part.start = Lba((part.end.0 + 1).next_multiple_of(2048));
    part.end = Lba(part.start.0 + sectors - 1);
    (part.number, part.device) = (part.number + 1, "/dev/sdb9".into());
    part.partuuid = "00000000-0000-4000-8000-0000005a5a5a".into();
    let on = NodeId::partition(&part.partuuid);
    assert_ne!(*last, on);
    layout.nodes.insert(on.clone(), Node::Partition(part));
    if let Some(Node::Disk(disk)) = layout.nodes.get_mut(&disk) {
        disk.size = Bytes(disk.size.0 + (80 << 20));
    }
    let swap = Swap {
        on,
        uuid: "5a5a".into(),
        label: None,
        page_size: Bytes(4096),
        size: Bytes((64 << 20) - 4096),
        active: true,
        fstab: None,
    };
    layout.nodes.insert(NodeId::swap("5a5a"), Node::Swap(swap));
    let plan = onto(&layout, gone, 1 - gone, 6000).unwrap();
    let names: Vec<&str> = replaced(&plan)
        .iter()
        .filter(|(_, new)| new == "UUID=5a5a")
        .map(|(old, _)| old.as_str())
        .collect();
    assert_eq!(names, ["/dev/sdb9"]);
}

#[test]
fn the_line_of_a_container_that_is_not_made_is_switched_off() {
    let mut layout = saved("md1-lvm");
    // What is left of the second disk: a container of its own, with data that are no part of the system.
    let disk = ids(&layout)[1].clone();
    let esp = esp_on(&layout, 1);
    let luks = Luks {
        on: esp.clone(),
        device: "/dev/mapper/vault".into(),
        name: "vault".into(),
        uuid: "1u".into(),
        version: 2,
        label: None,
        cipher: "aes-xts-plain64".into(),
        key_bits: 512,
        sector_size: SectorSize::S512,
        data_offset: Bytes::mib(16),
        header_size: Bytes::mib(16),
        flags: Vec::new(),
        key_slots: 1,
        bound_slots: 0,
        tokens: Vec::new(),
        open: false,
        size: Bytes::mib(48),
        crypttab: Some(CrypttabEntry {
            name: "vault".into(),
            source: "UUID=1u".into(),
            key: "none".into(),
            options: Vec::new(),
        }),
    };
    layout.nodes.insert(NodeId::luks("1u"), Node::Luks(luks));
    if let Some(Node::Partition(part)) = layout.nodes.get_mut(&esp) {
        part.type_guid = types::LINUX.into();
        assert_eq!(part.on, disk);
    }
    let plan = without(&layout, 1).unwrap();
    let text = serde_json::to_string(&plan.steps).unwrap();
    assert!(
        text.contains(r#""step":"update_crypttab","replace":[],"switch_off":["vault"]"#),
        "{text}"
    );
    let told = |words: &str| plan.notes.iter().any(|n| n.contains(words));
    assert!(
        told("not made: its line") && told("done without: LUKS container vault"),
        "{:?}",
        plan.notes
    );
}

#[test]
fn parity_on_one_disk_is_told() {
    let layout = saved("zfs-raidz1");
    let size = layout.disks().map(|(_, d)| d.size.0 >> 20).max().unwrap();
    let disks = vec![blank("/dev/vda", size * 3), blank("/dev/vdb", size)];
    let all = ids(&layout);
    let choices = Choices {
        disks: [
            (all[0].clone(), DiskChoice::Device("/dev/vda".into())),
            (all[1].clone(), DiskChoice::Onto(all[0].clone())),
            (all[2].clone(), DiskChoice::Device("/dev/vdb".into())),
        ]
        .into(),
        ..Choices::default()
    };
    let plan = plan(&layout, &machine(disks), &choices).unwrap();
    assert!(
        plan.notes
            .iter()
            .any(|n| n.contains("tank") && n.contains("on one disk")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn what_may_be_the_lost_disk_is_named() {
    let layout = saved("md1-lvm");
    let mut old = blank("/dev/vdb", 1400);
    old.serial = Some("OLD-DISK-2".into());
    old.model = Some("Bridge".into());
    old.contents = vec!["member of RAID array 'floor:pve'".into()];
    let disks = vec![blank("/dev/vda", 1400), old];
    let plan = with(&layout, disks, 1, DiskChoice::Missing).unwrap();
    assert!(
        plan.notes
            .iter()
            .any(|n| n.contains("/dev/vdb") && n.contains("another model")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn an_old_disk_beside_the_one_that_takes_its_place_is_named() {
    let layout = saved("gpt-ext4-xfs-swap");
    let mut old = blank("/dev/vdb", 8192);
    let (id, disk) = layout.disks().next().unwrap();
    (old.serial, old.size) = (disk.serial.clone(), disk.size);
    old.model = disk.model.clone();
    old.contents = vec!["ext4".into()];
    let choices = Choices {
        disks: [(id.clone(), DiskChoice::Device("/dev/vda".into()))].into(),
        ..Choices::default()
    };
    let new = blank("/dev/vda", (disk.size.0 >> 20) + 1);
    let plan = plan(&layout, &machine(vec![new, old]), &choices).unwrap();
    assert!(
        plan.notes
            .iter()
            .any(|n| n.starts_with("/dev/vdb") && n.contains("is the saved disk")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn everything_that_is_lost_is_named() {
    let mut layout = saved("md1-lvm");
    let esp = esp_on(&layout, 1);
    if let Some(Node::Partition(part)) = layout.nodes.get_mut(&esp) {
        part.type_guid = types::LINUX.into();
    }
    let Some(Node::Vfat(mut fs)) = layout.nodes.get(&NodeId::fs("5A12-0009")).cloned() else {
        panic!("no filesystem")
    };
    (fs.on, fs.uuid) = (esp, "10E7-0001".into());
    layout.nodes.insert(NodeId::fs("10E7-0001"), Node::Vfat(fs));
    let plan = without(&layout, 1).unwrap();
    assert!(
        plan.notes
            .iter()
            .any(|n| n.contains("filesystem fs:10E7-0001")),
        "{:?}",
        plan.notes
    );
    // A partition that other disks have, too.
    let plan = without(&saved("md1-lvm"), 1).unwrap();
    assert!(
        plan.notes
            .iter()
            .any(|n| n.starts_with("The EFI system partition of disk:")),
        "{:?}",
        plan.notes
    );
}
