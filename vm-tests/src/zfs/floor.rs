//! The storage floor on a machine with ZFS: `uml-floor` as process 1, as in User Mode Linux.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Tree;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::cache_dir;
use crate::process;
use crate::qemu::{Bus, Drive, Machine};
use crate::uml::case::Case;

/// A restore takes seconds, a machine under emulation a minute to start.
const LIMIT: Duration = Duration::from_secs(1200);

/// Runs a layout file that has a pool.
pub fn run(file: &Path, program: &Path, log: &Artefacts) -> Result<()> {
    let (case, layout) = Case::load(file)?;
    let artefacts = log.dir().parent().unwrap_or(log.dir());
    let tree = Tree::get(&cache_dir(), artefacts)?;
    let share = log.path("share");
    fs::create_dir(&share)?;
    fs::copy(program, share.join("uml-floor"))?;
    // The machine has this one file only.
    let whole = Case {
        layout: Some(serde_json::to_value(&layout)?),
        layout_of: None,
        ..case.clone()
    };
    fs::write(share.join("case.json"), serde_json::to_vec(&whole)?)?;
    let mut machine = tree.machine("floor", &share)?;
    for (n, spec) in case.disks.iter().enumerate() {
        let image = log.path(&format!("disk{n}.raw"));
        disk::blank(&image, spec.mib << 20)?;
        machine = machine.drive(Drive::new(image, Bus::Virtio, format!("FLOOR-{n}")));
    }
    let said = to_the_end(machine, LIMIT, log)?;
    fs::write(log.path("console.log"), &said)?;
    fs::remove_dir_all(&share)?;
    if said.lines().any(|line| line.trim() == "floor: passed") {
        return Ok(());
    }
    let reason = said
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("floor: failed: "));
    match reason {
        Some(reason) => bail!("{reason} (console: {})", log.path("console.log").display()),
        None => bail!(
            "the machine ended without a verdict: {}",
            process::tail(&said, 2000)
        ),
    }
}

/// Runs a machine until it switches itself off, and returns what it said on its serial line.
pub(super) fn to_the_end(machine: Machine, limit: Duration, log: &Artefacts) -> Result<String> {
    let mut machine = machine.start(log)?;
    machine.wait_powered_off(limit)?;
    let said = machine.serial.text();
    machine.quit()?;
    Ok(said)
}
