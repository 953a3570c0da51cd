//! The header of an archive (Proxmox `vma_spec`, facts):
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | "VMA\0" |
//! | 4 | 4 | version, 1 |
//! | 8 | 16 | UUID, in every extent again |
//! | 24 | 8 | time, seconds since 1970 |
//! | 32 | 16 | MD5 of the header, with zeroes here |
//! | 48 | 4 | where the blob buffer begins: 12288 |
//! | 52 | 4 | how much of it is in use |
//! | 56 | 4 | size of the header: a multiple of 512, which the writer of Proxmox VE lets grow to 512 KiB |
//! | 2044 | 256 × 4 | configurations: their names, as offsets in the blob buffer, 0 for none |
//! | 3068 | 256 × 4 | configurations: their content, the same |
//! | 4096 | 256 × 32 | devices by number (0 and 255 are not in use): name as an offset (4), reserved (4), size in bytes (8), reserved (16) |
//! | 12288 | | blob buffer: the first byte is not in use; then blobs, a length of 16 bits **little-endian** before each; names end with a NUL |
//!
//! All other numbers are big-endian, all other bytes are reserved: covered by the sum, and not looked at.

use std::collections::BTreeSet;

use md5::{Digest, Md5};
use uuid::Uuid;

use crate::{Error, HeaderFault, Result};

/// What comes before the blob buffer.
pub(crate) const FIXED: usize = 12288;
/// More than the writer of Proxmox VE makes is not believed.
pub(crate) const MAX: usize = 512 * 1024;

const MAGIC: [u8; 4] = *b"VMA\0";
const SUM: usize = 32;
const CONFIG_NAMES: usize = 2044;
const CONFIG_DATA: usize = 3068;
const DEVICES: usize = 4096;
const CONFIGS: usize = 256;
const CONFIG: &str = "configuration";
const DEVICE: &str = "device";
/// Clusters have numbers of 32 bits. The limit is for all devices together, as it bounds what is remembered of them.
const MAX_SIZE: u64 = 1 << 48;

/// What an archive says about itself, and its small files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Made for each archive.
    pub uuid: Uuid,
    /// When the archive was begun, in seconds since 1970.
    pub ctime: i64,
    /// `qemu-server.conf`, `qemu-server.fw`: in the order of the archive.
    pub configs: Vec<Config>,
    /// The disks, by their numbers.
    pub devices: Vec<Device>,
}

/// A small file in the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A file name, without a path.
    pub name: String,
    /// What is in it: at most 65535 bytes.
    pub data: Vec<u8>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// 1 to 254.
    pub id: u8,
    /// `drive-scsi0`.
    pub name: String,
    /// Its bytes; no multiple of anything.
    pub size: u64,
}

impl Header {
    /// The device of this number.
    pub fn device(&self, id: u8) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// Reads the whole header; `bytes` is as long as [`size`] said.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Header> {
        if sum_with_hole(bytes, SUM) != bytes[SUM..SUM + 16] {
            return Err(HeaderFault::Sum.into());
        }
        let blobs = Blobs::of(bytes)?;
        let mut header = Header {
            uuid: Uuid::from_bytes(array(bytes, 8)),
            ctime: i64::from_be_bytes(array(bytes, 24)),
            configs: Vec::new(),
            devices: Vec::new(),
        };
        for index in 0..CONFIGS {
            let half = |has| HeaderFault::Half {
                what: CONFIG,
                index,
                has,
            };
            let name = be32(bytes, CONFIG_NAMES + 4 * index);
            let data = be32(bytes, CONFIG_DATA + 4 * index);
            match (name, data) {
                (0, 0) => {}
                (0, _) => return Err(half("content and no name").into()),
                (_, 0) => return Err(half("a name and no content").into()),
                _ => header.configs.push(Config {
                    name: blobs.name(name, CONFIG, index)?,
                    data: blobs.get(data, CONFIG, index)?.to_vec(),
                }),
            }
        }
        for index in 0..256 {
            let at = DEVICES + 32 * index;
            let (name, size) = (be32(bytes, at), u64::from_be_bytes(array(bytes, at + 8)));
            // A name alone makes no device, for Proxmox VE either.
            if size == 0 {
                continue;
            }
            if name == 0 {
                let has = "a size and no name";
                return Err(HeaderFault::Half {
                    what: DEVICE,
                    index,
                    has,
                }
                .into());
            }
            header.devices.push(Device {
                id: index as u8,
                name: blobs.name(name, DEVICE, index)?,
                size,
            });
        }
        header.check()?;
        Ok(header)
    }

    /// The header as bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, HeaderFault> {
        self.check()?;
        let mut bytes = vec![0; FIXED + 1];
        let mut add = |blob: &[&[u8]]| {
            let at = (bytes.len() - FIXED) as u32;
            let length: usize = blob.iter().map(|part| part.len()).sum();
            bytes.extend_from_slice(&(length as u16).to_le_bytes());
            blob.iter().for_each(|part| bytes.extend_from_slice(part));
            at.to_be_bytes()
        };
        let mut places = Vec::new();
        for (index, config) in self.configs.iter().enumerate() {
            let name = add(&[config.name.as_bytes(), b"\0"]);
            places.push((CONFIG_NAMES + 4 * index, name));
            places.push((CONFIG_DATA + 4 * index, add(&[&config.data])));
        }
        for device in &self.devices {
            let name = add(&[device.name.as_bytes(), b"\0"]);
            places.push((DEVICES + 32 * usize::from(device.id), name));
        }
        let used = bytes.len() - FIXED;
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let size = bytes.len();
        if size > MAX {
            return Err(HeaderFault::Size(size as u64));
        }
        for (at, place) in places {
            bytes[at..at + 4].copy_from_slice(&place);
        }
        for device in &self.devices {
            let at = DEVICES + 32 * usize::from(device.id) + 8;
            bytes[at..at + 8].copy_from_slice(&device.size.to_be_bytes());
        }
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&1u32.to_be_bytes());
        bytes[8..24].copy_from_slice(self.uuid.as_bytes());
        bytes[24..32].copy_from_slice(&self.ctime.to_be_bytes());
        for (at, number) in [(48, FIXED), (52, used), (56, size)] {
            bytes[at..at + 4].copy_from_slice(&(number as u32).to_be_bytes());
        }
        let sum = Md5::digest(&bytes);
        bytes[SUM..SUM + 16].copy_from_slice(&sum);
        Ok(bytes)
    }

    /// What must be so in every header, read or to be written.
    fn check(&self) -> Result<(), HeaderFault> {
        if self.configs.len() > CONFIGS {
            return Err(HeaderFault::Configs(self.configs.len()));
        }
        let mut names = BTreeSet::new();
        for (index, config) in self.configs.iter().enumerate() {
            check_name(CONFIG, index, &config.name, names.insert(&config.name))?;
            if config.data.len() > usize::from(u16::MAX) {
                return Err(HeaderFault::ConfigSize {
                    name: config.name.clone(),
                    size: config.data.len(),
                });
            }
        }
        let (mut names, mut ids, mut total) = (BTreeSet::new(), BTreeSet::new(), 0u64);
        for device in &self.devices {
            if matches!(device.id, 0 | 255) || !ids.insert(device.id) {
                return Err(HeaderFault::DeviceId(device.id));
            }
            let (index, name) = (device.id.into(), &device.name);
            check_name(DEVICE, index, name, names.insert(name))?;
            // Its clusters come in order and end anywhere: a stream, not a disk.
            if name == "vmstate" {
                return Err(HeaderFault::MachineState);
            }
            total = total.saturating_add(device.size);
            if device.size == 0 || total > MAX_SIZE {
                return Err(HeaderFault::DeviceSize {
                    name: name.clone(),
                    size: device.size,
                });
            }
        }
        Ok(())
    }
}

