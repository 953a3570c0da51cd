//! `lifeboat backup`

mod dry_run;
mod guests;
mod report;
mod room;
mod work;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use bundle::backup::{Backup, BackupOptions};
use bundle::document::{HostIdentity, Image, SnapshotDraft, Tree};
use bundle::store::Store;
use bundle::verify::{VerifyOptions, verify, write_report};

use crate::cli::BackupArgs;
use crate::config::Config;
use crate::history::{Kind as RunKind, Phase, Recorder, Run, Space};
use crate::output::{Outcome, Usage};
use crate::progress::Progress;
use crate::rescue::{Builder, Update, Wish};
use crate::retention::{self, Automatic};
use crate::targets::{Access, Kind, Opened, chosen, close_all};
use crate::{
    Context, after, facts, hooks, last_layout, priority, proxmox, run_lock, seen, signals,
};
use guests::GuestReport;
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
    let _lock = run_lock::take(
        &context.config.state,
        "lifeboat backup",
        args.start.patience(),
    )?;
    let kind = match (args.only_guests, roots.is_empty()) {
        (true, _) => RunKind::Guests,
        (false, true) => RunKind::Backup,
        (false, false) => RunKind::Directories,
    };
    let host = facts::identity(&context.sys);
    let trigger = args.start.trigger;
    let mut recorder = Recorder::start(&context.config.state, kind, trigger, &host);
    let result = locked(context, args, roots, &targets, &mut recorder.run);
    after::ended(context, &recorder.finish(&result));
    result
}

/// The backup, while no other one runs.
fn locked(
    context: &Context,
    args: &BackupArgs,
    roots: &[PathBuf],
    targets: &[PathBuf],
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
    let hook_dir = &context.config.hooks;
    let result = hooks::run(&context.sys, hook_dir, "pre-backup", &[])
        .context("nothing was backed up")
        .and_then(|()| signals::check())
        .and_then(|()| make(context, args, roots, targets, run, &progress));
    let mut warnings = progress.finish();
    let status = match &result {
        Ok(report) => report.status(),
        Err(_) => "failed",
    };
    let after = hooks::run(
        &context.sys,
        hook_dir,
        "post-backup",
        &[("LIFEBOAT_STATUS", status)],
    );
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
    // The restore point is none the worse.
    report.notes.extend(equal);
    report.warnings.extend(warnings);
    report.record(run);
    context.out.summary(&report, || report.text())?;
    if context.out.quiet && !context.out.json && report.outcome() != Outcome::Fine {
        eprint!("{}", report.text());
    }
    Ok(report.outcome())
}

/// A target that was opened, and what has become of it so far.
struct Part {
    opened: Option<Opened>,
    report: TargetReport,
    /// It failed for lack of room.
    full: bool,
}

/// Opens, writes, verifies, and closes every target, whatever happens in between.
fn make(
    context: &Context,
    args: &BackupArgs,
    roots: &[PathBuf],
    targets: &[PathBuf],
    run: &mut Run,
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
        Some(work) => save_host(context, args, work, &host, &mut parts, progress),
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
    report.guests = saved;
    report.targets = reports;
    report.seconds = start.elapsed().as_secs();
    report.phases = phases.all;
    Ok(report)
}

/// What took how long.
struct Phases {
    since: Instant,
    all: Vec<Phase>,
}

impl Phases {
    fn start() -> Phases {
        Phases {
            since: Instant::now(),
            all: Vec::new(),
        }
    }

    /// What was done since the last call has this name.
    fn next(&mut self, name: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        match self.all.iter_mut().find(|p| p.name == name) {
            Some(phase) => phase.seconds += seconds,
            None => self.all.push(Phase {
                name: name.to_owned(),
                seconds,
            }),
        }
    }
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
    let mut result = if stores.is_empty() {
        Err(anyhow::anyhow!("no target can be written to"))
    } else {
        fill(context, args, work, stores, parts, progress)
    };
    // One that ran full gets a second run of its own, if there is something to remove.
    let stores = room::after(config, host, parts, progress);
    if !stores.is_empty() {
        let second = fill(context, args, work, stores, parts, progress);
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
    let mut report = result?;
    report.notes.extend(note);
    Ok(report)
}

impl Part {
    /// Opens a target, or says in its report why it cannot be.
    fn open(target: &Path) -> Part {
        let mut report = TargetReport::new(target);
        let opened = Opened::open(target, Access::Write)
            .map_err(|error| report.fail(format!("{error:#}")))
            .ok();
        report.stick = opened.as_ref().is_some_and(|o| o.stick.is_some());
        Part {
            opened,
            report,
            full: false,
        }
    }

