//! Which restore points stay: the settings, and what backups do about it by themselves.

use bundle::document::HostIdentity;
use bundle::prune::{Done, Plan, Policy, Prune, PruneOptions, Whose};
use serde::{Deserialize, Serialize};

use crate::audit;
use crate::cli::Keep;
use crate::config::Config;
use crate::guests::awaited::Awaited;
use crate::progress::Progress;
use crate::targets::Opened;
use crate::values;

/// Settings of the table `[retention]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Retention {
    /// When a backup prunes by itself.
    pub automatic: Automatic,
    pub keep_last: u32,
    pub keep_hourly: u32,
    pub keep_daily: u32,
    pub keep_weekly: u32,
    pub keep_monthly: u32,
    pub keep_yearly: u32,
}

/// When a backup prunes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Automatic {
    /// Only where there would be no new restore point otherwise: nothing is given up without need, and a stick that
    /// nobody looks at still gets its daily one.
    WhenFull,
    /// After every backup.
    Always,
    /// Only `lifeboat prune` does.
    Never,
}

impl Default for Retention {
    fn default() -> Retention {
        let policy = Policy::default();
        Retention {
            automatic: Automatic::WhenFull,
            keep_last: policy.last,
            keep_hourly: policy.hourly,
            keep_daily: policy.daily,
            keep_weekly: policy.weekly,
            keep_monthly: policy.monthly,
            keep_yearly: policy.yearly,
        }
    }
}

impl Retention {
    /// The policy.
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

impl Keep {
    /// The policy that the command line asks for, if it does.
    pub fn policy(&self) -> Option<Policy> {
        let asked = [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        asked.iter().any(Option::is_some).then(|| {
            let [last, hourly, daily, weekly, monthly, yearly] =
                asked.map(Option::unwrap_or_default);
            Policy {
                last,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
            }
        })
    }
}

/// What a backup removed by itself.
#[derive(Debug, Clone, Serialize)]
pub struct Pruned {
    pub restore_points: usize,
    pub freed: u64,
    pub notes: Vec<String>,
}

impl Pruned {
    pub fn add(&mut self, other: Pruned) {
        self.restore_points += other.restore_points;
        self.freed += other.freed;
        self.notes.extend(other.notes);
    }

    pub fn text(&self) -> String {
        format!(
            "{} removed by the policy, {} free again",
            values::plural(
                self.restore_points as u64,
                "restore point",
                "restore points"
            ),
            values::bytes(self.freed)
        )
    }
}

impl From<Done> for Pruned {
    fn from(done: Done) -> Pruned {
        Pruned {
            restore_points: done.snapshots.len(),
            freed: done.freed,
            notes: done.notes,
        }
    }
}

/// Restore points of this host, by the configured policy.
pub fn own(config: &Config, host: &HostIdentity) -> PruneOptions {
    PruneOptions {
        policy: config.retention.policy(),
        guests: config.guests.policy(),
        whose: Whose::This(host.clone()),
    }
}

/// Prunes this host's restore points without being asked. Nothing is done where the clock leaves in doubt which one is
/// the newest.
pub fn automatic(
    config: &Config,
    opened: &Opened,
    host: &HostIdentity,
    progress: &Progress,
) -> anyhow::Result<Pruned> {
    if let Some(reason) = Awaited::now(config).instead_of_prune() {
        anyhow::bail!("{reason}");
    }
    let prune = Prune::new(opened.writer()?, &own(config, host), progress)?;
    let plan = prune.plan();
    if plan.clock_behind {
        anyhow::bail!(
            "the clock of this machine is before the newest restore point; set it right, and run `lifeboat prune {}`",
            opened.named.display()
        );
    }
    let done = prune.apply(progress)?;
    let gone = done.snapshots.iter();
    gone.for_each(|id| audit::removed(*id, &opened.named));
    Ok(done.into())
}

/// What a prune by the policy would free on a full target, and what else can be done.
pub fn advice(
    config: &Config,
    opened: &Opened,
    host: &HostIdentity,
    progress: &Progress,
) -> String {
    let named = opened.named.display();
    let space = match opened.reader().and_then(|store| Ok(store.space()?)) {
        Ok(space) => format!(
            "{} of {} are free",
            values::bytes(space.free),
            values::bytes(space.total)
        ),
        Err(error) => return format!("{error:#}"),
    };
    let planned = opened
        .reader()
        .and_then(|store| Ok(Prune::new(store, &own(config, host), progress)?));
    match planned.as_ref().map(Prune::plan) {
        Ok(Plan {
            blocked: Some(blocked),
            ..
        }) => format!(
            "{space}; nothing can be pruned, as {} cannot be read: {}",
            blocked.file.display(),
            blocked.reason
        ),
        Ok(plan) if plan.is_empty() => format!(
            "{space}, and the policy keeps every restore point of this host: use a larger target, or lower the keep- \
             settings of [retention] and run `lifeboat prune {named}`"
        ),
        Ok(plan) => format!(
            "{space}; `lifeboat prune {named}` would remove {} and free about {}",
            values::plural(plan.going() as u64, "restore point", "restore points"),
            values::bytes(plan.freed)
        ),
        Err(error) => format!("{space}; what a prune would free is not known: {error:#}"),
    }
}
