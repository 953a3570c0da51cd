//! What runs by itself: timers out of the configuration, and what a run heeds that a timer has started.

pub mod apply;
mod settings;
mod span;
mod start;
pub mod timers;
pub mod units;
mod when;
mod window;

pub use settings::{SETTINGS, Settings};
pub use span::Span;
pub use start::begin;
pub use when::When;
pub use window::Window;
