//! Commands whose output is too large to be kept.

use std::io::Read;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::host::{code, judge, prepare, wait};
use super::pipe::{Out, lines};
use super::{Cmd, Output, SystemError};

/// How long a command that was asked to end may take to clean up: vzdump removes snapshots and thaws file systems.
pub(super) const GRACE: Duration = Duration::from_secs(180);
/// How long one may take that has written all: the same, and what hooks of the admin do then.
const LAST: Duration = Duration::from_secs(3600);

/// [`super::System::stream`] of this machine.
pub(super) fn run(
    command: &Cmd,
    take: &mut dyn FnMut(&mut dyn Read) -> bool,
    line: &(dyn Fn(&str) + Sync),
) -> Result<Output, SystemError> {
    run_with(command, take, line, GRACE)
}

fn run_with(
    command: &Cmd,
    take: &mut dyn FnMut(&mut dyn Read) -> bool,
    line: &(dyn Fn(&str) + Sync),
    grace: Duration,
) -> Result<Output, SystemError> {
    let start_error = |source| SystemError::Start {
        command: command.display(),
        source,
    };
    let Some((program, args)) = command.argv.split_first() else {
        return Err(start_error(std::io::ErrorKind::InvalidInput.into()));
    };
    let start = Instant::now();
    let mut child = prepare(command, program, args)
        .spawn()
        .map_err(start_error)?;
    let stderr = child.stderr.take();
    let stdout = child.stdout.take();
    // Nothing is given to it to read.
    drop(child.stdin.take());
    let over = AtomicBool::new(false);
    let (status, stderr) = std::thread::scope(|scope| {
        let lines = scope.spawn(|| lines(stderr, line, &over));
        let content = match stdout {
            Some(pipe) => take(&mut Out { pipe, command }),
            None => false,
        };
        let status = if content {
            wait(&mut child, LAST)
        } else {
            ask_to_end(&child, command.group);
            wait(&mut child, grace)
        };
        over.store(true, Ordering::Release);
        (status, lines.join().unwrap_or_default())
    });
    let status = status.map_err(start_error)?;
    judge(
        command,
        Output {
            stdout: Vec::new(),
            stderr,
            status: code(status),
            duration: start.elapsed(),
        },
    )
}

/// Asks a command to end, or all of its group, so that it can clean up.
pub(super) fn ask_to_end(child: &Child, group: bool) {
    if group {
        return signal_group(child, Signal::SIGTERM);
    }
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

/// Sends a signal to the process group that the command is the first of.
pub(super) fn signal_group(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // All of it may have ended by itself.
        let _ = killpg(Pid::from_raw(pid), signal);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::{Host, System};
    use super::*;

    fn shell(script: &str) -> Cmd {
        Cmd::new("sh").args(["-c", script])
    }

    #[test]
    fn output_and_lines_are_given_on() {
        let script = "echo INFO: one >&2; printf 'part\\rpart2\\n' >&2; head -c 300000 /dev/zero; echo end >&2; exit 3";
        let lines = Mutex::new(Vec::new());
        let mut bytes = 0;
        let output = Host.stream(
            &shell(script).accept(3),
            &mut |pipe| {
                bytes = std::io::copy(pipe, &mut std::io::sink()).unwrap();
                true
            },
            &|line| lines.lock().unwrap().push(line.to_owned()),
        );
        let output = output.unwrap();
        assert_eq!((bytes, output.status), (300_000, 3));
        assert!(output.stderr.ends_with(b"end\n"));
        assert_eq!(
            lines.into_inner().unwrap(),
            ["INFO: one", "part", "part2", "end"]
        );
        let failed = Host.stream(&shell("echo no >&2; exit 3"), &mut |_| true, &|_| ());
        assert!(failed.unwrap_err().to_string().contains("no"));
    }

    #[test]
    fn one_that_hangs_ends_when_it_is_to() {
        let start = Instant::now();
        let command = shell("echo begun; exec sleep 60").stop(|| true);
        let mut read = String::new();
        let result = Host.stream(
            &command,
            &mut |pipe| pipe.read_to_string(&mut read).is_ok(),
            &|_| (),
        );
        assert!(result.is_err() && start.elapsed() < Duration::from_secs(20));
        assert_eq!(read, "begun\n");
    }

    #[test]
    fn one_that_does_not_end_is_killed_and_nobody_waits_for_what_it_left_running() {
        let start = Instant::now();
        let command = shell("trap '' TERM; sleep 60 & while :; do sleep 1; done");
        let grace = Duration::from_millis(300);
        let result = run_with(&command, &mut |_| false, &|_| (), grace);
        assert!(result.is_err() && start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn who_is_not_wanted_any_more_can_clean_up() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("cleaned");
        let script = format!(
            "trap 'touch {}; exit 1' TERM; echo x; while :; do sleep 0.05; done",
            mark.display()
        );
        let result = Host.stream(
            &shell(&script),
            &mut |pipe| {
                pipe.read_exact(&mut [0]).unwrap();
                false
            },
            &|_| (),
        );
        assert!(result.is_err() && mark.exists());
    }
}
