//! A member of a cluster comes back on a machine whose network card is another one in another slot: it answers on its
//! address, and is alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::golden::{DISK_BYTES, Golden, Host, cache_dir};
use crate::process::run;
use crate::product::Product;
use crate::qemu::{Bus, Drive, Firmware, Machine, Nic};
use crate::runner::Scenario;
use crate::saved::{self, HOST_SERIAL, STICK_SERIAL};
use crate::verdict::manifest_differences;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "other-nic",
        "a member of a cluster comes back with another network card in another slot, answers on its address, and is alone",
        super::needs_bios,
        move |log| tell(&artefacts, log),
    )
    .long()
}

/// The host's card is `enp0s16`; the other machine's would be `enp0s20`.
const SAVED: (&str, u8) = ("52:54:00:00:00:10", 0x10);
const OTHER: (&str, u8) = ("52:54:00:00:00:14", 0x14);

/// The files name the card by its name only, as those of a Proxmox VE host do; systemd-networkd acts for ifupdown2, which the
/// golden host does not have.
const CONFIGURE: &str = "set -e
    test -d /sys/class/net/enp0s16
    mkdir -p /etc/network
    cat >/etc/network/interfaces <<'END'
auto lo
iface lo inet loopback

auto enp0s16
iface enp0s16 inet static
\taddress 10.0.2.15/24
\tgateway 10.0.2.2
END
    printf '[Match]\\nName=enp0s16\\n[Network]\\nAddress=10.0.2.15/24\\nGateway=10.0.2.2\\nLinkLocalAddressing=no\\n' \\
        >/etc/systemd/network/20-lan.network
    systemctl enable --now systemd-networkd.service
    mkdir -p /run/share /etc/corosync /var/lib/pve-cluster
    modprobe 9pnet_virtio
    mount -t 9p -o ro,trans=virtio,version=9p2000.L share /run/share
    install -m 600 /run/share/config.db /var/lib/pve-cluster/config.db
    umount /run/share
    printf 'totem {\\n  cluster_name: lab\\n}\\n' >/etc/corosync/corosync.conf
    printf key >/etc/corosync/authkey
    chmod 400 /etc/corosync/authkey";

const LINK: &str = "/etc/systemd/network/50-lifeboat-enp0s16.link";

/// The saved name is the other card's, from the initramfs on.
const RENAMED: &str = "set -e
    grep -qx 52:54:00:00:00:14 /sys/class/net/enp0s16/address
    test ! -e /sys/class/net/enp0s20
    grep -qx MACAddress=52:54:00:00:00:14 /etc/systemd/network/50-lifeboat-enp0s16.link
    lsinitramfs /boot/initrd.img-$(uname -r) | grep -q 50-lifeboat-enp0s16.link
    cat /var/log/lifeboat/restore-*/network.txt";

const DATABASE: &str = "/var/lib/pve-cluster/config.db";

/// Nothing of the cluster is where it would be used, and all of it is kept.
const ALONE: &str = "set -e
    cd /etc/corosync
    test ! -e corosync.conf && test ! -e authkey
    grep -q cluster_name lifeboat-set-aside/corosync.conf
    test \"$(stat -c %a lifeboat-set-aside/authkey)\" = 400
    grep -q ISOLATED /etc/motd.d/60-lifeboat-isolated
    test \"$(stat -c %a /var/lib/pve-cluster/config.db)\" = 600
    test ! -e /var/lib/pve-cluster/config.db-wal
    grep -q pvecm /var/log/lifeboat/restore-*/cluster.txt";

/// As pmxcfs makes it, in WAL mode, with a file that is to stay and one that is not.
fn make_database(path: &Path) -> Result<()> {
    let database = rusqlite::Connection::open(path)?;
    database.execute_batch(
        "PRAGMA journal_mode=WAL;
         CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL CHECK(typeof(parent)='integer'),
         version INTEGER NOT NULL CHECK(typeof(version)='integer'), writer INTEGER NOT NULL CHECK(typeof(writer)='integer'),
         mtime INTEGER NOT NULL CHECK(typeof(mtime)='integer'), type INTEGER NOT NULL CHECK(typeof(type)='integer'),
         name TEXT NOT NULL, data BLOB);
         INSERT INTO tree VALUES (0, 0, 3, 0, 0, 8, '__version__', NULL);
         INSERT INTO tree VALUES (2, 0, 2, 0, 0, 8, 'corosync.conf', 'totem {}');
         INSERT INTO tree VALUES (3, 0, 3, 0, 0, 8, 'storage.cfg', 'dir: local');",
    )?;
    database.close().map_err(|(_, error)| error.into())
}

fn check_database(path: &Path) -> Result<()> {
    let database = rusqlite::Connection::open(path)?;
    let text = |query: &str| database.query_row(query, [], |row| row.get::<_, String>(0));
    let names = text("SELECT group_concat(name, ' ') FROM (SELECT name FROM tree ORDER BY inode)")?;
    ensure!(
        text("PRAGMA integrity_check")? == "ok" && names == "__version__ storage.cfg",
        "the restored database has {names}"
    );
    Ok(())
}

const MANIFEST: &str = "golden-manifest";

