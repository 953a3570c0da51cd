//! The initramfs of the rescue system: made from the host's own programs, libraries and modules.

mod archive;
mod collect;
mod etc;
mod tools;
mod zfs;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use layout::system::{Cmd, System};
use layout::units::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::modules;

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
    /// Not at all: every kernel reads it.
    Plain,
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

/// Version of [`RescueInfo`].
pub const INFO_FORMAT: u32 = 1;

impl RescueInfo {
    /// Reads the document; `None` when it is damaged or of an unknown version.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        // Files on the boot partition end in line ends.
        serde_json::from_slice::<Self>(json)
            .ok()
            .filter(|i| i.format == INFO_FORMAT)
    }

    /// The document.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and numbers only: this cannot fail.
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

/// The Debian package that holds a program of the rescue system.
pub fn package_of(program: &str) -> Option<&'static str> {
    let mut all = tools::TOOLS.iter();
    all.find(|tool| tool.names.contains(&program))
        .map(|tool| tool.package)
}

/// The names of the modules that a rescue system with this kernel carries.
pub fn carried_modules(kernel: &Kernel, set: ModuleSet) -> Result<BTreeSet<String>> {
    let paths = modules::select(&kernel.modules_dir, set, &[])?;
    Ok(paths.iter().filter_map(|p| modules::name_of(p)).collect())
}

/// The names of all modules of a kernel.
pub fn all_modules(kernel: &Kernel) -> Result<BTreeSet<String>> {
    modules::names(&kernel.modules_dir)
}

/// The compression that is used: the asked one, else the quickest to unpack that the kernel reads.
fn compression(spec: &InitramfsSpec) -> Compression {
    if let Some(asked) = spec.compression {
        return asked;
    }
    let reads = |option| spec.kernel.has_builtin(option);
    match (reads("CONFIG_RD_ZSTD"), reads("CONFIG_RD_XZ")) {
        (Some(true), _) => Compression::Zstd,
        // No configuration to look at: Debian's and Proxmox's kernels have read xz for ten years.
        (None, _) | (_, Some(true)) => Compression::Xz,
        _ => Compression::Plain,
    }
}

fn info(spec: &InitramfsSpec, fingerprint: String) -> RescueInfo {
    RescueInfo {
        format: INFO_FORMAT,
        version: spec.version.clone(),
        host: spec.host.clone(),
        kernel: spec.kernel.version.clone(),
        fingerprint,
    }
}

/// The fingerprint of all inputs, without building anything. Equal to [`Report::info`]'s of a build from the same.
pub fn fingerprint(_sys: &dyn System, spec: &InitramfsSpec) -> Result<String> {
    collect::collect(spec)?.fingerprint(spec, compression(spec))
}

/// Builds the initramfs into the file `out` (written beside it and renamed when complete).
pub fn build(sys: &dyn System, spec: &InitramfsSpec, out: &Path) -> Result<Report> {
    let how = compression(spec);
    let content = collect::collect(spec)?;
    let info = info(spec, content.fingerprint(spec, how)?);
    let folder = out
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let stage = tempfile::Builder::new()
        .prefix(".lifeboat-initramfs-")
        .tempdir_in(folder)
        .map_err(Error::io("create a folder in", folder))?;
    let root = stage.path().join("root");
    content.stage(&root)?;
    let json = root.join("etc/lifeboat/rescue.json");
    fs::write(&json, info.to_json()).map_err(Error::io("write", &json))?;
    finish_tree(sys, spec, &root)?;
    let temporary = stage.path().join("initrd.img");
    let packed = archive::pack(&root, &temporary, how, spec.modules == ModuleSet::Slim)?;
    fs::rename(&temporary, out).map_err(Error::io("write", out))?;
    Ok(Report {
        size: Bytes(packed.size),
        unpacked: Bytes(packed.unpacked),
        compression: how,
        modules: content.modules.len(),
        tools: content.tools.iter().cloned().collect(),
        missing_tools: content.missing,
        info,
    })
}

/// What only other programs can make: the cache of the loader, the lists of the module loader, stripped programs.
fn finish_tree(sys: &dyn System, spec: &InitramfsSpec, root: &Path) -> Result<()> {
    sys.run(&Cmd::new("ldconfig").arg("-r").path(root))?;
    // ldconfig's own cache holds times of this run.
    let aux = root.join("var/cache/ldconfig");
    if aux.exists() {
        fs::remove_dir_all(&aux).map_err(Error::io("remove", &aux))?;
    }
    sys.run(
        &Cmd::new("depmod")
            .arg("-b")
            .path(root)
            .arg(&spec.kernel.version),
    )?;
    // modprobe reads the binary lists only.
    for text in [
        "modules.alias",
        "modules.symbols",
        "modules.symbols.bin",
        "modules.builtin.modinfo",
        "modules.order",
    ] {
        let _ = fs::remove_file(
            root.join("usr/lib/modules")
                .join(&spec.kernel.version)
                .join(text),
        );
    }
    // Debug information of a development build is ten times the program. No `strip`, no harm: it only boots slower.
    if let Err(error) = sys.run(
        &Cmd::new("strip")
            .arg("--strip-debug")
            .path(&root.join("init")),
    ) {
        tracing::debug!(%error, "the rescue program keeps its debug information");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
