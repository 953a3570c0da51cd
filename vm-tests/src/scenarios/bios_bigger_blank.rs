//! A dead BIOS machine gets a new, bigger, blank disk; the armed stick restores it without a question; the disk boots alone.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::golden::{DISK_BYTES, Host};
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::Saved;
use crate::verdict::Untouched;

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
    let saved = Saved::get(Host::PveExt4, Firmware::Bios, artefacts)?;
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
    logs_are_kept(&stick, log)?;
    token_is_used_up(&stick, &target, log)?;
    rescue::judge(&saved, &[&target], Bus::Virtio, log)
}

/// The restore leaves its logs on the stick.
fn logs_are_kept(stick: &Path, log: &Artefacts) -> Result<()> {
    let reports = rescue::on_data_partition(stick, log, |dir| {
        let reports = std::fs::read_dir(dir.join("lifeboat/reports"))?;
        let names = reports.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<Result<Vec<_>>>()
    })?;
    let kept = reports.iter().filter(|n| n.starts_with("restore-")).count();
    ensure!(
        kept == 1,
        "no logs of the restore on the stick, only {reports:?}"
    );
    Ok(())
}

/// A machine that boots from the stick once more is not restored again: the wizard asks, and nothing is written.
fn token_is_used_up(stick: &Path, target: &Path, log: &Artefacts) -> Result<()> {
    let untouched = Untouched::watch(target, rescue::TARGET_SERIAL)?;
    let mut machine = rescue::machine(Firmware::Bios, stick)
        .named("again")
        .drive(Drive::new(target, Bus::Virtio, rescue::TARGET_SERIAL))
        .start(log)?;
    let asked = machine
        .serial
        .expect("Restore point [1]: ", Duration::from_secs(240))?;
    ensure!(
        !asked.contains("lifeboat: unattended "),
        "the stick is still armed"
    );
    untouched.ensure_no_writes(&mut machine)?;
    machine.quit()?;
    untouched.ensure_same_content()
}
