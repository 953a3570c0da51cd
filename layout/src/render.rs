//! A layout as a tree, for people.

use crate::model::Layout;

/// Draws the layout.
pub fn tree(_layout: &Layout) -> String {
    String::new()
}
