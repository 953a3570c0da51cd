//! The new disk is too small: a refusal that says by how much, and no write to any disk, the stick included.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::golden::{DISK_BYTES, Host};
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::{STICK_SERIAL, Saved};
use crate::verdict::Untouched;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "too-small",
        "a disk that is too small is refused with the missing bytes, and nothing is written to any disk",
        super::needs_bios,
        move |log| run(&artefacts, log),
    )
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::PveExt4, Firmware::Bios, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    rescue::arm(&saved, &stick, log)?;
    let (target, data) = (log.path("target.raw"), log.path("data.raw"));
    disk::data_disk(&target, GIB, log)?;
    // Large enough, but not the disk that was asked for.
    disk::data_disk(&data, DISK_BYTES, log)?;
    let disks = [
        Untouched::watch(&stick, STICK_SERIAL)?,
        Untouched::watch(&target, rescue::TARGET_SERIAL)?,
        Untouched::watch(&data, rescue::DATA_SERIAL)?,
    ];
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .drive(Drive::new(&target, Bus::Virtio, rescue::TARGET_SERIAL))
        .drive(Drive::new(&data, Bus::Sata, rescue::DATA_SERIAL))
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
    let missing = event.number("missing_bytes")?;
    // The installer's ESP and swap alone fill the disk; the whole saved disk is an upper bound.
    ensure!(
        missing > 0 && missing < DISK_BYTES,
        "{missing} missing bytes are not plausible"
    );
    machine.wait_powered_off(Duration::from_secs(120))?;
    for disk in &disks {
        disk.ensure_no_writes(&mut machine)?;
    }
    machine.quit()?;
    disks.iter().try_for_each(Untouched::ensure_same_content)
}
