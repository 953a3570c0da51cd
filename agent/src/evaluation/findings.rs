//! What is not as it should be, each with what to do about it.

use serde::Serialize;

use super::{Evaluation, GuestState, TargetState};
use crate::history::{Kind, RunResult};
use crate::values::{self, Percent};

/// How bad something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// All is well.
    #[default]
    Fine,
    /// To be looked at.
    Warning,
    /// What is lost now may be lost for good.
    Critical,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// There is no restore point at all.
    Never,
    /// The newest good restore point is too old.
    Overdue,
    /// The last attempt to save it failed.
    Failed,
    /// The last run left something to look at.
    Warnings,
    /// A target is damaged.
    Damage,
    /// A target was not read again for too long.
    Unverified,
    /// A target has little room left.
    LowSpace,
    /// A target cannot be used.
    Target,
    /// A restore was tried last too long ago, or failed.
    Drill,
    /// Guests are still to come back after a restore.
    GuestsToCome,
    /// The clock is or was wrong.
    Clock,
    /// There is nowhere to save to.
    NoTarget,
    /// Messages could not be sent.
    Messages,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What about.
    pub topic: Topic,
    /// Which host, guest or target: the same for as long as the finding is the same.
    pub subject: String,
    /// What is wrong, in a sentence.
    pub text: String,
    /// What to do next.
    pub todo: String,
}

/// The worst of them.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|f| f.level).max().unwrap_or_default()
}

/// What is not as it should be, the worst first. `low_space`: the share of a target that should be free.
pub fn findings(state: &Evaluation, low_space: Option<Percent>) -> Vec<Finding> {
    let mut found = Vec::new();
    host(state, &mut found);
    guests(state, &mut found);
    for target in &state.targets {
        of_target(state, target, low_space, &mut found);
    }
    drill(state, &mut found);
    if state.later > 0 {
        found.push(Finding {
            level: Level::Warning,
            topic: Topic::Clock,
            subject: "clock".into(),
            text: format!(
                "{} are dated later than now: this host's clock is wrong, or was",
                values::plural(state.later as u64, "run", "runs")
            ),
            todo: "set the clock (`timedatectl`), then make a backup: `lifeboat backup`".into(),
        });
    }
    found.sort_by_key(|f| std::cmp::Reverse(f.level));
    found
}

/// A span of time in the unit that says enough: `25 hours`, `3 days`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => "1 minute".into(),
        120..3600 => values::plural(seconds / 60, "minute", "minutes"),
        3600..172_800 => values::plural(seconds / 3600, "hour", "hours"),
        _ => values::plural(seconds / 86_400, "day", "days"),
    }
}

fn host(state: &Evaluation, found: &mut Vec<Finding>) {
    let host = &state.host;
    let mut add = |level, topic, text: String, todo: &str| {
        found.push(Finding {
            level,
            topic,
            subject: "host".into(),
            text,
            todo: todo.into(),
        });
    };
    let again = "mend that, then `lifeboat backup`";
    let error = host.error.as_deref().unwrap_or("no reason was noted");
    match (&host.newest, host.age_seconds) {
        (Some(_), Some(age)) if host.overdue => add(
            Level::Critical,
            Topic::Overdue,
            format!(
                "the host's newest good restore point is {} old, and may be {} old",
                span(age),
                span(host.rpo_seconds)
            ),
            match host.failing_since {
                Some(_) => again,
                None => {
                    "`lifeboat backup`; see that its timer runs: `systemctl list-timers 'lifeboat*'`"
                }
            },
        ),
        (Some(_), _) => {}
        (None, _) if host.tried => add(
            Level::Critical,
            Topic::Never,
            "the host has no good restore point".into(),
            again,
        ),
        (None, _) => add(
            Level::Critical,
            Topic::Never,
            "the host was never backed up".into(),
            "`lifeboat prepare` makes a target, `lifeboat backup --to` it a restore point",
        ),
    }
    if host.failing_since.is_some() {
        let level = match host.overdue {
            true => Level::Critical,
            false => Level::Warning,
        };
        add(
            level,
            Topic::Failed,
            format!("the last backup failed: {error}"),
            again,
        );
        return;
    }
    if let Some(run) = state
        .last_run
        .as_ref()
        .filter(|run| run.kind == Kind::Backup && run.result == Some(RunResult::Warnings))
    {
        let reason = run.reason.as_deref().unwrap_or("see its report");
        add(
            Level::Warning,
            Topic::Warnings,
            format!("the last backup ended with warnings: {reason}"),
            "`lifeboat show latest` says what they are",
        );
    }
}

