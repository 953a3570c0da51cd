//! The scenarios: one file each.

mod golden_boots;

use std::path::Path;

use crate::qemu::{self, Firmware};
use crate::runner::Scenario;
use crate::{golden, product};

/// All scenarios. Those that share a backup keep its log below `artefacts`.
pub fn all(artefacts: &Path) -> Vec<Scenario> {
    vec![
        golden_boots::scenario(Firmware::Bios, artefacts),
        golden_boots::scenario(Firmware::Uefi, artefacts),
    ]
}

fn reason(missing: Option<String>) -> Result<(), String> {
    missing.map_or(Ok(()), Err)
}

/// For scenarios with the golden host on BIOS.
fn needs_bios_host() -> Result<(), String> {
    reason(golden::missing().or_else(|| qemu::missing(Firmware::Bios)))
}

/// For scenarios with the golden host on UEFI.
fn needs_uefi_host() -> Result<(), String> {
    reason(golden::missing().or_else(|| qemu::missing(Firmware::Uefi)))
}

/// For scenarios that back up and restore on BIOS.
fn needs_bios() -> Result<(), String> {
    product::Product::find()?;
    needs_bios_host()
}

/// For scenarios that back up and restore on UEFI.
fn needs_uefi() -> Result<(), String> {
    product::Product::find()?;
    needs_uefi_host()
}
