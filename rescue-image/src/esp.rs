//! Files on the EFI system partition, read and written in user space: no kernel need know FAT.
//!
//! What the boot depends on is written in ways that an interruption does not break: files of a slot are overwritten in
//! place (their cluster chains stay), and the small files that decide what is booted are one sector that is
//! overwritten by one write ([`Esp::write_sector`]).

mod medium;
#[cfg(any(test, fuzzing))]
pub(crate) mod recorder;

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use sha2::{Digest, Sha256};

use medium::{Borrowed, Watched};
pub use medium::{Medium, Slice};

use crate::error::{Error, Result};

/// Volume label of the boot partition, padded as FAT wants it.
pub const LABEL: [u8; 11] = *b"LB-BOOT    ";

/// Size of the files that are replaced by one write.
pub const SECTOR: usize = 512;

/// The boot partition of a medium. Paths are relative, with `/`.
pub struct Esp<M: Medium> {
    medium: M,
    /// For errors.
    name: PathBuf,
}

impl<M: Medium> Esp<M> {
    /// An existing file system on `medium`; `name` is for errors.
    pub fn new(medium: M, name: &Path) -> Self {
        Self {
            medium,
            name: name.to_owned(),
        }
    }

    /// Makes a FAT32 file system. `size` is that of the medium in bytes.
    pub fn format(
        mut medium: M,
        name: &Path,
        size: u64,
        sector: u16,
        volume_id: u32,
    ) -> Result<Self> {
        let io = || Error::io("write the boot file system of", name);
        // Few large clusters are written quickest, but FAT32 has at least 65,525 of them (Microsoft's FAT
        // specification), some hundreds of which are lost to the tables.
        let cluster = [16384u32, 8192, 4096, 2048, 1024, 512]
            .into_iter()
            .find(|c| u64::from(*c) >= u64::from(sector) && size / u64::from(*c) >= 66_500)
            .ok_or_else(|| {
                Error::format(
                    name,
                    format!("a boot partition of {size} bytes is too small for FAT32"),
                )
            })?;
        medium.seek(SeekFrom::Start(0)).map_err(io())?;
        let options = FormatVolumeOptions::new()
            .fat_type(FatType::Fat32)
            .bytes_per_sector(sector)
            .bytes_per_cluster(cluster)
            .volume_id(volume_id)
            .volume_label(LABEL);
        fatfs::format_volume(Borrowed::empty(&mut medium), options).map_err(io())?;
        medium.sync().map_err(io())?;
        Ok(Self::new(medium, name))
    }

    fn with<T>(
        &mut self,
        job: impl FnOnce(&FileSystem<Borrowed<'_, M>>) -> io::Result<T>,
    ) -> io::Result<T> {
        let medium = Borrowed::formatted(&mut self.medium)?;
        caught(|| {
            let fs = FileSystem::new(medium, FsOptions::new())?;
            let result = job(&fs);
            let end = fs.unmount();
            let result = result?;
            end?;
            Ok(result)
        })
    }

    fn error(&self, action: &'static str, path: &str) -> impl FnOnce(io::Error) -> Error + use<M> {
        Error::io(action, self.name.join(path))
    }

    /// Makes a directory with its parents.
    pub fn make_dir(&mut self, path: &str) -> Result<()> {
        let error = self.error("create directory", path);
        let mut made = || -> io::Result<()> {
            let parts: Vec<_> = path.split('/').filter(|p| !p.is_empty()).collect();
            for depth in 1..=parts.len() {
                let path = parts[..depth].join("/");
                let new = self.with(|fs| match fs.root_dir().open_dir(&path) {
                    Ok(_) => Ok(false),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        fs.root_dir().create_dir(&path).map(|_| true)
                    }
                    Err(e) => Err(e),
                })?;
                if new {
                    self.repair_dots(&path, depth == 1)?;
                }
            }
            Ok(())
        };
        made().map_err(error)
    }

    /// fatfs 0.3 gives `.` and `..` of a new directory long names, and lets `..` of a first-level directory point to the
    /// root's cluster, where Microsoft's FAT specification (section 6.5) wants neither: fsck.vfat calls both damage.
    fn repair_dots(&mut self, path: &str, below_root: bool) -> io::Result<()> {
        const ENTRY: usize = 32;
        let odd = || io::Error::other("a new directory does not look as expected");
        let place = self.watch(|fs, first_read| {
            let dir = fs.root_dir().open_dir(path)?;
            first_read.set(None);
            dir.iter().next();
            Ok(first_read.get().map(|(at, _)| at))
        })?;
        let place = place.ok_or_else(odd)?;
        let mut entries = [0; 4 * ENTRY];
        self.medium.seek(SeekFrom::Start(place))?;
        self.medium.read_exact(&mut entries)?;
        let (dot, dots) = (&entries[ENTRY..2 * ENTRY], &entries[3 * ENTRY..]);
        // Attribute 0x0f marks a part of a long name.
        if entries[11] != 0x0f
            || entries[2 * ENTRY + 11] != 0x0f
            || &dot[..2] != b". "
            || &dots[..3] != b".. "
        {
            return Err(odd());
        }
        let mut right = [0; 4 * ENTRY];
        right[..ENTRY].copy_from_slice(dot);
        right[ENTRY..2 * ENTRY].copy_from_slice(dots);
        if below_root {
            right[ENTRY + 20..ENTRY + 22].fill(0);
            right[ENTRY + 26..ENTRY + 28].fill(0);
        }
        self.medium.seek(SeekFrom::Start(place))?;
        self.medium.write_all(&right)
    }

