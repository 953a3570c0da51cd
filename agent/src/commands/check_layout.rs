//! `lifeboat check-layout`

use anyhow::Context as _;
use bundle::Id;
use layout::diff::Difference;
use layout::drift::{drift, name};
use layout::model::Layout;
use serde::Serialize;

use crate::cli::CheckLayoutArgs;
use crate::output::Outcome;
use crate::targets::reading;
use crate::{Context, facts, last_layout};

/// It is not known whether the layout has changed.
const UNKNOWN: u8 = 3;

#[derive(Serialize)]
struct Report {
    /// The restore point that was compared with.
    snapshot: Id,
    /// When that was made.
    time: String,
    /// There is a difference that is not accepted.
    drifted: bool,
    /// All of them; what a restore does not depend on is accepted.
    differences: Vec<Difference>,
    #[serde(skip)]
    names: Vec<String>,
}

/// Compares the layout of this host with the one that was saved last.
pub fn run(context: &Context, args: &CheckLayoutArgs) -> anyhow::Result<Outcome> {
    match compare(context, args) {
        Ok(report) => {
            context.out.result(&report, || text(&report))?;
            Ok(match report.drifted {
                true => Outcome::Failed,
                false => Outcome::Fine,
            })
        }
        Err(error) => {
            eprintln!("lifeboat: {error:#}");
            Ok(Outcome::Own(UNKNOWN))
        }
    }
}

fn compare(context: &Context, args: &CheckLayoutArgs) -> anyhow::Result<Report> {
    let (snapshot, time, saved) = match args.from.from.as_slice() {
        [] => {
            let saved = last_layout::read(&context.config.state)?.context(
                "this host has kept no layout yet, which a backup of it does: make one, or name a target that has one with --from",
            )?;
            (saved.snapshot, saved.time, saved.layout)
        }
        targets => newest(context, targets)?,
    };
    let mut now =
        layout::capture::capture(&context.sys).context("cannot capture the layout of this host")?;
    super::backup::without_own_mounts(&mut now);
    let differences = drift(&saved, &now);
    let layouts = [&saved, &now];
    Ok(Report {
        snapshot,
        time,
        drifted: differences.iter().any(|d| !d.accepted),
        names: differences.iter().map(|d| name(&d.node, layouts)).collect(),
        differences,
    })
}

/// The newest restore point of this host that has a layout.
fn newest(
    context: &Context,
    targets: &[std::path::PathBuf],
) -> anyhow::Result<(Id, String, Layout)> {
    let host = facts::identity(&context.sys);
    reading(targets, |sources| {
        let all = sources.all_snapshots()?;
        let own = all.into_iter().rev().find(|(_, snapshot)| {
            snapshot.host.machine_id == host.machine_id && !snapshot.layout.is_null()
        });
        let (id, snapshot) = own.context("no target holds a restore point of this host")?;
        let layout = super::layout::saved(&snapshot)?;
        Ok((id, snapshot.time, layout))
    })
}

fn text(report: &Report) -> String {
    let since = format!(
        "since restore point {} of {}",
        report.snapshot.short(),
        bundle::time::shown(&report.time)
    );
    let mut out = match report.drifted {
        false => format!("The layout has not changed {since}.\n"),
        true => format!("The layout has changed {since}:\n"),
    };
    let printable = |text: &str| crate::progress::printable(text.as_bytes());
    for (difference, name) in report.differences.iter().zip(&report.names) {
        if difference.accepted {
            continue;
        }
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        let line = match (difference.what.as_str(), &difference.saved, &difference.now) {
            ("*", Some(kind), _) => format!("{name}: this {} is gone", kind.replace('_', " ")),
            ("*", None, Some(kind)) => format!("{name}: this {} is new", kind.replace('_', " ")),
            (what, saved, now) => format!(
                "{name}: {}: was {}, is {}",
                what.replace('_', " "),
                value(saved),
                value(now)
            ),
        };
        out.push_str(&format!("  {}\n", printable(&line)));
    }
    if report.drifted {
        out.push_str("A restore would make the earlier one. What to do: `lifeboat backup`\n");
    }
    out
}
