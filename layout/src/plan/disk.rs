//! Which present disk takes the place of which saved one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::fit::{Squeeze, needed};
use super::{Choices, DiskAssignment, DiskChoice, DiskIdentity, LeaveOut, PlanError, ties};
use crate::inventory::{Inventory, InventoryDisk};
use crate::model::{Disk, Layout, Node, NodeId};
use crate::units::Bytes;

/// Entries that a table has at least (UEFI specification 2.10, 5.3.1: 16 KiB), although some disks come with fewer.
pub(super) const LEAST_ENTRIES: u32 = 128;

/// Sectors that the backup of a GPT takes at the end: its entries and the header.
pub(super) fn gpt_tail(entries: u32, sector: crate::units::SectorSize) -> u64 {
    (u64::from(entries.max(LEAST_ENTRIES)) * 128).div_ceil(u64::from(sector.0.max(1))) + 1
}

/// The saved disks that have to be made anew: those of the system, and those that the operator mapped.
fn required(saved: &Layout, choices: &Choices) -> Result<BTreeSet<NodeId>, PlanError> {
    let mut required = saved.system_disks();
    if saved.mount_at(Path::new("/")).is_none() {
        if let Some((node, what)) = saved.nodes.iter().find_map(|(id, node)| match node {
            Node::Unsupported(what) => Some((id, what)),
            _ => None,
        }) {
            let reason = format!("{} {}: {}", what.device.display(), what.what, what.meaning);
            return Err(PlanError::Unsupported {
                node: node.clone(),
                reason,
            });
        }
    }
    for id in choices.disks.keys() {
        if !matches!(saved.nodes.get(id), Some(Node::Disk(_))) {
            return Err(PlanError::BadChoice {
                disk: id.clone(),
                reason: "the saved layout has no such disk".to_owned(),
            });
        }
        required.insert(id.clone());
    }
    if required.is_empty() {
        Err(PlanError::NothingToRestore)
    } else {
        Ok(required)
    }
}

pub(super) fn same(a: &Option<String>, b: &Option<String>) -> bool {
    a.is_some() && a == b
}

/// One line that tells a disk from its neighbours.
pub(super) fn describe(disk: &InventoryDisk) -> String {
    let model = disk.model.as_deref().unwrap_or("unknown model");
    let serial = disk
        .serial
        .as_deref()
        .map_or_else(|| "no serial".to_owned(), |s| format!("serial {s}"));
    format!(
        "{} ({model}, {serial}, {})",
        disk.device.display(),
        disk.size
    )
}

/// Why a disk must not be written to at all.
pub(super) fn excluded(disk: &InventoryDisk, choices: &Choices) -> Option<&'static str> {
    if choices.never.contains(&disk.device) {
        Some("it holds the bundle, or was excluded")
    } else if disk.read_only {
        // The fence of an earlier attempt stays until then.
        Some("it is read-only (if a restore was tried before: start the rescue system again)")
    } else if disk.in_use {
        Some("it is in use")
    } else {
        None
    }
}

/// Assigns disks, or says why that cannot be done.
pub(super) fn assign(
    saved: &Layout,
    inventory: &Inventory,
    choices: &Choices,
) -> Result<Vec<DiskAssignment>, PlanError> {
    let required = required(saved, choices)?;
    let mut assigned: Vec<DiskAssignment> = Vec::new();
    let mut open = Vec::new();
    // What is certain first, so that a disk with a matching serial is not given away as the only big enough one.
    for id in &required {
        let Some(Node::Disk(disk)) = saved.nodes.get(id) else {
            continue;
        };
        let known = match choices.disks.get(id) {
            Some(choice) => Some((chosen(id, choice, inventory, choices)?, "chosen")),
            None => by_identity(saved, id, disk, inventory, choices)?,
        };
        match known {
            Some((present, why)) => {
                fits(saved, id, disk, present, choices)?;
                take(&mut assigned, id, present, why)?;
            }
            None => open.push((id, disk)),
        }
    }
    mirrors(saved, inventory, choices, &mut assigned, &mut open)?;
    let taken = devices(&assigned);
    let several_open = open.len() > 1;
    for (id, disk) in open {
        let (present, why) = by_size(saved, id, disk, inventory, choices, &taken)?;
        if several_open && assigned.iter().any(|a| a.device == present.device) {
            let candidates = vec![describe(present)];
            return Err(PlanError::Ambiguous {
                disk: id.clone(),
                candidates,
            });
        }
        take(&mut assigned, id, present, why)?;
    }
    Ok(assigned)
}

