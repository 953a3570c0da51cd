//! A clean stop at SIGINT, SIGTERM and SIGHUP: the handler only sets a flag; whoever works looks at it, ends, and the
//! ordinary way out unmounts what was mounted.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use anyhow::Context as _;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static STOP: AtomicBool = AtomicBool::new(false);
static WHICH: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: libc::c_int) {
    WHICH.store(signal, Ordering::Relaxed);
    STOP.store(true, Ordering::Release);
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

/// Whether the program was asked to stop.
pub fn stopped() -> bool {
    STOP.load(Ordering::Acquire)
}

/// An error when the program was asked to stop: for use between two pieces of work.
pub fn check() -> anyhow::Result<()> {
    if !stopped() {
        return Ok(());
    }
    let name = Signal::try_from(WHICH.load(Ordering::Relaxed)).map_or("a signal", Signal::as_str);
    anyhow::bail!("stopped by {name}")
}
