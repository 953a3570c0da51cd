//! Signals and zombies of process 1.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::shutdown::Ending;

/// What woke process 1.
pub enum Event {
    /// A child ended.
    Child,
    /// The machine is to be ended.
    End(Ending),
}

/// The signals that process 1 waits for. They are blocked, and taken one by one.
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks them from now on.
    pub fn take() -> Self {
        // SAFETY: plain calls on a local set; `sigset_t` may be all zero before `sigemptyset` fills it.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in [
                libc::SIGCHLD,
                libc::SIGTERM,
                libc::SIGINT,
                libc::SIGUSR1,
                libc::SIGUSR2,
                libc::SIGPWR,
            ] {
                libc::sigaddset(&mut set, signal);
            }
            libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            // Ctrl-Alt-Del as a signal rather than an immediate reset. Refused when not process 1: no harm.
            if std::process::id() == 1 {
                libc::reboot(libc::RB_DISABLE_CAD);
            }
            Self(set)
        }
    }

    /// Waits for one, at most `limit`.
    pub fn next(&self, limit: Duration) -> Option<Event> {
        let limit = libc::timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(1),
            tv_nsec: limit.subsec_nanos().into(),
        };
        // SAFETY: valid set and time limit; no information about the signal is asked for.
        let signal = unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), &limit) };
        match signal {
            libc::SIGCHLD => Some(Event::Child),
            // The same meaning as for busybox's and systemd's process 1.
            libc::SIGTERM | libc::SIGINT => Some(Event::End(Ending::Reboot)),
            libc::SIGUSR1 | libc::SIGUSR2 | libc::SIGPWR => Some(Event::End(Ending::PowerOff)),
            _ => None,
        }
    }
}

/// Collects every child that ended, also those that lost their parent.
pub fn reap() -> Vec<(u32, ExitStatus)> {
    let mut ended = Vec::new();
    loop {
        let mut status = 0;
        // SAFETY: writes to the local status only.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        match u32::try_from(pid) {
            Ok(pid) if pid > 0 => ended.push((pid, ExitStatus::from_raw(status))),
            _ => return ended,
        }
    }
}

/// Ends all other processes: asks first, then kills.
pub fn stop_everyone(limit: Duration) {
    if std::process::id() != 1 {
        // `kill(-1)` from anything but process 1 of the rescue system would end somebody's session.
        return;
    }
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        // SAFETY: kill has no memory effects.
        unsafe {
            libc::kill(-1, signal);
            // bash ignores SIGTERM but obeys SIGHUP.
            libc::kill(
                -1,
                if signal == libc::SIGTERM {
                    libc::SIGHUP
                } else {
                    signal
                },
            );
        }
        let started = Instant::now();
        while started.elapsed() < limit {
            reap();
            // SAFETY: a null signal only asks whether anyone is left.
            if unsafe { libc::kill(-1, 0) } != 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
