//! Settings of the table `[guests]`.

use bundle::prune::Policy;
use serde::{Deserialize, Serialize};

use super::Which;

/// Which guests are saved, how, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// Where their dumps come from.
    pub source: Source,
    /// Which guests.
    pub which: Vec<Which>,
    /// Which of them not.
    pub exclude: Vec<Which>,
    /// How vzdump comes to a consistent state.
    pub mode: Mode,
    /// Whether sticks take guests, too.
    pub on_sticks: OnSticks,
    pub keep_last: u32,
    pub keep_hourly: u32,
    pub keep_daily: u32,
    pub keep_weekly: u32,
    pub keep_monthly: u32,
    pub keep_yearly: u32,
}

/// Where the dumps of guests come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// vzdump makes them.
    Vzdump,
    /// The newest one that a storage of the node holds.
    LatestDump,
    /// They are not saved.
    None,
}

/// `vzdump --mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// While the guest runs.
    Snapshot,
    /// The guest pauses.
    Suspend,
    /// The guest is shut down and started again.
    Stop,
}

impl Mode {
    /// As vzdump takes it.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Snapshot => "snapshot",
            Mode::Suspend => "suspend",
            Mode::Stop => "stop",
        }
    }
}

/// Whether sticks take guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnSticks {
    /// Only other targets do.
    Never,
    /// Those that have room for them.
    WhenRoom,
}

impl Default for Settings {
    fn default() -> Settings {
        let policy = Policy::GUESTS;
        Settings {
            source: Source::Vzdump,
            which: vec![Which::All],
            exclude: Vec::new(),
            mode: Mode::Snapshot,
            on_sticks: OnSticks::Never,
            keep_last: policy.last,
            keep_hourly: policy.hourly,
            keep_daily: policy.daily,
            keep_weekly: policy.weekly,
            keep_monthly: policy.monthly,
            keep_yearly: policy.yearly,
        }
    }
}

impl Settings {
    /// Which dumps of each guest stay.
    pub fn policy(&self) -> Policy {
        Policy {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
        }
    }
}
