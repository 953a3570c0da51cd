//! `lifeboat backup`

mod dry_run;
mod follow_up;
mod frozen;
mod guests;
mod part;
mod phases;
mod report;
mod room;
mod work;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use bundle::backup::{Backup, BackupOptions};
use bundle::document::{HostIdentity, Image, SnapshotDraft, Tree};
use bundle::store::Store;

use crate::cli::BackupArgs;
use crate::config::Config;
use crate::history::{Kind as RunKind, Recorder, Run, Trigger};
use crate::hooks::Hooks;
use crate::output::{Outcome, Usage};
use crate::progress::Progress;
use crate::targets::{Kind, Opened, at_hand, chosen, close_all, not_at_hand};
use crate::{
    Context, after, audit, facts, inhibit, last_layout, plug, priority, proxmox, run_lock,
    schedule, seen, signals,
};
use follow_up::follow_up;
use frozen::Frozen;
use guests::GuestReport;
use part::{Part, named, part_of};
use phases::Phases;
use report::{GUESTS, Report, TargetReport};
use work::Work;

pub use work::without_own_mounts;

/// Makes a restore point on all targets, or shows what it would hold.
pub fn run(context: &Context, args: &BackupArgs) -> anyhow::Result<Outcome> {
    let roots = if args.root.is_empty() {
        &context.config.roots
    } else {
        &args.root
    };
    if roots.is_empty() && !nix::unistd::geteuid().is_root() {
        bail!(
            "a backup of the whole host reads every file of it: run this command as root (or save single directories with --root)"
        );
    }
    if args.dry_run {
        return dry_run::run(context, args, roots);
    }
    let targets = chosen(&args.to, &context.config, "--to")?;
    let (targets, away) = match args.to.is_empty() {
        true => at_hand(targets),
        false => (targets, Vec::new()),
    };
    let kind = match (args.only_guests, roots.is_empty()) {
        (true, _) => RunKind::Guests,
        (false, true) => RunKind::Backup,
        (false, false) => RunKind::Directories,
    };
    let host = facts::identity(&context.sys);
    let trigger = args.start.trigger;
    let record = || Recorder::start(&context.config.state, kind, trigger, &host);
    let locked = schedule::begin(&context.config, &args.start).and_then(|reason| {
        let patience = args.start.patience();
        Ok(match reason {
            Some(reason) => Err(reason),
            None => Ok(run_lock::take(
                &context.config.state,
                "lifeboat backup",
                patience,
            )?),
        })
    });
    let _lock = match locked {
        Ok(Ok(lock)) => lock,
        Ok(Err(reason)) => return not_started(context, record(), reason),
        // Somebody at a terminal reads it there.
        Err(error) if trigger == Trigger::Command => return Err(error),
        Err(error) => {
            let result = Err(error);
            after::ended(context, &record().finish(&result));
            return result;
        }
    };
    let mut recorder = record();
    let _on = inhibit::shutdown("a backup is being written");
    let result = save(context, args, roots, &targets, &away, &mut recorder.run);
    after::ended(context, &recorder.finish(&result));
    result
}

/// A run that a timer started at the wrong time: nothing is wrong with the host or its targets, but there is no backup.
fn not_started(
    context: &Context,
    mut recorder: Recorder,
    reason: String,
) -> anyhow::Result<Outcome> {
    eprintln!("warning: {reason}");
    recorder.run.warnings.push(reason);
    let result = Ok(Outcome::Warnings);
    after::ended(context, &recorder.finish(&result));
    result
}

