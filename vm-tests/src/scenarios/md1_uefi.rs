//! A UEFI machine with two mirrored disks gets two others: a blank one, and one that holds degraded arrays of the same names.
//! Each of them boots alone afterwards.

use std::path::Path;

use anyhow::{Context, Result};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{Host, Used, cache_dir};
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::{Saved, serial_of};

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "md1-uefi",
        "UEFI: two mirrored disks are restored, unattended, onto a blank and a used one; then each of them boots alone",
        super::needs_uefi,
        move |log| run(&artefacts, log),
    )
    .long()
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::Md1, Firmware::Uefi, artefacts)?;
    let used = Used::get(&cache_dir(), artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    rescue::arm(&saved, &stick, log)?;
    let (first, second) = (log.path("target-1.raw"), log.path("target-2.raw"));
    disk::blank(&first, Host::Md1.disks()[0])?;
    disk::copy(&used.old_member(), &second, log)?;
    let serial = |n| serial_of(rescue::TARGET_SERIAL, n);
    // The second comes first: the order of kernel names must not matter.
    let mut machine = rescue::machine(Firmware::Uefi, &stick)
        .drive(Drive::new(&second, Bus::Sata, serial(1)))
        .drive(Drive::new(&first, Bus::Sata, serial(0)))
        .start(log)?;
    rescue::wait_restored(&mut machine, log)?;
    machine.quit()?;
    rescue::judge(&saved, &[&first, &second], Bus::Sata, log)?;
    // One after the other: both beside another scenario's machine are more than two processors carry in systemd's time limits.
    [&first, &second]
        .into_iter()
        .try_for_each(|disk| alone(&saved, disk, log))
}

/// One disk of the mirror, whichever it is, is enough.
fn alone(saved: &Saved, disk: &Path, log: &Artefacts) -> Result<()> {
    let name = disk.file_stem().unwrap_or_default().to_string_lossy();
    let disks = [(disk, rescue::TARGET_SERIAL.to_owned())];
    rescue::boots(saved, &format!("{name}-alone"), &disks, Bus::Sata, log)
        .with_context(|| format!("{name} of the mirror alone"))
}
