//! Boot loaders in plans: on every disk that had one, for the firmware at hand, and no name of a disk that is gone.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;

use std::path::{Path, PathBuf};

use build::disk_ids;
use layout::inventory::{Inventory, InventoryDisk};
use layout::model::{
    Disk, Firmware, FstabEntry, GrubBios, GrubEfi, Layout, Node, NodeId, Partition, ProxmoxEsp,
    SystemdBoot, Vfat, types,
};
use layout::plan::{Choices, DiskChoice, Plan, ProxmoxMode, Step, plan};
use layout::units::{Bytes, Lba, SectorSize};

fn saved(name: &str) -> Layout {
    let mut layout = build::saved(name);
    layout.boot.kernels = vec!["6.8.12-1-pve".into()];
    layout.boot.grub_platforms = vec!["i386-pc".into(), "x86_64-efi".into()];
    layout
}

/// The saved disks, on NVMe and `factor` times as big.
fn machine(layout: &Layout, firmware: Firmware, factor: u64) -> Inventory {
    let disk = |(n, (_, saved)): (usize, (&NodeId, &Disk))| InventoryDisk {
        // A bigger disk is another one.
        serial: saved.serial.clone().filter(|_| factor == 1),
        transport: Some("nvme".into()),
        ..build::blank(&format!("/dev/nvme{n}n1"), saved.size.0 * factor)
    };
    build::started(firmware, layout.disks().enumerate().map(disk).collect())
}

fn planned(layout: &Layout, firmware: Firmware) -> Plan {
    plan(layout, &machine(layout, firmware, 1), &Choices::default()).unwrap()
}

/// A btrfs mirror as the Proxmox VE installer makes it: an EFI system partition on each disk, neither mounted.
fn two_esps() -> (Layout, [NodeId; 2]) {
    let mut layout = saved("btrfs-raid1");
    let mut esps = Vec::new();
    for (n, id) in disk_ids(&layout).into_iter().enumerate() {
        let letter = ['a', 'b'][n];
        let partuuid = format!("000000e5-0000-4000-8000-00000000000{n}");
        let part = NodeId::partition(&partuuid);
        layout.nodes.insert(
            part.clone(),
            Node::Partition(Partition {
                on: id,
                device: format!("/dev/sd{letter}2").into(),
                number: 2,
                type_guid: types::ESP.into(),
                partuuid,
                name: String::new(),
                attributes: 0,
                start: Lba(2048),
                end: Lba(133_119),
                sector_size: SectorSize::S512,
            }),
        );
        let uuid = format!("E5E5-000{n}");
        esps.push(NodeId::fs(&uuid));
        layout.nodes.insert(
            NodeId::fs(&uuid),
            Node::Vfat(Vfat {
                on: part,
                uuid,
                label: None,
                fat_bits: 32,
                cluster_size: Bytes(512),
                size: Bytes::mib(64),
                used: None,
            }),
        );
    }
    (layout, esps.try_into().unwrap())
}

fn grub_efi(esp: &NodeId) -> GrubEfi {
    GrubEfi {
        esp: esp.clone(),
        bootloader_id: "debian".into(),
        shim: false,
        fallback: true,
    }
}

fn bios_devices(plan: &Plan) -> Vec<&Path> {
    let found = plan.steps.iter().filter_map(|s| match s {
        Step::GrubBios { device, .. } => Some(device.as_path()),
        _ => None,
    });
    found.collect()
}

/// Where GRUB for UEFI goes: mount point and partition.
fn efi_places(plan: &Plan) -> Vec<(&Path, Option<&Path>)> {
    let found = plan.steps.iter().filter_map(|s| match s {
        Step::GrubEfi { esp, device, .. } => Some((esp.as_path(), device.as_deref())),
        _ => None,
    });
    found.collect()
}

fn noted(plan: &Plan, words: &str) -> bool {
    plan.notes.iter().any(|n| n.contains(words))
}

