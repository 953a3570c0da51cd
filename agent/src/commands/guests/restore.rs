//! `lifeboat guests restore`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use crate::Context;
use crate::cli::GuestsRestoreArgs;
use crate::guests::dumps::{Wanted, find, size};
use crate::guests::pending::{Worker, dir};
use crate::guests::restore::{As, check, command, existing, read_whole, run as run_tool};
use crate::guests::{archive, places, volumes};
use crate::output::{Outcome, Usage};
use crate::progress::Progress;
use crate::targets::{chosen, reading};
use crate::{facts, inhibit, proxmox, values};

/// How long drives may be late after a boot.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Restored {
    id: u32,
    r#as: u32,
    snapshot: bundle::Id,
    dumped: String,
    bytes: u64,
    started: bool,
}

/// Brings guests back.
pub fn run(context: &Context, args: &GuestsRestoreArgs) -> anyhow::Result<Outcome> {
    let progress = Progress::new(context.out.quiet);
    let _on = inhibit::shutdown("guests are being restored");
    let outcome = if args.pending {
        pending(context, args, &progress)
    } else if args.ids.is_empty() {
        Err(Usage("name the guests: `lifeboat guests list` shows which have dumps".into()).into())
    } else {
        asked_for(context, args, &progress)
    };
    progress.finish();
    outcome
}

/// What the rescue system left to be done.
fn pending(
    context: &Context,
    args: &GuestsRestoreArgs,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let Some(worker) = Worker::new(&context.sys, dir(&context.config), progress)? else {
        progress.say("no guests are to come back");
        return Ok(Outcome::Fine);
    };
    let due = worker.due();
    work(context, args, worker, &due)
}

/// Works off a part of the list, from the stores that it names, or those of the command line.
fn work(
    context: &Context,
    args: &GuestsRestoreArgs,
    worker: Worker<'_>,
    ids: &[u32],
) -> anyhow::Result<Outcome> {
    if !ids.is_empty() {
        worker.check_node()?;
        let list = worker.now();
        let places = args
            .from
            .from
            .is_empty()
            .then(|| places::open(&list.stores, PATIENCE));
        let mut paths: Vec<PathBuf> = match &places {
            Some(found) => found.dirs.clone(),
            None => args.from.from.clone(),
        };
        if let Some(found) = places.as_ref().filter(|found| !found.missing.is_empty()) {
            for text in &found.missing {
                worker.warn(text);
            }
            paths.extend(context.config.targets.iter().cloned());
        }
        let mut entered = false;
        let worked = reading(&paths, |sources| {
            entered = true;
            worker.restore(ids, sources)
        });
        match worked {
            Ok(()) => {}
            Err(error) if entered => return Err(error),
            Err(error) => worker.not_tried(ids, &format!("no store can be read: {error:#}"))?,
        }
    }
    Ok(match worker.finish()? {
        true => Outcome::Fine,
        false => Outcome::Failed,
    })
}

fn asked_for(
    context: &Context,
    args: &GuestsRestoreArgs,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    if args.ids.len() > 1 && (args.r#as.is_some() || args.snapshot != "latest") {
        let text = "--as and --snapshot are for one guest at a time";
        return Err(Usage(text.into()).into());
    }
    // A guest that the list has is worked off there, so that the list goes away in the end.
    if args.r#as.is_none() {
        let worker = Worker::new(&context.sys, dir(&context.config), progress)?;
        if let Some(mut worker) = worker {
            let list = worker.now();
            let on_list = |id: &u32| list.guests.iter().any(|g| g.id == *id);
            if args.ids.iter().all(on_list) {
                worker.force = args.force;
                worker.storage.clone_from(&args.storage);
                let other = (args.snapshot != "latest").then(|| args.snapshot.clone());
                worker.snapshot = other;
                worker.ask_again(&args.ids)?;
                return work(context, args, worker, &args.ids);
            }
            if args.ids.iter().any(on_list) {
                let text = "some of these guests are to come back after a restore, and others are not: name them apart";
                return Err(Usage(text.into()).into());
            }
        }
    }
    let paths = chosen(&args.from.from, &context.config, "--from")?;
    reading(&paths, |sources| {
        let mut done = Vec::new();
        let mut failed = Vec::new();
        for id in &args.ids {
            crate::signals::check()?;
            match one(context, args, *id, sources, progress) {
                Ok(restored) => done.push(restored),
                Err(error) if args.ids.len() == 1 => return Err(error),
                Err(error) => failed.push(format!("guest {id}: {error:#}")),
            }
        }
        for text in &failed {
            eprintln!("lifeboat: {text}");
        }
        context.out.summary(&done, || {
            let line = |r: &Restored| {
                let bytes = values::bytes(r.bytes);
                format!(
                    "guest {} is back as {}, as of {} ({bytes})\n",
                    r.id, r.r#as, r.dumped
                )
            };
            done.iter().map(line).collect()
        })?;
        Ok(match failed.is_empty() {
            true => Outcome::Fine,
            false => Outcome::Failed,
        })
    })
}

/// One guest on a healthy node.
fn one(
    context: &Context,
    args: &GuestsRestoreArgs,
    id: u32,
    sources: &crate::targets::Sources,
    progress: &Progress,
) -> anyhow::Result<Restored> {
    let host = facts::identity(&context.sys);
    let wanted = Wanted {
        id,
        snapshot: &args.snapshot,
        machine_id: &host.machine_id,
    };
    let (found, snapshot) = find(sources, &wanted)?;
    let dump = archive::dump(&snapshot)?;
    let to = As {
        id: args.r#as.unwrap_or(id),
        storage: args.storage.as_deref(),
        force: args.force,
        // The one that the dump is of may run beside it.
        unique: args.r#as.is_some_and(|other| other != id),
    };
    check(
        &context.sys,
        &snapshot,
        &to,
        &proxmox::node_name(&host.hostname),
    )?;
    if let Some(conf) = dump.config("pct.conf") {
        let conf = String::from_utf8_lossy(conf);
        for key in volumes::not_dumped(&conf, id) {
            let text =
                format!("{key} was in no dump (it is not marked backup=1): it will be empty");
            bundle::events::Events::warn(progress, &text);
        }
    }
    let command = command(&snapshot, &to)?;
    let (title, stores) = (archive::title(&snapshot), sources.readers());
    if existing(&context.sys, to.id).is_some() {
        read_whole(&stores, &snapshot, progress).with_context(|| title.clone())?;
    }
    progress.say(&format!("{title}: as of {}", dump.dumped));
    run_tool(&context.sys, &command, &stores, &snapshot, progress).context(title)?;
    let mut started = false;
    if args.start {
        let tool = match dump.kind {
            bundle::document::guest::GuestKind::Qemu => "qm",
            bundle::document::guest::GuestKind::Lxc => "pct",
        };
        let start = layout::system::Cmd::new(tool).args(["start", &to.id.to_string()]);
        layout::system::System::run(&context.sys, &start)
            .map_err(|e| anyhow!(e))
            .context("the guest is back, but cannot be started")?;
        started = true;
    }
    Ok(Restored {
        id,
        r#as: to.id,
        snapshot: found,
        dumped: dump.dumped.clone(),
        bytes: size(&snapshot),
        started,
    })
}
