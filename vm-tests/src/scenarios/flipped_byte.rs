//! A byte of the stick's store has flipped: the restore finds it, names the file it affects, and erases nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{DISK_BYTES, Host};
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::{PROBE_FILE, Saved};
use crate::verdict::Untouched;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "flipped-byte",
        "a flipped byte on the stick is found, the file it affects is named, and nothing is erased",
        super::needs_bios,
        move |log| run(&artefacts, log),
    )
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::PveExt4, Firmware::Bios, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    rescue::arm(&saved, &stick, log)?;
    let pack = flip(&stick, &saved.probe()?, log)?;
    log.note(&format!(
        "flipped a byte of {PROBE_FILE} in {}",
        pack.display()
    ));
    let target = log.path("target.raw");
    disk::data_disk(&target, DISK_BYTES, log)?;
    let untouched = Untouched::watch(&target, rescue::TARGET_SERIAL)?;
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .drive(Drive::new(&target, Bus::Virtio, rescue::TARGET_SERIAL))
        .start(log)?;
    let event = rescue::wait_event(
        &machine.serial,
        &["damaged", "refused", "restored", "failed"],
        Duration::from_secs(600),
    )?;
    ensure!(
        event.name == "damaged",
        "the damage was not reported; instead: {} {}",
        event.name,
        event.fields
    );
    let file = event.field("file").unwrap_or_default().to_owned();
    ensure!(
        file.ends_with(PROBE_FILE),
        "the damage is in {PROBE_FILE}, reported is \"{file}\""
    );
    let id = pack
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let named = event.field("pack").unwrap_or_default();
    ensure!(
        named.contains(&id),
        "the damage is in the pack {id}, reported is \"{named}\""
    );
    let event = rescue::wait_event(
        &machine.serial,
        &["refused", "damaged", "restored", "failed"],
        Duration::from_secs(300),
    )?;
    ensure!(
        event.name == "refused",
        "one file is damaged; then came {} {}",
        event.name,
        event.fields
    );
    machine.wait_powered_off(Duration::from_secs(120))?;
    untouched.ensure_no_writes(&mut machine)?;
    machine.quit()?;
    untouched.ensure_same_content()
}

/// Flips a byte in the pack that holds `probe`; returns the pack's path.
fn flip(stick: &Path, probe: &[u8], log: &Artefacts) -> Result<PathBuf> {
    rescue::on_data_partition(stick, log, |dir| {
        flip_below(&dir.join("lifeboat/packs"), probe)
    })
}

fn flip_below(dir: &Path, probe: &[u8]) -> Result<PathBuf> {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("{}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let bytes = fs::read(&path)?;
            if let Some(at) = bytes.windows(probe.len()).position(|w| w == probe) {
                disk::flip_byte(&path, at as u64 + 10)?;
                return Ok(path);
            }
        }
    }
    bail!("no pack holds the bytes of {PROBE_FILE} as they are")
}
