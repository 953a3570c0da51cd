//! What is missing on a host, or risky, for its backups and for their restore. Every check is a file in `checks`: it is
//! given what is known ([`Look`]) and says what it finds.

mod checks;
mod finding;
mod look;
pub mod place;
mod targets;
#[cfg(test)]
mod tests;

pub use finding::{Finding, Kind, Severity, quoted};
pub use look::Look;
pub use targets::Target;

/// One check.
pub struct Check {
    /// All that it may find.
    pub kinds: &'static [Kind],
    /// Whether it depends on the settings, so that it makes no sense while they cannot be read.
    pub settings: bool,
    /// Looks.
    pub run: fn(&Look) -> Vec<Finding>,
}

/// Runs all checks: what is worst comes first.
pub fn examine(look: &Look) -> Vec<Finding> {
    let checks = checks::ALL
        .iter()
        .filter(|check| look.problem.is_none() || !check.settings);
    let mut found: Vec<Finding> = checks.flat_map(|check| (check.run)(look)).collect();
    found.sort_by_key(|finding| finding.severity);
    found
}

/// All that can be found, in the order of the checks.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    checks::ALL.iter().flat_map(|check| check.kinds)
}

/// What can be found as a table, for people and for `docs/doctor.md`.
pub fn table_of_kinds() -> String {
    let mut out = String::from("| id | severity | what | why |\n|---|---|---|---|\n");
    for kind in kinds() {
        out.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            kind.id,
            kind.severity.word(),
            kind.about,
            kind.why
        ));
    }
    out
}
