//! Reads an archive from a pipe.

use std::io::{self, BufRead, BufReader, Read};

use crate::extent::{self, Entry};
use crate::header::{self, Header};
use crate::seen::{Seen, Unmarked};
use crate::{BLOCK, CLUSTER, Device, Error, ExtentFault, Part, Result, cluster_length};

const BLOCKS: usize = CLUSTER / BLOCK;
/// Runs of blocks can be as short as a block: less calls of the system.
const READ_AHEAD: usize = 256 * 1024;

/// An archive that is read once, in order.
///
/// ```
/// # fn keep(_: &vma::Header) {}
/// # fn store(_: &str, _: u64, _: &[u8]) {}
/// # fn take(pipe: impl std::io::Read) -> vma::Result<()> {
/// let mut archive = vma::Reader::new(pipe)?;
/// keep(archive.header());
/// while let Some(cluster) = archive.next_cluster()? {
///     for piece in cluster.pieces() {
///         if let vma::Content::Data(data) = piece.content {
///             store(&piece.device.name, piece.offset, data);
///         }
///     }
/// }
/// // Only now is it known that each cluster of each device came, and came once.
/// archive.finish()?;
/// # Ok(())
/// # }
/// ```
pub struct Reader<R> {
    input: Input<R>,
    header: Header,
    /// By number: where a device is in the header, and what was seen of it.
    devices: Vec<Option<(usize, Seen)>>,
    /// The clusters of the current extent, and how many of them were given out.
    entries: Vec<Entry>,
    given: usize,
    /// The current cluster, and which of its blocks are not zeroes.
    cluster: Box<[u8; CLUSTER]>,
    dirty: u16,
    state: State,
    totals: Totals,
}

#[derive(PartialEq, Eq)]
enum State {
    Reading,
    AtEnd,
    Failed,
}

/// What an archive consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Its length.
    pub bytes: u64,
    /// How many extents it has.
    pub extents: u64,
    /// How many clusters, those of zeroes with them.
    pub clusters: u64,
    /// How many blocks of 4 KiB are stored.
    pub blocks: u64,
    /// How many of them lie wholly behind the end of their device, and were left out. QEMU hands whole clusters over, so
    /// anything may be there.
    pub blocks_behind_end: u64,
}

/// 64 KiB of a device; the last one may be shorter.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    /// Whose it is.
    pub device: &'a Device,
    /// Where it is on the device: a multiple of [`CLUSTER`].
    pub offset: u64,
    /// What is in it, zeroes with it.
    pub bytes: &'a [u8],
    mask: u16,
}

/// Consecutive blocks of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Whose they are.
    pub device: &'a Device,
    /// Where they are on the device: a multiple of [`BLOCK`].
    pub offset: u64,
    /// What they are.
    pub content: Content<'a>,
}

/// What the archive has of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// These bytes.
    Data(&'a [u8]),
    /// Nothing: so many zeroes.
    Zeros(usize),
}

impl<R: Read> Reader<R> {
    /// Reads and checks the header.
    pub fn new(input: R) -> Result<Self> {
        let mut input = Input {
            inner: BufReader::with_capacity(READ_AHEAD, input),
            position: 0,
        };
        let mut fixed = Box::new([0; header::FIXED]);
        let got = input.fill(&mut fixed[..])?;
        if got < fixed.len() && header::begins_well(&fixed[..got]) {
            return Err(input.cut_off(Part::Header));
        }
        let size = header::size(&fixed)?;
        let mut bytes = fixed.to_vec();
        bytes.resize(size, 0);
        input.fill_all(&mut bytes[header::FIXED..], Part::Header)?;
        let header = Header::decode(&bytes)?;
        let mut devices: Vec<_> = std::iter::repeat_with(|| None).take(256).collect();
        for (at, device) in header.devices.iter().enumerate() {
            devices[usize::from(device.id)] = Some((at, Seen::new(device.size)));
        }
        Ok(Reader {
            input,
            header,
            devices,
            entries: Vec::new(),
            given: 0,
            cluster: Box::new([0; CLUSTER]),
            dirty: 0,
            state: State::Reading,
            totals: Totals::default(),
        })
    }

