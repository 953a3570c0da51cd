//! Ways to erase the wrong disk, none of which leads there.

#![allow(clippy::unwrap_used)] // a failing test is to panic

mod build;

use std::path::Path;

use build::machine;
use layout::inventory::InventoryDisk;
use layout::model::{Layout, Node, NodeId};
use layout::plan::{Choices, DiskChoice, Plan, PlanError, plan};

fn saved() -> Layout {
    let mut layout = build::saved("pve-ext4-lvm");
    for node in layout.nodes.values_mut() {
        if let Node::Disk(disk) = node {
            disk.serial = Some("S1".into());
            disk.wwn = Some("0x5000c500a1b2c3d4".into());
            disk.model = Some("ACME Disk 3".into());
            disk.transport = Some("ata".into());
        }
    }
    layout
}

fn id() -> NodeId {
    saved().disks().next().unwrap().0.clone()
}

/// The saved disk, as it is found again.
fn itself(device: &str) -> InventoryDisk {
    let layout = saved();
    let (_, disk) = layout.disks().next().unwrap();
    InventoryDisk {
        model: disk.model.clone(),
        serial: disk.serial.clone(),
        wwn: disk.wwn.clone(),
        transport: disk.transport.clone(),
        contents: vec!["GPT, 3 partitions".into()],
        ..build::blank(device, disk.size.0)
    }
}

/// Another one of the same size.
fn other(device: &str, serial: &str) -> InventoryDisk {
    InventoryDisk {
        serial: Some(serial.into()),
        wwn: None,
        model: Some("Other".into()),
        contents: Vec::new(),
        ..itself(device)
    }
}

fn unattended() -> Choices {
    Choices {
        blank_only: true,
        ..Choices::default()
    }
}

fn named(choice: DiskChoice, with: Choices) -> Choices {
    Choices {
        disks: [(id(), choice)].into(),
        ..with
    }
}

fn on(disks: &[InventoryDisk], choices: &Choices) -> Result<Plan, PlanError> {
    plan(&saved(), &machine(disks.to_vec()), choices)
}

fn taken(disks: &[InventoryDisk], choices: &Choices) -> String {
    let plan = on(disks, choices).unwrap();
    plan.disks[0].device.to_str().unwrap().to_owned()
}

#[test]
fn a_disk_that_is_only_nearly_the_saved_one_is_asked_about() {
    type Change = fn(&mut InventoryDisk);
    let nearly: [(&str, Change); 4] = [
        ("another size", |d| d.size = d.size.plus(d.size)),
        ("another serial number", |d| {
            d.serial = Some("BRIDGE".into())
        }),
        ("another WWN", |d| d.wwn = Some("eui.0025385b".into())),
        ("another model", |d| {
            d.wwn = None;
            d.model = Some("Bridge".into());
        }),
    ];
    for (words, change) in nearly {
        let mut near = itself("/dev/sda");
        change(&mut near);
        // That a blank one would do is no way out: it may not be the one that is meant.
        for disks in [
            vec![near.clone()],
            vec![near.clone(), other("/dev/sdb", "NEW")],
        ] {
            for choices in [Choices::default(), unattended()] {
                let error = on(&disks, &choices).unwrap_err();
                assert!(
                    matches!(&error, PlanError::Doubtful { .. })
                        && error.to_string().contains(words),
                    "{words}: {error}"
                );
            }
        }
        // Said which, it is taken.
        let choices = named(DiskChoice::Device("/dev/sda".into()), Choices::default());
        assert_eq!(taken(&[near], &choices), "/dev/sda");
    }
}

#[test]
fn a_clone_is_not_the_saved_disk() {
    let mut clone = other("/dev/sda", "CLONE");
    clone.contents = itself("/dev/sda").contents;
    let both = [clone.clone(), itself("/dev/sdb")];
    for choices in [Choices::default(), unattended()] {
        assert_eq!(taken(&both, &choices), "/dev/sdb");
    }
    let error = on(&[clone], &unattended()).unwrap_err().to_string();
    assert!(error.contains("not blank"), "{error}");
}

#[test]
fn a_disk_that_is_seen_twice_is_not_written_to() {
    let path = |device: &str| InventoryDisk {
        wwn: Some("0x600508b1".into()),
        ..other(device, "LUN")
    };
    let mut second = path("/dev/sdb");
    second.wwn = Some("naa.600508b1".into());
    let lun = [path("/dev/sda"), second];
    for choices in [
        Choices::default(),
        unattended(),
        named(DiskChoice::Device("/dev/sda".into()), Choices::default()),
        // The bundle is on it, and only one of its two names is known to be the bundle's.
        Choices {
            never: vec!["/dev/sda".into()],
            ..Choices::default()
        },
    ] {
        let error = on(&lun, &choices).unwrap_err().to_string();
        assert!(error.contains("seen twice"), "{error}");
    }
    // The halves of a mirror on two names of one disk would overwrite each other.
    let mirror = build::two_disks(true);
    let size = mirror.disks().next().unwrap().1.size;
    let lun = lun.map(|disk| InventoryDisk { size, ..disk });
    plan(&mirror, &machine(lun.to_vec()), &Choices::default()).unwrap_err();
    // The saved disk itself, by two paths.
    let error = on(
        &[itself("/dev/sda"), itself("/dev/sdb")],
        &Choices::default(),
    )
    .unwrap_err();
    assert!(matches!(error, PlanError::Ambiguous { .. }), "{error}");
}

