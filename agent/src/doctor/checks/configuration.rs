//! The configuration: it can be read, only root can change it, and nobody else reads secrets in it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::doctor::finding::quoted;
use crate::doctor::{Check, Finding, Kind, Look, Severity};

const WRONG: Kind = Kind {
    id: "configuration-wrong",
    severity: Severity::Critical,
    about: "the configuration cannot be read, or has a setting that does not exist",
    why: "No command works with it, a scheduled backup no more than one that is started by hand.",
};
const CHANGEABLE: Kind = Kind {
    id: "configuration-changeable",
    severity: Severity::Critical,
    about: "others than root can change the configuration",
    why: "It says which programs root runs before a backup, so whoever changes it is root.",
};
const READABLE: Kind = Kind {
    id: "configuration-readable",
    severity: Severity::Warning,
    about: "the configuration holds a password or a token, and others than root can read it",
    why: "Whoever knows the secret can send messages in this host's name, or read them.",
};

pub const CHECK: Check = Check {
    kinds: &[WRONG, CHANGEABLE, READABLE],
    settings: false,
    run,
};

fn run(look: &Look) -> Vec<Finding> {
    let file = quoted(look.file);
    let mut found = Vec::new();
    if let Some(problem) = &look.problem {
        found.push(WRONG.found(problem.trim(), format!("editor {file}")));
    }
    let Ok(meta) = std::fs::metadata(look.file) else {
        return found;
    };
    let mode = meta.permissions().mode();
    let owner = meta.uid();
    if mode & 0o022 != 0 || (owner != 0 && owner != nix::unistd::geteuid().as_raw()) {
        let what = format!(
            "{} belongs to user {owner} and has the mode {:04o}",
            look.file.display(),
            mode & 0o7777
        );
        found.push(CHANGEABLE.found(what, format!("chown root: {file} && chmod 0600 {file}")));
    } else if mode & 0o044 != 0 {
        let text = std::fs::read_to_string(look.file).unwrap_or_default();
        if let Some(name) = secret(&text) {
            let what = format!(
                "{} holds a secret ({name}) and has the mode {:04o}",
                look.file.display(),
                mode & 0o7777
            );
            found.push(READABLE.found(what, format!("chmod 0600 {file}")));
        }
    }
    found
}

/// The first setting that sounds like a secret.
fn secret(text: &str) -> Option<String> {
    let table: toml::Table = toml::from_str(text).ok()?;
    in_table(&table)
}

fn in_table(table: &toml::Table) -> Option<String> {
    const SECRET: [&str; 3] = ["token", "password", "secret"];
    table.iter().find_map(|(name, value)| match value {
        toml::Value::String(text) if !text.is_empty() && !name.ends_with("-file") => {
            let word = SECRET.iter().any(|word| name.contains(word));
            // The path of a webhook is its password.
            (word || (name == "url" && text.starts_with("http"))).then(|| name.clone())
        }
        toml::Value::Table(inner) => in_table(inner),
        toml::Value::Array(all) => all
            .iter()
            .filter_map(toml::Value::as_table)
            .find_map(in_table),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::secret;

    #[test]
    fn secrets_are_told_by_their_names() {
        let hook = "[notify]\nmail-to = 'root'\n[[notify.webhooks]]\nkind = 'slack'\n";
        assert_eq!(secret(hook), None);
        let with = |line: &str| secret(&format!("{hook}{line}\n"));
        assert_eq!(with("url = 'https://x/secret'"), Some("url".into()));
        assert_eq!(with("token = 'x'"), Some("token".into()));
        assert_eq!(with("token-file = '/etc/x'"), None);
        assert_eq!(with("token = ''"), None);
    }
}
