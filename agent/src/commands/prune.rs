//! `lifeboat prune`

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bundle::prune::{Done, Plan, Policy, Prune, PruneOptions, Whose};
use serde::Serialize;

use crate::cli::PruneArgs;
use crate::guests::awaited::Awaited;
use crate::output::{Outcome, Refused, Usage, table};
use crate::progress::Progress;
use crate::targets::{Access, Opened, chosen, close_all};
use crate::{Context, audit, facts, inhibit, run_lock, signals, values};

#[derive(Serialize)]
struct Pruned {
    target: String,
    /// What was to be done; on an error before that, nothing.
    #[serde(flatten)]
    plan: Option<Plan>,
    /// What was done; nothing with --dry-run.
    done: Option<Done>,
    error: Option<String>,
}

/// Prunes targets, one after the other.
pub fn run(context: &Context, args: &PruneArgs) -> anyhow::Result<Outcome> {
    let paths = chosen(&args.target, &context.config, "lifeboat prune")?;
    let policy = args
        .keep
        .policy()
        .unwrap_or(context.config.retention.policy());
    if policy == Policy::NOTHING {
        return Err(Usage("at least one --keep option has to be above 0".into()).into());
    }
    if let Some(reason) = Awaited::now(&context.config).instead_of_prune() {
        if !args.dry_run {
            return Err(Refused(reason).into());
        }
    }
    let _lock = match args.dry_run {
        true => None,
        false => Some(run_lock::take(
            &context.config.state,
            "lifeboat prune",
            Duration::ZERO,
        )?),
    };
    let _on = (!args.dry_run).then(|| inhibit::shutdown("restore points are being removed"));
    let whose = match &args.host {
        Some(host) => Whose::Named(host.clone()),
        None => Whose::This(facts::identity(&context.sys)),
    };
    let options = PruneOptions {
        policy,
        guests: context.config.guests.policy(),
        whose,
    };
    let progress = Progress::new(context.out.quiet);
    let mut all = Vec::new();
    for path in &paths {
        let mut pruned = Pruned {
            target: path.display().to_string(),
            plan: None,
            done: None,
            error: None,
        };
        let result = one(path, args.dry_run, &options, &progress, &mut pruned);
        signals::check()?;
        match result {
            Ok(()) => {}
            // With one target, the error is the result, and gives the exit status.
            Err(error) if paths.len() == 1 && pruned.plan.is_none() => return Err(error),
            Err(error) => pruned.error = Some(format!("{error:#}")),
        }
        all.push(pruned);
    }
    progress.finish();
    let text = || all.iter().map(|p| text(p, args.dry_run)).collect();
    if args.dry_run {
        context.out.result(&all, text)?;
    } else {
        context.out.summary(&all, text)?;
    }
    for pruned in &all {
        if let Some(error) = &pruned.error {
            eprintln!("lifeboat: {}: {error}", pruned.target);
        }
    }
    if let [pruned] = &all[..] {
        if pruned.plan.as_ref().is_some_and(|p| p.blocked.is_some()) && !args.dry_run {
            return Err(Refused(format!("{} is left as it is", pruned.target)).into());
        }
    }
    let failed = all.iter().filter(|p| p.error.is_some()).count();
    let warned = |p: &Pruned| {
        p.done.as_ref().is_some_and(|d| !d.notes.is_empty())
            || p.plan.as_ref().is_some_and(|p| p.blocked.is_some())
    };
    Ok(if failed == all.len() {
        Outcome::Failed
    } else if failed > 0 || all.iter().any(warned) {
        Outcome::Warnings
    } else {
        Outcome::Fine
    })
}

fn one(
    path: &Path,
    dry_run: bool,
    options: &PruneOptions,
    progress: &Progress,
    pruned: &mut Pruned,
) -> anyhow::Result<()> {
    let access = if dry_run { Access::Read } else { Access::Write };
    let target = Opened::open(path, access)?;
    let result = (|| {
        let store = if dry_run {
            target.reader()?
        } else {
            target.writer()?
        };
        let prune = Prune::new(store, options, progress)
            .with_context(|| format!("cannot prune {}", path.display()))?;
        pruned.plan = Some(prune.plan().clone());
        if !dry_run {
            let done = prune.apply(progress);
            let done = done.with_context(|| format!("cannot prune {}", path.display()))?;
            done.snapshots
                .iter()
                .for_each(|id| audit::removed(*id, path));
            pruned.done = Some(done);
        }
        Ok(())
    })();
    close_all(vec![target], result)
}

fn text(pruned: &Pruned, dry_run: bool) -> String {
    let Some(plan) = &pruned.plan else {
        return format!("{}: not pruned\n", pruned.target);
    };
    let mut out = format!("{}:\n", pruned.target);
    let rows: Vec<Vec<String>> = plan
        .restore_points
        .iter()
        .map(|r| {
            let why: Vec<String> = r.why.iter().map(ToString::to_string).collect();
            vec![
                r.id.short(),
                r.shown_time(),
                r.host.hostname.clone(),
                super::list::what(r.guest.as_ref(), &r.kind),
                match r.verified {
                    Some(true) => "good",
                    Some(false) => "DAMAGED",
                    None => "never",
                }
                .into(),
                if r.stays { "stays" } else { "goes" }.into(),
                if r.stays {
                    why.join(", ")
                } else {
                    "no rule keeps it".into()
                },
            ]
        })
        .collect();
    if rows.is_empty() {
        out.push_str("no restore point\n");
    } else {
        let headings = ["id", "time", "host", "holds", "verified", "", "why"];
        out.push_str(&table(&headings, &rows));
    }
    let points = |n: usize| values::plural(n as u64, "restore point", "restore points");
    let going = plan.going();
    let staying = plan.restore_points.len() - going;
    if let Some(blocked) = &plan.blocked {
        out.push_str(&format!(
            "Nothing can be removed, as it is not known what is still needed: {}: {}\n",
            blocked.file.display(),
            blocked.reason
        ));
    } else if plan.is_empty() {
        out.push_str("Nothing is to be removed.\n");
    } else if let Some(done) = &pruned.done {
        out.push_str(&format!(
            "{} removed, {} stay: {} removed, {} written, {} free again\n",
            points(done.snapshots.len()),
            values::count(staying as u64),
            values::plural(done.packs_removed, "pack", "packs"),
            values::count(done.packs_written),
            values::bytes(done.freed)
        ));
        for note in &done.notes {
            out.push_str(&format!("note: {note}\n"));
        }
    } else if dry_run {
        out.push_str(&format!(
            "{} would be removed, {} stay: {} removed, {} written anew with the {} needed of them, about {} free again\n",
            points(going),
            values::count(staying as u64),
            values::plural(plan.dead_packs, "pack", "packs"),
            values::count(plan.mostly_dead_packs),
            values::bytes(plan.copied),
            values::bytes(plan.freed)
        ));
    }
    for note in &plan.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    out
}
