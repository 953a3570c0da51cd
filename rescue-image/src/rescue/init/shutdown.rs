//! The end of the rescue system: nothing stays mounted or active, then the kernel is asked.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use layout::system::{Cmd, System};

/// How the machine is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Start again.
    Reboot,
    /// Off.
    PowerOff,
}

/// Asks process 1 of the rescue system for it, and waits to be ended. Refuses anywhere else.
pub fn request(ending: Ending) -> Result<()> {
    if !is_rescue_system() {
        let first = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
        bail!(
            "this is not the rescue system (process 1 is `{}`); use `systemctl reboot` or `systemctl poweroff`",
            first.trim()
        );
    }
    let signal = match ending {
        Ending::Reboot => nix::sys::signal::Signal::SIGTERM,
        Ending::PowerOff => nix::sys::signal::Signal::SIGUSR2,
    };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(1), signal)
        .context("asking process 1 to end the machine")?;
    std::thread::sleep(Duration::from_secs(60));
    bail!("process 1 did not end the machine within a minute; use the power button")
}

/// Whether process 1 is this program.
pub fn is_rescue_system() -> bool {
    let first = std::fs::read_link("/proc/1/exe").ok();
    first.is_some() && first == std::env::current_exe().ok()
}

/// Unmounts all that is not a pseudo file system, deactivates volume groups, writes everything out.
pub fn down(sys: &dyn System) -> Result<()> {
    let table =
        std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let mut failed = Vec::new();
    for path in to_unmount(&table) {
        if let Err(error) = sys_mount::unmount(&path, sys_mount::UnmountFlags::empty()) {
            failed.push(format!("unmounting {}: {error}", path.display()));
        }
    }
    nix::unistd::sync();
    // udevd is gone by now: without these settings vgchange would wait for it for ever.
    let settings = "activation { udev_sync = 0 udev_rules = 0 }";
    let command = Cmd::new("vgchange")
        .args(["-an", "--config", settings])
        .timeout(Duration::from_secs(20));
    if let Err(error) = sys.run(&command) {
        failed.push(format!("deactivating volume groups: {error}"));
    }
    nix::unistd::sync();
    if failed.is_empty() {
        Ok(())
    } else {
        bail!(failed.join("; "))
    }
}

/// Mount points of file systems on devices, the last mounted first.
fn to_unmount(mountinfo: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(at) = left.split(' ').nth(4) else {
            continue;
        };
        let mut right = right.split(' ');
        let (kind, source) = (right.next().unwrap_or(""), right.next().unwrap_or(""));
        let under = |top: &str| {
            at == top
                || at
                    .strip_prefix(top)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        // Below /target the pseudo file systems too: they keep the restored root busy.
        if at != "/"
            && (source.starts_with("/dev/") || under("/target") || kind.starts_with("fuse"))
        {
            paths.push(PathBuf::from(unescape(at)));
        }
    }
    paths.reverse();
    paths
}

/// Undoes the octal escapes of mountinfo (space, tab, newline, backslash).
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (escape, plain)| {
            text.replace(escape, plain)
        })
}

/// Ends the machine. Only returns (into sleep) when the kernel refused.
pub fn now(ending: Ending) -> ! {
    nix::unistd::sync();
    if std::process::id() == 1 {
        let mode = match ending {
            Ending::Reboot => nix::sys::reboot::RebootMode::RB_AUTOBOOT,
            Ending::PowerOff => nix::sys::reboot::RebootMode::RB_POWER_OFF,
        };
        let _ = nix::sys::reboot::reboot(mode);
    }
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmounts_devices_and_the_target_deepest_first() {
        let table = "\
1 1 0:1 / / rw - rootfs rootfs rw
20 1 0:18 / /proc rw - proc proc rw
30 1 8:3 / /run/lifeboat/media/1 ro - ext4 /dev/sda3 ro
40 1 254:0 / /target rw - ext4 /dev/mapper/pve-root rw
41 40 0:18 / /target/proc rw - proc proc rw
42 40 8:18 / /target/boot/efi rw - vfat /dev/sdb2 rw
43 1 0:99 / /targets rw - tmpfs tmpfs rw
44 1 8:33 / /run/lifeboat/with\\040space ro - ext4 /dev/sdc1 ro
";
        let paths: Vec<String> = to_unmount(table)
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        assert_eq!(
            paths,
            [
                "/run/lifeboat/with space",
                "/target/boot/efi",
                "/target/proc",
                "/target",
                "/run/lifeboat/media/1",
            ]
        );
    }

    #[test]
    fn refuses_outside_the_rescue_system() {
        let error = request(Ending::Reboot).expect_err("process 1 is not this test");
        assert!(error.to_string().contains("systemctl"), "{error}");
    }
}
