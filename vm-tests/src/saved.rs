//! The backup that scenarios share: a golden host saved onto a stick, once for each firmware and each build of the product.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::golden::{Golden, cache_dir};
use crate::product::Product;
use crate::qemu::{Bus, Drive, Firmware, Machine, Running};
use crate::verdict::HostFacts;

/// Serial number of the golden host's disk.
pub const HOST_SERIAL: &str = "GOLDEN";
/// Serial number of the stick.
pub const STICK_SERIAL: &str = "STICK";
/// A file of the golden host whose content does not compress, so that it lies in the store as it is.
pub const PROBE_FILE: &str = "/srv/files/big/random";
/// Where in [`PROBE_FILE`] the bytes of [`Saved::probe`] are.
const PROBE_AT: u64 = 13_000_000;

/// A stick with one restore point of the golden host, and what that host said about itself before.
#[derive(Debug, Clone)]
pub struct Saved {
    dir: PathBuf,
    /// The golden host it was made of.
    pub golden: Golden,
    /// The programs it was made by.
    pub product: Product,
}

/// One backup at a time for each firmware, so that the second scenario finds the first one's.
static BIOS: Mutex<()> = Mutex::new(());
static UEFI: Mutex<()> = Mutex::new(());

impl Saved {
    /// Returns the stick of this build of the product; makes it when there is none (its log is below `artefacts`).
    pub fn get(firmware: Firmware, artefacts: &Path) -> Result<Self> {
        let _one = match firmware {
            Firmware::Bios => &BIOS,
            Firmware::Uefi => &UEFI,
        }
        .lock()
        .unwrap_or_else(|e| e.into_inner());
        let cache = cache_dir();
        let golden = Golden::get(&cache, artefacts)?;
        let product = Product::find().map_err(anyhow::Error::msg)?;
        let prefix = format!("saved-{}-", firmware.name());
        let name = format!("{prefix}{}-{}", &product.key()?[..16], golden.key());
        let saved = Self {
            dir: cache.join(&name),
            golden,
            product,
        };
        if saved.dir.exists() {
            return Ok(saved);
        }
        // Those of earlier builds are of no use any more.
        for entry in fs::read_dir(&cache)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let log = Artefacts::new(artefacts.join(format!("backup-{}", firmware.name())))?;
        saved.make(firmware, &log).with_context(|| {
            format!(
                "making the backup that scenarios share failed; all is kept in {}",
                log.dir().display()
            )
        })?;
        log.drop_disks()?;
        Ok(saved)
    }

    /// The stick; not to be written to.
    pub fn stick(&self) -> PathBuf {
        self.dir.join("stick.raw")
    }

    /// What the host said about itself before the backup.
    pub fn facts(&self) -> Result<HostFacts> {
        Ok(serde_json::from_slice(&fs::read(
            self.dir.join("facts.json"),
        )?)?)
    }

    /// 64 bytes out of [`PROBE_FILE`].
    pub fn probe(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.dir.join("probe"))?)
    }

    fn make(&self, firmware: Firmware, log: &Artefacts) -> Result<()> {
        let work = self.dir.with_extension("partial");
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(&work)?;
        let (root, stick, share) = (
            log.path("root.qcow2"),
            log.path("stick.raw"),
            log.path("share"),
        );
        disk::overlay(&self.golden.disk(), &root, log)?;
        disk::blank(&stick, 4 * GIB)?;
        self.product.copy_to(&share, log)?;
        let mut host = Machine::new("host", firmware)
            .memory(2048)
            .share(&share)
            .drive(Drive::new(&root, Bus::Virtio, HOST_SERIAL))
            .drive(Drive::new(&stick, Bus::Usb, STICK_SERIAL))
            .start(log)?;
        host.channel.ready(Duration::from_secs(240))?;
        log.note("root channel");
        let facts = HostFacts::take(&mut host.channel)?;
        fs::write(work.join("facts.json"), serde_json::to_vec(&facts)?)?;
        log.note("facts taken");
        let probe = host.channel.run(
            &format!(
                "dd if={PROBE_FILE} bs=64 skip={} count=1 status=none",
                PROBE_AT / 64
            ),
            Duration::from_secs(30),
        )?;
        ensure!(probe.len() == 64, "{PROBE_FILE} is too short");
        fs::write(work.join("probe"), probe)?;
        install(&mut host)?;
        let mut step = |name: &str, script: &str, minutes: u64| -> Result<()> {
            log.note(&format!("in the host: {script}"));
            let output = host.channel.run(script, Duration::from_secs(60 * minutes));
            if let Ok(output) = &output {
                fs::write(log.path(&format!("{name}.log")), output)?;
            }
            log.note(&format!("{name} ended"));
            output.map(drop)
        };
        step(
            "prepare",
            &format!("{LIFEBOAT} prepare \"$({FIND_STICK})\" --yes-erase {STICK_SERIAL}"),
            15,
        )?;
        step(
            "backup",
            &format!("{LIFEBOAT} backup --to \"$({FIND_STICK})\""),
            20,
        )?;
        step(
            "list",
            &format!("{LIFEBOAT} list --from \"$({FIND_STICK})\""),
            2,
        )?;
        host.shut_down()?;
        fs::rename(&stick, work.join("stick.raw"))
            .or_else(|_| disk::copy(&stick, &work.join("stick.raw"), log))?;
        fs::rename(&work, &self.dir)?;
        Ok(())
    }
}

/// The program inside the host.
const LIFEBOAT: &str = "/run/lifeboat-programs/lifeboat";

/// Prints the device of the stick.
const FIND_STICK: &str = "lsblk -dnpo NAME,SERIAL | awk '$2 == \"STICK\" {print $1}'";

/// Brings the programs in, on a tmpfs: the golden image stays the same for every build, and they are no part of the backup.
fn install(host: &mut Running) -> Result<()> {
    host.channel.run(
        "set -e
        mkdir -p /run/lifeboat-programs /run/share
        mount -t tmpfs -o size=512m tmpfs /run/lifeboat-programs
        modprobe 9pnet_virtio
        mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576 share /run/share
        cp /run/share/lifeboat /run/share/lifeboat-rescue /run/lifeboat-programs/
        umount /run/share
        rmdir /run/share
        /run/lifeboat-programs/lifeboat --version",
        Duration::from_secs(120),
    )?;
    Ok(())
}