    /// Whether the file is there.
    pub fn exists(&mut self, path: &str) -> Result<bool> {
        let error = self.error("look for", path);
        self.with(|fs| match fs.root_dir().open_file(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        })
        .map_err(error)
    }

    /// The content, `None` when there is no such file. At most 16 MiB.
    pub fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        let error = self.error("read", path);
        self.with(|fs| {
            let file = match fs.root_dir().open_file(path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e),
            };
            let mut content = Vec::new();
            file.take(16 << 20).read_to_end(&mut content)?;
            Ok(Some(content))
        })
        .map_err(error)
    }

    /// Writes the file, over an existing one in place: its clusters are used again, so that nothing but its own content
    /// is at stake when the power fails. `done` is told the bytes as they are written.
    pub fn write(&mut self, path: &str, content: &mut dyn Read, done: &dyn Fn(u64)) -> Result<()> {
        let error = self.error("write", path);
        self.with(|fs| {
            let mut file = fs.root_dir().create_file(path)?;
            let mut buffer = vec![0; 1 << 18];
            let mut first = true;
            loop {
                let n = content.read(&mut buffer)?;
                if n == 0 {
                    break;
                }
                file.write_all(&buffer[..n])?;
                done(n as u64);
                if first {
                    // The directory entry knows the first cluster from now on: an interrupted file can be overwritten or
                    // removed, and loses no space for ever.
                    file.flush()?;
                    first = false;
                }
            }
            file.truncate()?;
            file.flush()
        })
        .map_err(error)
    }

    /// [`Esp::write`] of what is in memory.
    pub fn write_bytes(&mut self, path: &str, mut content: &[u8]) -> Result<()> {
        self.write(path, &mut content, &|_| {})
    }

    /// SHA-256 of the file as the medium holds it.
    pub fn hash(&mut self, path: &str) -> Result<[u8; 32]> {
        let error = self.error("read back", path);
        self.with(|fs| {
            let mut file = fs.root_dir().open_file(path)?;
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 1 << 18];
            loop {
                let n = file.read(&mut buffer)?;
                if n == 0 {
                    return Ok(hash.finalize().into());
                }
                hash.update(&buffer[..n]);
            }
        })
        .map_err(error)
    }

    /// Removes the file; says whether there was one.
    pub fn remove(&mut self, path: &str) -> Result<bool> {
        let error = self.error("remove", path);
        self.with(|fs| match fs.root_dir().remove(path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        })
        .map_err(error)
    }

    /// Makes all that was written survive a power cut.
    pub fn sync(&mut self) -> Result<()> {
        let error = Error::io("sync", &self.name);
        self.medium.sync().map_err(error)
    }

    /// Syncs, and makes later reads come from the medium.
    pub fn forget(&mut self) -> Result<()> {
        self.sync()?;
        let error = Error::io("drop the cache of", &self.name);
        self.medium.forget().map_err(error)
    }

    /// Bytes in free clusters.
    pub fn free(&mut self) -> Result<u64> {
        let error = self.error("read", "");
        self.with(|fs| {
            let stats = fs.stats()?;
            Ok(u64::from(stats.free_clusters()) * u64::from(stats.cluster_size()))
        })
        .map_err(error)
    }

    /// Size of a file, 0 when there is none.
    pub fn size(&mut self, path: &str) -> Result<u64> {
        let error = self.error("read", path);
        self.with(|fs| match fs.root_dir().open_file(path) {
            Ok(mut file) => file.seek(SeekFrom::End(0)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e),
        })
        .map_err(error)
    }

    /// Replaces the content of a one-sector file by a single write to its data sector: after a power cut, the file holds
    /// either the old or the new text. Nothing else of the file system is touched. The text is padded with line ends.
    pub fn write_sector(&mut self, path: &str, text: &str) -> Result<()> {
        let sector = padded(text)
            .ok_or_else(|| Error::format(self.name.join(path), "text longer than a sector"))?;
        if self.size(path)? != SECTOR as u64 {
            // First time: no one depends on it yet.
            self.write_bytes(path, &sector)?;
            return self.sync();
        }
        let error = Error::io("write", self.name.join(path));
        let place = self.place(path).and_then(|place| {
            place.ok_or_else(|| {
                io::Error::other(
                    "the file's sector was not found; check the file system with fsck.vfat",
                )
            })
        });
        let result = place.and_then(|place| {
            self.medium.sync()?;
            self.medium.seek(SeekFrom::Start(place))?;
            self.medium.write_all(&sector)?;
            self.medium.sync()?;
            self.medium.forget()
        });
        result.map_err(error)?;
        if self.read(path)?.as_deref() != Some(&sector[..]) {
            return Err(Error::ReadBack {
                path: self.name.clone(),
                what: path.to_owned(),
            });
        }
        Ok(())
    }

    /// Runs `job` and lets it see where fatfs read: the first read since the cell was set to `None`.
    fn watch<T>(
        &mut self,
        job: impl FnOnce(
            &FileSystem<Watched<Borrowed<'_, M>>>,
            &Cell<Option<(u64, usize)>>,
        ) -> io::Result<T>,
    ) -> io::Result<T> {
        let first_read = Rc::new(Cell::new(None));
        let watched = Watched {
            inner: Borrowed::formatted(&mut self.medium)?,
            first_read: first_read.clone(),
        };
        caught(|| {
            let fs = FileSystem::new(watched, FsOptions::new())?;
            let result = job(&fs, &first_read);
            let end = fs.unmount();
            let result = result?;
            end?;
            Ok(result)
        })
    }

    /// Offset of the first content sector of a file.
    fn place(&mut self, path: &str) -> io::Result<Option<u64>> {
        self.watch(|fs, first_read| {
            let mut sector = [0; SECTOR];
            let mut file = fs.root_dir().open_file(path)?;
            first_read.set(None);
            if file.read(&mut sector)? != SECTOR {
                return Ok(None);
            }
            Ok(first_read
                .get()
                .filter(|(at, n)| *n == SECTOR && at % SECTOR as u64 == 0)
                .map(|(at, _)| at))
        })
    }
}

