//! `nice` and `ionice`: a backup steps back behind what the host is there for.
//!
//! Linux keeps both per thread; threads and processes that are started later inherit them. So they are set before
//! anything else is started.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Of `linux/ioprio.h`: the class is above these bits, the level within it below.
const CLASS_SHIFT: u32 = 13;
const CLASS_REALTIME: u32 = 1;
const CLASS_BEST_EFFORT: u32 = 2;
const CLASS_IDLE: u32 = 3;
/// `IOPRIO_WHO_PROCESS` of `linux/ioprio.h`: one thread, the calling one where its number is 0.
const WHO_PROCESS: libc::c_int = 1;

/// Priority for the processor: 0 (as others) to 19 (last).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nice(pub i32);

impl FromStr for Nice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("'{text}' is not a nice value; write 0 to 19");
        let value: i64 = text.parse().map_err(wrong)?;
        Nice::try_from(value)
    }
}

impl TryFrom<i64> for Nice {
    type Error = String;

    fn try_from(value: i64) -> Result<Self, String> {
        match i32::try_from(value) {
            Ok(value @ 0..=19) => Ok(Nice(value)),
            _ => Err(format!("{value} is not a nice value; write 0 to 19")),
        }
    }
}

impl Serialize for Nice {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i32(self.0)
    }
}

impl<'de> Deserialize<'de> for Nice {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Nice::try_from(i64::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// Priority for disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoNice {
    /// Only when nobody else wants the disk.
    Idle,
    /// As others, from 0 (first) to 7 (last).
    BestEffort(u32),
    /// As the command was started.
    None,
}

impl FromStr for IoNice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = text.strip_prefix("best-effort:").map(str::parse);
        match (text, level) {
            ("idle", _) => Ok(IoNice::Idle),
            ("none", _) => Ok(IoNice::None),
            (_, Some(Ok(level @ 0..=7))) => Ok(IoNice::BestEffort(level)),
            _ => Err(format!(
                "'{text}' is not a priority for disks; write idle, best-effort:0 to best-effort:7, or none"
            )),
        }
    }
}

impl fmt::Display for IoNice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IoNice::Idle => f.write_str("idle"),
            IoNice::BestEffort(level) => write!(f, "best-effort:{level}"),
            IoNice::None => f.write_str("none"),
        }
    }
}

crate::values::as_text!(IoNice);

/// Lowers the priority of this thread, and so of all that it starts. What was started with a lower one (by a unit's
/// `Nice=`, by `ionice`) keeps it. Gives what did not work: a container may forbid it, and the backup goes on.
pub fn lower(nice: Nice, io: IoNice) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) = lower_nice(nice) {
        problems.push(format!(
            "cannot lower the priority to nice {}: {error}; this backup runs beside others as their equal (nice = 0 asks \
             for that)",
            nice.0
        ));
    }
    if let Err(error) = lower_io(io) {
        problems.push(format!(
            "cannot lower the priority for disks to {io}: {error}; this backup reads and writes beside others as their \
             equal (ionice = \"none\" asks for that)"
        ));
    }
    problems
}

fn lower_nice(Nice(wanted): Nice) -> io::Result<()> {
    // -1 is a priority as well as a failure: only errno tells.
    nix::errno::Errno::clear();
    // SAFETY: the call takes numbers only.
    let now = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    if now == -1 && nix::errno::Errno::last_raw() != 0 {
        return Err(io::Error::last_os_error());
    }
    if now >= wanted {
        return Ok(());
    }
    // SAFETY: the call takes numbers only.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, wanted) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn lower_io(wanted: IoNice) -> io::Result<()> {
    let value = match wanted {
        IoNice::None => return Ok(()),
        IoNice::Idle => CLASS_IDLE << CLASS_SHIFT,
        IoNice::BestEffort(level) => CLASS_BEST_EFFORT << CLASS_SHIFT | level,
    };
    // SAFETY: the call takes numbers only.
    let now = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) };
    let now = u32::try_from(now).map_err(|_| io::Error::last_os_error())?;
    if gentler(now, value) {
        return Ok(());
    }
    // SAFETY: the call takes numbers only.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Does a thread with the first priority step back as far as one with the second, or further?
fn gentler(now: u32, wanted: u32) -> bool {
    match now >> CLASS_SHIFT {
        // Within a class, a greater number is later; and so are the classes from realtime to idle.
        CLASS_REALTIME..=CLASS_IDLE => now >= wanted,
        // None was set: it follows from the nice value.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_read_as_written() {
        for text in ["idle", "none", "best-effort:0", "best-effort:7"] {
            assert_eq!(text.parse::<IoNice>().unwrap().to_string(), text);
        }
        for wrong in ["best-effort", "best-effort:8", "realtime:0", "", "7"] {
            assert!(
                wrong
                    .parse::<IoNice>()
                    .unwrap_err()
                    .contains("best-effort:7"),
                "{wrong}"
            );
        }
        assert_eq!("19".parse(), Ok(Nice(19)));
        for wrong in ["20", "-1", "x", ""] {
            assert!(wrong.parse::<Nice>().unwrap_err().contains("0 to 19"));
        }
    }

    #[test]
    fn what_is_gentler_stays() {
        let idle = CLASS_IDLE << CLASS_SHIFT;
        let best = |level| CLASS_BEST_EFFORT << CLASS_SHIFT | level;
        assert!(gentler(idle, best(7)) && gentler(idle, idle) && gentler(best(7), best(4)));
        assert!(!gentler(best(7), idle) && !gentler(best(4), best(7)) && !gentler(0, best(0)));
        assert!(!gentler(CLASS_REALTIME << CLASS_SHIFT | 7, best(0)));
    }
}
