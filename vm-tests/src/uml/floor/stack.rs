//! Starts what lies on the restored disks, in the order of the plan, and stops it again.

use anyhow::Result;
use layout::plan::{Plan, Step};

use crate::machine::settle;
use crate::raid;

/// An LVM command that sees the plan's physical volumes.
pub type Lvm<'a> = &'a dyn Fn(&[&str]) -> Result<String>;

/// Runs `look` with everything started.
pub fn with(plan: &Plan, lvm: Lvm, look: impl FnOnce() -> Result<()>) -> Result<()> {
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
            Step::VgCreate { name, .. } => {
                lvm(&["vgchange", "-ay", "--ignoreactivationskip", name])?;
            }
            _ => {}
        }
    }
    settle()?;
    let result = look();
    for step in plan.steps.iter().rev() {
        match step {
            Step::RaidCreate { device, .. } => raid::stop(device)?,
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
