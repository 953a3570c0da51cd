//! Whether a disk at hand is a saved one: by WWN or serial number, and only where nothing else says otherwise.

use super::disk::describe;
use crate::inventory::{Inventory, InventoryDisk};
use crate::model::{Disk, Layout, NodeId};

/// How alike a saved disk and one at hand are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Likeness {
    /// It is the saved disk, and how that is known.
    Same(&'static str),
    /// A number is the same, and something else is not: a bridge, a namespace of the same drive, a cheap copy.
    Doubtful(String),
    /// Nothing says that it is.
    Other,
}

/// A WWN without what tools put before it: udev writes `0x5000...`, sysfs `naa.5000...`. `None`: none that tells anything.
fn wwn(text: &Option<String>) -> Option<String> {
    let text = text.as_deref()?.trim().to_ascii_lowercase();
    let text = ["0x", "naa.", "eui."]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(&text);
    telling(text)
}

/// A serial number as comparable text: udev writes `_` for blanks, sysfs pads.
fn serial(text: &Option<String>) -> Option<String> {
    telling(&plain(text.as_deref()?))
}

fn plain(text: &str) -> String {
    text.replace('_', " ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Nothing, and nothing but zeros, tells nothing.
fn telling(text: &str) -> Option<String> {
    let tells = text.chars().any(|c| !matches!(c, '0' | ' ' | '-' | '.'));
    tells.then(|| text.to_owned())
}

/// Whether two models may be one: SCSI cuts them off after 16 characters.
fn may_be_one(a: &Option<String>, b: &Option<String>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            let (a, b) = (plain(a).to_ascii_lowercase(), plain(b).to_ascii_lowercase());
            a.starts_with(&b) || b.starts_with(&a)
        }
        _ => true,
    }
}

/// Whether both are known, and the same or not; `None`: nothing can be said.
fn agree(a: Option<String>, b: Option<String>) -> Option<bool> {
    Some(a? == b?)
}

/// Compares a saved disk with one at hand.
pub(super) fn likeness(saved: &Disk, present: &InventoryDisk) -> Likeness {
    let by_wwn = agree(wwn(&saved.wwn), wwn(&present.wwn));
    let by_serial = agree(serial(&saved.serial), serial(&present.serial));
    let (what, against) = match (by_wwn, by_serial) {
        (Some(true), Some(false)) => ("WWN", Some("another serial number")),
        (Some(true), _) => ("WWN", None),
        (Some(false), Some(true)) => ("serial number", Some("another WWN")),
        (_, Some(true)) => ("serial number", None),
        _ => return Likeness::Other,
    };
    let against = if saved.size != present.size {
        Some(format!(
            "another size ({}, it was {})",
            present.size, saved.size
        ))
    } else if let Some(against) = against {
        Some(against.to_owned())
    } else if what == "serial number" && !may_be_one(&saved.model, &present.model) {
        Some("another model".to_owned())
    } else {
        None
    };
    match (against, what) {
        (Some(against), what) => Likeness::Doubtful(format!(
            "{} has the {what} of the saved disk, and {against}",
            describe(present)
        )),
        (None, "WWN") => Likeness::Same("same WWN"),
        (None, _) => Likeness::Same("same serial number"),
    }
}

/// What speaks against a disk at hand being the saved one, although it carries what was on that: a copy looks like that, too.
/// `None`: nothing does.
pub(super) fn contradiction(saved: &Disk, present: &InventoryDisk) -> Option<String> {
    let differs = |a, b| agree(a, b) == Some(false);
    let other = match likeness(saved, present) {
        Likeness::Same(_) => return None,
        Likeness::Doubtful(doubt) => return Some(doubt),
        Likeness::Other if differs(wwn(&saved.wwn), wwn(&present.wwn)) => "another WWN",
        Likeness::Other if differs(serial(&saved.serial), serial(&present.serial)) => {
            "another serial number"
        }
        Likeness::Other if saved.size != present.size => "another size",
        Likeness::Other => return None,
    };
    Some(format!(
        "{} carries what was on the saved disk, and has {other}",
        describe(present)
    ))
}

/// Whether a disk at hand is another saved disk than `id`, or may be: it must not be taken for a blank one, nor for `id`.
pub(super) fn is_other_saved_disk(saved: &Layout, id: &NodeId, present: &InventoryDisk) -> bool {
    saved
        .disks()
        .any(|(other, disk)| other != id && likeness(disk, present) != Likeness::Other)
}

/// Whether a disk at hand is certainly another saved disk than `id`, or both of them by what its numbers say.
pub(super) fn is_certainly_another(saved: &Layout, id: &NodeId, present: &InventoryDisk) -> bool {
    saved
        .disks()
        .any(|(other, disk)| other != id && matches!(likeness(disk, present), Likeness::Same(_)))
}

/// Another device node of the same disk: two paths to one LUN. Bridges that give every disk the same WWN look like it, too.
pub(super) fn other_path<'a>(
    inventory: &'a Inventory,
    present: &InventoryDisk,
) -> Option<&'a InventoryDisk> {
    let number = wwn(&present.wwn)?;
    inventory
        .disks
        .iter()
        .find(|other| other.device != present.device && wwn(&other.wwn).as_ref() == Some(&number))
}

