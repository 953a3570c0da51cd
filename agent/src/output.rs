//! What a command ends with: exit statuses, JSON or text, errors.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

/// How a command ended. The numbers are documented in `lifeboat --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Fine,
    /// The command ran, and what it found is bad (damage).
    Failed,
    /// Done, with something to look at.
    Warnings,
    /// A status of the command's own, which its help explains.
    Own(u8),
}

impl Outcome {
    /// The exit status of this outcome.
    pub fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Outcome::Fine => 0,
            Outcome::Failed => 1,
            Outcome::Warnings => 3,
            Outcome::Own(status) => status,
        })
    }
}

/// An error of the caller: wrong options or a wrong configuration (exit status 2).
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Refused so that nothing is lost (exit status 4).
#[derive(Debug)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {}", self.0)
    }
}

impl std::error::Error for Refused {}

/// The exit status of an error.
pub fn error_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<Refused>().is_some() {
        4
    } else if error.downcast_ref::<Usage>().is_some() {
        2
    } else {
        1
    }
}

/// Where results go: JSON, text, or (quiet) nothing.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
    /// No summaries of what was done; listings are still written.
    pub quiet: bool,
}

impl Output {
    /// What the user asked to see (a listing, a plan): written even with --quiet.
    pub fn result<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        if self.json {
            self.write(&json(value)?)
        } else {
            self.write(&text())
        }
    }

    /// What was done: left out with --quiet, unless JSON was asked for.
    pub fn summary<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        if self.quiet && !self.json {
            Ok(())
        } else {
            self.result(value, text)
        }
    }

    /// Writes to standard output. A reader that has gone away (`| head`) is not an error.
    pub fn write(&self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let newline = if text.ends_with('\n') || text.is_empty() {
            ""
        } else {
            "\n"
        };
        match write!(out, "{text}{newline}").and_then(|()| out.flush()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
            _ => Ok(()),
        }
    }
}

fn json<T: Serialize>(value: &T) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Text in columns: left-aligned, except those whose heading begins with `>`.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let right: Vec<bool> = headings.iter().map(|h| h.starts_with('>')).collect();
    let head: Vec<String> = headings
        .iter()
        .map(|h| h.trim_start_matches('>').to_string())
        .collect();
    let width = |s: &str| s.chars().count();
    let mut widths: Vec<usize> = head.iter().map(|h| width(h)).collect();
    for row in rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(width(cell));
        }
    }
    let mut out = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate().take(widths.len()) {
            let pad = " ".repeat(widths[i].saturating_sub(width(cell)));
            let gap = if i == 0 { "" } else { "  " };
            if right[i] {
                line.push_str(&format!("{gap}{pad}{cell}"));
            } else {
                line.push_str(&format!("{gap}{cell}{pad}"));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn error_codes_survive_context() {
        let refused = Err::<(), _>(Refused("in use".into()))
            .context("while preparing")
            .unwrap_err();
        assert_eq!(error_code(&refused), 4);
        assert_eq!(
            error_code(&anyhow::Error::from(Usage("no".into())).context("more")),
            2
        );
        assert_eq!(error_code(&anyhow::anyhow!("broken")), 1);
    }

    #[test]
    fn columns_line_up() {
        let text = table(
            &["name", ">size"],
            &[
                vec!["a".into(), "10".into()],
                vec!["long".into(), "5".into()],
            ],
        );
        assert_eq!(text, "name  size\na       10\nlong     5\n");
    }
}
