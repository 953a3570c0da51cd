//! From a saved layout and the machine at hand to ordered, typed steps. Nothing is touched here.

mod allocation;
mod boot;
mod btrfs;
mod build;
mod candidates;
mod choices;
mod disk;
mod error;
mod fit;
mod fs;
mod gpt;
mod identity;
pub(crate) mod in_place;
mod instead;
pub(crate) mod luks;
mod lvm;
mod mbr;
mod mode;
pub(crate) mod raid;
mod render;
mod reshape;
mod safety;
mod sectors;
mod spread;
mod step;
mod swap_file;
mod ties;
mod zfs;

pub use boot::{PlannedEsp, ProxmoxMode};
pub use choices::{Choices, DiskChoice, Grow, LeaveOut};
pub use error::PlanError;
pub use in_place::{InPlace, Kept, Remade};
pub use mode::Mode;
pub use step::{
    FstabOption, PlannedPartition, PlannedPv, PlannedSubvolume, PlannedVdev, Step, UsedPartition,
    UsedPv,
};

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::inventory::{Inventory, InventoryDisk};
use crate::model::{Layout, NodeId};
use crate::units::{Bytes, SectorSize};

/// What will be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Which present disk takes the place of which saved one.
    pub disks: Vec<DiskAssignment>,
    /// Saved disks that have no present one of their own, by choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<MergedDisk>,
    /// The disks that are made read-only first.
    pub fence: Vec<FencedDisk>,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// What gets another size.
    pub sizes: Vec<SizeChange>,
    /// What is lost or not restored, and what else to know.
    pub notes: Vec<String>,
    /// Programs that the steps need.
    pub tools: Vec<String>,
    /// Differences from the saved layout that this plan makes on purpose.
    pub substitutions: Vec<Substitution>,
    /// What is made anew and what stays, when partitions and volumes stay where they are; `None`: bare metal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<InPlace>,
}

impl Plan {
    /// How much of the machine is touched.
    pub fn mode(&self) -> Mode {
        self.in_place.as_ref().map_or(Mode::BareMetal, |p| p.mode)
    }
}

/// A saved disk and the present one that is erased for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskAssignment {
    /// The saved disk.
    pub saved: NodeId,
    /// Device node of the present disk.
    pub device: PathBuf,
    /// What the executor checks before the first write.
    pub identity: DiskIdentity,
    /// What is on the present disk now and will be erased.
    pub erased: Vec<String>,
    /// Why this disk: `same serial`, `chosen`, `the only one big enough`.
    pub why: String,
    /// It takes no saved disk's place, but a part of the volume group on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joins: Option<Joins>,
}

/// What a further disk is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joins {
    /// The saved disk whose own place is too small for it.
    pub saved: NodeId,
    /// Name of the volume group that is spread over both.
    pub group: String,
}

/// A saved disk that has no present one of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergedDisk {
    /// The saved disk.
    pub saved: NodeId,
    /// Its model, serial number and size, in words.
    pub what: String,
    /// The saved disk whose place it shares; `None`: it is done without.
    pub onto: Option<NodeId>,
}

/// What tells one disk from another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskIdentity {
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide name.
    pub wwn: Option<String>,
    /// Capacity.
    pub size: Bytes,
    /// Logical sector.
    pub sector_size: SectorSize,
}

impl DiskIdentity {
    /// That of a disk at hand.
    pub(crate) fn of(disk: &InventoryDisk) -> DiskIdentity {
        DiskIdentity {
            model: disk.model.clone(),
            serial: disk.serial.clone(),
            wwn: disk.wwn.clone(),
            size: disk.size,
            sector_size: disk.sector_size,
        }
    }
}

/// A disk that must not change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FencedDisk {
    /// Device node.
    pub device: PathBuf,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Capacity.
    pub size: Bytes,
    /// What is on it.
    pub contents: Vec<String>,
    /// Whether the operator named it as the medium that holds the bundle.
    pub bundle_medium: bool,
}

/// Something that gets another size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeChange {
    /// What.
    pub node: NodeId,
    /// In words: `root volume pve/root`.
    pub what: String,
    /// Saved size.
    pub saved: Bytes,
    /// New size.
    pub now: Bytes,
}

/// A difference that the plan makes on purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Substitution {
    /// Where.
    pub node: NodeId,
    /// The property as [`crate::diff::Difference`] names it; `*`: the whole node.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// The device node of a partition: kernels put a `p` between a name that ends in a digit and the number.
