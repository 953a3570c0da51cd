//! Finds everything that goes into the rescue system, without copying it yet: the list is what the fingerprint is of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Compression, InitramfsSpec, MissingTool, ModuleSet, etc, tools, zfs};
use crate::elf::{self, Libraries};
use crate::error::{Error, Result};
use crate::modules;

/// Raised when the same inputs give another image.
const RECIPE: u32 = 1;

/// One path of the rescue system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A copy of a file of the host.
    File { from: PathBuf, mode: u32 },
    /// A kernel module: copied, and unpacked when it is compressed.
    Module { from: PathBuf },
    /// A file that is written here.
    Text(String),
    /// A symbolic link.
    Link(PathBuf),
    /// An empty folder.
    Folder(u32),
}

/// Everything that goes in, by path without the leading `/`.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub entries: BTreeMap<PathBuf, Entry>,
    pub tools: BTreeSet<String>,
    pub missing: Vec<MissingTool>,
    pub modules: Vec<String>,
}

/// Folders where programs are looked for, as in root's PATH on Debian.
const PATH: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// `/bin/x` and `/usr/bin/x` are the same place in the rescue system, whatever they are on this host.
fn merged(path: &Path) -> PathBuf {
    let mut parts = path
        .components()
        .filter(|c| !matches!(c, Component::RootDir));
    let first = parts.clone().next().map(|c| c.as_os_str().to_owned());
    match first.as_deref().and_then(|f| f.to_str()) {
        Some("bin" | "sbin" | "lib" | "lib64") => Path::new("usr").join(parts.collect::<PathBuf>()),
        _ => parts.by_ref().collect(),
    }
}

struct Collector {
    content: Content,
    libraries: Libraries,
    /// Libraries whose needs are known.
    seen: BTreeSet<PathBuf>,
}

impl Collector {
    fn put(&mut self, path: impl AsRef<Path>, entry: Entry) {
        self.content.entries.insert(merged(path.as_ref()), entry);
    }

    fn find(name: &str) -> Option<PathBuf> {
        PATH.iter()
            .map(|d| Path::new(d).join(name))
            .find(|p| p.is_file())
    }

    /// Adds a file under the path where the host has it, with the links that lead to it, and what it needs to run.
    fn add_file(&mut self, path: &Path) -> Result<()> {
        let real = fs::canonicalize(path).map_err(Error::io("find", path))?;
        if merged(path) != merged(&real) {
            self.put(path, Entry::Link(Path::new("/").join(merged(&real))));
        }
        if self.content.entries.contains_key(&merged(&real)) {
            return Ok(());
        }
        let mode = fs::metadata(&real)
            .map_err(Error::io("read", &real))?
            .permissions()
            .mode()
            & 0o755;
        self.put(
            &real,
            Entry::File {
                from: real.clone(),
                mode,
            },
        );
        let start = first_bytes(&real)?;
        if elf::is_elf(&start) {
            self.add_libraries(&real)?;
        } else if let Some(line) = start.strip_prefix(b"#!") {
            let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            let interpreter = line.split_whitespace().next().unwrap_or_default();
            // Our shell is bash whatever /bin/sh is on this host.
            if !interpreter.is_empty() && !interpreter.ends_with("/sh") {
                self.add_file(Path::new(interpreter))?;
            }
        }
        Ok(())
    }

    fn add_libraries(&mut self, program: &Path) -> Result<()> {
        for library in elf::closure(&self.libraries, program, &mut self.seen)? {
            self.add_library(&library)?;
        }
        Ok(())
    }

    /// A library keeps the name by which it is asked for; the loader's fixed place is kept, too.
    fn add_library(&mut self, path: &Path) -> Result<()> {
        let real = fs::canonicalize(path).map_err(Error::io("find", path))?;
        if merged(path) != merged(&real) {
            self.put(path, Entry::Link(Path::new("/").join(merged(&real))));
        }
        let mode = fs::metadata(&real)
            .map_err(Error::io("read", &real))?
            .permissions()
            .mode()
            & 0o755;
        self.put(
            &real,
            Entry::File {
                from: real.clone(),
                mode,
            },
        );
        Ok(())
    }

