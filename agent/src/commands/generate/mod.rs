//! `lifeboat generate`: manual pages and completions out of the definition of the command line, so that they say what the
//! program does. It reads no configuration: packages are built on machines that are not the host.

mod man;
mod page;
mod settings;
mod texts;

use std::path::Path;

use anyhow::Context as _;
use clap::{Command, CommandFactory};

use crate::cli::{Cli, GenerateArgs, GenerateCommand};
use crate::output::{Outcome, Output};

/// Writes what was asked for.
pub fn run(args: &GenerateArgs) -> anyhow::Result<Outcome> {
    let out = Output {
        json: false,
        quiet: false,
    };
    match &args.what {
        GenerateCommand::Man { to } => write(to, &pages()?)?,
        GenerateCommand::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut shown(&Cli::command()), "lifeboat", &mut text);
            out.write(&String::from_utf8(text)?)?;
        }
    }
    Ok(Outcome::Fine)
}

/// File names and texts of all pages.
fn pages() -> anyhow::Result<Vec<(String, String)>> {
    let date = page::date();
    let mut pages = man::pages(&Cli::command(), &date)?;
    pages.push(settings::page(&crate::config::example()?, &date));
    Ok(pages)
}

fn write(dir: &Path, pages: &[(String, String)]) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, text) in pages {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The command without what is hidden, which clap_complete would offer.
fn shown(command: &Command) -> Command {
    let mut all = command.clone();
    let hidden = |c: &Command| c.is_hide_set();
    if !all.get_subcommands().any(hidden) {
        return all;
    }
    // clap has no way to take a subcommand away: the command is put together again.
    let mut new = Command::new("lifeboat")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .subcommand_required(true);
    if let Some(about) = all.get_about() {
        new = new.about(about.clone());
    }
    new = new.args(all.get_arguments().cloned().collect::<Vec<_>>());
    let commands: Vec<Command> = all
        .get_subcommands_mut()
        .filter(|c| !hidden(c))
        .map(|c| c.clone())
        .collect();
    new.subcommands(commands)
}

#[cfg(test)]
mod tests;
