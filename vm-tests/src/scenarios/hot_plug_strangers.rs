//! Sticks that a host must not write to, or cannot: another disk, one that it does not know, another host's, copies, one
//! that is write-protected, one that is dying. And two of its own at once.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::plugged::{Bench, Plugged, ensure_says};
use crate::artefacts::Artefacts;
use crate::disk;
use crate::process::{Cmd, run as run_here};
use crate::qemu::Stick;
use crate::runner::Scenario;

/// The scenario.
pub fn scenario(_artefacts: &Path) -> Scenario {
    Scenario::new(
        "hot-plug-strangers",
        "sticks that are not ours, another host's, copies, write-protected or dying are let alone; two at once take turns",
        super::needs_package,
        run,
    )
    .long()
}

/// Little is saved: what counts is what is saved where.
const CONFIG: &str = "update-rescue = false\nexclude = [\"/usr/*\", \"/boot/*\", \"/var/lib/dpkg/*\"]\n\
    [plug]\non-plug = \"always\"";

fn run(log: &Artefacts) -> Result<()> {
    let bench = Bench::new(log)?;
    let (a, b) = (bench.stick("STICK-A")?, bench.stick("STICK-B")?);
    let other = of_another_host(&bench, log)?;
    let mut plugged = bench.host(CONFIG)?;
    not_a_stick(&mut plugged, log)?;
    another_hosts(&mut plugged, &other, log)?;
    for stick in [&a, &b] {
        let said = plugged.plug(stick, 60)?;
        ensure_says(&said, "does not know")?;
        plugged.adopt(stick)?;
        plugged.host.pull(stick)?;
    }
    copies(&mut plugged, &a, log)?;
    unwritable(&mut plugged, &a, log)?;
    two_at_once(&mut plugged, &a, &b, log)?;
    plugged.ensure_unmounted()?;
    plugged.host.shut_down()?;
    for stick in [&a, &b] {
        let points = bench.restore_points(&stick.image)?;
        ensure!(
            points.len() == 1,
            "{} holds not one restore point: {points:?}",
            stick.serial
        );
        bench.verify(&stick.image)?;
    }
    Ok(())
}

/// A stick that was made here, and holds only what another machine (this one) saved.
fn of_another_host(bench: &Bench<'_>, log: &Artefacts) -> Result<Stick> {
    let stick = bench.stick("STICK-OTHER")?;
    let files = log.path("files");
    std::fs::create_dir_all(&files)?;
    std::fs::write(files.join("file"), "of another machine")?;
    let root = files.to_string_lossy();
    bench.lifeboat(
        &["backup", "--no-update-rescue", "--root", &root, "--to"],
        &stick.image,
    )?;
    Ok(stick)
}

/// Plugs a stick in, and sees that nothing is written to it.
fn untouched(plugged: &mut Plugged, stick: &Stick) -> Result<String> {
    let said = plugged.plug(stick, 90)?;
    let writes = plugged.host.writes_to(stick)?;
    ensure!(
        writes == 0,
        "{} was written to {writes} times; it says:\n{said}",
        stick.serial
    );
    plugged.ensure_unmounted()?;
    Ok(said)
}

/// A file system with our label, on a disk without our partitions.
fn not_a_stick(plugged: &mut Plugged, log: &Artefacts) -> Result<()> {
    let image = log.path("photos.raw");
    disk::blank(&image, 64 << 20)?;
    let make = Cmd::new("mkfs.ext4").args(["-q", "-L", "LIFEBOAT"]);
    run_here(&make.arg(&image), log, Duration::from_secs(60))?;
    let stick = Stick::new(image, "PHOTOS");
    plugged.host.plug(&stick)?;
    let seen = plugged.text(
        "for n in $(seq 60); do lsblk -dno SERIAL | grep -q PHOTOS && break; sleep 1; done
        udevadm settle; sleep 3; systemctl list-units --all --no-legend 'lifeboat-plug@*'",
    )?;
    ensure!(seen.is_empty(), "a unit was started:\n{seen}");
    ensure!(plugged.disks_of(&stick)? == 1, "the disk was not seen");
    plugged.host.pull(&stick)?;
    log.note("a disk that is no stick starts nothing");
    Ok(())
}

