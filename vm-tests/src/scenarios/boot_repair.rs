//! The EFI system partition is gone: the armed stick puts the boot loader back, and every other byte of the disk stays.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::Host;
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::Saved;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "boot-repair",
        "UEFI: the EFI system partition is zeroed; boot-repair fills it, all other bytes stay, and the disk boots",
        super::needs_uefi,
        move |log| run(&artefacts, log),
    )
    .long()
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::PveExt4, Firmware::Uefi, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    rescue::arm_as(&saved, &stick, "boot-repair", log)?;
    let target = log.path("target.raw");
    disk::copy(&saved.golden.disk(), &target, log)?;
    let gpt = disk::gpt(&target)?;
    let esp = gpt.partitions.iter().find(|p| p.number == 2);
    let esp = esp
        .map(|p| (p.start * 512, p.size * 512))
        .context("no ESP")?;
    let before = disk::hash_without(&target, &[esp])?;
    disk::zero(&target, esp.0, esp.1)?;
    let mut machine = rescue::machine(Firmware::Uefi, &stick)
        .drive(Drive::new(&target, Bus::Sata, rescue::TARGET_SERIAL))
        .start(log)?;
    rescue::wait_restored(&mut machine, log)?;
    machine.quit()?;
    ensure!(
        disk::hash_without(&target, &[esp])? == before,
        "bytes outside of the EFI system partition have changed"
    );
    log.note("every byte outside of the EFI system partition is the same");
    rescue::judge(&saved, &[&target], Bus::Sata, log)
}
