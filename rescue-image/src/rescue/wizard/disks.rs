//! Assign this machine's disks to the saved ones.

use layout::inventory::{Inventory, InventoryDisk};
use layout::model::{Layout, NodeId};
use layout::plan::{DiskAssignment, DiskChoice, Mode, can_be_spread};

use super::terminal::{Gone, Terminal, words};
use super::world::World;
use super::{Answers, Screen};
use crate::rescue::restore::{self, Parts, Prepared, Request, Stop};

/// Shows what the planner would take, and lets the operator change it.
pub fn show(
    answers: &mut Answers,
    world: &mut dyn World,
    terminal: &mut dyn Terminal,
) -> Result<Screen, Gone> {
    let Some(request) = answers.request() else {
        return Ok(Screen::Points);
    };
    let mut outcome: Result<Prepared, Stop> = Err(Stop::refused("the bundle cannot be read"));
    let mut machine: Option<(Layout, Inventory, Vec<std::path::PathBuf>)> = None;
    world.with_parts(&mut |parts| {
        outcome = restore::prepare(parts, &request);
        machine = look(parts, &request);
    });
    let Some((saved, inventory, media)) = machine else {
        if let Err(stop) = outcome {
            stop.announce(world.announce());
            terminal.say(&format!("This restore point cannot be restored: {stop}"));
        }
        return Ok(Screen::Action);
    };
    terminal.say(&table(&inventory, &media));
    let possible = match &outcome {
        Ok(prepared) => {
            terminal.say(&assigned(prepared));
            true
        }
        Err(stop) => {
            stop.announce(world.announce());
            terminal.say(&format!("\nThere is no plan for these disks: {stop}"));
            false
        }
    };
    let (without, instead) = match &outcome {
        Err(Stop::Refused {
            without, instead, ..
        }) => (without.clone(), instead.clone()),
        _ => (Vec::new(), Vec::new()),
    };
    let answer = if !without.is_empty() {
        words(
            terminal,
            "Assign disks by hand",
            &["change", "leave-out", "back"],
            "back",
        )?
    } else if !instead.is_empty() {
        let missing = instead.iter().any(|(_, c)| *c == DiskChoice::Missing);
        let onto = instead.iter().any(|(_, c)| *c != DiskChoice::Missing);
        let offers = [("missing", missing), ("onto", onto)];
        let offers = offers.iter().filter(|(_, is)| *is).map(|(word, _)| *word);
        let offers: Vec<&str> = std::iter::once("change")
            .chain(offers)
            .chain(["back"])
            .collect();
        words(terminal, "Assign disks by hand", &offers, "back")?
    } else if possible {
        words(
            terminal,
            "Use these disks",
            &["yes", "change", "back"],
            "yes",
        )?
    } else {
        words(
            terminal,
            "Assign disks by hand",
            &["change", "back"],
            "back",
        )?
    };
    match (answer, outcome) {
        ("yes", Ok(prepared)) => {
            answers.prepared = Some(prepared);
            Ok(Screen::Plan)
        }
        ("leave-out", _) => {
            answers.leave_out.extend(without);
            Ok(Screen::Disks)
        }
        ("missing", _) => {
            let missing = instead.into_iter().find(|(_, c)| *c == DiskChoice::Missing);
            answers.disks.extend(missing);
            Ok(Screen::Disks)
        }
        ("onto", _) => {
            onto(answers, instead, &saved, terminal)?;
            Ok(Screen::Disks)
        }
        ("change", _) => {
            change(answers, &saved, &inventory, &media, terminal)?;
            Ok(Screen::Disks)
        }
        _ => {
            answers.disks.clear();
            answers.leave_out.clear();
            Ok(Screen::Action)
        }
    }
}

