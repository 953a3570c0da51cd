//! Every run, folded by day; of many, those that matter most.

use std::collections::{BTreeSet, HashMap};

use maud::{Markup, html};

use super::at::At;
use super::{badge, guest_title, lines, verdict};

/// So many runs are shown one by one. Of more, those that did not end well come first, and then the newest.
const RUNS: usize = 400;
/// Reasons shown of each.
const LINES: usize = 10;

pub fn section(at: &At<'_>) -> Markup {
    let all: Vec<At<'_>> = at.get("runs").items().collect();
    let chosen = chosen(&all);
    let shown: Vec<&At<'_>> = chosen
        .iter()
        .rev()
        .filter_map(|nth| all.get(*nth))
        .collect();
    let days: HashMap<&str, At<'_>> = at
        .get("days")
        .items()
        .map(|d| (d.get("date").text(), d))
        .collect();
    let by_day = shown.chunk_by(|a, b| date(a) == date(b));
    html! {
        section #runs {
            h2 { "Runs" }
            @if all.is_empty() {
                p { "None in this period." }
            } @else if shown.len() < all.len() {
                p .meta {
                    (shown.len()) " of " (all.len()) " runs, the newest first: those that did not end well, and the newest "
                    "of the others. All of them are in the data."
                }
            } @else {
                p { "All of them, the newest first." }
            }
            @for runs in by_day { (day(runs, &days, shown.len() == all.len())) }
        }
    }
}

fn date<'a>(run: &At<'a>) -> &'a str {
    run.get("date").text()
}

fn is_fine(run: &At<'_>) -> bool {
    matches!(run.get("result").text(), "fine" | "running")
}

/// Which runs are shown.
fn chosen(all: &[At<'_>]) -> BTreeSet<usize> {
    let newest_first = || (0..all.len()).rev();
    let bad = newest_first().filter(|nth| !is_fine(&all[*nth]));
    let fine = newest_first().filter(|nth| is_fine(&all[*nth]));
    bad.chain(fine).take(RUNS).collect()
}

fn day(runs: &[&At<'_>], days: &HashMap<&str, At<'_>>, complete: bool) -> Markup {
    let bad = runs.iter().any(|run| !is_fine(run));
    let date = runs.first().map_or("", |run| date(run));
    let count = |key: &str, word: &str, class: &str, sign: &str| {
        let at = days.get(date)?.get(key);
        let shown = html! {
            " " span class=(format!("badge {class}")) {
                span aria-hidden="true" { (sign) } " " (at.counted()) " " (word)
            }
        };
        (at.count() > 0).then_some(shown)
    };
    html! {
        details .runs open[bad && complete] {
            summary {
                @if let Some(day) = days.get(date) { strong { (day.get("date").words()) } }
                @for shown in [
                    count("fine", "fine", "ok", "✓"),
                    count("warnings", "with warnings", "warn", "!"),
                    count("failed", "failed", "bad", "✕"),
                ].into_iter().flatten() { (shown) }
            }
            @for run in runs { (of_run(run)) }
        }
    }
}

fn of_run(run: &At<'_>) -> Markup {
    let (kind, trigger) = (run.get("kind"), run.get("trigger"));
    let kind = kind.show(match kind.text() {
        "backup" => "Backup",
        "guests" => "Backup of guests",
        "directories" => "Backup of directories",
        "verify" => "Verification",
        "drill" => "Drill",
        other => other,
    });
    let trigger = trigger.show(match trigger.text() {
        "timer" => "by a timer",
        "plug" => "by plugging in",
        _ => "by a command",
    });
    let saves = matches!(run.get("kind").text(), "backup" | "directories");
    html! {
        article .run {
            h3 {
                (run.get("started").clock()) " " (kind) " " (badge(&run.get("result")))
            }
            p .who { (trigger) " of " (run.get("user").words()) "; " code { (run.get("id").words()) } }
            (lines(&run.get("why"), LINES))
            dl .facts {
                div { dt { "Took" } dd { (run.get("seconds").span()) } }
                @if saves {
                    div { dt { "Files" } dd { (run.get("files").counted()) } }
                    div { dt { "Size" } dd { (run.get("bytes").bytes()) } }
                    div { dt { "Read" } dd { (run.get("bytes_read").bytes()) } }
                }
                @if run.get("bytes_written").count() > 0 || saves {
                    div { dt { "Written" } dd { (run.get("bytes_written").bytes()) } }
                }
                div { dt { "Verified" } dd { (run.get("bytes_verified").bytes()) } }
                @for phase in run.get("phases").items() {
                    div {
                        dt { (phase.get("name").words()) }
                        dd { (seconds(&phase.get("seconds"))) }
                    }
                }
            }
            @if run.get("targets").len() > 0 {
                ul .parts {
                    @for target in run.get("targets").items() { li { (of_target(&target)) } }
                }
            }
            @if run.get("guests").len() > 0 {
                ul .parts {
                    @for guest in run.get("guests").items() { li { (of_guest(&guest)) } }
                }
            }
            (lines(&run.get("notes"), LINES))
        }
    }
}

fn seconds(at: &At<'_>) -> Markup {
    at.show(format!("{:.1} s", at.number().unwrap_or_default()))
}

fn of_target(t: &At<'_>) -> Markup {
    let (snapshot, free, points) = (
        t.get("snapshot"),
        t.get("free_bytes"),
        t.get("restore_points"),
    );
    html! {
        (t.get("target").words())
        @if !snapshot.is_null() {
            ": " code { (snapshot.show(snapshot.text().get(..8).unwrap_or(snapshot.text()))) }
        }
        ", " (t.get("bytes_written").bytes()) " written, "
        (t.get("bytes_verified").bytes()) " read "
        (verdict(&t.get("verified"), "good", "damaged", "not read"))
        @if !points.is_null() { ", " (points.counted()) " restore points" }
        @if !free.is_null() { ", " (free.bytes()) " free" }
    }
}

fn of_guest(g: &At<'_>) -> Markup {
    html! {
        (guest_title(g)) " " (badge(&g.get("result"))) " "
        (g.get("bytes").bytes()) " in " (g.get("seconds").span()) ", to "
        (g.get("targets").counted())
        @if g.get("targets").count() == 1 { " target" } @else { " targets" }
    }
}