/// Reads the size of a header from its fixed part.
pub(crate) fn size(fixed: &[u8; FIXED]) -> Result<usize> {
    if fixed[..4] != MAGIC {
        let found = fixed[..4].iter().map(|b| format!("{b:02x}")).collect();
        return Err(Error::NotVma { found });
    }
    let version = be32(fixed, 4);
    if version != 1 {
        return Err(Error::Version(version));
    }
    let size = be32(fixed, 56);
    match usize::try_from(size) {
        Ok(n) if n > FIXED && n <= MAX && n % 512 == 0 => Ok(n),
        _ => Err(HeaderFault::Size(size.into()).into()),
    }
}

/// Is this the beginning of an archive, as far as it goes?
pub(crate) fn begins_well(bytes: &[u8]) -> bool {
    let n = bytes.len().min(MAGIC.len());
    bytes[..n] == MAGIC[..n]
}

/// Names are those of files: nothing in one leads elsewhere, and nothing is written to a terminal that is no text.
fn check_name(
    what: &'static str,
    index: usize,
    name: &str,
    is_new: bool,
) -> Result<(), HeaderFault> {
    let reason = if name.is_empty() || name.len() > 255 {
        "it must have 1 to 255 bytes"
    } else if name.contains('/') || matches!(name, "." | "..") {
        "it leads to another folder"
    } else if name.contains(char::is_control) {
        "it has control characters"
    } else if !is_new {
        "another one has it, too"
    } else {
        return Ok(());
    };
    Err(HeaderFault::Name {
        what,
        index,
        name: name.into(),
        reason,
    })
}

/// The part of a header that blobs are in.
struct Blobs<'a>(&'a [u8]);

impl<'a> Blobs<'a> {
    fn of(header: &'a [u8]) -> Result<Blobs<'a>, HeaderFault> {
        let (offset, size) = (be32(header, 48), be32(header, 52));
        let (start, length) = (offset as usize, size as usize);
        let within = start >= FIXED && start <= header.len() && length <= header.len() - start;
        if !within {
            return Err(HeaderFault::Buffer { offset, size });
        }
        Ok(Blobs(&header[start..start + length]))
    }

    fn get(&self, offset: u32, what: &'static str, index: usize) -> Result<&'a [u8], HeaderFault> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        rest.split_first_chunk()
            .and_then(|(length, rest)| rest.get(..u16::from_le_bytes(*length).into()))
            .ok_or(HeaderFault::Pointer {
                what,
                index,
                offset,
            })
    }

    fn name(&self, offset: u32, what: &'static str, index: usize) -> Result<String, HeaderFault> {
        let blob = self.get(offset, what, index)?;
        let bad = |reason| HeaderFault::Name {
            what,
            index,
            name: String::from_utf8_lossy(&blob[..blob.len().min(255)]).into_owned(),
            reason,
        };
        let Some((0, name)) = blob.split_last() else {
            return Err(bad("it does not end with a NUL"));
        };
        let name = std::str::from_utf8(name).map_err(|_| bad("it is no text"))?;
        Ok(name.to_owned())
    }
}

/// The MD5 of `bytes` as if the sum at `at` were zeroes.
pub(crate) fn sum_with_hole(bytes: &[u8], at: usize) -> [u8; 16] {
    Md5::new()
        .chain_update(&bytes[..at])
        .chain_update([0; 16])
        .chain_update(&bytes[at + 16..])
        .finalize()
        .into()
}

/// `N` bytes at a place that is known to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}
