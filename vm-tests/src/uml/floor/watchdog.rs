//! Tells why a machine is silent: what a tool that has run for long waits for.
//!
//! A machine was silent in mkfs.ext4 and in mkfs.xfs, some once in five hundred runs; the discards that `ptrace_shim.rs` now
//! swallows are suspected. Whether the tool, its disk or the kernel hangs is seen from inside only, before the machine is
//! killed for its silence.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tools take seconds here.
const LONG: f64 = 45.0;

/// The clock of /proc/PID/stat on every architecture that Linux still has (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Runs until the machine ends.
pub fn start() {
    std::thread::spawn(|| {
        let mut told = BTreeSet::new();
        loop {
            std::thread::sleep(Duration::from_secs(10));
            for pid in long_running() {
                if told.insert(pid) {
                    tell(pid);
                }
            }
        }
    });
}

/// Tools: not the daemon, and not this program.
fn long_running() -> Vec<u32> {
    let own = fs::read_link("/proc/self/exe").ok();
    let uptime: f64 = word(&read("/proc/uptime"), 0).unwrap_or(0.0);
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|e| {
        let name = e.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    pids.filter(|pid| {
        // Threads of the kernel have none.
        let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else {
            return false;
        };
        if own.as_ref() == Some(&program) || program.ends_with("udevadm") {
            return false;
        }
        // Words are counted behind the name, which may have blanks: the state is word 0, the start word 19 (proc(5)).
        let stat = read(&format!("/proc/{pid}/stat"));
        let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
        word(behind, 19).is_some_and(|start: f64| uptime - start / TICKS > LONG)
    })
    .collect()
}

fn tell(pid: u32) {
    let of = |what: &str| read(&format!("/proc/{pid}/{what}")).replace('\0', " ");
    println!(
        "floor: note: this takes long: {}\nfloor:   stat {}\nfloor:   waits in {}, call {}\nfloor:   stack {}",
        of("cmdline").trim(),
        of("stat").trim(),
        of("wchan").trim(),
        of("syscall").trim(),
        of("stack").trim().replace('\n', " | ")
    );
    let memory = read("/proc/meminfo");
    let lines = memory.lines().filter(|l| {
        ["MemFree", "Dirty", "Writeback:"]
            .iter()
            .any(|key| l.starts_with(key))
    });
    println!("floor:   {}", lines.collect::<Vec<_>>().join(", "));
    for disk in disks() {
        let device = disk.display();
        println!(
            "floor:   {device}: requests {}",
            read(&format!("/sys/class/block/{device}/inflight")).trim()
        );
        // A request may bring a disk back that has forgotten those it has; one that does not return tells as much.
        std::thread::spawn(move || {
            let about = match read_sector(&disk) {
                Ok(()) => "can be read".to_owned(),
                Err(error) => error.to_string(),
            };
            println!("floor:   {}: {about}", disk.display());
        });
    }
}

/// Names of the machine's disks.
fn disks() -> Vec<PathBuf> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    entries
        .map(|e| PathBuf::from(e.file_name()))
        .filter(|name| name.to_string_lossy().starts_with("ubd"))
        .collect()
}

/// Past the cache.
fn read_sector(disk: &Path) -> std::io::Result<()> {
    let file = fs::File::options()
        .read(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(Path::new("/dev").join(disk))?;
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let mut page = Page([0; 4096]);
    file.read_exact_at(&mut page.0, 0)
}

/// What cannot be read is not known.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn word<T: std::str::FromStr>(text: &str, n: usize) -> Option<T> {
    text.split_whitespace().nth(n)?.parse().ok()
}
