//! Process 1 of the rescue system.
//!
//! Process 1 itself does as little as possible, since its end is a kernel panic: it mounts `/proc`, starts the others
//! as children (`setup`, `start`, one `wizard` on each console), reaps, starts wizards again, and shuts down. All that
//! can fail is in the children; when one of them fails there is a message and a shell.

pub mod mounts;
pub mod setup;
pub mod shutdown;
mod signals;

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use super::cmdline::CommandLine;
use super::consoles::{self, Console};
use super::spawn::Program;
use shutdown::Ending;
use signals::{Event, Signals};

/// Shortest time between two starts of the wizard on one console.
const RESPAWN: Duration = Duration::from_secs(2);

/// What process 1 does. Never returns.
pub fn main() -> ! {
    // Whatever goes wrong below, process 1 stays: it falls back to offering shells.
    let outcome = std::panic::catch_unwind(run);
    if outcome.is_err() {
        say(
            "process 1 failed; only shells are left on the consoles. Power off with `poweroff` or the power button.",
        );
    }
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn say(text: &str) {
    use std::io::Write;
    // `println!` panics when the console is gone.
    let _ = writeln!(std::io::stdout(), "\rlifeboat-rescue: {text}\r");
}

fn run() {
    let signals = Signals::take();
    // Needed to find our own binary; `setup` does all the other mounts.
    if let Err(error) = mounts::proc_only() {
        say(&format!("mounting /proc failed: {error:#}"));
    }
    let mut init = Init {
        signals,
        wizards: Vec::new(),
    };
    if let Err(reason) = init.stage(&Program::myself("setup")) {
        init.rescue_shell(&format!("setting up the rescue system failed: {reason}"));
    }
    let line = CommandLine::of_kernel();
    if line.shell {
        init.rescue_shell("lifeboat.shell was given on the kernel command line.");
    }
    if let Err(reason) = init.stage(&Program::myself("start")) {
        say(&format!(
            "looking for bundles failed: {reason}; the wizard looks again"
        ));
    }
    init.wizards = consoles::active().into_iter().map(Seat::new).collect();
    init.watch()
}

struct Init {
    signals: Signals,
    wizards: Vec<Seat>,
}

/// A console and the wizard on it.
struct Seat {
    console: Console,
    child: Option<u32>,
    started: Option<Instant>,
    complained: bool,
}

impl Seat {
    fn new(console: Console) -> Self {
        Self {
            console,
            child: None,
            started: None,
            complained: false,
        }
    }

    fn due(&self) -> bool {
        self.child.is_none() && self.started.is_none_or(|t| t.elapsed() >= RESPAWN)
    }
}

impl Init {
    /// Runs a child to its end, reaping and obeying signals meanwhile.
    fn stage(&mut self, program: &Program) -> Result<(), String> {
        let child = program.inherit().map_err(|e| format!("{e:#}"))?;
        self.wait_for(&child)
    }

    fn wait_for(&mut self, child: &Child) -> Result<(), String> {
        loop {
            for (pid, status) in signals::reap() {
                if pid == child.id() {
                    return if status.success() {
                        Ok(())
                    } else {
                        Err(status.to_string())
                    };
                }
            }
            if let Some(Event::End(ending)) = self.signals.next(Duration::from_secs(1)) {
                self.end(ending);
            }
        }
    }

    /// A shell on `/dev/console`, where there is nothing better to do.
    fn rescue_shell(&mut self, why: &str) {
        say(why);
        let console = Console {
            tty: "console".to_owned(),
        };
        // A shell on /dev/console has no job control; the first real console is better when there is one.
        let console = consoles::active()
            .into_iter()
            .next_back()
            .unwrap_or(console);
        let shell = ["/bin/bash", "/usr/bin/bash", "/bin/sh"]
            .into_iter()
            .find(|p| Path::new(p).exists());
        let Some(shell) = shell else {
            say("there is no shell in this rescue system");
            return;
        };
        say("a shell follows; type `exit` to go on");
        let outcome = Program::new(shell)
            .on_console(&console)
            .map_err(|e| format!("{e:#}"));
        if let Err(reason) = outcome.and_then(|child| self.wait_for(&child)) {
            say(&format!("the shell ended: {reason}"));
        }
    }

    /// Keeps a wizard on every console, for ever.
    fn watch(&mut self) -> ! {
        loop {
            for seat in &mut self.wizards {
                if !seat.due() {
                    continue;
                }
                seat.started = Some(Instant::now());
                match Program::myself("wizard").on_console(&seat.console) {
                    Ok(child) => {
                        seat.child = Some(child.id());
                        seat.complained = false;
                    }
                    Err(error) if !seat.complained => {
                        seat.complained = true;
                        say(&format!("{error:#}"));
                    }
                    Err(_) => {}
                }
            }
            if let Some(Event::End(ending)) = self.signals.next(Duration::from_secs(1)) {
                self.end(ending);
            }
            for (pid, _) in signals::reap() {
                for seat in self.wizards.iter_mut().filter(|s| s.child == Some(pid)) {
                    seat.child = None;
                }
            }
        }
    }

    fn end(&mut self, ending: Ending) -> ! {
        say(match ending {
            Ending::Reboot => "rebooting",
            Ending::PowerOff => "powering off",
        });
        signals::stop_everyone(Duration::from_secs(5));
        // In a child with a time limit, since a medium that was pulled can make an unmount hang.
        if let Ok(child) = Program::myself("down").inherit() {
            let started = Instant::now();
            let mut done = false;
            while !done && started.elapsed() < Duration::from_secs(30) {
                done = signals::reap().iter().any(|(pid, _)| *pid == child.id());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        shutdown::now(ending)
    }
}
