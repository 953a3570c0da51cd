//! Walking one file system, in sorted order, directory before its contents.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::Mode;

use crate::exclude::Exclusions;
use crate::{Error, Result, bytes};

/// Directories that stay open on the way down; deeper ones are opened again on the way up.
const OPEN_DEPTH: usize = 100;
/// The longest path given to one system call (`PATH_MAX` is 4096 with the NUL).
const PATH_STEP: usize = 4000;

/// What `stat` says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub dev: (u32, u32),
    pub ino: u64,
    /// With the type bits.
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: (u32, u32),
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    /// When the inode was made; zero where the file system does not know.
    pub btime: (i64, u32),
    /// Something is mounted here.
    pub mount_root: bool,
}

impl Stat {
    pub(crate) fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }

    /// Fewer blocks than bytes: it may have holes.
    pub(crate) fn looks_sparse(&self) -> bool {
        self.is_file() && self.blocks.saturating_mul(512) < self.size
    }
}

/// `statx` of a name in a directory, or of the directory itself when the name is empty; links are not followed.
pub(crate) fn stat(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<Stat, Errno> {
    // SAFETY: statx is plain data, for which all zeroes is a value.
    let mut buffer: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
    // SAFETY: the name ends with a NUL and the buffer is one statx.
    let result = unsafe {
        libc::statx(
            dir.as_raw_fd(),
            name.as_ptr(),
            flags,
            libc::STATX_BASIC_STATS | libc::STATX_BTIME,
            &raw mut buffer,
        )
    };
    Errno::result(result)?;
    let mount_root = libc::STATX_ATTR_MOUNT_ROOT as u64;
    Ok(Stat {
        dev: (buffer.stx_dev_major, buffer.stx_dev_minor),
        ino: buffer.stx_ino,
        mode: u32::from(buffer.stx_mode),
        nlink: u64::from(buffer.stx_nlink),
        uid: buffer.stx_uid,
        gid: buffer.stx_gid,
        rdev: (buffer.stx_rdev_major, buffer.stx_rdev_minor),
        size: buffer.stx_size,
        blocks: buffer.stx_blocks,
        mtime: (buffer.stx_mtime.tv_sec, buffer.stx_mtime.tv_nsec),
        ctime: (buffer.stx_ctime.tv_sec, buffer.stx_ctime.tv_nsec),
        btime: (buffer.stx_btime.tv_sec, buffer.stx_btime.tv_nsec),
        mount_root: buffer.stx_attributes & buffer.stx_attributes_mask & mount_root != 0,
    })
}

/// The same of an open file.
pub(crate) fn stat_fd(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    stat(fd, c"")
}

/// Opens a name for reading without leaving a trace in its access time, where that is allowed.
pub(crate) fn open_quiet(
    dir: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    flags: OFlag,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(dir, name, flags | OFlag::O_NOATIME, Mode::empty()) {
        // Only the owner may ask for O_NOATIME.
        Err(Errno::EPERM) => openat(dir, name, flags, Mode::empty()),
        other => other,
    }
}

/// Opens a directory below `root` without following links, however long its path is.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let mut rest = if path.is_empty() { &b"."[..] } else { path };
    let mut current: Option<OwnedFd> = None;
    loop {
        let (step, after) = if rest.len() <= PATH_STEP {
            (rest, &b""[..])
        } else {
            let at = rest[..PATH_STEP]
                .iter()
                .rposition(|b| *b == b'/')
                .ok_or(Errno::ENAMETOOLONG)?;
            (&rest[..at], &rest[at + 1..])
        };
        let opened = openat2(current.as_ref().map_or(root, AsFd::as_fd), step, how)?;
        if after.is_empty() {
            return Ok(opened);
        }
        (current, rest) = (Some(opened), after);
    }
}

/// What the walk meets.
pub(crate) enum Visit<'a> {
    /// An entry to keep. `.` is the root.
    Entry { path: &'a [u8], stat: &'a Stat },
    /// Left out by the pattern of this number; what is below follows when it was asked for.
    Excluded { pattern: usize, stat: &'a Stat },
    /// It could not be examined or listed.
    Failed { path: &'a [u8], error: Errno },
}

/// How to walk.
pub(crate) struct Walk<'a> {
    pub root: &'a Path,
    pub mount_point: &'a Path,
    pub exclude: &'a Exclusions,
    /// Also visit what is below excluded directories, to count it.
    pub count_excluded: bool,
}