#[test]
fn of_two_sticks_alike_the_one_without_the_bundle_is_taken_by_name_only() {
    let sticks = [
        other("/dev/sda", "0123456789AB"),
        other("/dev/sdb", "0123456789AB"),
    ];
    let never = || Choices {
        never: vec!["/dev/sda".into()],
        ..Choices::default()
    };
    let error = on(&sticks, &never()).unwrap_err().to_string();
    assert!(
        error.contains("serial number and size of /dev/sda"),
        "{error}"
    );
    let by_serial = named(DiskChoice::Serial("0123456789AB".into()), never());
    assert!(matches!(
        on(&sticks, &by_serial).unwrap_err(),
        PlanError::Ambiguous { .. }
    ));
    let by_name = named(DiskChoice::Device("/dev/sdb".into()), never());
    assert_eq!(taken(&sticks, &by_name), "/dev/sdb");
    let medium = named(DiskChoice::Device("/dev/sda".into()), never());
    on(&sticks, &medium).unwrap_err();
}

#[test]
fn a_disk_behind_usb_is_taken_by_name_only() {
    let mut usb = other("/dev/sda", "USB");
    usb.transport = Some("usb".into());
    let error = on(&[usb.clone()], &Choices::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("through USB"), "{error}");
    let choices = named(DiskChoice::Serial("USB".into()), Choices::default());
    assert_eq!(taken(&[usb.clone()], &choices), "/dev/sda");
    assert_eq!(
        taken(&[usb, other("/dev/sdb", "B")], &Choices::default()),
        "/dev/sdb"
    );
}

#[test]
fn with_nobody_to_ask_model_and_connection_decide_nothing() {
    let mut alike = other("/dev/sda", "A");
    alike.model = Some("ACME Disk 3".into());
    let disks = [alike, other("/dev/sdb", "B")];
    assert_eq!(taken(&disks, &Choices::default()), "/dev/sda");
    let error = on(&disks, &unattended()).unwrap_err();
    assert!(matches!(error, PlanError::Ambiguous { .. }), "{error}");
}

#[test]
fn with_nobody_to_ask_a_kernel_name_names_a_blank_disk_only() {
    let mut photos = other("/dev/sda", "PHOTOS");
    photos.contents = vec!["ext4 'photos'".into()];
    let by_name = named(DiskChoice::Device("/dev/sda".into()), unattended());
    let error = on(&[photos.clone()], &by_name).unwrap_err().to_string();
    assert!(error.contains("by its kernel name only"), "{error}");
    let by_serial = named(DiskChoice::Serial("PHOTOS".into()), unattended());
    assert_eq!(taken(&[photos.clone()], &by_serial), "/dev/sda");
    assert_eq!(taken(&[other("/dev/sda", "NEW")], &by_name), "/dev/sda");
    assert_eq!(taken(&[itself("/dev/sda")], &by_name), "/dev/sda");
    // Somebody looks at it.
    let looked_at = named(DiskChoice::Device("/dev/sda".into()), Choices::default());
    assert_eq!(taken(&[photos], &looked_at), "/dev/sda");
}

#[test]
fn namespaces_of_one_drive_are_told_apart_by_wwn() {
    // A mirror of two namespaces, one of which is there.
    let mut layout = build::two_disks(true);
    let ids: Vec<NodeId> = layout.disks().map(|(id, _)| id.clone()).collect();
    for (n, id) in ids.iter().enumerate() {
        if let Some(Node::Disk(disk)) = layout.nodes.get_mut(id) {
            disk.serial = Some("DRIVE".into());
            disk.wwn = Some(format!("eui.{}", n + 1));
        }
    }
    let size = layout.disks().next().unwrap().1.size.0;
    let namespace = |n: u32| InventoryDisk {
        serial: Some("DRIVE".into()),
        wwn: Some(format!("eui.{n}")),
        ..build::blank(&format!("/dev/nvme0n{n}"), size)
    };
    let both = machine(vec![namespace(2), namespace(1)]);
    let plan_of = plan(&layout, &both, &Choices::default()).unwrap();
    for assigned in &plan_of.disks {
        let n = ids.iter().position(|id| *id == assigned.saved).unwrap() + 1;
        assert_eq!(assigned.device, Path::new(&format!("/dev/nvme0n{n}")));
    }
    // The second one must not become the first.
    let error = plan(&layout, &machine(vec![namespace(2)]), &Choices::default()).unwrap_err();
    assert!(
        matches!(&error, PlanError::NoDiskFor { disk, .. } if *disk == ids[0]),
        "{error}"
    );
}

#[test]
fn that_another_disk_of_the_host_is_erased_is_said() {
    let mut layout = saved();
    let (_, disk) = layout.disks().next().unwrap();
    let data = layout::model::Disk {
        serial: Some("DATA".into()),
        wwn: None,
        table: None,
        ..disk.clone()
    };
    layout.nodes.insert(NodeId::disk("data"), Node::Disk(data));
    let mut present = other("/dev/sda", "DATA");
    present.model = Some("ACME Disk 3".into());
    let machine = machine(vec![present]);
    let error = plan(&layout, &machine, &Choices::default()).unwrap_err();
    assert!(
        error.to_string().contains("another disk of the saved host"),
        "{error}"
    );
    let choices = named(DiskChoice::Serial("DATA".into()), Choices::default());
    let plan = plan(&layout, &machine, &choices).unwrap();
    assert!(plan.disks[0].why.contains("another disk of the saved host"));
}
