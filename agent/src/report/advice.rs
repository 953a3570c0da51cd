//! What should be done, and the report in a sentence.

use super::build::Facts;
use super::model::{Advice, Gap, History, Kept, Known, Objective, Rule, Summary, Verdict};
use crate::evaluation::{Level, findings};
use crate::values::{self, Percent};

/// The share of a target that should be free, in percent.
const LOW_SPACE: u32 = 20;

/// What else is to be said than the evaluation of the end of the period says.
pub struct Grounds<'a> {
    pub summary: &'a Summary,
    pub gaps: &'a [Gap],
    pub rules: &'a [Rule],
    pub history: &'a History,
    pub proven: bool,
}

/// What should be done, the worst first.
pub fn all(facts: &Facts<'_>, grounds: &Grounds<'_>) -> Vec<Advice> {
    let found = findings(&facts.state, Some(Percent(LOW_SPACE)));
    let mut advice: Vec<Advice> = found
        .into_iter()
        .map(|finding| Advice {
            level: finding.level,
            text: finding.text,
            todo: finding.todo,
        })
        .collect();
    let mut add = |level, text: String, todo: &str| {
        let todo = todo.to_owned();
        advice.push(Advice { level, text, todo });
    };
    if !grounds.proven {
        add(
            Level::Warning,
            "no restore was ever tried with success: that the backups can be restored is not proven".into(),
            "try a restore on other disks, or in a virtual machine, with a copy of the stick (docs/recovery-guide.md)",
        );
    }
    if !grounds.gaps.is_empty() {
        let gaps = grounds.gaps.len() as u64;
        add(
            Level::Warning,
            format!(
                "{} in which the host had no new good restore point for longer than the objective allows",
                values::plural(gaps, "gap", "gaps")
            ),
            "see why the runs below failed, or did not happen: `systemctl list-timers 'lifeboat*'`",
        );
    }
    if grounds.summary.died > 0 {
        add(
            Level::Warning,
            format!(
                "{} without a result",
                values::plural(grounds.summary.died, "run ended", "runs ended")
            ),
            "see what killed it, or whether the machine lost its power: `journalctl -b -1 -e`",
        );
    }
    let copies = grounds.rules.iter().find(|rule| rule.rule == "copies");
    if copies.is_some_and(|rule| rule.verdict == Known::Missed) {
        add(
            Level::Warning,
            "there are fewer than three copies".into(),
            "add a target: `lifeboat prepare`, and `targets` in the configuration",
        );
    }
    if grounds.history.unreadable > 0 {
        add(
            Level::Warning,
            format!(
                "{} could not be read, and what they say is missing here",
                values::plural(
                    grounds.history.unreadable,
                    "document of a run",
                    "documents of runs"
                )
            ),
            "`lifeboat report` names them when it runs",
        );
    }
    let unclear: Vec<&str> = grounds
        .rules
        .iter()
        .filter(|rule| rule.verdict == Known::Unknown)
        .map(|rule| rule.rule)
        .collect();
    if !unclear.is_empty() {
        add(
            Level::Fine,
            format!("3-2-1-1-0: history cannot show {}", unclear.join(", ")),
            "show it by other means: where media are kept, and when they are plugged in",
        );
    }
    advice.sort_by_key(|advice| std::cmp::Reverse(advice.level));
    advice
}

/// The report in a sentence.
pub fn verdict(advice: &[Advice], objectives: &[Objective]) -> Verdict {
    let count = |verdict| objectives.iter().filter(|o| o.verdict == verdict).count() as u64;
    let level = advice.iter().map(|a| a.level).max().unwrap_or_default();
    let missed = count(Kept::Missed);
    // What was missed in the period is no fine period, whatever is to be done now.
    let level = match missed {
        0 => level,
        _ => level.max(Level::Warning),
    };
    let text = match level {
        Level::Fine => "All is well",
        Level::Warning => "Something is to be looked at",
        Level::Critical => "Action is needed",
    };
    Verdict {
        level,
        text: text.to_owned(),
        objectives_met: count(Kept::Met),
        objectives_missed: missed,
        objectives_open: count(Kept::NotMeasured),
    }
}
