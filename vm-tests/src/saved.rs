//! The backups that scenarios share: each golden host saved onto a stick, once for each firmware and build of the product.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::golden::{Golden, Host, cache_dir};
use crate::product::Product;
use crate::qemu::{Bus, Drive, Firmware, Running};
use crate::verdict::HostFacts;

/// Serial number of the golden host's disk; with `-2` and so on behind it those of its others.
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
    /// What that host was started by.
    pub firmware: Firmware,
    /// The programs it was made by.
    pub product: Product,
}

/// One backup at a time of each kind, so that the second scenario finds the first one's.
static MAKING: Mutex<Vec<Making>> = Mutex::new(Vec::new());

/// A kind of backup, and who makes it.
type Making = (Host, Firmware, Arc<Mutex<()>>);

fn making(host: Host, firmware: Firmware) -> Arc<Mutex<()>> {
    let mut all = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, _, one)) = all.iter().find(|(h, f, _)| (*h, *f) == (host, firmware)) {
        return Arc::clone(one);
    }
    let one = Arc::default();
    all.push((host, firmware, Arc::clone(&one)));
    one
}

/// Serial number of disk `index` (from 0) of several.
pub fn serial_of(first: &str, index: usize) -> String {
    match index {
        0 => first.to_owned(),
        n => format!("{first}-{}", n + 1),
    }
}

impl Saved {
    /// Returns the stick of this build of the product; makes it when there is none (its log is below `artefacts`).
    pub fn get(host: Host, firmware: Firmware, artefacts: &Path) -> Result<Self> {
        let one = making(host, firmware);
        let _one = one.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = cache_dir();
        let golden = Golden::get(host, &cache, artefacts)?;
        let product = Product::find().map_err(anyhow::Error::msg)?;
        let kind = format!("{}-{}", host.name(), firmware.name());
        let prefix = format!("saved-{kind}-");
        let name = format!("{prefix}{}-{}", &product.key()?[..16], golden.key());
        let saved = Self {
            dir: cache.join(&name),
            golden,
            firmware,
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
        let log = Artefacts::new(artefacts.join(format!("backup-{kind}")))?;
        saved.make(&log).with_context(|| {
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

    fn make(&self, log: &Artefacts) -> Result<()> {
        let work = self.dir.with_extension("partial");
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(&work)?;
        let (stick, share) = (log.path("stick.raw"), log.path("share"));
        disk::blank(&stick, 4 * GIB)?;
        self.product.copy_to(&share, log)?;
        let mut host = self
            .golden
            .machine("host", self.firmware, log)?
            .memory(2048)
            .share(&share)
            .drive(Drive::new(&stick, Bus::Usb, STICK_SERIAL))
            .start(log)?;
        self.golden.host.unlock(&host)?;
        host.channel.ready(Duration::from_secs(240))?;
        log.note("root channel");
        let facts = HostFacts::take(self.golden.host, &mut host.channel)?;
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
        save(&mut host, log)?;
        host.shut_down()?;
        fs::rename(&stick, work.join("stick.raw"))
            .or_else(|_| disk::copy(&stick, &work.join("stick.raw"), log))?;
        fs::rename(&work, &self.dir)?;
        Ok(())
    }
}

/// Has a running host prepare the stick that is attached to it, and save itself onto it.
pub fn save(host: &mut Running, log: &Artefacts) -> Result<()> {
    install(host)?;
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
    Ok(())
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
