//! 3-2-1-1-0: three copies on two kinds of media, one of them elsewhere and one offline, and no errors when they are read.
//! What history cannot know is said to be unknown.

use super::build::Facts;
use super::model::{Known, Rule, Target};
use crate::history::Trigger;
use crate::values;

/// The five rules.
pub fn all(targets: &[Target], facts: &Facts<'_>) -> Vec<Rule> {
    let holding: Vec<&Target> = targets.iter().filter(|t| t.last_good.is_some()).collect();
    vec![
        copies(&holding),
        media(&holding),
        offsite(),
        offline(&holding, facts),
        errors(&holding, targets),
    ]
}

fn copies(holding: &[&Target]) -> Rule {
    let targets = holding.len() as u64;
    let found = targets + 1;
    Rule {
        rule: "copies",
        wanted: 3,
        found: Some(found),
        verdict: if found >= 3 {
            Known::Met
        } else {
            Known::Missed
        },
        text: format!(
            "the host itself, and {} with a good restore point",
            values::plural(targets, "target", "targets")
        ),
    }
}

fn media(holding: &[&Target]) -> Rule {
    let sticks = holding.iter().filter(|t| t.stick).count();
    let (found, verdict, text) = match (sticks, holding.len() - sticks) {
        (0, 0) => (
            Some(1),
            Known::Missed,
            "only the host's own disks are known",
        ),
        (0, _) => (
            None,
            Known::Unknown,
            "no target is a stick, and whether a directory is on a medium of its own is not noted in history",
        ),
        _ => (Some(2), Known::Met, "the host's own disks, and a stick"),
    };
    Rule {
        rule: "media",
        wanted: 2,
        found,
        verdict,
        text: text.to_owned(),
    }
}

fn offsite() -> Rule {
    Rule {
        rule: "offsite",
        wanted: 1,
        found: None,
        verdict: Known::Unknown,
        text: "where a medium is kept is not noted in history: to be shown by other means"
            .to_owned(),
    }
}

/// A stick that started a run when it was plugged in was not plugged in before.
fn offline(holding: &[&Target], facts: &Facts<'_>) -> Rule {
    let sticks: Vec<&&Target> = holding.iter().filter(|t| t.stick).collect();
    let plugged = |target: &&&&Target| {
        let store = target.store.as_deref();
        let by_plug = facts
            .inside
            .iter()
            .filter(|run| run.trigger == Trigger::Plug);
        by_plug
            .flat_map(|run| &run.targets)
            .any(|t| t.is_good() && t.store.as_deref() == store)
    };
    let shown = sticks.iter().filter(plugged).count() as u64;
    let (found, verdict, text) = match (shown, sticks.len()) {
        (0, 0) => (
            None,
            Known::Unknown,
            "no stick holds a good restore point, and whether other targets can be reached from the host is not \
             noted in history"
                .to_owned(),
        ),
        (0, _) => (
            None,
            Known::Unknown,
            "a stick holds a good restore point; whether it is plugged out is not noted in history".to_owned(),
        ),
        (shown, _) => (
            Some(shown),
            Known::Met,
            format!(
                "{} written when plugged in, and so offline before",
                values::plural(shown, "stick was", "sticks were")
            ),
        ),
    };
    Rule {
        rule: "offline",
        wanted: 1,
        found,
        verdict,
        text,
    }
}

fn errors(holding: &[&Target], targets: &[Target]) -> Rule {
    let damaged = targets.iter().filter(|t| t.damaged.is_some()).count() as u64;
    let unread = |t: &&&Target| t.last_read.is_none() && t.reads == 0;
    let unread = holding.iter().filter(unread).count() as u64;
    let (found, verdict, text) = match (damaged, unread, holding.len()) {
        (0, _, 0) => (None, Known::Unknown, "nothing was read".to_owned()),
        (0, 0, _) => (
            Some(0),
            Known::Met,
            "no target is known to be damaged, and each was read after it was written".to_owned(),
        ),
        (0, unread, _) => (
            None,
            Known::Unknown,
            format!(
                "{} never read again",
                values::plural(unread, "target was", "targets were")
            ),
        ),
        (damaged, ..) => (
            Some(damaged),
            Known::Missed,
            format!(
                "{} damaged, as far as the last reads say",
                values::plural(damaged, "target is", "targets are")
            ),
        ),
    };
    Rule {
        rule: "errors",
        wanted: 0,
        found,
        verdict,
        text,
    }
}
