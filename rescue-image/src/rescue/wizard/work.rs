//! Restore.

use super::terminal::Terminal;
use super::world::World;
use super::{Answers, Screen};
use crate::rescue::restore::{self, Stop};

/// Does it, with progress. From here on there is no way back.
pub fn show(answers: &mut Answers, world: &mut dyn World, terminal: &mut dyn Terminal) -> Screen {
    let Some(prepared) = answers.prepared.take() else {
        return Screen::Disks;
    };
    terminal.say("\nRestoring. Do not pull the stick, do not switch off.");
    let ui = terminal.ui();
    let mut outcome = Err(Stop::refused("the bundle cannot be read"));
    world.with_parts(&mut |parts| {
        outcome = restore::run(parts, &prepared, &*ui, world.announce(), &mut || Ok(()));
    });
    ui.finish();
    if let Err(stop) = &outcome {
        stop.announce(world.announce());
    }
    answers.result = Some(outcome);
    Screen::Result
}
