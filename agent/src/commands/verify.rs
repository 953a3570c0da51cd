//! `lifeboat verify`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::heal::{Healed, heal};
use bundle::store::Store;
use bundle::verify::{Damage, Scope, VerifyOptions, VerifyReport, verify, write_report};
use serde::Serialize;

use crate::cli::VerifyArgs;
use crate::history::{Kind, Recorder, Run, Space, TargetRun, Trigger};
use crate::output::Outcome;
use crate::progress::Progress;
use crate::targets::{Access, Opened, chosen, close_all};
use crate::{Context, after, facts, run_lock, seen, values};

/// How many files a damage is shown with; the report and JSON have them all.
const FILES: usize = 20;

#[derive(Serialize)]
struct Verdict {
    target: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The host wrote a later restore point than there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    rolled_back: Option<String>,
    /// Where the report was stored; nothing when the target is read-only.
    stored: Option<String>,
    /// Files that were repaired.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    healed: Vec<Healed>,
    /// What was wrong before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    was_damaged: Vec<Damage>,
    #[serde(flatten)]
    report: Option<VerifyReport>,
    #[serde(skip)]
    at: Option<Place>,
}

/// What else the history of runs wants to know of a target.
struct Place {
    stick: bool,
    store: String,
    space: Option<Space>,
}

impl Place {
    fn of(target: &Opened, store: &Store) -> Option<Place> {
        Some(Place {
            stick: target.stick.is_some(),
            store: store.id().to_owned(),
            space: Space::of(&target.dir),
        })
    }
}

impl Verdict {
    /// For the history of runs.
    fn record(&self) -> TargetRun {
        let mut run = TargetRun::new(Path::new(&self.target));
        run.error = self.error.clone();
        if let Some(report) = &self.report {
            run.verified = Some(self.ok);
            run.verified_bytes = report.bytes;
            run.whole = report.scope == Scope::Whole;
            run.damage = damages(report).lines().map(str::to_owned).collect();
        }
        run.problems.extend(self.rolled_back.clone());
        for healed in &self.healed {
            let line = format!("healed: {}: {}", healed.file, healed.how);
            run.problems.push(line);
        }
        if let Some(at) = &self.at {
            run.stick = at.stick;
            run.store = Some(at.store.clone());
            run.space = at.space;
        }
        run
    }
}

/// Verifies targets, one after the other.
pub fn run(context: &Context, args: &VerifyArgs) -> anyhow::Result<Outcome> {
    let paths = chosen(&args.from.from, &context.config, "--from")?;
    // Reading harms nobody; but one who is at the console should not wait for a timer, nor the other way round.
    let alone = args.heal || args.start.trigger != Trigger::Command;
    let _lock = match alone {
        true => Some(run_lock::take(
            &context.config.state,
            "lifeboat verify",
            args.start.patience(),
        )?),
        false => None,
    };
    let host = facts::identity(&context.sys);
    let trigger = args.start.trigger;
    let mut recorder = Recorder::start(&context.config.state, Kind::Verify, trigger, &host);
    let result = all(context, args, &paths, &mut recorder.run);
    after::ended(context, &recorder.finish(&result));
    result
}

fn all(
    context: &Context,
    args: &VerifyArgs,
    paths: &[PathBuf],
    run: &mut Run,
) -> anyhow::Result<Outcome> {
    let progress = Progress::new(context.out.quiet);
    let mut verdicts = Vec::new();
    for path in paths {
        let verdict = if args.heal {
            healing(context, path, paths, &progress)
        } else {
            one(context, args, path, &progress)
        };
        crate::signals::check()?;
        verdicts.push(verdict.unwrap_or_else(|error| Verdict {
            target: path.display().to_string(),
            ok: false,
            error: Some(format!("{error:#}")),
            rolled_back: None,
            stored: None,
            healed: Vec::new(),
            was_damaged: Vec::new(),
            report: None,
            at: None,
        }));
    }
    run.warnings = progress.finish();
    run.targets = verdicts.iter().map(Verdict::record).collect();
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
        for v in verdicts.iter().filter(|v| !v.ok || !v.healed.is_empty()) {
            eprint!("{}", text(v));
        }
    }
    let damaged = |v: &Verdict| !v.was_damaged.is_empty();
    Ok(if !verdicts.iter().all(|v| v.ok) {
        Outcome::Failed
    } else if verdicts.iter().any(damaged) {
        // A medium that has lost something once should not go unnoticed.
        Outcome::Warnings
    } else {
        Outcome::Fine
    })
}

