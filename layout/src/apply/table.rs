//! What the two kinds of partition tables have in common when they are written: rehearse, write, read back, and leave
//! the disk without a table when something went wrong.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use gpt::DiskDevice;

use super::disk::{drop_cache, reread_partitions, zero_edges};
use super::{Executor, Outcome, StepError, io_error};
use crate::plan::PlannedPartition;
use crate::system::{Cmd, ReadSeek};

/// A partition table that can be written to a disk.
pub(crate) trait DiskTable {
    /// Writes it; until the last write the disk is plainly without a table.
    fn write(&self, device: &mut dyn DiskDevice) -> Result<(), String>;
    /// Compares what is on the device with what is planned.
    fn check(&self, device: &mut dyn ReadSeek) -> Result<(), String>;
    /// The partitions that hold something themselves.
    fn with_contents(&self) -> Vec<&PlannedPartition>;
    /// Bytes of the disk.
    fn size(&self) -> u64;

    /// Writes it to memory and reads it back.
    fn rehearse(&self) -> Result<(), String> {
        let mut rehearsal = Sparse::new(self.size());
        self.write(&mut rehearsal)?;
        let mut parts = self.with_contents();
        parts.sort_by_key(|part| part.start);
        for (one, next) in parts.iter().zip(parts.iter().skip(1)) {
            if next.start <= one.end {
                return Err(format!(
                    "partitions {} and {} overlap",
                    one.number, next.number
                ));
            }
        }
        self.check(&mut rehearsal)
    }
}

/// A device in memory that keeps written blocks only.
#[derive(Debug)]
pub(super) struct Sparse {
    size: u64,
    at: u64,
    blocks: BTreeMap<u64, [u8; 512]>,
}

impl Sparse {
    pub(super) fn new(size: u64) -> Sparse {
        Sparse {
            size,
            at: 0,
            blocks: BTreeMap::new(),
        }
    }

    /// How many blocks were written.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The part of `length` bytes from the current place that lies within one block: block, offset, length.
    fn piece(&self, length: usize) -> (u64, usize, usize) {
        let offset = (self.at % 512) as usize;
        let left = self.size.saturating_sub(self.at).min(length as u64) as usize;
        (self.at / 512, offset, left.min(512 - offset))
    }
}

impl Read for Sparse {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (block, offset, length) = self.piece(buf.len());
        match self.blocks.get(&block) {
            Some(data) => buf[..length].copy_from_slice(&data[offset..offset + length]),
            None => buf[..length].fill(0),
        }
        self.at += length as u64;
        Ok(length)
    }
}

impl Write for Sparse {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let (block, offset, length) = self.piece(buf.len());
        self.blocks.entry(block).or_insert([0; 512])[offset..offset + length]
            .copy_from_slice(&buf[..length]);
        self.at += length as u64;
        Ok(length)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

impl Executor<'_> {
    pub(super) fn write_table(
        &mut self,
        device: &Path,
        table: &dyn DiskTable,
    ) -> Result<Outcome, StepError> {
        let bad = |reason: String| {
            StepError::Verify(format!("partition table of {}: {reason}", device.display()))
        };
        table.rehearse().map_err(bad)?;

        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(device)
            .map_err(io_error("cannot open for writing", device))?;
        let written = table.write(&mut file).map_err(bad).and_then(|()| {
            file.sync_all().map_err(io_error("cannot write", device))?;
            drop(file);
            drop_cache(device)?;
            table.check(self.sys.open(device)?.as_mut()).map_err(bad)
        });
        if let Err(error) = written {
            // Plainly unusable rather than half right.
            if let Err(second) = zero_edges(device) {
                self.events.note(&format!("after a failed write: {second}"));
            }
            return Err(error);
        }
        reread_partitions(device)?;
        for part in table.with_contents() {
            self.wait_for(&part.device)?;
            // What an earlier use of the disk left at these places must not come back to life.
            self.sys.run(
                &Cmd::new("wipefs")
                    .args(["-a", "-f", "-q"])
                    .path(&part.device),
            )?;
            zero_edges(&part.device)?;
        }
        self.settle()?;
        Ok(Outcome::Done)
    }
}
