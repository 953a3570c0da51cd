//! Block devices that come as clusters in any order, each once: the disks of a VM in the stream of its dump.
//!
//! Blobs are cut by place, not by content: a disk has no insertions, and what did not change since the last dump lies
//! where it lay, whatever order the clusters come in. The content list is cut by place, too, and each part is stored as
//! soon as its last cluster has come, so that little of a large disk is in memory.

use std::collections::HashMap;
use std::ops::Range;

use super::Backup;
use super::chunks::{is_zero, push_hole};
use super::sink::Sink;
use crate::content::{self, Piece};
use crate::document::Image;
use crate::events::Events;
use crate::format::Kind;
use crate::{Error, Id, Result};

/// What comes at once; the last one of a device may be shorter.
pub const CLUSTER: usize = 64 << 10;
/// A device has at most so many blobs, as the store's index keeps each in memory: from 256 GiB on they are larger than a
/// cluster.
const MAX_BLOBS: u64 = 1 << 22;
/// And blobs have at most so many clusters: 4 MiB.
const MAX_GROUP: u64 = 64;
/// Blobs of a part of the content list.
const PART: usize = 8192;
/// Bytes of blobs of which clusters are still missing. Beyond it, the oldest ones are stored cluster by cluster.
const WAITING: usize = 64 << 20;
/// So many clusters of a device are stored on their own, which the next dump of it finds again. Beyond it, neighbours are
/// one blob: where a guest writes all over a disk of some TiB, the list would be longer than readers take.
const APART: u64 = 1 << 22;

/// Devices that are being stored, see [`Backup::devices`].
pub struct Devices<'b> {
    sink: &'b Sink,
    events: &'b dyn Events,
    read: &'b mut u64,
    devices: Vec<Device>,
    /// Clusters of a blob's size that are not complete: by device and number of the blob.
    waiting: HashMap<(usize, u64), Waiting>,
    waiting_bytes: usize,
    /// In the order in which they began.
    clock: u64,
    most_waiting: usize,
    most_apart: u64,
}

struct Device {
    node: String,
    size: u64,
    /// Clusters of a blob.
    group: u64,
    parts: Vec<Part>,
    /// Clusters that are stored on their own.
    apart: u64,
    /// Of its content lists so far.
    cost: usize,
}

enum Part {
    Open {
        /// By number in the part.
        blobs: HashMap<u32, Stored>,
        clusters: u64,
    },
    Closed(Id),
}

enum Stored {
    Hole,
    Blob(Id),
    /// Its clusters on their own, or some together, in the order in which they were stored.
    Runs(Vec<Run>),
}

/// Clusters that follow each other in a blob of their own.
#[derive(Clone, Copy)]
struct Run {
    /// By number in the blob that they would all be.
    start: u8,
    clusters: u8,
    what: Cluster,
}

impl Run {
    fn has(&self, number: usize) -> bool {
        (usize::from(self.start)..usize::from(self.start) + usize::from(self.clusters))
            .contains(&number)
    }
}

#[derive(Clone, Copy)]
enum Cluster {
    Hole,
    Blob(Id),
}

impl From<Cluster> for Stored {
    fn from(cluster: Cluster) -> Stored {
        match cluster {
            Cluster::Hole => Stored::Hole,
            Cluster::Blob(id) => Stored::Blob(id),
        }
    }
}

struct Waiting {
    began: u64,
    bytes: Vec<u8>,
    come: Vec<bool>,
    /// How many have not come; those that are stored have.
    missing: usize,
}

impl Device {
    fn blob_bytes(&self) -> u64 {
        self.group * CLUSTER as u64
    }

    fn part_bytes(&self) -> u64 {
        self.blob_bytes() * PART as u64
    }

    /// Bytes of a blob: the last one may be shorter.
    fn length(&self, blob: u64) -> u64 {
        (self.size - blob * self.blob_bytes()).min(self.blob_bytes())
    }

    fn size_of_part(&self, part: usize) -> u64 {
        (self.size - part as u64 * self.part_bytes()).min(self.part_bytes())
    }
}

