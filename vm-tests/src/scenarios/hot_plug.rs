//! A stick is plugged into a running host: it gets a restore point that is read back, and ends powered down. Plugged in
//! again within the hour, it gets nothing.

use std::path::Path;

use anyhow::{Result, ensure};

use super::plugged::{Bench, ensure_says};
use crate::artefacts::Artefacts;
use crate::disk;
use crate::runner::Scenario;

/// The scenario.
pub fn scenario(_artefacts: &Path) -> Scenario {
    Scenario::new(
        "hot-plug",
        "a stick is plugged in: it is backed up to, verified, and powered down; a second time within the hour nothing is done",
        super::needs_package,
        run,
    )
    .long()
}

fn run(log: &Artefacts) -> Result<()> {
    let bench = Bench::new(log)?;
    let stick = bench.stick("STICK-A")?;
    let mut plugged = bench.host("update-rescue = false")?;
    let said = plugged.plug(&stick, 60)?;
    ensure_says(&said, "does not know")?;
    ensure!(
        plugged.host.writes_to(&stick)? == 0,
        "a stick that is not known was written to"
    );
    log.note("a stick that is not known is let alone");
    plugged.adopt(&stick)?;
    plugged.host.pull(&stick)?;
    ensure!(
        bench.restore_points(&stick.image)?.is_empty(),
        "there is a restore point already"
    );

    let said = plugged.plug(&stick, 600)?;
    log.note("the backup has ended");
    ensure_says(&said, "was read back without errors")?;
    ensure_says(&said, "It is powered down: pull it out.")?;
    ensure!(
        plugged.disks_of(&stick)? == 0,
        "the stick is still there: {}",
        plugged.text("lsblk")?
    );
    let usb = plugged.text("cat /sys/bus/usb/devices/*/idVendor || true")?;
    ensure!(
        !usb.contains("46f4"),
        "its USB device is still there:\n{usb}"
    );
    ensure_says(
        &plugged.host.serial.text(),
        "It is powered down: pull it out.",
    )?;
    plugged.ensure_unmounted()?;
    plugged.host.pull(&stick)?;
    let points = bench.restore_points(&stick.image)?;
    ensure!(points.len() == 1, "not one restore point: {points:?}");
    ensure!(
        points[0]["host"]["hostname"] == "golden",
        "not of the host: {points:?}"
    );
    bench.verify(&stick.image)?;
    log.note("the stick holds one restore point, and it is good");

    let before = disk::content_hash(&stick.image)?;
    let said = plugged.plug(&stick, 60)?;
    ensure_says(&said, "nothing to do")?;
    ensure!(
        plugged.host.writes_to(&stick)? == 0 && plugged.disks_of(&stick)? == 1,
        "something was done"
    );
    let runs = plugged.runs()?;
    ensure!(
        runs.len() == 1 && runs[0]["trigger"] == "plug" && runs[0]["result"] == "fine",
        "not one run by plugging in: {runs:?}"
    );
    plugged.host.pull(&stick)?;
    ensure!(
        disk::content_hash(&stick.image)? == before,
        "the second time changed the stick"
    );
    plugged.host.shut_down()
}