    /// Notes what it holds and how much room it has, for people and programs that look after targets.
    fn look(&mut self, host: &HostIdentity) {
        let Some(opened) = &self.opened else { return };
        self.report.space = Space::of(&opened.dir);
        let snapshots = opened.reader().and_then(|store| Ok(store.snapshots()?));
        self.report.restore_points = snapshots.ok().map(|all| {
            let own = all.iter().filter(|s| s.host.machine_id == host.machine_id);
            own.filter(|s| s.kind == "host").count() as u64
        });
    }

    /// Its store, opened for writing, unless it is hopeless.
    fn store(
        &mut self,
        context: &Context,
        work: &Work,
        host: &HostIdentity,
        progress: &Progress,
    ) -> Option<Store> {
        let opened = self.opened.as_ref()?;
        let writer = opened.writer().and_then(|store| {
            context.config.parity.apply(&store)?;
            Ok(store)
        });
        let store = match writer {
            Ok(store) => store,
            Err(error) => {
                self.report.fail(format!("{error:#}"));
                return None;
            }
        };
        if let Some(text) = seen::rolled_back(&context.config.state, &opened.named, &store) {
            eprintln!("warning: {text}");
            self.report.problems.push(text);
        }
        self.report.store = Some(store.id().to_owned());
        self.report.encrypted = store.encrypted();
        room::before(&context.config, work, host, store, self, progress)
    }
}

/// Reads the host once, and writes to all stores.
fn fill(
    context: &Context,
    args: &BackupArgs,
    work: &Work,
    stores: Vec<Store>,
    parts: &mut [Part],
    progress: &Progress,
) -> anyhow::Result<Report> {
    let facts = facts::collect(&context.sys);
    let mut options = options(&context.config, args)?;
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
    let mut backup = Backup::start(stores, options, progress)?;
    let (trees, images) = match read(work, &mut backup) {
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
    let host = HostIdentity {
        machine_id: facts.machine_id.clone(),
        hostname: facts.hostname.clone(),
    };
    let compression = args.compression.unwrap_or(context.config.compression);
    let layout = work.layout.as_ref();
    let mut report = Report::new(work, &host, &trees, &images, &backup.stats(), compression);
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
fn read(work: &Work, backup: &mut Backup<'_>) -> anyhow::Result<(Vec<Tree>, Vec<Image>)> {
    let mut trees = Vec::new();
    for source in &work.trees {
        let tree = backup
            .tree(source)
            .with_context(|| format!("cannot save {}", source.mount_point.display()))?;
        trees.push(tree);
    }
    let mut images = Vec::new();
    for source in &work.images {
        let image = backup
            .image(source)
            .with_context(|| format!("cannot save the partition {}", source.path.display()))?;
        images.push(image);
    }
    Ok((trees, images))
}

/// How the user named the target of a store.
fn named<'p>(parts: &'p [Part], dir: &'p Path) -> &'p Path {
    let opened = parts.iter().filter_map(|p| p.opened.as_ref());
    let mut of = opened.filter(|o| o.dir == dir);
    of.next().map_or(dir, |o| &o.named)
}

fn part_of<'p>(parts: &'p mut [Part], dir: &Path) -> Option<&'p mut Part> {
    parts
        .iter_mut()
        .find(|p| p.opened.as_ref().is_some_and(|o| o.dir == dir))
}

impl Part {
    fn fail(&mut self, error: &bundle::Error) {
        self.full = error.is_full();
        self.report.fail(error.to_string());
    }
}

/// What follows where there is a new restore point: it is checked, older ones go, and the rescue system is renewed.
fn follow_up(
    context: &Context,
    args: &BackupArgs,
    parts: &mut [Part],
    guests: &[GuestReport],
    host: &HostIdentity,
    progress: &Progress,
) {
    for part in parts.iter_mut() {
        let Part {
            opened: Some(opened),
            report: target,
            ..
        } = part
        else {
            continue;
        };
        let of_guests = guests.iter().flat_map(|g| &g.targets);
        let mut of_guests = of_guests.filter(|t| t.target == opened.named);
        let has_guest = of_guests.any(|t| t.snapshot.is_some() && t.verified != Some(false));
        match target.snapshot {
            Some(id) if context.config.verify && !args.no_verify => {
                check(context, opened, &id.to_string(), target, progress);
            }
            None if !has_guest => continue,
            _ => {}
        }
        if context.config.retention.automatic == Automatic::Always
            && target.verified != Some(false)
            && !signals::stopped()
        {
            match retention::automatic(&context.config, opened, host, progress) {
                Ok(pruned) => target.pruned(pruned),
                Err(error) => target.problems.push(format!("not pruned: {error:#}")),
            }
        }
    }
    if context.config.update_rescue && !args.no_update_rescue {
        update_rescue(context, args, parts, progress);
    }
}

/// A stop by a signal is said as such, not as a failure of a tree.
fn why_stopped(error: anyhow::Error) -> anyhow::Error {
    match signals::check() {
        Err(stop) => stop.context("no restore point was made, earlier ones are untouched"),
        Ok(()) => error,
    }
}

/// Reads what was written again, past the page cache, and stores the verdict beside it.
fn check(
    context: &Context,
    opened: &Opened,
    id: &str,
    target: &mut TargetReport,
    progress: &Progress,
) {
    if signals::stopped() {
        target.problems.push("not verified: stopped before".into());
        return;
    }
    let options = VerifyOptions {
        snapshot: Some(id.to_owned()),
        cold: true,
        workers: context.config.max_workers,
        packs: Some(target.packs.clone()),
        ..VerifyOptions::default()
    };
    let verdict = opened.reader().and_then(|store| {
        let report = verify(&store, &options, progress)?;
        if let Err(error) = write_report(&store, &report) {
            target.problems.push(format!(
                "the verdict of the verification could not be stored: {error}"
            ));
        }
        Ok(report)
    });
    match verdict {
        Ok(report) => {
            target.verified = Some(report.ok());
            target.verified_bytes = report.bytes;
            target.damage = super::verify::damages(&report);
            target.notes = report.notes;
        }
        Err(error) => target.problems.push(format!("not verified: {error:#}")),
    }
}

/// Sticks get a new rescue system when what it is made of has changed. A failure leaves the one that is there.
fn update_rescue(context: &Context, args: &BackupArgs, parts: &mut [Part], progress: &Progress) {
    let mut sticks = parts
        .iter_mut()
        .filter(|p| p.report.snapshot.is_some())
        .filter_map(|p| Some((p.opened.as_ref()?.stick.as_ref()?, &mut p.report)))
        .peekable();
    if sticks.peek().is_none() || signals::stopped() {
        return;
    }
    let modules = context.config.rescue_modules;
    let builder = Builder::new(
        &context.sys,
        &Wish {
            package: args.kernel_package.as_deref(),
            version: None,
            modules,
        },
    );
    for (stick, report) in sticks {
        let builder = match &builder {
            Ok(builder) => builder,
            Err(error) => {
                // A container or a cloud machine has no kernel; its stick was prepared with one from a package.
                report.rescue = Some(Update::Kept(format!("{error:#}")));
                continue;
            }
        };
        match builder.update(&context.sys, stick, progress) {
            Ok(update) => report.rescue = Some(update),
            Err(error) => {
                report.rescue = Some(Update::Kept(format!("{error:#}")));
                report.problems.push(format!(
                    "the rescue system could not be updated, the old one stays: {error:#}"
                ));
            }
        }
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
