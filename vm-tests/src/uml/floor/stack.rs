//! Starts what lies on the restored disks, in the order of the plan, and stops it again.

use anyhow::Result;
use layout::model::NodeId;
use layout::plan::{Plan, Step};

use crate::luks;
use crate::machine::settle;
use crate::raid;
use crate::zfs;

/// An LVM command that sees the plan's physical volumes.
pub type Lvm<'a> = &'a dyn Fn(&[&str]) -> Result<String>;

/// Whether the plan opens a container.
fn opened(plan: &Plan, container: &NodeId) -> bool {
    let mut steps = plan.steps.iter();
    steps.any(|s| matches!(s, Step::LuksOpen { node, .. } if node == container))
}

/// Starts everything, and looks at arrays and containers meanwhile.
pub fn up(plan: &Plan, lvm: Lvm) -> Result<()> {
    raid::all_stopped()?;
    for step in &plan.steps {
        match step {
            Step::RaidCreate {
                device,
                devices,
                array,
            } => {
                raid::assemble(device, array)?;
                raid::check(device, devices, array)?;
            }
            Step::LuksHeader { node, device, luks } => {
                luks::check(device, luks)?;
                if opened(plan, node) {
                    luks::open(device, &luks.name)?;
                    luks::check_open(luks)?;
                }
            }
            Step::ZpoolCreate { pool, vdevs, .. } => zfs::import(pool, vdevs)?,
            Step::VgCreate { name, .. } => {
                lvm(&["vgchange", "-ay", "--ignoreactivationskip", name])?;
            }
            _ => {}
        }
    }
    settle()
}

/// Runs `look` with everything started.
pub fn with(plan: &Plan, lvm: Lvm, look: impl FnOnce() -> Result<()>) -> Result<()> {
    up(plan, lvm)?;
    let result = look();
    for step in plan.steps.iter().rev() {
        match step {
            Step::RaidCreate { device, .. } => raid::stop(device)?,
            Step::ZpoolCreate { pool, .. } => zfs::export(&pool.name)?,
            Step::LuksHeader { node, luks, .. } if opened(plan, node) => luks::close(&luks.name)?,
            Step::VgCreate { name, .. } => {
                lvm(&["vgchange", "-an", name])?;
                settle()?;
            }
            _ => {}
        }
    }
    settle()?;
    result
}
