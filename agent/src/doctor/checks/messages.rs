//! Somebody is told.

use std::path::PathBuf;

use crate::config::Config;
use crate::doctor::finding::quoted;
use crate::doctor::{Check, Finding, Kind, Look, Severity};

const NOBODY: Kind = Kind {
    id: "nobody-is-told",
    severity: Severity::Warning,
    about: "neither an address for mail nor a webhook is configured",
    why: "When backups fail, or are overdue, nobody gets to know.",
};

pub const CHECK: Check = Check {
    kinds: &[NOBODY],
    settings: true,
    run,
};

/// The table of messages, if this version has one.
fn notify(config: &Config) -> Option<toml::Table> {
    let table = toml::Table::try_from(config).ok()?;
    table.get("notify")?.as_table().cloned()
}

/// To whom mail goes; empty: nobody.
pub fn mail_to(config: &Config) -> Option<String> {
    let table = notify(config)?;
    table.get("mail-to")?.as_str().map(str::to_owned)
}

/// The program that takes mail.
pub fn sendmail(config: &Config) -> PathBuf {
    let table = notify(config).unwrap_or_default();
    let path = table.get("sendmail").and_then(|path| path.as_str());
    path.unwrap_or("/usr/sbin/sendmail").into()
}

fn run(look: &Look) -> Vec<Finding> {
    let Some(table) = notify(look.config) else {
        return Vec::new();
    };
    let hooks = table.get("webhooks").and_then(|hooks| hooks.as_array());
    let mail = mail_to(look.config).is_some_and(|to| !to.is_empty());
    if mail || hooks.is_some_and(|hooks| !hooks.is_empty()) {
        return Vec::new();
    }
    let mend = format!(
        "editor {}  # [notify] mail-to = \"root\"",
        quoted(look.file)
    );
    vec![NOBODY.found("nobody is told when a backup fails", mend)]
}
