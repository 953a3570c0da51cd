//! The rescue system for sticks: kernel and initramfs, built on this host.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use layout::system::System;
use rescue_image::initramfs::{self, InitramfsSpec, ModuleSet};
use rescue_image::kernel::Kernel;
use rescue_image::stick::{RescueSystem, Stick};

use crate::cli::Modules;
use crate::progress::Progress;

/// What the rescue system is made of.
pub struct Wish<'a> {
    /// A Debian kernel package to take the kernel from.
    pub package: Option<&'a Path>,
    /// A version of a kernel of this host.
    pub version: Option<&'a str>,
    /// Which modules.
    pub modules: Modules,
}

/// What became of the rescue system of a stick.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// Nothing that it is made of has changed.
    Current,
    /// A new one is in the other slot and will be booted.
    Updated,
    /// It stays as it is, for this reason.
    Kept(String),
}

/// A rescue system being made. Its files are gone when this is dropped.
pub struct Builder {
    spec: InitramfsSpec,
    work: tempfile::TempDir,
}

impl Builder {
    /// Finds kernel and programs; builds nothing yet.
    pub fn new(sys: &dyn System, wish: &Wish) -> anyhow::Result<Builder> {
        // Kernel packages take half a gigabyte: not in /tmp, which may be memory.
        let work = tempfile::Builder::new()
            .prefix("lifeboat-")
            .tempdir_in("/var/tmp")
            .context("cannot make a working directory in /var/tmp")?;
        let kernel = match (wish.package, wish.version) {
            (Some(deb), _) => Kernel::from_package(sys, deb, &work.path().join("kernel"))?,
            (None, Some(version)) => of_version(version)?,
            (None, None) => Kernel::of_host(sys)?,
        };
        let host = sys
            .text(Path::new("/proc/sys/kernel/hostname"))
            .unwrap_or_default();
        let mut spec = InitramfsSpec::new(kernel, rescue_binary()?, host);
        spec.modules = module_set(wish.modules);
        spec.version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Builder { spec, work })
    }

    /// Of all that it would be made of.
    pub fn fingerprint(&self, sys: &dyn System) -> anyhow::Result<String> {
        Ok(initramfs::fingerprint(sys, &self.spec)?)
    }

    /// The kernel's version.
    pub fn kernel(&self) -> &Kernel {
        &self.spec.kernel
    }

    /// Builds it. Returns what an admin should know, too: optional programs that are missing on this host.
    pub fn build(
        &self,
        sys: &dyn System,
        progress: &Progress,
    ) -> anyhow::Result<(RescueSystem, Vec<String>)> {
        progress.say(&format!(
            "building the rescue system with kernel {}",
            self.spec.kernel.version
        ));
        let initrd = self.work.path().join("initrd.img");
        let report = initramfs::build(sys, &self.spec, &initrd)
            .context("cannot build the rescue system (nothing was written)")?;
        let notes = report
            .missing_tools
            .iter()
            .map(|t| {
                format!(
                    "the rescue system has no {}: apt-get install {} to have it there",
                    t.name, t.package
                )
            })
            .collect();
        Ok((
            RescueSystem {
                kernel: self.spec.kernel.image.clone(),
                initrd,
                info: report.info,
            },
            notes,
        ))
    }

    /// Brings the stick's rescue system up to date, if what it is made of has changed.
    pub fn update(
        &self,
        sys: &dyn System,
        stick: &Stick,
        progress: &Progress,
    ) -> anyhow::Result<Update> {
        let slots = stick.slots()?;
        let current = match slots.current {
            rescue_image::stick::Slot::A => slots.a,
            rescue_image::stick::Slot::B => slots.b,
        };
        let wanted = self.fingerprint(sys)?;
        if current.is_some_and(|c| c.fingerprint == wanted) {
            return Ok(Update::Current);
        }
        let (system, _) = self.build(sys, progress)?;
        Ok(if stick.update_rescue(&system, progress)? {
            Update::Updated
        } else {
            Update::Current
        })
    }
}

/// As `rescue_image` names them.
pub fn module_set(modules: Modules) -> ModuleSet {
    match modules {
        Modules::Full => ModuleSet::Full,
        Modules::Storage => ModuleSet::Storage,
        Modules::Slim => ModuleSet::Slim,
    }
}

/// A kernel of this host that is not the one that would be taken.
fn of_version(version: &str) -> anyhow::Result<Kernel> {
    let kernel = Kernel {
        version: version.to_owned(),
        image: PathBuf::from(format!("/boot/vmlinuz-{version}")),
        modules_dir: PathBuf::from(format!("/lib/modules/{version}")),
        config: Some(PathBuf::from(format!("/boot/config-{version}"))).filter(|p| p.exists()),
    };
    for needed in [&kernel.image, &kernel.modules_dir] {
        if !needed.exists() {
            bail!(
                "there is no kernel {version} here: {} is missing; `ls /boot/vmlinuz-*` shows those there are",
                needed.display()
            );
        }
    }
    Ok(kernel)
}

/// The program that runs as process 1 of the rescue system: beside this one, or where the package puts it.
fn rescue_binary() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("lifeboat-rescue")));
    let installed = PathBuf::from("/usr/lib/lifeboat/lifeboat-rescue");
    let places: Vec<PathBuf> = beside.into_iter().chain([installed]).collect();
    places.iter().find(|p| p.is_file()).cloned().with_context(|| {
        let places: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
        format!("the program lifeboat-rescue is missing (looked for {}); install it, or build it with cargo build -p rescue-image", places.join(" and "))
    })
}
