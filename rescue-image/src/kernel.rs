//! The kernel that the rescue system boots: the host's own, or one out of a Debian kernel package.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use layout::system::{Cmd, System};

use crate::deb;
use crate::error::{Error, Result};
use crate::modules;

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
        let running = sys
            .read(Path::new("/proc/sys/kernel/osrelease"))
            .unwrap_or_default();
        Self::of_root(Path::new("/"), String::from_utf8_lossy(&running).trim())
    }

    fn of_root(root: &Path, running: &str) -> Result<Self> {
        if let Some(kernel) = Self::installed(root, running) {
            return Ok(kernel);
        }
        let boot = root.join("boot");
        let mut versions: Vec<String> = fs::read_dir(&boot)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| {
                e.file_name()
                    .to_str()?
                    .strip_prefix("vmlinuz-")
                    .map(str::to_owned)
            })
            .collect();
        versions.sort_by(|a, b| compare_versions(b, a));
        versions.iter().find_map(|v| Self::installed(root, v)).ok_or_else(|| {
            Error::Kernel(format!(
                "this host has no kernel with its modules (looked for /boot/vmlinuz-* with /lib/modules/*; running: \
                 {running}); name a Debian kernel package instead (apt-get download linux-image-amd64 and what it depends on)"
            ))
        })
    }

    /// The pair of this version below `root`, if complete.
    fn installed(root: &Path, version: &str) -> Option<Self> {
        if version.is_empty() {
            return None;
        }
        let image = root.join("boot").join(format!("vmlinuz-{version}"));
        let modules_dir = ["usr/lib/modules", "lib/modules"]
            .iter()
            .map(|d| root.join(d).join(version))
            .find(|d| d.is_dir())?;
        let config = root.join("boot").join(format!("config-{version}"));
        (image.is_file() && modules_dir.join("modules.dep").is_file()).then(|| Self {
            version: version.to_owned(),
            image,
            modules_dir,
            config: config.is_file().then_some(config),
        })
    }

    /// Unpacks the kernel of a Debian kernel package (`linux-image-*.deb`, `proxmox-kernel-*.deb`) below `workdir` and
    /// runs `depmod` there. Modules that no rescue system needs (sound, graphics, wireless ...) are left out.
    pub fn from_package(sys: &dyn System, deb: &Path, workdir: &Path) -> Result<Self> {
        fs::create_dir_all(workdir).map_err(Error::io("create directory", workdir))?;
        deb::unpack(deb, workdir, &|path| {
            if let Some(file) = path.strip_prefix("boot/") {
                return file.starts_with("vmlinuz-") || file.starts_with("config-");
            }
            let path = path.strip_prefix("usr/").unwrap_or(path);
            // lib/modules/<version>/...
            path.strip_prefix("lib/modules/")
                .and_then(|p| p.split_once('/'))
                .is_some_and(|(_, p)| modules::ever_wanted(p))
        })?;
        let image = fs::read_dir(workdir.join("boot"))
            .into_iter()
            .flatten()
            .flatten()
            .find_map(|e| {
                e.file_name()
                    .to_str()
                    .filter(|n| n.starts_with("vmlinuz-"))
                    .map(str::to_owned)
            });
        let version = image
            .as_deref()
            .and_then(|n| n.strip_prefix("vmlinuz-"))
            .ok_or_else(|| {
                Error::Kernel(format!(
                    "{} holds no kernel (boot/vmlinuz-*); a meta package such as linux-image-amd64 does not: take the \
                     package that it depends on",
                    deb.display()
                ))
            })?
            .to_owned();
        // depmod wants lib/modules below its base; on merged hosts `lib` may be the real place of `usr/lib`.
        let merged = workdir.join("usr/lib/modules").is_dir();
        let base = if merged {
            workdir.join("usr")
        } else {
            workdir.to_owned()
        };
        let modules_dir = base.join("lib/modules").join(&version);
        if !modules_dir.join("kernel").is_dir() {
            return Err(Error::Kernel(format!(
                "{} holds a kernel but no modules for {version}",
                deb.display()
            )));
        }
        sys.run(&Cmd::new("depmod").arg("-b").path(&base).arg(&version))?;
        Self::installed(workdir, &version).ok_or_else(|| {
            Error::Kernel(format!(
                "depmod made no modules.dep for {version} below {}",
                workdir.display()
            ))
        })
    }

    /// Whether the build configuration has this option built in. `None`: there is no configuration to look at.
    pub(crate) fn has_builtin(&self, option: &str) -> Option<bool> {
        let config = fs::read_to_string(self.config.as_ref()?).ok()?;
        let line = format!("{option}=y");
        Some(config.lines().any(|l| l == line))
    }
}

