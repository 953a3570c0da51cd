//! What the restoring scenarios share: arming a stick, reading the rescue system's event lines, booting what was restored.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{DISK_BYTES, FOREIGN_BYTES, Used, cache_dir};
use crate::process::{Cmd, run};
use crate::qemu::{Bus, Drive, Firmware, Machine, Nic, Running};
use crate::saved::{STICK_SERIAL, Saved, serial_of};
use crate::serial::Serial;
use crate::verdict::{HostFacts, Untouched, ensure_same_bytes, ensure_same_partitions};

/// Serial number of the disk that is restored onto.
pub const TARGET_SERIAL: &str = "TARGET";
/// Serial number of the disk that must stay as it is.
pub const DATA_SERIAL: &str = "DATA";

/// Serial numbers of the disks that are attached to every machine with the stick.
const BYSTANDERS: [&str; 2] = ["BYSTANDER-1", "BYSTANDER-2"];

/// An event line of the rescue system: `lifeboat: <event> key=value ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's name.
    pub name: String,
    /// The line after it.
    pub fields: String,
}

impl Event {
    /// The value of a field, without quotes.
    pub fn field(&self, key: &str) -> Option<&str> {
        let mut rest = self.fields.as_str();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            let (value, next) = if let Some(quoted) = after.strip_prefix('"') {
                let mut escaped = false;
                let end = quoted.find(|c| match c {
                    _ if escaped => {
                        escaped = false;
                        false
                    }
                    '\\' => {
                        escaped = true;
                        false
                    }
                    c => c == '"',
                })?;
                (&quoted[..end], &quoted[end + 1..])
            } else {
                after
                    .split_once(' ')
                    .map_or((after, ""), |(value, _)| (value, &after[value.len()..]))
            };
            if name.trim() == key {
                return Some(value);
            }
            rest = next.trim_start();
        }
        None
    }

    /// The value of a field that is a number.
    pub fn number(&self, key: &str) -> Result<u64> {
        let value = self
            .field(key)
            .with_context(|| format!("{} has no {key}: {}", self.name, self.fields))?;
        value
            .parse()
            .with_context(|| format!("{}: {key}={value}", self.name))
    }
}

/// Waits for one of these events.
pub fn wait_event(serial: &Serial, names: &[&str], timeout: Duration) -> Result<Event> {
    let texts: Vec<String> = names
        .iter()
        .map(|name| format!("lifeboat: {name} "))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (which, _) = serial.expect_any(&texts, timeout)?;
    let fields = serial.rest_of_line(Duration::from_secs(30))?;
    Ok(Event {
        name: names[which].to_owned(),
        fields,
    })
}

/// A stick of one's own, a copy of the shared one.
pub fn copy_stick(saved: &Saved, log: &Artefacts) -> Result<std::path::PathBuf> {
    let stick = log.path("stick.raw");
    disk::copy(&saved.stick(), &stick, log)?;
    Ok(stick)
}

/// Arms a stick: the next boot restores onto the disk [`TARGET_SERIAL`] (and those that follow, for a host with several) and
/// powers off.
pub fn arm(saved: &Saved, stick: &Path, log: &Artefacts) -> Result<()> {
    arm_as(saved, stick, "bare-metal", log)
}

/// As [`arm`], in a mode.
pub fn arm_as(saved: &Saved, stick: &Path, mode: &str, log: &Artefacts) -> Result<()> {
    let mut cmd = saved
        .product
        .command(log)?
        .args(["arm", "--on"])
        .arg(stick)
        .args(["--mode", mode, "--then", "poweroff"]);
    for (n, image) in saved.golden.disks().iter().enumerate() {
        // Layouts name a disk by the GUID of its partition table.
        let disk = disk::guid_text(&disk::gpt(image)?.id)?;
        let target = serial_of(TARGET_SERIAL, n);
        cmd = cmd.args(["--disk".to_owned(), format!("disk:{disk}={target}")]);
    }
    run(&cmd, log, Duration::from_secs(120))?;
    Ok(())
}

/// Mounts the stick's last partition on this machine and does something with its files.
pub fn on_data_partition<T>(
    stick: &Path,
    log: &Artefacts,
    then: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let minute = Duration::from_secs(60);
    let gpt = disk::gpt(stick)?;
    let data = gpt
        .partitions
        .last()
        .context("the stick has no partitions")?;
    let mount = tempfile::tempdir()?;
    let options = format!(
        "loop,offset={},sizelimit={}",
        data.start * 512,
        data.size * 512
    );
    let cmd = Cmd::new("mount").args(["-t", "ext4", "-o", &options]);
    run(&cmd.arg(stick).arg(mount.path()), log, minute)?;
    let result = then(mount.path());
    run(&Cmd::new("umount").arg(mount.path()), log, minute)?;
    result
}

