//! A [`Browser`] for the kernel.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bundle::browse::{Attr, Browser};
use bundle::list::EntryKind;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, IoctlFlags,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyXattr, Request,
};

/// Nothing ever changes: the kernel may keep what it has been told.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// The file system.
pub struct Files {
    browser: Browser,
}

impl Files {
    /// Shows what the browser has.
    pub fn new(browser: Browser) -> Files {
        Files { browser }
    }
}

/// What cannot be delivered is an I/O error to who asked, and a line in the log that says which file and why.
fn failed(error: bundle::Error) -> Errno {
    tracing::error!("{error}");
    Errno::EIO
}

fn time((seconds, nanoseconds): (i64, u32)) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let at = match seconds < 0 {
        true => UNIX_EPOCH.checked_sub(whole),
        false => UNIX_EPOCH.checked_add(whole),
    };
    at.and_then(|t| t.checked_add(Duration::from_nanos(nanoseconds.into())))
        .unwrap_or(UNIX_EPOCH)
}

fn file_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::File | EntryKind::Hardlink => FileType::RegularFile,
        EntryKind::Dir => FileType::Directory,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::Char => FileType::CharDevice,
        EntryKind::Block => FileType::BlockDevice,
        EntryKind::Fifo => FileType::NamedPipe,
    }
}

fn attributes(attr: &Attr) -> FileAttr {
    let (major, minor) = attr.rdev;
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: time(attr.mtime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
        crtime: time(attr.mtime),
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        // FUSE has 32 bits, as the kernel's new_encode_dev writes them.
        rdev: (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12),
        blksize: 128 << 10,
        flags: 0,
    }
}

/// The size when that is asked for, the data when it fits.
fn answer(reply: ReplyXattr, size: u32, data: &[u8]) {
    match size {
        0 => reply.size(data.len() as u32),
        n if data.len() > n as usize => reply.error(Errno::ERANGE),
        _ => reply.data(data),
    }
}

impl Filesystem for Files {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.browser.lookup(parent.0, name.as_bytes()) {
            Ok(Some(attr)) => reply.entry(&FOREVER, &attributes(&attr), Generation(0)),
            Ok(None) => reply.error(Errno::ENOENT),
            Err(error) => reply.error(failed(error)),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.browser.attr(ino.0) {
            Ok(attr) => reply.attr(&FOREVER, &attributes(&attr)),
            Err(error) => reply.error(failed(error)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.browser.read_link(ino.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(failed(error)),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.browser.read(ino.0, offset, size as usize) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(failed(error)),
        }
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let hole = match whence {
            libc::SEEK_DATA => false,
            libc::SEEK_HOLE => true,
            _ => return reply.error(Errno::EINVAL),
        };
        let from = u64::try_from(offset).unwrap_or(u64::MAX);
        match self.browser.seek(ino.0, from, hole) {
            Ok(Some(at)) => reply.offset(at as i64),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(error) => reply.error(failed(error)),
        }
    }

    // Nothing to do, but the crate would log each of them as missing.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let parent = match self.browser.parent(ino.0) {
            Ok(parent) => parent,
            Err(error) => return reply.error(failed(error)),
        };
        let dots: [(u64, &str); 2] = [(ino.0, "."), (parent, "..")];
        for (i, (number, name)) in dots.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*number), i as u64 + 1, FileType::Directory, name) {
                return reply.ok();
            }
        }
        let skip = offset.saturating_sub(2) as usize;
        let mut next = skip as u64 + 3;
        let read = self
            .browser
            .read_dir(ino.0, skip, &mut |name, number, kind| {
                let full = reply.add(
                    INodeNo(number),
                    next,
                    file_type(kind),
                    OsStr::from_bytes(name),
                );
                next += 1;
                !full
            });
        match read {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(failed(error)),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.browser.xattrs(ino.0) {
            Ok(all) => match all.iter().find(|(n, _)| n == name.as_bytes()) {
                Some((_, value)) => answer(reply, size, value),
                None => reply.error(Errno::NO_XATTR),
            },
            Err(error) => reply.error(failed(error)),
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.browser.xattrs(ino.0) {
            Ok(all) => {
                let mut names = Vec::new();
                for (name, _) in &all {
                    names.extend_from_slice(name);
                    names.push(0);
                }
                answer(reply, size, &names);
            }
            Err(error) => reply.error(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970() {
        let before = time((-2, 250_000_000));
        assert_eq!(
            UNIX_EPOCH.duration_since(before).unwrap(),
            Duration::from_millis(1750)
        );
        assert_eq!(time((i64::MAX, u32::MAX)), UNIX_EPOCH);
    }
}