fn accepted(plan: &Plan, what: &str) -> bool {
    let boot = NodeId::new("boot");
    let mut list = plan.substitutions.iter();
    list.any(|s| s.node == boot && s.what == what)
}

#[test]
fn each_esp_of_a_mirror_gets_its_files_and_its_loader() {
    let (mut layout, esps) = two_esps();
    layout.boot.grub_efi = esps.iter().map(grub_efi).collect();
    let parts: Vec<NodeId> = esps
        .iter()
        .map(|e| layout.nodes[e].on()[0].clone())
        .collect();
    layout.boot.esp_images.clone_from(&parts);
    let plan = planned(&layout, Firmware::Uefi);
    let both = ["/dev/nvme0n1p2", "/dev/nvme1n1p2"].map(Path::new);
    let usual = Path::new("/boot/efi");
    assert_eq!(
        efi_places(&plan),
        [(usual, Some(both[0])), (usual, Some(both[1]))]
    );
    let images: Vec<&Path> = plan
        .steps
        .iter()
        .filter_map(|s| match s {
            Step::RestoreImage { device, .. } => Some(device.as_path()),
            _ => None,
        })
        .collect();
    assert_eq!(images, both);
    assert!(
        !plan
            .steps
            .iter()
            .any(|s| matches!(s, Step::MakeVfat { .. }))
    );
    let entries: Vec<&Path> = plan
        .steps
        .iter()
        .filter_map(|s| match s {
            Step::EfiBootEntry { device, .. } => Some(device.as_path()),
            _ => None,
        })
        .collect();
    assert_eq!(entries, ["/dev/nvme0n1", "/dev/nvme1n1"].map(Path::new));
    assert!(!noted(&plan, "stays empty"), "{:?}", plan.notes);
    // It is saved, too.
    let saved: Vec<NodeId> = layout
        .unknown_partitions()
        .into_iter()
        .map(|p| p.id)
        .collect();
    assert_eq!(saved, parts);

    // An image is no use on sectors of another size: the filesystem is made anew, and gets its loader.
    let mut other = machine(&layout, Firmware::Uefi, 2);
    other.disks[0].sector_size = SectorSize::S4096;
    if let Some(Node::Partition(esp)) = layout.nodes.get_mut(&parts[0]) {
        // Whole sectors of 4096 bytes.
        assert_eq!((esp.start.0 % 8, (esp.end.0 + 1) % 8), (0, 0));
    }
    let chosen = layout.disks().map(|(id, _)| id.clone()).zip(&other.disks);
    let choices = Choices {
        disks: chosen
            .map(|(id, disk)| (id, DiskChoice::Device(disk.device.clone())))
            .collect(),
        ..Choices::default()
    };
    let plan = layout::plan::plan(&layout, &other, &choices).unwrap();
    let made: Vec<&PathBuf> = plan
        .steps
        .iter()
        .filter_map(|s| match s {
            Step::MakeVfat { device, .. } => Some(device),
            _ => None,
        })
        .collect();
    assert_eq!(made, [Path::new("/dev/nvme0n1p2")]);
    assert!(noted(&plan, "other files that it had do not come back"));
    assert_eq!(efi_places(&plan).len(), 2);
}

#[test]
fn a_copy_of_an_esp_gets_a_loader_of_its_own() {
    let (mut layout, [first, second]) = two_esps();
    let copy = layout.nodes[&second].on()[0].clone();
    layout.nodes.remove(&second);
    layout.boot.grub_efi = vec![grub_efi(&first), grub_efi(&copy)];
    let plan = planned(&layout, Firmware::Uefi);
    assert_eq!(efi_places(&plan)[1].1, Some(Path::new("/dev/nvme1n1p2")));
    let entries = plan
        .steps
        .iter()
        .filter(|s| matches!(s, Step::EfiBootEntry { .. }));
    assert_eq!(entries.count(), 2);
}

