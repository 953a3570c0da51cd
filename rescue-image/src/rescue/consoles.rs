//! The consoles that the wizard runs on: all that the kernel writes to, at the same time.

use std::path::{Path, PathBuf};

/// A terminal that an operator may sit at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// Name of the terminal device below `/dev`, such as `tty1` or `ttyS0`.
    pub tty: String,
}

impl Console {
    /// Path of the terminal device.
    pub fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.tty)
    }

    /// Whether this is a serial line or a hypervisor's console, rather than a screen with a keyboard.
    pub fn is_serial(&self) -> bool {
        !self
            .tty
            .strip_prefix("tty")
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
    }

    /// The value of `TERM`: what both sides are sure to understand.
    pub fn term(&self) -> &'static str {
        if self.is_serial() { "vt102" } else { "linux" }
    }
}

/// Reads the kernel's list of active consoles (`/sys/class/tty/console/active`).
///
/// `tty0` stands for the virtual console in front; the wizard takes `tty1`, which is in front after boot. Names that
/// are not terminals (such as `netcon0`) are left out by the caller, who looks whether the device exists.
pub fn parse_active(text: &str) -> Vec<Console> {
    let mut consoles: Vec<Console> = Vec::new();
    for name in text.split_ascii_whitespace() {
        if name.contains('/') || name == "." || name == ".." {
            continue;
        }
        let tty = if name == "tty0" { "tty1" } else { name };
        if consoles.iter().all(|c| c.tty != tty) {
            consoles.push(Console {
                tty: tty.to_owned(),
            });
        }
    }
    consoles
}

/// The consoles of this machine; `console` itself where the kernel names none, so that there is always one.
pub fn active() -> Vec<Console> {
    let text = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut consoles = parse_active(&text);
    consoles.retain(|c| c.device().exists());
    if consoles.is_empty() {
        consoles.push(Console {
            tty: "console".to_owned(),
        });
    }
    consoles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        parse_active(text).into_iter().map(|c| c.tty).collect()
    }

    #[test]
    fn tty0_becomes_tty1_once() {
        assert_eq!(names("tty0 ttyS0\n"), ["tty1", "ttyS0"]);
        assert_eq!(names("tty0 tty1 hvc0"), ["tty1", "hvc0"]);
        assert_eq!(names("../sda .. ttyS1"), ["ttyS1"]);
        assert!(names("").is_empty());
    }

    #[test]
    fn screens_and_serial_lines() {
        let console = |tty: &str| Console {
            tty: tty.to_owned(),
        };
        assert!(!console("tty1").is_serial());
        assert!(console("ttyS0").is_serial());
        assert!(console("hvc0").is_serial());
        assert_eq!(console("tty1").term(), "linux");
        assert_eq!(console("ttyAMA0").term(), "vt102");
    }
}
