//! The pages of the command and of each of its commands.

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::page::{self, MANUAL};
use super::texts;

/// An admin's command.
const SECTION: &str = "8";

/// File name and text of each page. Hidden commands have none.
pub fn pages(command: &Command, date: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, &[], date, &mut pages)?;
    Ok(pages)
}

fn add(
    command: &Command,
    above: &[&str],
    date: &str,
    pages: &mut Vec<(String, String)>,
) -> anyhow::Result<()> {
    let path: Vec<&str> = above.iter().copied().chain([command.get_name()]).collect();
    let name = path.join("-");
    let text = page(command, &path, date).with_context(|| format!("cannot write {name}(8)"))?;
    pages.push((format!("{name}.{SECTION}"), text));
    for below in visible(command) {
        add(below, &path, date, pages)?;
    }
    Ok(())
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|c| !c.is_hide_set())
}

fn page(command: &Command, path: &[&str], date: &str) -> anyhow::Result<String> {
    let name = path.join("-");
    // Arguments, options of this command, and options of all: in this order, as in the help.
    let sorted = command.clone().mut_args(|arg| {
        if arg.is_global_set() || matches!(arg.get_id().as_str(), "help" | "version") {
            arg.help_heading("Common options")
        } else if arg.is_positional() {
            arg.help_heading("Arguments")
        } else {
            arg
        }
    });
    let man = Man::new(sorted)
        .title(name.to_uppercase())
        .section(SECTION)
        .date(date)
        .source(page::source())
        .manual(MANUAL);
    let mut pieces = vec![piece(|w| man.render_title(w))?];
    pieces.push(names(command, &name));
    pieces.push(synopsis(command, path));
    pieces.push(description(command, &name));
    if command.get_arguments().any(|a| !a.is_hide_set()) {
        pieces.push(piece(|w| man.render_options_section(w))?);
    }
    if visible(command).next().is_some() {
        let section = piece(|w| man.render_subcommands_section(w))?;
        pieces.push(section.replacen(".SH SUBCOMMANDS", ".SH COMMANDS", 1));
    }
    pieces.push(ending(command, path));
    Ok(page::join(&pieces))
}

fn piece(
    write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
) -> anyhow::Result<String> {
    let mut out = Vec::new();
    write(&mut out)?;
    Ok(String::from_utf8(out)?)
}

/// What `apropos` shows: one line, without formatting.
fn names(command: &Command, name: &str) -> String {
    let about = command
        .get_about()
        .map(|a| a.to_string().replace('`', ""))
        .unwrap_or_default();
    let mut roff = Roff::new();
    page::heading(&mut roff, "NAME");
    roff.text([roman(format!("{name} - {}", lower(&about)))]);
    roff.render()
}

/// As names of pages are described: `Make a restore point` is `make a restore point`.
fn lower(about: &str) -> String {
    let mut chars = about.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => about.to_owned(),
    }
}

/// As the help says it, with what cannot be left out and what excludes each other.
fn synopsis(command: &Command, path: &[&str]) -> String {
    let name = path.join(" ");
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let mut roff = Roff::new();
    page::heading(&mut roff, "SYNOPSIS");
    for (i, line) in usage.lines().enumerate() {
        if i > 0 {
            roff.control("br", []);
        }
        let line = line.trim();
        roff.text(match line.strip_prefix(&name) {
            Some(rest) => vec![bold(name.as_str()), roman(rest)],
            None => vec![roman(line)],
        });
    }
    roff.render()
}

fn description(command: &Command, name: &str) -> String {
    let about = command.get_long_about().or_else(|| command.get_about());
    let mut about = about.map(ToString::to_string).unwrap_or_default();
    if !about.ends_with('.') {
        about.push('.');
    }
    let more = texts::description(name).iter().copied();
    let mut roff = Roff::new();
    page::paragraphs(
        &mut roff,
        "DESCRIPTION",
        std::iter::once(about.as_str()).chain(more),
    );
    roff.render()
}

/// All behind the options.
fn ending(command: &Command, path: &[&str]) -> String {
    let name = path.join("-");
    let mut roff = Roff::new();
    if let [_] = path {
        if let Some(text) = command.get_after_help() {
            let text = text.to_string();
            page::heading(&mut roff, "EXIT STATUS");
            statuses(&mut roff, &text);
        }
        page::items(&mut roff, "ENVIRONMENT", texts::ENVIRONMENT);
        page::items(&mut roff, "FILES", texts::FILES);
    }
    let examples = texts::examples(&name);
    if !examples.is_empty() {
        page::heading(&mut roff, "EXAMPLES");
        for (line, text) in examples {
            page::item(&mut roff, bold(*line), text);
        }
    }
    page::see_also(&mut roff, &related(command, path));
    roff.render()
}

/// The lines of the help that begin with a number, and those that go on with them.
fn statuses(roff: &mut Roff, text: &str) {
    let mut items: Vec<(String, String)> = Vec::new();
    for line in text.lines().skip(1) {
        let line = line.trim();
        match line.split_once("  ") {
            Some((number, rest)) if number.parse::<u8>().is_ok() => {
                items.push((number.to_owned(), rest.to_owned()));
            }
            _ => {
                if let Some((_, text)) = items.last_mut() {
                    text.push(' ');
                    text.push_str(line);
                }
            }
        }
    }
    for (number, text) in &items {
        page::item(roff, Inline::Bold(number.clone()), text);
    }
}

/// Its commands are named above; the one it belongs to, its brothers and the configuration are here.
fn related(command: &Command, path: &[&str]) -> Vec<(String, u8)> {
    let mut pages: Vec<(String, u8)> = Vec::new();
    if path.len() > 1 {
        pages.push((path[..path.len() - 1].join("-"), 8));
    }
    pages.extend(visible(command).map(|c| (format!("{}-{}", path.join("-"), c.get_name()), 8)));
    pages.extend(
        texts::related(&path.join("-"))
            .iter()
            .map(|n| ((*n).to_owned(), 8)),
    );
    pages.push(("lifeboat.toml".to_owned(), 5));
    pages
}
