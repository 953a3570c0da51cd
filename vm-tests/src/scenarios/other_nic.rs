//! A host comes back on a machine whose network card is another one in another slot, and answers on its address.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk::{self, GIB};
use crate::golden::{DISK_BYTES, Golden, Host, cache_dir};
use crate::process::{Cmd, run};
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
        "a host comes back on a machine with another network card in another slot, and answers on its address",
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
    systemctl enable --now systemd-networkd.service";

const LINK: &str = "/etc/systemd/network/50-lifeboat-enp0s16.link";

/// The saved name is the other card's, from the initramfs on.
const RENAMED: &str = "set -e
    grep -qx 52:54:00:00:00:14 /sys/class/net/enp0s16/address
    test ! -e /sys/class/net/enp0s20
    grep -qx MACAddress=52:54:00:00:00:14 /etc/systemd/network/50-lifeboat-enp0s16.link
    lsinitramfs /boot/initrd.img-$(uname -r) | grep -q 50-lifeboat-enp0s16.link
    cat /var/log/lifeboat/restore-*/network.txt";

const MANIFEST: &str = "golden-manifest";

fn tell(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let golden = Golden::get(Host::PveExt4, &cache_dir(), artefacts)?;
    let product = Product::find().map_err(anyhow::Error::msg)?;
    let stick = log.path("stick.raw");
    let before = save(&golden, &product, &stick, log)?;

    let disk = format!("disk:{}", disk::guid_text(&disk::gpt(&golden.disk())?.id)?);
    let arm = Cmd::new(product.lifeboat())
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
    ask("systemctl is-system-running --wait || true", 240)?;
    let failed = ask("systemctl list-units --failed --plain --no-legend", 60)?;
    ensure!(failed.trim().is_empty(), "units failed: {failed}");
    let after = ask(MANIFEST, 600)?;
    std::fs::write(log.path("manifest.before"), &before)?;
    std::fs::write(log.path("manifest.after"), &after)?;
    let mut other = manifest_differences(&before, &after);
    other.retain(|line| {
        let path = line.split(": ").next().unwrap_or_default();
        ![LINK, "/etc/systemd/network"].contains(&path)
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
