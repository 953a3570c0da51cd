//! A restore onto the very disks of the host: there is a plan, and all the tools that it needs.

use std::collections::{BTreeMap, BTreeSet};

use layout::model::{Node, NodeId};
use layout::plan::{Choices, DiskChoice, plan};
use rescue_image::initramfs;

use crate::doctor::{Check, Finding, Kind, Look, Severity};

const NO_PLAN: Kind = Kind {
    id: "no-plan",
    severity: Severity::Critical,
    about: "this host could not be restored even onto its own disks",
    why: "What a backup saves cannot be brought back as it is.",
};
const TOOL: Kind = Kind {
    id: "tool-missing",
    severity: Severity::Critical,
    about: "a program that a restore of this host needs is missing, and so it is in the rescue system",
    why: "The rescue system takes its programs from this host, and a restore refuses to begin without it.",
};

pub const CHECK: Check = Check {
    kinds: &[NO_PLAN, TOOL],
    settings: false,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let Ok(layout) = &look.layout else {
        return Vec::new();
    };
    // Directories of a machine without disks of its own, as in a container, can be saved, too.
    if layout.system_disks().is_empty() {
        return Vec::new();
    }
    let Ok(mut inventory) = layout::inventory::inventory(look.sys) else {
        return Vec::new();
    };
    for disk in &mut inventory.disks {
        (disk.in_use, disk.read_only) = (false, false);
    }
    // Each onto itself: two disks without serial numbers are not to be told apart otherwise.
    let itself = |id: &NodeId| match layout.nodes.get(id) {
        Some(Node::Disk(disk)) => Some((id.clone(), DiskChoice::Device(disk.device.clone()))),
        _ => None,
    };
    let choices = Choices {
        disks: layout.system_disks().iter().filter_map(itself).collect(),
        ..Choices::default()
    };
    let plan = match plan(layout, &inventory, &choices) {
        Ok(plan) => plan,
        Err(error) => return vec![NO_PLAN.found(error.to_string(), "lifeboat layout")],
    };
    let mut lost: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for tool in plan.tools.iter().filter(|tool| !look.has(tool)) {
        let package = initramfs::package_of(tool).unwrap_or(tool);
        lost.entry(package).or_default().insert(tool);
    }
    let found = lost.iter().map(|(package, tools)| {
        let tools: Vec<&str> = tools.iter().copied().collect();
        TOOL.found(
            format!("missing: {}", tools.join(", ")),
            format!("apt-get install {package}"),
        )
    });
    found.collect()
}