struct Frame {
    path: Vec<u8>,
    /// Closed on the way down when too many are open.
    dir: Option<OwnedFd>,
    names: std::vec::IntoIter<CString>,
    /// Everything here is left out by this pattern.
    excluded: Option<usize>,
}

impl Walk<'_> {
    /// Walks; `visit` returns false to stop.
    pub(crate) fn run(&self, visit: &mut dyn FnMut(Visit<'_>) -> bool) -> Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(self.root, flags, Mode::empty()).map_err(Error::sys("open", self.root))?;
        let top = stat_fd(root.as_fd()).map_err(Error::sys("examine", self.root))?;
        if !visit(Visit::Entry {
            path: b".",
            stat: &top,
        }) {
            return Ok(());
        }
        let names = list(&root).map_err(Error::sys("list", self.root))?;
        let own = root.try_clone().map_err(Error::io("open", self.root))?;
        let mut stack = vec![Frame {
            path: Vec::new(),
            dir: Some(own),
            names,
            excluded: None,
        }];
        let base = bytes::of(self.mount_point);
        let mut met = HashSet::new();
        while let Some(frame) = stack.last_mut() {
            let Some(name) = frame.names.next() else {
                stack.pop();
                continue;
            };
            if frame.dir.is_none() {
                match open_dir(root.as_fd(), &frame.path) {
                    Ok(dir) => frame.dir = Some(dir),
                    Err(error) => {
                        let frame = stack.pop();
                        let path = frame.map(|f| f.path).unwrap_or_default();
                        if !visit(Visit::Failed { path: &path, error }) {
                            return Ok(());
                        }
                        continue;
                    }
                }
            }
            // Opened just above.
            let Some(dir) = frame.dir.as_ref() else {
                continue;
            };
            let path = bytes::join(&frame.path, name.as_bytes());
            let stat = match stat(dir.as_fd(), &name) {
                Ok(stat) => stat,
                Err(error) => {
                    if !visit(Visit::Failed { path: &path, error }) {
                        return Ok(());
                    }
                    continue;
                }
            };
            let excluded = frame.excluded.or_else(|| {
                if self.exclude.is_empty() {
                    None
                } else {
                    self.exclude.find(&bytes::join(base, &path), stat.is_dir())
                }
            });
            let goes_on = match excluded {
                Some(pattern) => visit(Visit::Excluded {
                    pattern,
                    stat: &stat,
                }),
                None => visit(Visit::Entry {
                    path: &path,
                    stat: &stat,
                }),
            };
            if !goes_on {
                return Ok(());
            }
            // Another file system, or this one mounted once more, is another tree's business.
            let other = stat.mount_root || stat.dev != top.dev;
            if !stat.is_dir() || other || (excluded.is_some() && !self.count_excluded) {
                continue;
            }
            // A file system that is damaged, or changes, could lead in circles.
            if !met.insert(stat.ino) {
                if !visit(Visit::Failed {
                    path: &path,
                    error: Errno::ELOOP,
                }) {
                    return Ok(());
                }
                continue;
            }
            let opened = open_quiet(dir.as_fd(), &name, OFlag::O_DIRECTORY);
            match opened.and_then(|dir| Ok((list(&dir)?, dir))) {
                Ok((names, dir)) => {
                    if stack.len() >= OPEN_DEPTH {
                        if let Some(parent) = stack.last_mut() {
                            parent.dir = None;
                        }
                    }
                    stack.push(Frame {
                        path,
                        dir: Some(dir),
                        names,
                        excluded,
                    });
                }
                Err(error) => {
                    if !visit(Visit::Failed { path: &path, error }) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

fn list(dir: &OwnedFd) -> Result<std::vec::IntoIter<CString>, Errno> {
    let copy = dir
        .try_clone()
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(copy)?.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names.into_iter())
}

/// The open root of a tree.
pub(crate) fn open_root(path: &Path) -> Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(Error::sys("open", path))
}