    /// What the archive says about itself, its small files and its devices.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes of the archive were read.
    pub fn position(&self) -> u64 {
        self.input.position
    }

    /// The next cluster of any device; `None` when all of all devices were given out, and the archive ends there.
    pub fn next_cluster(&mut self) -> Result<Option<Cluster<'_>>> {
        match self.state {
            State::Reading => {}
            State::AtEnd => return Ok(None),
            State::Failed => return Err(Error::Unusable(self.input.position)),
        }
        // It stays so if any of this fails.
        self.state = State::Failed;
        while self.given == self.entries.len() {
            if !self.next_extent()? {
                self.state = State::AtEnd;
                return Ok(None);
            }
        }
        let entry = self.entries[self.given];
        self.given += 1;
        let known = self.devices[usize::from(entry.device)].as_ref();
        let device = known.and_then(|(at, _)| self.header.devices.get(*at));
        let Some(device) = device else {
            return Err(Error::Unusable(self.input.position));
        };
        let offset = u64::from(entry.cluster) * CLUSTER as u64;
        let length = cluster_length(device.size, offset);
        for (start, end, stored) in runs(entry.mask) {
            let run = &mut self.cluster[start * BLOCK..end * BLOCK];
            if stored {
                self.input.fill_all(run, Part::Blocks)?;
            } else if (start..end).any(|block| self.dirty & 1 << block != 0) {
                run.fill(0);
            }
        }
        self.dirty = entry.mask;
        self.totals.clusters += 1;
        let within = length.div_ceil(BLOCK);
        let behind = (within..BLOCKS).filter(|block| entry.mask & 1 << block != 0);
        self.totals.blocks_behind_end += behind.count() as u64;
        self.state = State::Reading;
        Ok(Some(Cluster {
            device,
            offset,
            bytes: &self.cluster[..length],
            mask: entry.mask,
        }))
    }

    /// Proves that the archive was read to its end, and is complete: each cluster of each device was given out once.
    pub fn finish(self) -> Result<Totals> {
        match self.state {
            State::AtEnd => Ok(Totals {
                bytes: self.input.position,
                ..self.totals
            }),
            State::Reading => Err(Error::NotAtEnd(self.input.position)),
            State::Failed => Err(Error::Unusable(self.input.position)),
        }
    }

    /// Reads the header of an extent and checks it against all before it; `false` at the end of the archive, which is
    /// checked, too.
    fn next_extent(&mut self) -> Result<bool> {
        let offset = self.input.position;
        if self.input.at_end()? {
            // The writer of Proxmox VE ends every archive with one, if it is empty.
            if self.totals.extents == 0 {
                return Err(self.input.cut_off(Part::FirstExtent));
            }
            return self.all_seen().map(|()| false);
        }
        let mut bytes = [0; extent::HEADER];
        self.input.fill_all(&mut bytes, Part::ExtentHeader)?;
        let checked = extent::decode(&bytes, self.header.uuid).and_then(|entries| {
            entries.iter().try_for_each(|entry| self.mark(entry))?;
            Ok(entries)
        });
        self.entries = checked.map_err(|fault| Error::Extent { offset, fault })?;
        self.given = 0;
        self.totals.extents += 1;
        let blocks = self.entries.iter().map(|e| u64::from(e.mask.count_ones()));
        self.totals.blocks += blocks.sum::<u64>();
        Ok(true)
    }

    fn mark(&mut self, entry: &Entry) -> Result<(), ExtentFault> {
        let number = entry.number;
        let known = self.devices[usize::from(entry.device)].as_mut();
        let Some((at, seen)) = known else {
            return Err(ExtentFault::UnknownDevice {
                entry: number,
                device: entry.device,
            });
        };
        seen.mark(entry.cluster).map_err(|unmarked| {
            let device = self.header.devices[*at].name.clone();
            match unmarked {
                Unmarked::OutOfRange => ExtentFault::OutOfRange {
                    entry: number,
                    device,
                    cluster: entry.cluster,
                    clusters: seen.clusters(),
                },
                Unmarked::Twice => ExtentFault::Twice {
                    entry: number,
                    device,
                    cluster: entry.cluster,
                    at: u64::from(entry.cluster) * CLUSTER as u64,
                },
            }
        })
    }

    fn all_seen(&self) -> Result<()> {
        for (at, seen) in self.devices.iter().flatten() {
            if let Some(first) = seen.first_missing() {
                return Err(missing(
                    &self.header.devices[*at],
                    seen,
                    first,
                    self.input.position,
                ));
            }
        }
        Ok(())
    }
}

