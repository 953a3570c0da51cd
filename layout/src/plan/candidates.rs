//! Disks that could take the place of a saved one that is not recognised.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::disk::{describe, excluded, seen_twice};
use super::fit::{Squeeze, needed, needed_when_spread};
use super::{Choices, LeaveOut, PlanError, identity, spread, ties};
use crate::inventory::{Inventory, InventoryDisk};
use crate::model::{Disk, Layout, Node, NodeId};
use crate::units::Bytes;

/// What candidates are looked for with.
pub(super) struct Look<'a> {
    pub saved: &'a Layout,
    pub original: &'a Layout,
    pub inventory: &'a Inventory,
    pub choices: &'a Choices,
}

/// The disks that could take the place of a saved one, and why the others cannot.
pub(super) struct Candidates<'a> {
    /// On which every volume keeps its size.
    pub roomy: Vec<&'a InventoryDisk>,
    /// On which volumes have to shrink.
    tight: Vec<&'a InventoryDisk>,
    /// Why the others were passed over.
    reasons: Vec<String>,
    /// Those of them that are about size or sectors.
    errors: Vec<PlanError>,
}

pub(super) fn candidates<'a>(
    look: &Look<'a>,
    id: &NodeId,
    disk: &Disk,
    taken: &BTreeSet<PathBuf>,
) -> Candidates<'a> {
    let Look {
        saved,
        original,
        inventory,
        choices,
    } = *look;
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
        } else if identity::is_other_saved_disk(original, id, present) {
            "it is another disk of the saved host, or has its number".to_owned()
        } else if present.removable && !disk.removable {
            "its medium is removable".to_owned()
        } else if is_usb(&present.transport) && !is_usb(&disk.transport) {
            "it is connected through USB, which the saved disk was not".to_owned()
        } else if let Some(other) = identity::other_path(inventory, present) {
            seen_twice(other)
        } else if let Some(medium) = twin_of_excluded(present, inventory, choices) {
            format!(
                "it has the serial number and size of {}, which must not be written to",
                medium.device.display()
            )
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

fn is_usb(transport: &Option<String>) -> bool {
    transport.as_deref() == Some("usb")
}

/// A disk that must not be written to, and that cannot be told from this one.
fn twin_of_excluded<'a>(
    present: &InventoryDisk,
    inventory: &'a Inventory,
    choices: &Choices,
) -> Option<&'a InventoryDisk> {
    let mut twins = inventory
        .disks
        .iter()
        .filter(|d| identity::are_twins(d, present));
    twins.find(|d| excluded(d, choices).is_some())
}

/// The disk that takes the place of a saved one that is not recognised.
pub(super) fn by_size<'a>(
    look: &Look<'a>,
    id: &NodeId,
    disk: &Disk,
    taken: &BTreeSet<PathBuf>,
) -> Result<(&'a InventoryDisk, &'static str), PlanError> {
    let Look {
        saved,
        original,
        inventory,
        choices,
    } = *look;
    let Candidates {
        roomy,
        tight,
        reasons,
        mut errors,
    } = candidates(look, id, disk, taken);
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
                instead: Vec::new(),
            })
        }
        // With nobody to ask, model and connection are no proof.
        (several, _) if choices.blank_only && !several.is_empty() => Err(ambiguous(several)),
        ([], several) => Err(ambiguous(several)),
        (several, _) => ties::tell_apart(original, id, disk, inventory, several)
            .ok_or_else(|| ambiguous(several)),
    }
}

/// Whether a disk takes the saved contents, all of it squeezed.
pub(super) fn fits(
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
            spread: spread::group_on(saved, id)
                .ok()
                .filter(|_| needed_when_spread(saved, id, disk, choices) <= present.size)
                .map(|group| group.name),
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
