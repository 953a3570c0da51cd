//! Mounts that are no part of the tree: fsopen(2), fsconfig(2), fsmount(2), in Linux since 5.2.

use std::ffi::{CString, c_char, c_int, c_long, c_uint};
use std::io::{Error, Read, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

// linux/mount.h
const FSOPEN_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const FSMOUNT_CLOEXEC: c_uint = 1;
const READ_ONLY: c_uint = 1;
const NOSUID: c_uint = 2;
const NODEV: c_uint = 4;
const NOEXEC: c_uint = 8;
const NOATIME: c_uint = 0x10;

/// Mounts the snapshot of a volume, which can only be read.
///
/// LVM freezes a filesystem that is mounted while it makes the snapshot: what is on it is complete. ext4 has emptied its
/// journal then, and marked itself as one that needs no recovery, so that it mounts without writing. XFS always leaves
/// a record in its log, which it would want to recover and does not have to (`norecovery`), and refuses a second
/// filesystem with the same UUID unless it is told not to (`nouuid`).
pub(super) fn volume(device: &Path, fstype: &str) -> Result<OwnedFd> {
    let options: &[(&str, Option<&str>)] = match fstype {
        "xfs" => &[("ro", None), ("norecovery", None), ("nouuid", None)],
        _ => &[("ro", None)],
    };
    mount(fstype, device, options, READ_ONLY)
}

/// Mounts all of a btrfs, that snapshots are made and removed in it, wherever it is mounted.
pub(super) fn whole_btrfs(device: &Path) -> Result<OwnedFd> {
    // The number of the tree at the top of every filesystem.
    mount("btrfs", device, &[("subvolid", Some("5"))], 0)
}

fn mount(
    fstype: &str,
    device: &Path,
    options: &[(&str, Option<&str>)],
    attributes: c_uint,
) -> Result<OwnedFd> {
    let text = |text: &str| CString::new(text).map_err(Error::from);
    let fstype = text(fstype)?;
    // SAFETY: the string lives over the call.
    let context =
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) })?;
    let set = |name: &str, value: Option<&str>| -> Result<()> {
        let (name, value) = (text(name)?, value.map(text).transpose()?);
        let command = match value {
            Some(_) => FSCONFIG_SET_STRING,
            None => FSCONFIG_SET_FLAG,
        };
        let value = value.as_ref().map_or(std::ptr::null(), |v| v.as_ptr());
        configure(&context, command, name.as_ptr(), value)
    };
    set("source", Some(&device.to_string_lossy()))?;
    for (name, value) in options {
        set(name, *value)?;
    }
    configure(
        &context,
        FSCONFIG_CMD_CREATE,
        std::ptr::null(),
        std::ptr::null(),
    )?;
    let attributes = attributes | NOSUID | NODEV | NOEXEC | NOATIME;
    // SAFETY: numbers only.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            attributes,
        )
    })
}

fn configure(
    context: &OwnedFd,
    command: c_uint,
    name: *const c_char,
    value: *const c_char,
) -> Result<()> {
    let none: c_int = 0;
    // SAFETY: both are null, or strings that live over the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            name,
            value,
            none,
        )
    };
    if done == 0 {
        return Ok(());
    }
    let error = Error::last_os_error();
    match said(context) {
        Some(text) => Err(Error::new(error.kind(), format!("{error}: {text}"))),
        None => Err(error),
    }
}

/// What the filesystem has to say, one message for each read.
fn said(context: &OwnedFd) -> Option<String> {
    let mut file = std::fs::File::from(context.try_clone().ok()?);
    let mut buffer = [0; 512];
    let length = file.read(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
    // "e " for errors, "w ", "i ".
    Some(text.get(2..).unwrap_or_default().to_owned()).filter(|text| !text.is_empty())
}

fn descriptor(result: c_long) -> Result<OwnedFd> {
    match c_int::try_from(result) {
        // SAFETY: a descriptor that was just made, and is nobody else's.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filesystem_is_an_error_and_no_mount() {
        assert!(volume(Path::new("/dev/null"), "no-such-type").is_err());
        assert!(volume(Path::new("/dev/null"), "ext4").is_err());
        assert!(volume(Path::new("/dev/null"), "a\0b").is_err());
    }

    /// Where this may mount at all.
    #[test]
    fn a_detached_mount_is_read_through_its_descriptor() {
        let Ok(root) = mount("tmpfs", Path::new("none"), &[("ro", None)], READ_ONLY) else {
            return;
        };
        let path = format!("/proc/self/fd/{}", root.as_raw_fd());
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        assert!(std::fs::write(format!("{path}/file"), "x").is_err());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&path));
    }
}
