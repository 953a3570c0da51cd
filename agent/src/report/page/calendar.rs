//! Every day of the period as in a calendar on the wall, and the times without a restore point.

use maud::{Markup, html};

use super::at::At;
use super::table;

/// Days that are shown; of a longer period, the last ones.
const DAYS: usize = 400;
/// Gaps that are shown, the newest.
const GAPS: usize = 50;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// How a day is shown: class, sign and words.
fn look(state: &str) -> (&'static str, &'static str, &'static str) {
    match state {
        "good" => ("ok", "✓", "a new good restore point"),
        "warnings" => (
            "warn",
            "!",
            "a new good restore point, and something that went wrong",
        ),
        "failed" => ("bad", "✕", "tried, and no new good restore point"),
        "none" => ("none", "–", "no backup of the host"),
        "before" => ("before", "", "before the first document of history"),
        _ => ("before", "", "still to come"),
    }
}

pub fn section(at: &At<'_>) -> Markup {
    let days: Vec<At<'_>> = at.get("days").items().collect();
    let shown = &days[days.len().saturating_sub(DAYS)..];
    let months = shown.chunk_by(|a, b| month(a) == month(b));
    html! {
        section #days {
            h2 { "Day by day" }
            ul .legend {
                @for state in ["good", "warnings", "failed", "none"] {
                    @let (class, sign, words) = look(state);
                    li { span class=(format!("day {class}")) aria-hidden="true" { (sign) } (words) }
                }
            }
            @if shown.len() < days.len() {
                p .meta { "The last " (shown.len()) " of " (days.len()) " days; the others are in the data." }
            }
            div .calendar {
                @for days in months { (of_month(days)) }
            }
            (gaps(&at.get("gaps")))
        }
    }
}

fn month<'a>(day: &At<'a>) -> &'a str {
    let date: &'a str = day.get("date").text();
    date.get(..7).unwrap_or(date)
}

fn of_month(days: &[At<'_>]) -> Markup {
    let Some(first) = days.first().map(|day| day.get("date")) else {
        return Markup::default();
    };
    let date: Option<jiff::civil::Date> = first.text().parse().ok();
    let name = date.map(|d| {
        let nth = usize::try_from(d.month() - 1).unwrap_or_default();
        format!("{} {}", MONTHS.get(nth).unwrap_or(&""), d.year())
    });
    let column = date.map_or(1, |d| d.weekday().to_monday_one_offset());
    html! {
        div .month {
            h3 { (first.show(name.unwrap_or_default())) }
            ol .weekdays aria-hidden="true" {
                @for day in ["M", "T", "W", "T", "F", "S", "S"] { li { (day) } }
            }
            ol .month-days {
                @for (nth, day) in days.iter().enumerate() {
                    @let place = if nth == 0 { format!(" col{column}") } else { String::new() };
                    (of_day(day, &place))
                }
            }
        }
    }
}

fn of_day(day: &At<'_>, more: &str) -> Markup {
    let state = day.get("state");
    let (class, sign, words) = look(state.text());
    let date = day.get("date").text();
    let runs = day.get("runs").count();
    html! {
        li class=(format!("day {class}{more}")) title=(format!("{date}: {words}; runs: {runs}")) {
            (day.get("date").show(date.get(8..).unwrap_or_default().trim_start_matches('0')))
            (state.show(html! {
                span aria-hidden="true" { (sign) }
                span .unseen { " " (words) }
            }))
        }
    }
}

fn gaps(gaps: &At<'_>) -> Markup {
    let all: Vec<At<'_>> = gaps.items().collect();
    let row = |gap: &At<'_>| {
        vec![
            gap.get("from").time(),
            html! {
                @if gap.get("to").is_null() { (gap.get("to").show("none yet")) } @else { (gap.get("to").time()) }
            },
            gap.get("seconds").span(),
            gap.get("failed_runs").counted(),
        ]
    };
    html! {
        h3 { "Gaps" }
        @if all.is_empty() {
            p { "The host was never without a new good restore point for longer than its objective (and a tenth) allows." }
        } @else {
            (table(
                "Times without a new good restore point that were longer than the objective (and a tenth) allows",
                &["As of the last good one", "Next good one complete", "Length", "Failed attempts"],
                all.iter().rev().take(GAPS).map(row).collect(),
            ))
            @if all.len() > GAPS { p .meta { "The newest " (GAPS) " of " (all.len()) "; all are in the data." } }
        }
    }
}
