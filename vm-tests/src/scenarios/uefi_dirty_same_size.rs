//! A UEFI machine whose disk is replaced by a used one of the same size: it holds a volume group of the same name and old
//! filesystems. A data disk of that size is attached and must stay as it is.

use std::path::Path;

use anyhow::Result;

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{DISK_BYTES, Host, Used, cache_dir};
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::Saved;
use crate::verdict::Untouched;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "uefi-dirty-same-size",
        "UEFI: restores over an old volume group of the same name; a data disk of the same size is not written to",
        super::needs_uefi,
        move |log| run(&artefacts, log),
    )
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::PveExt4, Firmware::Uefi, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    rescue::arm(&saved, &stick, log)?;
    let (target, data) = (log.path("target.raw"), log.path("data.raw"));
    disk::copy(
        &Used::get(&cache_dir(), artefacts)?.dirty_disk(),
        &target,
        log,
    )?;
    disk::data_disk(&data, DISK_BYTES, log)?;
    let untouched = Untouched::watch(&data, rescue::DATA_SERIAL)?;
    // The data disk comes first, so that a restore which goes by kernel names takes the wrong one.
    let mut machine = rescue::machine(Firmware::Uefi, &stick)
        .drive(Drive::new(&data, Bus::Sata, rescue::DATA_SERIAL))
        .drive(Drive::new(&target, Bus::Sata, rescue::TARGET_SERIAL))
        .start(log)?;
    rescue::wait_restored(&mut machine, log)?;
    untouched.ensure_no_writes(&mut machine)?;
    machine.quit()?;
    untouched.ensure_same_content()?;
    rescue::judge(&saved, &[&target], Bus::Sata, log)
}
