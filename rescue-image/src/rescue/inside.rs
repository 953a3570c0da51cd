//! Files of a restored system, seen from outside of it: its own links cannot lead anywhere else.
//!
//! Paths are those of the restored host. Links are followed as that host follows them, below its root (openat2(2),
//! `RESOLVE_IN_ROOT`). What is written is whole or not there at all, also after a power cut.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

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

/// The root of a restored system.
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

    /// Makes a directory and those above it.
    pub fn make_dir(&self, path: &Path) -> Result<()> {
        let mut done = PathBuf::from("/");
        for part in path.components() {
            let Component::Normal(name) = part else {
                continue;
            };
            let above = self
                .directory(&done)
                .with_context(|| format!("opening {}", done.display()))?;
            done.push(name);
            match mkdirat(&above, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => sync(&above, &done)?,
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

    /// Writes a file in one go. A regular file that is there gives its mode and owner; what is no regular file is an
    /// error.
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
        let mut new = std::ffi::OsString::from(".lifeboat-");
        new.push(name);
        // Of an attempt that was cut short.
        let _ = unlinkat(&dir, new.as_os_str(), UnlinkatFlags::NoRemoveDir);
        let writing = || format!("writing {}", path.display());
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = openat(
            &dir,
            new.as_os_str(),
            flags,
            Mode::from_bits_truncate(0o600),
        );
        let mut file = File::from(made.with_context(writing)?);
        let written = (|| -> std::io::Result<()> {
            file.write_all(content)?;
            if let Some(old) = &old {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            let mode = old.as_ref().map_or(0o644, |old| old.mode() & 0o7777);
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
            file.sync_all()
        })();
        if let Err(error) = written {
            let _ = unlinkat(&dir, new.as_os_str(), UnlinkatFlags::NoRemoveDir);
            return Err(error).with_context(writing);
        }
        renameat(&dir, new.as_os_str(), &dir, name).with_context(writing)?;
        sync(&dir, path)
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
        let (dir, name) = self.place(path)?;
        match unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => sync(&dir, path),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
        }
    }

    /// Makes a symbolic link; what is there already is an error.
    pub fn link(&self, target: &Path, path: &Path) -> Result<()> {
        let (dir, name) = self.place(path)?;
        symlinkat(target, &dir, name)
            .with_context(|| format!("making the link {}", path.display()))?;
        sync(&dir, path)
    }
}

fn sync(dir: &impl AsFd, path: &Path) -> Result<()> {
    nix::unistd::fsync(dir.as_fd())
        .with_context(|| format!("syncing the directory of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_nowhere_outside() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        for path in [&root, &outside] {
            std::fs::create_dir_all(path.join("etc")).expect("made");
        }
        std::fs::write(outside.join("secret"), "x").expect("written");
        symlink(&outside, root.join("absolute")).expect("link");
        symlink("../../../../../etc", root.join("etc/up")).expect("link");
        symlink(outside.join("secret"), root.join("etc/file")).expect("link");
        let inside = Inside::open(&root).expect("opened");
        assert!(inside.write(Path::new("/absolute/new"), b"y").is_err());
        assert!(
            inside
                .read(Path::new("/absolute/secret"), 10)
                .expect("read")
                .is_none()
        );
        assert!(
            inside
                .read(Path::new("/etc/file"), 10)
                .expect("read")
                .is_none()
        );
        assert!(inside.make_dir(Path::new("/absolute/sub")).is_err());
        // A link that would lead up stays at the root.
        inside
            .write(Path::new("/etc/up/new"), b"y")
            .expect("written");
        assert_eq!(std::fs::read(root.join("etc/new")).expect("there"), b"y");
        let error = inside
            .write(Path::new("/etc/file"), b"y")
            .expect_err("a link");
        assert!(error.to_string().contains("/etc/file is a link"), "{error}");
        assert_eq!(std::fs::read(outside.join("secret")).expect("there"), b"x");
        assert_eq!(std::fs::read_dir(&outside).expect("listed").count(), 2);
    }

    #[test]
    fn a_file_keeps_its_mode_and_only_regular_ones_are_taken() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let inside = Inside::open(dir.path()).expect("opened");
        inside.make_dir(Path::new("/a/b")).expect("made");
        let path = Path::new("/a/b/f");
        inside.write(path, b"1").expect("written");
        let real = dir.path().join("a/b/f");
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o600)).expect("set");
        inside.write(path, b"22").expect("written");
        let mode = std::fs::metadata(&real).expect("there").mode() & 0o7777;
        assert_eq!(mode, 0o600);
        assert_eq!(inside.names(Path::new("/a/b")), ["f"]);
        assert!(inside.read(path, 1).is_err(), "too long");
        assert_eq!(
            inside.read(path, 2).expect("read").as_deref(),
            Some(&b"22"[..])
        );
        assert!(inside.read(Path::new("/a/b"), 9).is_err(), "a directory");
        assert!(
            inside.write(Path::new("/a/b"), b"x").is_err(),
            "a directory"
        );
        assert_eq!(
            inside.kind(Path::new("/a/b")).expect("looked"),
            Some(Kind::Directory)
        );
        assert_eq!(inside.kind(Path::new("/none/b")).expect("looked"), None);
        inside.rename(path, Path::new("/a/g")).expect("moved");
        inside.remove(Path::new("/a/g")).expect("removed");
        inside.remove(Path::new("/a/g")).expect("gone already");
        assert_eq!(inside.names(Path::new("/a")), ["b"]);
    }
}
