//! The targets with damaged seeds: an ordinary test, the same inputs at every run.

use std::io::Cursor;
use std::path::Path;

use super::mutate::{damaged, mutate, rounds};
use super::*;
use crate::model::{GrubEfi, Layout, Node};
use crate::plan::{Choices, plan};
use crate::units::SectorSize;

fn fuzz(target: &Target, count: u64) {
    damaged(target.name, count, &(target.seeds)(), target.read);
}

#[test]
fn fuzz_superblocks() {
    fuzz(&SUPERBLOCK, 20_000);
}

#[test]
fn fuzz_what_tools_print() {
    fuzz(&TOOLS, 10_000);
}

#[test]
fn fuzz_partition_tables() {
    use gpt::disk::LogicalBlockSize::{Lb512, Lb4096};
    for (sector, size) in [(Lb512, SectorSize::S512), (Lb4096, SectorSize::S4096)] {
        let good = disks::disk_with_table(sector);
        let read = crate::capture::gpt::read(&mut Cursor::new(good), size).unwrap();
        assert_eq!((read.partitions.len(), read.both_headers), (1, true));
    }
    let seeds = (PARTITION_TABLE.seeds)();
    rounds("partition tables", 3000, |random| {
        let mut data = random.pick(&seeds).clone();
        match random.below(3) {
            0 => data = mutate(random, &seeds),
            _ => {
                mutate::fields(random, &mut data[1..][..table::HEADER]);
                mutate::fields(random, &mut data[1 + table::HEADER..][..table::HEADER]);
            }
        }
        (PARTITION_TABLE.read)(&data);
    });
}

#[test]
fn fuzz_layouts() {
    let seeds = (LAYOUT.seeds)();
    let machine = &layouts::machines()[0];
    let planned = seeds.iter().filter(|seed| {
        let layout = Layout::from_json(&String::from_utf8_lossy(seed)).unwrap();
        plan(&layout, machine, &Choices::default()).is_ok()
    });
    let planned = planned.count();
    assert!(planned > 2, "{planned}");
    fuzz(&LAYOUT, 6000);
}

/// Found by looking: no seed was damaged so far as to lead elsewhere and still be planned.
#[test]
fn names_that_lead_elsewhere_are_not_planned() {
    let seeds = (LAYOUT.seeds)();
    let machine = &layouts::machines()[0];
    let mut refused = std::collections::BTreeSet::new();
    for seed in &seeds {
        let good = Layout::from_json(&String::from_utf8_lossy(seed)).unwrap();
        if plan(&good, machine, &Choices::default()).is_err() {
            continue;
        }
        let mut try_out = |what: &'static str, change: &dyn Fn(&mut Layout) -> bool| {
            let mut layout = good.clone();
            if change(&mut layout) {
                let json = layout.to_json().unwrap();
                (LAYOUT.read)(json.as_bytes());
                let error = plan(&layout, machine, &Choices::default()).unwrap_err();
                assert!(error.to_string().contains(what), "{error}");
                refused.insert(what);
            }
        };
        try_out("mount point", &|layout| {
            let below = layout.mounts.iter_mut().find(|m| {
                m.mounted && m.mount_point != Path::new("/") && m.mount_point.starts_with("/boot")
            });
            below.is_some_and(|m| {
                m.mount_point = "/../../etc".into();
                true
            })
        });
        for name in ["../sda", "-f", ".."] {
            try_out("volume group", &|layout| {
                layout.nodes.values_mut().any(|node| match node {
                    Node::VolumeGroup(vg) => {
                        vg.name = name.into();
                        true
                    }
                    _ => false,
                })
            });
        }
        try_out("boot loader id", &|layout| {
            let esp = layout.mounts.iter().find(|m| m.fstype == "vfat");
            let Some(esp) = esp.map(|m| m.node.clone()) else {
                return false;
            };
            layout.boot.grub_efi = vec![GrubEfi {
                esp,
                bootloader_id: "../../debian".into(),
                shim: false,
                fallback: false,
            }];
            true
        });
    }
    assert_eq!(refused.len(), 3, "{refused:?}");
}