fn guests(state: &Evaluation, found: &mut Vec<Finding>) {
    let mut add = |level, topic, guest: &GuestState, text: String, todo: String| {
        found.push(Finding {
            level,
            topic,
            subject: format!("guest {}", guest.guest.id),
            text: format!("{}: {text}", guest.guest.title()),
            todo,
        });
    };
    for guest in &state.guests {
        let p = &guest.protection;
        let id = guest.guest.id;
        let again = format!("mend that, then `lifeboat backup --only-guests --guests {id}`");
        let because = match &p.error {
            Some(error) => format!("; the last attempt failed: {error}"),
            None => String::new(),
        };
        match p.age_seconds {
            Some(age) if p.overdue => add(
                Level::Critical,
                Topic::Overdue,
                guest,
                format!(
                    "its newest good dump is {} old, and may be {} old{because}",
                    span(age),
                    span(p.rpo_seconds)
                ),
                match p.error {
                    Some(_) => again,
                    None => format!("`lifeboat backup --only-guests --guests {id}`"),
                },
            ),
            None if p.tried => add(
                Level::Critical,
                Topic::Never,
                guest,
                format!("no target holds a good dump of it{because}"),
                again,
            ),
            None => add(
                Level::Warning,
                Topic::Never,
                guest,
                "it was never saved".into(),
                "give a drive as a target (or set guests.on-sticks to \"when-room\"), then `lifeboat backup`; or leave it out: \
                 guests.exclude, guests.source"
                    .into(),
            ),
            Some(_) => {
                if let Some(error) = &p.error {
                    let text = format!("its last dump failed: {error}");
                    add(Level::Warning, Topic::Failed, guest, text, again);
                }
            }
        }
    }
}

fn of_target(
    state: &Evaluation,
    target: &TargetState,
    low_space: Option<Percent>,
    found: &mut Vec<Finding>,
) {
    let name = target.target.display().to_string();
    let mut add = |level, topic, text: String, todo: String| {
        found.push(Finding {
            level,
            topic,
            subject: format!("target {name}"),
            text: format!("{name}: {text}"),
            todo,
        });
    };
    if let Some(since) = target.damaged {
        add(
            Level::Critical,
            Topic::Damage,
            format!(
                "damage was found on it {} ago",
                span(super::age(state.at, since))
            ),
            format!(
                "`lifeboat verify --heal --from {name}` repairs what other targets or parity give back; make a new restore point, \
                 and replace the medium"
            ),
        );
    }
    // One that was used once is not asked for for ever.
    if !target.configured {
        return;
    }
    if let Some(error) = &target.error {
        add(
            Level::Warning,
            Topic::Target,
            format!("it could not be used last: {error}"),
            "plug it in, or take it out of `targets` where it is gone for good".into(),
        );
    }
    if target.verify_overdue && target.damaged.is_none() {
        let text = match target.verified {
            Some(time) => format!(
                "it was read again last {} ago",
                span(super::age(state.at, time))
            ),
            None => "it was never read again".into(),
        };
        add(
            Level::Warning,
            Topic::Unverified,
            text,
            format!("`lifeboat verify --from {name}`"),
        );
    }
    let low = |share: f64| low_space.is_some_and(|low| share * 100.0 < f64::from(low.0));
    if let Some(space) = target.space.filter(|space| low(space.free_share())) {
        add(
            Level::Warning,
            Topic::LowSpace,
            format!(
                "{} of {} are free ({:.0} %)",
                values::bytes(space.free),
                values::bytes(space.size),
                space.free_share() * 100.0
            ),
            format!("`lifeboat prune --dry-run {name}` shows what would go; else a larger medium"),
        );
    }
}

fn drill(state: &Evaluation, found: &mut Vec<Finding>) {
    let Some(last) = &state.drill.last else {
        return;
    };
    let failed = last.result == Some(RunResult::Failed);
    let text = match state.drill.proven {
        _ if failed => format!(
            "the last restore that was tried failed: {}",
            last.reason.as_deref().unwrap_or("no reason was noted")
        ),
        Some(time) if state.drill.overdue => format!(
            "a restore was tried last {} ago",
            span(super::age(state.at, time))
        ),
        _ => return,
    };
    found.push(Finding {
        level: match failed {
            true => Level::Critical,
            false => Level::Warning,
        },
        topic: Topic::Drill,
        subject: "drill".into(),
        text,
        todo: "try a restore again".into(),
    });
}
