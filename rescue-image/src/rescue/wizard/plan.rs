//! Look at the plan.

use layout::plan::Grow;

use super::terminal::{Gone, Terminal, words};
use super::{Answers, Screen};
use crate::rescue::restore::Prepared;

/// Shows the whole plan: what is kept, changed, erased and fenced, the sizes, the steps.
pub fn show(answers: &mut Answers, terminal: &mut dyn Terminal) -> Result<Screen, Gone> {
    let Some(prepared) = &answers.prepared else {
        return Ok(Screen::Disks);
    };
    terminal.say(&format!("\n{}", prepared.plan.render().trim_end()));
    if let Some(returning) = &prepared.guests {
        terminal.say(&format!("\n{}", returning.render().trim_end()));
    }
    if let Some(held) = prepared.finish.render_held() {
        terminal.say(&format!("\n{}", held.trim_end()));
    }
    let warnings = &prepared.saved.warnings;
    if !warnings.is_empty() {
        terminal.say(&format!(
            "\nSaid when the backup was made:\n  {}",
            warnings.join("\n  ")
        ));
    }
    terminal.say("\nNothing has been written yet. Next, all that the restore needs is read once.");
    let offers: &[&str] = if has_bigger_disk(prepared) {
        &["yes", "space", "back"]
    } else {
        &["yes", "back"]
    };
    match words(terminal, "Go on with this plan", offers, "yes")? {
        "yes" => Ok(Screen::Network),
        "space" => {
            let all = Grow::ALL.map(Grow::word);
            let question = "Space of the bigger disk goes to";
            let word = words(terminal, question, &all, answers.grow.word())?;
            if let Ok(grow) = word.parse() {
                answers.grow = grow;
            }
            // The plan is made anew, and shown again.
            Ok(Screen::Disks)
        }
        _ => Ok(Screen::Disks),
    }
}

fn has_bigger_disk(prepared: &Prepared) -> bool {
    if prepared.plan.in_place.is_some() {
        return false;
    }
    prepared.plan.disks.iter().any(|assigned| {
        // With a further one there may be more than before.
        if assigned.joins.is_some() {
            return true;
        }
        let saved = prepared
            .saved
            .disks()
            .find(|(id, _)| **id == assigned.saved);
        saved.is_some_and(|(_, disk)| assigned.identity.size > disk.size)
    })
}
