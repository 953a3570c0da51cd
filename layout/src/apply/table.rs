//! What the two kinds of partition tables have in common when they are written: rehearse, write, read back, and leave
//! the disk without a table when something went wrong.

use std::fs::{File, OpenOptions};
use std::path::Path;

use super::disk::{drop_cache, reread_partitions, zero_edges};
use super::{Executor, Outcome, StepError, io_error};
use crate::plan::PlannedPartition;
use crate::system::{Cmd, ReadSeek};

/// A partition table that can be written to a disk.
pub(super) trait DiskTable {
    /// Writes it to memory and reads it back.
    fn rehearse(&self) -> Result<(), String>;
    /// Writes it; until the last write the disk is plainly without a table.
    fn write_to(&self, disk: &mut File) -> Result<(), String>;
    /// Compares what is on the disk with what is planned.
    fn check(&self, disk: &mut dyn ReadSeek) -> Result<(), String>;
    /// The partitions that hold something themselves.
    fn with_contents(&self) -> Vec<&PlannedPartition>;
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
        let written = table.write_to(&mut file).map_err(bad).and_then(|()| {
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
