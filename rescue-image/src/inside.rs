//! Files of a mounted system, seen from outside of it: its own links cannot lead anywhere else.
//!
//! Paths are those of that system. Links are followed as it follows them itself, below its root (openat2(2),
//! `RESOLVE_IN_ROOT`). What is written is whole or not there at all, also after a power cut.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

/// Mode of directories, where none is asked for.
const DIR_MODE: u32 = 0o755;

/// What lies at a path, without following a link there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Something else.
    Other,
}

/// The root of a mounted system.
#[derive(Debug)]
pub struct Inside {
    root: OwnedFd,
}

impl Inside {
    /// The system whose root is this directory.
    pub fn open(root: &Path) -> Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(root, flags, Mode::empty())
            .with_context(|| format!("opening {}", root.display()))?;
        Ok(Self { root })
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, path, how)
    }

    fn directory(&self, path: &Path) -> nix::Result<OwnedFd> {
        self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    /// The directory that a name is in, and the name.
    fn place<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("{} names no file", path.display());
        };
        let dir = self
            .directory(parent)
            .with_context(|| format!("opening {}", parent.display()))?;
        Ok((dir, name))
    }

    /// What is there, without following a link at the end; `None`: nothing.
    pub fn kind(&self, path: &Path) -> Result<Option<Kind>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Some(Kind::Directory));
        };
        let looked = self
            .directory(parent)
            .and_then(|dir| fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW));
        let stat = match looked {
            Ok(stat) => stat,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("looking at {}", path.display()));
            }
        };
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        Ok(Some(match kind {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFLNK => Kind::Link,
            _ => Kind::Other,
        }))
    }

    /// The content of a regular file, of at most `limit` bytes; `None`: there is none.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        // What is no regular file must not be waited for.
        let opened = match self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        {
            Ok(opened) => opened,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        };
        let file = File::from(opened);
        let meta = file
            .metadata()
            .with_context(|| format!("looking at {}", path.display()))?;
        if !meta.is_file() {
            bail!("{} is no regular file", path.display());
        }
        if meta.len() > limit {
            bail!(
                "{} has {} bytes, more than the {limit} that make sense",
                path.display(),
                meta.len()
            );
        }
        let mut bytes = Vec::new();
        file.take(limit)
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading {}", path.display()))?;
        Ok(Some(bytes))
    }

    /// A configuration file; `None` also where it cannot be read, which a caller who needs it finds out with
    /// [`Self::read`].
    pub fn text(&self, path: &Path) -> Option<String> {
        let bytes = self.read(path, 1 << 20).ok().flatten()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in a directory, sorted; none where there is no such directory.
    pub fn names(&self, dir: &Path) -> Vec<String> {
        let Ok(opened) = self.directory(dir) else {
            return Vec::new();
        };
        let Ok(mut opened) = nix::dir::Dir::from_fd(opened) else {
            return Vec::new();
        };
        let mut names: Vec<String> = opened
            .iter()
            .filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.to_owned()))
            .filter(|name| name != "." && name != "..")
            .collect();
        names.sort();
        names
    }

    /// Whether there is a program.
    pub fn is_program(&self, path: &Path) -> bool {
        let file = self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY);
        let meta = file.ok().and_then(|file| File::from(file).metadata().ok());
        meta.is_some_and(|m| m.is_file() && m.mode() & 0o100 != 0)
    }

    /// Makes a directory and those above it, where they are missing.
    pub fn make_dir(&self, path: &Path) -> Result<()> {
        self.make_dir_mode(path, DIR_MODE)
    }

    /// The same, where the last one gets a mode of its own if it is made.
    fn make_dir_mode(&self, path: &Path, mode: u32) -> Result<()> {
        let mut done = PathBuf::from("/");
        for part in path.components() {
            let Component::Normal(name) = part else {
                continue;
            };
            let above = self
                .directory(&done)
                .with_context(|| format!("opening {}", done.display()))?;
            done.push(name);
            let last = done == path;
            let mode = Mode::from_bits_truncate(if last { mode } else { DIR_MODE });
            match mkdirat(&above, name, mode) {
                Ok(()) => {
                    // Whatever the umask says.
                    self.directory(&done)
                        .and_then(|made| fchmod(made, mode))
                        .with_context(|| format!("making {}", done.display()))?;
                    sync(&above, &done)?;
                }
                Err(Errno::EEXIST) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("making {}", done.display()));
                }
            }
        }
        // Also says so where a file, or a link that leads nowhere, has that name.
        self.directory(path)
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(())
    }

    /// Writes a file of the system in one go. A regular file that is there gives its mode and owner; what is no regular file
    /// is an error.
    pub fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        let (dir, name) = self.place(path)?;
        let old = match openat(
            &dir,
            name,
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
            Mode::empty(),
        ) {
            Ok(old) => Some(
                File::from(old)
                    .metadata()
                    .with_context(|| format!("looking at {}", path.display()))?,
            ),
            Err(Errno::ENOENT) => None,
            Err(Errno::ELOOP) => bail!("{} is a link: it is left as it is", path.display()),
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        };
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            bail!("{} is no regular file: it is left as it is", path.display());
        }
        let owner = old.as_ref().map(|old| (old.uid(), old.gid()));
        let mode = old.as_ref().map_or(0o644, |old| old.mode() & 0o7777);
        replace(&dir, name, content, mode, owner)
            .and_then(|()| sync(&dir, path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Puts a file of our own there in one go, in place of whatever file or link has its name. A directory for it is made
    /// with `dir_mode`.
    pub fn put(&self, path: &Path, content: &[u8], mode: u32, dir_mode: u32) -> Result<()> {
        let put = || -> Result<()> {
            if let Some(parent) = path.parent() {
                self.make_dir_mode(parent, dir_mode)?;
            }
            let (dir, name) = self.place(path)?;
            replace(&dir, name, content, mode, None)?;
            sync(&dir, path)
        };
        put().with_context(|| format!("writing {}", path.display()))
    }

    /// Moves a file.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        renameat(&from_dir, from_name, &to_dir, to_name)
            .with_context(|| format!("moving {} to {}", from.display(), to.display()))?;
        sync(&to_dir, to)?;
        sync(&from_dir, from)
    }

    /// Removes a file or link, if it is there.
    pub fn remove(&self, path: &Path) -> Result<()> {
        let removing = || format!("removing {}", path.display());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("{} names no file", path.display());
        };
        let dir = match self.directory(parent) {
            Ok(dir) => dir,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(error) => return Err(error).with_context(removing),
        };
        match unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => sync(&dir, path),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error).with_context(removing),
        }
    }

    /// Makes a symbolic link, in place of a link that is there, and a directory for it. What is there and is no link is an
    /// error.
    pub fn link(&self, target: &Path, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            self.make_dir(parent)?;
        }
        if self.kind(path)? == Some(Kind::Link) {
            self.remove(path)?;
        }
        let (dir, name) = self.place(path)?;
        symlinkat(target, &dir, name)
            .with_context(|| format!("making the link {}", path.display()))?;
        sync(&dir, path)
    }
}

/// Writes a file beside, and puts it in the place of what has its name.
fn replace(
    dir: &OwnedFd,
    name: &OsStr,
    content: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<()> {
    let mut new = OsString::from(".lifeboat-");
    new.push(name);
    let new = new.as_os_str();
    // Of an attempt that was cut short.
    let _ = unlinkat(dir, new, UnlinkatFlags::NoRemoveDir);
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(dir, new, flags, Mode::from_bits_truncate(0o600))?;
    let mut file = File::from(made);
    let written = (|| -> Result<()> {
        file.write_all(content)?;
        if let Some((user, group)) = owner {
            fchown(&file, Some(user), Some(group))?;
        }
        // After the owner, who would take set-user-ID bits away; and whatever the umask says.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        renameat(dir, new, dir, name)?;
        Ok(())
    })();
    if written.is_err() {
        let _ = unlinkat(dir, new, UnlinkatFlags::NoRemoveDir);
    }
    written
}

fn sync(dir: &impl AsFd, path: &Path) -> Result<()> {
    nix::unistd::fsync(dir.as_fd())
        .with_context(|| format!("syncing the directory of {}", path.display()))
}

#[cfg(test)]
mod tests;
