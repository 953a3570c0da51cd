//! What a machine's storage looks like: model, capture, plan, apply.
//!
//! A [`model::Layout`] describes a host; [`capture::capture`] makes one from the live machine; [`plan::plan`] is a
//! pure function of a saved layout, the [`inventory::Inventory`] of the machine at hand and the operator's
//! [`plan::Choices`]; [`apply::apply`] carries the plan out; [`diff::diff`] compares the result with what was saved.
//!
//! This library never prints, never prompts and never exits. Processes are started through [`system`] only.

pub mod apply;
pub mod capture;
pub mod diff;
pub mod drift;
pub mod inventory;
pub mod model;
pub mod plan;
pub mod record;
pub mod render;
pub mod system;
pub mod units;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
