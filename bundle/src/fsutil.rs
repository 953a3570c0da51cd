//! Files that appear complete or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    let file = File::open(dir).map_err(Error::io("open", dir))?;
    match file.sync_all() {
        // Some file systems (vfat through FUSE, NFS) do not know fsync of a directory.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other.map_err(Error::io("sync", dir)),
    }
}

/// Creates a directory unless it exists, and makes its name durable.
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => match dir.parent() {
            Some(parent) => sync_dir(parent),
            None => Ok(()),
        },
        // Through a link, files of somebody else would be overwritten, or removed as unfinished.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let is_dir = fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir());
            is_dir.then_some(()).ok_or_else(|| {
                Error::malformed(
                    dir.display(),
                    "it is a link or a file instead of a directory",
                )
            })
        }
        Err(e) => Err(Error::io("create", dir)(e)),
    }
}

/// Opens a file of a store for reading. What is no regular file is refused: opening a pipe would wait for ever.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    // It could have been exchanged since.
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

/// An unfinished file. Dropped without a name of its own, it is removed: on a full disk it would be in the way.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    /// A new file with a fresh name in the store's directory of unfinished files.
    pub(crate) fn create(store_root: &Path) -> Result<(Temporary, File)> {
        let name = format!("tmp/{}.tmp", uuid::Uuid::new_v4().simple());
        let path = store_root.join(name);
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        Ok((Temporary(path), file))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is gone when it was given its name; what stays behind is removed by the next writer.
        let _ = fs::remove_file(&self.0);
    }
}

/// Gives a complete, synced file its name.
pub(crate) fn publish(temporary: &Temporary, name: &Path) -> Result<()> {
    let dir = name.parent().unwrap_or(Path::new("."));
    make_dir(dir)?;
    fs::rename(&temporary.0, name).map_err(Error::io("create", name))?;
    sync_dir(dir)
}

/// Writes a whole file: temporary name, sync, rename, sync of the directory.
pub(crate) fn write_file(store_root: &Path, name: &Path, bytes: &[u8]) -> Result<()> {
    let (temporary, mut file) = Temporary::create(store_root)?;
    file.write_all(bytes).map_err(Error::io("write", name))?;
    file.sync_all().map_err(Error::io("sync", name))?;
    publish(&temporary, name)
}

/// Reads a whole file of at most `limit` bytes from the medium: what was just written, or read by another program,
/// must not be taken from the page cache for what the medium holds.
pub(crate) fn read_cold(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open_file(path).map_err(Error::io("open", path))?;
    forget_cached(&file);
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::malformed(
            path.display(),
            format!("it is larger than any writer makes it ({limit} bytes)"),
        ));
    }
    Ok(bytes)
}

/// Bytes that are free for writing on the file system that holds `dir`.
pub(crate) fn free_space(dir: &Path) -> Result<u64> {
    let found = nix::sys::statvfs::statvfs(dir).map_err(Error::sys("examine", dir))?;
    Ok(found
        .blocks_available()
        .saturating_mul(found.fragment_size()))
}

/// Size of the file system that holds `dir`.
pub(crate) fn total_space(dir: &Path) -> Result<u64> {
    let found = nix::sys::statvfs::statvfs(dir).map_err(Error::sys("examine", dir))?;
    Ok(found.blocks().saturating_mul(found.fragment_size()))
}

/// Removes a file; that it is gone already is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Drops a file's clean pages from the page cache, so that the next read comes from the medium.
pub(crate) fn forget_cached(file: &impl AsFd) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    // Only advice: where it is not known, reads may come from the cache.
    let _ = posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

/// The names in a directory, sorted; an absent directory is an empty one.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(names),
        Err(e) => return Err(Error::io("list", dir)(e)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        // The format's names are ASCII; anything else was put there by someone else.
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
