//! The host's root filesystem is gone, its guests' volumes are not: the armed stick makes the system anew where it was, and
//! every other byte of the disk stays.

use std::fs::File;
use std::os::unix::fs::FileExt;
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
        "system-only",
        "BIOS: the root filesystem is wiped; system-only makes it anew in its volume, and all other volumes keep their bytes",
        super::needs_bios,
        move |log| run(&artefacts, log),
    )
    .long()
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::PveExt4, Firmware::Bios, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    rescue::arm_as(&saved, &stick, "system-only", log)?;
    let target = log.path("target.raw");
    disk::copy(&saved.golden.disk(), &target, log)?;
    let gpt = disk::gpt(&target)?;
    let part = |number: u32| {
        let found = gpt.partitions.iter().find(|p| p.number == number);
        found
            .map(|p| (p.start * 512, p.size * 512))
            .with_context(|| format!("no partition {number}"))
    };
    let group = part(3)?;
    let root = volume(&target, group.0, "root")?;
    // Made anew: boot code (MBR, BIOS boot partition), the EFI system partition, the root volume.
    let remade = [(0, 440), part(1)?, part(2)?, root];
    let before = disk::hash_without(&target, &remade)?;
    disk::zero(&target, root.0, 512 << 20)?;
    disk::zero(&target, part(2)?.0, 8 << 20)?;
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .drive(Drive::new(&target, Bus::Virtio, rescue::TARGET_SERIAL))
        .start(log)?;
    rescue::wait_restored(&mut machine, log)?;
    machine.quit()?;
    ensure!(
        disk::hash_without(&target, &remade)? == before,
        "bytes outside of what is made anew have changed: volumes of guests, swap, LVM's metadata or another partition"
    );
    log.note("every byte outside of root, the EFI system partition and the boot code is the same");
    rescue::judge(&saved, &[&target], Bus::Virtio, log)
}

/// Where a logical volume of one linear segment lies on the image, out of the text that LVM writes into its physical volume
/// (lvm2: doc/lvm2_metadata.txt): start and length in bytes.
fn volume(image: &Path, partition: u64, name: &str) -> Result<(u64, u64)> {
    let mut area = vec![0; 1 << 20];
    File::open(image)?.read_exact_at(&mut area, partition)?;
    let text = String::from_utf8_lossy(&area);
    // The newest text is the one with the highest number.
    let newest = text
        .match_indices("seqno = ")
        .filter_map(|(at, word)| Some((number(&text[at + word.len()..])?, at)))
        .max()
        .context("no text of LVM")?;
    let text = &text[newest.1..];
    let field = |after: &str, name: &str| -> Result<u64> {
        let (_, rest) = after
            .split_once(&format!("{name} = "))
            .with_context(|| format!("no {name}"))?;
        number(rest).with_context(|| format!("{name} is no number"))
    };
    let extent = field(text, "extent_size")? * 512;
    let start = field(text, "pe_start")? * 512;
    let (_, volume) = text
        .split_once(&format!("\n{name} {{"))
        .with_context(|| format!("no volume {name}"))?;
    ensure!(
        field(volume, "segment_count")? == 1,
        "{name} lies in several pieces"
    );
    let count = field(volume, "extent_count")?;
    let (_, place) = volume.split_once("\"pv0\", ").context("no place")?;
    let first = number(place).context("no first extent")?;
    Ok((partition + start + first * extent, count * extent))
}

fn number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    text[..end].parse().ok()
}
