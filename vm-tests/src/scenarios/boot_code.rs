//! The boot code is gone: the armed stick writes it anew, and every other byte of the disk stays.

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
        "boot-code",
        "BIOS: the MBR's boot code and the BIOS boot partition are zeroed; boot-repair writes them, and the disk boots",
        super::needs_bios,
        move |log| run(&artefacts, log),
    )
    .long()
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::PveExt4, Firmware::Bios, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    rescue::arm_as(&saved, &stick, "boot-repair", log)?;
    let target = log.path("target.raw");
    disk::copy(&saved.golden.disk(), &target, log)?;
    let gpt = disk::gpt(&target)?;
    let part = |number: u32| {
        let found = gpt.partitions.iter().find(|p| p.number == number);
        found
            .map(|p| (p.start * 512, p.size * 512))
            .with_context(|| format!("no partition {number}"))
    };
    let written = [(0, 440), part(1)?, part(2)?];
    let before = disk::hash_without(&target, &written)?;
    disk::zero(&target, 0, 440)?;
    disk::zero(&target, part(1)?.0, part(1)?.1)?;
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .drive(Drive::new(&target, Bus::Virtio, rescue::TARGET_SERIAL))
        .start(log)?;
    rescue::wait_restored(&mut machine, log)?;
    machine.quit()?;
    ensure!(
        disk::hash_without(&target, &written)? == before,
        "bytes outside of the boot code and the EFI system partition have changed"
    );
    log.note("every byte outside of the boot code and the EFI system partition is the same");
    rescue::judge(&saved, &[&target], Bus::Virtio, log)
}