/// Numbers in the versions compare as numbers: 6.1.0-9 is older than 6.1.0-10.
fn compare_versions(a: &str, b: &str) -> Ordering {
    fn parts(text: &str) -> Vec<(u64, &str)> {
        text.split(['.', '-', '+', '~'])
            .map(|part| {
                let digits =
                    part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                (part[..digits].parse().unwrap_or(0), &part[digits..])
            })
            .collect()
    }
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::system::Host;

    fn host(versions: &[(&str, bool)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("boot")).unwrap();
        for (version, complete) in versions {
            fs::write(dir.path().join(format!("boot/vmlinuz-{version}")), b"k").unwrap();
            if *complete {
                let modules = dir.path().join("lib/modules").join(version);
                fs::create_dir_all(&modules).unwrap();
                fs::write(modules.join("modules.dep"), b"").unwrap();
            }
        }
        dir
    }

    #[test]
    fn the_running_kernel_comes_first_then_the_newest_complete_one() {
        let dir = host(&[
            ("6.1.0-9-amd64", true),
            ("6.1.0-10-amd64", true),
            ("6.8.12-1-pve", false),
        ]);
        let version = |running: &str| Kernel::of_root(dir.path(), running).unwrap().version;
        assert_eq!(version("6.1.0-9-amd64"), "6.1.0-9-amd64");
        assert_eq!(version("6.8.12-1-pve"), "6.1.0-10-amd64");
    }

    #[test]
    fn a_host_without_a_kernel_is_told_what_to_do() {
        let dir = host(&[("6.1.0-9-amd64", false)]);
        let text = Kernel::of_root(dir.path(), "6.18").unwrap_err().to_string();
        assert!(text.contains("kernel package"), "{text}");
    }

    #[test]
    fn a_package_is_unpacked_and_gets_its_dependency_list() {
        for (member, prefix) in [("data.tar.xz", ""), ("data.tar.zst", "usr/")] {
            let dir = tempfile::tempdir().unwrap();
            let deb = dir.path().join("k.deb");
            let module = format!("{prefix}lib/modules/6.1.0-1-test/kernel/fs/ext4/ext4.ko");
            let sound = format!("{prefix}lib/modules/6.1.0-1-test/kernel/sound/soundcore.ko");
            deb::tests::make(
                &deb,
                member,
                &[
                    ("boot/vmlinuz-6.1.0-1-test", b"kernel"),
                    (
                        "boot/config-6.1.0-1-test",
                        b"CONFIG_RD_ZSTD=y\n# CONFIG_RD_XZ is not set\n",
                    ),
                    (&module, b"not an elf file, which depmod only warns about"),
                    (&sound, b"sound"),
                ],
            );
            let kernel = Kernel::from_package(&Host, &deb, &dir.path().join("w")).unwrap();
            assert_eq!(kernel.version, "6.1.0-1-test");
            assert_eq!(fs::read(&kernel.image).unwrap(), b"kernel");
            assert!(kernel.modules_dir.join("modules.dep").is_file());
            assert!(!kernel.modules_dir.join("kernel/sound").exists());
            assert_eq!(kernel.has_builtin("CONFIG_RD_ZSTD"), Some(true));
            assert_eq!(kernel.has_builtin("CONFIG_RD_XZ"), Some(false));
        }
    }

    #[test]
    fn a_meta_package_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("k.deb");
        deb::tests::make(
            &deb,
            "data.tar.xz",
            &[("usr/share/doc/linux-image-amd64/copyright", b"c")],
        );
        let text = Kernel::from_package(&Host, &deb, &dir.path().join("w"))
            .unwrap_err()
            .to_string();
        assert!(text.contains("meta package"), "{text}");
    }
}