/// The text as one sector.
fn padded(text: &str) -> Option<[u8; SECTOR]> {
    let mut sector = [b'\n'; SECTOR];
    sector
        .get_mut(..text.len())?
        .copy_from_slice(text.as_bytes());
    Some(sector)
}

/// fatfs computes with cluster numbers as it finds them; where one is damaged it panics rather than look elsewhere (the
/// workspace has overflow checks on for it). Nothing of ours is half done then: every operation opens the medium anew.
fn caught<T>(job: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).unwrap_or_else(|_| {
        Err(io::Error::other(
            "its tables are damaged; check it with fsck.vfat",
        ))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) use super::recorder::{Recorder, SMALL};

    #[test]
    fn files_are_written_over_in_place_and_removed() {
        let mut disk = Recorder::new(SMALL);
        let mut esp = Esp::format(&mut disk, Path::new("test"), SMALL as u64, 512, 7).unwrap();
        esp.make_dir("rescue/a").unwrap();
        esp.write_bytes("rescue/a/initrd.img", &[1; 100_000])
            .unwrap();
        let free = esp.free().unwrap();
        esp.write_bytes("rescue/a/initrd.img", &[2; 90_000])
            .unwrap();
        assert_eq!(
            esp.read("rescue/a/initrd.img").unwrap().unwrap(),
            vec![2; 90_000]
        );
        assert!(esp.free().unwrap() > free);
        assert_eq!(
            esp.hash("rescue/a/initrd.img").unwrap(),
            <[u8; 32]>::from(Sha256::digest(vec![2; 90_000]))
        );
        assert!(esp.remove("rescue/a/initrd.img").unwrap());
        assert!(!esp.remove("rescue/a/initrd.img").unwrap());
        assert_eq!(esp.read("rescue/a/initrd.img").unwrap(), None);
        assert_eq!(esp.read("nowhere/x").unwrap(), None);
    }

    #[test]
    fn a_sector_file_changes_by_exactly_one_write_of_one_sector() {
        let mut disk = Recorder::new(SMALL);
        let mut esp = Esp::format(&mut disk, Path::new("test"), SMALL as u64, 512, 7).unwrap();
        esp.write_sector("slot.cfg", "set slot=a\n").unwrap();
        esp.medium.recording = true;
        esp.write_sector("slot.cfg", "set slot=b\n").unwrap();
        let text = esp.read("slot.cfg").unwrap().unwrap();
        assert!(text.starts_with(b"set slot=b\n\n") && text.len() == SECTOR);
        assert_eq!(disk.writes.len(), 1);
        assert_eq!(disk.writes[0].1.len(), SECTOR);
    }
}
