//! Files inside of a mounted system, whose links lead where they would lead that system: never out of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

/// The root directory of a mounted system.
pub(crate) struct Rooted {
    root: OwnedFd,
    shown: PathBuf,
}

impl Rooted {
    pub(crate) fn new(root: &Path) -> Result<Rooted> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Rooted {
            root: open(root, flags, Mode::empty())
                .with_context(|| format!("cannot open {}", root.display()))?,
            shown: root.to_owned(),
        })
    }

    fn open(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, path, how)
    }

    /// The directory at an absolute path of that system, made with what is missing on the way.
    fn dir(&self, path: &Path, mode: u32) -> Result<OwnedFd, Errno> {
        let mut so_far = PathBuf::from("/");
        let mut dir = self.open(&so_far, OFlag::O_DIRECTORY)?;
        for part in path.components() {
            let Component::Normal(name) = part else {
                continue;
            };
            so_far.push(name);
            dir = match self.open(&so_far, OFlag::O_DIRECTORY) {
                Err(Errno::ENOENT) => {
                    let last = so_far == path;
                    let mode = Mode::from_bits_truncate(if last { mode } else { 0o755 });
                    mkdirat(&dir, name, mode)?;
                    let made = self.open(&so_far, OFlag::O_DIRECTORY)?;
                    // Whatever the umask says.
                    fchmod(&made, mode)?;
                    made
                }
                other => other?,
            };
        }
        Ok(dir)
    }

    /// Writes a file, whole or not at all; a directory for it is made with `dir_mode`.
    pub(crate) fn write(
        &self,
        path: &Path,
        content: &[u8],
        mode: u32,
        dir_mode: u32,
    ) -> Result<()> {
        let write = || -> Result<()> {
            let (dir, name) = self.parent(path, dir_mode)?;
            let unfinished = [name.as_bytes(), b".lifeboat-new"].concat();
            let unfinished = OsStr::from_bytes(&unfinished);
            let _ = unlinkat(&dir, unfinished, UnlinkatFlags::NoRemoveDir);
            let flags = OFlag::O_WRONLY
                | OFlag::O_CREAT
                | OFlag::O_EXCL
                | OFlag::O_NOFOLLOW
                | OFlag::O_CLOEXEC;
            let mode = Mode::from_bits_truncate(mode);
            let mut file = File::from(openat(&dir, unfinished, flags, mode)?);
            fchmod(&file, mode)?;
            file.write_all(content)?;
            file.sync_all()?;
            renameat(&dir, unfinished, &dir, name.as_os_str())?;
            File::from(dir).sync_all()?;
            Ok(())
        };
        write().with_context(|| self.cannot("write", path))
    }

    /// Makes a symbolic link, in place of whatever link is there.
    pub(crate) fn link(&self, path: &Path, target: &str) -> Result<()> {
        let make = || -> Result<()> {
            let (dir, name) = self.parent(path, 0o755)?;
            match unlinkat(&dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
            symlinkat(target, &dir, name.as_os_str())?;
            File::from(dir).sync_all()?;
            Ok(())
        };
        make().with_context(|| self.cannot("make the link", path))
    }

    /// Takes a file away, if there is one.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        let remove = || -> Result<()> {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                bail!("it has no name");
            };
            let dir = match self.open(parent, OFlag::O_DIRECTORY) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
                dir => dir?,
            };
            match unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        remove().with_context(|| self.cannot("remove", path))
    }

    /// The first bytes of a regular file; `None` where there is none.
    pub(crate) fn read(&self, path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
        let read = || -> Result<Option<Vec<u8>>> {
            let file = match self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
                Ok(file) => File::from(file),
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if !file.metadata()?.is_file() {
                bail!("it is no regular file");
            }
            let mut content = Vec::new();
            file.take(most).read_to_end(&mut content)?;
            Ok(Some(content))
        };
        read().with_context(|| self.cannot("read", path))
    }

    /// Whether there is a program.
    pub(crate) fn is_program(&self, path: &Path) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let file = self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK);
        let meta = file.ok().and_then(|file| File::from(file).metadata().ok());
        meta.is_some_and(|m| m.is_file() && m.permissions().mode() & 0o100 != 0)
    }

    fn parent(&self, path: &Path, mode: u32) -> Result<(OwnedFd, std::ffi::OsString)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("it has no name");
        };
        let dir = self.dir(parent, mode)?;
        Ok((dir.as_fd().try_clone_to_owned()?, name.to_owned()))
    }

    fn cannot(&self, what: &str, path: &Path) -> String {
        format!(
            "cannot {what} {} in the system at {}",
            path.display(),
            self.shown.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_of_the_system_lead_into_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("data/var")).unwrap();
        fs::create_dir(&outside).unwrap();
        // As it is on hosts with /var elsewhere, and as nobody would have it.
        symlink("/data/var", root.join("var")).unwrap();
        symlink(&outside, root.join("etc")).unwrap();
        let rooted = Rooted::new(&root).unwrap();
        let file = Path::new("/var/lib/lifeboat/x");
        rooted.write(file, b"1", 0o600, 0o700).unwrap();
        rooted.write(file, b"2", 0o600, 0o700).unwrap();
        let there = root.join("data/var/lib/lifeboat/x");
        assert_eq!(fs::read(&there).unwrap(), b"2");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&there), mode(there.parent().unwrap())),
            (0o600, 0o700)
        );
        assert_eq!(mode(&root.join("data/var/lib")), 0o755);
        assert_eq!(rooted.read(file, 10).unwrap(), Some(b"2".to_vec()));
        // The link leads to a directory that is not in this system.
        rooted
            .write(Path::new("/etc/x"), b"", 0o644, 0o755)
            .unwrap_err();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        // A file that is a link is replaced, not followed.
        symlink(outside.join("y"), root.join("data/y")).unwrap();
        rooted
            .write(Path::new("/data/y"), b"", 0o644, 0o755)
            .unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        rooted.link(Path::new("/data/l"), "/x").unwrap();
        rooted.link(Path::new("/data/l"), "/y").unwrap();
        assert_eq!(fs::read_link(root.join("data/l")).unwrap(), Path::new("/y"));
        assert_eq!(rooted.read(Path::new("/nothing/x"), 1).unwrap(), None);
        assert!(rooted.read(Path::new("/data"), 1).is_err());
        assert!(!rooted.is_program(file));
        rooted.remove(file).unwrap();
        rooted.remove(file).unwrap();
        rooted.remove(Path::new("/nothing/x")).unwrap();
        assert!(!there.exists());
    }
}
