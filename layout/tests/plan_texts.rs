//! What the operator reads, for layout files of the storage floor: each onto blank disks of the saved sizes.

mod build;

use build::{disk_ids, golden, in_order, machine, saved, started};
use layout::model::{Firmware, Layout};
use layout::plan::plan;

/// One for each technology whose plan is not compared elsewhere.
const NAMES: [&str; 11] = [
    "btrfs-raid1-proxmox",
    "btrfs-subvolumes",
    "lvm-cache",
    "lvm-raid-levels",
    "lvm-thin-odd",
    "mbr-logical",
    "md-degraded-and-spare",
    "swap-files",
    "zfs-mirror-root",
    "zfs-raidz2-special-log",
    "zfs-single",
];

fn text(saved: &Layout) -> String {
    let disks = saved.disks().enumerate().map(|(index, (_, disk))| {
        let mut blank = build::blank(&build::device(index).to_string_lossy(), disk.size.0);
        blank.sector_size = disk.sector_size;
        blank
    });
    let present = match saved.firmware {
        Firmware::Bios => started(Firmware::Bios, disks.collect()),
        _ => machine(disks.collect()),
    };
    match plan(saved, &present, &in_order(disk_ids(saved))) {
        Ok(plan) => plan.render(),
        Err(error) => format!("refused: {error}\n"),
    }
}

#[test]
fn plans_as_text() {
    for name in NAMES {
        golden(name, &text(&saved(name)));
    }
}