/// The backup, while no other one runs.
fn save(
    context: &Context,
    args: &BackupArgs,
    roots: &[PathBuf],
    targets: &[PathBuf],
    away: &[PathBuf],
    run: &mut Run,
) -> anyhow::Result<Outcome> {
    // Before any thread or hook is started: they inherit it.
    let equal = priority::lower(
        args.nice.unwrap_or(context.config.nice),
        args.ionice.unwrap_or(context.config.ionice),
    );
    for problem in &equal {
        eprintln!("warning: {problem}");
    }
    let progress = Progress::new(context.out.quiet);
    let timeout = context.config.consistency.hook_timeout.duration();
    let hooks = Hooks::new(&context.sys, &context.config.hooks, timeout);
    let result = hooks
        .run("pre-backup", &[])
        .context("nothing was backed up")
        .and_then(|()| signals::check())
        .and_then(|()| make(context, args, roots, targets, run, &hooks, &progress));
    let mut warnings = progress.finish();
    let status = match &result {
        Ok(report) => report.status(),
        Err(_) => "failed",
    };
    let after = hooks.run_all("post-backup", &[("LIFEBOAT_STATUS", status)]);
    let mut report = match (result, after) {
        (Ok(report), Ok(())) => report,
        (Ok(mut report), Err(e)) => {
            warnings.push(format!("{e:#}"));
            report.hook_failed = true;
            report
        }
        (Err(e), Ok(())) => return Err(e),
        (Err(e), Err(hook)) => {
            eprintln!("warning: {hook:#}");
            run.warnings.push(format!("{hook:#}"));
            return Err(e);
        }
    };
    report.hooks = hooks.runs();
    // The restore point is none the worse.
    report.notes.extend(equal);
    report.notes.extend(away.iter().map(|t| not_at_hand(t)));
    report.warnings.extend(warnings);
    report.record(run);
    context.out.summary(&report, || report.text())?;
    if context.out.quiet && !context.out.json && report.outcome() != Outcome::Fine {
        eprint!("{}", report.text());
    }
    Ok(report.outcome())
}

/// Opens, writes, verifies, and closes every target, whatever happens in between.
fn make(
    context: &Context,
    args: &BackupArgs,
    roots: &[PathBuf],
    targets: &[PathBuf],
    run: &mut Run,
    hooks: &Hooks<'_>,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let start = Instant::now();
    let mut phases = Phases::start();
    progress.say("looking at the host");
    let host = facts::identity(&context.sys);
    let node = match roots {
        [] => proxmox::collect(&context.sys, &host.hostname),
        _ => None,
    };
    let wanted = guests::wanted(&context.config, args, node.as_ref())?;
    // What is wrong with the host should be said before guests are dumped for hours.
    let mut work = match args.only_guests {
        true => None,
        false => Some(Work::find(context, args, roots, targets)?),
    };
    signals::check()?;
    let mut parts: Vec<Part> = targets.iter().map(|t| Part::open(t)).collect();
    let mut saved = Vec::new();
    let not_tried = match wanted.is_empty() {
        true => None,
        false => guests::not_tried(&context.config, args, &parts),
    };
    let tried = !wanted.is_empty() && not_tried.is_none();
    if let Some(node) = node.as_ref().filter(|_| tried) {
        phases.next("look");
        saved = guests::save(context, args, node, &wanted, &host, &parts, progress);
        run.guests = saved.iter().map(GuestReport::record).collect();
        phases.next("guests");
        if let Some(work) = &mut work {
            // Meanwhile the host went on.
            match Work::find(context, args, roots, targets) {
                Ok(now) => *work = now,
                Err(error) => {
                    say(&saved);
                    let opened = parts.into_iter().filter_map(|p| p.opened).collect();
                    return close_all(opened, Err(error));
                }
            }
        }
    }
    let result = match &mut work {
        Some(work) => save_host(context, args, work, &host, &mut parts, hooks, progress),
        None => {
            let compression = args.compression.unwrap_or(context.config.compression);
            Ok(Report::empty(GUESTS, &host, compression))
        }
    };
    phases.next(if work.is_some() { "host" } else { "look" });
    follow_up(context, args, &mut parts, &saved, &host, progress);
    phases.next("verify");
    // From here on nothing is lost any more, but a stick that cannot be unmounted must not be pulled out.
    let mut reports = Vec::new();
    for mut part in parts {
        part.look(&host);
        if let Some(Err(error)) = part.opened.take().map(Opened::close) {
            part.report.problems.push(format!("{error:#}"));
            eprintln!("warning: {error:#}");
        }
        reports.push(part.report);
    }
    phases.next("close");
    run.targets = reports.iter().map(TargetReport::record).collect();
    if reports.iter().all(|t| t.error.is_some()) {
        let reasons: Vec<String> = reports.iter().filter_map(|t| t.error.clone()).collect();
        say(&saved);
        bail!(
            "no target holds a new restore point{}: {}",
            if work.is_some() { " of the host" } else { "" },
            reasons.join("; ")
        );
    }
    let mut report = result.inspect_err(|_| say(&saved))?;
    report.notes.extend(not_tried);
    report.stopped = signals::stopped();
    report.warnings.extend(signals::over().map(str::to_owned));
    report.guests = saved;
    report.targets = reports;
    report.seconds = start.elapsed().as_secs();
    report.phases = phases.all;
    Ok(report)
}

