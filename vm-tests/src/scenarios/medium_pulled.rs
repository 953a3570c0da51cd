//! The stick is pulled out while it is checked, put back in, and pulled out again while its files are being restored. The
//! first time nothing is written. The second time the restore fails and says so, and the next one in the same rescue system
//! brings the host back; where all that was left was in memory since the check, that one does.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::rescue;
use super::wizard_serial::Operator;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{DISK_BYTES, Host};
use crate::qemu::{Bus, Drive, Firmware, Running};
use crate::runner::Scenario;
use crate::saved::{STICK_SERIAL, Saved};

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "medium-pulled",
        "BIOS: the stick is pulled out during the check and during the restore: nothing is lost, the host is back",
        super::needs_bios,
        move |log| run(&artefacts, log),
    )
    .long()
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::PveExt4, Firmware::Bios, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    let target = log.path("target.raw");
    disk::blank(&target, DISK_BYTES)?;
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .drive(Drive::new(&target, Bus::Virtio, rescue::TARGET_SERIAL))
        .start(log)?;
    pull_during_the_check(&mut machine, log)?;
    Operator::new(None).begin(&mut machine, log)?;
    machine
        .serial
        .expect("files of / ", Duration::from_secs(900))?;
    // The bar goes on: files are being written.
    machine.serial.expect("MiB/s", Duration::from_secs(300))?;
    machine.pull_out(STICK_SERIAL)?;
    log.note("the stick is pulled out");
    let (which, text) = machine.serial.expect_any(
        &["What now [4]: ", "What now [1]: "],
        Duration::from_secs(600),
    )?;
    if which == 1 {
        // All that was left to be read was in memory since the check, so nothing is missing: the verdict says whether.
        ensure!(text.contains("\nRESTORED in "), "it says:\n{text}");
        log.note("it was restored out of memory");
        machine.serial.send("2\r")?;
        machine.wait_powered_off(Duration::from_secs(120))?;
        machine.quit()?;
        return rescue::judge(&saved, &[&target], Bus::Virtio, log);
    }
    ensure!(
        text.contains("THE RESTORE FAILED"),
        "it does not say that the restore failed:\n{text}"
    );
    log.note("it says that the restore failed");
    machine.serial.send("4\r")?;
    search_with_stick(&mut machine)?;
    Operator::again().restore(&mut machine, log)?;
    machine.quit()?;
    rescue::judge(&saved, &[&target], Bus::Virtio, log)
}

/// Ends before the question for the restore point.
fn pull_during_the_check(machine: &mut Running, log: &Artefacts) -> Result<()> {
    Operator::new(None).accept_plan(machine, log)?;
    machine
        .serial
        .expect("Reading everything", Duration::from_secs(60))?;
    machine.pull_out(STICK_SERIAL)?;
    log.note("the stick is pulled out during the check");
    let questions = [
        "Restore without these files (accept, back) [back]: ",
        "What to do [1]: ",
    ];
    let (which, text) = machine
        .serial
        .expect_any(&questions, Duration::from_secs(300))?;
    ensure!(
        which == 0 || text.contains("Not restored: "),
        "it does not say that nothing is restored:\n{text}"
    );
    if which == 0 {
        machine.serial.send("back\r")?;
        machine
            .serial
            .expect(questions[1], Duration::from_secs(60))?;
    }
    let counters = machine.counters(rescue::TARGET_SERIAL)?;
    ensure!(counters.writes == 0, "written to: {counters:?}");
    machine.serial.send("b\r")?;
    search_with_stick(machine)
}

/// Puts the stick back in at the question for the restore point, and has the wizard ask again.
fn search_with_stick(machine: &mut Running) -> Result<()> {
    machine
        .serial
        .expect_any(&CHOOSE, Duration::from_secs(60))?;
    machine.put_back(STICK_SERIAL)?;
    // The kernel takes its time to look at a stick.
    std::thread::sleep(Duration::from_secs(15));
    machine.serial.send("s\r")?;
    machine
        .serial
        .expect("Searching...", Duration::from_secs(60))?;
    Ok(())
}

const CHOOSE: [&str; 2] = ["Restore point [1]: ", "No bundle found. Choose [s]: "];
