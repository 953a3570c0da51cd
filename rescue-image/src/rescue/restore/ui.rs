//! Progress of a restore, in one trait for programs to draw, and the adapters from those of `bundle` and `layout`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use layout::apply::Outcome as StepOutcome;
use layout::plan::Step;

use crate::rescue::events::{Announce, Line};

/// Shows progress. Called from several threads.
pub trait Ui: Send + Sync {
    /// Step `index` (from 1) of `total` begins.
    fn step(&self, index: usize, total: usize, text: &str);
    /// A phase within a step begins; `total` in bytes, where known.
    fn phase(&self, name: &str, total: Option<u64>);
    /// More bytes are done.
    fn bytes(&self, n: u64);
    /// A file is being worked on.
    fn item(&self, path: &str);
    /// Something to know that stops nothing.
    fn warn(&self, text: &str);
    /// The work is over: what is drawn goes away.
    fn finish(&self) {}
}

/// `bundle`'s events to a [`Ui`].
pub(crate) struct Reading<'a>(pub(crate) &'a dyn Ui);

impl bundle::events::Events for Reading<'_> {
    fn phase(&self, name: &str, total: Option<u64>) {
        self.0.phase(name, total);
    }
    fn bytes(&self, n: u64) {
        self.0.bytes(n);
    }
    fn item(&self, path: &[u8]) {
        self.0.item(&String::from_utf8_lossy(path));
    }
    fn warn(&self, text: &str) {
        self.0.warn(text);
    }
}

/// `layout`'s events to a [`Ui`] and to event lines.
pub(super) struct Steps<'a> {
    pub(super) ui: &'a dyn Ui,
    pub(super) to: &'a dyn Announce,
    /// Copies the logs into the restored system, while it is still mounted.
    pub(super) into_target: &'a (dyn Fn() -> anyhow::Result<()> + Sync),
}

impl layout::apply::Events for Steps<'_> {
    fn step_started(&self, index: usize, total: usize, step: &Step) {
        let text = step.to_string();
        self.to.line(
            &Line::new("step")
                .with("index", index + 1)
                .with("total", total)
                .with("text", &text),
        );
        self.ui.step(index + 1, total, &text);
        if matches!(step, Step::Unmount) {
            if let Err(error) = (self.into_target)() {
                self.note(&format!(
                    "the logs could not be copied into the restored system: {error:#}"
                ));
            }
        }
    }

    fn step_done(&self, _: usize, _: usize, step: &Step, outcome: StepOutcome, took: Duration) {
        tracing::info!(?outcome, ms = took.as_millis(), "{step}");
    }

    fn note(&self, text: &str) {
        self.to.line(&Line::new("warning").with("text", text));
        self.ui.warn(text);
    }
}

/// Progress as event lines: for logs, and where there is no terminal.
pub struct Lines<'a> {
    to: &'a dyn Announce,
    every: Duration,
    bytes: AtomicU64,
    last: Mutex<Instant>,
}

impl<'a> Lines<'a> {
    /// At most one `progress` line in `every`.
    pub fn new(to: &'a dyn Announce, every: Duration) -> Self {
        Self {
            to,
            every,
            bytes: AtomicU64::new(0),
            last: Mutex::new(Instant::now()),
        }
    }
}

impl Ui for Lines<'_> {
    // Steps have their own lines.
    fn step(&self, _: usize, _: usize, _: &str) {}

    fn phase(&self, _: &str, _: Option<u64>) {
        self.bytes.store(0, Ordering::Relaxed);
    }

    fn bytes(&self, n: u64) {
        let done = self.bytes.fetch_add(n, Ordering::Relaxed) + n;
        // Whoever finds the lock taken leaves the line to the other thread.
        if let Ok(mut last) = self.last.try_lock() {
            if last.elapsed() >= self.every {
                *last = Instant::now();
                self.to.line(&Line::new("progress").with("bytes", done));
            }
        }
    }

    fn item(&self, _: &str) {}

    fn warn(&self, text: &str) {
        self.to.line(&Line::new("warning").with("text", text));
    }
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Ui for Quiet {
    fn step(&self, _: usize, _: usize, _: &str) {}
    fn phase(&self, _: &str, _: Option<u64>) {}
    fn bytes(&self, _: u64) {}
    fn item(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rescue::events::Kept;

    #[test]
    fn bytes_add_up_within_a_phase() {
        let kept = Kept::default();
        let lines = Lines::new(&kept, Duration::ZERO);
        lines.phase("files", None);
        lines.bytes(3);
        lines.bytes(4);
        lines.phase("image", None);
        lines.bytes(1);
        let bytes: Vec<_> = kept
            .of("progress")
            .iter()
            .map(|l| l.get("bytes").map(str::to_owned))
            .collect();
        assert_eq!(
            bytes,
            [
                Some("3".to_owned()),
                Some("7".to_owned()),
                Some("1".to_owned())
            ]
        );
    }
}
