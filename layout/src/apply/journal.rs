//! One line of JSON per event, for the log that is kept after a restore.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::plan::Step;

/// Writes a line. The journal is a help, no condition: a restore goes on when it cannot be written.
pub(super) fn line(journal: &mut dyn Write, index: usize, step: &Step, event: &str, detail: &str) {
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let value = serde_json::json!({
        "time": time, "step": index + 1, "event": event, "detail": detail, "what": step.to_string(), "data": step,
    });
    if let Err(error) = writeln!(journal, "{value}").and_then(|()| journal.flush()) {
        tracing::warn!(%error, "the restore journal cannot be written");
    }
}
