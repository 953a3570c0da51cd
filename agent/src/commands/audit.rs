//! `lifeboat audit`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context as _;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::Context;
use crate::audit::chain::{Entry, Event, Verdict, entries, verify};
use crate::audit::log;
use crate::cli::{AuditArgs, AuditCommand};
use crate::output::{Outcome, Usage, table};
use crate::progress::printable;
use crate::schedule::Span;
use crate::values;

/// Shows or checks the log.
pub fn run(context: &Context, args: &AuditArgs) -> anyhow::Result<Outcome> {
    let state = &context.config.state;
    match &args.what {
        AuditCommand::Show(args) => {
            let since = args.since.as_deref().map(since).transpose()?;
            let all: Vec<Entry> = entries(&read(state)?)
                .into_iter()
                .filter(|entry| since.is_none_or(|since| entry.time >= since))
                .collect();
            context.out.result(&all, || text(&all))?;
            Ok(Outcome::Fine)
        }
        AuditCommand::Verify(args) => {
            let mut known: Vec<_> = args
                .expect
                .iter()
                .map(|head| (*head, "in what was kept elsewhere"))
                .collect();
            let path = log::path(state);
            let kept = log::head(state);
            if let Ok(Some(head)) = &kept {
                known.push((*head, "in what the host keeps beside the log"));
            }
            let opened = File::open(&path);
            let missing = opened
                .as_ref()
                .is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
            let mut verdict = match opened {
                Ok(file) => verify(BufReader::new(file), &known),
                Err(_) if missing => verify(&b""[..], &known),
                Err(error) => Err(error),
            }
            .with_context(|| format!("cannot read the audit log {}", path.display()))?;
            match kept {
                Ok(None) if verdict.entries > 0 => verdict.notes.push(format!(
                    "{} is missing: whether the end of the log was cut off is not known",
                    log::head_path(state).display()
                )),
                Err(error) => verdict.notes.push(format!("{error:#}")),
                Ok(_) => {}
            }
            context.out.result(&verdict, || said(&path, &verdict))?;
            Ok(match (verdict.ok, verdict.notes.is_empty()) {
                (false, _) => Outcome::Failed,
                (true, false) => Outcome::Warnings,
                (true, true) => Outcome::Fine,
            })
        }
    }
}

fn read(state: &Path) -> anyhow::Result<Vec<u8>> {
    let path = log::path(state);
    match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.with_context(|| format!("cannot read the audit log {}", path.display())),
    }
}

fn since(text: &str) -> anyhow::Result<Timestamp> {
    let span = text.parse::<Span>().ok().and_then(Span::get);
    let before = span
        .and_then(|span| SignedDuration::try_from(span).ok())
        .map(|span| Timestamp::now() - span);
    let day = text.parse::<Date>().ok();
    let day = day.and_then(|day| day.to_zoned(TimeZone::system()).ok());
    before
        .or_else(|| day.map(|day| day.timestamp()))
        .or_else(|| text.parse().ok())
        .ok_or_else(|| Usage(format!("'{text}' is no time: write 7d, 12h or 2026-11-26")).into())
}

fn said(path: &Path, verdict: &Verdict) -> String {
    let count = values::plural(verdict.entries, "entry", "entries");
    let mut out = match (verdict.ok, &verdict.head) {
        (true, Some(head)) => format!(
            "{}: {count}, as they were written; the last is {head}\n",
            path.display()
        ),
        (true, None) => format!("{}: no entries\n", path.display()),
        (false, _) => format!("{}: {count}, NOT as they were written\n", path.display()),
    };
    for finding in &verdict.findings {
        out.push_str(&format!("  line {}: {}\n", finding.line, finding.what));
    }
    for line in &verdict.torn {
        out.push_str(&format!(
            "  line {line}: unfinished, as a power cut leaves one\n"
        ));
    }
    for note in &verdict.notes {
        out.push_str(&format!("  note: {note}\n"));
    }
    out
}

fn text(all: &[Entry]) -> String {
    let ends: BTreeMap<u64, &Entry> = all
        .iter()
        .filter_map(|entry| match entry.event {
            Event::End { of, .. } => Some((of, entry)),
            Event::Start => None,
        })
        .collect();
    let zone = TimeZone::system();
    let rows: Vec<Vec<String>> = all
        .iter()
        .filter(|entry| entry.event == Event::Start)
        .map(|start| {
            let end = ends.get(&start.number);
            let result = match end.map(|end| &end.event) {
                Some(Event::End { exit, error, .. }) => match error {
                    Some(error) => format!("{exit}: {}", printable(error.as_bytes())),
                    None => exit.to_string(),
                },
                _ => "no end".to_owned(),
            };
            let origin = [&start.who.login, &start.who.from];
            let origin = origin
                .into_iter()
                .flatten()
                .filter(|o| **o != start.who.user);
            let who: Vec<String> = [start.who.user.clone()]
                .into_iter()
                .chain(origin.cloned())
                .collect();
            vec![
                start.number.to_string(),
                start
                    .time
                    .to_zoned(zone.clone())
                    .strftime("%Y-%m-%d %H:%M:%S")
                    .to_string(),
                printable(who.join(" ").as_bytes()),
                start.command.clone(),
                about(end.unwrap_or(&start)),
                result,
            ]
        })
        .collect();
    table(&[">no", "time", "who", "command", "about", "result"], &rows)
}

fn about(entry: &Entry) -> String {
    let things = entry.about.iter();
    let words: Vec<String> = things
        .map(|(kind, things)| format!("{kind} {}", things.join(", ")))
        .collect();
    printable(words.join("; ").as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        assert!(since("7d").unwrap() < Timestamp::now());
        assert!(since("2026-11-26").is_ok() && since("2026-11-26T02:00:00Z").is_ok());
        assert!(since("yesterday").is_err() && since("").is_err());
    }
}
