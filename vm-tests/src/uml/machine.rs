//! Starts User Mode Linux on the machine's own root directory, read-only, with `uml-floor` as process 1.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::case::Case;
use crate::artefacts::Artefacts;
use crate::process::{self, Cmd};

/// Where Debian's package has the modules.
const MODULES: &str = "/usr/lib/uml/modules";

/// Lets UML save the registers of newer processors; built by build.rs.
const SHIM: &str = env!("UML_PTRACE_SHIM");

/// The programs that a case needs.
pub struct Floor {
    /// `uml-floor`.
    pub program: PathBuf,
}

/// Why the floor cannot be run here; `None`: it can.
pub fn missing() -> Option<String> {
    let programs = [
        "linux.uml",
        "setpriv",
        "lvm",
        "thin_check",
        "mkfs.xfs",
        "mkfs.vfat",
        "mke2fs",
        "sgdisk",
        "sfdisk",
        "mkfs.btrfs",
        "mkswap",
        "mdadm",
        "cryptsetup",
    ];
    let absent: Vec<&str> = programs
        .into_iter()
        .filter(|p| !process::installed(p))
        .collect();
    if !absent.is_empty() {
        return Some(format!("not installed: {}", absent.join(", ")));
    }
    (!Path::new(MODULES).is_dir()).then(|| format!("{MODULES} is missing"))
}

/// The limit is for a machine that hangs, on a busy computer: each step is told on the console, and takes seconds. Longer than
/// any tool may take in it, so that it says itself what takes long.
const SILENCE: Duration = Duration::from_secs(300);

/// A machine was seen to spin for ever in the middle of a program (mkfs.xfs, once; the cause is not known, User Mode
/// Linux itself is suspected). A machine that fell silent is started anew, once, and that is said; one that ended is never.
pub(super) const ATTEMPTS: u32 = 2;

