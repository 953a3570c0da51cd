//! What this host did: one document per run of a backup or a verification, in `<state>/runs`. `lifeboat status`, reports,
//! metrics and messages are made of these documents, so that they need none of the targets.

mod process;
mod record;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::Id;
use bundle::document::guest::GuestKind;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use process::Process;
pub use record::Recorder;

/// Version of the documents. A reader passes over those of another version.
pub const FORMAT: u32 = 1;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`FORMAT`]
    pub format: u32,
    /// `20261126T134500.123Z-backup-4711`: time, kind and process; also the name of the document.
    pub id: String,
    /// What was done.
    pub kind: Kind,
    /// Who or what started it.
    pub trigger: Trigger,
    /// The user who started it: the one before sudo.
    pub user: String,
    /// Name of the host.
    pub host: String,
    /// `/etc/machine-id`
    pub machine_id: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; nothing for one that runs, or that was killed.
    pub ended: Option<Timestamp>,
    /// What runs it.
    pub process: Process,
    /// How it ended.
    pub result: Option<RunResult>,
    /// Why it failed as a whole.
    pub error: Option<String>,
    /// Files of the host, bytes of them, and how many of these were read.
    #[serde(default)]
    pub files: u64,
    #[serde(default)]
    pub bytes: u64,
    #[serde(default)]
    pub bytes_read: u64,
    /// The parts of a run that took longest, with their seconds, in order.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// What became of the host on each target; of guests in [`Run::guests`].
    #[serde(default)]
    pub targets: Vec<TargetRun>,
    /// What became of each guest.
    #[serde(default)]
    pub guests: Vec<GuestRun>,
    /// What went wrong and is nobody's in particular.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What else to know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A backup of the host, with or without its guests.
    Backup,
    /// A backup of the guests alone.
    Guests,
    /// A backup of single directories.
    Directories,
    /// Targets were read again.
    Verify,
    /// A restore was tried in a virtual machine.
    Drill,
}

impl Kind {
    /// As in documents and names of files.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Backup => "backup",
            Kind::Guests => "guests",
            Kind::Directories => "directories",
            Kind::Verify => "verify",
            Kind::Drill => "drill",
        }
    }
}

/// Who or what started a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// Somebody at a terminal, or a program.
    #[default]
    Command,
    /// A timer.
    Timer,
    /// A stick that was plugged in.
    Plug,
}

/// How a run, or a part of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunResult {
    /// All is well.
    Fine,
    /// Done, with something to look at.
    Warnings,
    /// Not done, or nothing to rely on.
    Failed,
}

/// A part of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// In a word: `read`, `verify`, `rescue`.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
}

/// What became of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetRun {
    /// As it was named.
    pub target: PathBuf,
    /// Whether it is a stick, or an image of one.
    pub stick: bool,
    /// The store's id, as far as it could be opened.
    pub store: Option<String>,
    /// The new restore point, or the one that was verified alone.
    pub snapshot: Option<Id>,
    /// Why there is none, or why it was not verified.
    pub error: Option<String>,
    /// What was written to it.
    pub bytes_written: u64,
    /// Whether what was read back was good; nothing when it was not read back.
    pub verified: Option<bool>,
    /// How much was read back.
    pub verified_bytes: u64,
    /// For a verification: whether all of the store was read, not a sample or one restore point.
    #[serde(default)]
    pub whole: bool,
    /// Damage in words, one line each.
    #[serde(default)]
    pub damage: Vec<String>,
    /// What else went wrong.
    #[serde(default)]
    pub problems: Vec<String>,
    /// How many restore points of this host it holds now.
    #[serde(default)]
    pub restore_points: Option<u64>,
    /// Bytes that are free on it, and all bytes of its file system, at the end.
    pub space: Option<Space>,
}

/// Room on a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// For this host to write, in bytes.
    pub free: u64,
    /// Size of the file system, in bytes.
    pub size: u64,
}