impl<'e> Backup<'e> {
    /// Stores devices of which clusters come in any order; names and sizes in bytes.
    pub fn devices(&mut self, devices: &[(String, u64)]) -> Result<Devices<'_>> {
        let sink = self
            .sink
            .as_ref()
            .ok_or(Error::Internal("the backup has ended"))?;
        let total = devices
            .iter()
            .map(|(_, size)| *size)
            .fold(0, u64::saturating_add);
        self.events.phase("disks", Some(total));
        let devices = devices.iter().map(|(node, size)| {
            let mut group = 1;
            while group < MAX_GROUP && size.div_ceil(group * CLUSTER as u64) > MAX_BLOBS {
                group *= 2;
            }
            let mut device = Device {
                node: node.clone(),
                size: *size,
                group,
                parts: Vec::new(),
                apart: 0,
                cost: 0,
            };
            let parts = size.div_ceil(device.part_bytes());
            let list = content::cost(usize::try_from(parts).unwrap_or(usize::MAX));
            let pieces = parts.saturating_mul(PART as u64);
            let pieces = usize::try_from(pieces).unwrap_or(usize::MAX);
            if content::affordable(list.saturating_add(pieces)).is_err() {
                let reason = format!("{size} bytes are more than a content list can hold");
                return Err(Error::malformed(format!("the device {node}"), reason));
            }
            device.cost = list;
            device.parts.resize_with(parts as usize, || Part::Open {
                blobs: HashMap::new(),
                clusters: 0,
            });
            Ok(device)
        });
        Ok(Devices {
            devices: devices.collect::<Result<_>>()?,
            sink,
            events: self.events,
            read: &mut self.stats.bytes_read,
            waiting: HashMap::new(),
            waiting_bytes: 0,
            clock: 0,
            most_waiting: WAITING,
            most_apart: APART,
        })
    }
}

