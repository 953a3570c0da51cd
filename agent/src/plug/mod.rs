//! A stick that is plugged in: udev starts a unit, the unit starts `lifeboat plug`, and that decides what to do.
//!
//! What this host knows of its sticks is in [`known`]; nothing that is on a stick makes it trusted, so that one which is not
//! known is not even mounted.

pub mod decide;
pub mod inside;
pub mod known;
pub mod medium;
pub mod power;
pub mod say;
pub mod settings;
pub mod stale;

pub use settings::Settings;
