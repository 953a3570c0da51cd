//! A UEFI machine whose root is a subvolume of a btrfs, with further subvolumes, one of them within the root, and a default
//! subvolume; it is restored onto a used disk.

use std::path::Path;

use anyhow::Result;

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{Host, Used, cache_dir};
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::Saved;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "btrfs-root",
        "UEFI: a root on btrfs is restored, unattended, onto a used disk; it boots with the subvolumes that it had",
        super::needs_uefi,
        move |log| run(&artefacts, log),
    )
    .long()
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::Btrfs, Firmware::Uefi, artefacts)?;
    let used = Used::get(&cache_dir(), artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    rescue::arm(&saved, &stick, log)?;
    let target = log.path("target.raw");
    disk::copy(&used.dirty_disk(), &target, log)?;
    let mut machine = rescue::machine(Firmware::Uefi, &stick)
        .drive(Drive::new(&target, Bus::Nvme, rescue::TARGET_SERIAL))
        .start(log)?;
    rescue::wait_restored(&mut machine, log)?;
    machine.quit()?;
    rescue::judge(&saved, &[&target], Bus::Nvme, log)
}
