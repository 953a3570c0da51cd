//! The medium: a USB stick, or an image file that stands for one, that boots and holds a store.

mod device;
mod mount;
mod prepare;
mod refuse;
pub(crate) mod slots;
pub(crate) mod table;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bundle::events::Events;
use gpt::disk::LogicalBlockSize;
use layout::system::System;
use layout::units::Bytes;
use serde::{Deserialize, Serialize};

pub use mount::{FOLDER, MountedStick};
pub use refuse::{identify, refusals};
pub use table::DATA_TYPE;

use crate::error::{Error, Result};
use crate::esp::{Esp, Slice};
use crate::initramfs::RescueInfo;
use table::Table;

/// Describes the medium, on the boot partition.
pub(crate) const MEDIUM_INFO: &str = "lifeboat/medium.json";

/// What is to become, or is, a medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A whole disk, `/dev/sdX`.
    Device(PathBuf),
    /// An image file.
    Image {
        /// The file.
        path: PathBuf,
        /// Its size when it is made; not looked at when an existing one is opened.
        size: Bytes,
    },
}

impl Target {
    /// The device or file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Device(path) | Self::Image { path, .. } => path,
        }
    }
}

/// A rescue system ready to be put on a medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RescueSystem {
    /// `vmlinuz`.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// What it is.
    pub info: RescueInfo,
}

/// How a medium is made.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// The rescue system for slot A.
    pub rescue: RescueSystem,
    /// Size of the boot (EFI system) partition.
    pub esp_size: Bytes,
    /// Overwrite an existing file that is no Lifeboat image. Devices are the caller's business: typed serial.
    pub replace_foreign_file: bool,
    /// The disk that the user agreed to erase: another one, that has its name by now, is refused.
    pub confirmed: Option<Identity>,
    /// Seconds that the boot menu waits.
    pub menu_timeout: u32,
}

impl PrepareOptions {
    /// The usual medium with this rescue system: 1 GiB boot partition, 5 s menu.
    pub fn new(rescue: RescueSystem) -> Self {
        Self {
            rescue,
            esp_size: Bytes::GIB,
            replace_foreign_file: false,
            confirmed: None,
            menu_timeout: 5,
        }
    }
}

/// How a medium boots on UEFI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UefiBoot {
    /// Signed shim and GRUB: with Secure Boot on, too, when the kernel is signed by the same vendor.
    Signed,
    /// With Secure Boot off only.
    Unsigned,
    /// Not at all.
    No,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct PrepareReport {
    /// Whether it boots on BIOS.
    pub bios: bool,
    /// How it boots on UEFI.
    pub uefi: UefiBoot,
    /// The data partition's GUID (PARTUUID).
    pub medium: String,
    /// UUID of the data file system.
    pub data_fs_uuid: String,
    /// Its size.
    pub data_size: Bytes,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// One of the two places for a rescue system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// `rescue/a`
    A,
    /// `rescue/b`
    B,
}

/// What is in the slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// The one that is booted.
    pub current: Slot,
    /// Complete rescue system in A.
    pub a: Option<RescueInfo>,
    /// Complete rescue system in B.
    pub b: Option<RescueInfo>,
}

/// A disk as a human recognises it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Identity {
    /// `/dev/sdX`
    pub device: PathBuf,
    /// Vendor and model.
    pub model: String,
    /// Serial number; empty when the disk has none.
    pub serial: String,
    /// Size.
    pub size: Bytes,
    /// Bytes of a logical sector.
    pub sector_size: u32,
    /// Whether the kernel calls it removable.
    pub removable: bool,
    /// "usb", "nvme", "sata" ...; empty when unknown.
    pub transport: String,
    /// Write protected.
    pub read_only: bool,
    /// What is on it now, one line per partition or whole-disk content.
    pub contents: Vec<String>,
}

/// Label of the data file system.
pub const DATA_LABEL: &str = "LIFEBOAT";

/// Version of the medium's arrangement; readers refuse others.
pub const MEDIUM_FORMAT: u32 = 1;

/// `lifeboat/medium.json` on the boot partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MediumInfo {
    /// [`MEDIUM_FORMAT`]
    pub format: u32,
    /// The data partition's GUID.
    pub medium: String,
    /// Lifeboat's version that prepared it.
    pub prepared_by: String,
}

/// A medium whose partitions were found.
#[derive(Debug, Clone)]
pub struct Stick {
    path: PathBuf,
    table: Table,
    medium: String,
    data_fs_uuid: String,
}

impl Stick {
    /// Makes a medium. Erases the target. Refuses devices for which [`refusals`] has reasons, and existing files that
    /// are no Lifeboat images unless told otherwise.
    pub fn prepare(
        sys: &dyn System,
        target: &Target,
        options: &PrepareOptions,
        events: &dyn Events,
    ) -> Result<PrepareReport> {
        prepare::prepare(sys, target, options, events)
    }

