//! LUKS: encrypted containers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::NodeId;
use crate::units::{Bytes, SectorSize};

/// A LUKS container. Its header (key slots, tokens, all) is kept as an image of its own, named by the node, and written back
/// as it was: what opened the container opens it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Luks {
    /// What it lies on.
    pub on: NodeId,
    /// `/dev/mapper/<name>`, where it is when it is open.
    pub device: PathBuf,
    /// Name of the mapping: as it was open, else as crypttab has it, else made up of the UUID.
    pub name: String,
    /// UUID.
    pub uuid: String,
    /// 1 or 2.
    pub version: u8,
    /// Label (version 2).
    pub label: Option<String>,
    /// Cipher as dm-crypt names it: `aes-xts-plain64`.
    pub cipher: String,
    /// Size of the volume key in bits.
    pub key_bits: u32,
    /// Unit of encryption.
    pub sector_size: SectorSize,
    /// Where the encrypted data start.
    pub data_offset: Bytes,
    /// How much of the start of the device the saved header is.
    pub header_size: Bytes,
    /// Flags in the header, sorted: `allow-discards`... (version 2).
    pub flags: Vec<String>,
    /// Number of key slots in use.
    pub key_slots: u32,
    /// How many of them only a token opens that is bound to the machine: a TPM, a security key, a Clevis server.
    pub bound_slots: u32,
    /// Types of the tokens, sorted (version 2).
    pub tokens: Vec<String>,
    /// Whether it was open. Else nothing is known of what is in it.
    pub open: bool,
    /// Room in the container.
    pub size: Bytes,
    /// Its line in crypttab.
    pub crypttab: Option<CrypttabEntry>,
}

/// A line of crypttab(5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrypttabEntry {
    /// First field: name of the mapping.
    pub name: String,
    /// Second field: device, `UUID=...`.
    pub source: String,
    /// Third field: key file, `none`.
    pub key: String,
    /// Fourth field.
    pub options: Vec<String>,
}

/// The header of a container of the system, which becomes an image.
#[derive(Debug, Clone, PartialEq)]
pub struct LuksHeader {
    /// The container.
    pub id: NodeId,
    /// Device node at capture time of what the container lies on.
    pub device: PathBuf,
    /// Size of the header.
    pub size: Bytes,
}
