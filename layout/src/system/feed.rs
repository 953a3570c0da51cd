//! Running a program that reads a stream, with its lines as they come.

use std::io::{ErrorKind, Write};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::host::{code, judge, prepare, tail, wait};
use super::pipe::{In, lines};
use super::stream::{GRACE, ask_to_end, signal_group};
use super::{Cmd, Output, SystemError};

/// How long a group whose time is over may take to clean up.
const GROUP_GRACE: Duration = Duration::from_secs(10);

pub(super) fn run(
    command: &Cmd,
    feed: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
    line: &(dyn Fn(&str) + Sync),
) -> Result<Output, SystemError> {
    let start_error = |source| SystemError::Start {
        command: command.display(),
        source,
    };
    let start = Instant::now();
    let Some((program, args)) = command.argv.split_first() else {
        return Err(start_error(ErrorKind::InvalidInput.into()));
    };
    // With a pipe to read from.
    let piped = command.clone().input(Vec::new());
    let mut child = prepare(&piped, program, args)
        .spawn()
        .map_err(start_error)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let over = AtomicBool::new(false);
    let mut timed_out = false;
    let (fed, status, stdout, stderr) = std::thread::scope(|scope| {
        let stdout = scope.spawn(|| lines(stdout, line, &over));
        let stderr = scope.spawn(|| lines(stderr, line, &over));
        let mut asked = false;
        // The pipe is closed before the program is waited for: its end is what it waits for.
        let fed = match stdin {
            Some(stdin) => In::new(stdin, command).and_then(|mut stdin| {
                let fed = feed(&mut stdin).and_then(|()| stdin.flush());
                // Many a program takes the end of its input for the end of what it is to read: it must not go on to
                // make something of a part. One that reads no more has what it wants, or has failed.
                let cut_off = |e: &std::io::Error| e.kind() != ErrorKind::BrokenPipe;
                if fed.as_ref().is_err_and(cut_off) {
                    asked = true;
                    ask_to_end(&child, command.group);
                }
                fed
            }),
            None => Ok(()),
        };
        let status = end(&mut child, command, asked, start);
        if command.group && matches!(status, Ok(End::TimedOut)) {
            timed_out = true;
        }
        let status = status.map(End::status);
        over.store(true, Ordering::Release);
        (
            fed,
            status,
            stdout.join().unwrap_or_default(),
            stderr.join().unwrap_or_default(),
        )
    });
    let status = status.map_err(start_error)?;
    if timed_out {
        return Err(SystemError::TimedOut {
            command: command.display(),
            seconds: command.timeout.as_secs(),
            stderr: tail(&stderr),
        });
    }
    // One that does not read to the end is judged by what it says itself.
    if let Err(error) = fed {
        if error.kind() != ErrorKind::BrokenPipe {
            return Err(SystemError::Fed {
                command: command.display(),
                source: error,
            });
        }
    }
    judge(
        command,
        Output {
            stdout,
            stderr,
            status: code(status),
            duration: start.elapsed(),
        },
    )
}

/// How a command came to its end.
enum End {
    Itself(ExitStatus),
    /// It did not end when it was asked to.
    Killed,
    TimedOut,
}

impl End {
    fn status(self) -> Option<ExitStatus> {
        match self {
            End::Itself(status) => Some(status),
            End::Killed | End::TimedOut => None,
        }
    }
}

