//! The one door through which this crate starts processes.
//!
//! `layout::system` is the product's door and is under test here, so the harness does not go through it. Every process
//! gets `PR_SET_PDEATHSIG` by `setpriv`, so that nothing outlives the test program, whatever ends it. (The signal comes
//! when the *thread* that started the process ends: keep machines on the thread that made them.)

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::artefacts::Artefacts;

/// An argv, with what differs from the defaults.
#[derive(Debug, Clone, Default)]
pub struct Cmd {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdout: Option<std::path::PathBuf>,
}

impl Cmd {
    /// A command without arguments.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            argv: vec![program.into()],
            ..Self::default()
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sends standard output and standard error to the end of this file.
    #[must_use]
    pub fn output_to(mut self, path: &Path) -> Self {
        self.stdout = Some(path.to_owned());
        self
    }

    /// The command as one line, for logs.
    pub fn line(&self) -> String {
        let words: Vec<_> = self
            .env
            .iter()
            .map(|(name, value)| {
                format!(
                    "{}={}",
                    name.to_string_lossy(),
                    quoted(&value.to_string_lossy())
                )
            })
            .chain(self.argv.iter().map(|arg| quoted(&arg.to_string_lossy())))
            .collect();
        words.join(" ")
    }

    // The crate's only use of Command::new; see the head of this file.
    #[allow(clippy::disallowed_methods)]
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(&self.argv)
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn quoted(word: &str) -> String {
    if !word.is_empty()
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c))
    {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What a process printed.
#[derive(Debug)]
pub struct Output {
    /// Exit status; 128 and more for a signal.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

/// Starts a process. Its output goes to the file given by [`Cmd::output_to`].
pub fn spawn(cmd: &Cmd, log: &Artefacts) -> Result<Child> {
    log.command(&cmd.line());
    let mut command = cmd.command();
    match &cmd.stdout {
        Some(path) => {
            let file = File::options().create(true).append(true).open(path)?;
            command.stdout(file.try_clone()?).stderr(file);
        }
        None => {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
    }
    command
        .spawn()
        .with_context(|| format!("cannot start {}", cmd.line()))
}

/// Runs a process to its end, at most `timeout`. Any exit status is an answer.
pub fn output(cmd: &Cmd, log: &Artefacts, timeout: Duration) -> Result<Output> {
    log.command(&cmd.line());
    let started = Instant::now();
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = cmd
        .command()
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot start {}", cmd.line()))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            bail!("{} did not end within {} s", cmd.line(), timeout.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    use std::io::{Read, Seek};
    use std::os::unix::process::ExitStatusExt;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    out.rewind()?;
    out.read_to_end(&mut stdout)?;
    err.rewind()?;
    err.read_to_end(&mut stderr)?;
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let status = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    log.note(&format!(
        "  exit status {status} after {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    if !stderr.is_empty() {
        log.note(&format!("  stderr: {}", tail(&stderr, 2000)));
    }
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// Runs a process that has to succeed; returns its standard output.
pub fn run(cmd: &Cmd, log: &Artefacts, timeout: Duration) -> Result<Vec<u8>> {
    let output = output(cmd, log, timeout)?;
    if output.status != 0 {
        bail!(
            "{} failed with status {}: {}",
            cmd.line(),
            output.status,
            tail(
                &format!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    output.stderr
                ),
                2000
            )
        );
    }
    Ok(output.stdout)
}

/// The end of a text, at most `bytes` long.
pub fn tail(text: &str, bytes: usize) -> &str {
    let text = text.trim_end();
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Whether a program is in PATH (or in sbin, which a user's PATH may lack).
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_process_gives_status_and_end_of_stderr() {
        let dir = tempfile::tempdir().unwrap();
        let log = Artefacts::new(dir.path().join("t")).unwrap();
        let cmd = Cmd::new("bash").args(["-c", "echo out; echo why >&2; exit 3"]);
        let error = run(&cmd, &log, Duration::from_secs(60))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("status 3") && error.contains("why"),
            "{error}"
        );
        let commands = std::fs::read_to_string(log.dir().join("commands.log")).unwrap();
        assert!(
            commands.contains("bash -c 'echo out; echo why >&2; exit 3'"),
            "{commands}"
        );
    }

    #[test]
    fn process_that_hangs_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let log = Artefacts::new(dir.path().join("t")).unwrap();
        let error = run(
            &Cmd::new("sleep").arg("1000"),
            &log,
            Duration::from_millis(100),
        )
        .unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }
}
