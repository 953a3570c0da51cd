//! The whole way of a Proxmox-like node: its disk is destroyed, it comes back from the stick, and its guests come back from
//! the second drive at the first boot, before anything starts them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::pve::{self, Start, ask};
use super::pve_saved::{DRIVE_SERIAL, Facts, Kind, Node};
use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{DISK_BYTES, Host};
use crate::process::{Cmd, run};
use crate::qemu::{Bus, Drive, Firmware, Machine, Nic, Running};
use crate::runner::Scenario;
use crate::saved::serial_of;
use crate::verdict::{HostFacts, manifest_differences};

/// What one of these scenarios does.
struct Story {
    name: &'static str,
    about: &'static str,
    node: Kind,
    /// Address and slot of the network card of the machine that it comes back on.
    card: (&'static str, u8),
    /// What happens to the second drive before.
    harm: Harm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    None,
    /// A stretch of the dump of VM 101 is overwritten.
    DumpDamaged,
}

/// That of the golden node ([`pve::nic`]).
const SAME_CARD: (&str, u8) = ("bc:24:11:00:00:01", 0x10);

const STORIES: [Story; 4] = [
    Story {
        name: "pve-guests",
        about: "a node with two VMs and two containers comes back from stick and second drive; nothing starts early",
        node: Kind::Alone,
        card: SAME_CARD,
        harm: Harm::None,
    },
    Story {
        name: "pve-guests-damaged",
        about: "the same, with one dump damaged on the drive: three guests come back, the fourth is healed or named",
        node: Kind::Alone,
        card: SAME_CARD,
        harm: Harm::DumpDamaged,
    },
    Story {
        name: "pve-member",
        about: "the same for a member of a cluster: it starts alone, with its guests",
        node: Kind::Member,
        card: SAME_CARD,
        harm: Harm::None,
    },
    Story {
        name: "pve-other-nic",
        about: "the same on a machine with another network card: it answers on its management address",
        node: Kind::Alone,
        card: ("52:54:00:aa:bb:cc", 0x12),
        harm: Harm::None,
    },
];

/// All guests of the golden node.
const GUESTS: [u32; 4] = [100, 101, 200, 201];
/// The one whose dump is damaged.
const VICTIM: u32 = 101;

/// The scenarios.
pub fn scenarios(artefacts: &Path) -> Vec<Scenario> {
    let all = STORIES.iter().map(|story| {
        let artefacts = artefacts.to_owned();
        Scenario::new(story.name, story.about, super::needs_bios, move |log| {
            tell(story, &artefacts, log)
        })
        .long()
    });
    all.collect()
}

fn tell(story: &Story, artefacts: &Path, log: &Artefacts) -> Result<()> {
    let node = Node::get(story.node, artefacts)?;
    let facts = node.facts()?;
    let (stick, drive) = node.copies(log)?;
    arm(&node, &stick, log)?;
    if story.harm == Harm::DumpDamaged {
        let packs = damage(&drive, &facts.probe, log)?;
        log.note(&format!("overwrote a part of {packs} packs"));
    }
    let nic = Nic::new(story.card.0, story.card.1).reachable()?;
    let target = log.path("target.raw");
    disk::blank(&target, DISK_BYTES)?;
    let before = disk::content_hash(&drive)?;
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .drive(Drive::new(&target, Bus::Virtio, rescue::TARGET_SERIAL))
        .drive(Drive::new(&drive, Bus::Sata, DRIVE_SERIAL))
        .nic(nic.clone())
        .start(log)?;
    rescue::wait_restored_from(2, &mut machine, log)?;
    machine.quit()?;
    let after = disk::content_hash(&drive)?;
    let changed = if before == after { "is" } else { "is not" };
    log.note(&format!("the second drive {changed} as it was, to the bit"));

    let mut host = first_boot(&target, &drive, &nic, log)?;
    let status = ask(&mut host, "lifeboat guests status 2>&1 || true", 60)?;
    fs::write(log.path("guests-status"), &status)?;
    let journal =
        "journalctl -b --no-pager -u lifeboat-guests -u pve-guests -u pve-cluster -u networking";
    fs::write(log.path("journal"), ask(&mut host, journal, 60)?)?;
    let starts = pve::starts(&mut host, log, "first-boot")?;
    let held = guests(story, &facts, &starts, &status, &mut host, log)?;
    database(&mut host, log)?;
    if story.node == Kind::Member {
        alone(&starts, &mut host, log)?;
    }
    nic.wait_ssh(Duration::from_secs(120))?;
    log.note("it answers on the management address");
    same_host(story, held, &facts, &mut host, log)?;
    host.shut_down()
}

/// The next boot of the stick restores the system disk; nobody says anything about the drive with the guests.
fn arm(node: &Node, stick: &Path, log: &Artefacts) -> Result<()> {
    let disk = disk::guid_text(&disk::gpt(&node.golden.disk())?.id)?;
    let cmd = node
        .product
        .command(log)?
        .args(["arm", "--on"])
        .arg(stick)
        .args(["--then", "poweroff", "--disk"])
        .arg(format!("disk:{disk}={}", rescue::TARGET_SERIAL));
    run(&cmd, log, Duration::from_secs(120))?;
    Ok(())
}

/// Overwrites 64 KiB around the probe in each pack that holds it: more than a bit, less than the drive. Returns how many.
fn damage(drive: &Path, probe: &[u8], log: &Artefacts) -> Result<usize> {
    let mount = tempfile::tempdir()?;
    let minute = Duration::from_secs(60);
    let cmd = Cmd::new("mount").args(["-t", "ext4", "-o", "loop"]);
    run(&cmd.arg(drive).arg(mount.path()), log, minute)?;
    let result = damage_below(&mount.path().join("lifeboat/packs"), probe);
    run(&Cmd::new("umount").arg(mount.path()), log, minute)?;
    result
}

fn damage_below(dir: &Path, probe: &[u8]) -> Result<usize> {
    let (mut dirs, mut found) = (vec![dir.to_owned()], 0);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("{}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let mut bytes = fs::read(&path)?;
            if let Some(at) = bytes.windows(probe.len()).position(|w| w == probe) {
                let from = at.saturating_sub(32 << 10);
                let to = (at + (32 << 10)).min(bytes.len());
                bytes[from..to].fill(0x5a);
                fs::write(&path, bytes)?;
                found += 1;
            }
        }
    }
    ensure!(
        found > 0,
        "no pack holds the bytes of the VM's disk as they are"
    );
    Ok(found)
}

