//! What matters first: the verdict, what should be done, and what was promised.

use maud::{Markup, html};

use super::at::At;
use super::{badge, sign_of, table};

/// How many pieces of advice are shown at once.
const ADVICE: usize = 20;

pub fn sections(at: &At<'_>) -> Markup {
    html! {
        (verdict(at))
        (tiles(at))
        (objectives(at))
        (rules(at))
    }
}

fn verdict(at: &At<'_>) -> Markup {
    let verdict = at.get("verdict");
    let advice = at.get("advice");
    let class = match verdict.get("level").text() {
        "fine" => "ok",
        "warning" => "warn",
        _ => "bad",
    };
    html! {
        section #verdict class=(class) {
            h2 {
                (badge(&verdict.get("level"))) " " (verdict.get("text").words())
            }
            p {
                "Objectives: " (verdict.get("objectives_met").counted()) " met, "
                (verdict.get("objectives_missed").counted()) " missed, "
                (verdict.get("objectives_open").counted()) " not measured."
            }
            @if advice.len() > 0 {
                h3 { "What should be done" }
                ol .advice {
                    @for item in advice.items().take(ADVICE) {
                        li {
                            p { (level(&item.get("level"))) " " (item.get("text").words()) }
                            p .todo { (commands(item.get("todo").text(), &item.get("todo"))) }
                        }
                    }
                    @if advice.len() > ADVICE {
                        li .meta { "and " (advice.len() - ADVICE) " more, in the data" }
                    }
                }
            }
        }
    }
}

/// What is only to be known is no praise.
fn level(at: &At<'_>) -> Markup {
    match at.text() {
        "fine" => sign_of(at, "open", "i", "note"),
        _ => badge(at),
    }
}

/// Text with commands between backticks.
fn commands(text: &str, at: &At<'_>) -> Markup {
    at.show(html! {
        @for (nth, part) in text.split('`').enumerate() {
            @if nth % 2 == 1 { code { (part) } } @else { (part) }
        }
    })
}

fn tile(title: &str, class: &str, main: Markup, more: Markup) -> Markup {
    html! {
        div class=(format!("tile {class}")) {
            h3 { (title) }
            p .main { (main) }
            p { (more) }
        }
    }
}

fn tiles(at: &At<'_>) -> Markup {
    let summary = at.get("summary");
    let good = summary.get("last_good");
    let drilled = summary.get("last_drilled");
    let verified = summary.get("last_verified");
    let never = |at: &At<'_>| sign_of(at, "bad", "✕", "never");
    html! {
        section #summary {
            h2 .unseen { "In short" }
            (tile("Last good restore point of the host", "", html! {
                @if good.is_null() { (never(&good)) } @else { (good.get("at").time()) }
            }, html! {
                @if !good.is_null() {
                    (good.get("age_seconds").span()) " old, on " (good.get("target").words()) ", "
                    @if good.get("verified").is_true() { (good.get("verified").show("read back")) }
                    @else { (good.get("verified").show("not read back")) }
                }
            }))
            (tile("Last read of a good restore point", "", html! {
                @if verified.is_null() { (never(&verified)) } @else { (verified.time()) }
            }, html! {
                (summary.get("bytes_verified").bytes()) " read for verification in the period"
            }))
            (tile("Restore tried (drill)", "", html! {
                @if drilled.is_null() { (sign_of(&drilled, "bad", "✕", "not proven")) }
                @else { (drilled.time()) }
            }, html! {
                @if drilled.is_null() { "No restore was tried with success, as far as history goes." }
                @else { "The last one that went well." }
            }))
            (tile("Runs", "", html! { (summary.get("runs").counted()) }, html! {
                (summary.get("fine").counted()) " fine, "
                (summary.get("warnings").counted()) " with warnings, "
                (summary.get("failed").counted()) " failed, "
                (summary.get("died").counted()) " killed"
                @if summary.get("running").count() > 0 { ", " (summary.get("running").counted()) " running" }
            }))
            (tile("Days without a new good restore point", "", html! {
                (summary.get("days_without").counted())
            }, html! {
                "of " (summary.get("days_known").counted()) " that are known; "
                (summary.get("restore_points").counted()) " restore points made"
            }))
            (tile("A backup of the host takes", "", html! {
                (summary.get("backup_seconds_median").span())
            }, html! {
                "half of them take longer; the longest " (summary.get("backup_seconds_longest").span()) "; "
                (summary.get("bytes_written").bytes()) " written to all targets"
            }))
        }
    }
}

fn objectives(at: &At<'_>) -> Markup {
    let row = |o: At<'_>| {
        vec![
            html! { (o.get("title").words()) span .setting { (o.get("setting").words()) } },
            o.get("limit_seconds").span(),
            html! {
                @if o.get("measured_seconds").is_null() { (o.get("measured_seconds").show("–")) }
                @else { (o.get("measured_seconds").span()) }
            },
            html! {
                @if o.get("longest_seconds").is_null() { (o.get("longest_seconds").show("–")) }
                @else { (o.get("longest_seconds").span()) }
            },
            badge(&o.get("verdict")),
            html! { span .how { (commands(o.get("text").text(), &o.get("text"))) } },
        ]
    };
    html! {
        section #objectives {
            h2 { "Objectives" }
            (table(
                "What was promised, and what was measured",
                &["Objective", "At most", "At the end", "Longest", "Verdict", "How"],
                at.get("objectives").items().map(row).collect(),
            ))
        }
    }
}

fn rules(at: &At<'_>) -> Markup {
    let title = |rule: &At<'_>| match rule.get("rule").text() {
        "copies" => "Three copies",
        "media" => "Two kinds of media",
        "offsite" => "One elsewhere",
        "offline" => "One offline",
        "errors" => "No errors when read",
        _ => "",
    };
    let row = |rule: At<'_>| {
        vec![
            rule.get("rule").show(title(&rule)),
            rule.get("wanted").counted(),
            rule.get("found").counted(),
            badge(&rule.get("verdict")),
            html! { span .how { (rule.get("text").words()) } },
        ]
    };
    html! {
        section #rules {
            h2 { "3-2-1-1-0" }
            (table(
                "Three copies on two kinds of media, one elsewhere, one offline, no errors: as far as history can show it",
                &["Rule", "Wanted", "Found", "Verdict", "Why"],
                at.get("rules").items().map(row).collect(),
            ))
        }
    }
}