/// What became of the guests, where an error takes the place of the report.
fn say(guests: &[GuestReport]) {
    guests.iter().for_each(|guest| eprint!("{}", guest.text()));
}

/// Writes the host's restore point to every target, with a second run for those that ran full.
fn save_host(
    context: &Context,
    args: &BackupArgs,
    work: &mut Work,
    host: &HostIdentity,
    parts: &mut [Part],
    hooks: &Hooks<'_>,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let config = &context.config;
    let mut stores = Vec::new();
    for part in parts.iter_mut() {
        stores.extend(part.store(context, work, host, progress));
    }
    let plain = stores.iter().any(|store: &Store| !store.encrypted());
    let note = match plain {
        true => work.without_keys(&config.keys)?,
        false => None,
    };
    if stores.is_empty() {
        bail!("no target can be written to");
    }
    let settings = &config.consistency;
    let mode = args.snapshots.unwrap_or(settings.snapshots);
    let frozen = Frozen::take(&context.sys, hooks, settings, mode, work, progress)?;
    let result = std::thread::scope(|scope| {
        // Dropped at the end, whatever that is: so the watch ends.
        let (_until, over) = std::sync::mpsc::channel();
        let frozen = &frozen;
        scope.spawn(move || frozen.watch(&over));
        fill_all(context, args, work, host, stores, parts, frozen)
    });
    let hook_failed = !frozen.finish();
    let mut report = result?;
    report.hook_failed |= hook_failed;
    let removed = frozen.removed.iter();
    let removed = removed.map(|name| format!("removed {name}, which an earlier run has left"));
    report.notes.extend(removed);
    report.notes.extend(note);
    Ok(report)
}

/// Fills the stores, and once more those of targets that had no room, if some can be made.
fn fill_all(
    context: &Context,
    args: &BackupArgs,
    work: &Work,
    host: &HostIdentity,
    stores: Vec<Store>,
    parts: &mut [Part],
    frozen: &Frozen<'_>,
) -> anyhow::Result<Report> {
    let (config, progress) = (&context.config, frozen.progress());
    let mut result = fill(context, args, work, stores, parts, frozen);
    // One that ran full gets a second run of its own, if there is something to remove.
    let stores = room::after(config, host, parts, progress);
    if !stores.is_empty() {
        let second = fill(context, args, work, stores, parts, frozen);
        let (kept, lost) = match (result, second) {
            (Ok(report), Err(error)) | (Err(error), Ok(report)) => (Ok(report), Some(error)),
            (Ok(report), Ok(_)) => (Ok(report), None),
            (Err(_), Err(error)) => (Err(error), None),
        };
        result = kept;
        if let Some(error) = lost {
            let reports = parts.iter_mut().map(|p| &mut p.report);
            reports
                .filter(|r| r.snapshot.is_none() && r.error.is_none())
                .for_each(|r| r.fail(format!("{error:#}")));
        }
        room::say_why_full(config, host, parts, progress);
    }
    result
}