/// Whether two disks at hand cannot be told apart but by their kernel names: then none of them is guessed.
pub(super) fn are_twins(a: &InventoryDisk, b: &InventoryDisk) -> bool {
    a.device != b.device
        && a.size == b.size
        && agree(serial(&a.serial), serial(&b.serial)) == Some(true)
        && agree(wwn(&a.wwn), wwn(&b.wwn)) != Some(false)
}

/// Whether a number that the operator gave is this disk's WWN.
pub(super) fn has_wwn(disk: &InventoryDisk, number: &str) -> bool {
    let asked = wwn(&Some(number.to_owned()));
    asked.is_some() && asked == wwn(&disk.wwn)
}

/// Whether a number that the operator gave is this disk's serial number.
pub(super) fn has_serial(disk: &InventoryDisk, number: &str) -> bool {
    same_serial(&disk.serial, number)
}

/// Whether a number that the operator gave is this serial number.
pub(super) fn same_serial(of: &Option<String>, number: &str) -> bool {
    let exact = of.as_deref() == Some(number);
    let asked = serial(&Some(number.to_owned()));
    exact || asked.is_some() && asked == serial(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Bytes, SectorSize};

    fn pair() -> (Disk, InventoryDisk) {
        let saved = Disk {
            device: "/dev/sda".into(),
            model: Some("Samsung SSD 870 EVO 1TB".into()),
            serial: Some("S6PT".into()),
            wwn: Some("0x5002538F".into()),
            size: Bytes::GIB,
            sector_size: SectorSize::S512,
            transport: Some("ata".into()),
            removable: false,
            table: None,
        };
        let present = InventoryDisk {
            device: "/dev/sdb".into(),
            model: saved.model.clone(),
            serial: saved.serial.clone(),
            wwn: saved.wwn.clone(),
            size: saved.size,
            sector_size: saved.sector_size,
            removable: false,
            transport: None,
            media: None,
            read_only: false,
            contents: Vec::new(),
            vgs: Vec::new(),
            in_use: false,
        };
        (saved, present)
    }

    fn with(change: impl Fn(&mut Disk, &mut InventoryDisk)) -> Likeness {
        let (mut saved, mut present) = pair();
        change(&mut saved, &mut present);
        likeness(&saved, &present)
    }

    #[test]
    fn numbers_are_the_same_however_tools_write_them() {
        let same = |l: Likeness| matches!(l, Likeness::Same(_));
        assert_eq!(with(|_, _| {}), Likeness::Same("same WWN"));
        assert!(same(with(|_, p| p.wwn = Some("naa.5002538f".into()))));
        assert_eq!(
            with(|_, p| {
                p.wwn = None;
                p.serial = Some("  S6PT  ".into());
                p.model = Some("Samsung_SSD_870".into());
            }),
            Likeness::Same("same serial number")
        );
    }

    #[test]
    fn what_contradicts_makes_it_a_question() {
        type Change = fn(&mut Disk, &mut InventoryDisk);
        let doubtful: [(&str, Change); 5] = [
            // A bridge with one WWN for every disk, or a LUN that was made bigger.
            ("another size", |_, p| p.size = Bytes::mib(2048)),
            // The same disk behind a bridge.
            ("another serial number", |_, p| {
                p.serial = Some("USB123".into())
            }),
            // Another namespace of the same NVMe drive.
            ("another WWN", |_, p| p.wwn = Some("eui.0025385b".into())),
            // A serial number that cheap bridges share.
            ("another size", |s, p| {
                s.wwn = None;
                p.size = Bytes::mib(512);
            }),
            ("another model", |s, p| {
                s.wwn = None;
                p.model = Some("Other".into());
            }),
        ];
        for (words, change) in doubtful {
            let found = with(change);
            assert!(
                matches!(&found, Likeness::Doubtful(text) if text.contains(words)),
                "{words}: {found:?}"
            );
        }
    }

    #[test]
    fn numbers_of_nothing_but_zeros_are_none() {
        let found = with(|s, p| {
            s.wwn = Some("0x0000000000000000".into());
            p.wwn.clone_from(&s.wwn);
            s.serial = Some("000000000000".into());
            p.serial.clone_from(&s.serial);
        });
        assert_eq!(found, Likeness::Other);
    }

    #[test]
    fn two_paths_to_one_disk_are_seen() {
        let (_, one) = pair();
        let mut two = one.clone();
        two.device = "/dev/sdc".into();
        two.wwn = Some("naa.5002538f".into());
        let mut inventory = Inventory {
            firmware: crate::model::Firmware::Bios,
            disks: vec![one.clone(), two],
            memory: Bytes::GIB,
            present: None,
        };
        assert!(other_path(&inventory, &one).is_some());
        inventory.disks[1].wwn = None;
        assert!(other_path(&inventory, &one).is_none());
        assert!(are_twins(&one, &inventory.disks[1]));
    }
}
