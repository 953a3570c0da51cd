//! What else can be done where a saved disk has no place: found out by trying.

use super::{Choices, DiskChoice, PlanError, attempt};
use crate::inventory::Inventory;
use crate::model::Layout;

/// Of so many other disks it is tried whether they can share their place.
const TRIED: usize = 8;

/// Adds to an error what can be chosen instead. It is offered, and never done by itself.
pub(super) fn offer(
    error: PlanError,
    saved: &Layout,
    inventory: &Inventory,
    choices: &Choices,
) -> PlanError {
    let PlanError::NoDiskFor {
        disk,
        needed,
        reason,
        ..
    } = error
    else {
        return error;
    };
    let others = saved.system_disks();
    let others = others.iter().filter(|id| **id != disk).take(TRIED);
    let offers = std::iter::once(DiskChoice::Missing)
        .chain(others.map(|id| DiskChoice::Onto(id.clone())))
        .filter(|offer| {
            let mut with = choices.clone();
            with.disks.insert(disk.clone(), offer.clone());
            attempt(saved, inventory, &with).is_ok()
        });
    let instead = if choices.disks.contains_key(&disk) {
        Vec::new()
    } else {
        offers.collect()
    };
    PlanError::NoDiskFor {
        disk,
        needed,
        reason,
        instead,
    }
}
