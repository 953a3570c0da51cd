//! Type to confirm: one line for each disk that will be erased.

use layout::plan::DiskAssignment;

use super::terminal::{Gone, Terminal};
use super::{Answers, Screen};

/// Wrong answers before it goes back to the plan.
const TRIES: usize = 3;

/// Names what is erased, and asks for the serial number of each disk.
pub fn show(answers: &Answers, terminal: &mut dyn Terminal) -> Result<Screen, Gone> {
    let Some(prepared) = &answers.prepared else {
        return Ok(Screen::Disks);
    };
    terminal.say("\nTHIS ERASES:");
    for disk in &prepared.plan.disks {
        terminal.say(&describe(disk));
    }
    terminal.say("All other disks become read-only before any write. Type `back` to stop here.");
    for disk in &prepared.plan.disks {
        if !confirmed(disk, terminal)? {
            terminal.say("Not confirmed; nothing was written.");
            return Ok(Screen::Plan);
        }
    }
    Ok(Screen::Work)
}

fn describe(disk: &DiskAssignment) -> String {
    let now = if disk.erased.is_empty() {
        "nothing known".to_owned()
    } else {
        disk.erased.join(", ")
    };
    format!(
        "  {}  {}  serial {}  {}\n      on it now: {now}",
        disk.device.display(),
        disk.identity.model.as_deref().unwrap_or("unknown model"),
        disk.identity.serial.as_deref().unwrap_or("none"),
        disk.identity.size
    )
}

fn confirmed(disk: &DiskAssignment, terminal: &mut dyn Terminal) -> Result<bool, Gone> {
    let device = disk.device.display().to_string();
    let serial = disk
        .identity
        .serial
        .as_deref()
        .map(str::trim)
        .filter(|s| !s.is_empty());
    let question = match serial {
        Some(_) => format!("Serial number of {device}, to erase it"),
        None => format!("ERASE and the device name, to erase {device}"),
    };
    for _ in 0..TRIES {
        let answer = terminal.ask(&question, None)?;
        let answer = answer.trim();
        if answer.eq_ignore_ascii_case("back") {
            return Ok(false);
        }
        let right = match serial {
            Some(serial) => answer == serial,
            None => {
                let named = answer.strip_prefix("ERASE ").map(str::trim);
                named.is_some_and(|name| name == device || format!("/dev/{name}") == device)
            }
        };
        if right {
            return Ok(true);
        }
        terminal.say("That is not it.");
    }
    Ok(false)
}
