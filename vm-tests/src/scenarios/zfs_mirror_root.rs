//! A host with its root on a ZFS mirror, as the Proxmox VE installer makes it, dies; its stick restores it onto two blank
//! disks. Both together and each alone boot, and a scrub finds nothing.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::rescue::wait_event;
use crate::artefacts::Artefacts;
use crate::channel::Channel;
use crate::disk::{self, GIB};
use crate::golden::cache_dir;
use crate::process::{Cmd, run};
use crate::product::Product;
use crate::qemu::{Bus, Drive, Firmware, Machine, Running};
use crate::runner::Scenario;
use crate::saved::STICK_SERIAL as STICK;
use crate::verdict::{Untouched, ensure_same_partitions, manifest_differences};
use crate::zfs::{DISK_BYTES, Host};

/// Serial numbers of the disks that are restored onto.
const TARGETS: [&str; 2] = ["TARGET-1", "TARGET-2"];
/// Serial numbers of disks that nobody asked for.
const BYSTANDERS: [&str; 2] = ["BYSTANDER-1", "BYSTANDER-2"];

/// The program inside the host.
const LIFEBOAT: &str = "/run/lifeboat-programs/lifeboat";

/// Prints the device of the stick.
const FIND_STICK: &str = "lsblk -dnpo NAME,SERIAL | awk '$2 == \"STICK\" {print $1}'";

/// What has to be the same after a restore. Numbers of pools and devices are new ones, volumes of guests come back with the
/// guests, and a cache of pools is of the machine.
const FACTS: &str = r#"
set -e
zpool get -Hp -o property,value,source all rpool | grep -E '^(bootfs|autotrim|autoexpand|failmode|multihost|comment|feature@)' |
    sed 's/\tactive\t/\tenabled\t/'
zfs list -Hp -r -t filesystem -o name,mounted,mountpoint,canmount rpool
zfs get -Hp -r -t filesystem -s local -o name,property,value all rpool
for part in $(zpool status -LP rpool | awk '$1 ~ "^/dev/" {print $1}'); do zdb -l $part | grep -E ' (ashift|hostid): ' | tr -d ' '; done
hostid
findmnt -rno TARGET,SOURCE,FSTYPE -t zfs | sort
cat /etc/kernel/proxmox-boot-uuids
proxmox-boot-tool status
"#;

/// Files of the datasets that the manifest of `/` does not enter.
const FILES: &str = "cd /; find rpool var/lib/vz var/log/old -type f -exec sha256sum {} + | sort -k2; stat -c '%n %a %u:%g' \
                     rpool rpool/* var/lib/vz var/log/old";

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "zfs-mirror-root",
        "BIOS: a host on a ZFS mirror is restored onto two blank disks; they boot together and each alone, a scrub is clean",
        needs,
        move |log| run_all(&artefacts, log),
    )
    .long()
}

fn needs() -> Result<(), String> {
    Product::find()?;
    crate::zfs::missing().map_or(Ok(()), Err)
}

/// What a host says about itself.
struct Facts {
    manifest: String,
    files: String,
    storage: String,
    failed: String,
}

impl Facts {
    fn take(channel: &mut Channel) -> Result<Self> {
        let mut text = |script: &str, seconds: u64| -> Result<String> {
            let output = channel.run(script, Duration::from_secs(seconds))?;
            String::from_utf8(output).context("the host sent no UTF-8")
        };
        text("systemctl is-system-running --wait || true", 300)?;
        Ok(Self {
            failed: text(
                "systemctl list-units --failed --plain --no-legend | awk '{print $1}'",
                60,
            )?,
            storage: text(FACTS, 120)?,
            files: text(FILES, 120)?,
            manifest: text("golden-manifest", 900)?,
        })
    }

    /// Compares with those of the restored host.
    fn ensure_equal(&self, restored: &Facts, name: &str, log: &Artefacts) -> Result<()> {
        for (what, before, after) in [
            ("manifest", &self.manifest, &restored.manifest),
            ("files", &self.files, &restored.files),
            ("storage", &self.storage, &restored.storage),
            ("failed", &self.failed, &restored.failed),
        ] {
            fs::write(log.path(&format!("{what}.before")), before)?;
            fs::write(log.path(&format!("{what}.{name}")), after)?;
        }
        let mut bad = manifest_differences(&self.manifest, &restored.manifest);
        // Written anew: where the devices are now, and by proxmox-boot-tool the same list of its partitions.
        let anew = [
            "/etc/zfs/zpool.cache:",
            "/etc/zfs: mtime",
            "/etc/kernel: mtime",
            "/etc/kernel/proxmox-boot-uuids: mtime",
        ];
        bad.retain(|line| !anew.iter().any(|start| line.starts_with(start)));
        bad.truncate(20);
        for (what, before, after) in [
            ("files", &self.files, &restored.files),
            ("storage", &self.storage, &restored.storage),
            ("failed units", &self.failed, &restored.failed),
        ] {
            for line in before.lines().filter(|l| !after.lines().any(|a| a == *l)) {
                bad.push(format!("{what}: \"{line}\" is gone"));
            }
            for line in after.lines().filter(|l| !before.lines().any(|b| b == *l)) {
                bad.push(format!("{what}: \"{line}\" is new"));
            }
        }
        ensure!(bad.is_empty(), "{name}: {}", bad.join("\n"));
        Ok(())
    }
}

