//! A clean stop at SIGINT, SIGTERM and SIGHUP, and at a limit of time: the handler only sets a flag; whoever works looks
//! at it, ends, and the ordinary way out unmounts what was mounted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::time::{ClockId, clock_gettime};

static STOP: AtomicBool = AtomicBool::new(false);
static WHICH: AtomicI32 = AtomicI32::new(0);
static LIMIT: OnceLock<Running> = OnceLock::new();

extern "C" fn note(signal: libc::c_int) {
    WHICH.store(signal, Ordering::Relaxed);
    STOP.store(true, Ordering::Release);
}

/// When this program has to stop by itself, and why.
#[derive(Debug, Clone, Default)]
pub struct Limit {
    /// At this time, as the clock shows it.
    pub at: Option<(Timestamp, String)>,
    /// After so long, however the clock is set meanwhile; time in which the machine sleeps counts.
    pub after: Option<(Duration, String)>,
}

/// A limit, and what it is counted from.
#[derive(Debug)]
struct Running {
    limit: Limit,
    since: Duration,
    passed: OnceLock<String>,
}

impl Running {
    /// Why it is time to stop. Once it is, it stays so, even if the clock is set back.
    fn passed(&self, clock: Timestamp, boot: Duration) -> Option<&str> {
        if self.passed.get().is_none() {
            let at = self.limit.at.iter().find(|(end, _)| clock >= *end);
            let ran = boot.saturating_sub(self.since);
            let after = self.limit.after.iter().find(|(span, _)| ran >= *span);
            let reason = at.map(|(_, r)| r).or(after.map(|(_, r)| r))?;
            // Somebody else may have been first.
            let _ = self.passed.set(reason.clone());
        }
        self.passed.get().map(String::as_str)
    }
}

fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Installs the handler. A second signal of the same kind ends the program at once, so that a hang can be left:
/// what is on the media is still good, a mount may stay behind.
pub fn install() -> anyhow::Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(note),
        SaFlags::SA_RESTART | SaFlags::SA_RESETHAND,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to two atomics, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("cannot handle {signal}"))?;
    }
    Ok(())
}

/// Sets the limit of this program, once.
pub fn limit(limit: Limit) {
    let running = Running {
        limit,
        since: boot_time(),
        passed: OnceLock::new(),
    };
    if LIMIT.set(running).is_err() {
        tracing::warn!("there is a limit of time already");
    }
}

/// Why the limit of time ends the work, once it does.
pub fn over() -> Option<&'static str> {
    let running = LIMIT.get()?;
    running.passed(Timestamp::now(), boot_time())
}

/// Whether the program was asked to stop, or has to.
pub fn stopped() -> bool {
    STOP.load(Ordering::Acquire) || over().is_some()
}

/// An error when the program was asked to stop: for use between two pieces of work.
pub fn check() -> anyhow::Result<()> {
    if STOP.load(Ordering::Acquire) {
        let name =
            Signal::try_from(WHICH.load(Ordering::Relaxed)).map_or("a signal", Signal::as_str);
        anyhow::bail!("stopped by {name}");
    }
    match over() {
        Some(reason) => anyhow::bail!("{reason}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_pass_by_the_clock_or_by_what_went_by_and_stay_passed() {
        let end: Timestamp = "2026-11-27T06:00:00Z".parse().unwrap();
        let running = |at, after| Running {
            limit: Limit { at, after },
            since: Duration::from_secs(100),
            passed: OnceLock::new(),
        };
        let second = jiff::SignedDuration::from_secs(1);
        let window = running(Some((end, "window".to_owned())), None);
        assert_eq!(window.passed(end - second, Duration::MAX), None);
        assert_eq!(window.passed(end, Duration::ZERO), Some("window"));
        assert_eq!(window.passed(end - second, Duration::ZERO), Some("window"));
        let longest = running(None, Some((Duration::from_secs(60), "longest".to_owned())));
        assert_eq!(longest.passed(end, Duration::from_secs(159)), None);
        assert_eq!(
            longest.passed(end, Duration::from_secs(160)),
            Some("longest")
        );
        let none = running(None, None);
        assert_eq!(none.passed(Timestamp::MAX, Duration::MAX), None);
    }
}
