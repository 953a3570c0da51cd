//! The fence around disks that are not targets, and the wiping of those that are.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc::c_int;

use super::{Executor, Outcome, StepError, io_error};
use crate::capture::devices::Devices;
use crate::inventory::inventory;
use crate::plan::{DiskIdentity, Step};
use crate::system::{BlockDevice, Cmd, System, SystemError};
use crate::units::Bytes;

// linux/fs.h: BLKROSET _IO(0x12,93), BLKROGET _IO(0x12,94), BLKRRPART _IO(0x12,95), BLKFLSBUF _IO(0x12,97).
nix::ioctl_write_ptr_bad!(blkroset, 0x125d, c_int);
nix::ioctl_read_bad!(blkroget, 0x125e, c_int);
nix::ioctl_none_bad!(blkrrpart, 0x125f);
nix::ioctl_none_bad!(blkflsbuf, 0x1261);

/// How much is zeroed at both ends of disks and partitions: RAID superblocks lie up to 128 KiB before the end, LVM's and
/// ZFS's labels within the first MiB.
const EDGE: u64 = 1 << 20;

fn open_read(device: &Path) -> Result<File, StepError> {
    File::open(device).map_err(io_error("cannot open", device))
}

/// Sets or lifts the read-only flag of a disk and its partitions, and asks the kernel whether it is so.
pub(super) fn set_read_only(
    sys: &dyn System,
    device: &Path,
    read_only: bool,
) -> Result<(), StepError> {
    let devices = Devices::new(sys)?;
    let mut all = vec![device.to_owned()];
    if let Some(disk) = devices.by_node(device) {
        all.extend(devices.partitions(&disk.name).map(|part| part.node.clone()));
    }
    for node in all {
        let file = open_read(&node)?;
        let value = c_int::from(read_only);
        // SAFETY: the descriptor is open and the kernel reads one int.
        unsafe { blkroset(file.as_raw_fd(), &value) }
            .map_err(|e| io_error("cannot change the read-only flag of", &node)(e.into()))?;
        if is_read_only(&node)? != read_only {
            let flag = if read_only { "read-only" } else { "writable" };
            return Err(StepError::Verify(format!(
                "the kernel did not make {} {flag}",
                node.display()
            )));
        }
    }
    Ok(())
}

fn is_read_only(device: &Path) -> Result<bool, StepError> {
    let file = open_read(device)?;
    let mut value: c_int = 0;
    // SAFETY: the descriptor is open and the kernel writes one int.
    unsafe { blkroget(file.as_raw_fd(), &mut value) }
        .map_err(|e| io_error("cannot read the read-only flag of", device)(e.into()))?;
    Ok(value != 0)
}

/// Has the kernel read the partition table again. Busy for a moment is usual while udev looks at the disk.
pub(super) fn reread_partitions(device: &Path) -> Result<(), StepError> {
    let file = open_read(device)?;
    let start = Instant::now();
    loop {
        // SAFETY: the descriptor is open; the call has no argument.
        match unsafe { blkrrpart(file.as_raw_fd()) } {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EBUSY) if start.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => {
                return Err(io_error(
                    "the kernel did not read the new partition table of",
                    device,
                )(error.into()));
            }
        }
    }
}

/// Whether nobody else has the disk or a partition of it for himself: a file system that is mounted where we do not see it,
/// further disks of a btrfs or ZFS pool.
pub(super) fn claim(device: &Path) -> Result<(), StepError> {
    let start = Instant::now();
    loop {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_EXCL)
            .open(device);
        match opened {
            Ok(_) => return Ok(()),
            // Tools that udev starts have it for a moment.
            Err(e)
                if e.raw_os_error() == Some(nix::libc::EBUSY)
                    && start.elapsed() < Duration::from_secs(5) =>
            {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => {
                return Err(StepError::Refused(format!(
                    "{} cannot be taken for the restore ({error}): unmount and close what is on it first",
                    device.display()
                )));
            }
        }
    }
}

/// Drops what the kernel has cached of a device, so that reading back means reading the disk.
pub(super) fn drop_cache(device: &Path) -> Result<(), StepError> {
    let file = open_read(device)?;
    // SAFETY: the descriptor is open; the call has no argument.
    unsafe { blkflsbuf(file.as_raw_fd()) }
        .map_err(|e| io_error("cannot flush", device)(e.into()))?;
    Ok(())
}

