//! The golden node with its guests, saved once for each build of the product: the host onto a stick, the guests onto the
//! second drive, while something writes to the node's database all the time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::pve::{ask, guest_facts, nic, wait_up};
use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::golden::{Golden, Host, cache_dir};
use crate::product::Product;
use crate::qemu::{Bus, Drive, Firmware, Machine, Running};
use crate::saved::{HOST_SERIAL, STICK_SERIAL};
use crate::verdict::HostFacts;

/// Serial number of the second drive.
pub const DRIVE_SERIAL: &str = "DRIVE";

/// What node is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One that stands alone.
    Alone,
    /// A member of a cluster of two.
    Member,
}

/// What the node said before.
#[derive(Debug, Serialize, Deserialize)]
pub struct Facts {
    /// About itself.
    pub host: HostFacts,
    /// About its guests.
    pub guests: String,
    /// 64 bytes of a file in the disk of VM 101, which do not compress.
    pub probe: Vec<u8>,
}

/// A saved node; its images are not to be written to.
pub struct Node {
    dir: PathBuf,
    /// The node.
    pub golden: Golden,
    /// The programs it was saved by.
    pub product: Product,
}

/// One at a time, so that the second scenario finds what the first one made.
static MAKING: Mutex<()> = Mutex::new(());

impl Node {
    /// Returns what this build of the product saved; has it saved when there is nothing.
    pub fn get(kind: Kind, artefacts: &Path) -> Result<Self> {
        let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = cache_dir();
        let golden = Golden::get(Host::PveNode, &cache, artefacts)?;
        let product = Product::find().map_err(anyhow::Error::msg)?;
        let what = match kind {
            Kind::Alone => "alone",
            Kind::Member => "member",
        };
        let prefix = format!("saved-pve-{what}-");
        let dir = cache.join(format!(
            "{prefix}{}-{}",
            &product.key()?[..16],
            golden.key()
        ));
        let node = Self {
            dir,
            golden,
            product,
        };
        if node.dir.exists() {
            return Ok(node);
        }
        for entry in fs::read_dir(&cache)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let log = Artefacts::new(artefacts.join(format!("backup-pve-{what}")))?;
        node.make(kind, &log).with_context(|| {
            let dir = log.dir().display();
            format!("saving the node failed; all is kept in {dir}")
        })?;
        log.drop_disks()?;
        Ok(node)
    }

    /// Copies of the stick and of the second drive.
    pub fn copies(&self, log: &Artefacts) -> Result<(PathBuf, PathBuf)> {
        let (stick, drive) = (log.path("stick.raw"), log.path("drive.raw"));
        disk::copy(&self.dir.join("stick.raw"), &stick, log)?;
        disk::copy(&self.dir.join("drive.raw"), &drive, log)?;
        Ok((stick, drive))
    }

    /// What the node said before.
    pub fn facts(&self) -> Result<Facts> {
        let text = fs::read(self.dir.join("facts.json"))?;
        Ok(serde_json::from_slice(&text)?)
    }

    fn make(&self, kind: Kind, log: &Artefacts) -> Result<()> {
        let work = self.dir.with_extension("partial");
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(&work)?;
        let [system, second] = <[PathBuf; 2]>::try_from(self.golden.disks())
            .ok()
            .context("the golden node has two disks")?;
        let (root, drive) = (log.path("root.qcow2"), work.join("drive.raw"));
        let (stick, share) = (work.join("stick.raw"), log.path("share"));
        disk::overlay(&system, &root, log)?;
        disk::copy(&second, &drive, log)?;
        disk::blank(&stick, 4 * GIB)?;
        self.product.copy_to(&share, log)?;
        let mut host = Machine::new("node", Firmware::Bios)
            .memory(2048)
            .share(&share)
            .nic(nic())
            .drive(Drive::new(&root, Bus::Virtio, HOST_SERIAL))
            .drive(Drive::new(&drive, Bus::Sata, DRIVE_SERIAL))
            .drive(Drive::new(&stick, Bus::Usb, STICK_SERIAL))
            .start(log)?;
        wait_up(&mut host, log)?;
        ask(&mut host, INSTALL, 180)?;
        if kind == Kind::Member {
            ask(&mut host, JOIN, 60)?;
        }
        let facts = Facts {
            guests: guest_facts(&mut host, log, "before")?,
            probe: host.channel.run(PROBE, Duration::from_secs(60))?,
            host: HostFacts::take(Host::PveNode, &mut host.channel)?,
        };
        ensure!(
            facts.probe.len() == 64,
            "the probe has {} bytes",
            facts.probe.len()
        );
        fs::write(work.join("facts.json"), serde_json::to_vec(&facts)?)?;
        log.note("facts taken");
        save(&mut host, log)?;
        host.shut_down()?;
        fs::remove_dir_all(&share)?;
        fs::rename(&work, &self.dir)?;
        Ok(())
    }
}

