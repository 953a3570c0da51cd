//! `lifeboat.toml(5)`, out of the example configuration, which holds every setting with its default.

use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::page::{self, MANUAL};
use super::texts;

/// A piece of the example.
#[derive(Debug, PartialEq)]
enum Piece {
    /// A table begins: `[retention]`.
    Table(String),
    /// Settings that are explained together: name and default of each, the explanation, an example of the first.
    Settings(Vec<(String, String)>, String, Option<String>),
}

/// File name and text of the page.
pub fn page(example: &str, date: &str) -> (String, String) {
    let mut roff = Roff::new();
    let source = page::source();
    roff.control("TH", ["LIFEBOAT.TOML", "5", date, &source, MANUAL]);
    page::heading(&mut roff, "NAME");
    roff.text([roman("lifeboat.toml - configuration of lifeboat")]);
    page::heading(&mut roff, "SYNOPSIS");
    roff.text([bold("/etc/lifeboat/lifeboat.toml")]);
    page::paragraphs(
        &mut roff,
        "DESCRIPTION",
        texts::CONFIGURATION.iter().copied(),
    );
    page::heading(&mut roff, "SETTINGS");
    for piece in read(example) {
        match piece {
            Piece::Table(name) => page::heading(&mut roff, &format!("TABLE [{name}]")),
            Piece::Settings(names, text, example) => setting(&mut roff, &names, &text, example),
        }
    }
    page::items(&mut roff, "FILES", texts::FILES);
    page::heading(&mut roff, "EXAMPLE");
    page::verbatim(&mut roff, texts::CONFIGURATION_EXAMPLE);
    page::see_also(
        &mut roff,
        &[
            ("lifeboat".to_owned(), 8),
            ("lifeboat-config".to_owned(), 8),
            ("lifeboat-backup".to_owned(), 8),
            ("lifeboat-prune".to_owned(), 8),
        ],
    );
    ("lifeboat.toml.5".to_owned(), page::join(&[roff.render()]))
}

fn setting(roff: &mut Roff, names: &[(String, String)], text: &str, example: Option<String>) {
    for (i, (name, default)) in names.iter().enumerate() {
        roff.control(if i == 0 { "TP" } else { "TQ" }, []);
        roff.text([bold(name.as_str()), roman(format!(" = {default}"))]);
    }
    roff.text(page::marked(text));
    if let Some(example) = example {
        roff.control("IP", []);
        roff.text([roman("Example: "), Inline::Bold(example)]);
    }
}

/// Takes the example apart: blocks of lines, each explained by the comment before it (src/config.rs writes it).
fn read(example: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for block in example.split("\n\n").skip(1) {
        let (mut text, mut names, mut shown) = (String::new(), Vec::new(), None);
        let mut default = String::new();
        for line in block.lines() {
            let Some(line) = line.strip_prefix('#') else {
                continue;
            };
            if let Some(value) = line.strip_prefix(" Default: ") {
                default = value.to_owned();
            } else if let Some(comment) = line.strip_prefix(' ') {
                text.push_str(if text.is_empty() { "" } else { " " });
                text.push_str(comment);
            } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                pieces.push(Piece::Table(name.to_owned()));
            } else if let Some((name, value)) = line.split_once(" = ") {
                if value != default {
                    shown = Some(format!("{name} = {value}"));
                }
                names.push((name.to_owned(), std::mem::take(&mut default)));
            }
        }
        if !names.is_empty() {
            pieces.push(Piece::Settings(names, text, shown));
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_on_the_page_with_its_default() {
        let example = crate::config::example().unwrap();
        let defaults = toml::Table::try_from(crate::config::Config::default()).unwrap();
        let mut at = String::new();
        let mut seen = std::collections::BTreeMap::new();
        for piece in read(&example) {
            match piece {
                Piece::Table(name) => at = name + ".",
                Piece::Settings(names, text, _) => {
                    assert!(!text.is_empty(), "{names:?} have no explanation");
                    seen.extend(names.into_iter().map(|(n, d)| (format!("{at}{n}"), d)));
                }
            }
        }
        let mut count = 0;
        for (name, value) in &defaults {
            let of_table = value.as_table().into_iter().flatten();
            let mut all: Vec<_> = of_table.map(|(n, v)| (format!("{name}.{n}"), v)).collect();
            if !value.is_table() {
                all.push((name.clone(), value));
            }
            for (name, value) in all {
                assert_eq!(seen.get(&name), Some(&value.to_string()), "{name}");
                count += 1;
            }
        }
        assert_eq!(count, seen.len());
    }

    #[test]
    fn page_holds_tables_settings_and_examples() {
        let (name, text) = page(&crate::config::example().unwrap(), "2026-11-26");
        assert_eq!(name, "lifeboat.toml.5");
        for part in [
            ".TH LIFEBOAT.TOML 5 2026-11-26",
            "\n.SH \"TABLE [retention]\"\n",
            "\\fBkeep\\-daily\\fR = 7\n",
            "Example: \\fBio\\-limit = \"100M\"\\fR\n",
            "\\fBlifeboat config exclusions\\fR shows them",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