fn devices(assigned: &[DiskAssignment]) -> BTreeSet<PathBuf> {
    assigned.iter().map(|a| a.device.clone()).collect()
}

/// Assigns saved disks that are alike (the halves of a mirror, for example) to as many present ones that are alike: any
/// order is right. What is not so clear stays open.
fn mirrors<'a>(
    saved: &'a Layout,
    inventory: &Inventory,
    choices: &Choices,
    assigned: &mut Vec<DiskAssignment>,
    open: &mut Vec<(&'a NodeId, &'a Disk)>,
) -> Result<(), PlanError> {
    let mut first = 0;
    while let Some((id, disk)) = open.get(first).copied() {
        let alike = |other: &(&NodeId, &Disk)| {
            other.0 == id || ties::interchangeable(saved, (id, disk), (other.0, other.1))
        };
        let (set, others): (Vec<_>, Vec<_>) = open.iter().copied().partition(|o| alike(o));
        let taken = devices(assigned);
        let roomy = |(id, disk): &(&NodeId, &Disk)| {
            candidates(saved, id, disk, inventory, choices, &taken).roomy
        };
        let places = roomy(&(id, disk));
        let same_for_all = set.iter().all(|s| roomy(s) == places);
        let wanted_by_others = others
            .iter()
            .any(|o| roomy(o).iter().any(|d| places.contains(d)));
        let kind = |d: &InventoryDisk| (d.size, d.sector_size, d.transport.clone());
        let same_kind = places.windows(2).all(|pair| match pair {
            [a, b] => kind(a) == kind(b),
            _ => true,
        });
        if set.len() < 2
            || places.len() != set.len()
            || !same_for_all
            || wanted_by_others
            || !same_kind
        {
            first += 1;
            continue;
        }
        for ((id, _), present) in set.iter().zip(places) {
            take(assigned, id, present, "alike, and as many as before")?;
        }
        *open = others;
    }
    Ok(())
}

pub(super) fn take(
    assigned: &mut Vec<DiskAssignment>,
    id: &NodeId,
    present: &InventoryDisk,
    why: &str,
) -> Result<(), PlanError> {
    if assigned.iter().any(|a| a.device == present.device) {
        let reason = format!(
            "{} would take the place of two saved disks",
            describe(present)
        );
        return Err(PlanError::BadChoice {
            disk: id.clone(),
            reason,
        });
    }
    assigned.push(DiskAssignment {
        saved: id.clone(),
        device: present.device.clone(),
        identity: DiskIdentity::of(present),
        erased: present.contents.clone(),
        why: why.to_owned(),
    });
    Ok(())
}

pub(super) fn chosen<'a>(
    id: &NodeId,
    choice: &DiskChoice,
    inventory: &'a Inventory,
    choices: &Choices,
) -> Result<&'a InventoryDisk, PlanError> {
    let (matches, words): (Vec<&InventoryDisk>, String) = match choice {
        DiskChoice::Serial(serial) => (
            inventory
                .disks
                .iter()
                .filter(|d| d.serial.as_ref() == Some(serial))
                .collect(),
            format!("with serial {serial}"),
        ),
        DiskChoice::Wwn(wwn) => (
            inventory
                .disks
                .iter()
                .filter(|d| d.wwn.as_ref() == Some(wwn))
                .collect(),
            format!("with WWN {wwn}"),
        ),
        DiskChoice::Device(path) => (
            inventory
                .disks
                .iter()
                .filter(|d| d.device == *path)
                .collect(),
            path.display().to_string(),
        ),
    };
    let bad = |reason: String| PlanError::BadChoice {
        disk: id.clone(),
        reason,
    };
    match matches.as_slice() {
        [] => Err(bad(format!("this machine has no disk {words}"))),
        [one] => match excluded(one, choices) {
            Some(reason) => Err(bad(format!("{}: {reason}", describe(one)))),
            None => Ok(one),
        },
        several => Err(PlanError::Ambiguous {
            disk: id.clone(),
            candidates: several.iter().map(|d| describe(d)).collect(),
        }),
    }
}