    fn tools(&mut self, slim: bool) -> Result<()> {
        let mut lost: Vec<&tools::Tool> = Vec::new();
        for tool in tools::TOOLS.iter().filter(|t| !(slim && t.comfort)) {
            match tool.names.iter().find_map(|n| Self::find(n)) {
                Some(path) => {
                    self.add_file(&path)?;
                    self.content.tools.insert(tool.names[0].to_owned());
                }
                None if tool.required => lost.push(tool),
                None => self.content.missing.push(MissingTool {
                    name: tool.names[0].to_owned(),
                    package: tool.package.to_owned(),
                }),
            }
        }
        if !lost.is_empty() {
            let packages: BTreeSet<_> = lost.iter().map(|t| t.package.to_owned()).collect();
            return Err(Error::MissingTools {
                programs: lost.iter().map(|t| t.names[0].to_owned()).collect(),
                packages: packages.into_iter().collect(),
            });
        }
        Ok(())
    }

    fn device_manager(&mut self) -> Result<()> {
        let daemon = tools::UDEVD
            .iter()
            .map(Path::new)
            .find(|p| p.is_file())
            .ok_or_else(|| Error::MissingTools {
                programs: vec!["systemd-udevd".into()],
                packages: vec!["udev".into()],
            })?;
        self.add_file(daemon)?;
        let folders = ["/usr/lib/udev", "/lib/udev"];
        for (names, below) in [(tools::UDEV_RULES, "rules.d"), (tools::UDEV_HELPERS, "")] {
            for name in names {
                if let Some(path) = folders
                    .iter()
                    .map(|f| Path::new(f).join(below).join(name))
                    .find(|p| p.is_file())
                {
                    self.add_file(&path)?;
                }
            }
        }
        Ok(())
    }

