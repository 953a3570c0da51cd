//! The layout of the host as it was saved last, kept beside the history, so that drift is seen while the targets are in a
//! drawer.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::Id;
use layout::model::Layout;
use serde::{Deserialize, Serialize};

use crate::state;

/// A layout and the restore point that has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Document {
    snapshot: Id,
    time: String,
    layout: serde_json::Value,
}

/// A layout that was saved.
#[derive(Debug, Clone)]
pub struct Saved {
    /// In which restore point.
    pub snapshot: Id,
    /// When.
    pub time: String,
    /// The layout.
    pub layout: Layout,
}

fn file(state: &Path) -> PathBuf {
    state.join("layout.json")
}

/// Keeps the layout of a new restore point.
pub fn remember(state: &Path, layout: &Layout, snapshot: Id, time: &str) -> anyhow::Result<()> {
    let path = file(state);
    let wrong = || format!("cannot keep the layout in {}", path.display());
    let document = Document {
        snapshot,
        time: time.to_owned(),
        layout: serde_json::to_value(layout).with_context(wrong)?,
    };
    let json = serde_json::to_vec(&document).with_context(wrong)?;
    state::write(state, &path, &json).with_context(wrong)
}

/// The one that was saved last, where one was.
pub fn read(state: &Path) -> anyhow::Result<Option<Saved>> {
    let path = file(state);
    let wrong = || format!("cannot read the layout in {}", path.display());
    let json = match std::fs::read(&path) {
        Ok(json) => json,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(wrong),
    };
    let document: Document = serde_json::from_slice(&json).with_context(wrong)?;
    Ok(Some(Saved {
        snapshot: document.snapshot,
        time: document.time,
        layout: Layout::from_value(document.layout).with_context(wrong)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::model::Firmware;

    #[test]
    fn what_is_remembered_is_read() {
        let state = tempfile::tempdir().unwrap();
        assert!(read(state.path()).unwrap().is_none());
        let layout = Layout::new(Firmware::Uefi);
        remember(
            state.path(),
            &layout,
            Id::of(b"x"),
            "2026-11-26T00:00:00.000Z",
        )
        .unwrap();
        let saved = read(state.path()).unwrap().unwrap();
        assert_eq!(saved.layout, layout);
        assert_eq!(saved.snapshot, Id::of(b"x"));
        std::fs::write(file(state.path()), "{").unwrap();
        assert!(read(state.path()).is_err());
    }
}
