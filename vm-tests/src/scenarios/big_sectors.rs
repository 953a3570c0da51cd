//! The new disk has sectors of 4096 bytes (4Kn), the saved one had 512: a refusal that names both, and no write.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{DISK_BYTES, Host};
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::Saved;
use crate::verdict::Untouched;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "big-sectors",
        "a disk with sectors of 4096 bytes is refused for a host of 512, and nothing is written to it",
        super::needs_bios,
        move |log| run(&artefacts, log),
    )
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::PveExt4, Firmware::Bios, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    rescue::arm(&saved, &stick, log)?;
    let target = log.path("target.raw");
    disk::blank(&target, DISK_BYTES)?;
    let untouched = Untouched::watch(&target, rescue::TARGET_SERIAL)?;
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .drive(Drive::new(&target, Bus::Nvme, rescue::TARGET_SERIAL).sector(4096))
        .start(log)?;
    let event = rescue::wait_event(
        &machine.serial,
        &["refused", "restored", "failed"],
        Duration::from_secs(400),
    )?;
    ensure!(
        event.name == "refused",
        "the restore was not refused but {}: {}",
        event.name,
        event.fields
    );
    let reason = event.field("reason").unwrap_or_default();
    ensure!(
        reason.contains("512 B") && reason.contains("4096 B"),
        "the refusal does not name the sectors: {reason}"
    );
    machine.wait_powered_off(Duration::from_secs(120))?;
    untouched.ensure_no_writes(&mut machine)?;
    machine.quit()?;
    untouched.ensure_same_content()
}
