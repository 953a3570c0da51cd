//! Reading single files: headers, attributes and content of the members of a segment.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};

use super::{Missed, Reader};
use crate::backup::attributes::{XattrSource, inode_flags};
use crate::backup::chunks::{advise_once, has_holes};
use crate::backup::tree::INLINE_MAX;
use crate::list::{Entry, EntryKind, EntryState};
use crate::member::{self, Extra, FLAGS};
use crate::walk::{Stat, open_dir, open_quiet, stat_fd};
use crate::{Error, bytes};

/// The most that one file's xattrs may hold together; more is left out and reported.
const XATTR_MAX: usize = 4 << 20;

impl Reader<'_> {
    /// The open directory that holds `path`.
    fn open_parent(&mut self, path: &[u8]) -> Result<(), Missed> {
        let (parent, _) = bytes::split(path);
        if self
            .directory
            .as_ref()
            .is_none_or(|(open, _)| open != parent)
        {
            self.directory = None;
            let opened = open_dir(self.root, parent)?;
            self.directory = Some((parent.to_vec(), opened));
        }
        Ok(())
    }

    pub(super) fn member(
        &mut self,
        path: &[u8],
        seen: &Stat,
        entry: &mut Entry,
    ) -> Result<(), Missed> {
        self.open_parent(path)?;
        let (_, name) = bytes::split(path);
        let name =
            CString::new(name).map_err(|_| Missed::Vanished("its name holds a NUL".to_string()))?;
        // Taken out and put back, as the methods below need the rest of `self`.
        let Some((parent_path, parent)) = self.directory.take() else {
            return Err(Missed::Fatal(Error::Internal("no directory is open")));
        };
        let result = match seen.kind() {
            libc::S_IFREG => self.file(path, &name, parent.as_fd(), seen, entry),
            libc::S_IFDIR => self.directory(&name, parent.as_fd(), seen, entry),
            _ => self.special(&name, parent.as_fd(), entry),
        };
        self.directory = Some((parent_path, parent));
        result
    }

    fn directory(
        &mut self,
        name: &CString,
        parent: BorrowedFd<'_>,
        seen: &Stat,
        entry: &mut Entry,
    ) -> Result<(), Missed> {
        let extra = match open_quiet(parent, name, OFlag::O_DIRECTORY) {
            Ok(dir) => {
                let now = stat_fd(dir.as_fd())?;
                if (now.dev, now.ino) != (seen.dev, seen.ino) {
                    return Err(Missed::Vanished(
                        "another directory took its place".to_string(),
                    ));
                }
                self.extra_of(&entry.path.clone(), dir.as_fd())
            }
            // A directory that may not be read is still a directory.
            Err(Errno::EACCES) => Extra::default(),
            Err(error) => return Err(error.into()),
        };
        self.mark_lost(entry);
        member::push_header(&mut self.segment, entry, &extra, 0);
        Ok(())
    }

    fn special(
        &mut self,
        name: &CString,
        parent: BorrowedFd<'_>,
        entry: &mut Entry,
    ) -> Result<(), Missed> {
        if entry.kind == EntryKind::Symlink {
            let target = readlinkat(parent, name.as_c_str())?;
            entry.target = Some(target.into());
            entry.size = 0;
        }
        // Device nodes must not be opened for this: opening has effects. The link in /proc names the directory, so
        // that no path is too long and no other directory is met.
        let mut place = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        place.extend_from_slice(name.as_bytes());
        let extra = match CString::new(place) {
            Ok(place) => Extra {
                xattrs: self.xattrs(&entry.path.clone(), &XattrSource::Link(place)),
                flags: 0,
            },
            Err(_) => Extra::default(),
        };
        self.mark_lost(entry);
        member::push_header(&mut self.segment, entry, &extra, 0);
        Ok(())
    }

    fn file(
        &mut self,
        path: &[u8],
        name: &CString,
        parent: BorrowedFd<'_>,
        seen: &Stat,
        entry: &mut Entry,
    ) -> Result<(), Missed> {
        // O_NONBLOCK: a fifo that took the file's place must not block.
        let own = File::from(open_quiet(
            parent,
            name,
            OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
        )?);
        let own_stat = stat_fd(own.as_fd())?;
        if !own_stat.is_file() {
            return Err(Missed::Vanished(
                "something that is no file took its place".to_string(),
            ));
        }
        let mut changed = (own_stat.dev, own_stat.ino) != (seen.dev, seen.ino);
        let (file, before) = match self.run.instead.get(path) {
            None => (None, own_stat),
            Some(other) => {
                let (file, stat) = instead(other, &own_stat).map_err(Missed::Fatal)?;
                (Some(file), stat)
            }
        };
        *entry = describe(path, &before);
        let extra = self.extra_of(&entry.path.clone(), own.as_fd());
        let file = file.unwrap_or(own);
        self.mark_lost(entry);
        #[cfg(test)]
        self.run.hook(path);
        let start = self.segment.len();
        let mut unreadable = None;
        let sparse = before.looks_sparse() && has_holes(&file, before.size);
        if before.size > INLINE_MAX || sparse {
            advise_once(&file);
            let content = self
                .chunker
                .store(&file, before.size, sparse, &self.sink, self.run.events)
                .map_err(Missed::Fatal)?;
            entry.content = Some(content.id);
            changed |= content.short;
            unreadable = content.unreadable;
            member::push_header(&mut self.segment, entry, &extra, 0);
        } else {
            member::push_header(&mut self.segment, entry, &extra, before.size);
            self.sink.reading(before.size, self.run.events);
            let data = self.segment.len();
            self.segment.resize(data + before.size as usize, 0);
            match read_up_to(&file, &mut self.segment[data..]) {
                // What is missing stays zeroes: the header has announced the length.
                Ok(n) => changed |= n as u64 != before.size,
                Err(error) => unreadable = Some(error.to_string()),
            }
            member::pad(&mut self.segment, before.size);
            self.run.events.bytes(before.size);
        }
        if before.size > 0 {
            let after = stat_fd(file.as_fd())?;
            changed |=
                (after.size, after.mtime, after.ctime) != (before.size, before.mtime, before.ctime);
        }
        let state = match (&unreadable, changed) {
            (Some(_), _) => EntryState::Partial,
            (None, true) => EntryState::Changed,
            (None, false) => return Ok(()),
        };
        entry.state = Some(state);
        // The mark belongs into the header, which stands before the content.
        let content = self.segment.split_off(start);
        let old_header = content.len()
            - if entry.content.is_some() {
                0
            } else {
                padded(before.size)
            };
        let in_tar = if entry.content.is_some() {
            0
        } else {
            before.size
        };
        member::push_header(&mut self.segment, entry, &extra, in_tar);
        self.segment.extend_from_slice(&content[old_header..]);
        let detail = unreadable.unwrap_or_else(|| "it changed while it was read".to_string());
        self.problem(path, state, detail);
        Ok(())
    }

    /// What misses extended attributes is not complete, and must be read again by the next backup.
    fn mark_lost(&mut self, entry: &mut Entry) {
        if std::mem::take(&mut self.lost) {
            entry.state = Some(EntryState::Partial);
        }
    }

    fn extra_of(&mut self, path: &Path, fd: BorrowedFd<'_>) -> Extra {
        let xattrs = self.xattrs(path, &XattrSource::Open(fd.as_raw_fd()));
        Extra {
            xattrs,
            flags: inode_flags(fd).unwrap_or(0) & FLAGS.iter().map(|(_, bit)| bit).sum::<u32>(),
        }
    }

    fn xattrs(&mut self, path: &Path, source: &XattrSource) -> Vec<(Vec<u8>, Vec<u8>)> {
        let listed = match source.list(&mut self.names) {
            Ok(n) => n,
            // Not every file system has them.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Vec::new(),
            Err(error) => {
                self.lost_xattrs(path, "they cannot be listed", error.desc());
                return Vec::new();
            }
        };
        let mut xattrs = Vec::new();
        let mut total = 0;
        let names: Vec<Vec<u8>> = self.names[..listed]
            .split(|b| *b == 0)
            .filter(|n| !n.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        for name in names {
            let Ok(c_name) = CString::new(name.as_slice()) else {
                continue;
            };
            match source.get(&c_name, &mut self.value) {
                Ok(n) if total + n <= XATTR_MAX => {
                    total += n;
                    xattrs.push((name, self.value[..n].to_vec()));
                }
                Ok(_) => self.lost_xattr(
                    path,
                    &name,
                    "its extended attributes are too large together",
                ),
                // Removed since it was listed.
                Err(Errno::ENODATA) => {}
                Err(error) => self.lost_xattr(path, &name, error.desc()),
            }
        }
        // In a fixed order, so that an unchanged file gives the same bytes.
        xattrs.sort_unstable();
        xattrs
    }

    fn lost_xattr(&mut self, path: &Path, name: &[u8], reason: &str) {
        self.lost_xattrs(path, &String::from_utf8_lossy(name), reason);
    }

    fn lost_xattrs(&mut self, path: &Path, what: &str, reason: &str) {
        let detail = format!("extended attributes: {what}: {reason}");
        self.lost = true;
        self.problem(bytes::of(path), EntryState::Partial, detail);
    }
}