    fn fixed(&mut self) -> Result<()> {
        for folder in [
            "proc",
            "sys",
            "run",
            "mnt",
            "target",
            "var/log",
            "var/lib",
            "etc/modprobe.d",
            "usr/local/bin",
        ] {
            self.put(folder, Entry::Folder(0o755));
        }
        self.put("tmp", Entry::Folder(0o1777));
        self.put("root", Entry::Folder(0o700));
        self.put("dev", Entry::Folder(0o755));
        // `put` would take these for folders of a merged system.
        for (link, to) in [
            ("bin", "usr/bin"),
            ("sbin", "usr/sbin"),
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
        ] {
            self.content
                .entries
                .insert(link.into(), Entry::Link(to.into()));
        }
        for folder in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64"] {
            self.put(folder, Entry::Folder(0o755));
        }
        self.put("var/run", Entry::Link("/run".into()));
        self.put("var/lock", Entry::Link("/run/lock".into()));
        self.put("etc/mtab", Entry::Link("/proc/self/mounts".into()));
        self.put("usr/bin/sh", Entry::Link("bash".into()));
        for (path, text) in [
            ("etc/passwd", etc::PASSWD),
            ("etc/group", etc::GROUP),
            ("etc/nsswitch.conf", etc::NSSWITCH),
            ("etc/ld.so.conf", etc::LD_SO_CONF),
            ("etc/lvm/lvm.conf", etc::LVM_CONF),
            ("etc/udev/udev.conf", etc::UDEV_CONF),
            ("etc/profile", etc::PROFILE),
            ("etc/fstab", ""),
            ("etc/hostname", "lifeboat\n"),
            ("etc/udev/rules.d/70-lifeboat.rules", etc::LIFEBOAT_RULES),
            (
                "etc/udev/rules.d/75-lifeboat-network.rules",
                etc::NETWORK_RULES,
            ),
        ] {
            self.put(path, Entry::Text(text.to_owned()));
        }
        for path in tools::FILES.iter().map(Path::new).filter(|p| p.is_file()) {
            self.add_file(path)?;
        }
        for name in tools::TERMINFO {
            for folder in ["/lib/terminfo", "/usr/share/terminfo"] {
                let path = Path::new(folder).join(name);
                if path.is_file() {
                    self.add_file(&path)?;
                    break;
                }
            }
        }
        for name in tools::OPENED_LIBRARIES {
            if let Some(path) = self.libraries.find_optional(name) {
                self.add_library(&path)?;
                self.add_libraries(&path)?;
            }
        }
        Ok(())
    }

    /// Tools of ZFS, where there is a pool.
    fn zfs(&mut self) -> Result<()> {
        for (n, name) in zfs::TOOLS.iter().enumerate() {
            match Self::find(name) {
                Some(path) => {
                    self.add_file(&path)?;
                    self.content.tools.insert((*name).to_owned());
                }
                None if n < zfs::NEEDED => self.content.missing.push(MissingTool {
                    name: (*name).to_owned(),
                    package: zfs::PACKAGE.to_owned(),
                }),
                None => {}
            }
        }
        // Without them, pools that are bound to a list can be made with the features they have all the same.
        for entry in fs::read_dir(zfs::COMPATIBILITY)
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.path().is_file() {
                self.add_file(&entry.path())?;
            }
        }
        Ok(())
    }

    fn modules(&mut self, spec: &InitramfsSpec, pools: bool) -> Result<()> {
        let more: &[&str] = if pools { &[zfs::MODULE] } else { &[] };
        let chosen = modules::select(&spec.kernel.modules_dir, spec.modules, more)?;
        if pools
            && !chosen
                .iter()
                .any(|path| modules::name_of(path).as_deref() == Some(zfs::MODULE))
        {
            self.content.missing.push(MissingTool {
                name: format!("kernel module {} for {}", zfs::MODULE, spec.kernel.version),
                package: zfs::MODULE_PACKAGE.to_owned(),
            });
        }
        let to = Path::new("usr/lib/modules").join(&spec.kernel.version);
        for module in &chosen {
            let from = spec.kernel.modules_dir.join(module);
            self.put(to.join(modules::plain_path(module)), Entry::Module { from });
        }
        // depmod reads these to know what the kernel has built in.
        for list in [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ] {
            let from = spec.kernel.modules_dir.join(list);
            if from.is_file() {
                self.put(to.join(list), Entry::File { from, mode: 0o644 });
            }
        }
        self.content.modules = chosen;
        Ok(())
    }
}

fn first_bytes(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut start = Vec::new();
    let file = fs::File::open(path).map_err(Error::io("open", path))?;
    file.take(256)
        .read_to_end(&mut start)
        .map_err(Error::io("read", path))?;
    Ok(start)
}

/// Finds everything that `spec` asks for.
pub(crate) fn collect(spec: &InitramfsSpec) -> Result<Content> {
    let mut all = Collector {
        content: Content::default(),
        libraries: Libraries::of_host(),
        seen: BTreeSet::new(),
    };
    all.fixed()?;
    all.tools(spec.modules == ModuleSet::Slim)?;
    all.device_manager()?;
    let pools = zfs::has_pools(Path::new(zfs::POOLS));
    if pools {
        all.zfs()?;
    }
    all.modules(spec, pools)?;
    let binary = &spec.rescue_binary;
    let start = first_bytes(binary)?;
    if elf::is_elf(&start) {
        all.add_libraries(binary)?;
    }
    all.put(
        "init",
        Entry::File {
            from: binary.clone(),
            mode: 0o755,
        },
    );
    for file in &spec.extra_files {
        let start = first_bytes(&file.from)?;
        if elf::is_elf(&start) {
            all.add_libraries(&file.from)?;
        }
        all.put(
            &file.to,
            Entry::File {
                from: file.from.clone(),
                mode: file.mode & 0o7777,
            },
        );
    }
    Ok(all.content)
}

