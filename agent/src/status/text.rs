//! The screen: 80 columns, 24 lines, the worst first.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Presence, Status};
use crate::evaluation::{Level, Protection, TargetState, age, span};

const COLUMNS: usize = 80;
const LINES: usize = 24;
/// Targets that are shown, where there are more.
const TARGETS: usize = 5;

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Paint(pub bool);

impl Paint {
    fn level(self, level: Level, text: &str) -> String {
        let code = match level {
            Level::Fine => "32",
            Level::Warning => "33",
            Level::Critical => "1;31",
        };
        match self.0 {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Fine => "OK",
        Level::Warning => "WARNING",
        Level::Critical => "CRITICAL",
    }
}

/// The summary in a line.
pub fn headline(status: &Status) -> String {
    let text = match status.findings.as_slice() {
        [] => "all is saved, and as fresh as it should be".to_owned(),
        [one] => one.text.clone(),
        [first, more @ ..] => format!("{} (and {} more)", first.text, more.len()),
    };
    printable(&format!(
        "{}: {}: {text}",
        word(status.level),
        status.host_name
    ))
}

/// All of it.
pub fn screen(status: &Status, color: bool) -> String {
    let paint = Paint(color);
    let mut lines: Vec<String> = wrap(&headline(status), "  ")
        .into_iter()
        .take(2)
        .map(|line| paint.level(status.level, &line))
        .collect();
    lines.push(String::new());
    lines.extend(host(status, paint));
    lines.extend(guests(status, paint));
    lines.push(row("Next", &next(status)));
    for run in &status.evaluation.running {
        let text = format!(
            "{} since {}, process {}, started by {}",
            run.kind.word(),
            local(run.started),
            run.pid,
            run.user
        );
        lines.push(row("Running", &text));
    }
    lines.extend(targets(status, paint));
    lines.extend(todo(status, paint, LINES.saturating_sub(lines.len() + 1)));
    lines.join("\n") + "\n"
}

fn host(status: &Status, paint: Paint) -> Vec<String> {
    let host = &status.evaluation.host;
    let mut lines = vec![paint.level(level(host), &row("Host", &protection(status, host)))];
    let drill = &status.evaluation.drill;
    let (drilled, bad) = match drill.proven {
        Some(time) => (ago(status, time), drill.overdue),
        None => ("not proven".to_owned(), true),
    };
    let verified = match host.verified {
        Some(time) => ago(status, time),
        None => "never".into(),
    };
    let text = row(
        "",
        &format!("verified {verified}; a restore was tried: {drilled}"),
    );
    lines.push(match bad {
        true => paint.level(Level::Warning, &text),
        false => text,
    });
    lines
}

fn level(protection: &Protection) -> Level {
    match (protection.overdue, protection.failing_since) {
        (true, _) => Level::Critical,
        (false, Some(_)) => Level::Warning,
        (false, None) => Level::Fine,
    }
}

fn protection(status: &Status, what: &Protection) -> String {
    let overdue = match what.overdue {
        true => "OVERDUE, ",
        false => "",
    };
    match &what.newest {
        Some(point) => format!(
            "{overdue}last good {} ({}), may be {} old",
            ago(status, point.time),
            local(point.time),
            span(what.rpo_seconds)
        ),
        None if what.tried => "NO GOOD RESTORE POINT".into(),
        None => "NEVER BACKED UP".into(),
    }
}

fn guests(status: &Status, paint: Paint) -> Vec<String> {
    let all = &status.evaluation.guests;
    let mut lines = Vec::new();
    if let Some(to_come) = &status.guests_to_come {
        let text = format!(
            "{} still to come back: `lifeboat guests status`",
            to_come.missing
        );
        lines.push(paint.level(Level::Critical, &row("Guests", &text)));
    }
    if all.is_empty() {
        return lines;
    }
    let mut bad: Vec<_> = all
        .iter()
        .filter(|g| level(&g.protection) != Level::Fine)
        .collect();
    bad.sort_by_key(|g| {
        let p = &g.protection;
        // Those without any first.
        std::cmp::Reverse((level(p), p.age_seconds.unwrap_or(u64::MAX)))
    });
    let fine = all.len() - bad.len();
    let text = format!(
        "{fine} of {} saved within {}",
        all.len(),
        span(all[0].protection.rpo_seconds)
    );
    let worst = bad.iter().map(|g| level(&g.protection)).max();
    lines.push(paint.level(worst.unwrap_or_default(), &row("Guests", &text)));
    for guest in bad.iter().take(2) {
        let p = &guest.protection;
        let text = match p.age_seconds {
            Some(age) => format!("{}: last good {} ago", guest.guest.title(), span(age)),
            None => format!("{}: no good dump", guest.guest.title()),
        };
        lines.push(paint.level(level(p), &row("", &text)));
    }
    lines
}

fn next(status: &Status) -> String {
    let Some(next) = &status.next else {
        return "not known: systemd cannot be asked".into();
    };
    let planned: Vec<String> = next
        .iter()
        .take(3)
        .map(|planned| match planned.time {
            Some(time) => format!("{} {}", planned.what(), local(time)),
            None => planned.what().to_owned(),
        })
        .collect();
    match planned.is_empty() {
        true => "no timer is active".into(),
        false => planned.join(", "),
    }
}

fn targets(status: &Status, paint: Paint) -> Vec<String> {
    let all = status.evaluation.targets.iter().zip(&status.presence);
    // Others than the configured ones only as long as they hold what counts.
    let fresh = |t: &TargetState| {
        let newest = t.newest.map(|time| age(status.evaluation.at, time));
        newest.is_some_and(|age| age <= 30 * 86_400)
    };
    let shown: Vec<_> = all.filter(|(t, _)| t.configured || fresh(t)).collect();
    let mut lines = vec!["Targets".to_owned()];
    if shown.is_empty() {
        lines.push("  none is configured".into());
    }
    for (target, presence) in shown.iter().take(TARGETS) {
        let name = target.target.display().to_string();
        let at_hand = match (presence, target.stick) {
            (Presence::There, true) => "plugged in",
            (Presence::There, false) => "there",
            (Presence::Empty, _) => "NO STORE",
            (Presence::Other, _) => "OTHER STORE",
            (Presence::Absent, true) => "unplugged",
            (Presence::Absent, false) => "not there",
        };
        let newest = match target.newest {
            Some(time) => span(age(status.evaluation.at, time)),
            None => "none".into(),
        };
        let verified = match target.verified {
            Some(time) => span(age(status.evaluation.at, time)),
            None => "never".into(),
        };
        let room = match target.space {
            Some(space) => format!("{:.0}% free", space.free_share() * 100.0),
            None => String::new(),
        };
        // Most of a line is for what is said of it; its end tells one name from another.
        let name = end_of(&name, 25);
        let text =
            format!("  {name:<25} {at_hand:<11} new {newest:<10} read {verified:<10} {room}");
        let level = match target.damaged {
            Some(_) => Level::Critical,
            None if target.verify_overdue => Level::Warning,
            None => Level::Fine,
        };
        lines.push(paint.level(level, cut(&printable(&text))));
    }
    if shown.len() > TARGETS {
        lines.push(format!("  and {} more", shown.len() - TARGETS));
    }
    lines
}

fn todo(status: &Status, paint: Paint, room: usize) -> Vec<String> {
    if status.findings.is_empty() {
        return Vec::new();
    }
    let mut lines = vec!["What to do".to_owned()];
    for (number, finding) in status.findings.iter().enumerate() {
        let mut text: Vec<String> = wrap(&printable(&format!("! {}", finding.text)), "    ")
            .into_iter()
            .take(3)
            .map(|line| paint.level(finding.level, &format!("  {line}")))
            .collect();
        let todo = wrap(&printable(&format!("-> {}", finding.todo)), "   ");
        text.extend(todo.into_iter().take(2).map(|line| format!("    {line}")));
        let left = status.findings.len() - number;
        // The last line is for those that have no place.
        let last = if left > 1 { 1 } else { 0 };
        if lines.len() + text.len() + last > room && number > 0 {
            lines.push(format!("  and {left} more: lifeboat status --json"));
            break;
        }
        lines.extend(text);
    }
    lines
}

fn row(name: &str, text: &str) -> String {
    cut(&printable(&format!("{name:<9}{text}"))).to_owned()
}

fn ago(status: &Status, time: Timestamp) -> String {
    format!("{} ago", span(age(status.evaluation.at, time)))
}

/// In the zone of the host.
fn local(time: Timestamp) -> String {
    let zone = TimeZone::system();
    time.to_zoned(zone).strftime("%Y-%m-%d %H:%M").to_string()
}

/// Names and reasons come from others, and must not steer a terminal.
fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(safe).collect()
}

