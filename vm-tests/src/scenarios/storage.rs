//! The storage floor's layout files, listed and run beside the machines that boot.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::artefacts::Artefacts;
use crate::product::profile_dir;
use crate::runner::Scenario;
use crate::uml::case::{Case, Expect, Kind};
use crate::uml::machine::{self, Floor, Task};
use crate::uml::power;

/// Of the boundaries between steps, every so many-th is cut when not all are asked for.
const CUTS: usize = 4;
/// Of the calls to the machine, every so many-th fails when not all are asked for: no multiple of what repeats in a step.
const ERRORS: usize = 11;
/// Of the boundaries between steps, before every so many-th the power is cut when not all are asked for.
const POWER: usize = 5;

/// Of the files that only put another file's layout onto other disks, those that are run each time.
const VARIANTS: [&str; 9] = [
    "btrfs-raid1-without-one",
    "lvm-stale-spanning",
    "lvm-two-groups-two-to-one",
    "md1-lvm-two-to-one",
    "md1-lvm-without-first",
    "md10-whole-disks-four-to-two",
    "pve-ext4-lvm-bigger",
    "pve-ext4-lvm-one-to-two",
    "too-small",
];

/// One scenario for each layout file, and those that cut it; none when the directory cannot be read.
pub fn scenarios() -> Vec<Scenario> {
    let files = Case::all().unwrap_or_default();
    let on_zfs =
        |file: &&PathBuf| matches!(Case::load(file), Ok((case, _)) if case.machine == Kind::Zfs);
    let (zfs, files): (Vec<&PathBuf>, Vec<&PathBuf>) = files.iter().partition(on_zfs);
    let mut all: Vec<Scenario> = files
        .iter()
        .map(|file| {
            let case = Case::load(file).ok().map(|(case, _)| case);
            let in_place = case.as_ref().is_some_and(|case| case.in_place.is_some());
            let again = case.is_some_and(|case| case.layout_of.is_some()) && !in_place;
            let about = if in_place {
                "User Mode Linux: this layout is restored, damaged and restored in place; what stays keeps its bytes"
            } else {
                "User Mode Linux: this layout is applied onto dirty disks, captured again and compared"
            };
            let restored = scenario("storage", file, about, |file, floor, log| {
                machine::run(file, Task::Restore, floor, log)
            });
            let name = file.file_stem().unwrap_or_default();
            match again && !VARIANTS.iter().any(|v| name == *v) {
                true => restored.long(),
                false => restored,
            }
        })
        .collect();
    all.push(consistency());
    all.extend(zfs.into_iter().map(|file| with_zfs(file)));
    for file in &files {
        let Ok((case, _)) = Case::load(file) else {
            continue;
        };
        if case.cuts {
            all.extend(interrupted(file, case.in_place.is_some()));
        }
        if case.expect == Expect::Restored && case.in_place.is_none() {
            let about = "User Mode Linux: this layout's machine is recorded, and the recording is captured as the machine is";
            let recorded = scenario("record", file, about, |file, floor, log| {
                machine::run(file, Task::Record, floor, log)
            });
            // A few stand for the others, whose recordings are captured and planned from in the tests of `layout`.
            let name = file.file_stem().unwrap_or_default();
            all.push(if RECORDED.iter().any(|r| name == *r) {
                recorded
            } else {
                recorded.long()
            });
        }
    }
    all
}

/// A host that is saved while it is written to.
fn consistency() -> Scenario {
    let about = "User Mode Linux: a host is saved while a program writes to it: LVM, thin and btrfs snapshots are of one moment, \
                 and are gone after it, after SIGKILL and after a power cut";
    Scenario::new("consistency", about, needs, |log| {
        let dir = profile_dir();
        let floor = Floor {
            program: dir.join("uml-floor"),
        };
        crate::uml::consistency::run(&dir.join("lifeboat"), &floor, log)
    })
    .floor()
}

/// A layout with a pool: the tree that it needs takes a quarter of an hour to build.
fn with_zfs(file: &Path) -> Scenario {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let about =
        "QEMU with OpenZFS: this layout is applied onto dirty disks, captured again and compared";
    let file = file.to_owned();
    Scenario::new(&format!("storage-{stem}"), about, needs_zfs, move |log| {
        crate::zfs::floor::run(&file, &profile_dir().join("uml-floor"), log)
    })
    .long()
}

fn needs_zfs() -> Result<(), String> {
    let program = profile_dir().join("uml-floor");
    if !program.is_file() {
        return Err(format!("{} is not built", program.display()));
    }
    crate::zfs::missing().map_or(Ok(()), Err)
}

/// A sample of the places, and as a long scenario all of them.
fn interrupted(file: &Path, in_place: bool) -> Vec<Scenario> {
    let mut all = Vec::new();
    for every in [false, true] {
        let of = if every { "each" } else { "a sample" };
        let stride = move |n: usize| if every { 1 } else { n };
        let mut add = |kind: &str, about: String, run: Body| {
            let name = if every {
                format!("every-{kind}")
            } else {
                kind.to_owned()
            };
            let scenario = scenario(&name, file, &about, run);
            // One layout is enough unless all are asked for.
            let usual = file.file_stem() == Some("pve-ext4-lvm".as_ref());
            all.push(if every || !usual {
                scenario.long()
            } else {
                scenario
            });
        };
        add(
            "cut",
            format!(
                "User Mode Linux: the restore is killed at {of} of its steps and within the file pass, and started again"
            ),
            Box::new(move |file, floor, log| {
                let stride = stride(CUTS);
                machine::run(file, Task::Cuts { stride }, floor, log)
            }),
        );
        // The others take a machine that begins with the restore.
        if in_place {
            continue;
        }
        add(
            "power-cut",
            format!(
                "User Mode Linux: the power is cut at {of} of the restore's steps and within the file pass"
            ),
            Box::new(move |file, floor, log| power::power_cuts(file, stride(POWER), floor, log)),
        );
        add(
            "error",
            format!(
                "User Mode Linux: {of} of the restore's commands fails; no success is reported on partial data"
            ),
            Box::new(move |file, floor, log| {
                let stride = stride(ERRORS);
                machine::run(file, Task::Errors { stride }, floor, log)
            }),
        );
    }
    all
}

/// Layouts that are recorded when not all scenarios are asked for.
const RECORDED: [&str; 3] = ["pve-ext4-lvm", "luks-on-md-and-lv", "btrfs-raid1"];

type Body = Box<dyn Fn(&Path, &Floor, &Artefacts) -> Result<()> + Send + Sync>;

fn scenario(
    kind: &str,
    file: &Path,
    about: &str,
    run: impl Fn(&Path, &Floor, &Artefacts) -> Result<()> + Send + Sync + 'static,
) -> Scenario {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let file = file.to_owned();
    Scenario::new(&format!("{kind}-{stem}"), about, needs, move |log| {
        let floor = Floor {
            program: profile_dir().join("uml-floor"),
        };
        run(&file, &floor, log)
    })
    .floor()
}

fn needs() -> Result<(), String> {
    let program = profile_dir().join("uml-floor");
    if !program.is_file() {
        return Err(format!("{} is not built", program.display()));
    }
    machine::missing().map_or(Ok(()), Err)
}
