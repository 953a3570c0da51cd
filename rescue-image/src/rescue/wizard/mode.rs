//! Choose how much of the machine is touched: the least first.

use layout::plan::Mode;

use super::terminal::{Gone, Item, Terminal, menu};
use super::{Answers, Screen};

/// Shows the modes. There is no default: each is right for another disaster.
pub fn show(answers: &mut Answers, terminal: &mut dyn Terminal) -> Result<Screen, Gone> {
    let mut items: Vec<Item> = Mode::ALL
        .iter()
        .enumerate()
        .map(|(n, mode)| Item::new(n + 1, words(*mode)))
        .collect();
    items.push(Item::new("b", "Back"));
    let title = "How much is to be made anew? The least that helps is the best choice.";
    let chosen = menu(terminal, title, &items, "How much", None)?;
    match Mode::ALL.get(chosen) {
        Some(mode) => {
            answers.mode = *mode;
            Ok(Screen::Disks)
        }
        None => Ok(Screen::Action),
    }
}

fn words(mode: Mode) -> &'static str {
    match mode {
        Mode::TableRepair => {
            "The partition table only: it is lost, and the contents are still there"
        }
        Mode::BootRepair => "The boot loader only: the system is there, and does not start",
        Mode::SystemOnly => {
            "The system only: the host's filesystems are made anew where they are;\n      guests and data stay"
        }
        Mode::BareMetal => "All of it (bare metal): erases the disks that you confirm",
    }
}
