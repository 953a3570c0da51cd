//! `lifeboat find`

use std::os::unix::ffi::OsStrExt;

use bundle::document::HostIdentity;
use bundle::find::{Version, find};
use bundle::pattern::Pattern;
use serde::Serialize;

use crate::cli::FindArgs;
use crate::output::{Outcome, Usage, table};
use crate::progress::{Progress, printable};
use crate::targets::{chosen, reading};
use crate::{Context, listing, values};

#[derive(Serialize)]
struct Results {
    snapshots: u64,
    found: Vec<Hit>,
    lost: Vec<String>,
}

#[derive(Serialize)]
struct Hit {
    host: HostIdentity,
    /// `CT 200`, where it is a guest's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    guest: Option<String>,
    path: String,
    versions: Vec<Version>,
}

/// Finds files by name or pattern in all restore points.
pub fn run(context: &Context, args: &FindArgs) -> anyhow::Result<Outcome> {
    let targets = chosen(&args.from.from, &context.config, "--from")?;
    let pattern = Pattern::new(args.pattern.as_bytes()).map_err(|e| Usage(e.to_string()))?;
    let progress = Progress::new(true);
    reading(&targets, |sources| {
        let snapshots = sources.all_snapshots()?;
        let search = find(&sources.readers(), &snapshots, &pattern, &progress)?;
        for lost in &search.lost {
            eprintln!("warning: {lost}");
        }
        let complete = search.lost.is_empty() && sources.failed.is_empty();
        let results = Results {
            snapshots: search.snapshots,
            lost: search.lost,
            found: search
                .found
                .into_iter()
                .map(|f| Hit {
                    host: f.host,
                    guest: f.guest.map(|(kind, id)| format!("{kind} {id}")),
                    path: f.path.to_string_lossy().into_owned(),
                    versions: f.versions,
                })
                .collect(),
        };
        context.out.result(&results, || text(&results, args))?;
        Ok(match complete {
            false => Outcome::Warnings,
            true if results.found.is_empty() => Outcome::Failed,
            true => Outcome::Fine,
        })
    })
}

fn text(results: &Results, args: &FindArgs) -> String {
    let points = values::plural(results.snapshots, "restore point", "restore points");
    if results.found.is_empty() {
        return format!("nothing fits {} in {points}\n", args.pattern);
    }
    let mut hosts: Vec<&str> = results
        .found
        .iter()
        .map(|h| h.host.machine_id.as_str())
        .collect();
    hosts.dedup();
    let mut out = String::new();
    for hit in &results.found {
        // The host is named where it is not always the same.
        if hosts.len() > 1 {
            out.push_str(&format!("{}: ", hit.host.hostname));
        }
        if let Some(guest) = &hit.guest {
            out.push_str(&format!("{guest}: "));
        }
        out.push_str(&format!("{}\n", printable(hit.path.as_bytes())));
        let rows: Vec<Vec<String>> = hit.versions.iter().map(row).collect();
        let lines = table(
            &["", ">size", "mode", "changed", "in restore points"],
            &rows,
        );
        // The headings would be repeated for each path; the help and the guide explain the columns.
        for line in lines.lines().skip(1) {
            out.push_str(&format!("{line}\n"));
        }
    }
    out.push_str(&format!("searched {points}\n"));
    out
}

fn row(version: &Version) -> Vec<String> {
    let (first, last) = (&version.first, &version.last);
    let shown = |p: &bundle::find::Point| {
        let time = p.time.get(..19).unwrap_or(&p.time).replace('T', " ");
        format!("{} ({time})", p.id.short())
    };
    let points = match version.snapshots {
        1 => shown(first),
        n => format!("{} to {}: {n}", shown(first), shown(last)),
    };
    let target = version
        .entry
        .target
        .as_ref()
        .map(|t| format!("  -> {}", printable(t.as_os_str().as_bytes())));
    vec![
        " ".into(),
        values::bytes(version.entry.size),
        listing::bits(version.entry.mode),
        values::rfc3339(version.entry.mtime.0),
        points + &target.unwrap_or_default(),
    ]
}
