//! Ask for the keys of LUKS containers.

use super::Answers;
use super::terminal::{Gone, Terminal};
use super::world::World;
use crate::rescue::restore::{Prepared, keys};

/// Wrong answers before it goes back to the plan.
const TRIES: usize = 5;

/// Asks for every key that the plan needs, and tries it on the saved header. `false`: the operator wants back.
pub fn ask(
    answers: &mut Answers,
    prepared: &mut Prepared,
    world: &dyn World,
    terminal: &mut dyn Terminal,
) -> Result<bool, Gone> {
    for (node, name) in keys::wanted(&prepared.plan) {
        if answers.luks_keys.get(&node, &name).is_some() {
            continue;
        }
        terminal.say(&format!(
            "\nThe LUKS container {name} has to be opened (made again, it has its saved header, and what opened it opens it). Its \
             passphrase or recovery key is needed, or file:PATH for a key file."
        ));
        let mut right = false;
        for _ in 0..TRIES {
            let typed = terminal.secret(&format!("Passphrase of {name} (empty: back)"))?;
            if typed.is_empty() {
                return Ok(false);
            }
            let key = match typed.strip_prefix("file:") {
                Some(path) => match std::fs::read(path) {
                    Ok(key) => key,
                    Err(error) => {
                        terminal.say(&format!("{path} cannot be read: {error}"));
                        continue;
                    }
                },
                None => typed.into_bytes(),
            };
            let mut opens = Ok(false);
            world.with_parts(&mut |parts| opens = keys::opens(parts, prepared, &node, &key));
            match opens {
                Ok(true) => {
                    answers.luks_keys.add(node.as_str(), key);
                    right = true;
                    break;
                }
                Ok(false) => terminal.say("That does not open it."),
                Err(error) => terminal.say(&format!("The key cannot be tried: {error:#}")),
            }
        }
        if !right {
            return Ok(false);
        }
    }
    prepared.request.luks_keys = answers.luks_keys.clone();
    answers.prepared = Some(prepared.clone());
    Ok(true)
}