/// Puts a saved disk where another one goes: where several would do, it is asked which.
fn onto(
    answers: &mut Answers,
    offers: Vec<(NodeId, DiskChoice)>,
    saved: &Layout,
    terminal: &mut dyn Terminal,
) -> Result<(), Gone> {
    let places: Vec<(NodeId, NodeId)> = offers
        .into_iter()
        .filter_map(|(disk, choice)| match choice {
            DiskChoice::Onto(other) => Some((disk, other)),
            _ => None,
        })
        .collect();
    let others: Vec<NodeId> = places.iter().map(|(_, other)| other.clone()).collect();
    let Some((disk, _)) = places.into_iter().next() else {
        return Ok(());
    };
    if let Some(other) = pick_saved(&others, saved, SHARE, terminal)? {
        answers.disks.insert(disk, DiskChoice::Onto(other));
    }
    Ok(())
}

/// What is needed to assign by hand, which must work also when the planner finds nothing.
fn look(
    parts: &dyn Parts,
    request: &Request,
) -> Option<(Layout, Inventory, Vec<std::path::PathBuf>)> {
    let (_, snapshot) = parts.snapshot(&request.snapshot).ok()?;
    let saved = Layout::from_value(snapshot.layout).ok()?;
    let inventory = parts.inventory(&saved, &request.choices).ok()?;
    Some((saved, inventory, parts.media_disks()))
}

fn table(inventory: &Inventory, media: &[std::path::PathBuf]) -> String {
    let mut text = String::from("\nDisks of this machine:\n");
    for (n, disk) in inventory.disks.iter().enumerate() {
        text.push_str(&format!("{:>4}) {}\n", n + 1, describe(disk)));
        let now = if disk.contents.is_empty() {
            "nothing known".to_owned()
        } else {
            disk.contents.join(", ")
        };
        text.push_str(&format!("      on it now: {now}\n"));
        if media.contains(&disk.device) {
            text.push_str("      holds the bundle: will not be touched\n");
        }
    }
    if inventory.disks.is_empty() {
        text.push_str("      none\n");
    }
    text.trim_end().to_owned()
}

fn describe(disk: &InventoryDisk) -> String {
    format!(
        "{}  {}  serial {}  {}",
        disk.device.display(),
        disk.model.as_deref().unwrap_or("unknown model"),
        disk.serial.as_deref().unwrap_or("none"),
        disk.size
    )
}

fn assigned(prepared: &Prepared) -> String {
    let mut text = String::from(match prepared.plan.mode() {
        Mode::BareMetal => "\nThe restore would erase and use:\n",
        _ => "\nThese disks would be worked on (the plan says what stays):\n",
    });
    for disk in &prepared.plan.disks {
        let model = disk.identity.model.as_deref().unwrap_or("unknown model");
        let serial = disk.identity.serial.as_deref().unwrap_or("none");
        text.push_str(&format!(
            "  {} ({model}, serial {serial}, {})\n      for {}\n      because: {}\n",
            disk.device.display(),
            disk.identity.size,
            purpose(&prepared.saved, disk),
            disk.why
        ));
        for merged in &prepared.plan.merged {
            if merged.onto.as_ref() == Some(&disk.saved) {
                let name = saved_name(&prepared.saved, &merged.saved);
                text.push_str(&format!("      and for {name}\n"));
            }
        }
    }
    for merged in prepared.plan.merged.iter().filter(|m| m.onto.is_none()) {
        let name = saved_name(&prepared.saved, &merged.saved);
        text.push_str(&format!("  nothing for {name}\n"));
    }
    text.trim_end().to_owned()
}

fn purpose(saved: &Layout, disk: &DiskAssignment) -> String {
    match &disk.joins {
        Some(joins) => format!(
            "a part of volume group {} of {}",
            joins.group,
            saved_name(saved, &joins.saved)
        ),
        None => saved_name(saved, &disk.saved),
    }
}

fn saved_name(saved: &Layout, id: &NodeId) -> String {
    match saved.disks().find(|(disk, _)| *disk == id) {
        Some((_, disk)) => format!(
            "the saved {} ({}, serial {}, {})",
            disk.device.display(),
            disk.model.as_deref().unwrap_or("unknown model"),
            disk.serial.as_deref().unwrap_or("none"),
            disk.size
        ),
        None => id.to_string(),
    }
}