/// Starts the restored node, with the drive beside it, and waits until it is up and has done what it does at its first boot.
fn first_boot(target: &Path, drive: &Path, nic: &Nic, log: &Artefacts) -> Result<Running> {
    let overlay = |image: &Path, name: &str| -> Result<PathBuf> {
        let path = log.path(name);
        disk::overlay(image, &path, log)?;
        Ok(path)
    };
    let mut host = Machine::new("restored", Firmware::Bios)
        .memory(2048)
        .nic(nic.clone())
        .drive(Drive::new(
            overlay(target, "boot.qcow2")?,
            Bus::Virtio,
            serial_of(rescue::TARGET_SERIAL, 0),
        ))
        .drive(Drive::new(
            overlay(drive, "boot-drive.qcow2")?,
            Bus::Sata,
            DRIVE_SERIAL,
        ))
        .start(log)?;
    pve::wait_up(&mut host, log)?;
    Ok(host)
}

/// The verdict on the guests. Returns whether all are back.
fn guests(
    story: &Story,
    facts: &Facts,
    starts: &[Start],
    status: &str,
    host: &mut Running,
    log: &Artefacts,
) -> Result<bool> {
    let text = ask(host, "guest-facts || true", 600)?;
    fs::write(log.path("guests.before"), &facts.guests)?;
    fs::write(log.path("guests.after"), &text)?;
    let pending = "test -e /var/lib/lifeboat/guests/pending.json && echo yes || echo no";
    let pending = ask(host, pending, 30)?.trim() == "yes";
    if text == facts.guests {
        pve::ensure_started_whole(starts, &GUESTS, &facts.guests)?;
        ensure!(!pending, "all guests are back, and the list is still there");
        log.note("all guests are back, and started after that");
        return Ok(true);
    }
    ensure!(
        story.harm == Harm::DumpDamaged,
        "guests hold something else (guests.before, guests.after): {:?}",
        manifest_differences(&facts.guests, &text)
    );
    // Refused: the others are whole and started, and this one is named and not half there.
    let others: Vec<u32> = GUESTS.into_iter().filter(|id| *id != VICTIM).collect();
    pve::ensure_started_whole(starts, &others, &facts.guests)?;
    ensure!(
        starts.iter().all(|s| s.begun() != Some(VICTIM)),
        "guest {VICTIM} was started without its disk"
    );
    // Asked for alone: the facts end where a disk is missing.
    let ids: Vec<String> = others.iter().map(u32::to_string).collect();
    let text = ask(host, &format!("guest-facts {}", ids.join(" ")), 600)?;
    fs::write(log.path("guests.after"), &text)?;
    let own = format!("disk {VICTIM} ");
    let wanted = facts.guests.lines().filter(|line| !line.starts_with(&own));
    ensure!(
        wanted.eq(text.lines()),
        "guests whose dumps are whole hold something else (guests.before, guests.after)"
    );
    ensure!(
        status
            .lines()
            .any(|l| l.contains("101") && l.to_lowercase().contains("fail")),
        "guest {VICTIM} is not named as failed:\n{status}"
    );
    let volumes = ask(host, "lvs --noheadings -o lv_name pve", 60)?;
    ensure!(
        !volumes.contains("vm-101-"),
        "guest {VICTIM} is half there: {volumes}"
    );
    ensure!(pending, "a guest is missing, and the list is gone");
    log.note("three guests are back and started, the fourth is named");
    Ok(false)
}

