//! The medium: a USB stick, or an image file that stands for one, that boots and holds a store.

use std::path::{Path, PathBuf};

use bundle::events::Events;
use layout::system::System;
use layout::units::Bytes;

use crate::error::Result;
use crate::initramfs::RescueInfo;

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
    /// Seconds that the boot menu waits.
    pub menu_timeout: u32,
}

impl PrepareOptions {
    /// The usual medium with this rescue system: 1 GiB boot partition, 5 s menu.
    pub fn new(rescue: RescueSystem) -> Self {
        Self { rescue, esp_size: Bytes::GIB, replace_foreign_file: false, menu_timeout: 5 }
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

/// A medium whose partitions were found.
#[derive(Debug, Clone)]
pub struct Stick {
    path: PathBuf,
}

/// The mounted data partition. Unmount with [`MountedStick::unmount`]; dropping it does the same, but only logs errors.
#[derive(Debug)]
pub struct MountedStick {
    dir: PathBuf,
}

/// Reads what `device` is and what is on it.
pub fn identify(sys: &dyn System, device: &Path) -> Result<Identity> {
    let _ = (sys, device);
    Err(crate::Error::Kernel("not yet".into()))
}

/// All reasons why `device` must not become a medium; empty: none.
pub fn refusals(sys: &dyn System, device: &Path, needed: Bytes) -> Result<Vec<String>> {
    let _ = (sys, device, needed);
    Err(crate::Error::Kernel("not yet".into()))
}

impl Stick {
    /// Makes a medium. Erases the target. Refuses devices for which [`refusals`] has reasons.
    pub fn prepare(
        sys: &dyn System,
        target: &Target,
        options: &PrepareOptions,
        events: &dyn Events,
    ) -> Result<PrepareReport> {
        let _ = (sys, target, options, events);
        Err(crate::Error::Kernel("not yet".into()))
    }

    /// Finds our partitions on an existing disk or image file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned() })
    }

    /// The device or image file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The data partition's GUID (PARTUUID), lower case.
    pub fn medium(&self) -> &str {
        ""
    }

    /// What is in the slots.
    pub fn slots(&self) -> Result<Slots> {
        Err(crate::Error::Kernel("not yet".into()))
    }

    /// Puts `rescue` into the slot that is not current, reads it back, and only then makes that slot current.
    /// Does nothing (and returns false) when the current slot's fingerprint is the same.
    pub fn update_rescue(&self, rescue: &RescueSystem, events: &dyn Events) -> Result<bool> {
        let _ = (rescue, events);
        Err(crate::Error::Kernel("not yet".into()))
    }

    /// Mounts the data partition in a private directory below `/run/lifeboat`.
    pub fn mount(&self, read_only: bool) -> Result<MountedStick> {
        let _ = read_only;
        Err(crate::Error::Kernel("not yet".into()))
    }
}

impl MountedStick {
    /// The mount point: the store is in `lifeboat/` below it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Syncs and unmounts, detaches the loop device, and says whether that worked.
    pub fn unmount(self) -> Result<()> {
        Ok(())
    }
}
