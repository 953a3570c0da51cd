//! Targets, guests, and the evidence that what is on them can be read and restored.

use maud::{Markup, html};

use super::at::At;
use super::{badge, guest_title, lines, sign_of, table, verdict};

/// How many of each are shown; all are in the data.
const TARGETS: usize = 30;
const GUESTS: usize = 200;
const READS: usize = 60;
const DRILLS: usize = 30;

pub fn sections(at: &At<'_>) -> Markup {
    html! {
        (targets(at))
        (guests(at))
        (verifications(at))
        (drills(at))
    }
}

fn or_never<'a>(at: &At<'a>, shown: impl FnOnce(&At<'a>) -> Markup) -> Markup {
    match at.is_null() {
        true => at.show("never"),
        false => shown(at),
    }
}

fn more(all: usize, shown: usize) -> Markup {
    html! { @if all > shown { p .meta { (shown) " of " (all) " are shown; all are in the data." } } }
}

fn targets(at: &At<'_>) -> Markup {
    let all = at.get("targets");
    html! {
        section #targets {
            h2 { "Targets" }
            @if all.len() == 0 { p { "None was used in this period, and none is configured." } }
            div .boxes {
                @for target in all.items().take(TARGETS) { (of_target(&target)) }
            }
            (more(all.len(), TARGETS))
            (retention(&at.get("retention")))
        }
    }
}

fn of_target(t: &At<'_>) -> Markup {
    let (damaged, seen, good) = (t.get("damaged"), t.get("last_seen"), t.get("last_good"));
    let good_points = |good: &At<'_>| {
        html! { (good.get("at").time()) ", " (good.get("age_seconds").span()) " old" }
    };
    let read = |read: &At<'_>| {
        html! {
            (read.get("at").time()) ", " (read.get("bytes").bytes()) " "
            (verdict(&read.get("good"), "good", "damaged", ""))
        }
    };
    html! {
        article .box {
            h3 { (t.get("name").words()) }
            p .tags {
                @if t.get("stick").is_true() { (t.get("stick").show("stick")) }
                @else { (t.get("stick").show("directory or drive")) }
                @if !t.get("configured").is_true() { " · " (t.get("configured").show("not configured any more")) }
                @if !damaged.is_null() {
                    " " (sign_of(&damaged, "bad", "✕", "damaged"))
                } @else if seen.is_null() {
                    " " (sign_of(&seen, "open", "?", "never used"))
                }
            }
            dl {
                div { dt { "Last good restore point" } dd { (or_never(&good, good_points)) } }
                div { dt { "Restore points of this host" } dd { (t.get("restore_points").counted()) } }
                div { dt { "The oldest of them" } dd {
                    @if t.get("oldest").is_null() { (t.get("oldest").show("only the target knows")) }
                    @else { (t.get("oldest").time()) }
                } }
                div { dt { "Free" } dd {
                    @if t.get("free_bytes").is_null() { (t.get("free_bytes").unknown()) } @else {
                        (t.get("free_bytes").bytes()) " of " (t.get("size_bytes").bytes())
                        " (" (t.get("free_percent").percent()) ")"
                    }
                } }
                div { dt { "Full in" } dd {
                    @if t.get("full_in_days").is_null() { (t.get("full_in_days").show("no trend towards it")) }
                    @else {
                        (t.get("full_in_days").show(format!("{:.0}", t.get("full_in_days").number().unwrap_or(0.0))))
                        " days, if it goes on as in the last month"
                    }
                } }
                div { dt { "Used in the period" } dd {
                    (t.get("attempts").counted()) " times, for the host, guests and reads; "
                    (t.get("failures").counted()) " without success; "
                    (t.get("bytes_written").bytes()) " written"
                } }
                div { dt { "Read in the period" } dd {
                    (t.get("reads").counted()) " times, " (t.get("reads_bad").counted()) " of them bad; "
                    (t.get("bytes_verified").bytes())
                } }
                div { dt { "Last verify" } dd { (or_never(&t.get("last_read"), read)) } }
                div { dt { "Last verify of all of it" } dd { (or_never(&t.get("last_whole_read"), read)) } }
                div { dt { "Last used" } dd { (or_never(&seen, |seen| seen.time())) } }
                div { dt { "Store" } dd { code { (t.get("store").show(t.get("store").text())) } } }
            }
            @if !damaged.is_null() {
                p { "Damage is known since " (damaged.time()) ", and no read of all of it since was good:" }
                (lines(&t.get("damage"), 8))
            }
        }
    }
}

