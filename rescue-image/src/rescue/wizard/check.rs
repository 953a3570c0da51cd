//! Read everything that a restore needs, before anything is erased.

use bundle::verify::VerifyReport;

use super::terminal::{Gone, Terminal, words};
use super::world::World;
use super::{Answers, Screen};
use crate::rescue::restore::{self, Prepared, Stop};

/// How many damaged files are named on the screen; all of them are in the log.
const NAMED: usize = 20;

/// Reads, and asks whether damaged files may be missing.
pub fn show(
    answers: &mut Answers,
    world: &mut dyn World,
    terminal: &mut dyn Terminal,
) -> Result<Screen, Gone> {
    let Some(mut prepared) = answers.prepared.clone() else {
        return Ok(Screen::Disks);
    };
    if !super::keys::ask(answers, &mut prepared, world, terminal)? {
        return Ok(Screen::Plan);
    }
    match read(&prepared, world, terminal) {
        Ok(report) => {
            answers.readable = Some(report);
            Ok(Screen::Confirm)
        }
        Err(Stop::Damaged(report)) => {
            terminal.say(&damage(&report));
            if words(
                terminal,
                "Restore without these files",
                &["accept", "back"],
                "back",
            )? != "accept"
            {
                return Ok(Screen::Action);
            }
            prepared.request.accept_loss = true;
            answers.accept_loss = true;
            answers.readable = Some(*report);
            answers.prepared = Some(prepared);
            Ok(Screen::Confirm)
        }
        Err(stop) => {
            terminal.say(&format!("Not restored: {stop}"));
            Ok(Screen::Action)
        }
    }
}

fn read(
    prepared: &Prepared,
    world: &dyn World,
    terminal: &mut dyn Terminal,
) -> Result<VerifyReport, Stop> {
    terminal.say("\nReading everything that the restore needs (nothing is written)...");
    let ui = terminal.ui();
    let mut outcome = Err(Stop::refused("the bundle cannot be read"));
    world
        .with_parts(&mut |parts| outcome = restore::check(parts, prepared, &*ui, world.announce()));
    ui.finish();
    match &outcome {
        Ok(report) => terminal.say(&format!(
            "Everything can be read: {} parts in {} packs.",
            report.blobs, report.packs
        )),
        Err(stop) => stop.announce(world.announce()),
    }
    outcome
}

/// Verifies without restoring. Works without a plan, so also where no disk fits.
pub fn verify_only(answers: &Answers, world: &dyn World, terminal: &mut dyn Terminal) -> Screen {
    let Some(point) = &answers.point else {
        return Screen::Points;
    };
    terminal.say("\nReading everything that this restore point needs...");
    let ui = terminal.ui();
    let mut text = String::new();
    world.with_parts(&mut |parts| {
        let read = parts
            .snapshot(&point.header.id.to_string())
            .and_then(|(_, snapshot)| parts.check_readable(&snapshot, &restore::ui::Reading(&*ui)));
        text = match read {
            Ok(report) if report.ok() => {
                format!(
                    "Everything can be read: {} parts in {} packs.",
                    report.blobs, report.packs
                )
            }
            Ok(report) => {
                let stop = Stop::Damaged(Box::new(report.clone()));
                stop.announce(world.announce());
                damage(&report)
            }
            Err(error) => format!("The restore point cannot be read: {error:#}"),
        };
    });
    ui.finish();
    terminal.say(&text);
    Screen::Action
}

fn damage(report: &VerifyReport) -> String {
    let mut files: Vec<&str> = report
        .damaged
        .iter()
        .flat_map(|d| d.files.iter().map(String::as_str))
        .collect();
    files.sort_unstable();
    files.dedup();
    let mut text = String::from(
        "\nDAMAGED: parts of this restore point cannot be read from any attached bundle:\n",
    );
    for damage in &report.damaged {
        text.push_str(&format!("  {}: {}\n", damage.file, damage.reason));
    }
    text.push_str(&format!("{} files are affected:\n", files.len()));
    for file in files.iter().take(NAMED) {
        text.push_str(&format!("  {file}\n"));
    }
    if files.len() > NAMED {
        text.push_str(&format!(
            "  ... and {} more, all of them in /run/lifeboat/log/events.log\n",
            files.len() - NAMED
        ));
    }
    text.push_str("Attach another bundle that holds this restore point, or choose an older one.");
    text
}
