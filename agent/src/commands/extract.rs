//! `lifeboat extract`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bundle::document::{Snapshot, Tree};
use bundle::extract::{ExtractOptions, ExtractReport, FileProblem, Selection, extract, to_tar};
use serde::Serialize;

use crate::cli::ExtractArgs;
use crate::output::{Outcome, Output};
use crate::progress::{Progress, printable};
use crate::targets::{Sources, chosen, reading};
use crate::{Context, paths, values};

/// How many problems are named; JSON has them all.
const PROBLEMS: usize = 20;

#[derive(Serialize)]
struct Done {
    snapshot: bundle::Id,
    destination: String,
    complete: bool,
    #[serde(flatten)]
    report: ExtractReport,
}

/// Copies files out of a restore point.
pub fn run(context: &Context, args: &ExtractArgs) -> anyhow::Result<Outcome> {
    let targets = chosen(&args.from.from, &context.config, "--from")?;
    let named = args
        .paths
        .iter()
        .map(|p| paths::pattern(p))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let progress = Progress::new(context.out.quiet);
    reading(&targets, |sources| {
        let (id, snapshot) = sources.snapshot(&args.snapshot)?;
        let wanted = expand(sources, &snapshot, &named)?;
        if let Some(path) = paths::outside(&snapshot.trees, &wanted).first() {
            let trees: Vec<_> = snapshot
                .trees
                .iter()
                .map(|t| t.mount_point.as_str())
                .collect();
            bail!(
                "the restore point holds nothing at {}: it holds {}",
                path.display(),
                trees.join(", ")
            );
        }
        let selected = paths::select(&snapshot.trees, &wanted);
        let (destination, report) = match (&args.to, &args.tar) {
            (Some(dir), _) => (
                dir.display().to_string(),
                into_directory(context, sources, &snapshot, &selected, dir, &progress)?,
            ),
            (None, Some(file)) => (
                file.display().to_string(),
                into_tar(sources, &snapshot, &selected, file, &progress)?,
            ),
            (None, None) => bail!("give --to DIR or --tar FILE"),
        };
        progress.finish();
        let done = Done {
            snapshot: id,
            destination,
            complete: report.complete(),
            report,
        };
        // With --tar - standard output is the archive: what is to be said goes to standard error.
        let to_stdout = args.tar.as_deref() == Some(Path::new("-"));
        say(&context.out, &done, to_stdout)?;
        Ok(if !done.complete || !done.report.doubtful.is_empty() {
            Outcome::Warnings
        } else {
            Outcome::Fine
        })
    })
}

/// Paths for the patterns; one that fits nothing is an error, as nothing would look like success.
fn expand(
    sources: &Sources,
    snapshot: &Snapshot,
    named: &[PathBuf],
) -> anyhow::Result<Vec<PathBuf>> {
    let (patterns, mut wanted): (Vec<PathBuf>, Vec<PathBuf>) =
        named.iter().cloned().partition(|p| paths::is_wild(p));
    if !patterns.is_empty() {
        let (found, nothing) =
            bundle::list::matching(&sources.readers(), &snapshot.trees, &patterns)?;
        if !nothing.is_empty() {
            let nothing: Vec<_> = nothing.iter().map(|p| p.display().to_string()).collect();
            bail!(
                "nothing in the restore point fits {}; `lifeboat find` looks in the others",
                nothing.join(", ")
            );
        }
        wanted.extend(found);
    }
    Ok(wanted)
}

fn into_directory(
    context: &Context,
    sources: &Sources,
    snapshot: &Snapshot,
    selected: &[(&Tree, Selection)],
    dir: &Path,
    progress: &Progress,
) -> anyhow::Result<ExtractReport> {
    let mut options = ExtractOptions::default();
    if context.config.max_workers > 0 {
        options.workers = context.config.max_workers;
    }
    let readers = sources.readers();
    let mut sum = ExtractReport::default();
    for (tree, selection) in selected {
        let dest = dir.join(tree.mount_point.trim_start_matches('/'));
        std::fs::create_dir_all(&dest)
            .with_context(|| format!("cannot make the directory {}", dest.display()))?;
        let report = extract(
            &readers, snapshot, tree, selection, &dest, &options, progress,
        )
        .with_context(|| format!("cannot extract {} to {}", tree.mount_point, dest.display()))?;
        add(&mut sum, report, Path::new(&tree.mount_point));
        crate::signals::check()?;
    }
    Ok(sum)
}

