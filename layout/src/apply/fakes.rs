//! What unit tests of single steps need around them.

use std::path::Path;

use super::{Content, ContentError, Executor, Silent};
use crate::model::{Firmware, Layout, NodeId};
use crate::plan::{Plan, Step};
use crate::system::System;

/// Brings no files.
pub(crate) struct Nothing;

impl Content for Nothing {
    fn restore_tree(&mut self, _: &Path, _: &Path) -> Result<(), ContentError> {
        Ok(())
    }
    fn restore_image(&mut self, _: &NodeId, _: &Path) -> Result<(), ContentError> {
        Ok(())
    }
}

/// A plan of these steps, and nothing else.
pub(crate) fn plan_of(steps: Vec<Step>) -> Plan {
    Plan {
        disks: Vec::new(),
        merged: Vec::new(),
        fence: Vec::new(),
        steps,
        sizes: Vec::new(),
        notes: Vec::new(),
        tools: Vec::new(),
        substitutions: Vec::new(),
        in_place: None,
    }
}

/// Works as a step of such a plan does, of a host that was saved without anything.
pub(crate) fn with_executor<T>(
    sys: &dyn System,
    steps: Vec<Step>,
    work: impl FnOnce(&mut Executor<'_>) -> T,
) -> T {
    let saved = Layout::new(Firmware::Bios);
    with_saved(sys, &saved, steps, Path::new("/nowhere"), work)
}

/// The same of a saved host, below `root`.
pub(crate) fn with_saved<T>(
    sys: &dyn System,
    saved: &Layout,
    steps: Vec<Step>,
    root: &Path,
    work: impl FnOnce(&mut Executor<'_>) -> T,
) -> T {
    work(&mut Executor {
        sys,
        plan: &plan_of(steps),
        saved,
        root,
        content: &mut Nothing,
        events: &Silent,
        held: Vec::new(),
    })
}

/// The layout of two disks with arrays for `/boot`, the EFI system partition and the root.
pub(crate) fn saved_arrays() -> Layout {
    let text = include_str!("../../../vm-tests/layouts/md1-boot-efi-root.json");
    let case: serde_json::Value = serde_json::from_str(text).unwrap();
    Layout::from_value(case["layout"].clone()).unwrap()
}
