//! Mounts, modules and udevd of the test machine.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use layout::system::{Cmd, Host, Output, System};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use vm_tests::uml::case::DiskSpec;

const MODULES: &[&str] = &[
    "dm-mod",
    "dm-thin-pool",
    "dm-snapshot",
    // LVM would load them, but not from where they are here.
    "dm-mirror",
    "dm-raid",
    "raid0",
    "raid1",
    "raid10",
    "raid456",
    "dm-cache",
    "dm-cache-smq",
    "dm-writecache",
    "vfat",
    "nls_cp437",
    "nls_iso8859-1",
    "nls_ascii",
    "xfs",
    // For ext4 with the feature quota.
    "quota_v2",
    // Its keys are encrypted with this, which the kernel would load from where it is not.
    "cbc",
    "dm-crypt",
    "xts",
    "essiv",
    "algif_skcipher",
    "loop",
];

/// On a machine with ZFS, whose tree has the modules of its kernel.
const ZFS_MODULES: &[&str] = &[
    "zfs",
    "dm-mod",
    "vfat",
    "nls_cp437",
    "nls_iso8859-1",
    "nls_ascii",
    "xfs",
];

/// Every LVM command touches and locks its reserve before it suspends a volume: in this machine, page by page through
/// ptrace.
const LVM_CONF: &str =
    "activation {\n  reserved_memory = 64\n  reserved_stack = 16\n  monitoring = 0\n}\n";

/// Runs a tool that has to succeed.
pub fn tool(argv: &[&str]) -> Result<Output> {
    let (program, args) = argv.split_first().context("no command")?;
    // A machine that says nothing for long is taken for one that hangs.
    println!("floor:   $ {}", argv.join(" "));
    Ok(Host.run(
        &Cmd::new(*program)
            .args(args.iter().copied())
            .timeout(Duration::from_secs(200)),
    )?)
}

/// Runs a tool and returns what it prints.
pub fn text(argv: &[&str]) -> Result<String> {
    Ok(tool(argv)?.text())
}

fn mount_fs(kind: &str, at: &str) -> Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount {kind} on {at}"))
}

/// Makes a machine of the bare kernel.
pub fn start() -> Result<()> {
    // SAFETY: there is one thread yet.
    unsafe { std::env::set_var("PATH", "/usr/sbin:/usr/bin:/sbin:/bin") };
    mount_fs("proc", "/proc")?;
    // An initramfs has done that already. On hostfs the one of the machine outside is seen.
    if nix::sys::statfs::statfs("/sys")?.filesystem_type() != nix::sys::statfs::SYSFS_MAGIC {
        mount_fs("sysfs", "/sys")?;
    }
    mount_fs("tmpfs", "/run")?;
    if !Path::new("/dev/null").exists() {
        mount_fs("devtmpfs", "/dev")?;
    }
    for dir in [
        "/run/lock/lvm",
        "/run/lvm",
        "/run/udev",
        "/run/target",
        "/run/look",
        "/run/modules/lib",
    ] {
        std::fs::create_dir_all(dir)?;
    }
    // The root directory is that of the machine outside, read-only: what tools write goes to memory.
    mount_fs("tmpfs", "/etc/lvm")?;
    std::fs::write("/etc/lvm/lvm.conf", LVM_CONF)?;
    let own = Path::new("/usr/lib/uml/modules");
    let modules = if own.is_dir() { MODULES } else { ZFS_MODULES };
    if own.is_dir() {
        std::os::unix::fs::symlink(own, "/run/modules/lib/modules")?;
    } else {
        std::os::unix::fs::symlink("/lib/modules", "/run/modules/lib/modules")?;
    }
    // As in the rescue system: nothing that is found on disks starts by itself.
    std::fs::create_dir_all("/run/udev/rules.d")?;
    for rules in ["64-md-raid-assembly.rules", "69-lvm.rules"] {
        std::os::unix::fs::symlink("/dev/null", Path::new("/run/udev/rules.d").join(rules))?;
    }
    for &module in modules {
        // Some are built in, by kernel version.
        if let Err(error) = tool(&["modprobe", "-d", "/run/modules", module]) {
            println!("floor: note: {error}");
        }
    }
    tool(&["/lib/systemd/systemd-udevd", "--daemon"])?;
    tool(&[
        "udevadm",
        "trigger",
        "--subsystem-match=block",
        "--action=add",
    ])?;
    settle()
}

/// Makes the disk with sectors of another size, where the case has one.
pub fn other_sectors(disk: &DiskSpec) -> Result<()> {
    let Some(sector) = disk.sector_size else {
        return Ok(());
    };
    let modprobe = ["modprobe", "-d", "/run/modules"];
    tool(&[&modprobe[..], &["sd_mod"]].concat())?;
    let size = format!("dev_size_mb={}", disk.mib);
    let sector = format!("sector_size={sector}");
    tool(&[&modprobe[..], &["scsi_debug", &size, &sector, "delay=0"]].concat())?;
    let name = disk.device(0);
    // The kernel looks for disks in the background.
    for _ in 0..200 {
        if name.exists() {
            return settle();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{} did not appear", name.display())
}

/// Waits for udev.
pub fn settle() -> Result<()> {
    tool(&["udevadm", "settle", "--timeout=30"])?;
    Ok(())
}

/// Has this process tell its progress on the console by itself, and not to the one that started it.
pub fn speak() -> Result<()> {
    let console = std::fs::File::options().write(true).open("/dev/console")?;
    Ok(nix::unistd::dup2_stdout(&console)?)
}

/// Switches the machine off as a power cut does: nothing is written out, nothing taken down.
pub fn power_off() {
    use std::io::Write;
    let mut console = std::io::stdout();
    let _ = console.flush();
    // The words themselves have to be out; the disks are of no interest.
    let _ = nix::sys::termios::tcdrain(&console);
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    println!("floor: failed: the machine cannot be switched off: {error}");
}

/// Switches the machine off.
pub fn stop() -> ExitCode {
    use std::io::Write;
    let _ = std::io::stdout().flush();
    nix::unistd::sync();
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(_) => ExitCode::FAILURE,
    }
}
