//! The objectives that the host's backups are held against: the table `[objectives]`.

use serde::{Deserialize, Serialize};

use crate::values::Hours;

/// How old restore points may become, how long a restore may take, how fresh proof has to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Objectives {
    /// Recovery point objective of the host: how old its newest good restore point may become.
    pub host_rpo: Hours,
    /// The same of each guest.
    pub guests_rpo: Hours,
    /// Recovery time objective: how long a restore of the host may take.
    pub host_rto: Hours,
    /// The same of all guests.
    pub guests_rto: Hours,
    /// How long ago a target may have been read again last.
    pub verified_within: Hours,
    /// How long ago a restore may have been tried last.
    pub drilled_within: Hours,
}

impl Default for Objectives {
    fn default() -> Objectives {
        Objectives {
            host_rpo: Hours(24),
            guests_rpo: Hours(24),
            host_rto: Hours(1),
            guests_rto: Hours(1),
            verified_within: Hours(7 * 24),
            drilled_within: Hours(90 * 24),
        }
    }
}

/// Setting and explanation, for the example configuration.
pub const SETTINGS: &[(&str, &str)] = &[
    (
        "host-rpo",
        "What backups are held against, by `lifeboat status`, messages and reports. host-rpo: how old the newest good\n\
         restore point of the host may become (24h, 7d). guests-rpo: the same of each guest.",
    ),
    ("guests-rpo", ""),
    (
        "host-rto",
        "How long a restore of the host, and of all guests, may take.",
    ),
    ("guests-rto", ""),
    (
        "verified-within",
        "How long ago a target may have been read again, and a restore may have been tried, at most.",
    ),
    ("drilled-within", ""),
];
