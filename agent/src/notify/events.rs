//! What is worth a message, and what was told already. Pure: from what was known and what is, to messages and what is known
//! now.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::settings::When;
use super::{Event, Message};
use crate::evaluation::{Finding, LastRun, Topic, age, span};
use crate::history::{Kind, RunResult};
use crate::status::Status;

/// After this, the same is told again.
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// The same of what is no failure.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A run that nothing is known of yet is no news after this.
const NEWS: SignedDuration = SignedDuration::from_hours(48);

/// What was told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Notified {
    /// The last run of each kind that was looked at.
    #[serde(default)]
    pub runs: BTreeMap<String, String>,
    /// What is not over yet.
    #[serde(default)]
    pub told: BTreeMap<String, Told>,
    /// Why the last messages could not be sent.
    #[serde(default)]
    pub unsent: Option<String>,
}

/// Something that was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// When it was told first.
    pub since: Timestamp,
    /// When it was told last.
    pub last: Timestamp,
    /// What was told, without its numbers: another reason is news.
    pub what: String,
    /// In a few words, for the message that it is over.
    pub title: String,
}

/// What to tell now.
pub fn decide(known: &Notified, status: &Status, when: &When) -> (Vec<Message>, Notified) {
    let mut deciding = Deciding {
        status,
        when,
        now: status.evaluation.at,
        next: known.clone(),
        over: Vec::new(),
        messages: Vec::new(),
    };
    for last in &status.evaluation.last_runs {
        deciding.run(last);
    }
    deciding.overdue();
    deciding.warnings();
    deciding.low_space();
    deciding.recovery();
    (deciding.messages, deciding.next)
}

struct Deciding<'d> {
    status: &'d Status,
    when: &'d When,
    now: Timestamp,
    next: Notified,
    /// What was told of, and is over.
    over: Vec<Told>,
    messages: Vec<Message>,
}

