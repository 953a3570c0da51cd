//! An operator at the serial console: chooses the restore point and the disk, reads the plan, mistypes the confirmation, then
//! types it right.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::golden::{DISK_BYTES, Host};
use crate::qemu::{Bus, Drive, Firmware, Running};
use crate::runner::Scenario;
use crate::saved::Saved;
use crate::verdict::Untouched;

/// The scenario.
pub fn scenario(artefacts: &Path) -> Scenario {
    let artefacts = artefacts.to_owned();
    Scenario::new(
        "wizard-serial",
        "the wizard on the serial console: nothing is written before the serial number is typed; then the host is back",
        super::needs_bios,
        move |log| run(&artefacts, log),
    )
}

fn run(artefacts: &Path, log: &Artefacts) -> Result<()> {
    let saved = Saved::get(Host::PveExt4, Firmware::Bios, artefacts)?;
    let stick = rescue::copy_stick(&saved, log)?;
    let (target, data) = (log.path("target.raw"), log.path("data.raw"));
    disk::blank(&target, DISK_BYTES)?;
    disk::data_disk(&data, DISK_BYTES, log)?;
    let untouched = Untouched::watch(&data, rescue::DATA_SERIAL)?;
    let mut machine = rescue::machine(Firmware::Bios, &stick)
        .drive(Drive::new(&data, Bus::Sata, rescue::DATA_SERIAL))
        .drive(Drive::new(&target, Bus::Nvme, rescue::TARGET_SERIAL))
        .start(log)?;
    Operator::new(None).restore(&mut machine, log)?;
    untouched.ensure_no_writes(&mut machine)?;
    machine.quit()?;
    untouched.ensure_same_content()?;
    rescue::judge(&saved, &[&target], Bus::Nvme, log)
}

/// The questions; see the head of the wizard's code.
const QUESTIONS: [&str; 12] = [
    "Restore point [1]: ",
    "What to do [1]: ",
    "Use these disks (yes, change, back) [yes]: ",
    "Saved disk to assign [1]: ",
    "Number of the disk to erase for it: ",
    "Go on with this plan (yes, back) [yes]: ",
    "Serial number of ",
    "What now [1]: ",
    "Assign disks by hand (change, back) [back]: ",
    "What now [4]: ",
    "_crypt (empty: back): ",
    "How much: ",
];

/// Somebody at the serial console.
#[derive(Default)]
pub struct Operator<'a> {
    /// What opens the host's container.
    passphrase: Option<&'a str>,
    /// The disk may have been written to before: by a restore that was cut.
    again: bool,
    chosen: bool,
    accepted: bool,
    mistyped: bool,
    typed: bool,
    keys: usize,
}

impl<'a> Operator<'a> {
    /// One who knows this passphrase.
    pub fn new(passphrase: Option<&'a str>) -> Self {
        Self {
            passphrase,
            ..Self::default()
        }
    }

    /// One who has seen a restore fail.
    pub fn again() -> Self {
        Self {
            again: true,
            ..Self::default()
        }
    }

    /// Restores onto the disk [`rescue::TARGET_SERIAL`] and powers off.
    pub fn restore(&mut self, machine: &mut Running, log: &Artefacts) -> Result<()> {
        self.begin(machine, log)?;
        // More questions than are left.
        for _ in 0..5 {
            if self.answer(machine, log, Duration::from_secs(1500))? {
                return machine.wait_powered_off(Duration::from_secs(120));
            }
        }
        bail!("the wizard goes on asking")
    }

    /// Answers up to the plan, after which everything that the restore needs is read.
    pub fn accept_plan(&mut self, machine: &mut Running, log: &Artefacts) -> Result<()> {
        self.until(machine, log, |operator| operator.accepted)
    }

    /// Answers up to the confirmation, after which the disk is erased.
    pub fn begin(&mut self, machine: &mut Running, log: &Artefacts) -> Result<()> {
        self.until(machine, log, |operator| operator.typed)
    }