impl Space {
    /// Of the file system that holds `dir`.
    pub fn of(dir: &Path) -> Option<Space> {
        let stat = nix::sys::statvfs::statvfs(dir).ok()?;
        let unit = stat.fragment_size();
        Some(Space {
            free: stat.blocks_available().saturating_mul(unit),
            size: stat.blocks().saturating_mul(unit),
        })
    }

    /// The share that is free, 0 to 1.
    pub fn free_share(self) -> f64 {
        match self.size {
            0 => 0.0,
            size => self.free as f64 / size as f64,
        }
    }
}

/// What became of a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestRun {
    /// Its number.
    pub id: u32,
    /// VM or container.
    pub kind: GuestKind,
    /// Its name.
    pub name: Option<String>,
    /// How it ended.
    pub result: RunResult,
    /// Why it failed.
    pub error: Option<String>,
    /// Sizes of its disks or files.
    pub bytes: u64,
    /// How long its dump took.
    pub seconds: u64,
    /// When its dump was made, where that was before the run.
    #[serde(default)]
    pub dumped: Option<Timestamp>,
    /// What it was warned of.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Where it went.
    #[serde(default)]
    pub targets: Vec<TargetRun>,
}

/// What a run is doing, as seen from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its process is there.
    Running,
    /// It came to an end by itself.
    Ended(RunResult),
    /// Its process is gone without having noted an end: killed, or the machine lost its power.
    Died,
}

impl Run {
    /// What it is doing.
    pub fn state(&self) -> State {
        match self.result {
            Some(result) => State::Ended(result),
            None if self.process.is_there() => State::Running,
            None => State::Died,
        }
    }

    /// How long it took, or has been taking.
    pub fn seconds(&self) -> f64 {
        let end = self.ended.unwrap_or_else(Timestamp::now);
        end.duration_since(self.started).as_secs_f64().max(0.0)
    }

    /// Whether there is a new restore point of the host, of directories, or of a guest.
    pub fn saved_something(&self) -> bool {
        let of_guests = self.guests.iter().flat_map(|guest| &guest.targets);
        let saves = matches!(self.kind, Kind::Backup | Kind::Guests | Kind::Directories);
        saves && self.targets.iter().chain(of_guests).any(TargetRun::is_good)
    }
}

impl TargetRun {
    /// Of a target that nothing is known of yet.
    pub fn new(target: &Path) -> TargetRun {
        TargetRun {
            target: target.into(),
            stick: false,
            store: None,
            snapshot: None,
            error: None,
            bytes_written: 0,
            verified: None,
            verified_bytes: 0,
            whole: false,
            damage: Vec::new(),
            problems: Vec::new(),
            restore_points: None,
            space: None,
        }
    }

    /// Whether there is a restore point that nothing bad is known of.
    pub fn is_good(&self) -> bool {
        self.snapshot.is_some() && self.error.is_none() && self.verified != Some(false)
    }
}

/// Where the documents are.
pub fn dir(state: &Path) -> PathBuf {
    state.join("runs")
}

/// How far back an evaluation of the present looks first.
const RECENT: SignedDuration = SignedDuration::from_hours(100 * 24);

/// The runs that say how things are at present: those of the last hundred days, and all verifications and drills, as what
/// they found may still be so. All of them where the recent ones saved nothing.
pub fn recent(state: &Path) -> anyhow::Result<Vec<Run>> {
    let first = Timestamp::now().saturating_sub(RECENT)?;
    let first = first.strftime("%Y%m%dT%H%M%S").to_string();
    let wanted = |name: &str| {
        let kind = |kind: Kind| name.contains(&format!("-{}-", kind.word()));
        name >= first.as_str() || kind(Kind::Verify) || kind(Kind::Drill)
    };
    let runs = chosen(state, &wanted)?;
    match runs.iter().any(Run::saved_something) {
        true => Ok(runs),
        false => all(state),
    }
}