fn cut(text: &str) -> &str {
    match text.char_indices().nth(COLUMNS) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

fn end_of(text: &str, width: usize) -> String {
    let length = text.chars().count();
    match length > width {
        true => {
            let end: String = text.chars().skip(length - width + 2).collect();
            format!("..{end}")
        }
        false => text.to_owned(),
    }
}

/// Lines of at most 74 columns, those after the first one indented.
fn wrap(text: &str, indent: &str) -> Vec<String> {
    const WIDTH: usize = COLUMNS - 6;
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let length = line.chars().count() + 1 + word.chars().count();
        if length > WIDTH && !line.trim().is_empty() {
            lines.push(std::mem::take(&mut line));
            line.push_str(indent);
        } else if !line.is_empty() && !line.ends_with(' ') {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.trim().is_empty() {
        lines.push(line);
    }
    // A word that is longer than the screen.
    let cut = |line: &String| line.chars().take(COLUMNS - 4).collect();
    lines.iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped_and_long_words_cut() {
        let text = "a word and ".repeat(20) + &"x".repeat(200);
        let lines = wrap(&text, "   ");
        assert!(lines.len() > 3);
        assert!(lines.iter().all(|l| l.chars().count() <= COLUMNS));
        assert!(lines[1].starts_with("   "));
        assert_eq!(wrap("", " "), Vec::<String>::new());
    }

    #[test]
    fn ends_tell_names_apart() {
        assert_eq!(end_of("/dev/disk/by-id/usb-Stick-0:0", 10), "..tick-0:0");
        assert_eq!(end_of("/mnt/a", 10), "/mnt/a");
    }

    #[test]
    fn nothing_steers_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a [2Jb c");
    }
}
