//! Mounting below the restore root, and taking everything down again.

use std::path::{Path, PathBuf};

use sys_mount::{Mount, MountFlags, UnmountFlags};

use super::{Executor, Outcome, StepError, io_error};
use crate::capture::mount::{Mounted, mounted};
use crate::system::System;

impl Executor<'_> {
    /// What is mounted at or below the restore root, in the order in which it was mounted.
    pub(super) fn below(&self) -> Result<Vec<Mounted>, StepError> {
        Ok(mounted(self.sys, self.root)?)
    }

    pub(super) fn mount(
        &mut self,
        device: &Path,
        fstype: &str,
        at: &Path,
        read_only: bool,
    ) -> Result<Outcome, StepError> {
        if fstype == "zfs" {
            return self.mount_dataset(device, at, read_only);
        }
        let real = self.sys.canonicalize(device)?;
        let is_it = |m: &&Mounted| {
            m.mount_point == at
                && self
                    .sys
                    .canonicalize(Path::new(&m.source))
                    .is_ok_and(|s| s == real)
        };
        if self.below()?.iter().any(|m| is_it(&m)) {
            return Ok(Outcome::AlreadySo);
        }
        let target = self.inside(at);
        if !read_only || !target.exists() {
            std::fs::create_dir_all(&target)
                .map_err(io_error("cannot make the directory", &target))?;
        }
        let mut flags = MountFlags::empty();
        if read_only {
            flags |= MountFlags::RDONLY;
        }
        // ext2 and ext3 are mounted by the ext4 driver where there is no other.
        let kind = if matches!(fstype, "ext2" | "ext3") {
            "ext4"
        } else {
            fstype
        };
        let mut builder = Mount::builder().fstype(kind).flags(flags);
        if kind == "xfs" && read_only {
            // A copy with the same UUID may be mounted somewhere else.
            builder = builder.data("nouuid");
        }
        builder
            .mount(&real, &target)
            .map_err(io_error("cannot mount", device))?;
        if self.below()?.iter().any(|m| is_it(&m)) {
            Ok(Outcome::Done)
        } else {
            Err(StepError::Verify(format!(
                "{} is not mounted at {}",
                device.display(),
                target.display()
            )))
        }
    }

    /// Binds a directory of the rescue system into the restored host.
    pub(super) fn bind(&self, source: &Path) -> Result<PathBuf, StepError> {
        let target = self.inside(source);
        std::fs::create_dir_all(&target).map_err(io_error("cannot make the directory", &target))?;
        Mount::builder()
            .flags(MountFlags::BIND)
            .mount(source, &target)
            .map_err(io_error("cannot bind", source))?;
        Ok(target)
    }

    /// Unmounts one place; what is busy for a moment is tried again.
    pub(super) fn unmount_one(&self, target: &Path) -> Result<(), StepError> {
        unmount_one(target)
    }

    /// Unmounts everything below the restore root, last mounted first.
    pub(super) fn unmount(&mut self) -> Result<Outcome, StepError> {
        unmount_below(self.sys, self.root)
    }
}

fn unmount_one(target: &Path) -> Result<(), StepError> {
    let mut last = None;
    for _ in 0..50 {
        match sys_mount::unmount(target, UnmountFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let error = last.unwrap_or_else(|| std::io::Error::from(std::io::ErrorKind::ResourceBusy));
    Err(io_error("cannot unmount", target)(error))
}

/// Unmounts everything at and below a restore root, last mounted first.
///
/// A restore that was killed leaves its filesystems mounted, and a disk that is mounted is none to restore onto: this comes
/// before the machine's disks are looked at for the next attempt. Only for whoever knows that no restore is running.
pub fn unmount_below(sys: &dyn System, root: &Path) -> Result<Outcome, StepError> {
    if root == Path::new("/") {
        return Err(StepError::Refused(
            "the restore root must not be the running system".to_owned(),
        ));
    }
    let all = mounted(sys, root)?;
    // umount(2) does not say when the disk refused what was still in memory. Unmounted is everything all the same.
    let mut unwritten = Ok(());
    let inside = |m: &Mounted| {
        let below = m.mount_point.strip_prefix("/").unwrap_or(&m.mount_point);
        // `root.join("")` would end in a slash.
        root.components()
            .chain(below.components())
            .collect::<PathBuf>()
    };
    for mounted in all.iter().rev() {
        let target = inside(mounted);
        unwritten = unwritten.and(written_out(&target));
        unmount_one(&target)?;
    }
    if let Some(left) = mounted(sys, root)?.first() {
        return Err(StepError::Verify(format!(
            "{} is still mounted",
            inside(left).display()
        )));
    }
    unwritten?;
    Ok(if all.is_empty() {
        Outcome::AlreadySo
    } else {
        Outcome::Done
    })
}

/// Has the kernel write everything that is still in memory, and tells whether that worked.
fn written_out(mount_point: &Path) -> Result<(), StepError> {
    let dir = std::fs::File::open(mount_point).map_err(io_error("cannot open", mount_point))?;
    nix::unistd::syncfs(&dir)
        .map_err(|e| io_error("cannot write everything to the disk below", mount_point)(e.into()))
}
