//! The disk as a file system that the store is written to through the kernel, so that nothing gets past it: FUSE.
//!
//! The write-back cache is off: every `write` arrives when it is made, and in its order. `sync(2)` and `syncfs(2)` do not
//! arrive (the kernel passes them on for other kinds of FUSE only), so a store that relied on them would look here as if
//! it had synced nothing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite,
    Request, Session, TimeOrNow, WriteFlags,
};

use super::disk::{Disk, Ino, Kind, Op};

/// Nobody else changes it: the kernel may keep what it has been told.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This one operation fails with an I/O error.
    Error,
    /// The disk is full from there on: nothing that takes room succeeds.
    Full,
    /// The medium was pulled out: from there on nothing succeeds, not even reading.
    Gone,
}

#[derive(Debug)]
pub struct State {
    pub disk: Disk,
    /// The operations that succeeded, with their times.
    pub log: Vec<(Op, SystemTime)>,
    /// What goes wrong, and at which of the operations that it can happen to, counted from 0.
    pub fault: Option<(Fault, usize)>,
    seen: usize,
    /// The fault has happened.
    pub hit: bool,
    /// What this file system does not know of.
    pub unknown: Vec<&'static str>,
}

impl State {
    fn gone(&self) -> Result<(), i32> {
        match self.fault {
            Some((Fault::Gone, _)) if self.hit => Err(libc::EIO),
            _ => Ok(()),
        }
    }

    fn change(&mut self, op: Op) -> Result<Ino, i32> {
        self.gone()?;
        if let Some((fault, at)) = self.fault {
            if fault != Fault::Full || op.allocates() {
                let now = self.seen;
                self.seen += 1;
                if now == at || now > at && fault != Fault::Error {
                    self.hit = true;
                    if let Op::Sync(ino) = op {
                        self.disk.fail_to_sync(ino);
                    }
                    return Err(match fault {
                        Fault::Full => libc::ENOSPC,
                        Fault::Error | Fault::Gone => libc::EIO,
                    });
                }
            }
        }
        let now = SystemTime::now();
        let done = self.disk.apply(&op, now)?;
        self.log.push((op, now));
        Ok(done)
    }

    fn attributes(&self, ino: Ino) -> Result<FileAttr, i32> {
        self.gone()?;
        let node = self.disk.node(ino)?;
        let (kind, size) = match &node.kind {
            Kind::File { data, .. } => (FileType::RegularFile, data.len() as u64),
            Kind::Dir { .. } => (FileType::Directory, 0),
        };
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: node.modified,
            mtime: node.modified,
            ctime: node.modified,
            crtime: node.modified,
            kind,
            perm: node.mode as u16,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn make(&mut self, op: Op) -> Result<FileAttr, i32> {
        let ino = self.change(op)?;
        self.attributes(ino)
    }
}

/// A mounted disk.
pub struct Mounted {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
    dir: PathBuf,
}

impl Mounted {
    pub fn new(disk: Disk, dir: &Path) -> Mounted {
        let state = Arc::new(Mutex::new(State {
            disk,
            log: Vec::new(),
            fault: None,
            seen: 0,
            hit: false,
            unknown: Vec::new(),
        }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("lifeboat-test".into())];
        let session = Session::new(Files(state.clone()), dir, &config).and_then(Session::spawn);
        Mounted {
            state,
            session: Some(session.unwrap()),
            dir: dir.into(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        // A test that failed while it held the lock has said so already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unmounts; fails when the store left anything open.
    pub fn end(mut self) -> (Disk, Vec<(Op, SystemTime)>) {
        let session = self.session.take().unwrap();
        nix::mount::umount(&self.dir).unwrap();
        session.join().unwrap();
        let state = self.state();
        assert!(state.unknown.is_empty(), "{:?}", state.unknown);
        (state.disk.clone(), state.log.clone())
    }
}

struct Files(Arc<Mutex<State>>);

impl Files {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, op: Op, reply: ReplyEmpty) {
        match self.state().change(op) {
            Ok(_) => reply.ok(),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn entry(&self, attributes: Result<FileAttr, i32>, reply: ReplyEntry) {
        match attributes {
            Ok(attributes) => reply.entry(&FOREVER, &attributes, Generation(0)),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        let found = state.disk.lookup(parent.0, name);
        let found = state.gone().and(found);
        self.entry(found.and_then(|ino| state.attributes(ino)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state().attributes(ino.0) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        let mtime = mtime.map(|time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        });
        let resized = match size {
            Some(size) => state.change(Op::Truncate(ino.0, size)).map(|_| ()),
            None => Ok(()),
        };
        let changed = match (mode, mtime) {
            (None, None) => resized,
            _ => resized.and_then(|()| {
                let op = Op::Attributes(ino.0, mode, mtime);
                state.change(op).map(|_| ())
            }),
        };
        match changed.and_then(|()| state.attributes(ino.0)) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let op = Op::Mkdir(parent.0, name.into(), mode);
        let made = self.state().make(op);
        self.entry(made, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let op = Op::Create(parent.0, name.into(), mode);
        match self.state().make(op) {
            Ok(attributes) => {
                let (handle, flags) = (FileHandle(0), FopenFlags::empty());
                reply.created(&FOREVER, &attributes, Generation(0), handle, flags);
            }
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(Op::Unlink(parent.0, name.into()), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.done(Op::Rmdir(parent.0, name.into()), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            self.state().unknown.push("renameat2 with flags");
            return reply.error(Errno::EINVAL);
        }
        let op = Op::Rename(parent.0, name.into(), newparent.0, newname.into());
        self.done(op, reply);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.state();
        match state.gone().and_then(|()| state.disk.node(ino.0)) {
            Ok(node) => match &node.kind {
                Kind::File { data, .. } => {
                    let start = data.len().min(offset as usize);
                    let end = data.len().min(start + size as usize);
                    reply.data(&data[start..end]);
                }
                Kind::Dir { .. } => reply.error(Errno::EISDIR),
            },
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        if flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            // It may come late, and in another order: of a mapping, as the write-back cache is off.
            state.unknown.push("a write out of the page cache");
        }
        match state.change(Op::Write(ino.0, offset, data.to_vec())) {
            Ok(_) => reply.written(data.len() as u32),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.done(Op::Sync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.done(Op::Sync(ino.0), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.state();
        let names = match state.gone().and_then(|()| state.disk.names(ino.0)) {
            Ok(names) => names,
            Err(error) => return reply.error(Errno::from_i32(error)),
        };
        for (at, (name, number)) in names.iter().enumerate().skip(offset as usize) {
            let kind = match state.disk.names(*number) {
                Ok(_) => FileType::Directory,
                Err(_) => FileType::RegularFile,
            };
            if reply.add(INodeNo(*number), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // 4 GiB, all free: that it is full shows when it is written to.
        reply.statfs(1 << 20, 1 << 20, 1 << 20, 0, 0, 4096, 255, 4096);
    }

    // Asked for with every write, for file capabilities.
    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: fuser::ReplyXattr) {
        reply.error(Errno::ENOTSUP);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        self.state().unknown.push("link");
        reply.error(Errno::EPERM);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        self.state().unknown.push("symlink");
        reply.error(Errno::EPERM);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        self.state().unknown.push("fallocate");
        reply.error(Errno::EOPNOTSUPP);
    }
}
