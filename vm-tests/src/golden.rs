//! The golden hosts: a Debian on several kinds of storage, each built once per recipe, when a scenario wants it, and kept.
//!
//! `golden/build-tree` makes the file tree natively; the tree is the same on all hosts of a kind of tree and is kept by
//! itself. A script of `golden/` puts it on disks inside User Mode Linux (which has the device-mapper, the RAID and the
//! filesystems that the machine at hand may lack): [`Host::script`] for a host, `make-dirty` and its neighbours for disks
//! that other machines left ([`Used`]).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::process::{self, Cmd};
use crate::qemu::{Bus, Drive, Firmware, Machine};
use crate::saved::{HOST_SERIAL, serial_of};

mod host;
mod pve;

pub use host::{Host, PASSPHRASE};

/// Size of the disk of [`Host::PveExt4`], in bytes.
pub const DISK_BYTES: u64 = 6 * GIB;

/// Size of the foreign disk, in bytes: a physical volume may lie on a disk that is larger.
pub const FOREIGN_BYTES: u64 = GIB;

/// The image files of a golden host; not to be written to.
#[derive(Debug, Clone)]
pub struct Golden {
    /// What host it is.
    pub host: Host,
    dir: PathBuf,
}

impl Golden {
    /// The host's disk; the first one when it has several.
    pub fn disk(&self) -> PathBuf {
        self.dir.join(disk_name(0))
    }

    /// The host's disks (raw).
    pub fn disks(&self) -> Vec<PathBuf> {
        (0..self.host.disks().len())
            .map(|n| self.dir.join(disk_name(n)))
            .collect()
    }

    /// A machine with overlays on the disks.
    pub fn machine(&self, name: &str, firmware: Firmware, log: &Artefacts) -> Result<Machine> {
        let mut machine = Machine::new(name, firmware);
        for (n, disk) in self.disks().iter().enumerate() {
            let overlay = log.path(&format!("{name}-{}.qcow2", n + 1));
            disk::overlay(disk, &overlay, log)?;
            machine = machine.drive(Drive::new(overlay, Bus::Virtio, serial_of(HOST_SERIAL, n)));
        }
        Ok(machine)
    }

    /// Names the recipe that the images were made by.
    pub fn key(&self) -> String {
        name_of(&self.dir)
    }

    /// Returns the images of the present recipe; builds them when they are not in the cache (one to five minutes).
    pub fn get(host: Host, cache: &Path, artefacts: &Path) -> Result<Self> {
        let disks = host.disks().iter().enumerate();
        let recipe = Recipe {
            kind: host.name(),
            node: host == Host::PveNode,
            scripts: vec![Script {
                script: host.script(),
                disks: disks.map(|(n, bytes)| (disk_name(n), *bytes)).collect(),
            }],
        };
        let dir = recipe.get(cache, artefacts)?;
        Ok(Self { host, dir })
    }
}

fn disk_name(index: usize) -> String {
    format!("disk-{}.raw", index + 1)
}

/// Disks that other machines, or other installations, left; not to be written to.
#[derive(Debug, Clone)]
pub struct Used {
    dir: PathBuf,
}

impl Used {
    /// A disk of [`DISK_BYTES`] with an old volume group `pve` and old filesystems on it.
    pub fn dirty_disk(&self) -> PathBuf {
        self.dir.join("dirty.raw")
    }

    /// A disk of [`FOREIGN_BYTES`] that another machine's volume group `pve` is on.
    pub fn foreign_disk(&self) -> PathBuf {
        self.dir.join("foreign.raw")
    }

    /// A disk of the size of those of [`Host::Md1`]: a member of old arrays whose names, and whose volume group's name, are
    /// that host's.
    pub fn old_member(&self) -> PathBuf {
        self.dir.join("old-member.raw")
    }

    /// Returns the disks of the present recipe; builds them when they are not in the cache.
    pub fn get(cache: &Path, artefacts: &Path) -> Result<Self> {
        let one = |script, disk: &str, bytes| Script {
            script,
            disks: vec![(disk.to_owned(), bytes)],
        };
        let recipe = Recipe {
            kind: "used",
            node: false,
            scripts: vec![
                one("make-dirty", "dirty.raw", DISK_BYTES),
                one("make-foreign", "foreign.raw", FOREIGN_BYTES),
                one("make-old-member", "old-member.raw", Host::Md1.disks()[0]),
            ],
        };
        let dir = recipe.get(cache, artefacts)?;
        Ok(Self { dir })
    }
}