#[test]
fn proxmox_boot_tool_sets_up_its_partitions_for_the_firmware_at_hand() {
    let (mut layout, esps) = two_esps();
    let disks = disk_ids(&layout);
    for (now, saved_mode, mode) in [
        (
            Firmware::Uefi,
            (true, false, false),
            ProxmoxMode::SystemdBoot,
        ),
        (Firmware::Uefi, (false, true, true), ProxmoxMode::GrubEfi),
        (Firmware::Bios, (false, false, true), ProxmoxMode::GrubBios),
        (Firmware::Bios, (true, false, false), ProxmoxMode::GrubBios),
        (Firmware::Uefi, (false, false, true), ProxmoxMode::Uefi),
    ] {
        let (systemd_boot, grub_efi, grub) = saved_mode;
        layout.boot.proxmox_esps = esps
            .iter()
            .map(|esp| ProxmoxEsp {
                esp: esp.clone(),
                systemd_boot,
                grub_efi,
                grub,
            })
            .collect();
        // With BIOS it put GRUB into the MBRs: nothing that a step of ours has to do.
        layout.boot.grub_bios = match grub && !grub_efi {
            true => disks
                .iter()
                .map(|disk| GrubBios { disk: disk.clone() })
                .collect(),
            false => Vec::new(),
        };
        layout.firmware = match systemd_boot || grub_efi {
            true => Firmware::Uefi,
            false => Firmware::Bios,
        };
        let plan = planned(&layout, now);
        let made: Vec<&[layout::plan::PlannedEsp]> = plan
            .steps
            .iter()
            .filter_map(|s| match s {
                Step::ProxmoxBoot { esps } => Some(esps.as_slice()),
                _ => None,
            })
            .collect();
        let [made] = made[..] else {
            panic!("{mode:?}: {} steps", made.len());
        };
        assert_eq!(made.len(), 2);
        assert_eq!(made[1].device, Path::new("/dev/nvme1n1p2"));
        assert_eq!(made[1].uuid, "E5E5-0001");
        assert!(made.iter().all(|esp| esp.mode == mode), "{made:?}");
        assert!(bios_devices(&plan).is_empty() && efi_places(&plan).is_empty());
        // Filesystems with their volume ids come first: the tool's list has these.
        let vfat = |s: &Step| matches!(s, Step::MakeVfat { fs, .. } if fs.uuid.starts_with("E5E5"));
        assert_eq!(plan.steps.iter().filter(|s| vfat(s)).count(), 2);
        assert!(!plan.steps.contains(&Step::GrubConfig));
        assert!(!noted(&plan, "stays empty") && !noted(&plan, "No boot loader"));
        let across = layout.firmware != now;
        assert_eq!(accepted(&plan, "proxmox_esps"), across, "{mode:?}");
        assert_eq!(noted(&plan, "sets its partitions up for"), across);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}

#[test]
fn proxmox_boot_tool_is_not_asked_for_what_cannot_be() {
    let (mut layout, esps) = two_esps();
    layout.boot.proxmox_esps = esps
        .iter()
        .map(|esp| ProxmoxEsp {
            esp: esp.clone(),
            systemd_boot: true,
            grub_efi: false,
            grub: false,
        })
        .collect();
    layout.firmware = Firmware::Uefi;
    layout
        .nodes
        .retain(|_, n| !matches!(n, Node::Partition(p) if p.type_guid == types::BIOS_BOOT));
    let plan = planned(&layout, Firmware::Bios);
    assert!(
        !plan
            .steps
            .iter()
            .any(|s| matches!(s, Step::ProxmoxBoot { .. }))
    );
    assert!(
        noted(&plan, "Start the stick through UEFI instead"),
        "{:?}",
        plan.notes
    );
    assert!(!noted(&plan, "the saved host had none"), "{:?}", plan.notes);
}

/// A PVE host on LVM that the installer was started through BIOS on.
fn bios_host() -> Layout {
    let mut layout = saved("pve-ext4-lvm");
    layout.firmware = Firmware::Bios;
    layout.boot.grub_bios = vec![GrubBios {
        disk: disk_ids(&layout)[0].clone(),
    }];
    layout
        .mounts
        .retain(|m| m.mount_point != Path::new("/boot/efi"));
    let esp = NodeId::fs("5A1B-0001");
    layout.boot.esp_images = layout.nodes[&esp].on();
    layout
}

fn added_lines(plan: &Plan) -> &[String] {
    let found = plan.steps.iter().find_map(|s| match s {
        Step::UpdateFstab { add, .. } => Some(add.as_slice()),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn a_bios_host_boots_through_uefi_where_there_is_an_esp() {
    let layout = bios_host();
    let plan = planned(&layout, Firmware::Uefi);
    assert_eq!(
        efi_places(&plan),
        [(Path::new("/boot/efi"), Some(Path::new("/dev/nvme0n1p2")))]
    );
    assert_eq!(
        added_lines(&plan),
        ["UUID=5A1B-0001 /boot/efi vfat umask=0077 0 1"]
    );
    assert!(
        plan.steps.iter().any(
            |s| matches!(s, Step::GrubEfi { bootloader_id, .. } if bootloader_id == "proxmox")
        )
    );
    assert!(plan.steps.iter().any(
        |s| matches!(s, Step::EfiBootEntry { loader, .. } if loader == "\\EFI\\proxmox\\grubx64.efi")
    ));
    // It still boots through BIOS.
    assert_eq!(bios_devices(&plan).len(), 1);
    assert!(accepted(&plan, "grub_efi") && noted(&plan, "GRUB for UEFI is installed as well"));
    assert!(!noted(&plan, "legacy boot"));

    let same = planned(&layout, Firmware::Bios);
    assert!(efi_places(&same).is_empty() && added_lines(&same).is_empty());

    let mut without = layout.clone();
    without.boot.grub_platforms = vec!["i386-pc".into()];
    let plan = planned(&without, Firmware::Uefi);
    assert!(efi_places(&plan).is_empty());
    assert!(noted(&plan, "package grub-efi-amd64-bin") && noted(&plan, "legacy boot (CSM)"));
}

#[test]
fn an_esp_is_added_where_it_fits() {
    let mut layout = bios_host();
    let esp = NodeId::fs("5A1B-0001");
    let part = layout.nodes[&esp].on()[0].clone();
    layout.nodes.remove(&esp);
    layout.nodes.remove(&part);
    layout.boot.esp_images.clear();
    let no_room = planned(&layout, Firmware::Uefi);
    assert!(efi_places(&no_room).is_empty());
    assert!(noted(
        &no_room,
        "no EFI system partition, and no room for one"
    ));

    let bigger = machine(&layout, Firmware::Uefi, 2);
    let plan = layout::plan::plan(&layout, &bigger, &Choices::default()).unwrap();
    let Some(Step::WriteGpt {
        partitions, table, ..
    }) = plan
        .steps
        .iter()
        .find(|s| matches!(s, Step::WriteGpt { .. }))
    else {
        panic!("no table")
    };
    let new = partitions
        .iter()
        .find(|p| p.type_guid == types::ESP)
        .unwrap();
    assert_eq!((new.number, new.start.0 % 2048), (2, 0));
    assert!(new.end <= table.last_usable);
    assert!(
        partitions
            .iter()
            .all(|p| p.number == 2 || p.end < new.start)
    );
    assert_eq!(efi_places(&plan)[0].1, Some(Path::new("/dev/nvme0n1p2")));
    let line = &added_lines(&plan)[0];
    assert!(line.ends_with(" /boot/efi vfat umask=0077 0 1"), "{line}");
    let added = |s: &&layout::plan::Substitution| s.reason.starts_with("it is added");
    let added: Vec<_> = plan.substitutions.iter().filter(added).collect();
    assert_eq!(added.len(), 2, "{added:?}");
    assert!(added.iter().all(|s| s.what == "*"));
    // The same plan each time: what was confirmed is what is done.
    assert_eq!(
        layout::plan::plan(&layout, &bigger, &Choices::default()).unwrap(),
        plan
    );
    // Nothing is added where the firmware is the same.
    let bios = machine(&layout, Firmware::Bios, 2);
    let plan = layout::plan::plan(&layout, &bios, &Choices::default()).unwrap();
    assert!(!noted(&plan, "is added"));
}

#[test]
fn a_uefi_host_boots_through_bios_where_grub_has_room() {
    let mut layout = saved("pve-ext4-lvm");
    layout.boot.grub_efi = vec![grub_efi(&NodeId::fs("5A1B-0001"))];
    let plan = planned(&layout, Firmware::Bios);
    assert_eq!(bios_devices(&plan), [Path::new("/dev/nvme0n1")]);
    assert!(accepted(&plan, "grub_bios") && noted(&plan, "GRUB for BIOS is installed as well"));
    assert_eq!(efi_places(&plan), [(Path::new("/boot/efi"), None)]);

    // Without a partition for its core there is room for one before the first.
    let boot_part = layout
        .nodes
        .iter()
        .find_map(|(id, n)| {
            matches!(n, Node::Partition(p) if p.type_guid == types::BIOS_BOOT).then(|| id.clone())
        })
        .unwrap();
    layout.nodes.remove(&boot_part);
    let plan = planned(&layout, Firmware::Bios);
    assert_eq!(bios_devices(&plan).len(), 1);
    let added = plan.steps.iter().find_map(|s| match s {
        Step::WriteGpt { partitions, .. } => {
            partitions.iter().find(|p| p.type_guid == types::BIOS_BOOT)
        }
        _ => None,
    });
    let added = added.unwrap();
    assert_eq!(
        (added.start, added.end, added.number),
        (Lba(34), Lba(2047), 1)
    );
    assert!(noted(&plan, "A BIOS boot partition is added"));

    // And where there is none, it is said.
    if let Some(Node::Disk(disk)) = layout.nodes.get_mut(&disk_ids(&layout)[0]) {
        if let Some(layout::model::Table::Gpt(table)) = &mut disk.table {
            table.first_usable = Lba(2048);
        }
    }
    let plan = planned(&layout, Firmware::Bios);
    assert!(bios_devices(&plan).is_empty());
    assert!(noted(&plan, "no BIOS boot partition") && noted(&plan, "Switch the firmware to UEFI"));
}

#[test]
fn systemd_boot_gets_an_entry_and_comes_back_with_the_files() {
    let mut layout = saved("pve-ext4-lvm");
    layout.boot.systemd_boot = vec![SystemdBoot {
        esp: NodeId::fs("5A1B-0001"),
        fallback: true,
    }];
    let plan = planned(&layout, Firmware::Uefi);
    assert!(plan.steps.iter().any(|s| matches!(
        s,
        Step::EfiBootEntry { loader, label, .. }
            if loader == "\\EFI\\systemd\\systemd-bootx64.efi" && label == "Linux Boot Manager"
    )));
    assert!(!noted(&plan, "No boot loader") && !plan.steps.contains(&Step::GrubConfig));
}

#[test]
fn disks_that_stay_are_named_by_what_is_on_them() {
    // sdb is a data disk, mounted by its kernel name; on the other machine it comes first.
    let mut layout = saved("pve-ext4-lvm");
    let data = NodeId::disk("data");
    let Node::Disk(mut disk) = layout.nodes[&disk_ids(&layout)[0]].clone() else {
        panic!("no disk")
    };
    (disk.device, disk.serial) = ("/dev/sdb".into(), Some("DATA".into()));
    layout.nodes.insert(data.clone(), Node::Disk(disk));
    let Some(Node::Ext4(mut fs)) = layout
        .nodes
        .values()
        .find(|n| matches!(n, Node::Ext4(_)))
        .cloned()
    else {
        panic!("no filesystem")
    };
    (fs.on, fs.uuid) = (NodeId::partition("d1"), "da7a".into());
    let Some(Node::Partition(mut part)) = layout
        .nodes
        .values()
        .find(|n| matches!(n, Node::Partition(_)))
        .cloned()
    else {
        panic!("no partition")
    };
    (part.on, part.device, part.partuuid) = (data, "/dev/sdb1".into(), "d1".into());
    layout
        .nodes
        .insert(NodeId::partition("d1"), Node::Partition(part));
    layout.nodes.insert(NodeId::fs("da7a"), Node::Ext4(fs));
    let mut mount = layout.mounts[0].clone();
    mount.node = NodeId::fs("da7a");
    mount.mount_point = "/mnt/data".into();
    mount.fstab = Some(FstabEntry {
        spec: "/dev/sdb1".into(),
        file: "/mnt/data".into(),
        fstype: "ext4".into(),
        options: Vec::new(),
        freq: 0,
        passno: 0,
    });
    layout.mounts.push(mount);
    let mut present = machine(&layout, Firmware::Uefi, 1);
    present
        .disks
        .retain(|d| d.serial.as_deref() != Some("DATA"));
    let plan = plan(&layout, &present, &Choices::default()).unwrap();
    let replace = plan.steps.iter().find_map(|s| match s {
        Step::UpdateFstab { replace, .. } => Some(replace),
        _ => None,
    });
    let new = ("/dev/sdb1".to_owned(), "UUID=da7a".to_owned());
    assert!(replace.unwrap().contains(&new), "{replace:?}");
}

#[test]
fn another_bus_needs_its_drivers_in_a_listed_initramfs() {
    let mut layout = bios_host();
    let has = |layout: &Layout| {
        let plan = planned(layout, Firmware::Bios);
        let mut steps = plan.steps.iter();
        steps.any(|s| matches!(s, Step::InitramfsDrivers { devices } if devices == &[PathBuf::from("/dev/nvme0n1")]))
    };
    for (modules, expected) in [(None, false), (Some("most"), false), (Some("list"), true)] {
        layout.boot.initramfs_modules = modules.map(str::to_owned);
        assert_eq!(has(&layout), expected, "{modules:?}");
    }
    for node in layout.nodes.values_mut() {
        if let Node::Disk(disk) = node {
            disk.transport = Some("nvme".into());
        }
    }
    assert!(!has(&layout));
}

#[test]
fn boot_code_of_an_earlier_life_is_not_installed_again() {
    // Debian was installed anew through UEFI: the MBR has GRUB's code still, and nothing else of it is there.
    let mut layout = bios_host();
    layout.firmware = Firmware::Uefi;
    layout.boot.grub_efi = vec![grub_efi(&NodeId::fs("5A1B-0001"))];
    layout.boot.grub_platforms = vec!["x86_64-efi".into()];
    let plan = planned(&layout, Firmware::Uefi);
    assert!(bios_devices(&plan).is_empty());
    assert_eq!(efi_places(&plan).len(), 1);
    assert!(accepted(&plan, "grub_bios") && noted(&plan, "package grub-pc-bin"));
    // On a machine with BIOS it is said that nothing boots.
    let plan = planned(&layout, Firmware::Bios);
    assert!(bios_devices(&plan).is_empty() && noted(&plan, "Switch the firmware to UEFI"));

    // The modules are there, and there is no room for the core.
    layout.boot.grub_platforms.push("i386-pc".into());
    assert_eq!(bios_devices(&planned(&layout, Firmware::Uefi)).len(), 1);
    layout
        .nodes
        .retain(|_, n| !matches!(n, Node::Partition(p) if p.type_guid == types::BIOS_BOOT));
    let plan = planned(&layout, Firmware::Uefi);
    assert!(bios_devices(&plan).is_empty() && noted(&plan, "no BIOS boot partition"));
    // Where it has to boot through BIOS, it gets some.
    let plan = planned(&layout, Firmware::Bios);
    assert_eq!(bios_devices(&plan).len(), 1);
    assert!(noted(&plan, "A BIOS boot partition is added"));
}
