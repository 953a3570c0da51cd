//! What the restoring scenarios share: arming a stick, reading the rescue system's event lines, booting what was restored.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::artefacts::Artefacts;
use crate::disk;
use crate::process::{Cmd, run};
use crate::qemu::{Bus, Drive, Firmware, Machine, Running};
use crate::saved::{STICK_SERIAL, Saved};
use crate::serial::Serial;
use crate::verdict::{HostFacts, ensure_same_bytes, ensure_same_partitions};

/// Serial number of the disk that is restored onto.
pub const TARGET_SERIAL: &str = "TARGET";
/// Serial number of the disk that must stay as it is.
pub const DATA_SERIAL: &str = "DATA";

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

/// Arms a stick: the next boot restores onto the disk [`TARGET_SERIAL`] and powers off.
pub fn arm(saved: &Saved, stick: &Path, log: &Artefacts) -> Result<()> {
    // Layouts name a disk by the GUID of its partition table.
    let disk = format!(
        "disk:{}",
        disk::guid_text(&disk::gpt(&saved.golden.disk())?.id)?
    );
    let cmd = Cmd::new(saved.product.lifeboat())
        .args(["arm", "--on"])
        .arg(stick)
        .args(["--then", "poweroff", "--disk"])
        .arg(format!("{disk}={TARGET_SERIAL}"));
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

/// A machine with the stick, and the disks of the scenario behind it.
pub fn machine(firmware: Firmware, stick: &Path) -> Machine {
    // 1536 MiB: the initramfs, and what the restore keeps in memory.
    Machine::new("rescue", firmware)
        .memory(1536)
        .drive(Drive::new(stick, Bus::Usb, STICK_SERIAL))
}

/// Waits until an unattended restore is over and the machine is off, and sees that it reports no difference.
pub fn wait_restored(machine: &mut Running, log: &Artefacts) -> Result<()> {
    let ready = wait_event(&machine.serial, &["ready"], Duration::from_secs(240))?;
    log.note(&format!("rescue system ready: {}", ready.fields));
    ensure!(
        ready.number("bundles")? == 1,
        "the rescue system found not one bundle: {}",
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

/// The verdict on a restored disk: its partition table, the partition that holds no filesystem, and the host that boots from
/// it alone.
pub fn judge(
    saved: &Saved,
    firmware: Firmware,
    target: &Path,
    bus: Bus,
    log: &Artefacts,
) -> Result<()> {
    let golden = saved.golden.disk();
    ensure_same_partitions(&golden, target)?;
    ensure_same_bytes(&golden, target, 4)?;
    // The restored disk stays as the restore left it; the boot writes to an overlay.
    let boot = log.path("boot.qcow2");
    disk::overlay(target, &boot, log)?;
    let mut host = Machine::new("restored", firmware)
        .drive(Drive::new(&boot, bus, TARGET_SERIAL))
        .start(log)?;
    host.serial
        .expect("golden login:", Duration::from_secs(300))
        .context("the restored disk does not boot alone")?;
    log.note("the restored host shows its login prompt");
    host.channel.ready(Duration::from_secs(120))?;
    let facts = HostFacts::take(&mut host.channel)?;
    saved.facts()?.ensure_equal(&facts, log)?;
    host.shut_down()
}

#[cfg(test)]
mod tests {
    use super::*;

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
