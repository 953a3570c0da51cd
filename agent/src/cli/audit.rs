//! Options of `lifeboat audit`.

use clap::{Args, Subcommand};

use crate::audit::chain::Head;

/// Options of `lifeboat audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// What to do
    #[command(subcommand)]
    pub what: AuditCommand,
}

/// What `lifeboat audit` does.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show who did what, the newest last
    Show(AuditShowArgs),
    /// Check that no entry was changed, removed or moved
    Verify(AuditVerifyArgs),
}

/// Options of `lifeboat audit show`.
#[derive(Debug, Args)]
pub struct AuditShowArgs {
    /// Only what is younger: 7d, 12h, or a date as 2026-11-26
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

/// Options of `lifeboat audit verify`.
#[derive(Debug, Args)]
pub struct AuditVerifyArgs {
    /// An entry that was kept elsewhere, as `lifeboat audit verify` and the journal show it; repeat for several
    #[arg(long, value_name = "NUMBER:HASH")]
    pub expect: Vec<Head>,
}
