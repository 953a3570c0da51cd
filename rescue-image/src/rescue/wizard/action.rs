//! Choose what to do with a restore point.

use super::terminal::{Gone, Item, Terminal, menu};
use super::{Answers, Return, Screen};

/// Shows the choices.
pub fn show(answers: &Answers, terminal: &mut dyn Terminal) -> Result<Screen, Gone> {
    let Some(point) = &answers.point else {
        return Ok(Screen::Points);
    };
    let title = format!(
        "Restore point {} of {} at {}:",
        point.header.id.short(),
        point.header.host.hostname,
        point.header.shown_time()
    );
    let items = [
        Item::new(1, "Restore or repair the machine (asks how much of it)"),
        Item::new(2, "Copy files out (erases nothing)"),
        Item::new(3, "Verify that this restore point can be read"),
        Item::new(4, "Shell"),
        Item::new(5, "Reboot"),
        Item::new(6, "Power off"),
        Item::new("b", "Back to the restore points"),
    ];
    Ok(
        match menu(terminal, &title, &items, "What to do", Some("1"))? {
            0 => Screen::Mode,
            1 => Screen::Copy,
            2 => Screen::Verify,
            3 => Screen::Shell(Return::Action),
            4 => Screen::Reboot,
            5 => Screen::PowerOff,
            _ => Screen::Points,
        },
    )
}
