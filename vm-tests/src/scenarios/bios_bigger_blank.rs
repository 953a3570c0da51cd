//! A dead BIOS machine gets a new, bigger, blank disk; the armed stick restores it without a question; the disk boots alone.

use std::path::Path;

use anyhow::{Result, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::golden::DISK_BYTES;
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::Saved;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "bios-bigger-blank",
        "BIOS: an armed stick restores onto a bigger blank disk, unattended; the disk boots alone and equals the host",
        super::needs_bios,
        move |log| run(&artefacts, log),
    )
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Firmware::Bios, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    rescue::arm(&saved, &stick, log)?;
    let target = log.path("target.raw");
    disk::blank(&target, DISK_BYTES + 2 * GIB)?;
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .drive(Drive::new(&target, Bus::Virtio, rescue::TARGET_SERIAL))
        .start(log)?;
    rescue::wait_restored(&mut machine, log)?;
    // Guards the counter that other scenarios rely on.
    ensure!(
        machine.counters(rescue::TARGET_SERIAL)?.writes > 0,
        "QEMU's write counter does not count"
    );
    machine.quit()?;
    rescue::judge(&saved, Firmware::Bios, &target, Bus::Virtio, log)
}