fn another_hosts(plugged: &mut Plugged, other: &Stick, log: &Artefacts) -> Result<()> {
    let before = disk::content_hash(&other.image)?;
    let said = untouched(plugged, other)?;
    ensure_says(&said, "does not know")?;
    // Known to this host, as one that it made: what is on it counts.
    plugged.adopt(other)?;
    plugged
        .text("sed -i 's/\"shared\": true/\"shared\": false/' /var/lib/lifeboat/sticks/*.json")?;
    plugged.host.pull(other)?;
    let said = plugged.plug(other, 90)?;
    ensure_says(&said, "restore points of other hosts only")?;
    plugged.host.pull(other)?;
    // A look at it may replay its journal, and that is all.
    let after = disk::content_hash(&other.image)?;
    if before != after {
        log.note("the journal of the other host's stick was replayed");
    }
    plugged.text("rm /var/lib/lifeboat/sticks/*.json")?;
    log.note("another host's stick is let alone");
    Ok(())
}

fn copies(plugged: &mut Plugged, stick: &Stick, log: &Artefacts) -> Result<()> {
    let image = log.path("copy.raw");
    disk::copy(&stick.image, &image, log)?;
    let copy = Stick::new(image, "STICK-COPY");
    let said = untouched(plugged, &copy)?;
    ensure_says(&said, "is a copy of another stick")?;
    let said = untouched(plugged, stick)?;
    ensure_says(&said, "are copies of each other")?;
    plugged.host.pull(&copy)?;
    plugged.host.pull(stick)?;
    log.note("copies are refused, alone and beside the stick");
    Ok(())
}

fn unwritable(plugged: &mut Plugged, stick: &Stick, log: &Artefacts) -> Result<()> {
    let protected = stick.clone().protected();
    let said = untouched(plugged, &protected)?;
    ensure_says(&said, "write-protected")?;
    plugged.host.pull(&protected)?;
    log.note("a write-protected stick is said to be one");
    let dying = stick.clone().dying();
    let said = plugged.plug(&dying, 300)?;
    ensure_says(&said, "NO GOOD RESTORE POINT")?;
    ensure_says(&said, "it can be pulled out")?;
    ensure!(
        plugged.disks_of(&dying)? == 1,
        "a stick that failed is to stay there, so that it can be looked at"
    );
    plugged.host.pull(&dying)?;
    plugged.ensure_unmounted()?;
    log.note("a dying stick is said to be one");
    Ok(())
}

fn two_at_once(plugged: &mut Plugged, a: &Stick, b: &Stick, log: &Artefacts) -> Result<()> {
    let before = plugged.runs()?.len();
    plugged.host.plug(a)?;
    plugged.host.plug(b)?;
    plugged.wait_ended(2, 600)?;
    let said = plugged.said()?;
    ensure!(
        said.matches("It is powered down: pull it out.").count() >= 2,
        "not both were powered down:\n{said}"
    );
    for stick in [a, b] {
        ensure!(plugged.disks_of(stick)? == 0, "{} is there", stick.serial);
    }
    let runs = plugged.runs()?.split_off(before);
    let time = |run: &Value, name: &str| run[name].as_str().map(str::to_owned);
    let times: Option<Vec<(String, String)>> = runs
        .iter()
        .map(|r| Some((time(r, "started")?, time(r, "ended")?)))
        .collect();
    let times = times.context("a run has no end")?;
    ensure!(
        times.len() == 2 && times[0].1 <= times[1].0,
        "they were not one after the other: {times:?}"
    );
    ensure!(
        runs.iter().all(|r| r["result"] == "fine"),
        "not both are fine: {runs:?}"
    );
    plugged.host.pull(a)?;
    plugged.host.pull(b)?;
    log.note("two at once were backed up to one after the other");
    Ok(())
}
