//! Attributes of files that `stat` does not give: inode flags and extended attributes.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// What `chattr` sets; none where the file system has no such flags.
pub(super) fn inode_flags(fd: BorrowedFd<'_>) -> Option<u32> {
    // The kernel writes an int, whatever the ioctl's number says (`ioctl_iflags(2)`).
    let mut flags: libc::c_int = 0;
    // SAFETY: the descriptor is open and `flags` is the int that the call writes.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    (result == 0).then_some(flags as u32)
}

/// Where xattrs are read: an open file, or a path that is not followed.
pub(super) enum XattrSource {
    Open(i32),
    Link(CString),
}

impl XattrSource {
    /// Names, each with a NUL behind it; gives how many bytes.
    pub(super) fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let (start, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the buffer is writable for its length; the path ends with a NUL.
        let n = unsafe {
            match self {
                XattrSource::Open(fd) => libc::flistxattr(*fd, start, length),
                XattrSource::Link(path) => libc::llistxattr(path.as_ptr(), start, length),
            }
        };
        Errno::result(n).map(|n| n as usize)
    }

    /// A value; gives how many bytes.
    pub(super) fn get(&self, name: &CString, buffer: &mut [u8]) -> Result<usize, Errno> {
        let (start, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the buffer is writable for its length; path and name end with a NUL. Values have 64 KiB at most.
        let n = unsafe {
            match self {
                XattrSource::Open(fd) => libc::fgetxattr(*fd, name.as_ptr(), start, length),
                XattrSource::Link(path) => {
                    libc::lgetxattr(path.as_ptr(), name.as_ptr(), start, length)
                }
            }
        };
        Errno::result(n).map(|n| n as usize)
    }
}
