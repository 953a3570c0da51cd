//! Restores in place: something of the host is destroyed on a copy of its disk, the armed stick makes that anew, and every
//! other byte of the disk stays.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{DISK_BYTES, Host};
use crate::qemu::{Bus, Drive, Firmware};
use crate::runner::Scenario;
use crate::saved::Saved;

/// Start and length in bytes.
type Range = (u64, u64);

/// A disaster that is answered in place.
#[derive(Clone, Copy)]
struct InPlace {
    name: &'static str,
    about: &'static str,
    firmware: Firmware,
    bus: Bus,
    /// What the stick is armed with.
    mode: &'static str,
    /// What is done to this disk.
    harm: fn(&Path) -> Result<Harm>,
}

/// What happens to the disk.
struct Harm {
    zeroed: Vec<Range>,
    /// What may have other bytes afterwards.
    remade: Vec<Range>,
}

/// The MBR's boot code.
const BOOT_CODE: Range = (0, 440);

const ALL: [InPlace; 4] = [
    InPlace {
        name: "system-only",
        about: "BIOS: the root filesystem is wiped; system-only makes it anew in its volume, and all other volumes keep their bytes",
        firmware: Firmware::Bios,
        bus: Bus::Virtio,
        mode: "system-only",
        harm: |disk| {
            let root = volume(disk, part(disk, 3)?.0, "root")?;
            let (bios, esp) = (part(disk, 1)?, part(disk, 2)?);
            let zeroed = vec![(root.0, 512 << 20), (esp.0, 8 << 20)];
            let remade = vec![BOOT_CODE, bios, esp, root];
            Ok(Harm { zeroed, remade })
        },
    },
    InPlace {
        name: "boot-repair",
        about: "UEFI: the EFI system partition is zeroed; boot-repair fills it, all other bytes stay, and the disk boots",
        firmware: Firmware::Uefi,
        bus: Bus::Sata,
        mode: "boot-repair",
        harm: |disk| {
            let esp = part(disk, 2)?;
            Ok(Harm {
                zeroed: vec![esp],
                remade: vec![esp],
            })
        },
    },
    InPlace {
        name: "boot-code",
        about: "BIOS: the MBR's boot code and the BIOS boot partition are zeroed; boot-repair writes them, and the disk boots",
        firmware: Firmware::Bios,
        bus: Bus::Virtio,
        mode: "boot-repair",
        harm: |disk| {
            let (bios, esp) = (part(disk, 1)?, part(disk, 2)?);
            Ok(Harm {
                zeroed: vec![BOOT_CODE, bios],
                remade: vec![BOOT_CODE, bios, esp],
            })
        },
    },
    InPlace {
        name: "gpt-zeroed",
        about: "BIOS: both copies of the GPT are zeroed; table-repair writes the saved one, all other bytes stay, the disk boots",
        firmware: Firmware::Bios,
        bus: Bus::Virtio,
        mode: "table-repair",
        harm: |_| {
            // The partitions of the MBR, header and entries in front; entries and header behind.
            let tables = vec![(440, 34 * 512 - 440), (DISK_BYTES - 33 * 512, 33 * 512)];
            Ok(Harm {
                zeroed: tables.clone(),
                remade: tables,
            })
        },
    },
];

/// The scenarios.
pub fn scenarios(artefacts: &Path) -> Vec<Scenario> {
    ALL.into_iter()
        .map(|case| {
            let artefacts = artefacts.to_owned();
            let needs = match case.firmware {
                Firmware::Bios => super::needs_bios,
                _ => super::needs_uefi,
            };
            let body = move |log: &Artefacts| case.run(&artefacts, log);
            Scenario::new(case.name, case.about, needs, body).long()
        })
        .collect()
}

impl InPlace {
    fn run(&self, artefacts: &Path, log: &Artefacts) -> Result<()> {
        let saved = Saved::get(Host::PveExt4, self.firmware, artefacts)?;
        let stick = rescue::copy_stick(&saved, log)?;
        rescue::arm_as(&saved, &stick, self.mode, log)?;
        let target: PathBuf = log.path("target.raw");
        disk::copy(&saved.golden.disk(), &target, log)?;
        let Harm { zeroed, remade } = (self.harm)(&target)?;
        let before = disk::hash_without(&target, &remade)?;
        for (at, length) in zeroed {
            disk::zero(&target, at, length)?;
        }
        ensure!(
            disk::gpt(&target).is_err() == (self.mode == "table-repair"),
            "the partition table is not as this scenario wants it"
        );
        let mut machine = rescue::machine(self.firmware, &stick)
            .drive(Drive::new(&target, self.bus, rescue::TARGET_SERIAL))
            .start(log)?;
        rescue::wait_restored(&mut machine, log)?;
        machine.quit()?;
        ensure!(
            disk::hash_without(&target, &remade)? == before,
            "bytes outside of what is made anew have changed: guests' volumes, LVM's metadata, swap or another partition"
        );
        log.note("every byte outside of what was made anew is the same");
        rescue::judge(&saved, &[&target], self.bus, log)
    }
}

/// Where a partition lies.
fn part(image: &Path, number: u32) -> Result<Range> {
    let gpt = disk::gpt(image)?;
    let found = gpt.partitions.iter().find(|p| p.number == number);
    found
        .map(|p| (p.start * 512, p.size * 512))
        .with_context(|| format!("no partition {number}"))
}

/// Where a logical volume of one linear segment lies on the image, out of the text that LVM writes into its physical volume
/// (lvm2: doc/lvm2_metadata.txt): start and length in bytes.
fn volume(image: &Path, partition: u64, name: &str) -> Result<Range> {
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