pub(super) fn by_identity<'a>(
    saved: &Layout,
    id: &NodeId,
    disk: &Disk,
    inventory: &'a Inventory,
    choices: &Choices,
) -> Result<Option<(&'a InventoryDisk, &'static str)>, PlanError> {
    for (why, test) in [
        (
            "same WWN",
            (|a, b| same(&a.wwn, &b.wwn)) as fn(&Disk, &InventoryDisk) -> bool,
        ),
        ("same serial number", |a, b| same(&a.serial, &b.serial)),
    ] {
        let found: Vec<&InventoryDisk> = inventory
            .disks
            .iter()
            .filter(|present| test(disk, present))
            .collect();
        match found.as_slice() {
            [] => {}
            // Another saved disk had this number, too: which of them is it?
            [one] if saved.disks().any(|(i, d)| i != id && test(d, one)) => {}
            [one] => {
                return match excluded(one, choices) {
                    Some(reason) => {
                        let reason =
                            format!("{} is the saved disk itself, but {reason}", describe(one));
                        Err(PlanError::BadChoice {
                            disk: id.clone(),
                            reason,
                        })
                    }
                    None => Ok(Some((one, why))),
                };
            }
            // Cheap sticks and virtual disks share serials: that identifies nothing.
            several => {
                let candidates = several.iter().map(|d| describe(d)).collect();
                return Err(PlanError::Ambiguous {
                    disk: id.clone(),
                    candidates,
                });
            }
        }
    }
    Ok(None)
}

/// The disks that could take the place of a saved one, and why the others cannot.
struct Candidates<'a> {
    /// On which every volume keeps its size.
    roomy: Vec<&'a InventoryDisk>,
    /// On which volumes have to shrink.
    tight: Vec<&'a InventoryDisk>,
    /// Why the others were passed over.
    reasons: Vec<String>,
    /// Those of them that are about size or sectors.
    errors: Vec<PlanError>,
}

fn candidates<'a>(
    saved: &Layout,
    id: &NodeId,
    disk: &Disk,
    inventory: &'a Inventory,
    choices: &Choices,
    taken: &BTreeSet<PathBuf>,
) -> Candidates<'a> {
    let mut found = Candidates {
        roomy: Vec::new(),
        tight: Vec::new(),
        reasons: Vec::new(),
        errors: Vec::new(),
    };
    let keeps_all = needed(saved, id, disk, choices, Squeeze::Free);
    for present in &inventory.disks {
        if taken.contains(&present.device) {
            continue;
        }
        let reason = if let Some(reason) = excluded(present, choices) {
            reason.to_owned()
        } else if is_other_saved_disk(saved, id, present) {
            "it is another disk of the saved host".to_owned()
        } else if present.removable && !disk.removable {
            "its medium is removable".to_owned()
        } else if choices.blank_only && !present.contents.is_empty() {
            format!(
                "it is not blank ({}), and it was not named",
                present.contents.join("; ")
            )
        } else {
            match fits(saved, id, disk, present, choices) {
                Ok(()) if present.size >= keeps_all => {
                    found.roomy.push(present);
                    continue;
                }
                Ok(()) if choices.blank_only => format!(
                    "volumes would have to shrink for it ({keeps_all} are needed to keep them), and it was not named"
                ),
                Ok(()) => {
                    found.tight.push(present);
                    continue;
                }
                Err(error) => {
                    let reason = error.to_string();
                    found.errors.push(error);
                    reason
                }
            }
        };
        found
            .reasons
            .push(format!("{}: {reason}", describe(present)));
    }
    found
}

