//! `lifeboat setup`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::crypt::NewSlot;
use clap::Parser;
use serde::Serialize;

use super::prepare::{self, Prepared};
use crate::cli::{Cli, PrepareArgs, SetupArgs};
use crate::config::{Config, DEFAULT_PATH};
use crate::output::{Outcome, Output, Refused, Usage};
use crate::setup::{self, Answers, Machine, Make, Plan, Stdio, yes};
use crate::{Context, keys, signals};

/// What was done, or would be.
#[derive(Debug, Serialize)]
struct Report {
    /// Of this document.
    format: u32,
    /// Whether it is only what would be done.
    dry_run: bool,
    /// Each target, and how it comes to be.
    targets: Vec<(PathBuf, Make)>,
    /// What was made.
    made: Vec<Prepared>,
    /// The configuration, and the settings that changed.
    configuration: PathBuf,
    changes: Vec<String>,
    /// What did not work, and can be done later.
    problems: Vec<String>,
}

/// Asks, shows, does.
pub fn run(context: &Context, args: &SetupArgs) -> anyhow::Result<Outcome> {
    let named = context.config_file.as_deref();
    let file = named.unwrap_or(Path::new(DEFAULT_PATH));
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => {
            return Err(e)
                .with_context(|| format!("cannot read the configuration {}", file.display()));
        }
    };
    let answers = match &args.answers {
        Some(file) => Answers::load(file)?,
        None => ask(context)?,
    };
    let plan = Plan::of(&context.sys, &answers, &context.config, &text)?;
    let mut report = Report {
        format: 1,
        dry_run: args.dry_run,
        targets: plan.targets.clone(),
        made: Vec::new(),
        configuration: file.into(),
        changes: plan.edited.changes.clone(),
        problems: Vec::new(),
    };
    if args.dry_run {
        context.out.result(&report, || plan.text(file))?;
        return Ok(Outcome::Fine);
    }
    if !context.out.quiet {
        eprintln!("\n{}", plan.text(file));
    }
    if args.answers.is_none() && !yes(&mut Stdio, "Do this?", false)? {
        eprintln!("nothing was changed");
        return Ok(Outcome::Fine);
    }
    // Whoever has to type something does so before anything is changed.
    for disk in plan.erased() {
        if args.answers.is_some() && answers.erase.is_none() {
            let text = format!(
                "if this disk is to be ERASED, add to the answers: erase = {:?}\n{}",
                prepare::confirmation(disk),
                prepare::describe(disk)
            );
            return Err(Refused(text).into());
        }
        prepare::confirm(disk, answers.erase.as_deref())?;
    }
    let slots = match plan.needs_keys() {
        true => keys::for_new_store(
            context.passphrase_file.as_deref(),
            context.key_file.as_deref(),
        )?,
        false => Vec::new(),
    };
    let done = make_all(context, &answers, &plan, &slots, &mut report)
        .and_then(|()| follow(context, &plan, file, &mut report));
    // Also after an error: the recovery keys of what was made are in no other place.
    let outcome = match &done {
        Ok(outcome) => *outcome,
        Err(_) => Outcome::Failed,
    };
    if context.out.json {
        context.out.result(&report, String::new)?;
    }
    done.map(|_| outcome)
}

fn ask(context: &Context) -> anyhow::Result<Answers> {
    if !Stdio::there() {
        let text = "nobody can be asked (no terminal): give the answers in a file, with --answers FILE (docs/setup.md)";
        return Err(Usage(text.into()).into());
    }
    let known = toml::Table::try_from(Config::default())?;
    let machine = Machine::look(&context.sys);
    let may = |table: &str| known.contains_key(table);
    setup::ask(
        &mut Stdio,
        &machine,
        &context.config,
        may("schedule"),
        may("notify"),
    )
}

/// Makes the targets that are new, one after the other. Those that are there when a later one fails stay: the next time
/// they are found.
fn make_all(
    context: &Context,
    answers: &Answers,
    plan: &Plan,
    slots: &[NewSlot],
    report: &mut Report,
) -> anyhow::Result<()> {
    for (path, make) in plan.targets.iter().filter(|(_, make)| make.is_new()) {
        signals::check()?;
        let args = prepare_args(answers, path, make)?;
        let made = prepare::with_keys(context, &args, slots)
            .with_context(|| format!("{} was not made a target", path.display()))?;
        if !context.out.json {
            context.out.write(&made.text())?;
        }
        report.made.push(made);
    }
    Ok(())
}

/// As if it had been typed, so that options which are not about setting up have their defaults.
fn prepare_args(answers: &Answers, path: &Path, make: &Make) -> anyhow::Result<PrepareArgs> {
    let cli = Cli::try_parse_from([
        "lifeboat".into(),
        "prepare".into(),
        path.as_os_str().to_owned(),
    ])?;
    let crate::cli::Command::Prepare(mut args) = cli.command else {
        anyhow::bail!("the command `prepare` is missing");
    };
    match make {
        Make::Keep { .. } | Make::Directory => return Ok(args),
        Make::Disk(identity) => args.yes_erase = Some(prepare::confirmation(identity)),
        Make::Image(size) => {
            args.size = Some(*size);
            // One that is there was looked at: it is an image of a stick, and holds no store.
            args.force_image = path.exists();
        }
    }
    args.modules = answers.modules;
    args.esp_size = answers.esp_size;
    args.kernel_package = answers.kernel_package.clone();
    Ok(args)
}

/// What comes when the targets are there.
fn follow(
    context: &Context,
    plan: &Plan,
    file: &Path,
    report: &mut Report,
) -> anyhow::Result<Outcome> {
    signals::check()?;
    if !plan.edited.changes.is_empty() {
        setup::write(file, &plan.edited.text)?;
    }
    // Documents are one: what these say is for people.
    let out = Output {
        json: false,
        quiet: context.out.quiet || context.out.json,
    };
    let config = Config::load(context.config_file.as_deref().filter(|file| file.exists()))?;
    let context = &context.with(config, out);
    let mut outcome = Outcome::Fine;
    if plan.schedule {
        let applied = typed(context, &["schedule", "apply"]);
        later(
            report,
            applied,
            "timers were not made",
            "lifeboat schedule apply",
        );
    }
    if plan.first_backup {
        signals::check()?;
        match typed(context, &["backup"]) {
            Ok(Outcome::Fine) => {}
            Ok(_) => outcome = Outcome::Warnings,
            failed => later(report, failed, "there is no backup yet", "lifeboat backup"),
        }
    }
    signals::check()?;
    if !report.problems.is_empty() {
        outcome = Outcome::Warnings;
    }
    if !context.out.quiet {
        context
            .out
            .write("\nWhat is left, as `lifeboat doctor` sees it:\n")?;
        typed(context, &["doctor"])?;
    }
    Ok(outcome)
}

/// Runs another command as if it had been typed.
fn typed(context: &Context, words: &[&str]) -> anyhow::Result<Outcome> {
    let cli = Cli::try_parse_from(std::iter::once(&"lifeboat").chain(words))?;
    crate::command(context, &cli.command)
}

/// What did not work is no reason to undo the rest.
fn later(report: &mut Report, result: anyhow::Result<Outcome>, what: &str, mend: &str) {
    if let Err(error) = result {
        let text = format!("{what}: {error:#}; try again with `{mend}`");
        eprintln!("warning: {text}");
        report.problems.push(text);
    }
}
