//! The initramfs of the rescue system: made from the host's own programs, libraries and modules.

use std::path::{Path, PathBuf};

use layout::system::System;
use layout::units::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::kernel::Kernel;

/// Which kernel modules travel along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleSet {
    /// Any machine: all storage controllers, USB, filesystems, keyboards, and common wired network cards.
    Full,
    /// As `Full`, without network cards.
    Storage,
    /// Virtual machines only (QEMU's disks, USB and AHCI). Boots quickest; for tests and drills.
    Slim,
}

/// How the archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Unpacks quickest; needs `CONFIG_RD_ZSTD`.
    Zstd,
    /// Smallest; needs `CONFIG_RD_XZ`.
    Xz,
    /// Every kernel reads it.
    Gzip,
}

/// A file to add as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraFile {
    /// On the host.
    pub from: PathBuf,
    /// Absolute path in the rescue system.
    pub to: PathBuf,
    /// Permission bits.
    pub mode: u32,
}

/// What goes into an initramfs.
#[derive(Debug, Clone)]
pub struct InitramfsSpec {
    /// The kernel it is for.
    pub kernel: Kernel,
    /// The `lifeboat-rescue` program (or, in tests, another init): it becomes `/init`.
    pub rescue_binary: PathBuf,
    /// Which modules.
    pub modules: ModuleSet,
    /// `None`: the best that the kernel reads.
    pub compression: Option<Compression>,
    /// Further files.
    pub extra_files: Vec<ExtraFile>,
    /// The host's name, for `rescue.json`.
    pub host: String,
    /// Lifeboat's version, for `rescue.json`.
    pub version: String,
}

impl InitramfsSpec {
    /// The usual rescue system of this version for this kernel: all modules, best compression.
    pub fn new(kernel: Kernel, rescue_binary: PathBuf, host: impl Into<String>) -> Self {
        Self {
            kernel,
            rescue_binary,
            modules: ModuleSet::Full,
            compression: None,
            extra_files: Vec::new(),
            host: host.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// `/etc/lifeboat/rescue.json` in the rescue system and `rescue/<slot>/rescue.json` on the boot partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RescueInfo {
    /// Version of this document; readers refuse others.
    pub format: u32,
    /// Lifeboat's version.
    pub version: String,
    /// The host it was built on.
    pub host: String,
    /// The kernel's version.
    pub kernel: String,
    /// Of all inputs; equal fingerprint means nothing to rebuild.
    pub fingerprint: String,
}

/// A program that was looked for in vain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingTool {
    /// The program.
    pub name: String,
    /// The Debian package that holds it.
    pub package: String,
}

/// What was built.
#[derive(Debug, Clone)]
pub struct Report {
    /// Of the compressed archive.
    pub size: Bytes,
    /// Of the files in it.
    pub unpacked: Bytes,
    /// How it is compressed.
    pub compression: Compression,
    /// Number of kernel modules.
    pub modules: usize,
    /// Programs in it, sorted.
    pub tools: Vec<String>,
    /// Optional programs that this host does not have.
    pub missing_tools: Vec<MissingTool>,
    /// What it is.
    pub info: RescueInfo,
}

/// The fingerprint of all inputs, without building anything. Equal to [`Report::info`]'s of a build from the same.
pub fn fingerprint(sys: &dyn System, spec: &InitramfsSpec) -> Result<String> {
    let _ = (sys, spec);
    Ok(String::new())
}

/// Builds the initramfs into the file `out` (written beside it and renamed when complete).
pub fn build(sys: &dyn System, spec: &InitramfsSpec, out: &Path) -> Result<Report> {
    let _ = (sys, spec, out);
    Err(crate::Error::Kernel("not yet".into()))
}