impl Content {
    /// SHA-256 over everything that decides what the image holds. The kernel's and the host's own files count by path,
    /// size and time of change; ours, which every build of the program touches, by content.
    pub(crate) fn fingerprint(&self, spec: &InitramfsSpec, how: Compression) -> Result<String> {
        let mut hash = Sha256::new();
        let mut line = |text: String| {
            hash.update(text.as_bytes());
            hash.update(b"\n");
        };
        line(format!(
            "recipe {RECIPE} {how:?} {:?} {} {}",
            spec.modules, spec.version, spec.host
        ));
        let stamp = |path: &Path| -> Result<String> {
            let meta = fs::metadata(path).map_err(Error::io("read", path))?;
            Ok(format!(
                "{} {} {}.{}",
                path.display(),
                meta.len(),
                meta.mtime(),
                meta.mtime_nsec()
            ))
        };
        line(format!(
            "kernel {} {}",
            spec.kernel.version,
            stamp(&spec.kernel.image)?
        ));
        let own = |from: &Path| {
            from == spec.rescue_binary || spec.extra_files.iter().any(|f| f.from == from)
        };
        for (path, entry) in &self.entries {
            let path = path.display();
            line(match entry {
                Entry::File { from, mode } if own(from) => {
                    let content = fs::read(from).map_err(Error::io("read", from))?;
                    format!("{path} {mode:o} {}", hex::encode(Sha256::digest(content)))
                }
                Entry::File { from, mode } => format!("{path} {mode:o} {}", stamp(from)?),
                Entry::Module { from } => format!("{path} {}", stamp(from)?),
                Entry::Text(text) => format!("{path} {}", hex::encode(Sha256::digest(text))),
                Entry::Link(to) => format!("{path} -> {}", to.display()),
                Entry::Folder(mode) => format!("{path} {mode:o}"),
            });
        }
        Ok(hex::encode(hash.finalize()))
    }

    /// Copies everything below `root`.
    pub(crate) fn stage(&self, root: &Path) -> Result<()> {
        fs::create_dir_all(root.join("etc/lifeboat"))
            .map_err(Error::io("create directory", root))?;
        let set_mode = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
                .map_err(Error::io("change the mode of", path))
        };
        // The folders of the merged system come first, so that the links `bin`, `lib` ... never become folders.
        for (path, entry) in &self.entries {
            let to = root.join(path);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(Error::io("create directory", parent))?;
            }
            match entry {
                Entry::File { from, mode } => {
                    fs::copy(from, &to).map_err(Error::io("copy", from))?;
                    set_mode(&to, *mode)?;
                }
                Entry::Module { from } => {
                    fs::write(&to, modules::load(from)?).map_err(Error::io("write", &to))?;
                    set_mode(&to, 0o644)?;
                }
                Entry::Text(text) => {
                    fs::write(&to, text).map_err(Error::io("write", &to))?;
                    set_mode(&to, 0o644)?;
                }
                Entry::Link(target) => symlink(target, &to).map_err(Error::io("create", &to))?,
                Entry::Folder(mode) => {
                    fs::create_dir_all(&to).map_err(Error::io("create directory", &to))?;
                    set_mode(&to, *mode)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_merged_places_are_one() {
        assert_eq!(merged(Path::new("/bin/bash")), Path::new("usr/bin/bash"));
        assert_eq!(
            merged(Path::new("/usr/bin/bash")),
            Path::new("usr/bin/bash")
        );
        assert_eq!(
            merged(Path::new("/lib64/ld-linux-x86-64.so.2")),
            Path::new("usr/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(merged(Path::new("/etc/x")), Path::new("etc/x"));
        assert_eq!(merged(Path::new("var/run")), Path::new("var/run"));
    }
}
