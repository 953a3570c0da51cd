//! Writes the document of a run: when it begins, and when it ends. That history cannot be written must not keep a host
//! from being saved: it is said, and that is all.

use std::fs;
use std::path::{Path, PathBuf};

use bundle::document::HostIdentity;
use jiff::Timestamp;

use super::{FORMAT, Kind, Process, Run, RunResult, Trigger, dir};
use crate::output::Outcome;
use crate::state;

/// How many documents stay: three years of an hourly backup.
const KEPT: usize = 26_280;

/// The run of this process.
#[derive(Debug)]
pub struct Recorder {
    state: PathBuf,
    /// What is known of it so far.
    pub run: Run,
}

impl Recorder {
    /// Notes that a run has begun.
    pub fn start(state: &Path, kind: Kind, trigger: Trigger, host: &HostIdentity) -> Recorder {
        let started = Timestamp::now();
        let process = Process::own();
        let id = format!(
            "{}-{}-{}",
            started.strftime("%Y%m%dT%H%M%S%.3fZ"),
            kind.word(),
            process.pid
        );
        let recorder = Recorder {
            state: state.into(),
            run: Run {
                format: FORMAT,
                id,
                kind,
                trigger,
                user: user(),
                host: host.hostname.clone(),
                machine_id: host.machine_id.clone(),
                started,
                ended: None,
                process,
                result: None,
                error: None,
                files: 0,
                bytes: 0,
                bytes_read: 0,
                phases: Vec::new(),
                targets: Vec::new(),
                guests: Vec::new(),
                warnings: Vec::new(),
                notes: Vec::new(),
            },
        };
        recorder.write();
        recorder
    }

    /// Notes how it ended, and gives the whole document.
    pub fn finish(mut self, result: &anyhow::Result<Outcome>) -> Run {
        self.run.ended = Some(Timestamp::now());
        self.run.result = Some(match result {
            Ok(Outcome::Fine) => RunResult::Fine,
            Ok(Outcome::Warnings) => RunResult::Warnings,
            Ok(Outcome::Failed | Outcome::Own(_)) | Err(_) => RunResult::Failed,
        });
        self.run.error = result.as_ref().err().map(|error| format!("{error:#}"));
        self.write();
        remove_oldest(&dir(&self.state));
        self.run
    }

    fn write(&self) {
        let path = dir(&self.state).join(format!("{}.json", self.run.id));
        let written = serde_json::to_vec_pretty(&self.run)
            .map_err(std::io::Error::from)
            .and_then(|json| state::write(&self.state, &path, &json));
        if let Err(error) = written {
            // A user who saves directories of their own has no history; root should have one.
            let text = format!("the run is not noted in {}: {error}", path.display());
            match nix::unistd::geteuid().is_root() {
                true => eprintln!("warning: {text}"),
                false => tracing::info!("{text}"),
            }
        }
    }
}

/// Names of documents begin with their time, so that the first ones are the oldest.
fn remove_oldest(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    let names = entries.filter_map(Result::ok).map(|e| e.path());
    let mut names: Vec<PathBuf> = names
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    names.sort();
    let surplus = names.len().saturating_sub(KEPT);
    for name in &names[..surplus] {
        let _ = fs::remove_file(name);
    }
}

/// Who is at the terminal: sudo and pkexec say it.
pub fn user() -> String {
    let uid = nix::unistd::getuid();
    let of_uid = |uid: nix::unistd::Uid| nix::unistd::User::from_uid(uid).ok().flatten();
    let before = match uid.is_root() {
        true => std::env::var("SUDO_USER").ok().or_else(|| {
            let uid = std::env::var("PKEXEC_UID").ok()?.parse().ok()?;
            Some(of_uid(nix::unistd::Uid::from_raw(uid))?.name)
        }),
        false => None,
    };
    before
        .or_else(|| Some(of_uid(uid)?.name))
        .unwrap_or_else(|| uid.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn host() -> HostIdentity {
        HostIdentity {
            machine_id: "m".into(),
            hostname: "pve1".into(),
        }
    }

    pub fn run() -> Run {
        let state = tempfile::tempdir().unwrap();
        Recorder::start(state.path(), Kind::Backup, Trigger::Timer, &host()).run
    }

    #[test]
    fn a_run_is_there_from_its_beginning_and_complete_at_its_end() {
        let state = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(state.path(), Kind::Backup, Trigger::Timer, &host());
        let begun = super::super::all(state.path()).unwrap();
        assert_eq!(begun, std::slice::from_ref(&recorder.run));
        assert_eq!(begun[0].state(), super::super::State::Running);
        let ended = recorder.finish(&Err(
            anyhow::anyhow!("no target").context("nothing was saved")
        ));
        assert_eq!(ended.result, Some(RunResult::Failed));
        assert_eq!(ended.error.as_deref(), Some("nothing was saved: no target"));
        assert_eq!(super::super::all(state.path()).unwrap(), [ended]);
    }

    #[test]
    fn the_oldest_documents_go() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..KEPT + 2 {
            fs::write(dir.path().join(format!("{n:06}.json")), "").unwrap();
        }
        fs::write(dir.path().join("000000.txt"), "").unwrap();
        remove_oldest(dir.path());
        let left = |name: &str| dir.path().join(name).exists();
        assert!(!left("000001.json") && left("000002.json") && left("000000.txt"));
    }
}
