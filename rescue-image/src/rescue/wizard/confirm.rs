//! Type to confirm: one line for each disk that will be erased.

use layout::plan::{DiskAssignment, InPlace};

use super::terminal::{Gone, Terminal};
use super::{Answers, Screen};

/// Wrong answers before it goes back to the plan.
const TRIES: usize = 3;

/// Names what is erased, and asks for the serial number of each disk.
pub fn show(answers: &Answers, terminal: &mut dyn Terminal) -> Result<Screen, Gone> {
    let Some(prepared) = &answers.prepared else {
        return Ok(Screen::Disks);
    };
    let in_place = prepared.plan.in_place.as_ref();
    match in_place {
        None => terminal.say("\nTHIS ERASES:"),
        Some(_) => {
            terminal.say("\nTHIS MAKES ANEW (what is in it now is lost; all the rest stays):")
        }
    }
    for disk in &prepared.plan.disks {
        terminal.say(&describe(disk, in_place));
    }
    terminal.say("All other disks become read-only before any write. Type `back` to stop here.");
    for disk in &prepared.plan.disks {
        if !confirmed(disk, in_place.is_none(), terminal)? {
            terminal.say("Not confirmed; nothing was written.");
            return Ok(Screen::Plan);
        }
    }
    Ok(Screen::Work)
}

fn describe(disk: &DiskAssignment, in_place: Option<&InPlace>) -> String {
    let name = format!(
        "  {}  {}  serial {}  {}",
        disk.device.display(),
        disk.identity.model.as_deref().unwrap_or("unknown model"),
        disk.identity.serial.as_deref().unwrap_or("none"),
        disk.identity.size
    );
    if let Some(in_place) = in_place {
        let here = in_place.remade.iter().filter(|r| r.disk == disk.device);
        return here.fold(name, |text, remade| {
            format!("{text}\n      {}", remade.what)
        });
    }
    let now = if disk.erased.is_empty() {
        "nothing known".to_owned()
    } else {
        disk.erased.join(", ")
    };
    format!("{name}\n      on it now: {now}")
}

fn confirmed(
    disk: &DiskAssignment,
    erased: bool,
    terminal: &mut dyn Terminal,
) -> Result<bool, Gone> {
    let device = disk.device.display().to_string();
    let serial = disk
        .identity
        .serial
        .as_deref()
        .map(str::trim)
        .filter(|s| !s.is_empty());
    let question = match serial {
        Some(_) if erased => format!("Serial number of {device}, to erase it"),
        Some(_) => format!("Serial number of {device}, to go on"),
        None if erased => format!("ERASE and the device name, to erase {device}"),
        None => format!("ERASE and the device name, to go on with {device}"),
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
