//! Making files below a directory, wherever the names in an archive try to lead.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

use crate::bytes;
use crate::list::{Entry, EntryKind};
use crate::member::Extra;
use crate::walk::open_dir;

/// What a metadata call could not do, in words; empty when all was done.
pub(super) type Lost = Vec<String>;

const SET_ID: u32 = 0o6000;

/// The destination, with one open parent directory. One per thread.
pub(super) struct Dest<'d> {
    root: BorrowedFd<'d>,
    privileged: bool,
    parent: Option<(Vec<u8>, OwnedFd)>,
}

fn c_name(name: &[u8]) -> Result<CString, Errno> {
    // Names come from checked paths, which hold no NUL.
    CString::new(name).map_err(|_| Errno::EINVAL)
}

impl<'d> Dest<'d> {
    pub(super) fn new(root: BorrowedFd<'d>, privileged: bool) -> Dest<'d> {
        Dest {
            root,
            privileged,
            parent: None,
        }
    }

    /// Opens the directory that holds `path`, making what is missing of it.
    fn enter<'p>(&mut self, path: &'p Path) -> Result<(&OwnedFd, &'p [u8]), Errno> {
        let (parent, name) = bytes::split(bytes::of(path));
        if !bytes::is_inside(bytes::of(path)) || name == b"." {
            return Err(Errno::EINVAL);
        }
        if self.parent.as_ref().is_none_or(|(open, _)| open != parent) {
            self.parent = None;
            let opened = match open_dir(self.root, parent) {
                Err(Errno::ENOENT) => make_all(self.root, parent)?,
                other => other?,
            };
            self.parent = Some((parent.to_vec(), opened));
        }
        self.parent
            .as_ref()
            .map(|(_, fd)| (fd, name))
            .ok_or(Errno::EINVAL)
    }

