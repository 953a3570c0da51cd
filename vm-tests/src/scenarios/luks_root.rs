//! A BIOS machine with an encrypted volume group: the wizard asks for the passphrase before it erases anything, and the
//! restored host asks for it at its start, as before.

use std::path::Path;

use anyhow::{Result, ensure};

use super::rescue;
use super::wizard_serial::Operator;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{Host, PASSPHRASE};
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::Saved;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "luks-root",
        "BIOS: an encrypted root and swap on LVM; the passphrase is typed to the wizard, and at the restored host's start",
        super::needs_bios,
        move |log| run(&artefacts, log),
    )
    .long()
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::Luks, Firmware::Bios, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    let target = log.path("target.raw");
    disk::blank(&target, Host::Luks.disks()[0])?;
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .drive(Drive::new(&target, Bus::Virtio, rescue::TARGET_SERIAL))
        .start(log)?;
    Operator::new(Some(PASSPHRASE)).restore(&mut machine, log)?;
    ensure!(
        !machine.serial.text().contains(PASSPHRASE),
        "the passphrase is shown on the console"
    );
    machine.quit()?;
    rescue::judge(&saved, &[&target], Bus::Virtio, log)
}
