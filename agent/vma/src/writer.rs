//! Writes an archive to a pipe.

use std::io::{Read, Write};

use crate::extent::{self, ENTRIES, Entry};
use crate::header::Header;
use crate::reader::missing;
use crate::seen::{Seen, Unmarked};
use crate::{BLOCK, CLUSTER, Device, Error, Result, Totals, cluster_length};

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// An archive that is written once, in order. The clusters of its devices may come in any order.
///
/// ```
/// # fn give(pipe: impl std::io::Write, header: &vma::Header, image: impl std::io::Read) -> vma::Result<()> {
/// let mut archive = vma::Writer::new(pipe, header)?;
/// archive.image(1, image)?;
/// // Without this, the archive is cut off.
/// archive.finish()?;
/// # Ok(())
/// # }
/// ```
pub struct Writer<W> {
    output: W,
    header: Header,
    /// By number: where a device is in the header, and what was written of it.
    devices: Vec<Option<(usize, Seen)>>,
    /// The extent that is being filled: room for its header, then blocks.
    extent: Vec<u8>,
    entries: Vec<Entry>,
    usable: bool,
    totals: Totals,
}

impl<W: Write> Writer<W> {
    /// Writes the header; what it has is checked as by a reader.
    pub fn new(output: W, header: &Header) -> Result<Self> {
        let bytes = header.encode()?;
        let mut devices: Vec<_> = std::iter::repeat_with(|| None).take(256).collect();
        for (at, device) in header.devices.iter().enumerate() {
            devices[usize::from(device.id)] = Some((at, Seen::new(device.size)));
        }
        let mut writer = Writer {
            output,
            header: header.clone(),
            devices,
            extent: vec![0; extent::HEADER],
            entries: Vec::with_capacity(ENTRIES),
            usable: true,
            totals: Totals::default(),
        };
        writer.put(&bytes)?;
        Ok(writer)
    }

    /// How many bytes of the archive were written.
    pub fn position(&self) -> u64 {
        self.totals.bytes
    }

    /// Writes a part of a device: whole clusters, of which the last one of the device may be shorter. Blocks of zeroes
    /// are found, and left out of the archive.
    pub fn data(&mut self, device: u8, offset: u64, data: &[u8]) -> Result<()> {
        self.check_part(device, offset, data.len() as u64)?;
        for (n, cluster) in data.chunks(CLUSTER).enumerate() {
            self.cluster(device, offset + (n * CLUSTER) as u64, cluster)?;
        }
        Ok(())
    }

    /// The same for a part that is all zeroes.
    pub fn zeros(&mut self, device: u8, offset: u64, length: u64) -> Result<()> {
        self.check_part(device, offset, length)?;
        for n in 0..length.div_ceil(CLUSTER as u64) {
            self.cluster(device, offset + n * CLUSTER as u64, &[])?;
        }
        Ok(())
    }

    /// Writes a whole device from its beginning to its end, where `image` must end, too.
    pub fn image(&mut self, device: u8, mut image: impl Read) -> Result<()> {
        let Device { name, size, .. } = self.known(device, 0)?.clone();
        let mut buffer = vec![0; CLUSTER];
        let mut offset = 0;
        let failed = |offset, source| Error::Image {
            device: name,
            offset,
            source,
        };
        while offset < size {
            let cluster = &mut buffer[..cluster_length(size, offset)];
            match image.read_exact(cluster) {
                Ok(()) => self.cluster(device, offset, cluster)?,
                Err(source) => return Err(failed(offset, source)),
            }
            offset += cluster.len() as u64;
        }
        let mut more = image.take(1);
        match std::io::copy(&mut more, &mut std::io::sink()) {
            Ok(0) => Ok(()),
            Ok(_) => Err(refused(device, size, "the image is longer than the device")),
            Err(source) => Err(failed(size, source)),
        }
    }

    /// Writes the last extent, when each cluster of each device was written.
    pub fn finish(mut self) -> Result<(W, Totals)> {
        if !self.usable {
            return Err(Error::Unusable(self.totals.bytes));
        }
        for (at, seen) in self.devices.iter().flatten() {
            if let Some(first) = seen.first_missing() {
                let device = &self.header.devices[*at];
                return Err(missing(device, seen, first, self.totals.bytes));
            }
        }
        // An archive without disks has an empty one.
        if !self.entries.is_empty() || self.totals.extents == 0 {
            self.flush()?;
        }
        let flushed = self.output.flush();
        flushed.map_err(|source| self.failed(source))?;
        Ok((self.output, self.totals))
    }

    /// Is this a part of the device that consists of clusters?
    fn check_part(&self, device: u8, offset: u64, length: u64) -> Result<()> {
        let size = self.known(device, offset)?.size;
        let Some(end) = offset.checked_add(length).filter(|end| *end <= size) else {
            return Err(refused(device, offset, "the device ends before that"));
        };
        let whole = |at| at % CLUSTER as u64 == 0;
        if !whole(offset) || !(whole(end) || end == size) {
            return Err(refused(device, offset, "that is no part of whole clusters"));
        }
        Ok(())
    }

    /// Adds a cluster; an empty `data` stands for zeroes.
    fn cluster(&mut self, id: u8, offset: u64, data: &[u8]) -> Result<()> {
        if !self.usable {
            return Err(Error::Unusable(self.totals.bytes));
        }
        let cluster = u32::try_from(offset / CLUSTER as u64);
        let seen = self.devices[usize::from(id)].as_mut();
        let (Ok(cluster), Some((_, seen))) = (cluster, seen) else {
            return Err(refused(id, offset, "there is no such cluster"));
        };
        seen.mark(cluster).map_err(|unmarked| {
            let reason = match unmarked {
                Unmarked::OutOfRange => "the device ends before that",
                Unmarked::Twice => "that cluster was written before",
            };
            refused(id, offset, reason)
        })?;
        let mut mask = 0u16;
        for (n, block) in data.chunks(BLOCK).enumerate() {
            if *block != ZEROS[..block.len()] {
                mask |= 1 << n;
                self.extent.extend_from_slice(block);
                // The last block of a device.
                let filled = self.extent.len() + BLOCK - block.len();
                self.extent.resize(filled, 0);
            }
        }
        self.totals.clusters += 1;
        self.totals.blocks += u64::from(mask.count_ones());
        self.entries.push(Entry {
            number: self.entries.len(),
            device: id,
            cluster,
            mask,
        });
        if self.entries.len() == ENTRIES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the extent.
    fn flush(&mut self) -> Result<()> {
        let header = extent::encode(&self.entries, self.header.uuid);
        let mut extent = std::mem::take(&mut self.extent);
        extent[..extent::HEADER].copy_from_slice(&header);
        self.put(&extent)?;
        extent.truncate(extent::HEADER);
        self.extent = extent;
        self.entries.clear();
        self.totals.extents += 1;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.output.write_all(bytes);
        written.map_err(|source| self.failed(source))?;
        self.totals.bytes += bytes.len() as u64;
        Ok(())
    }

    fn failed(&mut self, source: std::io::Error) -> Error {
        self.usable = false;
        Error::Write {
            offset: self.totals.bytes,
            source,
        }
    }

    fn known(&self, id: u8, offset: u64) -> Result<&Device> {
        let known = self.devices[usize::from(id)].as_ref();
        known
            .and_then(|(at, _)| self.header.devices.get(*at))
            .ok_or_else(|| refused(id, offset, "the header has no such device"))
    }
}

fn refused(device: u8, offset: u64, reason: &'static str) -> Error {
    Error::Refused {
        device,
        offset,
        reason,
    }
}