/// The product becomes a part of the host: the restored one needs it at its first boot.
const INSTALL: &str = "set -e
    mkdir -p /run/share /etc/lifeboat
    modprobe 9pnet_virtio
    mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576 share /run/share
    install -m 755 /run/share/lifeboat /run/share/lifeboat-rescue /usr/local/bin/
    umount /run/share
    printf '[guests]\\nsource = \"vzdump\"\\nwhich = [\"all\"]\\n' >/etc/lifeboat/lifeboat.toml
    lifeboat --version";

/// As in a cluster of two whose other node is there (pve-facts 2.4, 2.7).
const JOIN: &str = "set -e
    mkdir -p /etc/corosync /run/pve-stand-ins
    touch /run/pve-stand-ins/quorate
    cat >/etc/corosync/corosync.conf <<'END'
logging {
  debug: off
}

nodelist {
  node {
    name: golden
    nodeid: 1
    quorum_votes: 1
    ring0_addr: 10.0.2.15
  }
  node {
    name: other
    nodeid: 2
    quorum_votes: 1
    ring0_addr: 10.0.2.16
  }
}

quorum {
  provider: corosync_votequorum
}

totem {
  cluster_name: lab
  config_version: 2
  version: 2
}
END
    head -c 256 /dev/urandom >/etc/corosync/authkey
    chmod 400 /etc/corosync/authkey
    python3 -c 'import sys; sys.path.insert(0, \"/usr/lib/pve-stand-ins\"); import cfs
cfs.write(\"corosync.conf\", open(\"/etc/corosync/corosync.conf\", \"rb\").read())'
    test -s /etc/pve/corosync.conf";

/// 64 bytes out of the middle of a file with noise, from a snapshot, as the VM may run.
const PROBE: &str = "set -e
    quietly() { \"$@\" >/dev/null 2>&1; }
    quietly lvcreate -s -kn -n look_probe pve/vm-101-disk-0
    quietly udevadm settle
    mkdir -p /run/probe
    quietly mount -o ro /dev/pve/look_probe /run/probe
    dd if=/run/probe/table bs=64 skip=20000 count=1 status=none
    quietly umount /run/probe
    quietly lvremove -f pve/look_probe";

/// Has the node save itself, with its guests, while its database is written to.
fn save(host: &mut Running, log: &Artefacts) -> Result<()> {
    let stick = "$(lsblk -dnpo NAME,SERIAL | awk '$2 == \"STICK\" {print $1}')";
    for (name, script, minutes) in [
        (
            "prepare",
            format!(
                "lifeboat prepare \"{stick}\" --yes-erase STICK && lifeboat prepare /mnt/backup"
            ),
            15,
        ),
        (
            "backup",
            format!(
                "pmxcfs --writer 3000 >/run/written & writer=$!
                lifeboat backup --to \"{stick}\" --to /mnt/backup; status=$?
                kill $writer
                exit $status"
            ),
            40,
        ),
        (
            "list",
            format!("lifeboat list --from \"{stick}\" && lifeboat list --from /mnt/backup"),
            3,
        ),
        (
            "show",
            format!("lifeboat show latest --from \"{stick}\""),
            3,
        ),
    ] {
        log.note(&format!("in the node: {script}"));
        let output = host
            .channel
            .output(&script, Duration::from_secs(60 * minutes))?;
        fs::write(log.path(&format!("{name}.log")), &output.output)?;
        ensure!(
            output.status == 0,
            "{name} ended with status {}: {}",
            output.status,
            crate::process::tail(&String::from_utf8_lossy(&output.output), 3000)
        );
        log.note(&format!("{name} ended"));
    }
    Ok(())
}