impl Deciding<'_> {
    fn say(&mut self, event: Event, title: &str, text: &str) {
        let host = &self.status.host_name;
        let text = format!(
            "{}\n\n`lifeboat status` on {host} shows how all of it is.\n",
            text.trim_end()
        );
        self.messages
            .push(Message::new(event, host, self.now, title, &text));
    }

    /// Whether something is news; if so, it counts as told.
    fn is_news(&mut self, key: &str, what: &str, title: &str, again: SignedDuration) -> bool {
        let now = self.now;
        // Its numbers are others each time: sizes, times, processes.
        let what = what
            .split(|c: char| c.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("#");
        match self.next.told.get_mut(key) {
            // A clock that went back must not silence it.
            Some(told)
                if told.what == what
                    && now.duration_since(told.last) < again
                    && told.last <= now =>
            {
                false
            }
            Some(told) => {
                (told.last, told.what, told.title) = (now, what, title.to_owned());
                true
            }
            None => {
                let told = Told {
                    since: now,
                    last: now,
                    what,
                    title: title.to_owned(),
                };
                self.next.told.insert(key.to_owned(), told);
                true
            }
        }
    }

    fn is_over(&mut self, key: &str) -> bool {
        match self.next.told.remove(key) {
            Some(told) => {
                self.over.push(told);
                true
            }
            None => false,
        }
    }

    fn run(&mut self, last: &LastRun) {
        let run = &last.run;
        let kind = run.kind.word();
        let before = self.next.runs.insert(kind.to_owned(), run.id.clone());
        if before.as_ref() == Some(&run.id) {
            return;
        }
        let ended = run.ended.unwrap_or(run.started);
        if before.is_none() && self.now.duration_since(ended) > NEWS {
            return;
        }
        let name = name(run.kind);
        let reason = run.reason.as_deref().unwrap_or("see the history of runs");
        let begun = format!("It was begun {} by {}.", shown(run.started), run.user);
        let (failure, warning) = (format!("failure:{kind}"), format!("warning:{kind}"));
        match run.result {
            Some(RunResult::Failed) => {
                let title = format!("{name} failed");
                if self.when.tells(Event::Failure) && self.is_news(&failure, reason, &title, DAY) {
                    let text =
                        format!("{name} failed:\n  {reason}\n{begun}\n\n{}", self.now_what());
                    self.say(Event::Failure, &format!("{title}: {reason}"), &text);
                }
            }
            Some(RunResult::Warnings) => {
                self.is_over(&failure);
                let title = format!("{name} ended with warnings");
                if self.when.tells(Event::Warning) && self.is_news(&warning, reason, &title, DAY) {
                    let text = format!(
                        "{name} ended with warnings:\n  {reason}\n{begun}\n\n{}",
                        self.now_what()
                    );
                    self.say(Event::Warning, &format!("{title}: {reason}"), &text);
                }
            }
            Some(RunResult::Fine) => {
                let was = self.is_over(&failure);
                self.next.told.remove(&warning);
                if *self.when == When::Always && !was {
                    let text = format!("{name} ended well.\n{begun}");
                    self.say(Event::Fine, &format!("{name} ended well"), &text);
                }
            }
            None => {}
        }
    }

    /// Since when, and what to do.
    fn now_what(&self) -> String {
        let host = &self.status.evaluation.host;
        let mut out = match &host.newest {
            Some(point) => format!(
                "The host's newest good restore point is {} old ({}, on {}).\n",
                span(age(self.now, point.time)),
                shown(point.time),
                point.target.display()
            ),
            None => "The host has no good restore point.\n".to_owned(),
        };
        if let Some(since) = host.failing_since {
            out.push_str(&format!("Backups have failed since {}.\n", shown(since)));
        }
        let worth = self.status.findings.iter().take(5);
        out.push_str(&listed("What to do:", worth));
        out
    }

    /// Those that are too old, or not there at all.
    fn overdue(&mut self) {
        let status = self.status;
        let set_up =
            status.evaluation.host.tried || status.evaluation.targets.iter().any(|t| t.configured);
        // A host that nobody has set up yet is nobody's surprise.
        let of_topic = |f: &&Finding| {
            let never = f.topic == Topic::Never && f.level == crate::evaluation::Level::Critical;
            f.topic == Topic::Overdue || never
        };
        let found: Vec<&Finding> = match set_up {
            true => status.findings.iter().filter(of_topic).collect(),
            false => Vec::new(),
        };
        self.forget("overdue:", &found);
        // The message of a failure says it as well.
        let failed = self.messages.iter().any(|m| m.event == Event::Failure);
        if failed || !self.when.tells(Event::Overdue) {
            return;
        }
        let mut news = false;
        for finding in &found {
            let key = format!("overdue:{}", finding.subject);
            let title = match finding.subject.as_str() {
                "host" => "backups of the host were overdue".to_owned(),
                subject => format!("backups of {subject} were overdue"),
            };
            // Its age is another one each day.
            news |= self.is_news(&key, "overdue", &title, DAY);
        }
        if news {
            let title = match found.as_slice() {
                [one] => one.text.clone(),
                more => format!(
                    "backups are overdue: the host or guests, {} in all",
                    more.len()
                ),
            };
            let text = listed("Backups are overdue:", found.iter().copied());
            self.say(Event::Overdue, &title, &text);
        }
    }

    /// What is not as it should be, and is no matter of a single run.
    fn warnings(&mut self) {
        let topics = [
            Topic::Unverified,
            Topic::Drill,
            Topic::GuestsToCome,
            Topic::Clock,
        ];
        let found: Vec<&Finding> = self
            .status
            .findings
            .iter()
            .filter(|f| topics.contains(&f.topic))
            .collect();
        self.collected(Event::Warning, "notice:", &found);
    }

    fn low_space(&mut self) {
        let found: Vec<&Finding> = self
            .status
            .findings
            .iter()
            .filter(|f| f.topic == Topic::LowSpace)
            .collect();
        self.collected(Event::LowSpace, "low-space:", &found);
    }

    fn collected(&mut self, event: Event, prefix: &str, found: &[&Finding]) {
        let keys: Vec<String> = found
            .iter()
            .map(|f| format!("{prefix}{}", f.subject))
            .collect();
        self.next
            .told
            .retain(|key, _| !key.starts_with(prefix) || keys.contains(key));
        if !self.when.tells(event) {
            return;
        }
        let mut news = false;
        for (finding, key) in found.iter().zip(&keys) {
            news |= self.is_news(key, "", &finding.text, WEEK);
        }
        if news {
            let title = match found {
                [one] => one.text.clone(),
                [one, more @ ..] => format!("{} (and {} more)", one.text, more.len()),
                [] => return,
            };
            let text = listed("To be looked at:", found.iter().copied());
            self.say(event, &title, &text);
        }
    }

    /// What was told with this prefix and is not found any more is over; guests that are gone are no recovery.
    fn forget(&mut self, prefix: &str, found: &[&Finding]) {
        let is_there = |key: &String| {
            let subject = &key[prefix.len()..];
            found.iter().any(|f| f.subject == subject)
        };
        let told = self.next.told.keys().filter(|k| k.starts_with(prefix));
        let over: Vec<String> = told.filter(|key| !is_there(key)).cloned().collect();
        let guests = &self.status.evaluation.guests;
        for key in over {
            let subject = &key[prefix.len()..];
            let exists = guests
                .iter()
                .any(|g| subject == format!("guest {}", g.guest.id));
            if subject.starts_with("guest ") && !exists {
                self.next.told.remove(&key);
            } else {
                self.is_over(&key);
            }
        }
    }

    fn recovery(&mut self) {
        let over = std::mem::take(&mut self.over);
        let Some(first) = over.first() else { return };
        if !self.when.tells(Event::Recovery) {
            return;
        }
        let title = match over.len() {
            1 => format!("well again: {}", first.title),
            n => format!("well again: {} (and {} more)", first.title, n - 1),
        };
        let mut text = String::from("This is over:\n");
        for told in &over {
            text.push_str(&format!(
                "  {}, told first {}\n",
                told.title,
                shown(told.since)
            ));
        }
        if let Some(point) = &self.status.evaluation.host.newest {
            text.push_str(&format!(
                "The host's newest good restore point is of {}, on {}.\n",
                shown(point.time),
                point.target.display()
            ));
        }
        let left: Vec<&Finding> = self.status.findings.iter().take(5).collect();
        if !left.is_empty() {
            text.push_str(&listed("What is left:", left.into_iter()));
        }
        self.say(Event::Recovery, &title, &text);
    }
}

fn listed<'f>(head: &str, findings: impl Iterator<Item = &'f Finding>) -> String {
    let mut out = String::new();
    for finding in findings {
        if out.is_empty() {
            out.push_str(&format!("{head}\n"));
        }
        out.push_str(&format!("  {}\n    -> {}\n", finding.text, finding.todo));
    }
    out
}

/// For people in any zone.
fn shown(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Backup => "backup",
        Kind::Guests => "backup of guests",
        Kind::Directories => "backup of directories",
        Kind::Verify => "verification",
        Kind::Drill => "trial of a restore",
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
