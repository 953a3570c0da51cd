//! vzdump: one call per guest, its archive through a pipe.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use bundle::backup::Backup;
use layout::system::{Cmd, System, SystemError};

use super::settings::Mode;
use super::take::{Taken, take};
use crate::proxmox::Guest;
use crate::signals;

/// Lines of the log that are kept: those of a guest, without its progress.
const LINES: usize = 500;

/// What vzdump said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// Its lines, without those that only tell how far it is.
    pub lines: Vec<String>,
    /// What it warned of.
    pub warnings: Vec<String>,
    /// Why the dump failed.
    pub error: Option<String>,
}

impl Log {
    /// `INFO: `, `WARN: ` and `ERROR: ` begin its lines; those of progress are `INFO:   3% (1.0 GiB of ...`.
    fn line(&mut self, text: &str) {
        tracing::info!("vzdump: {text}");
        let text = text.trim_end();
        let progress = text.strip_prefix("INFO:").is_some_and(|rest| {
            let rest = rest.trim_start();
            let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            digits.len() < rest.len() && digits.starts_with("% (")
        });
        if progress {
            return;
        }
        if let Some(warning) = text.strip_prefix("WARN: ") {
            self.warnings.push(warning.to_owned());
        } else if let Some(error) = text.strip_prefix("ERROR: ") {
            // `Backup of VM 100 failed - reason` sums the others up.
            let failed = error
                .strip_prefix("Backup of VM ")
                .and_then(|rest| rest.split_once(" failed - "));
            match failed {
                Some((_, reason)) => self.error = Some(reason.to_owned()),
                None => drop(self.error.get_or_insert_with(|| error.to_owned())),
            }
        } else if text.starts_with("INFO: mode failure") || text.starts_with("INFO: trying '") {
            self.warnings
                .push(text.trim_start_matches("INFO: ").to_owned());
        }
        if self.lines.len() < LINES {
            self.lines.push(text.to_owned());
        }
    }
}

/// The command. With `--dumpdir`, neither a storage in `/etc/vzdump.conf` (which does not go with `--stdout`) nor its
/// retention counts, and with `keep-all` nothing of the admin's own dumps is removed.
fn command(guest: &Guest, mode: Mode, dir: &Path) -> Cmd {
    Cmd::new("vzdump")
        .arg(guest.id.to_string())
        .args(["--mode", mode.word(), "--compress", "0", "--stdout"])
        .arg("--dumpdir")
        .path(dir)
        .args(["--prune-backups", "keep-all=1"])
        .stop(signals::stopped)
}

/// Dumps a guest into a backup. What it returns is complete, and vzdump was content with it.
pub fn vzdump(
    sys: &dyn System,
    guest: &Guest,
    mode: Mode,
    backup: &mut Backup<'_>,
) -> (anyhow::Result<Taken>, Log) {
    let log = Mutex::new(Log::default());
    let result = run(sys, guest, mode, backup, &log);
    let log = log.into_inner().unwrap_or_else(PoisonError::into_inner);
    (result, log)
}

fn run(
    sys: &dyn System,
    guest: &Guest,
    mode: Mode,
    backup: &mut Backup<'_>,
    log: &Mutex<Log>,
) -> anyhow::Result<Taken> {
    // vzdump copies a container there that it cannot take a snapshot of: that may be large.
    let dir = tempfile::Builder::new()
        .prefix("lifeboat-vzdump-")
        .tempdir_in("/var/tmp")
        .context("cannot make a directory for vzdump in /var/tmp")?;
    let mut taken = None;
    let mut at_end = false;
    let ended = sys.stream(
        &command(guest, mode, dir.path()),
        &mut |stream| {
            let mut stream = Watched {
                inner: stream,
                ended: false,
            };
            let result = take(guest.kind, &mut stream, backup);
            at_end = stream.ended;
            let content = result.is_ok();
            taken = Some(result);
            content
        },
        &|line| {
            let log = log.lock();
            log.unwrap_or_else(PoisonError::into_inner).line(line);
        },
    );
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    // An archive that could not be taken is why vzdump was stopped; one that ended is what vzdump made of it.
    let taken = match taken {
        Some(Err(error)) if !at_end => return Err(error),
        taken => taken,
    };
    match (&log.error, ended) {
        // It may end well all the same.
        (Some(reason), Ok(_) | Err(SystemError::Failed { .. })) => {
            return Err(anyhow!("vzdump: {reason}"));
        }
        (_, ended) => drop(ended?),
    }
    taken
        .context("vzdump wrote no archive")?
        .context("vzdump ended well, but its archive is not whole")
}

/// A stream of which is known whether it was read to its end.
struct Watched<'s> {
    inner: &'s mut dyn Read,
    ended: bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.ended |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_what_failed_and_what_to_know() {
        let mut log = Log::default();
        for line in [
            "INFO: starting new backup job: vzdump 100 --stdout",
            "INFO: Starting Backup of VM 100 (qemu)",
            "INFO:   3% (1.0 GiB of 32.0 GiB) in 3s, read: 345.7 MiB/s, write: 230.1 MiB/s",
            "INFO: 100% (32.0 GiB of 32.0 GiB) in 1m 40s, read: ...",
            "WARN: EFI disk without 'ms-cert=2023k' option",
            "INFO: mode failure - some volumes do not support snapshots",
            "ERROR: VM 100 qmp command 'backup' failed - got timeout",
            "ERROR: Backup of VM 100 failed - got timeout",
            "INFO: Failed at 2026-11-20 18:01:52",
        ] {
            log.line(line);
        }
        assert_eq!(log.error.as_deref(), Some("got timeout"));
        assert_eq!(log.warnings.len(), 2);
        assert_eq!(log.lines.len(), 7);
    }

    #[test]
    fn the_admins_own_dumps_stay() {
        let guest = crate::proxmox::guests::parse(100, crate::proxmox::guests::Kind::Qemu, "");
        let line = command(&guest, Mode::Snapshot, Path::new("/var/tmp/x")).display();
        assert_eq!(
            line,
            "vzdump 100 --mode snapshot --compress 0 --stdout --dumpdir /var/tmp/x --prune-backups keep-all=1"
        );
    }
}