    /// Makes a directory, or keeps one that exists; anything else of that name is removed.
    pub(super) fn make_dir(&mut self, path: &Path) -> Result<(), Errno> {
        let (parent, name) = self.enter(path)?;
        let name = c_name(name)?;
        match mkdirat(parent, name.as_c_str(), Mode::S_IRWXU) {
            Err(Errno::EEXIST) => {}
            other => return other,
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(parent, name.as_c_str(), flags, Mode::empty()) {
            Ok(dir) => {
                // What is made in it must not inherit; its own comes back with its metadata.
                // SAFETY: an open descriptor and a constant string.
                unsafe {
                    libc::fremovexattr(dir.as_raw_fd(), c"system.posix_acl_default".as_ptr())
                };
                Ok(())
            }
            Err(_) => {
                unlinkat(parent, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
                mkdirat(parent, name.as_c_str(), Mode::S_IRWXU)
            }
        }
    }

    /// Makes something of a new name; what stands there (no directory) is removed, never written through.
    fn replace<T>(
        &mut self,
        path: &Path,
        make: impl Fn(&OwnedFd, &CString) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let (parent, name) = self.enter(path)?;
        let name = c_name(name)?;
        match make(parent, &name) {
            Err(Errno::EEXIST) => {
                unlinkat(parent, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
                make(parent, &name)
            }
            other => other,
        }
    }

    /// A new, empty file that only its owner may read until its metadata is set.
    pub(super) fn create(&mut self, path: &Path) -> Result<File, Errno> {
        let flags =
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        self.replace(path, |parent, name| {
            openat(parent, name.as_c_str(), flags, mode)
        })
        .map(File::from)
    }

    /// Opens a file that was made here.
    pub(super) fn reopen(&mut self, path: &Path, flags: OFlag) -> Result<File, Errno> {
        let (parent, name) = self.enter(path)?;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        openat(parent, c_name(name)?.as_c_str(), flags, Mode::empty()).map(File::from)
    }

    pub(super) fn remove(&mut self, path: &Path) -> Result<(), Errno> {
        let (parent, name) = self.enter(path)?;
        unlinkat(parent, c_name(name)?.as_c_str(), UnlinkatFlags::NoRemoveDir)
    }

    /// Gives a finished file its name; both are in the same directory.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        let (_, old) = bytes::split(bytes::of(from));
        let old = c_name(old)?;
        let (parent, new) = self.enter(to)?;
        nix::fcntl::renameat(parent, old.as_c_str(), parent, c_name(new)?.as_c_str())
    }

    /// A small file with its content and metadata.
    pub(super) fn file(
        &mut self,
        path: &Path,
        entry: &Entry,
        extra: &Extra,
        data: &[u8],
    ) -> Result<Lost, Errno> {
        let mut file = self.create(path)?;
        if let Err(error) = file.write_all(data) {
            let _ = self.remove(path);
            return Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        Ok(self.metadata(file.as_fd(), entry, extra))
    }

    /// A symbolic link, a fifo or a device node, with its metadata.
    pub(super) fn special(
        &mut self,
        path: &Path,
        entry: &Entry,
        extra: &Extra,
    ) -> Result<Lost, Errno> {
        let mode = entry.mode & 0o7777;
        match (entry.kind, &entry.target) {
            (EntryKind::Symlink, Some(target)) => {
                self.replace(path, |parent, name| {
                    symlinkat(target.as_path(), parent, name.as_c_str())
                })?;
            }
            (EntryKind::Char | EntryKind::Block | EntryKind::Fifo, _) => {
                let kind = match entry.kind {
                    EntryKind::Char => libc::S_IFCHR,
                    EntryKind::Block => libc::S_IFBLK,
                    _ => libc::S_IFIFO,
                };
                let (major, minor) = entry.rdev.unwrap_or_default();
                let device = libc::makedev(major, minor);
                self.replace(path, |parent, name| {
                    // SAFETY: an open descriptor and a string that ends with a NUL.
                    Errno::result(unsafe {
                        libc::mknodat(parent.as_raw_fd(), name.as_ptr(), kind | 0o600, device)
                    })
                })?;
            }
            _ => return Err(Errno::EINVAL),
        }
        let privileged = self.privileged;
        let (parent, name) = self.enter(path)?;
        let name = c_name(name)?;
        let mut lost = Lost::new();
        if privileged {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            let owned = fchownat(
                parent,
                name.as_c_str(),
                Some(uid),
                Some(gid),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            );
            note(&mut lost, "owner", owned);
        }
        // A path through /proc is never too long, and the directory in it cannot be exchanged.
        let place = c_name(
            &[
                format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(),
                name.as_bytes(),
            ]
            .concat(),
        )?;
        for (key, value) in &extra.xattrs {
            let Ok(c_key) = c_name(key) else { continue };
            // SAFETY: strings that end with a NUL, and a value of the given length.
            let set = unsafe {
                libc::lsetxattr(
                    place.as_ptr(),
                    c_key.as_ptr(),
                    value.as_ptr().cast(),
                    value.len(),
                    0,
                )
            };
            note(&mut lost, &String::from_utf8_lossy(key), Errno::result(set));
        }
        if entry.kind != EntryKind::Symlink {
            // Made just now in a directory that is open: it is no link.
            // SAFETY: an open descriptor and a string that ends with a NUL.
            let set = unsafe { libc::fchmodat(parent.as_raw_fd(), name.as_ptr(), mode, 0) };
            note(&mut lost, "mode", Errno::result(set));
        }
        let (_, mtime) = times(entry);
        let set = utimensat(
            parent,
            name.as_c_str(),
            &TimeSpec::UTIME_OMIT,
            &mtime,
            UtimensatFlags::NoFollowSymlink,
        );
        note(&mut lost, "time", set);
        Ok(lost)
    }

    /// A further name of a file that was made here.
    pub(super) fn link(&mut self, first: &Path, path: &Path) -> Result<(), Errno> {
        let (parent, name) = bytes::split(bytes::of(first));
        let old = open_dir(self.root, parent)?;
        let old_name = c_name(name)?;
        self.replace(path, |parent, name| {
            linkat(
                &old,
                old_name.as_c_str(),
                parent,
                name.as_c_str(),
                AtFlags::empty(),
            )
        })
    }

    /// Owner, xattrs, mode, times, in the order in which they do not undo each other: a change of owner clears
    /// set-uid and capabilities. Inode flags come last of all, see [`set_flags`].
    pub(super) fn metadata(&self, fd: BorrowedFd<'_>, entry: &Entry, extra: &Extra) -> Lost {
        let mut lost = Lost::new();
        let mut owned = self.privileged;
        if self.privileged {
            let set = fchown(
                fd,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            );
            owned = set.is_ok();
            note(&mut lost, "owner", set);
        }
        let mut mode = entry.mode & 0o7777;
        if !owned && entry.kind == EntryKind::File && mode & SET_ID != 0 {
            // It would lend out the rights of whoever extracts.
            mode &= !SET_ID;
            lost.push("set-uid and set-gid: left off, as the owner is another".to_string());
        }
        for (name, value) in &extra.xattrs {
            let Ok(c_key) = c_name(name) else { continue };
            // SAFETY: an open descriptor, a string that ends with a NUL, and a value of the given length.
            let set = unsafe {
                libc::fsetxattr(
                    fd.as_raw_fd(),
                    c_key.as_ptr(),
                    value.as_ptr().cast(),
                    value.len(),
                    0,
                )
            };
            note(
                &mut lost,
                &String::from_utf8_lossy(name),
                Errno::result(set),
            );
        }
        note(
            &mut lost,
            "mode",
            fchmod(fd, Mode::from_bits_truncate(mode)),
        );
        let (omit, mtime) = times(entry);
        note(&mut lost, "time", futimens(fd, &omit, &mtime));
        lost
    }
}

fn times(entry: &Entry) -> (TimeSpec, TimeSpec) {
    (
        TimeSpec::UTIME_OMIT,
        TimeSpec::new(entry.mtime.0, i64::from(entry.mtime.1)),
    )
}

fn note<T>(lost: &mut Lost, what: &str, result: Result<T, Errno>) {
    if let Err(error) = result {
        lost.push(format!("{what}: {}", error.desc()));
    }
}

fn make_all(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let (parent, name) = bytes::split(path);
    let above = match open_dir(root, parent) {
        Err(Errno::ENOENT) if !parent.is_empty() => make_all(root, parent)?,
        other => other?,
    };
    match mkdirat(&above, c_name(name)?.as_c_str(), Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => open_dir(above.as_fd(), name),
        Err(error) => Err(error),
    }
}

/// Sets the inode flags of a file.
pub(super) fn set_flags(fd: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    let mut now: libc::c_int = 0;
    // SAFETY: the descriptor is open and `now` is the int that the calls read and write (`ioctl_iflags(2)`).
    unsafe {
        Errno::result(libc::ioctl(
            fd.as_raw_fd(),
            libc::FS_IOC_GETFLAGS,
            &raw mut now,
        ))?;
        now |= flags as libc::c_int;
        Errno::result(libc::ioctl(
            fd.as_raw_fd(),
            libc::FS_IOC_SETFLAGS,
            &raw const now,
        ))?;
    }
    Ok(())
}
