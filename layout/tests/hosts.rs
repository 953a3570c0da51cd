//! Recorded hosts: each directory in `hosts` is one, made by `scripts/record-host`. What is captured of it and what would be
//! planned for it lies beside it as text, to be read by people. `UPDATE_GOLDEN=1` writes it.

#![allow(clippy::unwrap_used)] // a failing test is to panic

use std::path::{Path, PathBuf};

use layout::capture::capture;
use layout::inventory::{Inventory, inventory};
use layout::model::Layout;
use layout::plan::{Choices, DiskChoice, Grow, Plan, PlanError, plan};
use layout::record::{record, replay};
use layout::system::Recorded;
use layout::units::{Bytes, SectorSize};

struct Recordings {
    dir: PathBuf,
    name: String,
    machine: Recorded,
    layout: Layout,
    inventory: Inventory,
}

fn hosts() -> Vec<Recordings> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts");
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    dirs.sort();
    let read = |dir: PathBuf| {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(dir.join("host.json")).unwrap();
        let machine = replay(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let layout = capture(&machine).unwrap_or_else(|e| panic!("{name}: {e}"));
        let inventory = inventory(&machine).unwrap_or_else(|e| panic!("{name}: {e}"));
        Recordings {
            dir,
            name,
            machine,
            layout,
            inventory,
        }
    };
    dirs.into_iter().map(read).collect()
}

/// The machine as a rescue system finds it: nothing is mounted.
fn at_rest(present: &Inventory) -> Inventory {
    let mut present = present.clone();
    for disk in &mut present.disks {
        (disk.in_use, disk.read_only) = (false, false);
    }
    present
}

/// The same machine with other disks of another size.
fn with_other_disks(present: &Inventory, size: impl Fn(Bytes) -> Bytes) -> Inventory {
    let mut present = at_rest(present);
    for (n, disk) in present.disks.iter_mut().enumerate() {
        disk.serial = Some(format!("NEW-{n}"));
        disk.wwn = None;
        disk.model = Some("New Disk".to_owned());
        disk.size = size(disk.size);
        disk.contents.clear();
        disk.vgs.clear();
    }
    present
}

/// Every saved disk onto the one with the same device node.
fn in_place(saved: &Layout) -> Choices {
    let same = |(id, disk): (&layout::model::NodeId, &layout::model::Disk)| {
        (id.clone(), DiskChoice::Device(disk.device.clone()))
    };
    let system = saved.system_disks();
    Choices {
        disks: saved
            .disks()
            .filter(|(id, _)| system.contains(*id))
            .map(same)
            .collect(),
        ..Choices::default()
    }
}

fn text(result: &Result<Plan, PlanError>) -> String {
    match result {
        Ok(plan) => {
            assert_eq!(plan.writes_outside(), None);
            plan.render()
        }
        Err(error) => format!("refused: {error}\n"),
    }
}

fn golden(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        text == expected,
        "{} differs (UPDATE_GOLDEN=1 writes it):\n{text}",
        path.display()
    );
}

#[test]
fn there_are_several() {
    assert!(hosts().len() >= 6, "{}", hosts().len());
}

#[test]
fn layouts_are_captured_as_recorded() {
    for host in hosts() {
        let tree = layout::render::tree(&host.layout);
        golden(&host.dir.join("layout.txt"), &tree);
        golden(
            &host.dir.join("layout.json"),
            &(host.layout.to_json().unwrap() + "\n"),
        );
        let disks = serde_json::to_string_pretty(&host.inventory).unwrap() + "\n";
        golden(&host.dir.join("inventory.json"), &disks);
        // The document is a layout that a restore can read.
        let again = Layout::from_json(&host.layout.to_json().unwrap()).unwrap();
        assert_eq!(again, host.layout, "{}", host.name);
    }
}

#[test]
fn plans_are_made_as_recorded() {
    for host in hosts() {
        let same = plan(&host.layout, &at_rest(&host.inventory), &Choices::default());
        golden(&host.dir.join("plan-same.txt"), &text(&same));
        let bigger = with_other_disks(&host.inventory, |size| Bytes(size.0.saturating_mul(2)));
        let bigger = plan(&host.layout, &bigger, &in_place(&host.layout));
        golden(&host.dir.join("plan-bigger.txt"), &text(&bigger));
    }
}

#[test]
fn a_running_host_is_never_a_target() {
    for host in hosts() {
        let result = plan(&host.layout, &host.inventory, &in_place(&host.layout));
        let in_use = host.inventory.disks.iter().any(|d| d.in_use);
        assert!(in_use, "{}: nothing is in use", host.name);
        assert!(result.is_err(), "{}: {result:?}", host.name);
    }
}

/// Whatever disks there are instead, the answer is a plan that stays on its disks, or a refusal.
#[test]
fn no_machine_makes_the_planner_panic() {
    let sizes: [fn(Bytes) -> Bytes; 6] = [
        |_| Bytes(0),
        |size| Bytes(size.0 / 2),
        |size| Bytes(size.0.saturating_sub(512)),
        |size| Bytes(size.0 + 512),
        |size| Bytes(size.0.saturating_mul(1000)),
        |_| Bytes(u64::MAX),
    ];
    for host in hosts() {
        for size in sizes {
            for grow in [Grow::Root, Grow::Nothing] {
                for sector in [SectorSize::S512, SectorSize::S4096, SectorSize(0)] {
                    let mut present = with_other_disks(&host.inventory, size);
                    present
                        .disks
                        .iter_mut()
                        .for_each(|d| d.sector_size = sector);
                    for choices in [in_place(&host.layout), Choices::default()] {
                        let choices = Choices {
                            grow,
                            ..choices.clone()
                        };
                        text(&plan(&host.layout, &present, &choices));
                        // One disk less.
                        for n in 0..present.disks.len() {
                            let mut fewer = present.clone();
                            fewer.disks.remove(n);
                            text(&plan(&host.layout, &fewer, &choices));
                        }
                    }
                }
            }
        }
    }
}

/// A tool that is not there or fails must not make capture panic, or the disks' identity another.
#[test]
fn a_tool_that_fails_makes_no_panic() {
    for host in hosts() {
        for line in host.machine.commands.keys() {
            let read = || {
                let text = std::fs::read_to_string(host.dir.join("host.json")).unwrap();
                replay(&text).unwrap()
            };
            let mut without = read();
            without.commands.remove(line);
            let mut failing = read();
            if let Some(output) = failing.commands.get_mut(line) {
                output.status = 1;
                output.stdout.clear();
            }
            let mut garbled = read();
            if let Some(output) = garbled.commands.get_mut(line) {
                let half = output.stdout.len() / 2;
                output.stdout.truncate(half);
            }
            for machine in [without, failing, garbled] {
                if let Ok(layout) = capture(&machine) {
                    let disks = |l: &Layout| {
                        let mut all: Vec<_> = l.disks().map(|(_, d)| d.serial.clone()).collect();
                        all.sort();
                        all
                    };
                    assert_eq!(disks(&layout), disks(&host.layout), "{}: {line}", host.name);
                }
                let _ = inventory(&machine);
            }
        }
    }
}

/// What was recorded can be recorded again.
#[test]
fn recordings_can_be_recorded() {
    for host in hosts() {
        let again = record(&host.machine);
        assert_eq!(again.problems, [""; 0], "{}", host.name);
        let layout = capture(&replay(&again.to_json().unwrap()).unwrap()).unwrap();
        assert_eq!(layout.nodes.len(), host.layout.nodes.len(), "{}", host.name);
    }
}
