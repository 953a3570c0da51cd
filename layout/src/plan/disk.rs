//! Which present disk takes the place of which saved one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::candidates::{Look, by_size, candidates, fits};
use super::fit::{Squeeze, needed};
use super::identity::{self, Likeness, likeness};
use super::{Choices, DiskAssignment, DiskChoice, DiskIdentity, PlanError, ties};
use crate::inventory::{Inventory, InventoryDisk};
use crate::model::{Disk, Layout, Node, NodeId};

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

/// Assigns disks, or says why that cannot be done. `original` is the layout with the saved disks that share the place of
/// others, or are done without: they are still no blank ones.
pub(super) fn assign(
    saved: &Layout,
    original: &Layout,
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
            Some(choice) => {
                let present = chosen(id, disk, choice, inventory, choices)?;
                let other = identity::is_other_saved_disk(original, id, present);
                let why = if other && likeness(disk, present) == Likeness::Other {
                    "chosen, although it is another disk of the saved host"
                } else {
                    "chosen"
                };
                Some((present, why))
            }
            None => by_identity(original, id, disk, inventory, choices)?,
        };
        match known {
            Some((present, why)) => {
                fits(saved, id, disk, present, choices)?;
                take(&mut assigned, id, present, why)?;
            }
            None => open.push((id, disk)),
        }
    }
    let look = Look {
        saved,
        original,
        inventory,
        choices,
    };
    mirrors(&look, &mut assigned, &mut open)?;
    let taken = devices(&assigned);
    let several_open = open.len() > 1;
    for (id, disk) in open {
        let (present, why) = by_size(&look, id, disk, &taken)?;
        if several_open && assigned.iter().any(|a| a.device == present.device) {
            return Err(PlanError::NoDiskFor {
                disk: id.clone(),
                needed: needed(saved, id, disk, choices, Squeeze::All),
                reason: format!(
                    "{} is the only one, and another saved disk needs one, too",
                    describe(present)
                ),
                instead: Vec::new(),
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
    look: &Look<'a>,
    assigned: &mut Vec<DiskAssignment>,
    open: &mut Vec<(&'a NodeId, &'a Disk)>,
) -> Result<(), PlanError> {
    let mut first = 0;
    while let Some((id, disk)) = open.get(first).copied() {
        let alike = |other: &(&NodeId, &Disk)| {
            other.0 == id || ties::interchangeable(look.saved, (id, disk), (other.0, other.1))
        };
        let (set, others): (Vec<_>, Vec<_>) = open.iter().copied().partition(|o| alike(o));
        let taken = devices(assigned);
        let roomy = |(id, disk): &(&NodeId, &Disk)| candidates(look, id, disk, &taken).roomy;
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
        joins: None,
    });
    Ok(())
}

pub(super) fn chosen<'a>(
    id: &NodeId,
    disk: &Disk,
    choice: &DiskChoice,
    inventory: &'a Inventory,
    choices: &Choices,
) -> Result<&'a InventoryDisk, PlanError> {
    let words = match choice {
        DiskChoice::Serial(serial) => format!("with serial {serial}"),
        DiskChoice::Wwn(wwn) => format!("with WWN {wwn}"),
        other => other.to_string(),
    };
    let is_meant = |d: &&InventoryDisk| match choice {
        DiskChoice::Serial(serial) => identity::has_serial(d, serial),
        DiskChoice::Wwn(wwn) => identity::has_wwn(d, wwn),
        DiskChoice::Device(path) => d.device == *path,
        // Dealt with before disks are looked for.
        DiskChoice::Onto(_) | DiskChoice::Missing | DiskChoice::Spread(_) => false,
    };
    let matches: Vec<&InventoryDisk> = inventory.disks.iter().filter(is_meant).collect();
    let bad = |reason: String| PlanError::BadChoice {
        disk: id.clone(),
        reason,
    };
    let one = match matches.as_slice() {
        [] => return Err(bad(format!("this machine has no disk {words}"))),
        [one] => *one,
        several => {
            return Err(PlanError::Ambiguous {
                disk: id.clone(),
                candidates: several.iter().map(|d| describe(d)).collect(),
            });
        }
    };
    let reason = if let Some(reason) = excluded(one, choices) {
        reason.to_owned()
    } else if let Some(other) = identity::other_path(inventory, one) {
        seen_twice(other)
    } else if choices.blank_only
        && matches!(choice, DiskChoice::Device(_))
        && (one.serial.is_some() || one.wwn.is_some())
        && !one.contents.is_empty()
        && !matches!(likeness(disk, one), Likeness::Same(_))
    {
        // Between arming and the restore, another disk may have got the name.
        format!(
            "it is not blank ({}), and named by its kernel name only, which changes from start to start: name it by serial \
             number or WWN",
            one.contents.join("; ")
        )
    } else {
        return Ok(one);
    };
    Err(bad(format!("{}: {reason}", describe(one))))
}

pub(super) fn seen_twice(other: &InventoryDisk) -> String {
    format!(
        "it is seen twice, as {}, too, which has the same WWN: disconnect one of the two",
        other.device.display()
    )
}

/// The disk at hand that is the saved one, certainly. A doubt is an error, not a reason to look for another one.
pub(super) fn by_identity<'a>(
    original: &Layout,
    id: &NodeId,
    disk: &Disk,
    inventory: &'a Inventory,
    choices: &Choices,
) -> Result<Option<(&'a InventoryDisk, &'static str)>, PlanError> {
    let (mut by_wwn, mut by_serial, mut doubts) = (Vec::new(), Vec::new(), Vec::new());
    let mut shared = Vec::new();
    for present in &inventory.disks {
        let found = likeness(disk, present);
        // Another saved disk had this number, too: which of them is it? Of disks that share a serial number, only the WWN
        // tells one from another.
        let another = match found {
            Likeness::Other => continue,
            Likeness::Same("same WWN") => identity::is_certainly_another(original, id, present),
            _ => identity::is_other_saved_disk(original, id, present),
        };
        if another {
            shared.push(present);
            continue;
        }
        match found {
            Likeness::Same("same WWN") => by_wwn.push(present),
            Likeness::Same(_) => by_serial.push(present),
            Likeness::Doubtful(doubt) if excluded(present, choices).is_none() => doubts.push(doubt),
            _ => {}
        }
    }
    let several = |disks: &[&InventoryDisk], doubts: Vec<String>| {
        let candidates = disks.iter().map(|d| describe(d)).chain(doubts);
        Err(PlanError::Ambiguous {
            disk: id.clone(),
            candidates: candidates.collect(),
        })
    };
    let (one, why) = match (by_wwn.as_slice(), by_serial.as_slice()) {
        // Two paths to one disk, or bridges that share their number.
        ([_, _, ..], _) => return several(&by_wwn, Vec::new()),
        ([one], _) => (*one, "same WWN"),
        ([], [one]) if doubts.is_empty() => (*one, "same serial number"),
        ([], []) if doubts.is_empty() && shared.len() < 2 => return Ok(None),
        ([], []) if doubts.is_empty() => return several(&shared, doubts),
        ([], []) => {
            return Err(PlanError::Doubtful {
                disk: id.clone(),
                candidates: doubts,
            });
        }
        // Cheap sticks and virtual disks share serials: that identifies nothing.
        ([], _) => return several(&by_serial, doubts),
    };
    match excluded(one, choices) {
        Some(reason) => {
            let reason = format!("{} is the saved disk itself, but {reason}", describe(one));
            Err(PlanError::BadChoice {
                disk: id.clone(),
                reason,
            })
        }
        None => Ok(Some((one, why))),
    }
}
