//! The golden host: a Debian with the disk layout of the Proxmox VE installer, built once per recipe and kept.
//!
//! `golden/build-tree` makes the file tree natively, `golden/make-disk` puts it on a disk inside User Mode Linux (which
//! has the device-mapper that the machine at hand may lack), `golden/make-dirty` leaves on another disk what an earlier
//! installation leaves, `golden/make-foreign` makes a disk of another machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::process::{self, Cmd};

/// Size of the golden host's disk, in bytes.
pub const DISK_BYTES: u64 = 6 * GIB;

/// Size of the foreign disk, in bytes: a physical volume may lie on a disk that is larger.
pub const FOREIGN_BYTES: u64 = GIB;

/// The image files of the golden host; not to be written to.
#[derive(Debug, Clone)]
pub struct Golden {
    dir: PathBuf,
}

impl Golden {
    /// The host's disk (raw, [`DISK_BYTES`]).
    pub fn disk(&self) -> PathBuf {
        self.dir.join("golden.raw")
    }

    /// A disk of the same size with an old volume group `pve` and old filesystems on it.
    pub fn dirty_disk(&self) -> PathBuf {
        self.dir.join("dirty.raw")
    }

    /// A disk of [`FOREIGN_BYTES`] that another machine's volume group `pve` is on.
    pub fn foreign_disk(&self) -> PathBuf {
        self.dir.join("foreign.raw")
    }

    /// Names the recipe that the images were made by.
    pub fn key(&self) -> String {
        self.dir
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Returns the images of the present recipe; builds them when they are not in the cache (three to five minutes).
    pub fn get(cache: &Path, artefacts: &Path) -> Result<Self> {
        fs::create_dir_all(cache).with_context(|| format!("{}", cache.display()))?;
        // Another test program may be building the same.
        let lock = File::create(cache.join("lock"))?;
        let _lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .context("locking the cache of golden hosts")?;
        let suite = suite();
        let name = format!("golden-{suite}-{}", &recipe_hash(&suite)?[..16]);
        let golden = Self {
            dir: cache.join(&name),
        };
        if !golden.dir.exists() {
            golden.build(
                cache,
                &suite,
                &Artefacts::new(artefacts.join("golden-host"))?,
            )?;
        }
        Ok(golden)
    }

    fn build(&self, cache: &Path, suite: &str, log: &Artefacts) -> Result<()> {
        // What builds that failed have left, whatever their recipe was.
        for entry in fs::read_dir(cache)? {
            let path = entry?.path();
            if is_partial(&path) {
                fs::remove_dir_all(path)?;
            }
        }
        let work = self.dir.with_extension("partial");
        fs::create_dir_all(&work)?;
        let (tree, tar) = (work.join("tree"), work.join("tree.tar"));
        let build_log = log.path("build-tree.log");
        let cmd = Cmd::new(recipe_dir().join("build-tree"))
            .arg(&tree)
            .arg(&tar)
            .arg(cache.join("debs"))
            .env("LIFEBOAT_GOLDEN_SUITE", suite)
            .output_to(&build_log);
        let status = process::spawn(&cmd, log)?.wait()?;
        if !status.success() {
            let said = fs::read_to_string(&build_log).unwrap_or_default();
            bail!(
                "building the golden host's tree failed ({status}): {}",
                process::tail(&said, 2000)
            );
        }
        let scripts = tree.join("golden-uml");
        fs::create_dir(&scripts)?;
        for script in ["uml-common.sh", "make-disk", "make-dirty", "make-foreign"] {
            fs::copy(recipe_dir().join(script), scripts.join(script))?;
        }
        for (disk, script, bytes) in [
            ("golden.raw", "make-disk", DISK_BYTES),
            ("dirty.raw", "make-dirty", DISK_BYTES),
            ("foreign.raw", "make-foreign", FOREIGN_BYTES),
        ] {
            let disk = work.join(disk);
            disk::blank(&disk, bytes)?;
            run_in_uml(&tree, &disk, script, &work, log)?;
        }
        fs::remove_dir_all(&tree)?;
        fs::remove_file(&tar)?;
        fs::rename(&work, &self.dir)?;
        Ok(())
    }
}

fn is_partial(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("golden-") && name.ends_with(".partial")
}

/// Runs one of the recipe's scripts as process 1 of a User Mode Linux with `disk` as `/dev/ubda`.
fn run_in_uml(tree: &Path, disk: &Path, script: &str, work: &Path, log: &Artefacts) -> Result<()> {
    let console = log.path(&format!("{script}.uml.log"));
    let option = |name: &str, path: &Path| format!("{name}={}", path.to_string_lossy());
    let cmd = Cmd::new("timeout")
        .args([
            "--kill-after=5",
            "900",
            "linux.uml",
            "mem=1G",
            "rw",
            "quiet",
            "con=null",
            "con0=null,fd:1",
        ])
        .arg(option("ubd0", disk))
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
fn suite() -> String {
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

fn recipe_hash(suite: &str) -> Result<String> {
    let mut files: Vec<_> = fs::read_dir(recipe_dir())?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    let mut hash = Sha256::new();
    hash.update(suite);
    hash.update(DISK_BYTES.to_le_bytes());
    for file in files {
        hash.update(file.file_name().as_encoded_bytes());
        hash.update(fs::read(file.path())?);
    }
    Ok(hex::encode(hash.finalize()))
}