fn run_all(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let host = Host::get(&cache_dir(), artefacts)?;
    let product = Product::find().map_err(anyhow::Error::msg)?;
    let stick = log.path("stick.raw");
    disk::blank(&stick, 4 * GIB)?;
    let before = back_up(&host, &product, &stick, log)?;
    arm(&host, &product, &stick, log)?;
    let targets = restore(&host, &stick, log)?;
    for (old, new) in host.disks().iter().zip(&targets) {
        ensure_same_partitions(old, new)?;
    }
    judge(&before, &targets, log)
}

/// Saves the host onto the stick.
fn back_up(host: &Host, product: &Product, stick: &Path, log: &Artefacts) -> Result<Facts> {
    let share = log.path("share");
    product.copy_to(&share, log)?;
    let mut machine = Machine::new("host", Firmware::Bios)
        .memory(2048)
        .share(&share);
    for (n, image) in host.disks().iter().enumerate() {
        let overlay = log.path(&format!("host-{n}.qcow2"));
        disk::overlay(image, &overlay, log)?;
        machine = machine.drive(Drive::new(overlay, Bus::Virtio, format!("HOST-{n}")));
    }
    let mut machine = machine
        .drive(Drive::new(stick, Bus::Usb, STICK))
        .start(log)?;
    machine.channel.ready(Duration::from_secs(300))?;
    let facts = Facts::take(&mut machine.channel)?;
    log.note("facts taken");
    machine.channel.run(
        "set -e
        mkdir -p /run/lifeboat-programs /run/share
        mount -t tmpfs -o size=512m tmpfs /run/lifeboat-programs
        modprobe 9pnet_virtio
        mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576 share /run/share
        cp /run/share/lifeboat /run/share/lifeboat-rescue /run/lifeboat-programs/
        umount /run/share
        rmdir /run/share",
        Duration::from_secs(120),
    )?;
    for (name, script, minutes) in [
        ("layout", format!("{LIFEBOAT} layout"), 2),
        (
            "prepare",
            format!("{LIFEBOAT} prepare \"$({FIND_STICK})\" --yes-erase {STICK}"),
            20,
        ),
        (
            "backup",
            format!("{LIFEBOAT} backup --to \"$({FIND_STICK})\""),
            30,
        ),
    ] {
        log.note(&format!("in the host: {script}"));
        let said = machine
            .channel
            .run(&script, Duration::from_secs(60 * minutes));
        if let Ok(said) = &said {
            fs::write(log.path(&format!("{name}.log")), said)?;
        }
        said?;
        log.note(&format!("{name} ended"));
    }
    machine.shut_down()?;
    fs::remove_dir_all(share)?;
    Ok(facts)
}

/// The next boot of the stick restores onto the targets and powers off.
fn arm(host: &Host, product: &Product, stick: &Path, log: &Artefacts) -> Result<()> {
    let mut cmd = product
        .command(log)?
        .args(["arm", "--on"])
        .arg(stick)
        .args(["--then", "poweroff"]);
    for (image, serial) in host.disks().iter().zip(TARGETS) {
        let guid = disk::guid_text(&disk::gpt(image)?.id)?;
        cmd = cmd.args(["--disk", &format!("disk:{guid}={serial}")]);
    }
    run(&cmd, log, Duration::from_secs(120))?;
    Ok(())
}

/// Makes a disk of another host that was installed in the same way: half of a pool of the same name, and nothing else.
fn other_host(from: &Path, to: &Path, log: &Artefacts) -> Result<()> {
    disk::copy(from, to, log)?;
    let gpt = disk::gpt(to)?;
    let esp = gpt.partitions.get(1).context("a disk without an ESP")?;
    let file = fs::File::options().write(true).open(to)?;
    // Its volume id is that of the host, too.
    file.write_all_at(&[0; 4096], esp.start * 512)?;
    run(
        &Cmd::new("sgdisk").arg("-G").arg(to),
        log,
        Duration::from_secs(60),
    )?;
    Ok(())
}

