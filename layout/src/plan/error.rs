//! Why there is no plan.

use std::path::{Path, PathBuf};

use super::{DiskChoice, LeaveOut, Mode};
use crate::model::NodeId;
use crate::units::{Bytes, SectorSize};

/// Why a saved layout cannot be restored onto this machine.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum PlanError {
    /// The disk is too small.
    #[error(
        "{device} is too small for the saved disk {disk}: {needed} ({needed_bytes} bytes) are needed, it has {available} \
         ({available_bytes} bytes), {missing_bytes} bytes ({missing}) are missing: {}use a bigger disk{}",
        leave_out(without), further(disk, device, spread), device = device.display(), needed_bytes = needed.0,
        available_bytes = available.0, missing_bytes = missing.0
    )]
    TooSmall {
        /// The saved disk.
        disk: NodeId,
        /// The present disk.
        device: PathBuf,
        /// Bytes needed when everything has shrunk to what its data need and a margin.
        needed: Bytes,
        /// Bytes that the present disk has.
        available: Bytes,
        /// The difference: with a disk that has so much more, and with no smaller one, there is a plan.
        missing: Bytes,
        /// What can be left out by choice, so that the rest fits; empty when that does not help either.
        without: Vec<LeaveOut>,
        /// The volume group that can be spread over a further disk, so that the rest fits.
        spread: Option<String>,
    },
    /// No disk can take the place of a saved one.
    #[error(
        "no disk of this machine can take the place of the saved disk {disk} ({needed} needed): {reason}{}",
        offer(disk, instead)
    )]
    NoDiskFor {
        /// The saved disk.
        disk: NodeId,
        /// Bytes needed.
        needed: Bytes,
        /// Why each present disk was passed over.
        reason: String,
        /// What can be chosen for it instead of a disk; with each of these there is a plan.
        instead: Vec<DiskChoice>,
    },
    /// A disk could be a saved one, but something about it says that it is not.
    #[error(
        "it is not certain whether the saved disk {disk} is in this machine: {}: say which disk to erase for it",
        candidates.join(", ")
    )]
    Doubtful {
        /// The saved disk.
        disk: NodeId,
        /// Device, model, serial and size of each, with what agrees and what does not.
        candidates: Vec<String>,
    },
    /// Several disks could take the place of a saved one.
    #[error(
        "several disks could take the place of the saved disk {disk}: {}: say which one to erase",
        candidates.join(", ")
    )]
    Ambiguous {
        /// The saved disk.
        disk: NodeId,
        /// Device, model, serial and size of each.
        candidates: Vec<String>,
    },
    /// A choice names a disk that is not there, or names it twice, or may not be used.
    #[error("the choice for the saved disk {disk} cannot be used: {reason}")]
    BadChoice {
        /// The saved disk.
        disk: NodeId,
        /// Why.
        reason: String,
    },
    /// The sectors differ, and what was saved cannot be laid out in others.
    #[error(
        "{device} has sectors of {now}, the saved disk {disk} had sectors of {saved}, and {reason}: a disk with the same \
         sector size is needed", device = device.display()
    )]
    SectorSize {
        /// The saved disk.
        disk: NodeId,
        /// The present disk.
        device: PathBuf,
        /// Saved sector size.
        saved: SectorSize,
        /// Present sector size.
        now: SectorSize,
        /// What does not fit.
        reason: String,
    },
    /// The system lies on something that this version cannot rebuild.
    #[error("{node} cannot be rebuilt by this version: {reason}")]
    Unsupported {
        /// What.
        node: NodeId,
        /// Why, and what to do.
        reason: String,
    },
    /// What is on the disks is not what the mode needs.
    #[error("{mode} is not possible on this machine: {}. {instead}", reasons.join("; "))]
    NotInPlace {
        /// The mode.
        mode: Mode,
        /// What differs from the saved layout.
        reasons: Vec<String>,
        /// What to do instead.
        instead: String,
    },
    /// The graph goes round in circles.
    #[error("the saved layout is damaged: {} depend on each other", nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Cycle {
        /// The nodes in the circle.
        nodes: Vec<NodeId>,
    },
    /// Nothing in the layout is to be restored.
    #[error(
        "the saved layout has no mounted system filesystem: there is nothing to restore onto a disk"
    )]
    NothingToRestore,
}

fn leave_out(without: &[LeaveOut]) -> String {
    if without.is_empty() {
        return String::new();
    }
    let words: Vec<String> = without.iter().map(ToString::to_string).collect();
    format!("leave out {}, or ", words.join(" and "))
}

fn further(disk: &NodeId, device: &Path, spread: &Option<String>) -> String {
    let Some(group) = spread else {
        return String::new();
    };
    format!(
        ", or a further one for a part of volume group {group} ({disk}={}+ANOTHER)",
        device.display()
    )
}

fn offer(disk: &NodeId, instead: &[DiskChoice]) -> String {
    let words: Vec<String> = instead
        .iter()
        .map(|choice| match choice {
            DiskChoice::Missing => format!("do without it ({disk}={choice})"),
            other => format!("put it onto the same disk as another one ({disk}={other})"),
        })
        .collect();
    if words.is_empty() {
        String::new()
    } else {
        format!(": add a disk, or {}", words.join(", or "))
    }
}
