//! The objectives, and how they were met.

use super::build::Facts;
use super::model::{Drills, Guest, Kept, Objective, Target};
use crate::evaluation::granted;
use crate::values;

/// All of them.
pub fn all(
    facts: &Facts<'_>,
    targets: &[Target],
    guests: &[Guest],
    drills: &Drills,
) -> Vec<Objective> {
    vec![
        host_rpo(facts),
        guests_rpo(facts, guests),
        host_rto(facts, drills),
        guests_rto(facts, guests, drills),
        verified(facts, targets),
        drilled(facts, drills),
    ]
}

fn host_rpo(facts: &Facts<'_>) -> Objective {
    let host = &facts.state.host;
    let limit = facts.config.objectives.host_rpo.seconds();
    let longest = facts.intervals.iter().map(|i| i.seconds).max();
    let too_long = longest.is_some_and(|longest| longest > granted(limit));
    let (verdict, text) = match (&host.newest, host.tried) {
        (None, false) => (
            Kept::Missed,
            "no run in history has tried to save the host".to_owned(),
        ),
        (None, true) => (
            Kept::Missed,
            "no good restore point of the host is known".to_owned(),
        ),
        (Some(_), _) => (
            if host.overdue || too_long { Kept::Missed } else { Kept::Met },
            "age of the newest good restore point at the end of the period, and the longest time from the beginning \
             of one good backup to the end of the next (a tenth more than the objective is granted there)"
                .to_owned(),
        ),
    };
    Objective {
        setting: "host-rpo",
        title: "Recovery point of the host",
        limit_seconds: limit,
        measured_seconds: host.age_seconds,
        longest_seconds: longest,
        verdict,
        text,
    }
}

fn guests_rpo(facts: &Facts<'_>, guests: &[Guest]) -> Objective {
    let present: Vec<&Guest> = guests.iter().filter(|guest| guest.present).collect();
    let of = |value: fn(&Guest) -> Option<u64>| present.iter().filter_map(|g| value(g)).max();
    let missed = present.iter().filter(|g| g.verdict == Kept::Missed).count();
    let never = present.iter().filter(|g| g.last_good.is_none()).count() as u64;
    let (verdict, text) = match (present.len(), missed) {
        (0, _) => (
            Kept::NotApplicable,
            "no run has tried to save guests lately".to_owned(),
        ),
        (_, 0) => (
            Kept::Met,
            "the oldest of the newest good dumps of all guests, and the longest time of any guest between two good \
             ones"
                .to_owned(),
        ),
        (all, missed) => (
            Kept::Missed,
            format!(
                "missed by {missed} of {}{}",
                values::plural(all as u64, "guest", "guests"),
                match never {
                    0 => String::new(),
                    never => format!("; {never} of them without any good dump"),
                }
            ),
        ),
    };
    Objective {
        setting: "guests-rpo",
        title: "Recovery point of every guest",
        limit_seconds: facts.config.objectives.guests_rpo.seconds(),
        // Of a guest without a dump there is no age to give.
        measured_seconds: of(|g| Some(g.last_good.as_ref()?.age_seconds)).filter(|_| never == 0),
        longest_seconds: of(|g| g.longest_seconds),
        verdict,
        text,
    }
}

fn within(measured: Option<u64>, limit: u64) -> Kept {
    match measured {
        None => Kept::NotMeasured,
        Some(measured) if measured > limit => Kept::Missed,
        Some(_) => Kept::Met,
    }
}

fn host_rto(facts: &Facts<'_>, drills: &Drills) -> Objective {
    let limit = facts.config.objectives.host_rto.seconds();
    let measured = drills.last_good.as_ref().and_then(|drill| drill.seconds);
    Objective {
        setting: "host-rto",
        title: "Recovery time of the host",
        limit_seconds: limit,
        measured_seconds: measured,
        longest_seconds: None,
        verdict: within(measured, limit),
        text: match measured {
            Some(_) => {
                "how long the last good drill took from its beginning to its verdict, in a virtual machine; other \
                 hardware may be slower or faster"
            }
            None => "not measured: only a drill (a restore that is tried) measures it, and history knows of none",
        }
        .to_owned(),
    }
}

fn guests_rto(facts: &Facts<'_>, guests: &[Guest], drills: &Drills) -> Objective {
    let limit = facts.config.objectives.guests_rto.seconds();
    let measured = drills
        .last_good
        .as_ref()
        .and_then(|drill| drill.guests_seconds);
    let any = guests.iter().any(|guest| guest.present);
    let (verdict, text) = match (measured, any) {
        (Some(_), _) => (
            within(measured, limit),
            "the time that the guests of the last good drill took, added up",
        ),
        (None, true) => (
            Kept::NotMeasured,
            "not measured: no drill in history brought guests back",
        ),
        (None, false) => (
            Kept::NotApplicable,
            "no run has tried to save guests lately",
        ),
    };
    Objective {
        setting: "guests-rto",
        title: "Recovery time of all guests",
        limit_seconds: limit,
        measured_seconds: measured,
        longest_seconds: None,
        verdict,
        text: text.to_owned(),
    }
}

fn verified(facts: &Facts<'_>, targets: &[Target]) -> Objective {
    let limit = facts.config.objectives.verified_within.seconds();
    let holding = |t: &&Target| t.configured && t.last_seen.is_some();
    let ages: Vec<Option<u64>> = targets
        .iter()
        .filter(holding)
        .map(|t| t.last_read.as_ref().map(|read| read.age_seconds))
        .collect();
    let overdue = facts.state.targets.iter().filter(|t| t.configured);
    let overdue = overdue.filter(|t| t.verify_overdue).count();
    let never = ages.iter().filter(|age| age.is_none()).count();
    let damaged = targets.iter().any(|t| t.damaged.is_some());
    let measured = ages.iter().copied().max().flatten().filter(|_| never == 0);
    let (verdict, text) = match ages.len() {
        0 => (
            Kept::NotMeasured,
            "history knows of no configured target that was used".to_owned(),
        ),
        _ if damaged => (
            Kept::Missed,
            "damage was found, and no read of the whole target since shows that it is mended".to_owned(),
        ),
        all if overdue > 0 => (
            Kept::Missed,
            format!(
                "{overdue} of {} not read again in time",
                values::plural(all as u64, "target was", "targets were")
            ),
        ),
        _ if never > 0 => (
            Kept::NotMeasured,
            format!(
                "{} too new to be read again already",
                values::plural(never as u64, "target is", "targets are")
            ),
        ),
        _ => (
            Kept::Met,
            "how long ago `lifeboat verify` read the target last that waits longest; what is read back right after \
             a backup does not count"
                .to_owned(),
        ),
    };
    Objective {
        setting: "verified-within",
        title: "Every target read again",
        limit_seconds: limit,
        measured_seconds: measured,
        longest_seconds: None,
        verdict,
        text,
    }
}

fn drilled(facts: &Facts<'_>, drills: &Drills) -> Objective {
    let limit = facts.config.objectives.drilled_within.seconds();
    let measured = drills.last_good.as_ref().map(|drill| drill.age_seconds);
    Objective {
        setting: "drilled-within",
        title: "A restore tried (drill)",
        limit_seconds: limit,
        measured_seconds: measured,
        longest_seconds: None,
        verdict: match measured {
            // Nothing was measured, and an objective says that it should have been.
            None => Kept::Missed,
            measured => within(measured, limit),
        },
        text: match measured {
            Some(_) => "how long ago a restore was tried last with success",
            None => "not proven: history knows of no restore that was tried with success",
        }
        .to_owned(),
    }
}
