//! A medium in memory, for tests and fuzz targets.
#![allow(clippy::unwrap_used, reason = "a failing test is to panic")]

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::Medium;

/// Memory that remembers the order of writes.
#[derive(Default)]
pub(crate) struct Recorder {
    pub bytes: Vec<u8>,
    pub at: u64,
    pub writes: Vec<(u64, Vec<u8>)>,
    pub recording: bool,
}

impl Recorder {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            bytes: vec![0; size],
            ..Self::default()
        }
    }
}

impl Read for Recorder {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (&self.bytes[self.at as usize..]).read(buf)?;
        self.at += n as u64;
        Ok(n)
    }
}
impl Write for Recorder {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let at = self.at as usize;
        self.bytes[at..at + buf.len()].copy_from_slice(buf);
        if self.recording {
            self.writes.push((self.at, buf.to_vec()));
        }
        self.at += buf.len() as u64;
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl Seek for Recorder {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.at = match pos {
            SeekFrom::Start(n) => n,
            SeekFrom::Current(n) => self.at.checked_add_signed(n).unwrap(),
            SeekFrom::End(n) => (self.bytes.len() as u64).checked_add_signed(n).unwrap(),
        };
        Ok(self.at)
    }
}
impl Medium for Recorder {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn forget(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl Medium for &mut Recorder {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn forget(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The smallest FAT32.
pub(crate) const SMALL: usize = 36 << 20;
