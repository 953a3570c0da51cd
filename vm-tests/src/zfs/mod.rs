//! Machines with OpenZFS, which User Mode Linux cannot have: a Debian tree with the modules built for its kernel, started by
//! QEMU with that kernel directly.
//!
//! The recipe is `golden-zfs/`: `build-modules` builds the kernel's modules (five to ten minutes, once for each recipe),
//! `golden/build-tree` the tree. On the tree, read-only, run the storage floor's layout files that have a pool ([`floor`]),
//! and `make-disk`, which makes the disks of a host ([`Host`]).

pub mod floor;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::golden;
use crate::process::{self, Cmd, run};
use crate::qemu::{Bus, Direct, Drive, Firmware, Machine};

/// Size of each of the host's disks, in bytes.
pub const DISK_BYTES: u64 = 4 * GIB;

/// Files of `golden/` that the tree is made of.
const COMMON: [&str; 6] = [
    "build-tree",
    "packages",
    "channel.pl",
    "root-channel.service",
    "make-files",
    "manifest.pl",
];

/// The tree, as files for machines; not to be written to.
#[derive(Debug, Clone)]
pub struct Tree {
    dir: PathBuf,
}

fn recipes() -> (PathBuf, PathBuf) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    (here.join("golden"), here.join("golden-zfs"))
}

/// All files below a directory, sorted.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("{}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Names files by their contents.
fn hash_of(files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(golden::suite());
    for path in files {
        let content = fs::read(path).with_context(|| format!("{}", path.display()))?;
        hash.update(content.len().to_le_bytes());
        hash.update(content);
    }
    Ok(hex::encode(hash.finalize())[..16].to_owned())
}

/// Runs one of the recipe's programs; what it says goes to a log.
fn script(cmd: Cmd, name: &str, log: &Artefacts) -> Result<()> {
    let said = log.path(&format!("{name}.log"));
    let cmd = cmd
        .env("LIFEBOAT_GOLDEN_SUITE", golden::suite())
        .output_to(&said);
    let status = process::spawn(&cmd, log)?.wait()?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(&said).unwrap_or_default();
    bail!("{name} failed ({status}): {}", process::tail(&text, 2000))
}

/// What is made once and kept: `make` fills the directory that is renamed to `name` when it is complete. Others of the same
/// kind go.
fn kept(
    cache: &Path,
    kind: &str,
    key: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let dir = cache.join(format!("{kind}-{key}"));
    if dir.exists() {
        return Ok(dir);
    }
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&format!("{kind}-")) {
            fs::remove_dir_all(&path)?;
        }
    }
    let work = cache.join(format!("{kind}-{key}.partial"));
    fs::create_dir_all(&work)?;
    make(&work)?;
    fs::rename(&work, &dir)?;
    Ok(dir)
}

impl Tree {
    /// Returns the tree of the present recipe; builds it when it is not in the cache.
    pub fn get(cache: &Path, artefacts: &Path) -> Result<Self> {
        fs::create_dir_all(cache).with_context(|| format!("{}", cache.display()))?;
        let lock = File::create(cache.join("zfs-lock"))?;
        let _lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .context("locking the cache of trees with ZFS")?;
        let (common, own) = recipes();
        let mut files: Vec<PathBuf> = COMMON.iter().map(|name| common.join(name)).collect();
        // What machines on the tree run comes in a shared directory.
        let machine = own.join("machine");
        let own = files_below(&own)?;
        files.extend(own.into_iter().filter(|path| !path.starts_with(&machine)));
        let dir = kept(cache, "zfs-tree", &hash_of(&files)?, |work| {
            let log = Artefacts::new(artefacts.join("golden-zfs"))?;
            build(cache, work, &log)
        })?;
        Ok(Self { dir })
    }

    /// The archive that a host's root is made of.
    pub fn tar(&self) -> PathBuf {
        self.dir.join("tree.tar")
    }

