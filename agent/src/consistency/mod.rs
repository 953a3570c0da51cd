//! From which moment the files of a restore point are: settings, and what a restore point says of it.

mod settings;

pub use settings::{Mode, Settings};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How the files of a tree were read: kept with the facts of a restore point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeState {
    /// Where the file system is mounted.
    pub mount_point: PathBuf,
    /// `lvm-snapshot`, `lvm-thin-snapshot`, `zfs-snapshot`, `btrfs-snapshot`; `unchanging`: it is mounted read-only;
    /// `live`: while programs could write to it.
    pub read: String,
    /// When the snapshots were made: RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<String>,
    /// Why there is no snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// [`TreeState::read`] of what was read while it could change.
pub const LIVE: &str = "live";
/// Of what is mounted read-only.
pub const UNCHANGING: &str = "unchanging";

impl TreeState {
    /// For people, in a cell of a table.
    pub fn text(&self) -> String {
        match (&self.why, self.read.as_str()) {
            (Some(why), LIVE) => format!("in use: {why}"),
            (_, UNCHANGING) => "mounted read-only".to_owned(),
            (_, word) => word
                .replace('-', " ")
                .replace("lvm", "LVM")
                .replace("zfs", "ZFS"),
        }
    }
}

/// What the facts of a restore point say of its trees; nothing where an older version made it.
pub fn of_facts(facts: &serde_json::Value) -> Vec<TreeState> {
    let states = facts.get("consistency").cloned();
    states
        .and_then(|states| serde_json::from_value(states).ok())
        .unwrap_or_default()
}
