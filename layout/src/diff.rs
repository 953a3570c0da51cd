//! What differs between the saved layout and the machine after the restore.

use serde::{Deserialize, Serialize};

use crate::model::{Layout, NodeId};
use crate::plan::Plan;

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Where.
    pub node: NodeId,
    /// Which property.
    pub what: String,
    /// Its saved value; `None`: was not there.
    pub saved: Option<String>,
    /// Its value now; `None`: is gone.
    pub now: Option<String>,
    /// Whether the plan or the nature of the property explains it.
    pub accepted: bool,
    /// Why it is accepted.
    pub reason: Option<String>,
}

/// Compares. A restore is good when every difference is accepted.
pub fn diff(_saved: &Layout, _now: &Layout, _plan: &Plan) -> Vec<Difference> {
    Vec::new()
}