/// Images that are made together, on the file tree, and kept together.
struct Recipe {
    kind: &'static str,
    /// Whether the tree is that of the Proxmox-like node ([`pve`]).
    node: bool,
    scripts: Vec<Script>,
}

/// A script that runs in User Mode Linux, by its path from `golden/`, and the disks that it fills: name and size.
struct Script {
    script: &'static str,
    disks: Vec<(String, u64)>,
}

/// What the file tree is made of.
const TREE_FILES: [&str; 6] = [
    "build-tree",
    "packages",
    "channel.pl",
    "root-channel.service",
    "make-files",
    "manifest.pl",
];

impl Recipe {
    fn get(&self, cache: &Path, artefacts: &Path) -> Result<PathBuf> {
        fs::create_dir_all(cache).with_context(|| format!("{}", cache.display()))?;
        // Another test program may be building the same.
        let lock = File::create(cache.join("lock"))?;
        let _lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .context("locking the cache of golden hosts")?;
        let suite = suite();
        let tree = hash_of(&TREE_FILES, &suite)?;
        let mut files = vec!["uml-common.sh"];
        let mut said = match self.node {
            true => pve::tree_key(&tree)?,
            false => tree.clone(),
        };
        for script in &self.scripts {
            files.push(script.script);
            said.push_str(&format!("{:?}", script.disks));
        }
        let key = hash_of(&files, &said)?;
        let dir = cache.join(format!("golden-{}-{suite}-{}", self.kind, &key[..16]));
        if dir.exists() {
            return Ok(dir);
        }
        let log = Artefacts::new(artefacts.join(format!("golden-{}", self.kind)))?;
        // What builds that failed have left, and what earlier recipes have.
        drop_entries(cache, |name| {
            name.starts_with("golden-") && name.ends_with(".partial")
                || name.starts_with(&format!("golden-{}-{suite}-", self.kind))
        })?;
        let mut tar = tree_tar(cache, &suite, &tree, &log)?;
        if self.node {
            tar = pve::tree_tar(cache, &suite, &tree, &tar, &log)?;
        }
        self.build(&dir, &tar, &log)?;
        Ok(dir)
    }

    fn build(&self, dir: &Path, tar: &Path, log: &Artefacts) -> Result<()> {
        let work = dir.with_extension("partial");
        let tree = work.join("tree");
        let scripts = tree.join("golden-uml");
        fs::create_dir_all(&tree)?;
        let unpack = Cmd::new("tar")
            .args(["--numeric-owner", "-xpf"])
            .arg(tar)
            .arg("-C")
            .arg(&tree);
        process::run(&unpack, log, std::time::Duration::from_secs(300))?;
        fs::create_dir(&scripts)?;
        fs::hard_link(tar, work.join("tree.tar"))
            .or_else(|_| fs::copy(tar, work.join("tree.tar")).map(drop))?;
        for file in ["uml-common.sh"]
            .into_iter()
            .chain(self.scripts.iter().map(|s| s.script))
        {
            fs::copy(
                recipe_dir().join(file),
                scripts.join(name_of(Path::new(file))),
            )?;
        }
        for script in &self.scripts {
            let mut disks = Vec::new();
            for (name, bytes) in &script.disks {
                let disk = work.join(name);
                disk::blank(&disk, *bytes)?;
                disks.push(disk);
            }
            let script = name_of(Path::new(script.script));
            run_in_uml(&tree, &disks, &script, &work, log)?;
        }
        fs::remove_dir_all(&tree)?;
        fs::remove_file(work.join("tree.tar"))?;
        fs::rename(&work, dir)?;
        Ok(())
    }
}

/// The file tree of this recipe, as an archive; built when it is not in the cache.
fn tree_tar(cache: &Path, suite: &str, key: &str, log: &Artefacts) -> Result<PathBuf> {
    kept_tree(cache, &format!("tree-{suite}-"), key, log, |work| {
        Cmd::new(recipe_dir().join("build-tree"))
            .arg(work.join("tree"))
            .arg(work.join("tree.tar"))
            .arg(cache.join("debs"))
            .env("LIFEBOAT_GOLDEN_SUITE", suite)
    })
}

