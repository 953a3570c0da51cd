//! What a check finds.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A restore would fail, or there is nothing to restore.
    Critical,
    /// Something will go wrong, or has.
    Warning,
    /// Worth a thought; no reason to be alarmed.
    Hint,
}

impl Severity {
    /// As shown and documented.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Hint => "hint",
        }
    }
}

/// One thing that a check looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// Stays the same from version to version: for programs that read findings.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, in general.
    pub about: &'static str,
    /// Why it matters, in one sentence.
    pub why: &'static str,
}

impl Kind {
    /// Found.
    pub fn found(&self, what: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding {
            id: self.id,
            severity: self.severity,
            what: what.into(),
            why: self.why,
            mend: mend.into(),
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of its [`Kind`].
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and with what.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// The command that mends it, or that says more where none can.
    pub mend: String,
}

/// A word of a command as a shell takes it.
pub fn quoted(word: impl AsRef<std::path::Path>) -> String {
    let word = word.as_ref().display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+=,%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("/mnt/a-b_1"), "/mnt/a-b_1");
        assert_eq!(quoted("/mnt/my drive"), "'/mnt/my drive'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
