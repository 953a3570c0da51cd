//! Choose a restore point.

use layout::units::Bytes;

use super::terminal::{Gone, Item, Terminal, menu};
use super::world::World;
use super::{Answers, Return, Screen};
use crate::rescue::bundles::Point;

/// Shows the restore points of all bundles.
pub fn show(
    answers: &mut Answers,
    world: &mut dyn World,
    terminal: &mut dyn Terminal,
) -> Result<Screen, Gone> {
    let (points, warnings) = world.points();
    let locked = world.locked();
    for warning in warnings {
        terminal.say(&format!("Warning: {warning}"));
    }
    let mut items: Vec<Item> = points
        .iter()
        .enumerate()
        .map(|(n, p)| Item::new(n + 1, describe(p, world)))
        .collect();
    let numbered = items.len();
    let others = [
        ("s", "Search for bundles again"),
        ("x", "Shell"),
        ("r", "Reboot"),
        ("p", "Power off"),
    ];
    items.extend(others.map(|(key, text)| Item::new(key, text)));
    if !locked.is_empty() {
        let text = format!("Unlock the encrypted bundle on {}", locked.join(", "));
        items.push(Item::new("k", text));
    }
    let chosen = if points.is_empty() && !locked.is_empty() {
        let title = format!(
            "The bundle on {} is encrypted and LOCKED.",
            locked.join(", ")
        );
        menu(terminal, &title, &items, "Choose", Some("k"))?
    } else if points.is_empty() {
        let title = "No restore point was found on any attached disk or stick.\n\
                     Attach the stick or drive that holds the bundle, then search again.";
        menu(
            terminal,
            title,
            &items,
            "No bundle found. Choose",
            Some("s"),
        )?
    } else {
        menu(
            terminal,
            "Restore points, the newest first:",
            &items,
            "Restore point",
            Some("1"),
        )?
    };
    match points.into_iter().nth(chosen) {
        Some(point) => {
            *answers = Answers::with_point(point);
            Ok(Screen::Action)
        }
        None => Ok(match chosen - numbered {
            0 => {
                terminal.say("Searching...");
                world.search_again();
                Screen::Points
            }
            1 => Screen::Shell(Return::Points),
            2 => Screen::Reboot,
            3 => Screen::PowerOff,
            _ => {
                unlock(world, terminal)?;
                Screen::Points
            }
        }),
    }
}

fn unlock(world: &mut dyn World, terminal: &mut dyn Terminal) -> Result<(), Gone> {
    let typed = terminal.secret("Passphrase or recovery key (not shown; Enter alone goes back)")?;
    if typed.is_empty() {
        return Ok(());
    }
    terminal.say("Trying...");
    match world.unlock(&typed) {
        Ok(1) => terminal.say("Unlocked."),
        Ok(n) => terminal.say(&format!("Unlocked {n} bundles.")),
        Err(error) => terminal.say(&format!("Not unlocked: {error:#}")),
    }
    Ok(())
}

/// One point in two lines of at most 79 columns.
fn describe(point: &Point, world: &dyn World) -> String {
    let header = &point.header;
    let time = header.shown_time();
    let places: Vec<String> = point.stores.iter().map(|s| world.place(*s)).collect();
    format!(
        "{} {time}  {} in {} files  {}\n      {}  on {}",
        header.host.hostname,
        Bytes(header.bytes),
        header.files,
        point.verified,
        header.id.short(),
        places.join(", ")
    )
}