/// The error for a device of which not all came.
pub(crate) fn missing(device: &Device, seen: &Seen, first: u64, offset: u64) -> Error {
    Error::Missing {
        device: device.name.clone(),
        missing: seen.missing(),
        clusters: seen.clusters(),
        first: first * CLUSTER as u64,
        offset,
    }
}

impl<'a> Cluster<'a> {
    /// Does the archive have nothing of it, as it is all zeroes?
    pub fn is_zeros(&self) -> bool {
        self.mask == 0
    }

    /// Its runs of stored and of left out blocks, in order and without a gap.
    pub fn pieces(self) -> impl Iterator<Item = Piece<'a>> {
        runs(self.mask).filter_map(move |(start, end, stored)| {
            let (start, end) = (start * BLOCK, (end * BLOCK).min(self.bytes.len()));
            // Behind the end of the device.
            let bytes = self.bytes.get(start..end).filter(|b| !b.is_empty())?;
            Some(Piece {
                device: self.device,
                offset: self.offset + start as u64,
                content: if stored {
                    Content::Data(bytes)
                } else {
                    Content::Zeros(bytes.len())
                },
            })
        })
    }
}

/// The runs of equal bits of a mask: first block, block behind the last one, and whether they are stored.
fn runs(mask: u16) -> impl Iterator<Item = (usize, usize, bool)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start >= BLOCKS {
            return None;
        }
        let rest = mask >> start;
        let stored = rest & 1 != 0;
        let length = if stored {
            rest.trailing_ones()
        } else {
            rest.trailing_zeros()
        };
        let end = (start + length as usize).min(BLOCKS);
        let run = (start, end, stored);
        start = end;
        Some(run)
    })
}

/// What is read, and how far it was read.
struct Input<R> {
    inner: BufReader<R>,
    position: u64,
}

impl<R: Read> Input<R> {
    /// Reads until `buffer` is full, or to the end.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut got = 0;
        while got < buffer.len() {
            match self.inner.read(&mut buffer[got..]) {
                Ok(0) => break,
                Ok(n) => {
                    got += n;
                    self.position += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        Ok(got)
    }

    /// Reads until `buffer` is full.
    fn fill_all(&mut self, buffer: &mut [u8], within: Part) -> Result<()> {
        if self.fill(buffer)? < buffer.len() {
            return Err(self.cut_off(within));
        }
        Ok(())
    }

    fn at_end(&mut self) -> Result<bool> {
        loop {
            match self.inner.fill_buf() {
                Ok(rest) => return Ok(rest.is_empty()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Read {
            offset: self.position,
            source,
        }
    }

    fn cut_off(&self, within: Part) -> Error {
        Error::CutOff {
            offset: self.position,
            within,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_every_mask() {
        for mask in 0..=u16::MAX {
            let (mut next, mut again, mut before) = (0, 0u16, None);
            for (start, end, stored) in runs(mask) {
                assert_eq!(start, next);
                assert!(end > start && before != Some(stored));
                (next, before) = (end, Some(stored));
                (start..end).for_each(|block| again |= u16::from(stored) << block);
            }
            assert_eq!((next, again), (BLOCKS, mask));
        }
    }
}