/// Waits for a command to end; for good, unless it is to stop, or was `asked` to, or is a group whose time is over.
fn end(child: &mut Child, command: &Cmd, asked: bool, start: Instant) -> std::io::Result<End> {
    let grace = |child: &mut Child, grace: Duration| -> std::io::Result<End> {
        let ended = wait(child, grace)?.map_or(End::Killed, End::Itself);
        if command.group {
            // Whoever of it did not heed the request.
            signal_group(child, Signal::SIGKILL);
        }
        Ok(ended)
    };
    if asked {
        return grace(child, GRACE);
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(End::Itself(status));
        }
        if command.to_stop() {
            ask_to_end(child, command.group);
            return grace(child, GRACE);
        }
        if command.group && start.elapsed() > command.timeout {
            ask_to_end(child, true);
            grace(child, GROUP_GRACE)?;
            return Ok(End::TimedOut);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;
    use std::sync::Mutex;

    use super::super::{Host, System};
    use super::*;

    fn shell(script: &str) -> Cmd {
        Cmd::new("sh").args(["-c", script])
    }

    #[test]
    fn a_part_is_not_taken_for_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        // As tar(1) does, it takes the end of the input for the end of the archive.
        let script = format!("cat > /dev/null; sleep 0.2; touch {}", made.display());
        let result = Host.run_fed(
            &Cmd::new("sh").args(["-c", &script]),
            &mut |out| {
                out.write_all(b"a part")?;
                Err(std::io::Error::other("damaged"))
            },
            &|_| (),
        );
        assert!(matches!(result, Err(SystemError::Fed { .. })));
        assert!(!made.exists());
    }

    #[test]
    fn one_that_has_read_enough_may_finish() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        // As tar(1) does behind the end of an archive.
        let script = format!(
            "head -c 10 > /dev/null; exec <&-; sleep 0.3; touch {}",
            made.display()
        );
        let chunk = vec![7; 1 << 20];
        let mut feed = |out: &mut dyn Write| (0..5).try_for_each(|_| out.write_all(&chunk));
        Host.run_fed(&shell(&script), &mut feed, &|_| ()).unwrap();
        assert!(made.exists());
    }

    #[test]
    fn a_stream_of_any_length_goes_in_and_lines_come_out() {
        let seen = Mutex::new(Vec::new());
        let command = shell("echo begun >&2; wc -c; printf '1%%\\r2%%\\rno end' >&2");
        let chunk = vec![7; 1 << 20];
        let output = Host.run_fed(
            &command,
            &mut |out| (0..5).try_for_each(|_| out.write_all(&chunk)),
            &|line| seen.lock().unwrap().push(line.to_owned()),
        );
        assert_eq!(output.unwrap().text().trim(), (5 << 20).to_string());
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        assert_eq!(seen, ["1%", "2%", "5242880", "begun", "no end"]);
    }

    #[test]
    fn a_program_that_ends_early_is_judged_by_its_status() {
        let chunk = vec![7; 1 << 20];
        let mut feed = |out: &mut dyn Write| (0..5).try_for_each(|_| out.write_all(&chunk));
        let fails = Host.run_fed(&shell("echo no space >&2; exit 5"), &mut feed, &|_| ());
        let error = fails.unwrap_err().to_string();
        assert!(error.contains("status 5: no space"), "{error}");
        Host.run_fed(&shell("exit 0"), &mut feed, &|_| ()).unwrap();
    }

    #[test]
    fn one_that_hangs_ends_when_it_is_to_and_nobody_waits_for_what_it_left_running() {
        let start = Instant::now();
        let chunk = vec![7; 1 << 20];
        let mut feed = |out: &mut dyn Write| out.write_all(&chunk);
        for hangs in ["exec sleep 60", "cat > /dev/null; exec sleep 60"] {
            let result = Host.run_fed(&shell(hangs).stop(|| true), &mut feed, &|_| ());
            assert!(result.is_err(), "{hangs}");
        }
        let left = shell("cat > /dev/null; echo done; sleep 60 & exit 0");
        let output = Host.run_fed(&left, &mut feed, &|_| ()).unwrap();
        assert_eq!(output.text(), "done\n");
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_group_ends_as_a_whole_when_its_time_is_over() {
        let start = Instant::now();
        let mut nothing = |_: &mut dyn Write| Ok(());
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        // The child does not heed what its parent does.
        let script = format!(
            "echo begun; (trap '' TERM; exec sleep 60) & echo $! > {}; wait",
            pid.display()
        );
        let lines = Mutex::new(Vec::new());
        let note = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let command = shell(&script).group().timeout(Duration::from_millis(500));
        let error = Host.run_fed(&command, &mut nothing, &note).unwrap_err();
        assert!(matches!(error, SystemError::TimedOut { .. }), "{error}");
        assert_eq!(*lines.lock().unwrap(), ["begun"]);
        assert!(start.elapsed() < Duration::from_secs(30));
        let pid = std::fs::read_to_string(pid).unwrap();
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            // Nobody may be there who waits for orphans.
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        for _ in 0..100 {
            if !alive() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("what it started is still there");
    }

    #[test]
    fn a_group_that_ends_in_time_leaves_what_it_started() {
        let mut nothing = |_: &mut dyn Write| Ok(());
        let command = shell("sleep 20 >/dev/null 2>&1 & echo $!").group();
        let output = Host.run_fed(&command, &mut nothing, &|_| ()).unwrap();
        let pid = output.text().trim().parse().unwrap();
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    }

    #[test]
    fn what_cannot_be_fed_is_a_failure_whatever_the_program_says() {
        let mut feed = |out: &mut dyn Write| {
            out.write_all(b"half")?;
            Err(Error::other("a blob is damaged"))
        };
        for script in ["cat", "cat; exit 1"] {
            let error = Host.run_fed(&shell(script), &mut feed, &|_| ());
            let error = error.unwrap_err().to_string();
            assert!(error.contains("a blob is damaged"), "{error}");
        }
    }
}
