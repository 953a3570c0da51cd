//! Progress on a terminal, through `indicatif`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dialoguer::console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::plain;
use crate::rescue::restore::ui::Ui;

/// Redraws in a second: a bar of 75 characters ten times a second would fill a serial line.
const PER_SECOND: u8 = 2;

/// One bar, that shows the step, files, bytes, rate and time left.
pub struct Bars {
    bar: ProgressBar,
    step: Mutex<String>,
    files: AtomicU64,
}

impl Bars {
    /// A bar on a terminal.
    pub fn on(term: Term) -> Self {
        Self::drawing(ProgressDrawTarget::term(term, PER_SECOND))
    }

    fn drawing(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style(false));
        bar.enable_steady_tick(Duration::from_secs(1));
        Self {
            bar,
            step: Mutex::new(String::new()),
            files: AtomicU64::new(0),
        }
    }

    fn message(&self, text: &str) {
        let step = self.step.lock().map(|s| s.clone()).unwrap_or_default();
        let text: String = format!("{step}{}", plain(text)).chars().take(28).collect();
        self.bar.set_message(text);
    }
}

/// Fits 79 columns: 28 for what is done, 12 for the bar, the rest for numbers.
fn style(known: bool) -> ProgressStyle {
    let template = if known {
        "{msg:28!} [{bar:10}] {percent:>3}% {bytes} {binary_bytes_per_sec} {eta}"
    } else {
        "{msg:28!} {spinner} {bytes} {binary_bytes_per_sec} {elapsed}"
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .tick_chars("|/-\\ ")
}

impl Ui for Bars {
    fn step(&self, index: usize, total: usize, text: &str) {
        if let Ok(mut step) = self.step.lock() {
            *step = format!("{index}/{total} ");
        }
        self.bar.set_style(style(false));
        self.bar.unset_length();
        self.bar.reset();
        self.message(text);
    }

    fn phase(&self, name: &str, total: Option<u64>) {
        self.files.store(0, Ordering::Relaxed);
        self.bar.set_style(style(total.is_some()));
        self.bar.reset();
        match total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.message(name);
    }

    fn bytes(&self, n: u64) {
        self.bar.inc(n);
    }

    fn item(&self, path: &str) {
        self.files.fetch_add(1, Ordering::Relaxed);
        // The end of a path says more than its beginning.
        let name: Vec<char> = path.chars().collect();
        let end: String = name[name.len().saturating_sub(18)..].iter().collect();
        self.message(&end);
    }

    fn warn(&self, text: &str) {
        self.bar.println(format!("warning: {}", plain(text)));
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_bytes_of_the_phase() {
        let bars = Bars::drawing(ProgressDrawTarget::hidden());
        bars.step(2, 9, "Restore the files of /");
        bars.phase("files", Some(100));
        bars.bytes(30);
        bars.bytes(12);
        assert_eq!((bars.bar.position(), bars.bar.length()), (42, Some(100)));
        assert!(
            bars.bar.message().starts_with("2/9 "),
            "{}",
            bars.bar.message()
        );
        bars.phase("image", None);
        assert_eq!((bars.bar.position(), bars.bar.length()), (0, None));
    }

    #[test]
    fn messages_are_short_and_plain() {
        let bars = Bars::drawing(ProgressDrawTarget::hidden());
        bars.item("/a/very/long/path/that/does/not/fit/\u{1b}[31mfile");
        assert!(bars.bar.message().chars().count() <= 28);
        assert!(bars.bar.message().is_ascii() && !bars.bar.message().contains('\u{1b}'));
    }
}