/// Zeroes the first and the last MiB of a device.
pub(super) fn zero_edges(device: &Path) -> Result<(), StepError> {
    let mut file = OpenOptions::new()
        .write(true)
        .open(device)
        .map_err(io_error("cannot open for writing", device))?;
    let zero = |file: &mut File| -> std::io::Result<()> {
        let size = file.seek(SeekFrom::End(0))?;
        let zeroes = vec![0u8; EDGE as usize];
        for at in [0, size.saturating_sub(EDGE)] {
            let length = EDGE.min(size - at) as usize;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&zeroes[..length])?;
        }
        file.sync_all()
    };
    zero(&mut file).map_err(io_error("cannot erase", device))
}

impl Executor<'_> {
    /// Waits until udev has dealt with everything, where there is udev.
    ///
    /// It was seen to fail once with "Failed to wait for daemon to reply: Broken pipe", for a reason not yet found, when
    /// everything was written: so it is asked again, and only then is the restore given up.
    pub(super) fn settle(&self) -> Result<(), StepError> {
        if !self.sys.exists(Path::new("/run/udev/control")) {
            return Ok(());
        }
        let command = Cmd::new("udevadm").args(["settle", "--timeout=60"]);
        for _ in 0..2 {
            match self.sys.run(&command) {
                Err(SystemError::Failed { .. }) => std::thread::sleep(Duration::from_secs(1)),
                other => return Ok(other.map(drop)?),
            }
        }
        self.sys.run(&command)?;
        Ok(())
    }

    /// Waits for a device node.
    pub(super) fn wait_for(&self, device: &Path) -> Result<(), StepError> {
        self.settle()?;
        let start = Instant::now();
        while !self.sys.exists(device) {
            if start.elapsed() > Duration::from_secs(20) {
                return Err(StepError::Verify(format!(
                    "{} did not appear",
                    device.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Everything that must be true before the first write.
    pub(super) fn fence(
        &mut self,
        disks: &[PathBuf],
        targets: &[PathBuf],
        vgs: &[String],
    ) -> Result<Outcome, StepError> {
        // What an earlier attempt left mounted is ours.
        self.unmount()?;
        self.stale_pools(targets)?;
        for disk in disks {
            set_read_only(self.sys, disk, true)?;
        }
        // Open before they are looked at, and until the end: as long as a disk is open, the kernel gives its name to no
        // other, and what is written to by name is the disk that was confirmed.
        self.held = targets
            .iter()
            .map(|target| open_read(target))
            .collect::<Result<_, _>>()?;
        let present = inventory(self.sys)?;
        for disk in &present.disks {
            if !targets.contains(&disk.device) && !disks.contains(&disk.device) {
                return Err(StepError::Refused(format!(
                    "{} appeared after the plan was made: make the plan again",
                    disk.device.display()
                )));
            }
        }
        for assigned in &self.plan.disks {
            let device = assigned.device.display();
            let Some(disk) = present.disks.iter().find(|d| d.device == assigned.device) else {
                return Err(StepError::Refused(format!(
                    "{device} is gone: make the plan again"
                )));
            };
            if DiskIdentity::of(disk) != assigned.identity {
                return Err(StepError::Refused(format!(
                    "{device} is another disk than when the plan was made: make the plan again"
                )));
            }
            if disk.in_use {
                return Err(StepError::Refused(format!(
                    "{device} is in use (mounted or swapped to): unmount it first"
                )));
            }
            if is_read_only(&assigned.device)? {
                return Err(StepError::Refused(format!("{device} is read-only")));
            }
            self.lift_partitions(&assigned.device)?;
            // Stale volumes and arrays are taken down before it is wiped, and then it is tried.
            if self.stack_on(&assigned.device)?.is_empty() {
                claim(&assigned.device)?;
            }
        }
        self.free_names(vgs)?;
        Ok(Outcome::Done)
    }

    /// An old group of the same name that is active occupies the names of the volumes to be made.
    fn free_names(&self, vgs: &[String]) -> Result<(), StepError> {
        let devices = Devices::new(self.sys)?;
        let of_group = |device: &&BlockDevice| {
            let name = devices.sysfs(device, "dm/name").unwrap_or_default();
            // device-mapper doubles the hyphens within names (lvm2: lib/misc/lvm-string.c).
            // Containers have the names that they have on the restored host.
            self.mappings().any(|mapping| mapping == name)
                || vgs.iter().any(|vg| {
                    name.starts_with(&format!("{}-", vg.replace('-', "--")))
                        && !name.starts_with(&format!("{}--", vg.replace('-', "--")))
                })
        };
        let mut stack: Vec<BlockDevice> = devices.virtuals().filter(of_group).cloned().collect();
        for array in self.stale_arrays()? {
            // On a target it is taken down before that is erased.
            for device in self.stack_on(&array.node)?.into_iter().chain([array]) {
                if !stack.iter().any(|d| d.name == device.name) {
                    stack.push(device);
                }
            }
        }
        self.take_stack_down(&mut stack)
    }

    fn mappings(&self) -> impl Iterator<Item = &str> {
        self.plan.steps.iter().filter_map(|step| match step {
            Step::LuksOpen { name, .. } | Step::LuksUse { name, .. } => Some(name.as_str()),
            _ => None,
        })
    }

    /// Removes device-mapper devices and arrays, those that nothing lies on first. Writes to no disk.
    pub(super) fn take_stack_down(&self, stack: &mut Vec<BlockDevice>) -> Result<(), StepError> {
        while !stack.is_empty() {
            let devices = Devices::new(self.sys)?;
            let Some(at) = stack.iter().position(|d| devices.holders(d).is_empty()) else {
                let names: Vec<&str> = stack.iter().map(|d| d.name.as_str()).collect();
                return Err(StepError::Refused(format!(
                    "{} are held by other devices",
                    names.join(", ")
                )));
            };
            let device = stack.remove(at);
            let command = match devices.sysfs(&device, "dm/name") {
                Some(name) => {
                    let mut command = Cmd::new("dmsetup").args(["remove", "--retry"]);
                    if !self.sys.exists(Path::new("/run/udev/control")) {
                        command = command.args(["--noudevsync", "--noudevrules"]);
                    }
                    command.arg(name)
                }
                None => {
                    self.may_stop(&device)?;
                    Cmd::new("mdadm").args(["--stop"]).path(&device.node)
                }
            };
            self.sys.run(&command)?;
        }
        Ok(())
    }

    /// The volumes and arrays that lie on a disk (or another device) or its partitions.
    pub(super) fn stack_on(&self, device: &Path) -> Result<Vec<BlockDevice>, StepError> {
        let devices = Devices::new(self.sys)?;
        let mut stack: Vec<BlockDevice> = Vec::new();
        let real = self.sys.canonicalize(device)?;
        let Some(disk) = devices.by_node(&real) else {
            return Ok(stack);
        };
        let mut todo: Vec<String> = devices
            .partitions(&disk.name)
            .chain(std::iter::once(disk))
            .flat_map(|d| devices.holders(d))
            .collect();
        while let Some(name) = todo.pop() {
            if let Some(holder) = devices
                .list
                .iter()
                .find(|d| d.name == name && !stack.iter().any(|s| s.name == name))
            {
                todo.extend(devices.holders(holder));
                stack.push(holder.clone());
            }
        }
        Ok(stack)
    }

    /// Takes stale volumes and arrays on a target down, and removes every signature.
    pub(super) fn wipe(&mut self, device: &Path, size: Bytes) -> Result<Outcome, StepError> {
        let devices = Devices::new(self.sys)?;
        let Some(disk) = devices.by_node(device).cloned() else {
            return Err(StepError::Refused(format!("{} is gone", device.display())));
        };
        if devices.size(&disk) != size {
            return Err(StepError::Refused(format!(
                "{} changed its size",
                device.display()
            )));
        }
        let parts: Vec<BlockDevice> = devices.partitions(&disk.name).cloned().collect();
        self.take_stack_down(&mut self.stack_on(device)?)?;
        claim(device)?;
        for part in parts
            .iter()
            .map(|p| &p.node)
            .chain(std::iter::once(&disk.node))
        {
            self.sys
                .run(&Cmd::new("wipefs").args(["-a", "-f", "-q"]).path(part))?;
            zero_edges(part)?;
        }
        reread_partitions(device)?;
        self.settle()?;
        drop_cache(device)?;
        let left = Devices::new(self.sys)?.probe_now(device);
        // Not to know what is on it is no proof that nothing is.
        if let Some(reason) = left.unreadable {
            return Err(StepError::Verify(format!(
                "{} cannot be read after it was erased: {reason}",
                device.display()
            )));
        }
        if let Some(what) = left.table.or(left.fstype) {
            return Err(StepError::Verify(format!(
                "{} still looks like {what} after it was erased",
                device.display()
            )));
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests;
