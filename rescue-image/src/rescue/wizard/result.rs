//! What came of it.

use layout::plan::Mode;

use super::terminal::{Gone, Item, Terminal, menu};
use super::{Answers, Return, Screen};
use crate::rescue::restore::{Outcome, Stop};

/// Shows the result and asks what to do next.
pub fn show(answers: &Answers, terminal: &mut dyn Terminal) -> Result<Screen, Gone> {
    let Some(result) = &answers.result else {
        return Ok(Screen::Points);
    };
    terminal.say(&format!("\n{}", text(result)));
    let items = [
        Item::new(1, "Reboot (take the stick out when the screen goes dark)"),
        Item::new(2, "Power off"),
        Item::new(3, "Shell"),
        Item::new(4, "Back to the beginning"),
    ];
    // Only a complete restore is worth booting without a thought.
    let default = if matches!(result, Ok(outcome) if outcome.complete()) {
        "1"
    } else {
        "4"
    };
    Ok(
        match menu(terminal, "What now?", &items, "What now", Some(default))? {
            0 => Screen::Reboot,
            1 => Screen::PowerOff,
            2 => Screen::Shell(Return::Result),
            _ => Screen::Points,
        },
    )
}

fn text(result: &Result<Outcome, Stop>) -> String {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(stop @ Stop::NotCompared(_)) => {
            return format!("RESTORED, BUT NOT COMPARED.\n{stop}\nLogs: /run/lifeboat/log");
        }
        Err(stop @ Stop::Failed { .. }) => {
            return format!("THE RESTORE FAILED.\n{stop}\nLogs: /run/lifeboat/log");
        }
        Err(stop) => return format!("Not restored; nothing was written: {stop}"),
    };
    let mut text = if outcome.complete() {
        format!(
            "RESTORED in {} s. {}\n",
            outcome.seconds,
            match outcome.mode {
                Mode::BareMetal => "The machine has its saved layout and all its files.",
                Mode::SystemOnly =>
                    "The system has all its files; guests and data are as they were.",
                Mode::BootRepair => "The boot loader is back; everything else is as it was.",
                Mode::TableRepair => "The partition table is back; everything else is as it was.",
            }
        )
    } else {
        format!(
            "RESTORED WITH DIFFERENCES in {} s. Look at them before you rely on this machine.\n",
            outcome.seconds
        )
    };
    let accepted = outcome.differences.iter().filter(|d| d.accepted).count();
    let value = |v: &Option<String>| v.clone().unwrap_or_else(|| "nothing".to_owned());
    for d in outcome.unexplained() {
        text.push_str(&format!(
            "  {} {}: was {}, is {}\n",
            d.node,
            d.what,
            value(&d.saved),
            value(&d.now)
        ));
    }
    if accepted > 0 {
        text.push_str(&format!(
            "Explained differences (other serial numbers, grown volumes, ...): {accepted}\n"
        ));
        for d in outcome.differences.iter().filter(|d| d.accepted) {
            let reason = d.reason.as_deref().unwrap_or("accepted");
            text.push_str(&format!(
                "  {} {}: was {}, is {} ({reason})\n",
                d.node,
                d.what,
                value(&d.saved),
                value(&d.now)
            ));
        }
    }
    for lost in &outcome.losses.missing {
        text.push_str(&format!(
            "  MISSING {}: {}\n",
            lost.path.display(),
            lost.reason
        ));
    }
    for lost in &outcome.losses.incomplete_metadata {
        text.push_str(&format!(
            "  incomplete {}: {}\n",
            lost.path.display(),
            lost.reason
        ));
    }
    for note in &outcome.notes {
        text.push_str(&format!("Note: {note}\n"));
    }
    for warning in &outcome.warnings {
        text.push_str(&format!("Warning: {warning}\n"));
    }
    if let Some(guests) = &outcome.guests {
        text.push_str(&format!("{guests}\n"));
    }
    let places: Vec<String> = outcome
        .logs
        .iter()
        .map(|p| p.display().to_string())
        .collect();
    text.push_str(&format!("Logs: {}", places.join(", ")));
    if matches!(outcome.mode, Mode::BareMetal | Mode::SystemOnly) {
        text.push_str(", and /var/log/lifeboat of the restored machine");
    }
    text
}
