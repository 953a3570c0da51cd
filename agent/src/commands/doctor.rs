//! `lifeboat doctor`

use std::path::Path;

use serde::Serialize;

use crate::Context;
use crate::cli::DoctorArgs;
use crate::config::{Config, DEFAULT_PATH};
use crate::doctor::{self, Finding, Look, Severity};
use crate::output::Outcome;
use crate::values;

/// Columns of a serial console.
const WIDTH: usize = 79;

/// All that was found.
#[derive(Debug, Serialize)]
struct Report {
    /// Of this document.
    format: u32,
    /// How many there are of each severity.
    critical: usize,
    warnings: usize,
    hints: usize,
    /// What is worst comes first.
    findings: Vec<Finding>,
}

/// Says what is missing or risky.
pub fn run(context: &Context, args: &DoctorArgs) -> anyhow::Result<Outcome> {
    if args.list {
        let kinds: Vec<_> = doctor::kinds().collect();
        context.out.result(&kinds, doctor::table_of_kinds)?;
        return Ok(Outcome::Fine);
    }
    let report = examine(context);
    context.out.result(&report, || report.text())?;
    Ok(report.outcome())
}

fn examine(context: &Context) -> Report {
    let named = context.config_file.as_deref();
    let file = named.unwrap_or(Path::new(DEFAULT_PATH));
    let problem = Config::load(named).err().map(|e| format!("{e:#}"));
    let look = Look::at(&context.sys, &context.config, file, problem);
    let mut findings = doctor::examine(&look);
    // Another file than the usual one goes with each command.
    if let Some(named) = named {
        findings
            .iter_mut()
            .for_each(|f| f.mend = with_config(&f.mend, named));
    }
    Report::new(findings)
}

fn with_config(mend: &str, file: &Path) -> String {
    let option = format!("lifeboat --config {} ", doctor::quoted(file));
    let words = mend.split_inclusive("&& ");
    let named = words.map(|command| match command.strip_prefix("lifeboat ") {
        Some(rest) => option.clone() + rest,
        None => command.to_owned(),
    });
    named.collect()
}

impl Report {
    fn new(findings: Vec<Finding>) -> Report {
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        Report {
            format: 1,
            critical: count(Severity::Critical),
            warnings: count(Severity::Warning),
            hints: count(Severity::Hint),
            findings,
        }
    }

    fn outcome(&self) -> Outcome {
        match (self.critical, self.warnings) {
            (0, 0) => Outcome::Fine,
            (0, _) => Outcome::Warnings,
            _ => Outcome::Failed,
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            let word = finding.severity.word();
            out.push_str(&wrapped(&format!("{word:<8}  "), &finding.what));
            out.push_str(&wrapped("          ", finding.why));
            // A command is not broken: it is copied.
            out.push_str(&format!("      run: {}\n\n", finding.mend));
        }
        let counts = [
            (self.critical, "critical", "critical"),
            (self.warnings, "warning", "warnings"),
            (self.hints, "hint", "hints"),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(n, ..)| *n > 0)
            .map(|(n, one, many)| values::plural(*n as u64, one, many))
            .collect();
        out.push_str(&match counts.is_empty() {
            true => "nothing is missing, and nothing is risky\n".to_owned(),
            false => format!("found: {}\n", counts.join(", ")),
        });
        out
    }
}

/// Text in lines that fit on a console, the first after `head`, the others as far in.
fn wrapped(head: &str, text: &str) -> String {
    let indent = head.chars().count();
    let mut out = head.to_owned();
    let mut column = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > indent && column + 1 + length > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            out.push(' ');
            column += 1;
        }
        // Names come from media and from the host.
        out.push_str(&crate::progress::printable(word.as_bytes()));
        column += length;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_on_a_console() {
        let text = wrapped("warning   ", &"word ".repeat(60));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(
            text.lines()
                .skip(1)
                .all(|line| line.starts_with("          w"))
        );
        assert_eq!(text.matches("word").count(), 60);
        let long = "x".repeat(200);
        assert!(wrapped("", &long).contains(&long));
    }

    #[test]
    fn commands_name_the_configuration_that_was_looked_at() {
        let with = |mend| with_config(mend, Path::new("/x y"));
        assert_eq!(with("lifeboat backup"), "lifeboat --config '/x y' backup");
        assert_eq!(
            with("systemctl unmask t && lifeboat schedule apply"),
            "systemctl unmask t && lifeboat --config '/x y' schedule apply"
        );
        assert_eq!(with("chmod 0600 lifeboat"), "chmod 0600 lifeboat");
    }
}