/// A tree that is made once and kept, as an archive. The program of `command` makes `tree` and `tree.tar` in a directory.
fn kept_tree(
    cache: &Path,
    prefix: &str,
    key: &str,
    log: &Artefacts,
    command: impl FnOnce(&Path) -> Cmd,
) -> Result<PathBuf> {
    let dir = cache.join(format!("{prefix}{}", &key[..16]));
    let tar = dir.join("tree.tar");
    if dir.exists() {
        return Ok(tar);
    }
    drop_entries(cache, |name| name.starts_with(prefix))?;
    let work = dir.with_extension("partial");
    fs::create_dir_all(&work)?;
    let build_log = log.path(&format!("{prefix}build.log"));
    let cmd = command(&work).output_to(&build_log);
    let status = process::spawn(&cmd, log)?.wait()?;
    if !status.success() {
        let said = fs::read_to_string(&build_log).unwrap_or_default();
        bail!(
            "building the golden hosts' tree failed ({status}): {}",
            process::tail(&said, 2000)
        );
    }
    fs::remove_dir_all(work.join("tree"))?;
    fs::rename(&work, &dir)?;
    Ok(tar)
}

fn drop_entries(cache: &Path, unwanted: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        if unwanted(&name_of(&path)) {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Runs one of the recipe's scripts as process 1 of a User Mode Linux with `disks` as `/dev/ubda`, `/dev/ubdb`...
fn run_in_uml(
    tree: &Path,
    disks: &[PathBuf],
    script: &str,
    work: &Path,
    log: &Artefacts,
) -> Result<()> {
    let console = log.path(&format!("{script}.uml.log"));
    let option = |name: &str, path: &Path| format!("{name}={}", path.to_string_lossy());
    let mut cmd = Cmd::new("timeout").args([
        "--kill-after=5",
        "900",
        "linux.uml",
        "mem=1G",
        "rw",
        "quiet",
        "con=null",
        "con0=null,fd:1",
    ]);
    for (number, disk) in disks.iter().enumerate() {
        cmd = cmd.arg(option(&format!("ubd{number}"), disk));
    }
    let cmd = cmd
        .arg("rootfstype=hostfs")
        .arg(option("rootflags", tree))
        .arg(format!("init=/golden-uml/{script}"))
        .arg(option("golden_work", work))
        // Lets UML save the registers of newer processors; see src/uml/ptrace_shim.rs.
        .env("LD_PRELOAD", env!("UML_PTRACE_SHIM"))
        .output_to(&console);
    process::spawn(&cmd, log)?.wait()?;
    let said = fs::read_to_string(&console).unwrap_or_default();
    if !said.lines().any(|line| line == "golden: done") {
        bail!(
            "{script} failed in User Mode Linux ({}):\n{}",
            console.display(),
            process::tail(&said, 3000)
        );
    }
    Ok(())
}

/// What is missing to build the golden host; none when it is in the cache or can be built.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("building the golden host needs root".to_owned());
    }
    for program in ["debootstrap", "linux.uml", "setpriv", "timeout"] {
        if !process::installed(program) {
            return Some(format!("{program} is not installed"));
        }
    }
    None
}

/// Where the golden hosts are kept: `$LIFEBOAT_VM_CACHE`, else `vm-cache` in cargo's target directory.
pub fn cache_dir() -> PathBuf {
    match std::env::var_os("LIFEBOAT_VM_CACHE") {
        Some(dir) if !dir.is_empty() => dir.into(),
        _ => target_dir().join("vm-cache"),
    }
}

/// Cargo's target directory: the one that this program was built into.
pub fn target_dir() -> PathBuf {
    let profile = crate::product::profile_dir();
    profile
        .parent()
        .map_or_else(|| profile.clone(), Path::to_owned)
}

fn recipe_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The Debian release of the golden host: that of this machine, whose C library the product's binaries need.
pub(crate) fn suite() -> String {
    if let Ok(suite) = std::env::var("LIFEBOAT_GOLDEN_SUITE") {
        return suite;
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    match codename {
        Some("trixie") => "trixie".to_owned(),
        _ => "bookworm".to_owned(),
    }
}

/// Names files of the recipe by their contents, and what else decides.
fn hash_of(files: &[&str], more: &str) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(more);
    for file in files {
        let path = recipe_dir().join(file);
        let content = fs::read(&path).with_context(|| format!("{}", path.display()))?;
        hash.update(file);
        hash.update(content.len().to_le_bytes());
        hash.update(content);
    }
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_named_by_all_that_it_is_made_of() {
        let all = hash_of(&TREE_FILES, "bookworm").unwrap();
        assert_ne!(all, hash_of(&TREE_FILES, "trixie").unwrap());
        assert_ne!(all, hash_of(&TREE_FILES[1..], "bookworm").unwrap());
        hash_of(&["no-such-file"], "").unwrap_err();
        for host in Host::ALL {
            hash_of(&[host.script()], "").unwrap();
        }
    }
}