fn into_tar(
    sources: &Sources,
    snapshot: &Snapshot,
    selected: &[(&Tree, Selection)],
    file: &Path,
    progress: &Progress,
) -> anyhow::Result<ExtractReport> {
    let [(tree, selection)] = selected else {
        let trees: Vec<_> = selected
            .iter()
            .map(|(t, _)| t.mount_point.as_str())
            .collect();
        bail!(
            "this would take several trees ({}), and one archive holds one: name paths of one of them, or use --to",
            trees.join(", ")
        );
    };
    let readers = sources.readers();
    let mut sum = ExtractReport::default();
    let mut write = |out: &mut dyn Write| -> anyhow::Result<()> {
        let report = to_tar(&readers, snapshot, tree, selection, out, progress)
            .with_context(|| format!("cannot write {} as a tar archive", tree.mount_point))?;
        out.flush().context("cannot write the tar archive")?;
        add(&mut sum, report, Path::new(&tree.mount_point));
        Ok(())
    };
    if file == Path::new("-") {
        write(&mut BufWriter::new(std::io::stdout().lock()))?;
    } else {
        let out = File::create(file).with_context(|| format!("cannot make {}", file.display()))?;
        let mut out = BufWriter::new(out);
        write(&mut out)?;
        out.get_ref()
            .sync_all()
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(sum)
}

/// Adds a tree's report, with paths as they are on the host.
fn add(sum: &mut ExtractReport, report: ExtractReport, mount_point: &Path) {
    let on_host = |problems: Vec<FileProblem>| {
        problems
            .into_iter()
            .map(|p| FileProblem {
                path: mount_point.join(&p.path),
                reason: p.reason,
            })
            .collect::<Vec<_>>()
    };
    sum.entries += report.entries;
    sum.bytes += report.bytes;
    sum.healed += report.healed;
    sum.missing.extend(on_host(report.missing));
    sum.incomplete_metadata
        .extend(on_host(report.incomplete_metadata));
    sum.doubtful.extend(on_host(report.doubtful));
    let not_found: Vec<PathBuf> = report
        .not_found
        .iter()
        .map(|p| mount_point.join(p))
        .collect();
    sum.not_found.extend(not_found);
}

fn say(out: &Output, done: &Done, to_stderr: bool) -> anyhow::Result<()> {
    let r = &done.report;
    let mut problems = String::new();
    for (what, list) in [
        ("missing", &r.missing),
        ("without some of its metadata", &r.incomplete_metadata),
        ("doubtful", &r.doubtful),
    ] {
        for p in list.iter().take(PROBLEMS) {
            use std::os::unix::ffi::OsStrExt;
            problems.push_str(&format!(
                "  {what}: {}: {}\n",
                printable(p.path.as_os_str().as_bytes()),
                p.reason
            ));
        }
        if list.len() > PROBLEMS {
            problems.push_str(&format!("  {what}: {} more\n", list.len() - PROBLEMS));
        }
    }
    for path in &r.not_found {
        problems.push_str(&format!("  not in the restore point: {}\n", path.display()));
    }
    let healed = match r.healed {
        0 => String::new(),
        n => format!(
            ", {} damaged on one target and taken from another",
            values::plural(n, "blob", "blobs")
        ),
    };
    let text = format!(
        "{}, {} to {}{healed}\n{problems}",
        values::plural(r.entries, "entry", "entries"),
        values::bytes(r.bytes),
        done.destination
    );
    if to_stderr {
        if out.json {
            eprintln!("{}", serde_json::to_string_pretty(done)?);
        } else if !out.quiet || !problems.is_empty() {
            eprint!("{text}");
        }
        return Ok(());
    }
    if out.quiet && !out.json && !problems.is_empty() {
        eprint!("{text}");
    }
    out.summary(done, || text)
}
