//! The scenarios: one file each.

mod bios_bigger_blank;
mod btrfs_root;
mod flipped_byte;
mod golden_boots;
mod hot_plug;
mod hot_plug_pulled;
mod hot_plug_strangers;
mod in_place;
mod luks_root;
mod md1_uefi;
mod medium_pulled;
mod other_machine;
mod other_nic;
mod package;
mod plugged;
mod pve;
mod pve_guests;
mod pve_saved;
mod pve_selftest;
mod rescue;
mod stick_boots;
mod storage;
mod timer;
mod too_small;
mod uefi_dirty_same_size;
mod wizard_serial;
mod zfs_mirror_root;

use std::path::Path;

use crate::qemu::{self, Firmware};
use crate::runner::Scenario;
use crate::{golden, installed, product};

/// All scenarios. Those that share a backup keep its log below `artefacts`.
pub fn all(artefacts: &Path) -> Vec<Scenario> {
    // The long ones first, and the two that make a shared backup beside each other.
    let mut all = vec![
        bios_bigger_blank::scenario(artefacts),
        uefi_dirty_same_size::scenario(artefacts),
        wizard_serial::scenario(artefacts),
        md1_uefi::scenario(artefacts),
        medium_pulled::scenario(artefacts),
        luks_root::scenario(artefacts),
        btrfs_root::scenario(artefacts),
        too_small::scenario(artefacts),
        flipped_byte::scenario(artefacts),
        other_nic::scenario(artefacts),
        stick_boots::scenario(artefacts),
        zfs_mirror_root::scenario(artefacts),
        pve_selftest::scenario(artefacts),
        timer::scenario(artefacts),
        hot_plug::scenario(artefacts),
        hot_plug_strangers::scenario(artefacts),
        hot_plug_pulled::scenario(artefacts),
    ];
    all.extend(golden_boots::scenarios(artefacts));
    all.extend(in_place::scenarios(artefacts));
    all.extend(other_machine::scenarios(artefacts));
    all.extend(package::scenarios());
    all.extend(pve_guests::scenarios(artefacts));
    all.extend(storage::scenarios());
    all
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

/// For scenarios with the package in a host on BIOS.
fn needs_package() -> Result<(), String> {
    reason(installed::missing())?;
    needs_bios()
}

/// For scenarios that back up and restore on UEFI.
fn needs_uefi() -> Result<(), String> {
    product::Product::find()?;
    needs_uefi_host()
}
