//! `lifeboat report`: what happened in a period, for people who want evidence. [`build`] makes it of the documents of runs
//! as data ([`model`]); [`page`] shows these data, and nothing else: every figure of the page says where in the data it
//! is. No target is needed for it, nothing is asked and nothing is changed.

mod advice;
mod build;
mod entry;
mod known;
pub mod model;
mod objectives;
pub mod page;
pub mod period;
mod rules;
mod subjects;
mod trend;

pub use build::{Sources, report};
use model::FORMAT;
