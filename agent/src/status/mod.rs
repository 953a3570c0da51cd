//! What `lifeboat status` shows: the evaluation of the history, and what can be seen of the host at present without
//! mounting anything.

mod presence;
mod text;
mod timers;

use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;
use layout::system::System;
use rescue_image::guests::{Pending, State as GuestState};
use serde::Serialize;

use crate::config::Config;
use crate::evaluation::{
    Evaluation, Finding, Guest, Level, Question, Topic, evaluate, findings, worst,
};
use crate::guests::pending;
use crate::guests::settings::Source;
use crate::history::Run;
use crate::{Context, facts, history, notify, proxmox};

pub use presence::Presence;
pub use text::screen;
pub use timers::Planned;

/// Version of the JSON; it goes up when a field changes its meaning or goes away.
const FORMAT: u32 = 1;

/// All of it. The JSON of `lifeboat status --json` is this.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// [`FORMAT`]
    pub format: u32,
    /// Name of the host.
    pub host_name: String,
    /// The worst of the findings: `fine`, `warning` or `critical`.
    pub level: Level,
    /// What is not as it should be, the worst first, each with what to do.
    pub findings: Vec<Finding>,
    /// What the history says.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// Whether each of the targets is at hand, in their order.
    pub presence: Vec<Presence>,
    /// What timers will start, the first one first; `null` where systemd cannot be asked.
    pub next: Option<Vec<Planned>>,
    /// Guests that are still to come back after a restore.
    pub guests_to_come: Option<GuestsToCome>,
    /// Whether a test or a message could not be sent, and why.
    pub unsent: Option<String>,
}

/// Guests that are still to come back after a restore.
#[derive(Debug, Clone, Serialize)]
pub struct GuestsToCome {
    /// When the host was restored.
    pub restored: String,
    /// How many are still missing.
    pub missing: usize,
    /// Those of them that were tried in vain, in words.
    pub failed: Vec<String>,
}

impl Status {
    /// Looks at the host and at its history.
    pub fn gather(context: &Context) -> anyhow::Result<Status> {
        Status::gather_after(context, None)
    }

    /// The same, with a run that has just ended: where the disk is full, or read-only, the history does not have it.
    pub fn gather_after(context: &Context, ended: Option<&Run>) -> anyhow::Result<Status> {
        let config = &context.config;
        let sys = &context.sys;
        let mut runs = history::recent(&config.state)?;
        if let Some(ended) = ended {
            runs.retain(|run| run.id != ended.id);
            runs.push(ended.clone());
        }
        let host = facts::identity(sys);
        let guests = wanted(config, sys, &host.hostname);
        let evaluation = evaluate(
            &runs,
            &Question {
                at: Timestamp::now(),
                objectives: &config.objectives,
                configured: &config.targets,
                directories: !config.roots.is_empty(),
                guests: guests.as_deref(),
            },
        );
        let to_come = to_come(config)?;
        let timers = timers::ask(sys);
        let unsent = notify::unsent(&config.state);
        Ok(assemble(
            config,
            &host.hostname,
            evaluation,
            timers,
            to_come,
            unsent,
        ))
    }
}