/// Kills a machine with the processes that it made for its own: stopped under ptrace, they would outlive it.
fn kill_tree(id: u32) {
    use nix::sys::signal::{Signal, kill};
    let mut all = vec![id as i32];
    let mut at = 0;
    while let Some(parent) = all.get(at).copied() {
        at += 1;
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
            .unwrap_or_default();
        all.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
    }
    for pid in all {
        // One that is gone already is no matter.
        let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// What is done with a layout file besides restoring it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// It is restored, twice.
    Restore,
    /// The restore is killed before every `stride`-th step, and cut within every tree and image.
    Cuts {
        /// 1: before each.
        stride: usize,
    },
    /// Every `stride`-th call of a restore through the door to the machine fails.
    Errors {
        /// 1: each.
        stride: usize,
    },
    /// It is restored and recorded; the recording is kept as `host.json`.
    Record,
}

impl Task {
    fn environment(self, log: &Artefacts) -> Vec<(&'static str, String)> {
        match self {
            Task::Record => vec![
                ("FLOOR_TASK", "record".to_owned()),
                ("FLOOR_OUT", log.dir().display().to_string()),
            ],
            Task::Restore => Vec::new(),
            Task::Cuts { stride } => vec![
                ("FLOOR_TASK", "cuts".to_owned()),
                ("FLOOR_STRIDE", stride.to_string()),
            ],
            Task::Errors { stride } => vec![
                ("FLOOR_TASK", "errors".to_owned()),
                ("FLOOR_STRIDE", stride.to_string()),
            ],
        }
    }
}

/// Runs one layout file. The console's text is kept in the artefacts.
pub fn run(file: &Path, task: Task, floor: &Floor, log: &Artefacts) -> Result<()> {
    let (case, _) = Case::load(file)?;
    for attempt in 1..=ATTEMPTS {
        new_disks(&case, log)?;
        let (ended, text) = start(file, &case, floor, log, "console", &task.environment(log))?;
        drop_disks(&case, log);
        if ended && attempt < ATTEMPTS && crashed(&text) {
            // Seen once in some hundred runs, in lvm, at a place where it otherwise never does. Twice is no accident.
            let about = "a program of the machine crashed (SIGSEGV): once more, on new disks";
            log.note(about);
            eprintln!("note: {}: {about}", log.dir().display());
            continue;
        }
        if ended {
            for line in text
                .lines()
                .filter(|l| l.starts_with("floor: of ") || l.contains(" boundaries between "))
            {
                log.note(line);
            }
            return verdict(&text, log);
        }
        silent(attempt, &text, log)?;
    }
    Ok(())
}

/// Whether the case failed because a tool was ended by a segmentation fault: 128 and the signal's number.
fn crashed(text: &str) -> bool {
    text.lines()
        .any(|line| line.starts_with("floor: failed") && line.contains("failed with status 139"))
}

/// Says that a machine fell silent; at the last attempt that is an error.
pub(super) fn silent(attempt: u32, text: &str, log: &Artefacts) -> Result<()> {
    let last = process::tail(text, 500);
    let about = format!(
        "attempt {attempt}: the machine was silent for {} s and was killed; its last words: {last}",
        SILENCE.as_secs()
    );
    log.note(&about);
    if attempt == ATTEMPTS {
        bail!("{about}");
    }
    eprintln!("note: {}: {about}", log.dir().display());
    Ok(())
}

pub(super) fn disk_path(index: usize, log: &Artefacts) -> PathBuf {
    log.path(&format!("disk{index}.raw"))
}

pub(super) fn new_disks(case: &Case, log: &Artefacts) -> Result<()> {
    for (index, disk) in case.disks.iter().enumerate() {
        crate::disk::blank(&disk_path(index, log), disk.mib << 20)?;
    }
    Ok(())
}

pub(super) fn drop_disks(case: &Case, log: &Artefacts) {
    for index in 0..case.disks.len() {
        // Sparse, but of no use once the case is judged.
        let _ = std::fs::remove_file(disk_path(index, log));
    }
}

/// Runs a machine to its end, or until it falls silent (`false`). Returns what it said.
pub(super) fn start(
    file: &Path,
    case: &Case,
    floor: &Floor,
    log: &Artefacts,
    name: &str,
    environment: &[(&str, String)],
) -> Result<(bool, String)> {
    // Disks with other sectors are made of memory.
    let memory: u64 = case
        .disks
        .iter()
        .filter(|d| d.sector_size.is_some())
        .map(|d| d.mib)
        .sum();
    let mut command = Cmd::new("linux.uml")
        .arg(format!("mem={}M", 768 + memory))
        .args(["rootfstype=hostfs", "rootflags=/", "ro", "quiet"]);
    for (index, disk) in case.disks.iter().enumerate() {
        if disk.sector_size.is_some() {
            continue;
        }
        command = command.arg(format!("ubd{index}={}", disk_path(index, log).display()));
    }
    let program = floor
        .program
        .canonicalize()
        .context("uml-floor is not built")?;
    command = command
        .arg(format!("init={}", program.display()))
        // The kernel hands what it does not know to process 1 as environment.
        .arg(format!("FLOOR_CASE={}", file.canonicalize()?.display()))
        .args(
            environment
                .iter()
                .map(|(key, value)| format!("{key}={value}")),
        )
        .args(["con=null", "con0=null,fd:1"])
        .env("LD_PRELOAD", SHIM)
        .env("TMPDIR", "/dev/shm");
    let console = log.dir().join(format!("{name}.log"));
    // What an earlier attempt said is kept, but not judged again.
    if console.exists() {
        std::fs::rename(&console, log.dir().join(format!("{name}.earlier.log")))?;
    }
    let mut machine = process::spawn(&command.output_to(&console), log)?;
    let started = Instant::now();
    let (mut said, mut heard) = (0, Instant::now());
    let ended = loop {
        if machine.try_wait()?.is_some() {
            break true;
        }
        let length = std::fs::metadata(&console).map_or(0, |m| m.len());
        if length != said {
            (said, heard) = (length, Instant::now());
        }
        if heard.elapsed() > SILENCE {
            kill_tree(machine.id());
            machine.wait()?;
            break false;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    log.note(&format!(
        "  {} after {:.1} s",
        if ended { "ended" } else { "killed" },
        started.elapsed().as_secs_f64()
    ));
    let text = String::from_utf8_lossy(&std::fs::read(&console)?).into_owned();
    Ok((ended, text))
}

/// The machine's exit status says nothing: its process 1 does.
pub(super) fn verdict(text: &str, log: &Artefacts) -> Result<()> {
    if text.lines().any(|line| line.trim() == "floor: passed") {
        return Ok(());
    }
    let reason = text
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("floor: failed: "));
    match reason {
        Some(reason) => bail!(
            "{reason} (console: {})",
            log.dir().join("console.log").display()
        ),
        None => bail!(
            "the machine ended without a verdict: {}",
            process::tail(text, 2000)
        ),
    }
}
