//! Starts programs that own a terminal: wizards, shells. Everything else goes through `layout::system`.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

use super::consoles::Console;

/// A program to start on a terminal.
#[derive(Debug, Clone)]
pub struct Program {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

impl Program {
    /// A program by path or name.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            argv: vec![program.into()],
            env: Vec::new(),
        }
    }

    /// This very binary, with a subcommand.
    pub fn myself(subcommand: &str) -> Self {
        // /proc may be missing at the very start; /init is where the kernel found us.
        let path = std::env::current_exe().unwrap_or_else(|_| "/init".into());
        Self::new(path).arg(subcommand)
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    // The one place outside `layout::system` that starts processes: that door gives its children an empty standard
    // input and collects their output, which is what a wizard or a shell on a terminal must not have.
    #[allow(clippy::disallowed_methods)]
    fn command(&self) -> Command {
        let (program, args) = self
            .argv
            .split_first()
            .map_or((OsString::new(), &[][..]), |(p, a)| (p.clone(), a));
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        // The kernel gives process 1 no PATH, and the default of execvp(3) leaves the sbin directories out.
        if std::env::var_os("PATH").is_none() {
            command.env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            );
        }
        command
    }

    /// Starts it as the leader of a session of its own, with `console` as its controlling terminal.
    pub fn on_console(&self, console: &Console) -> Result<Child> {
        let path = console.device();
        let tty = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(&path)
            .with_context(|| format!("opening the console {}", path.display()))?;
        let copy = || {
            tty.try_clone()
                .map(Stdio::from)
                .with_context(|| format!("using {}", path.display()))
        };
        let mut command = self.command();
        command
            .env("TERM", console.term())
            .stdin(copy()?)
            .stdout(copy()?)
            .stderr(copy()?);
        // SAFETY: only async-signal-safe calls, and no memory is allocated between fork and exec.
        unsafe {
            command.pre_exec(|| {
                default_signals()?;
                if libc::setsid() < 0 {
                    return Err(io::Error::last_os_error());
                }
                // 1: take it from another session, such as a wizard that was just killed. A device that cannot be
                // a controlling terminal (/dev/console) still serves for input and output.
                libc::ioctl(0, libc::TIOCSCTTY, 1);
                Ok(())
            });
        }
        command
            .spawn()
            .with_context(|| format!("starting {} on {}", self.name(), path.display()))
    }

    /// Starts it with this process's standard streams.
    pub fn inherit(&self) -> Result<Child> {
        let mut command = self.command();
        // SAFETY: only async-signal-safe calls, and no memory is allocated between fork and exec.
        unsafe {
            command.pre_exec(default_signals);
        }
        command
            .spawn()
            .with_context(|| format!("starting {}", self.name()))
    }

    /// Starts it with this process's standard streams and waits for its end.
    pub fn run(&self) -> Result<ExitStatus> {
        self.inherit()?
            .wait()
            .with_context(|| format!("waiting for {}", self.name()))
    }

    fn name(&self) -> String {
        self.argv
            .iter()
            .map(|a| a.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Undoes what this program does to signals (process 1 blocks them, the wizard ignores some), for a child.
fn default_signals() -> io::Result<()> {
    // SAFETY: plain calls on a local set; `sigset_t` may be all zero before `sigemptyset` fills it.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        for signal in [
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTSTP,
            libc::SIGPIPE,
            libc::SIGHUP,
            libc::SIGTERM,
        ] {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    Ok(())
}

/// A shell on this process's terminal; returns when it ends. Says how to come back.
pub fn shell(why: &str) -> Result<()> {
    let shell = ["/bin/bash", "/usr/bin/bash", "/bin/sh"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("the rescue system holds no shell (/bin/bash, /bin/sh)")?;
    println!("{why}");
    println!("A shell follows; type `exit` to come back.");
    let terminal = SavedTerminal::of_stdin();
    let status = Program::new(shell)
        .env("PS1", "rescue:\\w# ")
        .env("HOME", "/root")
        .run();
    terminal.restore();
    let status = status?;
    tracing::info!(
        code = status.code(),
        signal = status.signal(),
        "the shell ended"
    );
    Ok(())
}

/// Terminal settings as they were, since a shell that was killed may leave them changed.
struct SavedTerminal(Option<libc::termios>);

impl SavedTerminal {
    fn of_stdin() -> Self {
        // SAFETY: `termios` is plain data and is only used when `tcgetattr` has filled it.
        unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            let got = libc::tcgetattr(io::stdin().as_raw_fd(), &mut settings) == 0;
            Self(got.then_some(settings))
        }
    }

    fn restore(&self) {
        if let Some(settings) = &self.0 {
            // SAFETY: settings that `tcgetattr` gave for the same descriptor.
            unsafe {
                libc::tcsetattr(io::stdin().as_raw_fd(), libc::TCSADRAIN, settings);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_get_their_environment_and_status() {
        let status = Program::new("/bin/sh")
            .arg("-c")
            .arg("exit ${LB_CODE:-1}")
            .env("LB_CODE", "7")
            .run();
        assert_eq!(status.expect("sh starts").code(), Some(7));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Program::new("/nowhere/lb")
            .run()
            .expect_err("nothing to start");
        assert!(format!("{error:#}").contains("/nowhere/lb"), "{error:#}");
    }

    #[test]
    fn a_missing_console_is_named() {
        let console = Console {
            tty: "no-such-tty".to_owned(),
        };
        let error = Program::new("/bin/true")
            .on_console(&console)
            .expect_err("no such device");
        assert!(
            format!("{error:#}").contains("/dev/no-such-tty"),
            "{error:#}"
        );
    }
}
