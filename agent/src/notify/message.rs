//! What is told.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A run failed, or died.
    Failure,
    /// A run left something to look at, or something is not as it should be.
    Warning,
    /// A newest good restore point is too old.
    Overdue,
    /// What was told of before is over.
    Recovery,
    /// A target has little room left.
    LowSpace,
    /// A run ended well.
    Fine,
    /// Somebody tries whether messages arrive.
    Test,
}

impl Event {
    /// Those that the configuration chooses from.
    pub const CHOICE: [Event; 5] = [
        Event::Failure,
        Event::Warning,
        Event::Overdue,
        Event::Recovery,
        Event::LowSpace,
    ];

    /// As in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Event::Failure => "failure",
            Event::Warning => "warning",
            Event::Overdue => "overdue",
            Event::Recovery => "recovery",
            Event::LowSpace => "low-space",
            Event::Fine => "fine",
            Event::Test => "test",
        }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Version of this document, which generic webhooks get.
    pub format: u32,
    /// What has happened.
    pub event: Event,
    /// Name of the host.
    pub host: String,
    /// When it was found.
    pub time: Timestamp,
    /// In a line, with the host's name.
    pub title: String,
    /// What, since when, and what to do next.
    pub text: String,
}

impl Message {
    /// A message; what steers terminals or the lines of a header is taken out.
    pub fn new(event: Event, host: &str, time: Timestamp, title: &str, text: &str) -> Message {
        const LONGEST: usize = 160;
        let title = printable(&format!("{host}: {title}")).replace('\n', " ");
        let short: String = title.chars().take(LONGEST).collect();
        Message {
            format: 1,
            event,
            host: printable(host),
            time,
            title: match short.len() < title.len() {
                true => format!("{}...", short.trim_end()),
                false => title,
            },
            text: printable(text),
        }
    }

    /// Without these words, wherever an error quoted them.
    pub fn without(mut self, secrets: &[String]) -> Message {
        for secret in secrets.iter().filter(|s| s.len() >= 4) {
            self.title = self.title.replace(secret.as_str(), "(hidden)");
            self.text = self.text.replace(secret.as_str(), "(hidden)");
        }
        self
    }
}

/// Lines stay; other control characters, and those that turn the direction of text around, go.
fn printable(text: &str) -> String {
    let safe = |c: char| match c {
        '\n' => '\n',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_one_short_line() {
        let title = format!("failed: a\nBcc: x\r\n{}", "long ".repeat(100));
        let message = Message::new(
            Event::Failure,
            "pve1",
            Timestamp::UNIX_EPOCH,
            &title,
            "a\nb\x1b[2J",
        );
        assert!(!message.title.contains(['\n', '\r']));
        assert!(message.title.chars().count() < 170 && message.title.ends_with("..."));
        assert_eq!(message.text, "a\nb [2J");
        let hidden = message.without(&["Bcc".into(), "failed".into(), String::new()]);
        assert!(
            hidden.title.starts_with("pve1: (hidden): a Bcc"),
            "{}",
            hidden.title
        );
    }
}