fn by_size<'a>(
    saved: &Layout,
    id: &NodeId,
    disk: &Disk,
    inventory: &'a Inventory,
    choices: &Choices,
    taken: &BTreeSet<PathBuf>,
) -> Result<(&'a InventoryDisk, &'static str), PlanError> {
    let Candidates {
        roomy,
        tight,
        reasons,
        mut errors,
    } = candidates(saved, id, disk, inventory, choices, taken);
    let ambiguous = |several: &[&InventoryDisk]| PlanError::Ambiguous {
        disk: id.clone(),
        candidates: several.iter().map(|d| describe(d)).collect(),
    };
    match (roomy.as_slice(), tight.as_slice()) {
        ([one], _) => Ok((one, "the only disk that is big enough")),
        ([], [one]) => Ok((one, "the only disk that takes it, with smaller volumes")),
        ([], []) => {
            // With one disk that would be the right one but for its size, its own error says more than a list.
            if errors.len() == 1 {
                return Err(errors.remove(0));
            }
            // The biggest of several too small ones tells how much is missing at least.
            let sizes_only = !errors.is_empty()
                && errors
                    .iter()
                    .all(|e| matches!(e, PlanError::TooSmall { .. }));
            errors.sort_by_key(|e| match e {
                PlanError::TooSmall { missing, .. } => *missing,
                _ => Bytes(u64::MAX),
            });
            if sizes_only {
                return Err(errors.remove(0));
            }
            let reason = if reasons.is_empty() {
                "there is no disk".to_owned()
            } else {
                reasons.join("; ")
            };
            Err(PlanError::NoDiskFor {
                disk: id.clone(),
                needed: needed(saved, id, disk, choices, Squeeze::All),
                reason,
            })
        }
        ([], several) => Err(ambiguous(several)),
        (several, _) => {
            ties::tell_apart(saved, id, disk, inventory, several).ok_or_else(|| ambiguous(several))
        }
    }
}

/// A data disk of the saved host that is still there must not be taken for a blank one.
fn is_other_saved_disk(saved: &Layout, id: &NodeId, present: &InventoryDisk) -> bool {
    saved.disks().any(|(other, disk)| {
        other != id && (same(&disk.wwn, &present.wwn) || same(&disk.serial, &present.serial))
    })
}

fn fits(
    saved: &Layout,
    id: &NodeId,
    disk: &Disk,
    present: &InventoryDisk,
    choices: &Choices,
) -> Result<(), PlanError> {
    let converted;
    let (saved, disk) = if disk.sector_size == present.sector_size {
        (saved, disk)
    } else {
        let (to, size) = (present.sector_size, present.size);
        let made = super::sectors::convert(saved, id, disk, to, size);
        converted = made.map_err(|reason| PlanError::SectorSize {
            disk: id.clone(),
            device: present.device.clone(),
            saved: disk.sector_size,
            now: to,
            reason,
        })?;
        match converted.layout.nodes.get(id) {
            Some(Node::Disk(disk)) => (&converted.layout, disk),
            _ => (saved, disk),
        }
    };
    let needed = needed(saved, id, disk, choices, Squeeze::All);
    if present.size < needed {
        return Err(PlanError::TooSmall {
            disk: id.clone(),
            device: present.device.clone(),
            needed,
            available: present.size,
            missing: needed.minus(present.size),
            without: fits_without(saved, id, disk, choices, present.size),
        });
    }
    Ok(())
}

/// What has to be left out so that the rest fits: the least of it; empty when nothing helps.
fn fits_without(
    saved: &Layout,
    id: &NodeId,
    disk: &Disk,
    choices: &Choices,
    size: Bytes,
) -> Vec<LeaveOut> {
    // Swap first: it costs nothing to do without.
    for offer in [
        vec![LeaveOut::Swap],
        vec![LeaveOut::GuestPool],
        vec![LeaveOut::Swap, LeaveOut::GuestPool],
    ] {
        let mut with = choices.clone();
        with.leave_out.extend(&offer);
        if with.leave_out != choices.leave_out
            && needed(saved, id, disk, &with, Squeeze::All) <= size
        {
            return offer;
        }
    }
    Vec::new()
}