pub(crate) fn partition_path(disk: &Path, number: u32) -> PathBuf {
    let name = disk.to_string_lossy();
    let separator = if name.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    PathBuf::from(format!("{name}{separator}{number}"))
}

/// Computes what a restore of `saved` onto the machine `inventory` does.
pub fn plan(saved: &Layout, inventory: &Inventory, choices: &Choices) -> Result<Plan, PlanError> {
    let choices = &choices.settled(saved, Some(inventory));
    attempt(saved, inventory, choices)
        .map_err(|error| instead::offer(error, saved, inventory, choices))
}

/// Whether saved disks can share a place, be done without, or have several places, as chosen: what that does to the rest, in
/// words. What depends on the disks at hand is found out by [`plan`].
pub fn check_shapes(saved: &Layout, choices: &Choices) -> Result<Vec<String>, PlanError> {
    let choices = choices.settled(saved, None);
    let shaped = reshape::reshape(saved, &choices)?;
    let layout = shaped.as_ref().map_or(saved, |s| &s.layout);
    spread::check(layout, &choices)?;
    Ok(shaped.map_or_else(Vec::new, |shaped| shaped.notes))
}

/// The name of the volume group that can be spread over further disks when one is too small for a saved disk; or why there
/// is none.
pub fn can_be_spread(saved: &Layout, disk: &NodeId) -> Result<String, String> {
    spread::group_on(saved, disk).map(|group| group.name)
}

/// A plan without a second thought about what else could be done.
fn attempt(saved: &Layout, inventory: &Inventory, choices: &Choices) -> Result<Plan, PlanError> {
    if choices.mode.is_in_place() {
        reshape::not_in_place(choices)?;
        return in_place::plan(saved, inventory, choices);
    }
    let shaped = reshape::reshape(saved, choices)?;
    let with = shaped.as_ref().map(|s| s.choices(choices));
    let choices = with.as_ref().unwrap_or(choices);
    let layout = shaped.as_ref().map_or(saved, |s| &s.layout);
    let spread = spread::spread(layout, saved, inventory, choices)?;
    let with = spread.as_ref().map(|s| s.choices.clone());
    let choices = with.as_ref().unwrap_or(choices);
    let layout = spread.as_ref().map_or(layout, |s| &s.layout);
    let disks = disk::assign(layout, saved, inventory, choices);
    let mut disks = disks.map_err(|error| spread::in_saved_terms(error, choices))?;
    let doubts = match &shaped {
        Some(shaped) => shaped.left_in_the_machine(saved, inventory, &disks)?,
        None => Vec::new(),
    };
    let told = spread
        .as_ref()
        .map(|s| s.assigned(&mut disks))
        .transpose()?;
    let converted = sectors::fit(layout, &disks)?;
    let layout = converted.as_ref().map_or(layout, |c| &c.layout);
    let added = boot::room::for_firmware(layout, inventory, &spread::without_further(&disks));
    let layout = added.as_ref().map_or(layout, |a| &a.layout);
    let fit = fit::fit(layout, &disks, choices)?;
    let loose = fit::loosened(layout, &fit, choices);
    let layout = loose.as_ref().unwrap_or(layout);
    let mut builder = build::Builder::new(layout, inventory, choices, disks, fit)?;
    builder.notes.extend(doubts);
    if let Some(shaped) = &shaped {
        let substitutions = shaped.substitutions.iter().cloned();
        builder.substitutions.extend(substitutions);
        builder.notes.extend(shaped.notes.iter().cloned());
        builder.merged.clone_from(&shaped.merged);
        builder.names = reshape::device_names(saved);
        builder.switch_off.clone_from(&shaped.switch_off);
        builder.crypttab_off.clone_from(&shaped.crypttab_off);
    }
    if let Some((substitutions, notes)) = told {
        builder.substitutions.extend(substitutions);
        builder.notes.extend(notes);
    }
    if let Some(converted) = &converted {
        builder
            .substitutions
            .extend(converted.substitutions.iter().cloned());
        builder.notes.extend(converted.notes.iter().cloned());
    }
    if let Some(added) = &added {
        builder
            .substitutions
            .extend(added.substitutions.iter().cloned());
        builder.notes.extend(added.notes.iter().cloned());
    }
    builder.build()
}
