//! A command that holds something for as long as this process wants it, and not a moment longer.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::host::{prepare, wait};
use super::{Cmd, SystemError};

/// How long the command may take to end when it is let go.
const GRACE: Duration = Duration::from_secs(5);

/// A command that runs. It has to end when its standard input does: that happens when this is dropped, and when this
/// process dies, however that comes about.
#[derive(Debug)]
pub struct Held {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Held {
    /// Starts a command whose innermost program copies its input to its output, as cat(1) does, and waits until it does:
    /// then whatever comes before that in the command has happened.
    pub fn start(command: &Cmd) -> Result<Held, SystemError> {
        let start_error = |source| SystemError::Start {
            command: command.display(),
            source,
        };
        let (program, args) = command
            .argv
            .split_first()
            .ok_or_else(|| start_error(std::io::ErrorKind::InvalidInput.into()))?;
        let start = Instant::now();
        // With a pipe to read from, which no other child inherits.
        let piped = command.clone().input(Vec::new());
        let mut child = prepare(&piped, program, args)
            .spawn()
            .map_err(start_error)?;
        let mut stdin = child.stdin.take();
        // It may have ended already; that is seen by what it does not answer.
        let _ = stdin.iter_mut().try_for_each(|pipe| pipe.write_all(b"\n"));
        let (answered, answer) = mpsc::channel();
        if let Some(mut stdout) = child.stdout.take() {
            // Ends with the command.
            std::thread::spawn(move || {
                let answers = stdout.read_exact(&mut [0]).is_ok();
                let _ = answered.send(answers);
                let _ = std::io::copy(&mut stdout, &mut std::io::sink());
            });
        }
        let answers = answer.recv_timeout(command.timeout);
        let stderr = child.stderr.take();
        let mut held = Held { child, stdin };
        match answers {
            Ok(true) => {
                if let Some(mut stderr) = stderr {
                    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
                }
                tracing::debug!(command = command.display(), "holds");
                Ok(held)
            }
            Ok(false) => {
                let status = held.end();
                let mut said = String::new();
                if let Some(mut stderr) = stderr.map(|pipe| pipe.take(4000)) {
                    let _ = stderr.read_to_string(&mut said);
                }
                Err(SystemError::Failed {
                    command: command.display(),
                    status,
                    stderr: said.trim().to_owned(),
                })
            }
            Err(_) => Err(SystemError::TimedOut {
                command: command.display(),
                seconds: start.elapsed().as_secs(),
                stderr: String::new(),
            }),
        }
    }

    fn end(&mut self) -> i32 {
        drop(self.stdin.take());
        // At its time limit it is killed.
        let status = wait(&mut self.child, GRACE);
        super::host::code(status.ok().flatten())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Cmd {
        Cmd::new("sh")
            .args(["-c", script])
            .timeout(Duration::from_secs(20))
    }

    #[test]
    fn what_it_does_before_has_happened_and_it_ends_when_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let (begun, over) = (dir.path().join("begun"), dir.path().join("over"));
        let script = format!(
            "sleep 0.2; touch {}; cat; touch {}",
            begun.display(),
            over.display()
        );
        let held = Held::start(&shell(&script)).unwrap();
        assert!(begun.exists() && !over.exists());
        drop(held);
        assert!(over.exists());
    }

    #[test]
    fn one_that_cannot_hold_says_why() {
        let error = Held::start(&shell("echo no logind >&2; exit 1")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("no logind") && text.contains("status 1"),
            "{text}"
        );
        assert!(Held::start(&Cmd::new("/nonexistent")).is_err());
    }

    #[test]
    fn one_that_hangs_is_given_up() {
        let start = Instant::now();
        let command = shell("exec sleep 60").timeout(Duration::from_millis(300));
        assert!(matches!(
            Held::start(&command),
            Err(SystemError::TimedOut { .. })
        ));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
