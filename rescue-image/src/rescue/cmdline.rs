//! The kernel command line of the rescue system.
//!
//! Words that matter: `lifeboat.slot=a|b` (which of the two rescue systems on the stick was booted),
//! `lifeboat.medium=<uuid>` (the data partition of the stick that was booted),
//! `lifeboat.key=<path>` (a key file on any attached medium, from its root, for encrypted bundles),
//! `lifeboat.unattended=<token>` (a restore armed beforehand), `lifeboat.debug` (more log lines on the console) and
//! `lifeboat.shell` (a shell before anything else is started).

/// What the rescue system reads from the kernel command line. Words of other programs are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Slot of the stick that was booted, `a` or `b`.
    pub slot: Option<String>,
    /// UUID of the partition (or of the file system) that holds the bundle of the booted stick.
    pub medium: Option<String>,
    /// A key file on any attached medium, from its root.
    pub key: Option<String>,
    /// Token of an armed unattended restore.
    pub unattended: Option<String>,
    /// `console=` words in their order, without the options after the comma.
    pub consoles: Vec<String>,
    /// Log more, and leave kernel messages on the console.
    pub debug: bool,
    /// Start a shell before anything else.
    pub shell: bool,
}

impl CommandLine {
    /// Reads a kernel command line; a later word wins over an earlier one, as in the kernel.
    pub fn parse(text: &str) -> Self {
        let mut line = Self::default();
        for word in words(text) {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word.as_str(), None),
            };
            // An empty value says nothing: `lifeboat.unattended=` must not count as a token.
            let value = value.filter(|v| !v.is_empty());
            match (key, value) {
                ("lifeboat.slot", Some(v)) => line.slot = Some(v.to_owned()),
                ("lifeboat.medium", Some(v)) => line.medium = Some(v.to_owned()),
                ("lifeboat.key", Some(v)) => line.key = Some(v.to_owned()),
                ("lifeboat.unattended", Some(v)) => line.unattended = Some(v.to_owned()),
                ("lifeboat.debug", v) => line.debug = v != Some("0"),
                ("lifeboat.shell", v) => line.shell = v != Some("0"),
                ("console", Some(v)) => {
                    let name = v.split(',').next().unwrap_or(v);
                    line.consoles.push(name.to_owned());
                }
                _ => {}
            }
        }
        line
    }

    /// Reads `/proc/cmdline`; an unreadable one counts as empty, since a rescue system must go on.
    pub fn of_kernel() -> Self {
        match std::fs::read("/proc/cmdline") {
            Ok(bytes) => Self::parse(&String::from_utf8_lossy(&bytes)),
            Err(_) => Self::default(),
        }
    }
}

/// Splits like the kernel's `next_arg`: white space separates, double quotes keep it, and are dropped.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut started) = (false, false);
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                started = true;
            }
            c if c.is_whitespace() && !quoted => {
                if started {
                    words.push(std::mem::take(&mut word));
                    started = false;
                }
            }
            c => {
                word.push(c);
                started = true;
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_words_of_the_boot_menu() {
        let line = CommandLine::parse(
            "BOOT_IMAGE=/rescue/a/vmlinuz lifeboat.slot=a lifeboat.medium=1234-abcd quiet \
             lifeboat.unattended=f00d lifeboat.key=usb/my.key console=tty0 console=ttyS0,115200n8\n",
        );
        assert_eq!(line.slot.as_deref(), Some("a"));
        assert_eq!(line.medium.as_deref(), Some("1234-abcd"));
        assert_eq!(line.unattended.as_deref(), Some("f00d"));
        assert_eq!(line.key.as_deref(), Some("usb/my.key"));
        assert_eq!(line.consoles, ["tty0", "ttyS0"]);
        assert!(!line.debug && !line.shell);
    }

    #[test]
    fn an_empty_token_is_no_token() {
        assert_eq!(CommandLine::parse("lifeboat.unattended=").unattended, None);
        assert_eq!(CommandLine::parse("lifeboat.unattended").unattended, None);
        assert_eq!(
            CommandLine::parse("xlifeboat.unattended=1").unattended,
            None
        );
    }

    #[test]
    fn later_words_win_and_quotes_keep_spaces() {
        let line = CommandLine::parse(
            "lifeboat.medium=one lifeboat.medium=\"two three\" \"lifeboat.slot=b\"",
        );
        assert_eq!(line.medium.as_deref(), Some("two three"));
        assert_eq!(line.slot.as_deref(), Some("b"));
    }

    #[test]
    fn switches() {
        assert!(CommandLine::parse("lifeboat.debug").debug);
        assert!(CommandLine::parse("lifeboat.shell=1").shell);
        assert!(!CommandLine::parse("lifeboat.debug=0").debug);
        assert_eq!(CommandLine::parse(""), CommandLine::default());
    }
}