/// Boots the stick beside the targets; two more disks are there, one of them with half of the host's own pool on it.
fn restore(host: &Host, stick: &Path, log: &Artefacts) -> Result<[PathBuf; 2]> {
    let targets = [0, 1].map(|n| log.path(&format!("target-{n}.raw")));
    let others = [0, 1].map(|n| log.path(&format!("bystander-{n}.raw")));
    for image in targets.iter().chain([&others[0]]) {
        disk::blank(image, DISK_BYTES)?;
    }
    other_host(&host.disks()[1], &others[1], log)?;
    let watched = [
        Untouched::watch(&others[0], BYSTANDERS[0])?,
        Untouched::watch(&others[1], BYSTANDERS[1])?,
    ];
    let drive = |image: &Path, serial: &str| Drive::new(image, Bus::Virtio, serial);
    let mut machine = Machine::new("rescue", Firmware::Bios)
        .memory(2048)
        .drive(Drive::new(stick, Bus::Usb, STICK))
        .drive(drive(&others[0], BYSTANDERS[0]))
        .drive(drive(&targets[0], TARGETS[0]))
        .drive(drive(&others[1], BYSTANDERS[1]))
        .drive(drive(&targets[1], TARGETS[1]))
        .start(log)?;
    let event = wait_event(
        &machine.serial,
        &["restored", "refused", "failed"],
        Duration::from_secs(2400),
    )?;
    log.note(&format!("{}: {}", event.name, event.fields));
    ensure!(
        event.name == "restored" && event.number("differences")? == 0 && event.number("lost")? == 0,
        "the restore ended with {}: {}",
        event.name,
        event.fields
    );
    machine.wait_powered_off(Duration::from_secs(120))?;
    for disk in &watched {
        disk.ensure_no_writes(&mut machine)?;
    }
    machine.quit()?;
    for disk in &watched {
        disk.ensure_same_content()?;
    }
    Ok(targets)
}

fn booted(name: &str, disks: &[(&Path, &str)], log: &Artefacts) -> Result<Running> {
    let mut machine = Machine::new(name, Firmware::Bios).memory(2048);
    for (image, serial) in disks {
        let overlay = log.path(&format!("{name}-{serial}.qcow2"));
        disk::overlay(image, &overlay, log)?;
        machine = machine.drive(Drive::new(overlay, Bus::Virtio, *serial));
    }
    let mut machine = machine.start(log)?;
    machine
        .serial
        .expect("golden login:", Duration::from_secs(400))
        .with_context(|| format!("{name}: the restored disks do not boot"))?;
    machine.channel.ready(Duration::from_secs(120))?;
    log.note(&format!("{name} is up"));
    Ok(machine)
}

/// Reads every block of the pool, and returns what zpool says of it.
fn scrubbed(machine: &mut Running) -> Result<String> {
    let said = machine.channel.run(
        "zpool scrub -w rpool && zpool status -v rpool",
        Duration::from_secs(600),
    )?;
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(
        said.contains("with 0 errors") && said.contains("errors: No known data errors"),
        "the scrub found errors: {said}"
    );
    Ok(said)
}

fn judge(before: &Facts, targets: &[PathBuf; 2], log: &Artefacts) -> Result<()> {
    let both: Vec<(&Path, &str)> = targets.iter().map(PathBuf::as_path).zip(TARGETS).collect();
    let mut machine = booted("both", &both, log)?;
    let after = Facts::take(&mut machine.channel)?;
    before.ensure_equal(&after, "both", log)?;
    let status = scrubbed(&mut machine)?;
    ensure!(
        status.contains("state: ONLINE"),
        "the pool is not whole: {status}"
    );
    machine.shut_down()?;
    for (n, one) in both.iter().enumerate() {
        let name = format!("alone-{}", n + 1);
        let mut machine = booted(&name, &[*one], log)?;
        let status = scrubbed(&mut machine)?;
        ensure!(
            status.contains("state: DEGRADED"),
            "{name}: half of a mirror is called whole: {status}"
        );
        let text = machine
            .channel
            .run("golden-manifest", Duration::from_secs(900))?;
        let mut bad = manifest_differences(&after.manifest, &String::from_utf8_lossy(&text));
        bad.retain(|line| !line.starts_with("/etc/zfs"));
        bad.truncate(20);
        ensure!(bad.is_empty(), "{name}: {}", bad.join("\n"));
        machine.shut_down()?;
    }
    Ok(())
}
