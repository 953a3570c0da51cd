//! Makes the machine usable: mounts, modules, udev, names. Runs as a child of process 1.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use layout::system::{Cmd, System};

use super::mounts;
use crate::rescue::cmdline::CommandLine;
use crate::rescue::network::here;

/// Modules that no device asks for by itself: file systems, device-mapper targets, and drivers for media that would be
/// coldplugged anyway, named so that a missing alias in a slim initramfs does not cost the medium. Those that the
/// kernel has built in, or that are not in the image, are skipped in silence.
const MODULES: &[&str] = &[
    "crc32c_generic",
    "ext4",
    "xfs",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859-1",
    "nls_utf8",
    "efivarfs",
    "loop",
    "dm_mod",
    "dm_thin_pool",
    "dm_snapshot",
    "usb_storage",
    "uas",
    "sd_mod",
    "xhci_pci",
    "ehci_pci",
    "ahci",
    "nvme",
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "hid_generic",
    "usbhid",
    "zfs",
];

/// Rules that would start volume groups, arrays or caches found on disks. Rules of these names in `/run` replace those
/// of the distribution: a restore looks at foreign disks, it must not start (and so write to) what is on them.
const MASKED_RULES: &[&str] = &[
    "64-md-raid-assembly.rules",
    "64-btrfs.rules",
    "64-btrfs-dm.rules",
    "69-lvm.rules",
    "69-lvm-metad.rules",
    "69-bcache.rules",
    "69-md-clustered-confirm-device.rules",
    "90-zfs.rules",
];

/// Settings over those of the host's `lvm.conf`: nothing is activated by itself, every device is looked at, and no
/// metadata is archived into the rescue system's memory.
const LVM_LOCAL: &str = "\
global { event_activation = 0 use_lvmpolld = 0 use_lvmlockd = 0 }
activation { auto_activation_volume_list = [] monitoring = 0 }
devices { use_devicesfile = 0 }
backup { backup = 0 archive = 0 }
";

/// Does all of it. What can be done without is only logged.
pub fn run(sys: &dyn System) -> Result<()> {
    for warning in mounts::all()? {
        eprintln!("lifeboat-rescue: {warning}");
    }
    links();
    let line = CommandLine::of_kernel();
    if !line.debug {
        // Only emergencies on the console, so that prompts stay readable; all of it stays in `dmesg`.
        write("/proc/sys/kernel/printk", "1 4 1 7\n");
    }
    for dir in [
        super::super::RUN_DIR,
        super::super::LOG_DIR,
        super::super::MEDIA_DIR,
        "/target",
        "/root",
        "/etc/lvm",
    ] {
        fs::create_dir_all(dir).with_context(|| format!("creating {dir}"))?;
    }
    // Where the children of process 1 log to from now on.
    write(super::super::LOG_FILE, "");
    if let Err(error) = nix::unistd::sethostname("lifeboat-rescue") {
        eprintln!("lifeboat-rescue: setting the host name: {error}");
    }
    // Some tools talk to themselves over it.
    if let Err(error) = here::up("lo") {
        eprintln!("lifeboat-rescue: starting the loopback interface: {error}");
    }
    write("/etc/lvm/lvmlocal.conf", LVM_LOCAL);
    mask_rules(Path::new("/run/udev/rules.d"))?;
    modules(sys);
    udev(sys)?;
    if let Err(error) = mounts::efi_variables() {
        eprintln!("lifeboat-rescue: {error:#}");
    }
    Ok(())
}

/// The links that programs expect in `/dev`, and `/etc/mtab`.
fn links() {
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("/proc/self/mounts", "/etc/mtab"),
    ] {
        // Already there on a second run: fine.
        let _ = std::os::unix::fs::symlink(target, link);
    }
}

fn write(path: &str, text: &str) {
    if let Err(error) = fs::write(path, text) {
        eprintln!("lifeboat-rescue: writing {path}: {error}");
    }
}

fn mask_rules(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    for name in MASKED_RULES {
        let path = dir.join(name);
        fs::write(
            &path,
            "# Nothing is started by itself in the rescue system.\n",
        )
        .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn modules(sys: &dyn System) {
    let command = Cmd::new("modprobe")
        .args(["--all", "--quiet"])
        .args(MODULES.iter().copied());
    if let Err(error) = sys.run(&command) {
        // modprobe says so too when a single one is built in or missing; udev loads the rest by alias.
        tracing::info!("modprobe: {error}");
    }
}

/// Starts udevd and plays all devices to it, so that `ID_*` properties are there and LVM does not wait for ever.
fn udev(sys: &dyn System) -> Result<()> {
    let daemon = [
        "/usr/lib/systemd/systemd-udevd",
        "/lib/systemd/systemd-udevd",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists());
    let Some(daemon) = daemon else {
        bail!(
            "systemd-udevd is not in this rescue system: disks cannot be identified; make the stick again with `lifeboat prepare`"
        );
    };
    let limit = Duration::from_secs(60);
    sys.run(&Cmd::new(daemon).arg("--daemon").timeout(limit))
        .context("starting systemd-udevd")?;
    for kind in ["subsystems", "devices"] {
        let command = Cmd::new("udevadm")
            .args(["trigger", "--action=add"])
            .arg(format!("--type={kind}"))
            .timeout(limit);
        sys.run(&command)
            .context("asking the kernel for all devices (udevadm trigger)")?;
    }
    // Not fatal: one slow device must not keep the others from being used.
    if let Err(error) = sys.run(
        &Cmd::new("udevadm")
            .args(["settle", "--timeout=30"])
            .timeout(limit),
    ) {
        eprintln!("lifeboat-rescue: some devices are still being set up: {error}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_start_volumes_are_masked() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let rules = dir.path().join("rules.d");
        mask_rules(&rules).expect("written");
        for name in ["69-lvm.rules", "64-md-raid-assembly.rules"] {
            let text = fs::read_to_string(rules.join(name)).expect("there");
            assert!(text.lines().all(|l| l.starts_with('#')), "{name}: {text}");
        }
    }

    #[test]
    fn lvm_is_told_to_activate_nothing() {
        assert!(LVM_LOCAL.contains("auto_activation_volume_list = []"));
        assert!(LVM_LOCAL.contains("event_activation = 0"));
    }
}