    /// Names the recipe.
    pub fn key(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// A machine that runs a program of `golden-zfs/machine` as process 1, with `share` at `/mnt`; its further disks are
    /// `/dev/vdb`, `/dev/vdc`...
    pub fn machine(&self, program: &str, share: &Path) -> Result<Machine> {
        let (_, own) = recipes();
        for name in ["common.sh", program] {
            fs::copy(own.join("machine").join(name), share.join(name))
                .with_context(|| format!("copying {name} to {}", share.display()))?;
        }
        let machine = Machine::new(program, Firmware::Bios)
            .memory(2048)
            .direct(Direct {
                kernel: self.dir.join("vmlinuz"),
                initrd: self.dir.join("initrd.img"),
                // The tree is on a disk like others: nothing may come to write to it, and nothing has to.
                append: format!(
                    "root=/dev/vda ro console=ttyS0,115200 quiet init=/golden-init golden={program}"
                ),
            })
            .share(share)
            .drive(Drive::new(self.dir.join("floor.raw"), Bus::Virtio, "TREE").read_only());
        Ok(machine)
    }
}

/// Builds modules and tree.
fn build(cache: &Path, work: &Path, log: &Artefacts) -> Result<()> {
    let (common, own) = recipes();
    let debs = cache.join("debs-zfs");
    let tree = work.join("tree");
    let modules = modules(cache, &debs, log)?;
    let build_tree = |modules: &Path| -> Result<()> {
        let extra = work.join("extra");
        fs::create_dir_all(&extra)?;
        run(
            &Cmd::new("cp").arg("-a").arg(own.join(".")).arg(&extra),
            log,
            Duration::from_secs(60),
        )?;
        fs::copy(modules.join("modules.tar"), extra.join("modules.tar"))?;
        let cmd = Cmd::new(common.join("build-tree"))
            .arg(&tree)
            .arg(work.join("tree.tar"))
            .arg(&debs)
            .env("LIFEBOAT_GOLDEN_EXTRA", &extra);
        script(cmd, "build-tree", log)?;
        fs::remove_dir_all(&extra)?;
        Ok(())
    };
    match build_tree(&modules) {
        Err(error) if error.to_string().contains("is for another kernel") => {
            // Debian has a new kernel since the modules were built.
            fs::remove_dir_all(&modules)?;
            build_tree(&self::modules(cache, &debs, log)?)?;
        }
        other => other?,
    }
    let boot = |prefix: &str| -> Result<PathBuf> {
        let names = files_below(&tree.join("boot"))?;
        let found = names.into_iter().find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(prefix)
        });
        found.with_context(|| format!("the tree has no {prefix}*"))
    };
    fs::copy(boot("vmlinuz-")?, work.join("vmlinuz"))?;
    fs::copy(boot("initrd.img-")?, work.join("initrd.img"))?;
    fs::copy(own.join("init"), tree.join("golden-init"))?;
    let image = work.join("floor.raw");
    disk::blank(&image, 3 * GIB / 2)?;
    // Without a journal, which would be written to when it is mounted, and cannot be on a disk that is made read-only.
    let cmd = Cmd::new("mkfs.ext4").args(["-q", "-F", "-O", "^has_journal", "-d"]);
    run(&cmd.arg(&tree).arg(&image), log, Duration::from_secs(300))?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}

/// The kernel's modules.
fn modules(cache: &Path, debs: &Path, log: &Artefacts) -> Result<PathBuf> {
    let (_, own) = recipes();
    let program = own.join("build-modules");
    kept(
        cache,
        "zfs-modules",
        &hash_of(std::slice::from_ref(&program))?,
        |work| {
            let cmd = Cmd::new(&program)
                .arg(work.join("tree"))
                .arg(work.join("modules.tar"))
                .arg(debs);
            script(cmd, "build-modules", log)
        },
    )
}

/// A host with its root on a mirror of two disks; not to be written to.
#[derive(Debug, Clone)]
pub struct Host {
    dir: PathBuf,
}

impl Host {
    /// Returns the host of the present recipe; makes its disks when they are not in the cache.
    pub fn get(cache: &Path, artefacts: &Path) -> Result<Self> {
        let tree = Tree::get(cache, artefacts)?;
        let (_, own) = recipes();
        let scripts = ["common.sh", "make-disk"].map(|name| own.join("machine").join(name));
        let key = format!(
            "{}-{}",
            tree.key().replace("zfs-tree-", ""),
            hash_of(&scripts)?
        );
        let dir = kept(cache, "zfs-host", &key, |work| {
            let log = Artefacts::new(artefacts.join("golden-zfs-host"))?;
            let share = log.path("share");
            fs::create_dir(&share)?;
            fs::hard_link(tree.tar(), share.join("tree.tar"))
                .or_else(|_| fs::copy(tree.tar(), share.join("tree.tar")).map(drop))?;
            let mut machine = tree.machine("make-disk", &share)?;
            for n in 0..2 {
                let image = work.join(disk_name(n));
                disk::blank(&image, DISK_BYTES)?;
                machine = machine.drive(Drive::new(image, Bus::Virtio, format!("HOST-{n}")));
            }
            let said = floor::to_the_end(machine, Duration::from_secs(900), &log)?;
            if !said.lines().any(|line| line.trim() == "golden: done") {
                bail!("make-disk failed: {}", process::tail(&said, 3000));
            }
            fs::remove_dir_all(share)?;
            Ok(())
        })?;
        Ok(Self { dir })
    }

    /// Its disks (raw, [`DISK_BYTES`] each).
    pub fn disks(&self) -> [PathBuf; 2] {
        [0, 1].map(|n| self.dir.join(disk_name(n)))
    }
}

fn disk_name(index: usize) -> String {
    format!("disk-{}.raw", index + 1)
}

/// Why there can be no machines with ZFS here; `None`: there can.
pub fn missing() -> Option<String> {
    let absent = ["mkfs.ext4", "debootstrap"]
        .into_iter()
        .find(|program| !process::installed(program));
    golden::missing()
        .or_else(|| crate::qemu::missing(Firmware::Bios))
        .or_else(|| absent.map(|program| format!("{program} is not installed")))
}
