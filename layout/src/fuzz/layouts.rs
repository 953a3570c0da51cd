//! What a snapshot says of a host is planned for this machine: refused or planned, and then only what is safe.

use std::path::{Component, Path};

use crate::inventory::{Inventory, InventoryDisk};
use crate::model::{Firmware, Layout};
use crate::plan::{Choices, Grow, LeaveOut, Plan, Step, plan};
use crate::render;
use crate::units::{Bytes, SectorSize};

/// The layouts of the scenarios.
pub(super) fn seeds() -> Vec<Vec<u8>> {
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

pub(super) fn machines() -> [Inventory; 2] {
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
        present: None,
    };
    [
        machine(vec![disk("/dev/sda", 20_000)]),
        machine(vec![disk("/dev/sda", 1500), disk("/dev/sdb", 100)]),
    ]
}

pub(super) fn layout(data: &[u8]) {
    let Ok(layout) = Layout::from_json(&String::from_utf8_lossy(data)) else {
        return;
    };
    render::tree(&layout);
    layout.unknown_partitions();
    // What is kept of it is the same when it is read again.
    let again = Layout::from_json(&layout.to_json().unwrap()).unwrap();
    assert_eq!(again, layout);
    let machines = machines();
    for (grow, machine) in [
        (Grow::Root, 0),
        (Grow::Nothing, 0),
        (Grow::Root, 1),
        (Grow::ThinPool, 0),
        (Grow::Untouched, 1),
    ] {
        let choices = Choices {
            grow,
            leave_out: match grow {
                Grow::Untouched => LeaveOut::ALL.into(),
                _ => Default::default(),
            },
            ..Choices::default()
        };
        if let Ok(plan) = plan(&layout, &machines[machine], &choices) {
            plan.render();
            crate::diff::diff(&layout, &layout, &plan);
            check(&plan);
        }
    }
}

/// No step writes outside the assigned disks, or outside the new system.
fn check(plan: &Plan) {
    assert_eq!(plan.writes_outside(), None);
    let inside = |path: &Path| {
        let normal = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::RootDir);
        assert!(path.is_absolute() && path.components().all(normal));
    };
    for step in &plan.steps {
        match step {
            Step::Mount { mount_point, .. } | Step::RestoreTree { mount_point } => {
                inside(mount_point);
            }
            Step::MountSubvolume { mount_point, .. } => inside(mount_point),
            Step::MakeSwapFile { path, .. } => inside(path),
            Step::MakeSubvolumes { subvolumes, .. } => {
                for subvolume in subvolumes {
                    inside(&Path::new("/").join(&subvolume.path));
                    assert!(!subvolume.path.starts_with('/'));
                }
            }
            Step::GrubEfi {
                esp, bootloader_id, ..
            } => {
                inside(esp);
                inside(&Path::new("/").join(bootloader_id));
                assert!(!bootloader_id.contains('/'));
            }
            Step::LvCreate { vg, name, .. } | Step::ThinPoolCreate { vg, name, .. } => {
                let device = Path::new("/dev").join(vg).join(name);
                inside(&device);
                assert_eq!(device.components().count(), 4);
                assert!(!vg.starts_with('-') && !name.starts_with('-'));
            }
            Step::CacheAttach { vg, cache, .. } => {
                assert_eq!(Path::new(vg).join(&cache.name).components().count(), 2);
                assert!(!cache.name.starts_with('-'));
            }
            _ => {}
        }
    }
}
