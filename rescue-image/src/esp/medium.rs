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
pub(super) struct Borrowed<'a, M>(pub &'a mut M);

impl<M: Medium> Read for Borrowed<'_, M> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}
impl<M: Medium> Write for Borrowed<'_, M> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
impl<M: Medium> Seek for Borrowed<'_, M> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.0.seek(pos)
    }
}
impl<M: Medium> Medium for Borrowed<'_, M> {
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
    fn forget(&mut self) -> io::Result<()> {
        self.0.forget()
    }
}
