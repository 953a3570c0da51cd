//! A process that is told from another one with the same number, after a reboot, too.

use procfs::process::Process as Proc;
use serde::{Deserialize, Serialize};

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// `/proc/sys/kernel/random/boot_id`
    pub boot: String,
    /// Its start in clock ticks since the boot: field 22 of `/proc/<pid>/stat`, proc_pid_stat(5).
    pub started: u64,
}

impl Process {
    /// The one that asks.
    pub fn own() -> Process {
        let stat = Proc::myself().and_then(|p| p.stat());
        Process {
            pid: nix::unistd::getpid().as_raw(),
            boot: boot().unwrap_or_default(),
            started: stat.map_or(0, |s| s.starttime),
        }
    }

    /// Whether it still runs.
    pub fn is_there(&self) -> bool {
        let stat = Proc::new(self.pid).and_then(|p| p.stat());
        boot().as_deref() == Some(&self.boot) && stat.is_ok_and(|s| s.starttime == self.started)
    }
}

fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}
