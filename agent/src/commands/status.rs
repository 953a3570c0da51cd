//! `lifeboat status`

use std::io::IsTerminal;

use crate::cli::StatusArgs;
use crate::evaluation::Level;
use crate::output::Outcome;
use crate::status::{Status, screen};
use crate::{Context, metrics, notify};

/// Nagios' UNKNOWN.
const UNKNOWN: u8 = 3;

/// Shows what the backups are worth.
pub fn run(context: &Context, args: &StatusArgs) -> anyhow::Result<Outcome> {
    let status = match Status::gather(context) {
        Ok(status) => status,
        Err(error) => {
            say_unknown(context, &error)?;
            return Ok(Outcome::Own(UNKNOWN));
        }
    };
    if args.notify {
        for problem in notify::due(context, &status) {
            eprintln!("warning: {problem}");
        }
    }
    if args.metrics {
        metrics::write(&context.config.metrics, &status)?;
    }
    // no-color.org: present and not empty.
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = std::io::stdout().is_terminal() && !no_color;
    context.out.summary(&status, || screen(&status, color))?;
    Ok(Outcome::Own(match status.level {
        Level::Fine => 0,
        Level::Warning => 1,
        Level::Critical => 2,
    }))
}

fn say_unknown(context: &Context, error: &anyhow::Error) -> anyhow::Result<()> {
    let value = serde_json::json!({ "level": "unknown", "error": format!("{error:#}") });
    context
        .out
        .summary(&value, || format!("UNKNOWN: {error:#}"))?;
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the history of runs is for root only: run this command as root");
    }
    Ok(())
}