fn one(
    context: &Context,
    args: &VerifyArgs,
    path: &Path,
    progress: &Progress,
) -> anyhow::Result<Verdict> {
    let target = Opened::open(path, Access::Read)?;
    let result = (|| {
        let store = target.reader()?;
        let options = VerifyOptions {
            snapshot: args.snapshot.clone(),
            cold: true,
            workers: context.config.max_workers,
            sample: args.sample.map(|share| share.0),
            packs: None,
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
        let rolled_back = seen::rolled_back(&context.config.state, path, &store);
        let at = Place::of(&target, &store);
        Ok((report, stored, rolled_back, at))
    })();
    let is_stick = target.stick.is_some();
    let (report, mut stored, rolled_back, at) = close_all(vec![target], result)?;
    if is_stick && stored.is_none() {
        stored = store_on_stick(path, &report);
    }
    Ok(Verdict {
        target: path.display().to_string(),
        ok: report.ok() && rolled_back.is_none(),
        error: None,
        rolled_back,
        stored,
        healed: Vec::new(),
        was_damaged: Vec::new(),
        report: Some(report),
        at,
    })
}

/// Repairs a target from its parity, from the others given, and from the configured ones that are at hand.
fn healing(
    context: &Context,
    path: &Path,
    given: &[PathBuf],
    progress: &Progress,
) -> anyhow::Result<Verdict> {
    let target = Opened::open(path, Access::Write)?;
    let mut opened = Vec::new();
    let mut sources: Vec<Store> = Vec::new();
    let mut dirs = vec![target.dir.clone()];
    let configured = context.config.targets.iter();
    for other in given
        .iter()
        .chain(configured.filter(|t| !given.contains(t)))
        .filter(|other| *other != path)
    {
        match Opened::open(other, Access::Read) {
            Ok(other) if dirs.contains(&other.dir) => opened.push(other),
            Ok(other) => {
                dirs.push(other.dir.clone());
                match other.reader() {
                    Ok(store) => sources.push(store),
                    Err(error) => progress.say(&format!("not used for healing: {error:#}")),
                }
                opened.push(other);
            }
            Err(error) => progress.say(&format!("not used for healing: {error:#}")),
        }
    }
    let result = target.writer().and_then(|store| {
        let others: Vec<&Store> = sources.iter().collect();
        let report = heal(store, &others, context.config.max_workers, progress)
            .with_context(|| format!("cannot heal {}", path.display()))?;
        let reader = target.reader()?;
        if report.before != report.after {
            write_report(&reader, &report.before)?;
        }
        let stored = write_report(&reader, &report.after)?;
        let rolled_back = seen::rolled_back(&context.config.state, path, &reader);
        let at = Place::of(&target, &reader);
        Ok((report, stored, rolled_back, at))
    });
    drop(sources);
    opened.push(target);
    let (report, stored, rolled_back, at) = close_all(opened, result)?;
    Ok(Verdict {
        target: path.display().to_string(),
        ok: report.after.ok() && rolled_back.is_none(),
        error: None,
        rolled_back,
        stored: Some(stored.display().to_string()),
        healed: report.healed,
        was_damaged: report.before.damaged,
        report: Some(report.after),
        at,
    })
}

/// A stick was mounted read-only for reading. The verdict goes beside the snapshots, unless it is write-protected.
fn store_on_stick(path: &Path, report: &VerifyReport) -> Option<String> {
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
    if let Some(text) = &v.rolled_back {
        out.push_str(&format!("{text}\n"));
    }
    for healed in &v.healed {
        out.push_str(&format!(
            "{}: healed: {}: {}\n",
            v.target, healed.file, healed.how
        ));
    }
    let sample = match report.scope {
        Scope::Sample { slice, of } => format!("sample {} of {of}: ", slice + 1),
        _ => String::new(),
    };
    let what = format!(
        "{sample}{} of {} in {} read{}",
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
            "  What to do: `lifeboat verify --heal` repairs what other targets, or its parity, give back; make a new\n  \
             restore point, and replace this medium.\n",
        );
    }
    out
}
