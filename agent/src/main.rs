//! `lifeboat`: bare-metal recovery for Proxmox VE and Debian hosts, the part that runs on the healthy host.

mod after;
mod cli;
mod commands;
mod compression;
mod config;
mod disks;
mod evaluation;
mod exclusions;
mod facts;
mod filesystem;
mod fuse;
mod guests;
mod history;
mod hooks;
mod keys;
mod last_layout;
mod listing;
mod metrics;
mod notify;
mod objectives;
mod output;
mod paths;
mod priority;
mod progress;
mod proxmox;
mod rescue;
mod retention;
mod run_lock;
mod seen;
mod signals;
mod state;
mod status;
mod targets;
mod values;

use std::process::ExitCode;

use clap::Parser;
use layout::system::Host;

use cli::{Cli, Command};
use output::{Outcome, Output};

/// What every command needs.
pub struct Context {
    config: config::Config,
    out: Output,
    sys: Host,
    /// Of the options, for stores that are to be encrypted.
    passphrase_file: Option<std::path::PathBuf>,
    key_file: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.common.verbose, cli.common.quiet);
    match signals::install().and_then(|()| run(cli)) {
        Ok(outcome) => outcome.code(),
        Err(error) => {
            // Whatever a library made of it: the signal is the reason.
            let error = match signals::check() {
                Err(stop) if !format!("{error:#}").contains("stopped by") => {
                    error.context(stop.to_string())
                }
                _ => error,
            };
            eprintln!("lifeboat: {error:#}");
            ExitCode::from(output::error_code(&error))
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let context = Context {
        config: config::Config::load(cli.common.config.as_deref())?,
        out: Output {
            json: cli.common.json,
            quiet: cli.common.quiet,
        },
        sys: Host,
        passphrase_file: cli.common.passphrase_file.clone(),
        key_file: cli.common.key_file.clone(),
    };
    keys::install(keys::Sources {
        passphrase_files: cli.common.passphrase_file.into_iter().collect(),
        key_files: cli.common.key_file.into_iter().collect(),
        dir: context.config.keys.clone(),
    });
    match cli.command {
        Command::Prepare(args) => commands::prepare::run(&context, &args),
        Command::Backup(args) => commands::backup::run(&context, &args),
        Command::List(args) => commands::list::run(&context, &args),
        Command::Show(args) => commands::show::run(&context, &args),
        Command::Ls(args) => commands::ls::run(&context, &args),
        Command::Diff(args) => commands::diff::run(&context, &args),
        Command::Find(args) => commands::find::run(&context, &args),
        Command::Guests(args) => commands::guests::run(&context, &args),
        Command::Mount(args) => commands::mount::run(&context, &args),
        Command::Verify(args) => commands::verify::run(&context, &args),
        Command::Prune(args) => commands::prune::run(&context, &args),
        Command::Extract(args) => commands::extract::run(&context, &args),
        Command::Layout(args) => commands::layout::run(&context, &args),
        Command::Plan(args) => commands::plan::run(&context, &args),
        Command::Inventory => commands::inventory::run(&context),
        Command::Arm(args) => commands::arm::run(&context, &args),
        Command::Disarm(args) => commands::disarm::run(&context, &args),
        Command::Key(args) => commands::key::run(&context, &args),
        Command::Config(args) => commands::config::run(&context, &args),
        Command::Status(args) => commands::status::run(&context, &args),
        Command::Notify(args) => commands::notify::run(&context, &args),
        Command::CheckLayout(args) => commands::check_layout::run(&context, &args),
    }
}

/// Logs go to standard error; `LIFEBOAT_LOG` (as `RUST_LOG` elsewhere) overrides the options.
fn start_log(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    // fuser warns when somebody else unmounts, which is an ordinary end.
    let mut filter = tracing_subscriber::EnvFilter::try_from_env("LIFEBOAT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("{level},fuser=error")));
    // It logs addresses, which may be secrets.
    for never in ["ureq=off", "ureq_proto=off"] {
        if let Ok(directive) = never.parse() {
            filter = filter.add_directive(directive);
        }
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}
