//! The kernel that the rescue system boots: the host's own, or one out of a Debian kernel package.

use std::path::{Path, PathBuf};

use layout::system::System;

use crate::error::Result;

/// A kernel and its modules, complete enough to boot from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// What `uname -r` says when it runs.
    pub version: String,
    /// The bootable image (`vmlinuz`).
    pub image: PathBuf,
    /// `.../lib/modules/<version>`, with `modules.dep`.
    pub modules_dir: PathBuf,
    /// The build configuration, where it was found: it says which initramfs compressions the kernel reads.
    pub config: Option<PathBuf>,
}

impl Kernel {
    /// The running kernel when its image and modules are installed, else the newest complete pair of
    /// `/boot/vmlinuz-*` and `/lib/modules/*`.
    pub fn of_host(sys: &dyn System) -> Result<Self> {
        let _ = sys;
        Err(crate::Error::Kernel("not yet".into()))
    }

    /// Unpacks the kernel of a Debian kernel package (`linux-image-*.deb`, `proxmox-kernel-*.deb`) below `workdir`.
    pub fn from_package(sys: &dyn System, deb: &Path, workdir: &Path) -> Result<Self> {
        let _ = (sys, deb, workdir);
        Err(crate::Error::Kernel("not yet".into()))
    }
}
