//! What happens once after boot: find bundles, tell, restore unattended if that was armed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use layout::system::System;

use super::bundles::{Found, Medium, Search};
use super::cmdline::CommandLine;
use super::events::{Announce, Broadcast, Line};
use super::init::shutdown;
use super::restore::Real;
use super::unattended::{self, Permission, Tokens};
use super::wizard::world::denied_file;
use crate::stick::Stick;
use crate::token::{self, Armed};

/// How long to wait for the booted stick: USB hubs and bridges may take half a minute.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it. Does not return when an unattended restore ends the machine.
pub fn run(sys: &dyn System) -> Result<()> {
    let line = CommandLine::of_kernel();
    let to = Broadcast::everywhere();
    let slot = line.slot.as_deref().unwrap_or("-");
    to.line(
        &Line::new("starting")
            .with("version", env!("CARGO_PKG_VERSION"))
            .with("slot", slot),
    );
    let found = Found::on_media(&Search {
        medium: line.medium.clone(),
        patience: PATIENCE,
        key_file: line.key.clone(),
        ..Search::default()
    });
    for locked in &found.locked {
        let text = format!(
            "the bundle on {} is locked: {}",
            locked.place(),
            locked.reason
        );
        to.line(&Line::new("warning").with("text", text));
    }
    let (points, warnings) = found.points();
    for warning in found.warnings.iter().chain(&warnings) {
        to.line(&Line::new("warning").with("text", warning));
    }
    let tokens = StickTokens {
        disk: booted_disk(found.media(), line.medium.as_deref()),
    };
    match unattended::permission(&line, &tokens, &super::restore::now()) {
        Permission::NotAsked => {}
        Permission::Denied(reason) => {
            // The wizards say so.
            note_denied(&reason)?;
            to.line(&Line::new("warning").with("text", format!("no unattended restore: {reason}")));
        }
        Permission::Granted(armed) => {
            to.line(&ready(&found, points.len()));
            return restore(sys, &found, &armed, &tokens, &to);
        }
    }
    to.line(&ready(&found, points.len()));
    Ok(())
}

fn ready(found: &Found, points: usize) -> Line {
    Line::new("ready")
        .with("bundles", found.stores.len())
        .with("locked", found.locked.len())
        .with("snapshots", points)
}

fn restore(
    sys: &dyn System,
    found: &Found,
    armed: &Armed,
    tokens: &dyn Tokens,
    to: &dyn Announce,
) -> Result<()> {
    let request = unattended::request(armed);
    let parts = Real { sys, found };
    match unattended::run(&parts, armed, &request, tokens, to) {
        // Nobody sits there to look at differences: they are in the logs, and the machine was told what to do.
        Ok(_) => {}
        // Rebooting into a half-written disk helps nobody: the wizards tell, and can start again.
        Err(stop) if stop.written() => {
            return note_denied(&format!("it was started and failed: {stop}"));
        }
        // Neither does refusing the same again and again.
        Err(_) => {
            to.line(&Line::new("powering-off"));
            return shutdown::request(shutdown::Ending::PowerOff);
        }
    }
    let ending = unattended::ending(armed);
    let event = if ending == shutdown::Ending::Reboot {
        "rebooting"
    } else {
        "powering-off"
    };
    to.line(&Line::new(event));
    shutdown::request(ending)
}

fn note_denied(reason: &str) -> Result<()> {
    std::fs::write(denied_file(), reason).context("noting what became of the unattended restore")
}

/// The disk that was booted: the one with the named partition. None where two have it, as copies of a stick do: a
/// token that is used up on the wrong one would start a second restore at the next boot.
fn booted_disk<'m>(
    media: impl Iterator<Item = &'m Medium>,
    medium: Option<&str>,
) -> Result<PathBuf> {
    let medium = medium.context("the kernel command line does not name the stick")?;
    let mut disks: Vec<&PathBuf> = media
        .filter(|m| m.is(medium))
        .flat_map(|m| &m.disks)
        .collect();
    disks.sort();
    disks.dedup();
    match disks.as_slice() {
        [disk] => Ok((*disk).clone()),
        [] => bail!("the stick that was booted is not among the disks found"),
        [one, other, ..] => bail!(
            "{} and {} are copies of one stick: unplug the one that was not booted, and boot again",
            one.display(),
            other.display()
        ),
    }
}

/// The token on the boot partition of the stick that was booted.
struct StickTokens {
    disk: Result<PathBuf>,
}

impl StickTokens {
    fn stick(&self) -> Result<Stick> {
        let disk = self.disk.as_deref().map_err(|e| anyhow!("{e:#}"))?;
        Stick::open(disk).with_context(|| format!("opening the stick {}", disk.display()))
    }
}

impl Tokens for StickTokens {
    fn read(&self) -> Result<Option<Armed>> {
        token::read(&self.stick()?).context("reading the token")
    }

    fn consume(&self) -> Result<()> {
        let armed = token::consume(&self.stick()?).context("using up the token on the stick")?;
        armed
            .map(|_| ())
            .context("the token on the stick is gone already")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medium(device: &str, disk: &str) -> Medium {
        Medium {
            device: device.into(),
            disks: vec![disk.into()],
            fs_type: "ext4".to_owned(),
            uuid: None,
            partuuid: Some("12345678-01".to_owned()),
            mount_point: "/media".into(),
        }
    }

    #[test]
    fn two_copies_of_the_booted_stick_are_not_told_apart() {
        let one = medium("/dev/sda3", "/dev/sda");
        let other = medium("/dev/sdb3", "/dev/sdb");
        let booted = Some("12345678-01");
        let found = booted_disk([&one, &one].into_iter(), booted);
        assert_eq!(found.expect("one stick"), PathBuf::from("/dev/sda"));
        let error = booted_disk([&one, &other].into_iter(), booted).expect_err("two sticks");
        assert!(error.to_string().contains("copies"), "{error}");
        assert!(booted_disk([].into_iter(), booted).is_err());
    }
}
