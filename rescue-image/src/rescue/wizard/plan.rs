//! Look at the plan.

use super::terminal::{Gone, Terminal, words};
use super::{Answers, Screen};

/// Shows the whole plan: what is kept, changed, erased and fenced, the sizes, the steps.
pub fn show(answers: &Answers, terminal: &mut dyn Terminal) -> Result<Screen, Gone> {
    let Some(prepared) = &answers.prepared else {
        return Ok(Screen::Disks);
    };
    terminal.say(&format!("\n{}", prepared.plan.render().trim_end()));
    let warnings = &prepared.saved.warnings;
    if !warnings.is_empty() {
        terminal.say(&format!(
            "\nSaid when the backup was made:\n  {}",
            warnings.join("\n  ")
        ));
    }
    terminal.say("\nNothing has been written yet. Next, all that the restore needs is read once.");
    Ok(
        match words(terminal, "Go on with this plan", &["yes", "back"], "yes")? {
            "yes" => Screen::Check,
            _ => Screen::Disks,
        },
    )
}
