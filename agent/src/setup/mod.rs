//! The first hour with Lifeboat in a few questions: targets are made, the configuration is written, timers are set.
//!
//! Questions ([`questions`]) or a file give [`Answers`]; with what is there they become a [`Plan`], which is shown before
//! anything is done. Run again, it offers what is there, and changes only what is asked for.

mod answers;
mod file;
mod machine;
mod plan;
mod questions;
mod terminal;

pub use answers::Answers;
pub use file::write;
pub use machine::Machine;
pub use plan::{Make, Plan};
pub use questions::ask;
pub use terminal::{Stdio, yes};
