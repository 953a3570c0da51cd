//! Event lines: `lifeboat: <event> key=value ...`, one per line, for log readers and for the test harness.
//!
//! They go to every console and to `events.log` in the log directory, so that a serial log alone tells how a restore
//! went. A value that holds anything but plain printable ASCII without spaces and quotes is written between double
//! quotes, with `\"`, `\\`, `\n` and `\xNN` as escapes.
//!
//! | event | keys |
//! |---|---|
//! | `starting` | `version`, `slot` |
//! | `ready` | `bundles`, `snapshots` |
//! | `wizard` | `tty`, and `reason` where an unattended restore was asked for and refused |
//! | `unattended` | `snapshot`, `then` |
//! | `checking` | `snapshot` |
//! | `damaged` | `pack`, `blob`, `reason`, `file` (one line per file affected) |
//! | `readable` | `snapshot`, `seconds` |
//! | `refused` | `reason`, and `missing_bytes` where a disk is too small |
//! | `erasing` | `disk`, `serial` |
//! | `fenced` | `disk` |
//! | `guests` | `return`, `lost`: how many come back at the first boot, and how many do not |
//! | `network` | `name` (of a saved network card), `was`, `is` (addresses), `because` |
//! | `cluster` | `member` (of which), `start` (`isolated` or `member`) |
//! | `step` | `index`, `total`, `text` |
//! | `progress` | `bytes`, `files` |
//! | `warning` | `text` |
//! | `difference` | `node`, `what`, `saved`, `now`, `accepted` |
//! | `restored` | `differences` (those not accepted), `seconds` |
//! | `failed` | `step`, `reason` |
//! | `rebooting`, `powering-off` | |

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

/// One event line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    event: String,
    fields: Vec<(String, String)>,
}

impl Line {
    /// An event without fields.
    pub fn new(event: &str) -> Self {
        Self {
            event: event.to_owned(),
            fields: Vec::new(),
        }
    }

    /// Adds a field.
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.fields.push((key.to_owned(), value.to_string()));
        self
    }

    /// Name of the event.
    pub fn event(&self) -> &str {
        &self.event
    }

    /// Value of a field, as it was given.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lifeboat: {}", self.event)?;
        for (key, value) in &self.fields {
            write!(f, " {key}={}", quoted(value))?;
        }
        Ok(())
    }
}

fn quoted(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'=');
    if !value.is_empty() && value.bytes().all(plain) {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for b in value.bytes() {
        match b {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            0x20..=0x7e => out.push(char::from(b)),
            other => out.push_str(&format!("\\x{other:02x}")),
        }
    }
    out.push('"');
    out
}

/// Takes event lines.
pub trait Announce: Send + Sync {
    /// Shows or stores one line. Never fails: a console that is gone must not stop a restore.
    fn line(&self, line: &Line);
}

/// Writes lines to consoles and to a file.
#[derive(Debug, Default)]
pub struct Broadcast {
    /// Devices or files that each line is written to.
    pub consoles: Vec<PathBuf>,
    /// File that each line is appended to.
    pub log: Option<PathBuf>,
    /// Also print to the standard output (for use outside the rescue system).
    pub stdout: bool,
}

impl Broadcast {
    /// Every active console, and `events.log` in the log directory.
    pub fn everywhere() -> Self {
        let consoles = super::consoles::active()
            .into_iter()
            .map(|c| c.device())
            .collect();
        Self {
            consoles,
            log: Some(PathBuf::from(super::LOG_DIR).join("events.log")),
            stdout: false,
        }
    }

    /// The standard output only.
    pub fn to_stdout() -> Self {
        Self {
            stdout: true,
            ..Self::default()
        }
    }
}

impl Announce for Broadcast {
    fn line(&self, line: &Line) {
        let text = line.to_string();
        tracing::info!(target: "event", "{text}");
        if self.stdout {
            println!("{text}");
        }
        for console in &self.consoles {
            // Opened each time and non-blocking: a console whose other end is not read must not hold up a restore.
            // The CR clears a half-drawn progress bar off the line.
            let file = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
                .open(console);
            if let Ok(mut file) = file {
                let _ = write_patiently(&mut file, format!("\r{text}\r\n").as_bytes());
            }
        }
        if let Some(log) = &self.log {
            if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(log) {
                let _ = writeln!(file, "{text}");
            }
        }
    }
}

/// Writes to a non-blocking terminal, giving it some two seconds to take everything.
fn write_patiently(out: &mut impl Write, mut bytes: &[u8]) -> std::io::Result<()> {
    let mut patience = 100;
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Ok(()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && patience > 0 => {
                patience -= 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Keeps the lines in memory, for tests.
#[derive(Debug, Default)]
pub struct Kept(Mutex<Vec<Line>>);

impl Kept {
    /// The lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.0.lock().map(|l| l.clone()).unwrap_or_default()
    }

    /// The lines of one event.
    pub fn of(&self, event: &str) -> Vec<Line> {
        self.lines()
            .into_iter()
            .filter(|l| l.event() == event)
            .collect()
    }
}

impl Announce for Kept {
    fn line(&self, line: &Line) {
        if let Ok(mut lines) = self.0.lock() {
            lines.push(line.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_are_bare_and_others_quoted() {
        let line = Line::new("refused")
            .with("reason", "disk \"sda\" is\ntoo small")
            .with("missing_bytes", 4096)
            .with("empty", "")
            .with("path", "root:/etc/fstab");
        assert_eq!(
            line.to_string(),
            "lifeboat: refused reason=\"disk \\\"sda\\\" is\\ntoo small\" missing_bytes=4096 empty=\"\" path=root:/etc/fstab"
        );
    }

    #[test]
    fn a_line_stays_one_ascii_line() {
        let text = Line::new("warning")
            .with("text", "sch\u{f6}n\r\n\u{1b}[2J")
            .to_string();
        assert!(text.is_ascii());
        assert!(!text.contains(['\n', '\r', '\u{1b}']));
        assert!(text.contains("\\xc3\\xb6"));
    }

    #[test]
    fn lines_go_to_every_place() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (console, log) = (dir.path().join("tty"), dir.path().join("events.log"));
        std::fs::write(&console, "").expect("write");
        let out = Broadcast {
            consoles: vec![console.clone()],
            log: Some(log.clone()),
            stdout: false,
        };
        out.line(&Line::new("ready").with("bundles", 1));
        assert_eq!(
            std::fs::read_to_string(console).expect("read"),
            "\rlifeboat: ready bundles=1\r\n"
        );
        assert_eq!(
            std::fs::read_to_string(log).expect("read"),
            "lifeboat: ready bundles=1\n"
        );
    }
}