/// A machine that boots from the stick, with the disks of the scenario behind it.
///
/// Two more are attached that nobody asked for, of the size and model of the disk that is restored onto (or of the first
/// one): a blank one, and one of another machine with a volume group of the name `pve`. Nothing may be written to them:
/// [`Attempt::quit`] sees to that, and a scenario that does not call it fails.
pub struct Rescue(Machine);

/// A machine with the stick.
pub fn machine(firmware: Firmware, stick: &Path) -> Rescue {
    // 1536 MiB: the initramfs, and what the restore keeps in memory.
    Rescue(
        Machine::new("rescue", firmware)
            .memory(1536)
            .drive(Drive::new(stick, Bus::Usb, STICK_SERIAL)),
    )
}

impl Rescue {
    /// Changes the name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self(self.0.named(name))
    }

    /// Adds a disk.
    #[must_use]
    pub fn drive(self, drive: Drive) -> Self {
        Self(self.0.drive(drive))
    }

    /// Adds a network card.
    #[must_use]
    pub fn nic(self, nic: Nic) -> Self {
        Self(self.0.nic(nic))
    }

    /// Starts it, with the bystanders.
    pub fn start(self, log: &Artefacts) -> Result<Attempt<'_>> {
        let used = Used::get(&cache_dir(), log.dir())?;
        self.start_beside(&used.foreign_disk(), log)
    }

    /// Starts it; one of the bystanders begins as the image `foreign` does.
    fn start_beside<'a>(self, foreign: &Path, log: &'a Artefacts) -> Result<Attempt<'a>> {
        let drives = self.0.drives();
        let model = drives
            .iter()
            .find(|d| d.serial == TARGET_SERIAL)
            .or_else(|| drives.get(1));
        let (bus, sector, bytes) = match model {
            Some(drive) => (
                drive.bus,
                drive.sector,
                std::fs::metadata(&drive.image)?.len(),
            ),
            None => (Bus::Virtio, 512, DISK_BYTES),
        };
        // The physical volume stays whole on a disk that is larger.
        ensure!(
            bytes >= FOREIGN_BYTES,
            "disks of scenarios have at least {FOREIGN_BYTES} bytes"
        );
        let (blank, other) = (log.path("bystander-1.raw"), log.path("bystander-2.raw"));
        disk::blank(&blank, bytes)?;
        disk::copy(foreign, &other, log)?;
        std::fs::File::options()
            .write(true)
            .open(&other)?
            .set_len(bytes)?;
        let bystanders = vec![
            Untouched::watch(&blank, BYSTANDERS[0])?,
            Untouched::watch(&other, BYSTANDERS[1])?,
        ];
        // One in front of the disk that is meant and one behind it: no kernel name leads to the right one by chance.
        let running = self
            .0
            .second_drive(Drive::new(blank, bus, BYSTANDERS[0]).sector(sector))
            .drive(Drive::new(other, bus, BYSTANDERS[1]).sector(sector))
            .start(log)?;
        let owed = format!("the bystanders of {}", running.name());
        log.owe(&owed);
        Ok(Attempt {
            running,
            bystanders,
            owed,
            log,
        })
    }
}

/// A machine that runs from the stick.
pub struct Attempt<'a> {
    running: Running,
    bystanders: Vec<Untouched>,
    owed: String,
    log: &'a Artefacts,
}

impl Attempt<'_> {
    /// Ends QEMU, and sees that nothing was written to the bystanders.
    pub fn quit(mut self) -> Result<()> {
        for bystander in &self.bystanders {
            bystander.ensure_no_writes(&mut self.running)?;
        }
        self.running.quit()?;
        for bystander in &self.bystanders {
            bystander.ensure_same_content()?;
        }
        self.log.paid(&self.owed);
        self.log.note(&format!("{} are untouched", self.owed));
        Ok(())
    }
}

impl std::ops::Deref for Attempt<'_> {
    type Target = Running;
    fn deref(&self) -> &Running {
        &self.running
    }
}

impl std::ops::DerefMut for Attempt<'_> {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
}

/// Waits until an unattended restore is over and the machine is off, and sees that it reports no difference.
pub fn wait_restored(machine: &mut Running, log: &Artefacts) -> Result<()> {
    wait_restored_from(1, machine, log)
}

/// As [`wait_restored`], where so many bundles are attached.
pub fn wait_restored_from(bundles: u64, machine: &mut Running, log: &Artefacts) -> Result<()> {
    let ready = wait_event(&machine.serial, &["ready"], Duration::from_secs(240))?;
    log.note(&format!("rescue system ready: {}", ready.fields));
    ensure!(
        ready.number("bundles")? == bundles,
        "the rescue system found not {bundles} bundles: {}",
        ready.fields
    );
    let event = wait_event(
        &machine.serial,
        &["restored", "refused", "failed"],
        Duration::from_secs(1500),
    )?;
    log.note(&format!("{}: {}", event.name, event.fields));
    ensure!(
        event.name == "restored",
        "the restore was {}: {}",
        event.name,
        event.fields
    );
    ensure!(
        event.number("differences")? == 0,
        "the rescue system reports differences: {}",
        event.fields
    );
    ensure!(
        event.number("lost")? == 0,
        "the rescue system reports losses: {}",
        event.fields
    );
    machine.wait_powered_off(Duration::from_secs(120))
}

