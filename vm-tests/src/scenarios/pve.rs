//! What the scenarios with the golden node share: waiting for it, what its guests hold, and when they were started.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::artefacts::Artefacts;
use crate::qemu::{Nic, Running};

/// The golden node's network card: its configuration names it `enp0s16`.
pub fn nic() -> Nic {
    Nic::new("bc:24:11:00:00:01", 0x10)
}

/// Runs a script in the node that has to succeed.
pub fn ask(host: &mut Running, script: &str, seconds: u64) -> Result<String> {
    let output = host.channel.run(script, Duration::from_secs(seconds))?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Waits until the node's start is over, with all that it starts.
pub fn wait_up(host: &mut Running, log: &Artefacts) -> Result<()> {
    host.serial
        .expect("golden login:", Duration::from_secs(600))
        .context("the node does not boot")?;
    log.note(&format!("{} shows its login prompt", host.name()));
    host.channel.ready(Duration::from_secs(120))?;
    ask(host, "systemctl is-system-running --wait || true", 900)?;
    log.note(&format!("{} is up", host.name()));
    Ok(())
}

/// What the node's guests hold: disks by their hashes, containers' trees by their manifests.
pub fn guest_facts(host: &mut Running, log: &Artefacts, name: &str) -> Result<String> {
    let text = ask(host, "guest-facts", 600)?;
    fs::write(log.path(&format!("guests.{name}")), &text)?;
    let lines = |start: &str| text.lines().filter(|l| l.starts_with(start)).count();
    ensure!(
        lines("disk ") == 4 && lines("tree ") == 2 && lines("/") > 400,
        "the guests hold too little: {} disks, {} trees, {} files",
        lines("disk "),
        lines("tree "),
        lines("/")
    );
    Ok(text)
}

/// A line that the stand-ins wrote down (`/var/log/pve-stand-ins/starts.log`).
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// What happened: `qm-started`, `pct-restore-begins`, `startall-begins`...
    pub what: String,
    /// The guest.
    pub id: Option<u32>,
    /// Further fields.
    pub fields: Vec<(String, String)>,
}

impl Start {
    /// Reads a line: seconds since the epoch, seconds since the machine's start, what happened, `key=value`.
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let what = words
            .nth(2)
            .with_context(|| format!("no line of a start: {line}"))?;
        let fields: Vec<(String, String)> = words
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let id = fields.iter().find(|(key, _)| key == "id");
        Ok(Self {
            what: what.to_owned(),
            id: id.and_then(|(_, value)| value.parse().ok()),
            fields,
        })
    }

    /// The guest that was started, or that was tried to be started.
    pub fn begun(&self) -> Option<u32> {
        let names = [
            "qm-started",
            "pct-started",
            "qm-start-failed",
            "pct-start-failed",
        ];
        names.contains(&self.what.as_str()).then_some(self.id)?
    }

    /// Whether a guest was started that was whole.
    pub fn succeeded(&self) -> bool {
        matches!(self.what.as_str(), "qm-started" | "pct-started")
    }
}

/// What was written down since the machine's start.
pub fn starts(host: &mut Running, log: &Artefacts, name: &str) -> Result<Vec<Start>> {
    // Lines of earlier starts of the machine are older than it.
    let text = ask(
        host,
        "awk -v boot=$(($(date +%s) - $(cut -d. -f1 /proc/uptime) - 1)) '$1 >= boot' /var/log/pve-stand-ins/starts.log",
        30,
    )?;
    fs::write(log.path(&format!("starts.{name}")), &text)?;
    text.lines().map(Start::parse).collect()
}

/// No guest was started, nor tried to be, before it was restored; each of `wanted` was restored first, then started, and held
/// at that moment what it held before (`facts`).
pub fn ensure_started_whole(starts: &[Start], wanted: &[u32], facts: &str) -> Result<()> {
    for (at, start) in starts.iter().enumerate() {
        let Some(id) = start.begun() else { continue };
        ensure!(
            start.succeeded(),
            "guest {id} was to start and could not: {start:?}"
        );
        let restored = starts.iter().take(at).any(|s| {
            s.id == Some(id) && matches!(s.what.as_str(), "qmrestore-done" | "pct-restore-done")
        });
        ensure!(restored, "guest {id} was started before it was restored");
        for (key, hash) in start.fields.iter().filter(|(_, value)| value.len() == 64) {
            // A container's manifest is compared by `guest_facts`.
            let disk = format!("disk {id} {key} ");
            if let Some(line) = facts.lines().find(|line| line.starts_with(&disk)) {
                ensure!(
                    line.ends_with(hash.as_str()),
                    "{key} of guest {id} held something else when it was started"
                );
            }
        }
    }
    for id in wanted {
        ensure!(
            starts.iter().any(|s| s.begun() == Some(*id)),
            "guest {id} was not started"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> Vec<Start> {
        let line = |text: &&str| Start::parse(&format!("1.0 2.0 {text}")).unwrap();
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_guest_that_is_started_too_early_or_with_another_disk_is_noticed() {
        let (good, other) = ("a".repeat(64), "b".repeat(64));
        let facts = format!("disk 100 scsi0 4096 {good}\ntree 200\n/\td\n");
        let started = format!("qm-started id=100 scsi0={good}");
        let fine = log(&["qmrestore-done id=100", "startall-begins", &started]);
        ensure_started_whole(&fine, &[100], &facts).unwrap();
        for (lines, text) in [
            (
                vec![started.as_str(), "qmrestore-done id=100"],
                "before it was restored",
            ),
            (vec!["qmrestore-done id=100"], "was not started"),
            (
                vec!["qmrestore-done id=100", "qm-start-failed id=100"],
                "could not",
            ),
            (vec!["pct-restore-done id=200", started.as_str()], "before"),
        ] {
            let error = ensure_started_whole(&log(&lines), &[100], &facts).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
        let changed = format!("qm-started id=100 scsi0={other}");
        let error =
            ensure_started_whole(&log(&["qmrestore-done id=100", &changed]), &[100], &facts);
        assert!(error.unwrap_err().to_string().contains("something else"));
    }
}