/// What is known, put together.
fn assemble(
    config: &Config,
    host_name: &str,
    mut evaluation: Evaluation,
    next: Option<Vec<Planned>>,
    guests_to_come: Option<GuestsToCome>,
    unsent: Option<String>,
) -> Status {
    let mut presence = Vec::new();
    for target in &mut evaluation.targets {
        let (at_hand, space) = presence::look(target);
        target.space = space.or(target.space);
        presence.push(at_hand);
    }
    let mut found = findings(&evaluation, config.notify.low_space());
    // A stick in a drawer is where it belongs, as long as the host is saved elsewhere.
    let in_drawer = |f: &Finding| {
        let mut targets = evaluation.targets.iter().zip(&presence);
        f.topic == Topic::Target
            && !evaluation.host.overdue
            && targets.any(|(target, presence)| {
                let unplugged = target.stick && *presence == Presence::Absent;
                unplugged && f.subject == format!("target {}", target.target.display())
            })
    };
    found.retain(|f| !in_drawer(f));
    for (target, presence) in evaluation.targets.iter().zip(&presence) {
        let name = target.target.display();
        let (text, todo) = match presence {
            Presence::Empty if target.newest.is_some() => (
                format!("{name}: the directory is there, but holds no store"),
                "mount its drive there".to_owned(),
            ),
            Presence::Other => (
                format!("{name}: another store is there than the one that backups went to"),
                format!("look at it: `lifeboat list --from {name}`"),
            ),
            _ => continue,
        };
        if target.configured {
            found.push(Finding {
                level: Level::Warning,
                topic: Topic::Target,
                subject: format!("target {name}"),
                text,
                todo,
            });
        }
    }
    if evaluation.targets.iter().all(|t| !t.configured) && !evaluation.host.tried {
        found.push(Finding {
            level: Level::Critical,
            topic: Topic::NoTarget,
            subject: "targets".into(),
            text: "no target is configured".into(),
            todo: format!(
                "`lifeboat prepare` makes one; name it in `targets` in {}",
                crate::config::DEFAULT_PATH
            ),
        });
    }
    if let Some(to_come) = &guests_to_come {
        found.push(to_come.finding());
    }
    if let Some(reason) = &unsent {
        found.push(Finding {
            level: Level::Warning,
            topic: Topic::Messages,
            subject: "messages".into(),
            text: format!("messages could not be sent: {reason}"),
            todo: "mend that, then `lifeboat notify test`".into(),
        });
    }
    found.sort_by_key(|f| std::cmp::Reverse(f.level));
    Status {
        format: FORMAT,
        host_name: host_name.to_owned(),
        level: worst(&found),
        findings: found,
        evaluation,
        presence,
        next,
        guests_to_come,
        unsent,
    }
}

/// The guests of the node that are to be saved; `None` where this is no node.
fn wanted(config: &Config, sys: &dyn System, hostname: &str) -> Option<Vec<Guest>> {
    let settings = &config.guests;
    if settings.source == Source::None || !config.roots.is_empty() {
        return Some(Vec::new());
    }
    if !proxmox::is_node(sys) {
        return None;
    }
    let guests = proxmox::guests::collect(sys, &proxmox::node_name(hostname));
    let wanted = guests.into_iter().filter(|guest| {
        let among = |list: &[crate::guests::Which]| list.iter().any(|which| which.means(guest));
        among(&settings.which) && !among(&settings.exclude)
    });
    let known = wanted.map(|guest| Guest {
        id: guest.id,
        kind: guest.kind,
        name: guest.name,
    });
    Some(known.collect())
}

fn to_come(config: &Config) -> anyhow::Result<Option<GuestsToCome>> {
    let dir = pending::dir(config);
    let list = Pending::read(&dir).context("cannot read which guests are still to come back")?;
    Ok(list.and_then(|list| GuestsToCome::of(&list)))
}

impl GuestsToCome {
    fn of(list: &Pending) -> Option<GuestsToCome> {
        let missing: Vec<_> = list.guests.iter().filter(|g| !g.state.is_there()).collect();
        let failed = missing.iter().filter(|g| g.state == GuestState::Failed);
        (!missing.is_empty()).then(|| GuestsToCome {
            restored: list.restored.clone(),
            missing: missing.len(),
            failed: failed
                .map(|g| {
                    let reason = g.error.as_deref().unwrap_or("no reason was noted");
                    format!("{}: {reason}", g.title())
                })
                .collect(),
        })
    }

    fn finding(&self) -> Finding {
        let level = match self.failed.is_empty() {
            true => Level::Warning,
            false => Level::Critical,
        };
        let failed = match self.failed.first() {
            Some(first) => format!(", {} of them failed: {first}", self.failed.len()),
            None => String::new(),
        };
        Finding {
            level,
            topic: Topic::GuestsToCome,
            subject: "guests to come".into(),
            text: format!(
                "{} still to come back after the restore{failed}",
                crate::values::plural(self.missing as u64, "guest is", "guests are")
            ),
            todo: "`lifeboat guests status`".into(),
        }
    }
}

/// Of a store, its id, as it is in `lifeboat/store.json` below the directory of a target.
fn store_id(dir: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Store {
        id: String,
    }
    let json = std::fs::read(dir.join("lifeboat/store.json")).ok()?;
    Some(serde_json::from_slice::<Store>(&json).ok()?.id)
}

#[cfg(test)]
pub(crate) mod tests;
