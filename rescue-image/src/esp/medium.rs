//! What the boot partition is written to.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;

/// Where a FAT file system is written to: a slice of a file or device, or a piece of memory in tests.
pub trait Medium: Read + Write + Seek {
    /// Makes everything written so far survive a power cut.
    fn sync(&mut self) -> io::Result<()>;
    /// Forgets what is cached, so that the next read comes from the medium.
    fn forget(&mut self) -> io::Result<()>;
}

/// A range of bytes of a file or block device.
#[derive(Debug)]
pub struct Slice {
    file: File,
    start: u64,
    len: u64,
    at: u64,
}

impl Slice {
    /// `len` bytes from `start`.
    pub fn new(file: File, start: u64, len: u64) -> Self {
        Self {
            file,
            start,
            len,
            at: 0,
        }
    }
}

impl Read for Slice {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.len.saturating_sub(self.at))
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let n = std::os::unix::fs::FileExt::read_at(
            &self.file,
            &mut buf[..most],
            self.start + self.at,
        )?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for Slice {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let most = usize::try_from(self.len.saturating_sub(self.at))
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let n =
            std::os::unix::fs::FileExt::write_at(&self.file, &buf[..most], self.start + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Slice {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let to = match pos {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
            SeekFrom::End(n) => self.len.checked_add_signed(n),
        };
        self.at = to
            .filter(|n| *n <= self.len)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

impl Medium for Slice {
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn forget(&mut self) -> io::Result<()> {
        // SAFETY: plain system call on a descriptor that we own.
        let error = unsafe {
            libc::posix_fadvise(
                self.file.as_raw_fd(),
                self.start as i64,
                self.len as i64,
                libc::POSIX_FADV_DONTNEED,
            )
        };
        if error == 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

/// Passes everything on and remembers where the first read was: fatfs does not tell where things lie.
pub(super) struct Watched<M> {
    pub inner: M,
    pub first_read: Rc<Cell<Option<(u64, usize)>>>,
}

impl<M: Medium> Read for Watched<M> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let at = self.inner.stream_position()?;
        let n = self.inner.read(buf)?;
        if self.first_read.get().is_none() {
            self.first_read.set(Some((at, n)));
        }
        Ok(n)
    }
}

impl<M: Medium> Write for Watched<M> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.inner.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<M: Medium> Seek for Watched<M> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.inner.seek(pos)
    }
}

/// Lets fatfs use the medium for the time of one operation.
pub(super) struct Borrowed<'a, M> {
    medium: &'a mut M,
    /// How often fatfs may still read.
    reads: u64,
}

impl<'a, M: Medium> Borrowed<'a, M> {
    /// To format it.
    pub(super) fn empty(medium: &'a mut M) -> Self {
        Self {
            medium,
            reads: u64::MAX,
        }
    }

    /// To use the FAT32 on it, whose boot sector is looked at first: fatfs trusts its numbers. Damaged cluster chains
    /// may go round in circles, which fatfs follows for ever; a scan of all tables and directories reads less.
    pub(super) fn formatted(medium: &'a mut M) -> io::Result<Self> {
        let length = medium.seek(SeekFrom::End(0))?;
        medium.seek(SeekFrom::Start(0))?;
        let mut sector = [0; 512];
        medium.read_exact(&mut sector)?;
        if !is_sound(&sector, length) {
            return Err(io::Error::other(
                "its boot sector is not that of a sound FAT32; check it with fsck.vfat",
            ));
        }
        medium.seek(SeekFrom::Start(0))?;
        Ok(Self {
            medium,
            reads: (1 << 20) + length / 128,
        })
    }
}

/// Whether everything that the boot sector describes lies on a medium of `length` bytes (Microsoft's FAT
/// specification 1.03, "Boot Sector and BPB").
fn is_sound(sector: &[u8; 512], length: u64) -> bool {
    let le16 = |at: usize| u64::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
    let le32 = |at: usize| le16(at) | le16(at + 2) << 16;
    let (bytes, cluster) = (le16(11), u64::from(sector[13]));
    let (reserved, tables, sectors, table) = (le16(14), u64::from(sector[16]), le32(32), le32(36));
    let (root, info, backup) = (le32(44), le16(48), le16(50));
    let data = reserved + tables * table;
    let (is_32, power) = ([17, 19, 22].iter().all(|at| le16(*at) == 0), |n: u64| {
        n.is_power_of_two()
    });
    if !is_32
        || !(512..=4096).contains(&bytes)
        || !power(bytes)
        || !power(cluster)
        || data >= sectors
    {
        return false;
    }
    let clusters = (sectors - data) / cluster;
    (1..=2).contains(&tables)
        && sectors * bytes <= length
        && bytes * cluster <= 65536
        && info < reserved
        && backup < reserved
        && table * bytes / 4 >= clusters + 2
        && (2..clusters + 2).contains(&root)
}

impl<M: Medium> Read for Borrowed<'_, M> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reads = self.reads.checked_sub(1).ok_or_else(|| {
            io::Error::other("its cluster chains go round in circles; check it with fsck.vfat")
        })?;
        self.medium.read(buf)
    }
}
impl<M: Medium> Write for Borrowed<'_, M> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.medium.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.medium.flush()
    }
}
impl<M: Medium> Seek for Borrowed<'_, M> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.medium.seek(pos)
    }
}
impl<M: Medium> Medium for Borrowed<'_, M> {
    fn sync(&mut self) -> io::Result<()> {
        self.medium.sync()
    }
    fn forget(&mut self) -> io::Result<()> {
        self.medium.forget()
    }
}
