//! The page: one file with all that it needs, and without a script. It works without a network, in print, in the dark and
//! on a phone. It shows the data of the report and nothing else: what is a figure carries its address in them
//! (`data-json`, a JSON pointer of RFC 6901) and the value that it was made of.

mod at;
mod calendar;
mod overview;
mod plot;
mod runs;
mod scale;
mod subjects;
mod trends;

use std::path::Path;

use base64::Engine as _;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use at::At;

/// So many bytes of data are put into the page itself; more of them go beside it.
pub const EMBEDDED: usize = 2 << 20;

const STYLE: &str = include_str!("report.css");

/// Where the data of a page are.
pub enum Data<'a> {
    /// In the page itself.
    Embedded(&'a str),
    /// In a file beside it.
    Beside { file: &'a Path, sha256: String },
    /// They were not written.
    Elsewhere,
}

/// The page.
pub fn render(report: &Value, data: &Data<'_>) -> String {
    let at = At::whole(report);
    let host = at.get("host").get("name");
    let period = at.get("period");
    let title = format!(
        "Backups of {}, {} to {}",
        host.text(),
        period.get("since").text(),
        period.get("until").text()
    );
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                meta name="generator" content=(at.get("program").text());
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(&at))
                main {
                    (overview::sections(&at))
                    (calendar::section(&at))
                    (trends::section(&at))
                    (subjects::sections(&at))
                    (runs::section(&at))
                    (foot(&at, data))
                }
                @if let Data::Embedded(json) = data {
                    script type="application/json" id="report-data" { (PreEscaped(quoted(json))) }
                }
            }
        }
    }
    .into_string()
}

/// Nothing may be loaded, run, sent or framed; of styles, only the page's own.
fn policy() -> String {
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
}

/// JSON that cannot end the element it stands in.
fn quoted(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

fn head(at: &At<'_>) -> Markup {
    let period = at.get("period");
    let zone = period.get("time_zone");
    html! {
        header {
            p .kind { "Lifeboat backup report" }
            h1 { (at.get("host").get("name").words()) }
            p .period {
                (period.get("since").words()) " to " (period.get("until").words()) ", "
                (period.get("days").counted()) @if period.get("days").count() == 1 { " day" } @else { " days" }
                @if !period.get("over").is_true() {
                    ", of which the last is not over"
                }
            }
            dl .facts {
                div { dt { "Ages as of" } dd { (period.get("as_of").time()) } }
                div {
                    dt { "Times" }
                    dd {
                        "local time, "
                        @if zone.is_null() { (zone.show("time zone without a name")) } @else { (zone.words()) }
                        " (" (offset(&period.get("start"))) " to " (offset(&period.get("as_of"))) ")"
                    }
                }
                div { dt { "Made" } dd { (at.get("generated").time()) " by " (at.get("program").words()) } }
                div { dt { "Machine" } dd { code { (at.get("host").get("machine_id").words()) } } }
            }
        }
    }
}

/// The distance of a time to UTC.
fn offset(time: &At<'_>) -> Markup {
    let text = time.text().get(19..).unwrap_or_default();
    html! { time datetime=(time.raw()) data-json=(time.pointer()) { "UTC" (text) } }
}

fn foot(at: &At<'_>, data: &Data<'_>) -> Markup {
    let history = at.get("history");
    html! {
        section #evidence {
            h2 { "Where this comes from" }
            p {
                "Made of " (history.get("documents").counted())
                " documents of runs on the host itself, the first of "
                @if history.get("first_run").is_null() { (history.get("first_run").unknown()) }
                @else { (history.get("first_run").time()) }
                "; " (history.get("unreadable").counted()) " more could not be read. "
                "The targets themselves were not asked. "
                "What is not known is said to be so; no figure is estimated."
            }
            p {
                "Every figure carries the address of its value in the report's data ("
                code { "data-json" } ", a JSON pointer of RFC 6901). "
                @match data {
                    Data::Embedded(_) => {
                        "The data are in this file: the element " code { "report-data" } " at its end."
                    }
                    Data::Beside { file, sha256 } => {
                        "The data are in the file "
                        code { (file.file_name().map(|n| n.to_string_lossy()).unwrap_or_default()) }
                        ", SHA-256 " code .hash { (sha256) } "."
                    }
                    Data::Elsewhere => {
                        "There are too many for this file: "
                        code {
                            "lifeboat report --since " (at.get("period").get("since").text())
                            " --until " (at.get("period").get("until").text()) " --format json"
                        }
                        " writes them."
                    }
                }
            }
        }
    }
}

/// A word for a state, with a sign for those who see no colours.
fn badge(at: &At<'_>) -> Markup {
    let (class, sign, word) = match at.text() {
        "fine" => ("ok", "✓", "fine"),
        "met" => ("ok", "✓", "met"),
        "good" => ("ok", "✓", "good"),
        "warning" => ("warn", "!", "warning"),
        "warnings" => ("warn", "!", "warnings"),
        "critical" => ("bad", "✕", "critical"),
        "failed" => ("bad", "✕", "failed"),
        "missed" => ("bad", "✕", "missed"),
        "died" => ("bad", "✕", "killed"),
        "running" => ("open", "…", "running"),
        "not-measured" => ("open", "?", "not measured"),
        "not-applicable" => ("open", "–", "does not apply"),
        "unknown" => ("open", "?", "not known"),
        other => ("open", "", other),
    };
    sign_of(at, class, sign, word)
}

fn sign_of(at: &At<'_>, class: &str, sign: &str, word: &str) -> Markup {
    html! {
        data class=(format!("badge {class}")) value=(at.raw()) data-json=(at.pointer()) {
            span aria-hidden="true" { (sign) } " " (word)
        }
    }
}

/// Good or bad, or not known.
fn verdict(at: &At<'_>, good: &str, bad: &str, none: &str) -> Markup {
    match at.raw().as_str() {
        "true" => sign_of(at, "ok", "✓", good),
        "false" => sign_of(at, "bad", "✕", bad),
        _ => sign_of(at, "open", "–", none),
    }
}

/// A table whose rows become cards where there is no room for columns.
fn table(caption: &str, headings: &[&str], rows: Vec<Vec<Markup>>) -> Markup {
    html! {
        div .scroll {
            table .cards {
                caption { (caption) }
                thead { tr { @for heading in headings { th scope="col" { (heading) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (nth, cell) in row.into_iter().enumerate() {
                                @let heading = headings.get(nth).copied().unwrap_or_default();
                                @if nth == 0 {
                                    th scope="row" { (cell) }
                                } @else {
                                    td { span .label aria-hidden="true" { (heading) } div { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Texts below each other; of many, the first ones.
fn lines(at: &At<'_>, most: usize) -> Markup {
    html! {
        @if at.len() > 0 {
            ul .lines {
                @for line in at.items().take(most) { li { (line.words()) } }
                @if at.len() > most {
                    li .meta { "and " (at.len() - most) " more, in the data" }
                }
            }
        }
    }
}

/// `VM 100 (web)`
fn guest_title(at: &At<'_>) -> Markup {
    let kind = match at.get("kind").text() {
        "qemu" => "VM",
        "lxc" => "CT",
        other => other,
    };
    html! {
        (at.get("kind").show(kind)) " " (at.get("id").name())
        @if !at.get("name").is_null() { " (" (at.get("name").words()) ")" }
    }
}
