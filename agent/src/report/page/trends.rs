//! Plots of what changed in the period, and their figures in a table.

use maud::{Markup, html};

use super::at::At;
use super::plot::{Form, Plot, Series, Unit};
use super::table;

/// So many targets are told apart in a plot.
const TARGETS: usize = 6;
const COLOURS: [&str; TARGETS] = ["s0", "s1", "s2", "s3", "s4", "s5"];

pub fn section(at: &At<'_>) -> Markup {
    let trend = at.get("trend");
    let buckets: Vec<At<'_>> = trend.get("buckets").items().collect();
    let step = trend.get("step");
    let steps: Vec<String> = buckets.iter().map(|b| name(b, step.text())).collect();
    let plots = plots(at, &buckets, &steps, step.text());
    html! {
        section #trends {
            h2 { "Trends" }
            p { "By " (step.words()) ". The figures are in the table below the plots." }
            div .plots {
                @for plot in &plots { (plot.draw()) }
            }
            (figures(&buckets))
        }
    }
}

/// What a step is called.
fn name(bucket: &At<'_>, step: &str) -> String {
    let start = bucket.get("start");
    let text = start.text();
    let part = match step {
        "hour" => text.get(5..16),
        "month" => text.get(..7),
        _ => text.get(..10),
    };
    part.unwrap_or(text).replace('T', " ")
}

fn plots<'a>(at: &At<'a>, buckets: &[At<'a>], steps: &[String], step: &str) -> Vec<Plot<'a>> {
    let series = |name: &str, key: &str, form, class| Series {
        name: name.to_owned(),
        form,
        class,
        values: buckets.iter().map(|bucket| bucket.get(key)).collect(),
    };
    let per = |text: &str| format!("{text} per {step}");
    let targets: Vec<At<'a>> = at.get("targets").items().collect();
    let of_targets = |key: &str| -> Vec<Series<'a>> {
        let each = targets.iter().zip(COLOURS);
        each.map(|(target, class)| Series {
            name: target.get("name").text().to_owned(),
            form: Form::Line,
            class,
            values: target.get("trend").items().map(|p| p.get(key)).collect(),
        })
        .collect()
    };
    let more = match targets.len().saturating_sub(TARGETS) {
        0 => String::new(),
        more => format!("; {more} more targets are in the data"),
    };
    let plot = |id, title, about: String, unit, series| Plot {
        id,
        title,
        about,
        unit,
        series,
        steps: steps.to_vec(),
    };
    vec![
        plot(
            "runs",
            "Runs",
            per("by how they ended,"),
            Unit::Count,
            vec![
                series("fine", "fine", Form::Bars, "ok"),
                series("with warnings", "warnings", Form::Bars, "warn"),
                series("failed or killed", "failed", Form::Bars, "bad"),
            ],
        ),
        plot(
            "durations",
            "Duration of backups of the host",
            per("longest and median"),
            Unit::Seconds,
            vec![
                series("longest", "backup_seconds_longest", Form::Bars, "s0"),
                series("median", "backup_seconds_median", Form::Points, "s3"),
            ],
        ),
        plot(
            "written",
            "Written to targets",
            per("all targets, guests included,"),
            Unit::Bytes,
            vec![series("written", "bytes_written", Form::Bars, "s0")],
        ),
        plot(
            "host",
            "Size of the host",
            format!("what its files hold, by the last backup of each {step}"),
            Unit::Bytes,
            vec![series("files of the host", "host_bytes", Form::Line, "s0")],
        ),
        plot(
            "verified",
            "Read for verification",
            per("after backups and by verify,"),
            Unit::Bytes,
            vec![series("read", "bytes_verified", Form::Bars, "s2")],
        ),
        plot(
            "room",
            "Free room on targets",
            format!("in percent, when they were last seen in each {step}{more}"),
            Unit::Percent,
            of_targets("free_percent"),
        ),
        plot(
            "points",
            "Restore points of this host on targets",
            format!("when they were last seen in each {step}{more}"),
            Unit::Count,
            of_targets("restore_points"),
        ),
    ]
}

fn known<'a>(at: &At<'a>, shown: impl Fn(&At<'a>) -> Markup) -> Markup {
    match at.is_null() {
        true => at.show("–"),
        false => shown(at),
    }
}

fn figures(buckets: &[At<'_>]) -> Markup {
    let row = |b: &At<'_>| {
        vec![
            b.get("start").time(),
            b.get("runs").counted(),
            b.get("fine").counted(),
            b.get("warnings").counted(),
            b.get("failed").counted(),
            known(&b.get("backup_seconds_median"), |at| at.span()),
            known(&b.get("backup_seconds_longest"), |at| at.span()),
            known(&b.get("host_bytes"), |at| at.bytes()),
            b.get("bytes_read").bytes(),
            b.get("bytes_written").bytes(),
            b.get("bytes_verified").bytes(),
        ]
    };
    html! {
        details {
            summary { "The figures of the plots" }
            (table(
                "Step by step",
                &[
                    "From", "Runs", "Fine", "Warnings", "Failed", "Median", "Longest", "Host", "Read", "Written",
                    "Verified",
                ],
                buckets.iter().map(row).collect(),
            ))
        }
    }
}
