//! `lifeboat verify`

use anyhow::Context as _;
use bundle::verify::{VerifyOptions, VerifyReport, verify, write_report};
use serde::Serialize;

use crate::cli::VerifyArgs;
use crate::output::Outcome;
use crate::progress::Progress;
use crate::targets::{Access, Opened, chosen, close_all};
use crate::{Context, values};

/// How many files a damage is shown with; the report and JSON have them all.
const FILES: usize = 20;

#[derive(Serialize)]
struct Verdict {
    target: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Where the report was stored; nothing when the target is read-only.
    stored: Option<String>,
    #[serde(flatten)]
    report: Option<VerifyReport>,
}

/// Verifies targets, one after the other.
pub fn run(context: &Context, args: &VerifyArgs) -> anyhow::Result<Outcome> {
    let paths = chosen(&args.from.from, &context.config, "--from")?;
    let progress = Progress::new(context.out.quiet);
    let mut verdicts = Vec::new();
    for path in &paths {
        let verdict = one(context, args, path, &progress);
        crate::signals::check()?;
        verdicts.push(verdict.unwrap_or_else(|error| Verdict {
            target: path.display().to_string(),
            ok: false,
            error: Some(format!("{error:#}")),
            stored: None,
            report: None,
        }));
    }
    progress.finish();
    if let [
        Verdict {
            error: Some(error), ..
        },
    ] = &verdicts[..]
    {
        if !context.out.json {
            anyhow::bail!("{error}");
        }
    }
    context
        .out
        .summary(&verdicts, || verdicts.iter().map(text).collect())?;
    // With --quiet, damage is still said.
    if context.out.quiet && !context.out.json {
        for v in verdicts.iter().filter(|v| !v.ok) {
            eprint!("{}", text(v));
        }
    }
    Ok(if verdicts.iter().all(|v| v.ok) {
        Outcome::Fine
    } else {
        Outcome::Failed
    })
}

fn one(
    context: &Context,
    args: &VerifyArgs,
    path: &std::path::Path,
    progress: &Progress,
) -> anyhow::Result<Verdict> {
    let target = Opened::open(path, Access::Read)?;
    let result = (|| {
        let store = target.reader()?;
        let options = VerifyOptions {
            snapshot: args.snapshot.clone(),
            cold: true,
            workers: context.config.workers,
        };
        let report = verify(&store, &options, progress)
            .with_context(|| format!("cannot verify {}", path.display()))?;
        let stored = match write_report(&store, &report) {
            Ok(file) => Some(file.display().to_string()),
            Err(error) => {
                tracing::info!("the report is not stored: {error}");
                None
            }
        };
        Ok((report, stored))
    })();
    let is_stick = target.stick.is_some();
    let (report, mut stored) = close_all(vec![target], result)?;
    if is_stick && stored.is_none() {
        stored = store_on_stick(path, &report);
    }
    Ok(Verdict {
        target: path.display().to_string(),
        ok: report.ok(),
        error: None,
        stored,
        report: Some(report),
    })
}

/// A stick was mounted read-only for reading. The verdict goes beside the snapshots, unless it is write-protected.
fn store_on_stick(path: &std::path::Path, report: &VerifyReport) -> Option<String> {
    let result = Opened::open(path, Access::Write).and_then(|target| {
        let stored = target
            .reader()
            .and_then(|store| Ok(write_report(&store, report)?));
        close_all(vec![target], stored)
    });
    match result {
        // The mount is gone again: the name on the stick says more.
        Ok(file) => Some(format!("reports/{}", file.file_name()?.to_string_lossy())),
        Err(error) => {
            tracing::info!("the report is not stored: {error:#}");
            None
        }
    }
}

fn text(v: &Verdict) -> String {
    let mut out = String::new();
    if let Some(error) = &v.error {
        return format!("{}: {error}\n", v.target);
    }
    let Some(report) = &v.report else { return out };
    let what = format!(
        "{} of {} in {} read{}",
        values::bytes(report.bytes),
        values::plural(
            report.snapshots.len() as u64,
            "restore point",
            "restore points"
        ),
        values::plural(report.packs, "pack", "packs"),
        if report.cold { " from the medium" } else { "" }
    );
    if v.ok {
        out.push_str(&format!("{}: good ({what})\n", v.target));
    } else {
        out.push_str(&format!("{}: DAMAGED ({what})\n", v.target));
    }
    out.push_str(&damages(report));
    for note in &report.notes {
        out.push_str(&format!("  note: {note}\n"));
    }
    out
}

/// Every damage with the files that it affects.
pub fn damages(report: &VerifyReport) -> String {
    let mut out = String::new();
    for d in &report.damaged {
        out.push_str(&format!("  {}: {}\n", d.file, d.reason));
        if !d.snapshots.is_empty() {
            let ids: Vec<_> = d.snapshots.iter().map(bundle::Id::short).collect();
            out.push_str(&format!("    restore points: {}\n", ids.join(" ")));
        }
        for file in d.files.iter().take(FILES) {
            out.push_str(&format!(
                "    affects {}\n",
                crate::progress::printable(file.as_bytes())
            ));
        }
        if d.files.len() > FILES {
            let more = values::plural((d.files.len() - FILES) as u64, "more file", "more files");
            out.push_str(&format!("    and {more} (all of them with --json)\n"));
        }
    }
    if !report.damaged.is_empty() {
        out.push_str(
            "  What to do: make a new restore point on another target, and replace this medium.\n",
        );
    }
    out
}