/// Reads the host once, and writes to all stores.
fn fill(
    context: &Context,
    args: &BackupArgs,
    work: &Work,
    stores: Vec<Store>,
    parts: &mut [Part],
    frozen: &Frozen<'_>,
) -> anyhow::Result<Report> {
    let mut facts = facts::collect(&context.sys);
    let mut options = options(&context.config, args)?;
    options.began = frozen.began;
    if !args.reread {
        options.since = Some(facts.machine_id.clone());
    }
    let guests = facts.proxmox.as_ref().map(|node| {
        let places: Vec<(&Store, &Path)> = stores
            .iter()
            .map(|store| (store, named(parts, store.dir())))
            .collect();
        let identity = facts::identity(&context.sys);
        let known = guests::known(&context.config, &identity, &places);
        known.of_all(&node.guests)
    });
    let guests = guests.unwrap_or_default();
    let events = frozen.events();
    let mut backup = Backup::start(stores, options, &events)?;
    let (trees, images) = match read(work, &mut backup, frozen) {
        Ok(read) => read,
        Err(error) => {
            // That no target is left says nothing; each of them knows better.
            for (dir, written) in backup.abandon() {
                if let (Some(part), Err(error)) = (part_of(parts, &dir), written) {
                    part.fail(&error);
                }
            }
            return Err(why_stopped(error));
        }
    };
    signals::check().map_err(why_stopped)?;
    if work.layout.is_some() {
        facts.consistency = frozen.states();
    }
    let host = HostIdentity {
        machine_id: facts.machine_id.clone(),
        hostname: facts.hostname.clone(),
    };
    let compression = args.compression.unwrap_or(context.config.compression);
    let layout = work.layout.as_ref();
    let mut report = Report::new(work, &host, &trees, &images, &backup.stats(), compression);
    report.consistency.clone_from(&facts.consistency);
    let levels = backup.levels();
    let time = backup.time().to_owned();
    let draft = SnapshotDraft {
        host,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        kind: work.kind.to_owned(),
        layout: match &work.layout {
            Some(layout) => {
                serde_json::to_value(layout).context("cannot write the layout as JSON")?
            }
            None => serde_json::Value::Null,
        },
        trees,
        images,
        guest: None,
        guests: guests.clone(),
        facts: serde_json::to_value(&facts).context("cannot write the facts as JSON")?,
    };
    for result in backup.commit(draft) {
        let Some(part) = part_of(parts, &result.dir) else {
            continue;
        };
        part.report.bytes_written = result.bytes_written;
        part.report.new_blobs = result.new_blobs;
        part.report.known_blobs = result.known_blobs;
        part.report.packs = result.packs;
        match result.snapshot {
            Ok(id) => {
                part.report.snapshot = Some(id);
                audit::made(id, &part.report.target);
                if let Some(opened) = &part.opened {
                    plug::known::used(context, opened, part.report.store.as_deref());
                }
                let store = part.report.store.as_deref().unwrap_or_default();
                if let Err(error) = seen::remember(&context.config.state, store, id, &time) {
                    // Only the notice of a rollback hangs on it.
                    tracing::warn!("{error:#}");
                }
                let kept = layout
                    .map(|layout| last_layout::remember(&context.config.state, layout, id, &time));
                if let Some(Err(error)) = kept {
                    tracing::warn!("{error:#}");
                }
            }
            Err(error) => part.fail(&error),
        }
    }
    report.zstd_levels = levels.used();
    let left_out = facts.proxmox.as_ref().and_then(|n| n.left_out(&guests));
    report.notes.extend(left_out);
    Ok(report)
}

/// Reads the host.
fn read(
    work: &Work,
    backup: &mut Backup<'_>,
    frozen: &Frozen<'_>,
) -> anyhow::Result<(Vec<Tree>, Vec<Image>)> {
    let trees = frozen.read_all(&work.trees, &mut |source| backup.tree(source))?;
    let mut images = Vec::new();
    for source in &work.images {
        let image = backup
            .image(source)
            .with_context(|| format!("cannot save the partition {}", source.path.display()))?;
        images.push(image);
    }
    Ok((trees, images))
}

/// A stop by a signal is said as such, not as a failure of a tree.
fn why_stopped(error: anyhow::Error) -> anyhow::Error {
    match signals::check() {
        Err(stop) => stop.context("no restore point was made, earlier ones are untouched"),
        Ok(()) => error,
    }
}

fn options(config: &Config, args: &BackupArgs) -> anyhow::Result<BackupOptions> {
    let mut options = BackupOptions {
        compression: args.compression.unwrap_or(config.compression).into(),
        ..BackupOptions::default()
    };
    if config.max_workers > 0 {
        options.workers = config.max_workers;
    }
    let configured = config.io_limit().map_err(Usage)?;
    options.io_limit = args.io_limit.map(|size| size.0).or(configured);
    Ok(options)
}

/// Where a target's store is, as paths that a backup must not read: it would save itself.
fn own_places(targets: &[PathBuf]) -> Vec<PathBuf> {
    targets
        .iter()
        .filter_map(|target| match Kind::of(target) {
            Ok(Kind::Directory(dir)) => Some(dir.join("lifeboat")),
            Ok(Kind::Image(file)) => Some(file),
            Ok(Kind::Device(_)) => None,
            // Not made yet (dry run): by its name.
            Err(_) => std::path::absolute(target).ok(),
        })
        .collect()
}