    /// Finds our partitions on an existing disk or image file, by type and label, exactly.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let not = |reason: String| Error::NotAStick {
            path: path.to_owned(),
            reason,
        };
        let table = if device::is_block(path) {
            let sector = device::sector_size(&file, path)?;
            Table::read(&mut file, sector, false)
        } else {
            // An image of a 4Kn disk has its header elsewhere.
            Table::read(&mut file, LogicalBlockSize::Lb512, false)
                .or_else(|e| Table::read(&mut file, LogicalBlockSize::Lb4096, false).map_err(|_| e))
        }
        .map_err(not)?;
        let data = superblock(&file, table.bytes(table.data).0)
            .ok_or_else(|| not("its data partition holds no ext4 file system".into()))?;
        if data.label != DATA_LABEL {
            return Err(not(format!(
                "its data file system has the label {:?}, not {DATA_LABEL}",
                data.label
            )));
        }
        let medium = table.data.2.to_string();
        let stick = Self {
            path: path.to_owned(),
            table,
            medium,
            data_fs_uuid: data.uuid,
        };
        let info = stick.esp(false)?.read(MEDIUM_INFO)?;
        let format = info
            .as_deref()
            .and_then(|json| serde_json::from_slice::<serde_json::Value>(json).ok())
            .and_then(|v| v.get("format")?.as_u64())
            .ok_or_else(|| not(format!("its boot partition has no {MEDIUM_INFO}")))?;
        if format != u64::from(MEDIUM_FORMAT) {
            return Err(Error::format(
                path,
                format!(
                    "a Lifeboat medium of format {format}; this version ({}) knows format {MEDIUM_FORMAT} only: use a \
                     newer version of lifeboat",
                    env!("CARGO_PKG_VERSION")
                ),
            ));
        }
        Ok(stick)
    }

    /// The device or image file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The data partition's GUID (PARTUUID), lower case.
    pub fn medium(&self) -> &str {
        &self.medium
    }

    /// UUID of the data file system.
    pub fn data_fs_uuid(&self) -> &str {
        &self.data_fs_uuid
    }

    /// Size of the data partition.
    pub fn data_size(&self) -> Bytes {
        Bytes(self.table.bytes(self.table.data).1)
    }

    /// Files of the boot partition.
    pub fn esp(&self, write: bool) -> Result<Esp<Slice>> {
        let (offset, len) = self.table.bytes(self.table.esp);
        // The partition's own node where there is one: it has a cache apart from the whole disk's.
        let node = if device::is_block(&self.path) {
            device::partition_node(&self.path, table::ESP_NUMBER, offset)
        } else {
            None
        };
        let (path, offset) = match node {
            Some(node) => (node, 0),
            None => (self.path.clone(), offset),
        };
        let file = File::options()
            .read(true)
            .write(write)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        Ok(Esp::new(Slice::new(file, offset, len), &self.path))
    }

    /// What is in the slots.
    pub fn slots(&self) -> Result<Slots> {
        slots::read(&mut self.esp(false)?)
    }

    /// Puts `rescue` into the slot that is not current (or into that one, when only the other is whole), reads it back, and only then makes that slot current.
    /// Does nothing (and returns false) when the current slot's fingerprint is the same.
    pub fn update_rescue(&self, rescue: &RescueSystem, events: &dyn Events) -> Result<bool> {
        slots::update(&mut self.esp(true)?, &self.path, rescue, events)
    }

    /// Mounts the data partition in a private directory below `/run/lifeboat`. A write-protected medium (or, for
    /// `read_only`, one whose disk is fenced) is mounted without replaying its journal.
    pub fn mount(&self, read_only: bool) -> Result<MountedStick> {
        mount::mount(self, read_only)
    }
}

struct Superblock {
    label: String,
    uuid: String,
}

/// Label and UUID of an ext4 file system (fs/ext4/ext4.h: superblock at 1024, magic at 0x38, UUID 0x68, label 0x78).
fn superblock(file: &File, offset: u64) -> Option<Superblock> {
    let mut block = [0; 0x88];
    file.read_exact_at(&mut block, offset + 1024).ok()?;
    if block[0x38..0x3a] != [0x53, 0xef] {
        return None;
    }
    let label = &block[0x78..0x88];
    let end = label.iter().position(|b| *b == 0).unwrap_or(label.len());
    let uuid: [u8; 16] = block[0x68..0x78].try_into().ok()?;
    Some(Superblock {
        label: String::from_utf8_lossy(&label[..end]).into_owned(),
        uuid: uuid::Uuid::from_bytes(uuid).to_string(),
    })
}

#[cfg(test)]
mod tests;
