//! Both copies of the partition table are gone: the armed stick writes the saved one back, and every other byte stays.

use std::path::Path;

use anyhow::{Result, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{DISK_BYTES, Host};
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::Saved;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "gpt-zeroed",
        "BIOS: both copies of the GPT are zeroed; table-repair writes the saved one, all other bytes stay, the disk boots",
        super::needs_bios,
        move |log| run(&artefacts, log),
    )
    .long()
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::PveExt4, Firmware::Bios, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    rescue::arm_as(&saved, &stick, "table-repair", log)?;
    let target = log.path("target.raw");
    disk::copy(&saved.golden.disk(), &target, log)?;
    // Header and entries in front, entries and header behind; the partitions of the MBR.
    let tables = [(440, 34 * 512 - 440), (DISK_BYTES - 33 * 512, 33 * 512)];
    let before = disk::hash_without(&target, &tables)?;
    for (at, length) in tables {
        disk::zero(&target, at, length)?;
    }
    ensure!(disk::gpt(&target).is_err(), "there is still a table");
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .drive(Drive::new(&target, Bus::Virtio, rescue::TARGET_SERIAL))
        .start(log)?;
    rescue::wait_restored(&mut machine, log)?;
    machine.quit()?;
    ensure!(
        disk::hash_without(&target, &tables)? == before,
        "bytes outside of the partition table have changed"
    );
    log.note("every byte outside of the partition table is the same");
    rescue::judge(&saved, &[&target], Bus::Virtio, log)
}