    fn until(
        &mut self,
        machine: &mut Running,
        log: &Artefacts,
        done: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let mut wait = Duration::from_secs(240);
        // More questions than there are up to it: the wizard goes in circles.
        for _ in 0..14 {
            ensure!(
                !self.answer(machine, log, wait)?,
                "the result came before the confirmation was typed"
            );
            if done(self) {
                return Ok(());
            }
            wait = Duration::from_secs(120);
        }
        bail!("the wizard goes on asking")
    }

    /// Answers one question; says whether it was the one after a restore, and the machine is about to power off.
    fn answer(&mut self, machine: &mut Running, log: &Artefacts, wait: Duration) -> Result<bool> {
        let (which, text) = machine.serial.expect_any(&QUESTIONS, wait)?;
        log.note(&format!("the wizard asks: {}", QUESTIONS[which]));
        self.accepted |= which == 5;
        let answer = match which {
            0 | 1 | 3 | 5 => String::new(),
            // Whatever the wizard proposes, the operator looks at the list once.
            2 if self.chosen => String::new(),
            2 | 8 => "change".to_owned(),
            4 => {
                self.chosen = true;
                number_of(rescue::TARGET_SERIAL, &machine.serial.text())?
            }
            6 => {
                let counters = machine.counters(rescue::TARGET_SERIAL)?;
                ensure!(
                    self.again || counters.writes == 0,
                    "written to before the confirmation: {counters:?}"
                );
                ensure!(
                    text.contains(rescue::TARGET_SERIAL) || self.mistyped,
                    "what is erased is not named:\n{text}"
                );
                if self.mistyped {
                    self.typed = true;
                    rescue::TARGET_SERIAL.to_owned()
                } else {
                    self.mistyped = true;
                    "WRONG".to_owned()
                }
            }
            7 => {
                ensure!(
                    self.passphrase.is_none() || self.keys == 2,
                    "the passphrase was not asked for"
                );
                ensure!(
                    machine
                        .serial
                        .text()
                        .contains("lifeboat: restored differences=0"),
                    "not restored:\n{text}"
                );
                ensure!(
                    !text.contains("could not be kept"),
                    "the logs are not on the stick:\n{text}"
                );
                machine.serial.send("2\r")?;
                return Ok(true);
            }
            // The restore failed: what the rescue system can tell goes into the serial log.
            9 => {
                machine.serial.send("3\r")?;
                std::thread::sleep(Duration::from_secs(5));
                machine.serial.send("dmesg | tail -n 40; ps ax; cat /proc/meminfo; ls -l /run/lifeboat/log; echo END-OF-TEXT\r")?;
                machine
                    .serial
                    .expect("\nEND-OF-TEXT", Duration::from_secs(60))?;
                bail!("the restore failed:\n{text}")
            }
            // The first key is a wrong one.
            10 => match (self.passphrase, self.keys) {
                (None, _) => bail!("the wizard asks for a passphrase that nothing has"),
                (_, 0) => {
                    self.keys = 1;
                    "wrong".to_owned()
                }
                (Some(right), 1) => {
                    ensure!(
                        text.contains("That does not open it."),
                        "a wrong passphrase is not told:\n{text}"
                    );
                    self.keys = 2;
                    right.to_owned()
                }
                _ => bail!("the right passphrase is not taken:\n{text}"),
            },
            // All of the machine.
            11 => "4".to_owned(),
            _ => bail!("question {which} has no answer here"),
        };
        machine.serial.send(&format!("{answer}\r"))?;
        Ok(false)
    }
}

/// The number in front of the line that names this serial number.
fn number_of(serial: &str, text: &str) -> Result<String> {
    let line = text.lines().rev().find(|line| {
        line.contains(serial) && line.trim_start().starts_with(|c: char| c.is_ascii_digit())
    });
    let Some(line) = line else {
        bail!("the wizard does not offer the disk {serial}:\n{text}")
    };
    Ok(line
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect())
}