fn retention(at: &At<'_>) -> Markup {
    let policy = |policy: At<'_>| -> Vec<Markup> {
        let keys = ["last", "hourly", "daily", "weekly", "monthly", "yearly"];
        keys.iter().map(|key| policy.get(key).counted()).collect()
    };
    let row = |name: &str, at: At<'_>| [vec![html! { (name) }], policy(at)].concat();
    html! {
        h3 { "What stays" }
        (table(
            "How many restore points the policy keeps on each target, as it is configured now",
            &["Of", "Last", "Hourly", "Daily", "Weekly", "Monthly", "Yearly"],
            vec![row("The host", at.get("host")), row("Each guest", at.get("guests"))],
        ))
        p {
            "What the policy does not keep is removed by a backup "
            @match at.get("automatic").text() {
                "always" => (at.get("automatic").show("after each run")),
                "never" => (at.get("automatic").show("never (only lifeboat prune does)")),
                _ => (at.get("automatic").show("when the target is full")),
            }
            "."
        }
    }
}

fn guests(at: &At<'_>) -> Markup {
    let all = at.get("guests");
    let row = |g: At<'_>| {
        let good = g.get("last_good");
        vec![
            html! {
                (guest_title(&g))
                @if !g.get("present").is_true() {
                    span .setting { (g.get("present").show("not saved any more")) }
                }
            },
            or_never(&good, |good| {
                html! { (good.get("at").time()) " on " (good.get("target").words()) }
            }),
            html! { @if good.is_null() { "–" } @else { (good.get("age_seconds").span()) } },
            html! {
                @if g.get("longest_seconds").is_null() { (g.get("longest_seconds").show("–")) }
                @else { (g.get("longest_seconds").span()) }
            },
            html! { (g.get("runs").counted()) ", " (g.get("failures").counted()) " failed" },
            g.get("bytes").bytes(),
            g.get("seconds").span(),
            html! {
                (badge(&g.get("verdict")))
                @if !g.get("last_error").is_null() { span .how { (g.get("last_error").words()) } }
            },
        ]
    };
    html! {
        section #guests {
            h2 { "Guests" }
            @if all.len() == 0 {
                p { "No run has tried to save guests." }
            } @else {
                (table(
                    "The last good dump of each guest, against the objective",
                    &["Guest", "Last good", "Age", "Longest without", "Runs", "Size", "Took", "Objective"],
                    all.items().take(GUESTS).map(row).collect(),
                ))
                (more(all.len(), GUESTS))
            }
        }
    }
}

fn verifications(at: &At<'_>) -> Markup {
    let all: Vec<At<'_>> = at.get("verifications").items().collect();
    let scope = |v: &At<'_>| match (v.get("whole").is_true(), v.get("snapshot").is_null()) {
        (true, _) => v.get("whole").show("all of it"),
        (false, false) => {
            let id = v.get("snapshot");
            html! { "restore point " code { (id.show(id.text().get(..8).unwrap_or(id.text()))) } }
        }
        (false, true) => v.get("whole").show("a part"),
    };
    let row = |v: &At<'_>| {
        vec![
            v.get("at").time(),
            v.get("target").words(),
            scope(v),
            v.get("bytes").bytes(),
            html! {
                (verdict(&v.get("good"), "good", "damaged", "not read"))
                @if !v.get("error").is_null() { span .how { (v.get("error").words()) } }
                (lines(&v.get("damage"), 6))
                (lines(&v.get("problems"), 6))
            },
        ]
    };
    html! {
        section #verifications {
            h2 { "Verification" }
            p {
                "What " code { "lifeboat verify" } " read again, from the media and not from memory. "
                "What was read back right after a backup is shown with its run."
            }
            @if all.is_empty() {
                p { "Nothing was read again in this period." }
            } @else {
                (table(
                    "The newest first",
                    &["When", "Target", "What", "Read", "Result"],
                    all.iter().rev().take(READS).map(row).collect(),
                ))
                (more(all.len(), READS))
            }
        }
    }
}

fn drills(at: &At<'_>) -> Markup {
    let drills = at.get("drills");
    let last = drills.get("last_good");
    let all: Vec<At<'_>> = drills.get("all").items().collect();
    let row = |d: &At<'_>| {
        vec![
            d.get("at").time(),
            verdict(&d.get("good"), "restored", "failed", ""),
            d.get("seconds").span(),
            html! {
                (d.get("guests").counted())
                @if !d.get("guests_seconds").is_null() { " in " (d.get("guests_seconds").span()) }
            },
            lines(&d.get("why"), 6),
        ]
    };
    html! {
        section #drills {
            h2 { "Drills" }
            p {
                @if drills.get("proven").is_true() {
                    (verdict(&drills.get("proven"), "proven", "", ""))
                    " The last restore that went well was tried on " (last.get("at").time()) ", and took "
                    (last.get("seconds").span()) "."
                } @else {
                    (verdict(&drills.get("proven"), "", "not proven", ""))
                    " No restore was tried with success, as far as history goes. That the backups can be restored in the "
                    "time that was promised is not shown by anything in this report."
                }
            }
            @if !all.is_empty() {
                (table(
                    "Restores that were tried in this period, the newest first",
                    &["When", "Result", "Took", "Guests", "Why"],
                    all.iter().rev().take(DRILLS).map(row).collect(),
                ))
                (more(all.len(), DRILLS))
            }
        }
    }
}