/// All runs, the oldest first. Documents that cannot be read are passed over: what they would have said is missing, and
/// that must not keep anybody from reading the others.
pub fn all(state: &Path) -> anyhow::Result<Vec<Run>> {
    chosen(state, &|_| true)
}

fn chosen(state: &Path, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<Vec<Run>> {
    let dir = dir(state);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            return Err(e).with_context(|| format!("cannot read the history in {}", dir.display()));
        }
    };
    let mut runs = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot read the history in {}", dir.display()))?
            .path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_none_or(|e| e != "json") || !wanted(&name) {
            continue;
        }
        match read(&path) {
            Ok(run) => runs.push(run),
            Err(error) => tracing::warn!("{error:#}"),
        }
    }
    runs.sort_by(|a: &Run, b: &Run| (a.started, &a.id).cmp(&(b.started, &b.id)));
    Ok(runs)
}

fn read(path: &Path) -> anyhow::Result<Run> {
    let wrong = || format!("cannot read the document of a run, {}", path.display());
    let text = fs::read(path).with_context(wrong)?;
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let version: Version = serde_json::from_slice(&text).with_context(wrong)?;
    anyhow::ensure!(
        version.format == FORMAT,
        "{}: format {} is not known to this version",
        path.display(),
        version.format
    );
    serde_json::from_slice(&text).with_context(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_or_foreign_is_passed_over() {
        let state = tempfile::tempdir().unwrap();
        assert!(all(state.path()).unwrap().is_empty());
        let mut run = record::tests::run();
        let dir = dir(state.path());
        fs::create_dir(&dir).unwrap();
        let write = |id: &str, run: &Run| {
            fs::write(
                dir.join(format!("{id}.json")),
                serde_json::to_vec(run).unwrap(),
            )
            .unwrap();
        };
        write("b", &run);
        run.started = "2026-11-01T00:00:00Z".parse().unwrap();
        write("c", &run);
        run.format = 2;
        write("d", &run);
        fs::write(dir.join("e.json"), "{").unwrap();
        fs::write(dir.join("f.new"), "{}").unwrap();
        let runs = all(state.path()).unwrap();
        assert_eq!(runs.len(), 2);
        assert!(runs[0].started < runs[1].started);
    }

    #[test]
    fn what_is_recent_is_told_by_the_names_of_documents() {
        let state = tempfile::tempdir().unwrap();
        let mut run = record::tests::run();
        let dir = dir(state.path());
        fs::create_dir(&dir).unwrap();
        let mut write = |id: &str, kind: Kind, days: i64, saved: bool| {
            run.kind = kind;
            run.started = Timestamp::now() - SignedDuration::from_hours(24 * days);
            run.targets = match saved {
                true => vec![TargetRun {
                    snapshot: Some(Id::of(b"x")),
                    ..TargetRun::new(Path::new("/x"))
                }],
                false => Vec::new(),
            };
            run.id = format!("{}-{id}-1", run.started.strftime("%Y%m%dT%H%M%S%.3fZ"));
            let json = serde_json::to_vec(&run).unwrap();
            fs::write(dir.join(format!("{}.json", run.id)), json).unwrap();
        };
        write("verify", Kind::Verify, 300, false);
        write("backup", Kind::Backup, 200, true);
        write("backup", Kind::Backup, 1, false);
        // Nothing was saved lately.
        assert_eq!(recent(state.path()).unwrap().len(), 3);
        write("backup", Kind::Backup, 2, true);
        let kinds: Vec<Kind> = recent(state.path())
            .unwrap()
            .iter()
            .map(|r| r.kind)
            .collect();
        assert_eq!(kinds, [Kind::Verify, Kind::Backup, Kind::Backup]);
    }

    #[test]
    fn a_run_whose_process_is_gone_died() {
        let mut run = record::tests::run();
        assert_eq!(run.state(), State::Running);
        run.process.started += 1;
        assert_eq!(run.state(), State::Died);
        run.result = Some(RunResult::Fine);
        assert_eq!(run.state(), State::Ended(RunResult::Fine));
    }
}