/// The node's database: whole, and a state that there was while something wrote to it.
fn database(host: &mut Running, log: &Artefacts) -> Result<()> {
    let state = ask(host, "pmxcfs --judge /var/lib/pve-cluster/config.db", 60)?;
    let number: u64 = state.trim().parse().context("no number of a state")?;
    ensure!(
        number > 0,
        "nothing wrote to the database during the backup"
    );
    log.note(&format!("the database is state {number} of its writer"));
    Ok(())
}

/// A member of a cluster starts alone: nothing joined, and it can write to /etc/pve without anybody's help.
fn alone(starts: &[Start], host: &mut Running, log: &Artefacts) -> Result<()> {
    ensure!(
        starts.iter().all(|s| s.what != "service-started"),
        "corosync was started"
    );
    let script = "test ! -e /etc/pve/corosync.conf && test ! -e /etc/corosync/corosync.conf \
                  && test ! -e /etc/corosync/authkey && test ! -e /run/pve-stand-ins/quorate";
    ask(host, script, 30).context("it is still a member")?;
    log.note("it is no member of a cluster");
    Ok(())
}

/// What a restored node has of its own: its database and its containers' directories are written at every start.
/// vzdump made `/mnt/vzsnap0` after the facts were taken. ifupdown2's start-networking links `/etc/network/run` at whichever
/// boot finds the root file system writable by then.
const OWN: [&str; 5] = [
    "/var/lib/pve-cluster",
    "/var/lib/lxc",
    "/var/lib/lifeboat",
    "/mnt/vzsnap0",
    "/etc/network/run",
];

/// Mount points show the time of what is mounted there; in the others something was made and removed again.
const OTHER_TIME: [&str; 8] = [
    "/mnt",
    "/etc/network",
    "/etc/systemd/system/multi-user.target.wants",
    "/mnt/backup",
    "/etc/pve",
    "/etc",
    "/etc/systemd/system",
    "/usr/local/lib",
];

/// The node's own files, storage and units.
fn same_host(
    story: &Story,
    all_back: bool,
    facts: &Facts,
    host: &mut Running,
    log: &Artefacts,
) -> Result<()> {
    let now = HostFacts::take(Host::PveNode, &mut host.channel)?;
    fs::write(log.path("manifest.before"), &facts.host.manifest)?;
    fs::write(log.path("manifest.after"), &now.manifest)?;
    let mut allowed = OWN.to_vec();
    if !all_back {
        // What is to bring the last guest back stays until it is back.
        allowed.push("/etc/systemd/system");
    }
    if story.node == Kind::Member {
        allowed.extend(["/etc/corosync", "/root", "/etc/motd.d"]);
    }
    if story.card != SAME_CARD {
        // The links that keep the names.
        allowed.push("/usr/local/lib");
    }
    let mut differences = manifest_differences(&facts.host.manifest, &now.manifest);
    differences.retain(|line| {
        let path = line.split(": ").next().unwrap_or_default();
        let may_differ = allowed.iter().any(|start| path.starts_with(start));
        let time = line.contains(": mtime was") && OTHER_TIME.contains(&path);
        !(may_differ || time)
    });
    ensure!(
        differences.is_empty(),
        "the node differs (manifest.before, manifest.after):\n{}",
        differences.join("\n")
    );
    ensure!(
        facts.host.storage == now.storage,
        "storage was:\n{}\nis:\n{}",
        facts.host.storage,
        now.storage
    );
    let failed: Vec<&str> = now
        .failed_units
        .lines()
        .filter(|unit| all_back || !unit.starts_with("lifeboat-guests"))
        .filter(|unit| !facts.host.failed_units.contains(unit))
        .collect();
    ensure!(failed.is_empty(), "units failed: {}", failed.join(", "));
    log.note("the node equals the saved one");
    Ok(())
}