/// The verdict on restored disks: their partition tables, the partition that holds no filesystem, and the host that boots
/// from them alone.
pub fn judge(saved: &Saved, targets: &[&Path], bus: Bus, log: &Artefacts) -> Result<()> {
    let golden = saved.golden.disks();
    ensure!(
        golden.len() == targets.len(),
        "the host has {} disks, {} are judged",
        golden.len(),
        targets.len()
    );
    for (golden, target) in golden.iter().zip(targets) {
        ensure_same_partitions(golden, target)?;
        if let Some(number) = saved.golden.host.unknown_partition() {
            ensure_same_bytes(golden, target, number)?;
        }
    }
    let disks: Vec<(&Path, String)> = targets
        .iter()
        .enumerate()
        .map(|(n, target)| (*target, serial_of(TARGET_SERIAL, n)))
        .collect();
    boots(saved, "restored", &disks, bus, log)
}

/// Boots the restored host from these disks (image and serial number) and nothing else, and compares it with the saved one.
pub fn boots(
    saved: &Saved,
    name: &str,
    disks: &[(&Path, String)],
    bus: Bus,
    log: &Artefacts,
) -> Result<()> {
    let mut machine = Machine::new(name, saved.firmware);
    for (disk, serial) in disks {
        // The restored disk stays as the restore left it; the boot writes to an overlay.
        let boot = log.path(&format!("{name}-{serial}.qcow2"));
        disk::overlay(disk, &boot, log)?;
        machine = machine.drive(Drive::new(&boot, bus, serial));
    }
    let mut host = machine.start(log)?;
    let host_kind = saved.golden.host;
    host_kind.unlock(&host)?;
    host.serial
        .expect("golden login:", Duration::from_secs(600))
        .with_context(|| format!("{name}: the restored disks do not boot alone"))?;
    log.note(&format!("{name} shows its login prompt"));
    host.channel.ready(Duration::from_secs(120))?;
    let facts = HostFacts::take(host_kind, &mut host.channel)?;
    saved.facts()?.ensure_equal(&facts, log)?;
    log.note(&format!("{name} equals the saved host"));
    host.shut_down()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_to_a_bystander_is_noticed() {
        if let Some(reason) = crate::qemu::missing(Firmware::Bios) {
            eprintln!("ignored: {reason}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let log = Artefacts::new(dir.path().join("t")).unwrap();
        let (stick, target, foreign) = (log.path("s.raw"), log.path("t.raw"), log.path("f.raw"));
        disk::blank(&stick, 1 << 20).unwrap();
        disk::blank(&target, FOREIGN_BYTES + 512).unwrap();
        disk::blank(&foreign, FOREIGN_BYTES).unwrap();
        disk::flip_byte(&foreign, 1000).unwrap();
        // Nothing boots here.
        let start = |name: &str| {
            machine(Firmware::Bios, &stick)
                .named(name)
                .drive(Drive::new(&target, Bus::Sata, TARGET_SERIAL))
                .start_beside(&foreign, &log)
                .unwrap()
        };
        let attempt = start("first");
        assert_eq!(log.owed().len(), 1);
        attempt.quit().unwrap();
        assert_eq!(log.owed(), [""; 0]);
        for (disk, serial) in [("disk1", BYSTANDERS[0]), ("disk3", BYSTANDERS[1])] {
            let mut attempt = start(disk);
            let write = format!("qemu-io {disk} \"write -P 7 4096 512\"");
            attempt
                .qmp
                .command(
                    "human-monitor-command",
                    serde_json::json!({ "command-line": write }),
                )
                .unwrap();
            let error = attempt.quit().unwrap_err().to_string();
            assert!(error.contains(serial), "{error}");
            assert!(log.owed().contains(&format!("the bystanders of {disk}")));
        }
    }

    #[test]
    fn fields_of_an_event() {
        let event = Event {
            name: "refused".to_owned(),
            fields: r#"reason="the disk \"a\" is a=b small" missing_bytes=4096 empty="" path=x"#
                .to_owned(),
        };
        assert_eq!(
            event.field("reason"),
            Some(r#"the disk \"a\" is a=b small"#)
        );
        assert_eq!(event.number("missing_bytes").unwrap(), 4096);
        assert_eq!(
            (
                event.field("empty"),
                event.field("path"),
                event.field("none")
            ),
            (Some(""), Some("x"), None)
        );
    }
}
