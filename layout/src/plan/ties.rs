//! Which of several disks that would all do: told apart only where there is no doubt. Kernel names decide nothing.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use super::disk::same;
use crate::inventory::{Inventory, InventoryDisk};
use crate::model::{Disk, Layout, Node, NodeId, Table};

/// Whether a saved disk and one at hand have something in common.
type Test<'t> = &'t dyn Fn(&Disk, &InventoryDisk) -> bool;

/// The one of `several` that is plainly meant, and why: the same model and size, or the only disk of its kind of connection,
/// then as now. Disks at hand that are out of the question for another reason count, too: what is not unique tells nothing.
pub(super) fn tell_apart<'a>(
    saved: &Layout,
    id: &NodeId,
    disk: &Disk,
    inventory: &Inventory,
    several: &[&'a InventoryDisk],
) -> Option<(&'a InventoryDisk, &'static str)> {
    let model = |a: &Disk, b: &InventoryDisk| same(&a.model, &b.model) && a.size == b.size;
    let transport = |a: &Disk, b: &InventoryDisk| same(&a.transport, &b.transport);
    let tests: [(&str, Test<'_>); 2] = [
        ("the only disk of the same model and size", &model),
        (
            "the only disk that is connected as the saved one was",
            &transport,
        ),
    ];
    for (why, test) in tests {
        let mut present = inventory.disks.iter().filter(|d| test(disk, d));
        let (Some(one), None) = (present.next(), present.next()) else {
            continue;
        };
        // Another saved disk was like that, too: which of them is it?
        if saved.disks().any(|(i, d)| i != id && test(d, one)) {
            continue;
        }
        if let Some(found) = several.iter().find(|d| d.device == one.device) {
            return Some((found, why));
        }
    }
    None
}

/// Whether two saved disks may change places: the same size, connection and partitions, and what lies on them lies on both,
/// or is of the same kinds on each. The members of an array or a pool are like that.
pub(super) fn interchangeable(
    saved: &Layout,
    (a, one): (&NodeId, &Disk),
    (b, other): (&NodeId, &Disk),
) -> bool {
    let shape = |id: &NodeId| -> Vec<_> {
        let partitions = saved.partitions(id);
        let shape = partitions
            .iter()
            .map(|(_, p)| (p.number, p.type_guid.clone(), p.start, p.end));
        shape.collect()
    };
    // Nothing of a GPT but its number of entries differs in what a restore makes of it; the signature of an MBR does not
    // count, and the places of its records follow from the partitions.
    let entries = |disk: &Disk| {
        disk.table.as_ref().map(|table| match table {
            Table::Gpt(table) => Some(table.entries),
            Table::Mbr(_) => None,
        })
    };
    if one.size != other.size
        || one.sector_size != other.sector_size
        || one.transport != other.transport
        || entries(one) != entries(other)
        || shape(a) != shape(b)
    {
        return false;
    }
    let mut shared = false;
    let mut alone: [HashMap<Discriminant<Node>, usize>; 2] = Default::default();
    for (id, node) in &saved.nodes {
        let below = saved.disks_below(id);
        match (below.contains(a), below.contains(b)) {
            (true, true) => shared = true,
            (true, false) => *alone[0].entry(discriminant(node)).or_default() += 1,
            (false, true) => *alone[1].entry(discriminant(node)).or_default() += 1,
            (false, false) => {}
        }
    }
    shared && alone[0] == alone[1]
}