impl Devices<'_> {
    /// Stores a cluster: all of the [`CLUSTER`] bytes at `offset`, a multiple of it, of device number `device`, or what
    /// of them is before its end. Nothing else: each must come once, which is checked.
    pub fn cluster(&mut self, device: usize, offset: u64, data: &[u8]) -> Result<()> {
        if self.events.cancelled() {
            return Err(Error::Cancelled);
        }
        let at = self.devices.get(device);
        let at = at.ok_or(Error::Internal("a cluster of a device that was not named"))?;
        let length = at.size.saturating_sub(offset).min(CLUSTER as u64);
        if offset % CLUSTER as u64 != 0 || length == 0 || data.len() as u64 != length {
            return Err(Error::Internal("a cluster that is none of its device"));
        }
        self.sink.reading(length, self.events);
        *self.read += length;
        self.events.bytes(length);
        let (group, blob) = (at.group, offset / at.blob_bytes());
        if group == 1 {
            let stored = self.put(data)?.into();
            return self.keep(device, blob, stored, 1);
        }
        self.gather(
            device,
            blob,
            (offset / CLUSTER as u64 % group) as usize,
            data,
        )
    }

    /// The devices, when every cluster has come.
    pub fn finish(self) -> Result<Vec<Image>> {
        let sink = self.sink;
        let image = |device: Device| {
            let mut pieces = Vec::with_capacity(device.parts.len());
            for (number, part) in device.parts.iter().enumerate() {
                let Part::Closed(id) = part else {
                    return Err(Error::Internal("clusters of a device have not come"));
                };
                let size = device.size_of_part(number);
                pieces.push(Piece::List { id: *id, size });
            }
            let content = match pieces.as_slice() {
                [Piece::List { id, .. }] => *id,
                lists => {
                    content::write(lists, &mut |mut json| sink.put(Kind::Content, &mut json))?.0
                }
            };
            Ok(Image {
                node: device.node,
                size: device.size,
                content,
                error: None,
            })
        };
        self.devices.into_iter().map(image).collect()
    }

    fn put(&self, data: &[u8]) -> Result<Cluster> {
        if is_zero(data) {
            return Ok(Cluster::Hole);
        }
        Ok(Cluster::Blob(self.sink.put_slice(Kind::Chunk, data)?))
    }

    /// Adds a cluster to the blob that it belongs to, and stores that when it is complete.
    fn gather(&mut self, device: usize, blob: u64, number: usize, data: &[u8]) -> Result<()> {
        if self.is_kept(device, blob, number) {
            return Err(Error::Internal("a cluster of a device has come twice"));
        }
        let at = &self.devices[device];
        let (most, together) = (at.length(blob) as usize, at.apart >= self.most_apart);
        let clusters = most.div_ceil(CLUSTER);
        let stored = match self.stored(device, blob) {
            Some(Stored::Runs(runs)) => runs.iter().map(|r| usize::from(r.clusters)).sum(),
            _ => 0,
        };
        if stored > 0 && !together && !self.waiting.contains_key(&(device, blob)) {
            let what = self.put(data)?;
            return self.keep_run(device, blob, number..number + 1, what);
        }
        if !self.waiting.contains_key(&(device, blob)) {
            self.waiting_bytes += most;
            self.clock += 1;
        }
        let began = self.clock;
        let waiting = self.waiting.entry((device, blob));
        let waiting = waiting.or_insert_with(|| Waiting {
            began,
            bytes: vec![0; most],
            come: vec![false; clusters],
            missing: clusters - stored,
        });
        let start = number * CLUSTER;
        waiting.bytes[start..start + data.len()].copy_from_slice(data);
        waiting.come[number] = true;
        waiting.missing -= 1;
        if waiting.missing == 0 {
            if stored > 0 {
                return self.split(device, blob);
            }
            let Some(done) = self.take(device, blob) else {
                return Ok(());
            };
            let stored = self.put(&done.bytes)?.into();
            return self.keep(device, blob, stored, clusters as u64);
        }
        while self.waiting_bytes > self.most_waiting {
            let oldest = self.waiting.iter().min_by_key(|(_, w)| w.began);
            let Some((&(device, blob), _)) = oldest else {
                break;
            };
            self.split(device, blob)?;
        }
        Ok(())
    }

    fn take(&mut self, device: usize, blob: u64) -> Option<Waiting> {
        let taken = self.waiting.remove(&(device, blob))?;
        self.waiting_bytes -= taken.bytes.len();
        Some(taken)
    }

    /// Stores what has come of a blob, and what is still to come will be, too, on its own: cluster by cluster, or as many
    /// together as follow each other.
    fn split(&mut self, device: usize, blob: u64) -> Result<()> {
        let Some(Waiting { bytes, come, .. }) = self.take(device, blob) else {
            return Ok(());
        };
        if self.stored(device, blob).is_none() {
            self.keep(device, blob, Stored::Runs(Vec::new()), 0)?;
        }
        let together = self.devices[device].apart >= self.most_apart;
        let bytes_of = |run: &Range<usize>| {
            let end = (run.end * CLUSTER).min(bytes.len());
            &bytes[run.start * CLUSTER..end]
        };
        let mut next = 0;
        while next < come.len() {
            let mut run = next..next + 1;
            next += 1;
            if !come[run.start] {
                continue;
            }
            let zero = is_zero(bytes_of(&run));
            while together
                && come.get(next) == Some(&true)
                && is_zero(bytes_of(&(next..next + 1))) == zero
            {
                next += 1;
                run.end = next;
            }
            let what = self.put(bytes_of(&run))?;
            self.keep_run(device, blob, run, what)?;
        }
        Ok(())
    }

    fn stored(&mut self, device: usize, blob: u64) -> Option<&mut Stored> {
        match &mut self.devices[device].parts[(blob / PART as u64) as usize] {
            Part::Open { blobs, .. } => blobs.get_mut(&((blob % PART as u64) as u32)),
            Part::Closed(_) => None,
        }
    }

    /// Has this cluster come already?
    fn is_kept(&mut self, device: usize, blob: u64, number: usize) -> bool {
        let part = &self.devices[device].parts[(blob / PART as u64) as usize];
        if matches!(part, Part::Closed(_)) {
            return true;
        }
        let waits = self.waiting.get(&(device, blob));
        if waits.is_some_and(|w| w.come[number]) {
            return true;
        }
        match self.stored(device, blob) {
            Some(Stored::Runs(runs)) => runs.iter().any(|run| run.has(number)),
            stored => stored.is_some(),
        }
    }

    fn keep_run(
        &mut self,
        device: usize,
        blob: u64,
        numbers: Range<usize>,
        what: Cluster,
    ) -> Result<()> {
        let clusters = numbers.len();
        if let Some(Stored::Runs(runs)) = self.stored(device, blob) {
            // Of at most `MAX_GROUP`.
            let (start, clusters) = (numbers.start as u8, clusters as u8);
            runs.push(Run {
                start,
                clusters,
                what,
            });
        }
        if let Cluster::Blob(_) = what {
            self.devices[device].apart += 1;
        }
        self.count(device, blob, clusters as u64)
    }

    /// Notes where a blob is, of which so many clusters are new.
    fn keep(&mut self, device: usize, blob: u64, stored: Stored, clusters: u64) -> Result<()> {
        let number = (blob % PART as u64) as u32;
        let twice = match &mut self.devices[device].parts[(blob / PART as u64) as usize] {
            Part::Open { blobs, .. } => blobs.insert(number, stored).is_some(),
            Part::Closed(_) => true,
        };
        if twice {
            return Err(Error::Internal("a cluster of a device has come twice"));
        }
        self.count(device, blob, clusters)
    }

    /// Counts clusters of a part, and stores its list when there are all.
    fn count(&mut self, device: usize, blob: u64, new: u64) -> Result<()> {
        let number = (blob / PART as u64) as usize;
        let device = &mut self.devices[device];
        let size = device.size_of_part(number);
        let Part::Open { blobs, clusters } = &mut device.parts[number] else {
            return Ok(());
        };
        *clusters += new;
        if *clusters < size.div_ceil(CLUSTER as u64) {
            return Ok(());
        }
        let blobs = std::mem::take(blobs);
        let pieces = pieces(&blobs, size, device.blob_bytes());
        let sink = self.sink;
        let put = &mut |mut json| sink.put(Kind::Content, &mut json);
        let (id, cost) = content::write(&pieces, put)?;
        device.parts[number] = Part::Closed(id);
        device.cost = device.cost.saturating_add(cost);
        if content::affordable(device.cost).is_err() {
            let reason = "the guest wrote in so many places of it during its dump that the list of its pieces is longer \
                          than readers take; dump it while it writes less, or is stopped";
            return Err(Error::malformed(
                format!("the disk {}", device.node),
                reason,
            ));
        }
        Ok(())
    }
}

/// The list of a part of which every cluster is known.
fn pieces(blobs: &HashMap<u32, Stored>, size: u64, blob_bytes: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut push = |cluster: Cluster, size: u64| match cluster {
        Cluster::Hole => push_hole(&mut pieces, size),
        Cluster::Blob(id) => pieces.push(Piece::Blob { id, size }),
    };
    let mut at = 0;
    for number in 0.. {
        if at >= size {
            break;
        }
        let length = (size - at).min(blob_bytes);
        match blobs.get(&number) {
            Some(Stored::Blob(id)) => push(Cluster::Blob(*id), length),
            Some(Stored::Runs(runs)) => {
                let mut runs = runs.clone();
                runs.sort_unstable_by_key(|run| run.start);
                for run in runs {
                    let start = u64::from(run.start) * CLUSTER as u64;
                    let size = (length - start).min(u64::from(run.clusters) * CLUSTER as u64);
                    push(run.what, size);
                }
            }
            Some(Stored::Hole) | None => push(Cluster::Hole, length),
        }
        at += length;
    }
    pieces
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