fn padded(size: u64) -> usize {
    size.next_multiple_of(512) as usize
}

/// Opens the file whose content stands for another's, and says what its entry is made of.
fn instead(file: &Path, own: &Stat) -> Result<(File, Stat), Error> {
    let opened = File::open(file).map_err(Error::io("open", file))?;
    let stat = stat_fd(opened.as_fd()).map_err(Error::sys("examine", file))?;
    if !stat.is_file() {
        return Err(Error::sys("read", file)(Errno::EINVAL));
    }
    let stat = Stat {
        mode: own.mode,
        uid: own.uid,
        gid: own.gid,
        ..stat
    };
    Ok((opened, stat))
}

/// The entry of what `stat` says.
pub(in crate::backup) fn describe(path: &[u8], stat: &Stat) -> Entry {
    let kind = match stat.kind() {
        libc::S_IFDIR => EntryKind::Dir,
        libc::S_IFLNK => EntryKind::Symlink,
        libc::S_IFCHR => EntryKind::Char,
        libc::S_IFBLK => EntryKind::Block,
        libc::S_IFIFO => EntryKind::Fifo,
        _ => EntryKind::File,
    };
    Entry {
        path: bytes::path(path),
        kind,
        size: if stat.is_file() { stat.size } else { 0 },
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        ctime: stat.ctime,
        ino: stat.ino,
        rdev: matches!(kind, EntryKind::Char | EntryKind::Block).then_some(stat.rdev),
        target: None,
        content: None,
        state: None,
    }
}

/// From the beginning, wherever an earlier look for holes has left the file's position.
fn read_up_to(file: &File, mut buffer: &mut [u8]) -> io::Result<usize> {
    let mut total = 0;
    while !buffer.is_empty() {
        match file.read_at(buffer, total as u64) {
            Ok(0) => break,
            Ok(n) => {
                total += n;
                buffer = &mut buffer[n..];
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on ZFS, which compresses: fewer blocks than the size asks for, and no hole.
    #[test]
    fn a_file_that_was_looked_at_for_holes_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let content = vec![7; 9000];
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        assert!(!has_holes(&file, 9000));
        let mut read = vec![0; 9000];
        assert_eq!(read_up_to(&file, &mut read).unwrap(), 9000);
        assert!(read == content);
    }
}