fn tell(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let golden = Golden::get(Host::PveExt4, &cache_dir(), artefacts)?;
    let product = Product::find().map_err(anyhow::Error::msg)?;
    let stick = log.path("stick.raw");
    let before = save(&golden, &product, &stick, log)?;

    let disk = format!("disk:{}", disk::guid_text(&disk::gpt(&golden.disk())?.id)?);
    let arm = product
        .command(log)?
        .args(["arm", "--on"])
        .arg(&stick)
        .args(["--then", "poweroff", "--disk"])
        .arg(format!("{disk}={}", rescue::TARGET_SERIAL));
    run(&arm, log, Duration::from_secs(120))?;

    let target = log.path("target.raw");
    disk::blank(&target, DISK_BYTES)?;
    let drive = |image: PathBuf| Drive::new(image, Bus::Virtio, rescue::TARGET_SERIAL);
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .nic(Nic::new(OTHER.0, OTHER.1))
        .drive(drive(target.clone()))
        .start(log)?;
    rescue::wait_restored(&mut machine, log)?;
    let said = machine.serial.text();
    machine.quit()?;
    let guess = said
        .lines()
        .find(|l| l.contains("lifeboat: network name=enp0s16"));
    let guess = guess.context("the rescue system says nothing of the network card")?;
    log.note(guess.trim());
    ensure!(
        guess.contains("is=52:54:00:00:00:14") && guess.contains("A GUESS"),
        "the card with a link was not taken: {guess}"
    );

    ensure!(
        said.contains("lifeboat: cluster member=cluster start=isolated"),
        "the rescue system says nothing of the cluster"
    );

    let boot = log.path("boot.qcow2");
    disk::overlay(&target, &boot, log)?;
    let nic = Nic::new(OTHER.0, OTHER.1).reachable()?;
    let mut host = Machine::new("restored", Firmware::Bios)
        .nic(nic.clone())
        .drive(drive(boot))
        .start(log)?;
    host.serial
        .expect("golden login:", Duration::from_secs(400))
        .context("the restored disk does not boot alone")?;
    host.channel.ready(Duration::from_secs(120))?;
    let mut ask = |script: &str, seconds| -> Result<String> {
        let output = host.channel.run(script, Duration::from_secs(seconds))?;
        Ok(String::from_utf8(output)?)
    };
    let names = ask(RENAMED, 120).context("the card does not have the saved name")?;
    log.note(names.trim());
    nic.wait_ssh(Duration::from_secs(120))?;
    log.note("the restored host answers on its address");
    ask(ALONE, 60).context("the restored host is not alone")?;
    ask("systemctl is-system-running --wait || true", 240)?;
    let failed = ask("systemctl list-units --failed --plain --no-legend", 60)?;
    ensure!(failed.trim().is_empty(), "units failed: {failed}");
    let after = ask(MANIFEST, 600)?;
    let database = host
        .channel
        .run(&format!("cat {DATABASE}"), Duration::from_secs(60))?;
    std::fs::write(log.path("config.db"), database)?;
    check_database(&log.path("config.db"))?;
    log.note("it is alone, and its database is whole");
    std::fs::write(log.path("manifest.before"), &before)?;
    std::fs::write(log.path("manifest.after"), &after)?;
    let mut other = manifest_differences(&before, &after);
    other.retain(|line| {
        let path = line.split(": ").next().unwrap_or_default();
        let changed = [
            LINK,
            "/etc/systemd/network",
            "/var/lib/pve-cluster",
            DATABASE,
        ];
        let below = |dir: &str| Path::new(path).starts_with(dir);
        !changed.contains(&path)
            && !below("/etc/corosync")
            && !below("/etc/motd.d")
            && path != "/etc"
    });
    ensure!(other.is_empty(), "files differ:\n{}", other.join("\n"));
    host.shut_down()
}

/// Configures the golden host's network, and has it save itself. Returns the manifest of its files.
fn save(golden: &Golden, product: &Product, stick: &Path, log: &Artefacts) -> Result<String> {
    let (root, share) = (log.path("root.qcow2"), log.path("share"));
    disk::overlay(&golden.disk(), &root, log)?;
    disk::blank(stick, 4 * GIB)?;
    product.copy_to(&share, log)?;
    make_database(&share.join("config.db"))?;
    let nic = Nic::new(SAVED.0, SAVED.1).reachable()?;
    let mut host = Machine::new("host", Firmware::Bios)
        .memory(2048)
        .share(&share)
        .nic(nic.clone())
        .drive(Drive::new(&root, Bus::Virtio, HOST_SERIAL))
        .drive(Drive::new(stick, Bus::Usb, STICK_SERIAL))
        .start(log)?;
    host.channel.ready(Duration::from_secs(240))?;
    host.channel.run(CONFIGURE, Duration::from_secs(120))?;
    nic.wait_ssh(Duration::from_secs(120))
        .context("the host that is to be saved")?;
    let manifest = host.channel.run(MANIFEST, Duration::from_secs(600))?;
    log.note("configured, reachable, and its files listed");
    saved::save(&mut host, log)?;
    host.shut_down()?;
    Ok(String::from_utf8(manifest)?)
}
