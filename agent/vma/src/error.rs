//! What can be wrong with an archive, and where.

use std::io;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an archive cannot be read or written. Offsets are those in the archive unless they are said to be a device's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pipe or file failed.
    #[error("cannot read the archive at byte {offset}: {source}")]
    Read {
        /// How far it was read.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The pipe or file failed.
    #[error("cannot write the archive at byte {offset}: {source}")]
    Write {
        /// How far it was written.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The image that is to go into an archive cannot be read.
    #[error("cannot read the image of {device:?} at byte {offset}: {source}")]
    Image {
        /// The name of the device.
        device: String,
        /// How far the image was read.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// Something else, or an archive that is still compressed.
    #[error(
        "this is no plain VMA archive: it begins with the bytes {found}, and not with 564d4100"
    )]
    NotVma {
        /// The first bytes.
        found: String,
    },
    /// A version that did not exist when this was written.
    #[error("the archive has version {0} of the VMA format; only version 1 is known")]
    Version(u32),
    /// The header contradicts itself, or its sum does.
    #[error("the header of the archive is damaged: {0}")]
    Header(#[from] HeaderFault),
    /// An extent contradicts itself, the header or the extents before it.
    #[error("the extent at byte {offset} of the archive is damaged: {fault}")]
    Extent {
        /// Where the extent begins.
        offset: u64,
        /// What is wrong with it.
        fault: ExtentFault,
    },
    /// The archive does not end where an extent ends.
    #[error("the archive was cut off: it ends at byte {offset}, {within}")]
    CutOff {
        /// Its length.
        offset: u64,
        /// What is not all there.
        within: Part,
    },
    /// The archive ends where an extent ends, too early.
    #[error(
        "the archive is incomplete: {missing} of the {clusters} clusters of {device:?} are missing, the first at byte \
         {first} of the device; the archive ends at byte {offset}"
    )]
    Missing {
        /// The name of the device.
        device: String,
        /// How many clusters of it were never seen.
        missing: u64,
        /// How many there are.
        clusters: u64,
        /// Where on the device the first of them would be.
        first: u64,
        /// The length of the archive.
        offset: u64,
    },
    /// A caller asked for the proof without having read all.
    #[error("the archive was not read to its end; it was read up to byte {0}")]
    NotAtEnd(u64),
    /// An operation after one that failed.
    #[error("the archive is no longer usable after an error at byte {0}")]
    Unusable(u64),
    /// Something that cannot be written where it should go.
    #[error("cannot write byte {offset} of device {device}: {reason}")]
    Refused {
        /// The number of the device.
        device: u8,
        /// Where on the device.
        offset: u64,
        /// Why not.
        reason: &'static str,
    },
}

/// What is wrong with a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// Its length is impossible.
    #[error(
        "its size is given as {0} bytes, and it must be a multiple of 512 between 12800 and 524288"
    )]
    Size(u64),
    /// Its content is not what was written.
    #[error("its MD5 sum is wrong")]
    Sum,
    /// The buffer for names and blobs is not within the header.
    #[error("its blob buffer (offset {offset}, {size} bytes) is not inside the header")]
    Buffer {
        /// Where it should begin.
        offset: u32,
        /// How long it should be.
        size: u32,
    },
    /// A pointer to a name or blob leads out of the buffer.
    #[error("{what} {index} lies outside of the blob buffer (offset {offset})")]
    Pointer {
        /// Whose name or blob.
        what: &'static str,
        /// Its number.
        index: usize,
        /// Where it should be.
        offset: u32,
    },
    /// Only half of what makes a configuration or device.
    #[error("{what} {index} has {has}")]
    Half {
        /// A configuration or a device.
        what: &'static str,
        /// Its number.
        index: usize,
        /// What is there and what is not.
        has: &'static str,
    },
    /// A name that could not be that of a file, or not be told from another.
    #[error("{what} {index} has a name that is not usable ({name:?}): {reason}")]
    Name {
        /// A configuration or a device.
        what: &'static str,
        /// Its number.
        index: usize,
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// There are places for fewer configurations.
    #[error("it would have {0} configurations, and the format has room for 256")]
    Configs(usize),
    /// A configuration is too large for the format.
    #[error("configuration {name:?} has {size} bytes, and the format has room for 65535")]
    ConfigSize {
        /// The configuration.
        name: String,
        /// Its length.
        size: usize,
    },
    /// A device number that stands for nothing, is reserved or used twice.
    #[error("{0} cannot be the number of a device: they are 1 to 254, each once")]
    DeviceId(u8),
    /// A size that the format cannot address.
    #[error("device {name:?} has {size} bytes, and all together may have 2^48")]
    DeviceSize {
        /// The device.
        name: String,
        /// Its size.
        size: u64,
    },
    /// The RAM of a running machine, whose length is not known before its end.
    #[error(
        "it holds the memory of a running machine (device \"vmstate\"), which is not supported"
    )]
    MachineState,
}

/// What is wrong with an extent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtentFault {
    /// There is something else.
    #[error("it does not begin with \"VMAE\"")]
    Magic,
    /// Its header is not what was written.
    #[error("its MD5 sum is wrong")]
    Sum,
    /// It belongs to another archive.
    #[error("it belongs to another archive (its UUID is not that of the header)")]
    Uuid,
    /// Fields without a meaning are in use.
    #[error("its reserved bytes are not zero")]
    Reserved,
    /// The number of blocks and the blocks disagree.
    #[error("it announces {announced} blocks, and its clusters have {listed}")]
    Blocks {
        /// The number in its header.
        announced: u16,
        /// The sum over its clusters.
        listed: u16,
    },
    /// Blocks of no device.
    #[error("entry {entry} stores blocks of no device")]
    NoDevice {
        /// Which of the 59.
        entry: usize,
    },
    /// A device that the header does not have.
    #[error("entry {entry} is a cluster of device {device}, which the header does not have")]
    UnknownDevice {
        /// Which of the 59.
        entry: usize,
        /// The number of the device.
        device: u8,
    },
    /// A cluster behind the end of its device.
    #[error("entry {entry} is cluster {cluster} of {device:?}, which has {clusters} clusters only")]
    OutOfRange {
        /// Which of the 59.
        entry: usize,
        /// The name of the device.
        device: String,
        /// The number of the cluster.
        cluster: u32,
        /// How many there are.
        clusters: u64,
    },
    /// A cluster that was there before.
    #[error(
        "entry {entry} is cluster {cluster} of {device:?} (byte {at} of the device) for the second time"
    )]
    Twice {
        /// Which of the 59.
        entry: usize,
        /// The name of the device.
        device: String,
        /// The number of the cluster.
        cluster: u32,
        /// Where on the device that is.
        at: u64,
    },
}

/// A part of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The header.
    Header,
    /// The place of the first extent: every archive has one.
    FirstExtent,
    /// The header of an extent.
    ExtentHeader,
    /// The blocks of an extent.
    Blocks,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Header => "within the header",
            Part::FirstExtent => "before the first extent, and it must have one",
            Part::ExtentHeader => "within the header of an extent",
            Part::Blocks => "within the blocks of an extent",
        })
    }
}