/// Asks for one assignment.
fn change(
    answers: &mut Answers,
    saved: &Layout,
    inventory: &Inventory,
    media: &[std::path::PathBuf],
    terminal: &mut dyn Terminal,
) -> Result<(), Gone> {
    // Only disks that carry the system are made anew; the others stay as they are.
    let system: Vec<NodeId> = saved.system_disks().into_iter().collect();
    let Some(wanted) = pick_saved(&system, saved, ASSIGN, terminal)? else {
        return Ok(());
    };
    let others: Vec<NodeId> = system.into_iter().filter(|id| *id != wanted).collect();
    if !others.is_empty() {
        terminal.say("Or m to do without it, or o to put it onto the disk for another one.");
    }
    let group = can_be_spread(saved, &wanted).ok();
    if let Some(group) = &group {
        terminal.say(&format!(
            "Or two of them (1+2) where one is too small: volume group {group} is spread over both, and is lost when either fails."
        ));
    }
    loop {
        let answer = terminal.ask("Number of the disk to erase for it", None)?;
        let answer = answer.trim();
        if answer.is_empty()
            || answer.eq_ignore_ascii_case("b")
            || answer.eq_ignore_ascii_case("back")
        {
            return Ok(());
        }
        match answer {
            "m" if !others.is_empty() => {
                answers.disks.insert(wanted, DiskChoice::Missing);
                return Ok(());
            }
            "o" if !others.is_empty() => {
                if let Some(other) = pick_saved(&others, saved, SHARE, terminal)? {
                    answers.disks.insert(wanted, DiskChoice::Onto(other));
                }
                return Ok(());
            }
            _ => {}
        }
        let numbered = |text: &str| {
            let n = text.trim().parse::<usize>().ok()?;
            inventory.disks.get(n.checked_sub(1)?)
        };
        let disks: Option<Vec<&InventoryDisk>> = answer.split('+').map(numbered).collect();
        let disks = disks.filter(|disks| disks.len() == 1 || group.is_some());
        let Some(disks) = disks else {
            terminal.say("Please answer with the number of a disk above, or b to go back.");
            continue;
        };
        if let Some(disk) = disks.iter().find(|disk| media.contains(&disk.device)) {
            terminal.say(&format!(
                "{} holds the bundle and must not be erased.",
                disk.device.display()
            ));
            continue;
        }
        let mut all: Vec<DiskChoice> = disks.iter().map(|disk| choice(disk, inventory)).collect();
        let choice = match all.len() {
            1 => all.remove(0),
            _ => DiskChoice::Spread(all),
        };
        answers.disks.insert(wanted, choice);
        return Ok(());
    }
}

const ASSIGN: &str = "Saved disk to assign";
const SHARE: &str = "Saved disk whose place it shares";

fn pick_saved(
    system: &[NodeId],
    saved: &Layout,
    question: &str,
    terminal: &mut dyn Terminal,
) -> Result<Option<NodeId>, Gone> {
    if system.len() < 2 {
        return Ok(system.first().cloned());
    }
    let mut text = String::from("\nSaved disks that carry the system:\n");
    for (n, id) in system.iter().enumerate() {
        text.push_str(&format!("{:>4}) {}\n", n + 1, saved_name(saved, id)));
    }
    terminal.say(text.trim_end());
    loop {
        let answer = terminal.ask(question, Some("1"))?;
        match answer
            .trim()
            .parse::<usize>()
            .ok()
            .and_then(|n| system.get(n.checked_sub(1)?))
        {
            Some(id) => return Ok(Some(id.clone())),
            None => terminal.say("Please answer with the number of a saved disk."),
        }
    }
}

/// By what identifies it best; a serial number that two disks share identifies neither.
fn choice(disk: &InventoryDisk, inventory: &Inventory) -> DiskChoice {
    let unique = |serial: &&String| {
        inventory
            .disks
            .iter()
            .filter(|d| d.serial.as_ref() == Some(*serial))
            .count()
            == 1
    };
    match disk
        .serial
        .as_ref()
        .filter(|s| !s.is_empty())
        .filter(unique)
    {
        Some(serial) => DiskChoice::Serial(serial.clone()),
        None => DiskChoice::Device(disk.device.clone()),
    }
}
