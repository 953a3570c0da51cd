//! Progress: a bar on a terminal, a line every few seconds in a log, nothing with `--quiet`. Warnings always.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{signals, values};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How often the name of the current file is drawn.
const NAME_EVERY: Duration = Duration::from_millis(100);

/// Draws what the libraries report.
pub struct Progress {
    how: How,
    done: AtomicU64,
    state: Mutex<State>,
    start: Instant,
    /// Milliseconds since `start` of the last line or name: read on every call, so not behind the lock.
    last: AtomicU64,
}

enum How {
    Bar(ProgressBar),
    Lines,
    Quiet,
}

#[derive(Default)]
struct State {
    phase: String,
    total: Option<u64>,
    warnings: Vec<String>,
}

impl Progress {
    /// A bar when standard error is a terminal, else lines; nothing but warnings when `quiet`.
    pub fn new(quiet: bool) -> Progress {
        let how = if quiet {
            How::Quiet
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
            bar.enable_steady_tick(Duration::from_millis(500));
            How::Bar(bar)
        } else {
            How::Lines
        };
        Progress {
            how,
            done: AtomicU64::new(0),
            state: Mutex::default(),
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    /// Says what is done now, outside of a phase of a library.
    pub fn say(&self, text: &str) {
        match &self.how {
            How::Bar(bar) => bar.println(text),
            How::Lines => eprintln!("{text}"),
            How::Quiet => {}
        }
    }

    /// Takes the bar away and returns the warnings that were shown.
    pub fn finish(&self) -> Vec<String> {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
        std::mem::take(&mut self.lock().warnings)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A poisoned lock only means that another thread panicked while drawing: the texts are still good.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// True at most once in `every`.
    fn due(&self, every: Duration) -> bool {
        let now = self.start.elapsed().as_millis() as u64;
        let last = self.last.load(Ordering::Relaxed);
        now.saturating_sub(last) >= every.as_millis() as u64
            && self
                .last
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn line(&self) -> String {
        let done = self.done.load(Ordering::Relaxed);
        let state = self.lock();
        match state.total {
            Some(total) if total > 0 => format!(
                "{}: {} of {} ({} %)",
                state.phase,
                values::bytes(done),
                values::bytes(total),
                (u128::from(done) * 100 / u128::from(total)).min(100)
            ),
            _ => format!("{}: {}", state.phase, values::bytes(done)),
        }
    }
}

impl bundle::events::Events for Progress {
    fn phase(&self, name: &str, total: Option<u64>) {
        self.done.store(0, Ordering::Relaxed);
        {
            let mut state = self.lock();
            state.phase = name.to_owned();
            state.total = total;
        }
        match &self.how {
            How::Bar(bar) => {
                bar.reset();
                bar.set_message("");
                bar.set_prefix(name.to_owned());
                bar.set_style(style(total.is_some()));
                match total {
                    Some(total) => bar.set_length(total),
                    None => bar.unset_length(),
                }
            }
            How::Lines => match total {
                Some(total) => eprintln!("{name} ({})", values::bytes(total)),
                None => eprintln!("{name}"),
            },
            How::Quiet => {}
        }
    }

    fn bytes(&self, n: u64) {
        self.done.fetch_add(n, Ordering::Relaxed);
        match &self.how {
            How::Bar(bar) => bar.inc(n),
            How::Lines if self.due(LINE_EVERY) => eprintln!("{}", self.line()),
            _ => {}
        }
    }

    fn item(&self, path: &[u8]) {
        if let How::Bar(bar) = &self.how {
            if self.due(NAME_EVERY) {
                bar.set_message(printable(path));
            }
        }
    }

    fn warn(&self, text: &str) {
        match &self.how {
            How::Bar(bar) => bar.suspend(|| eprintln!("warning: {text}")),
            _ => eprintln!("warning: {text}"),
        }
        self.lock().warnings.push(text.to_owned());
    }

    fn cancelled(&self) -> bool {
        signals::stopped()
    }
}

/// A file name without what could steer a terminal.
pub fn printable(path: &[u8]) -> String {
    String::from_utf8_lossy(path)
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn style(known_total: bool) -> ProgressStyle {
    let template = if known_total {
        "{prefix} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {wide_msg}"
    } else {
        "{prefix} {spinner} {bytes} {binary_bytes_per_sec} {wide_msg}"
    };
    // ASCII only: consoles without a UTF-8 font show nothing else. A template that does not parse would be a mistake in
    // the two lines above, which a test draws; the plain bar is good enough then.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("#>-")
        .tick_chars("|/-\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundle::events::Events;

    #[test]
    fn templates_parse() {
        for t in [true, false] {
            let _ = style(t);
        }
        assert!(
            ProgressStyle::with_template(
                "{prefix} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {wide_msg}"
            )
            .is_ok()
        );
        assert!(
            ProgressStyle::with_template(
                "{prefix} {spinner} {bytes} {binary_bytes_per_sec} {wide_msg}"
            )
            .is_ok()
        );
    }

    #[test]
    fn lines_count_and_warnings_are_kept() {
        let p = Progress {
            how: How::Quiet,
            ..Progress::new(true)
        };
        p.phase("reading", Some(200));
        p.bytes(50);
        p.bytes(50);
        assert_eq!(p.line(), "reading: 100 B of 200 B (50 %)");
        p.phase("writing", None);
        assert_eq!(p.line(), "writing: 0 B");
        p.warn("careful");
        assert_eq!(p.finish(), ["careful"]);
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\n\xff"), "a?[2Jb?\u{fffd}");
    }
}
