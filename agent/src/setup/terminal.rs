//! Questions on a terminal. A menu is a list with numbers: it works on any serial console.

use std::io::{IsTerminal, Write};

use anyhow::Context as _;

use crate::signals;

/// Columns of a serial console.
const WIDTH: usize = 79;

/// Somebody who answers.
pub trait Ask {
    /// Shows text.
    fn say(&mut self, text: &str);
    /// Asks for a line; Enter alone takes the default, which is shown.
    fn ask(&mut self, question: &str, default: &str) -> anyhow::Result<String>;
}

/// The person at the terminal.
pub struct Stdio;

impl Stdio {
    /// Whether there is one.
    pub fn there() -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }
}

impl Ask for Stdio {
    fn say(&mut self, text: &str) {
        // Nobody is there any more: the next question says so.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    fn ask(&mut self, question: &str, default: &str) -> anyhow::Result<String> {
        let mut input = dialoguer::Input::new()
            .with_prompt(question)
            .allow_empty(true);
        if !default.is_empty() {
            input = input.default(default.to_owned());
        }
        let answer: std::io::Result<String> = input
            .interact_text()
            .map_err(|dialoguer::Error::IO(error)| error);
        signals::check()?;
        Ok(answer.context("nothing was typed")?.trim().to_owned())
    }
}

/// Shows a list and asks until the answer is a number of it.
pub fn menu(
    who: &mut dyn Ask,
    title: &str,
    items: &[String],
    default: usize,
) -> anyhow::Result<usize> {
    let mut text = format!("\n{title}\n");
    for (n, item) in items.iter().enumerate() {
        let line = format!("{:>4}) {}", n + 1, plain(item));
        text.push_str(&line.chars().take(WIDTH).collect::<String>());
        text.push('\n');
    }
    who.say(text.trim_end());
    loop {
        let answer = who.ask("Number", &(default + 1).to_string())?;
        match answer.parse::<usize>() {
            Ok(n) if (1..=items.len()).contains(&n) => return Ok(n - 1),
            _ => who.say(&format!(
                "Please answer with a number from 1 to {}.",
                items.len()
            )),
        }
    }
}

/// Asks until the answer is yes or no.
pub fn yes(who: &mut dyn Ask, question: &str, default: bool) -> anyhow::Result<bool> {
    let question = format!("{question} (yes, no)");
    loop {
        let answer = who.ask(&question, if default { "yes" } else { "no" })?;
        match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => who.say("Please answer yes or no."),
        }
    }
}

/// Models and labels may hold anything, escape sequences included.
fn plain(text: &str) -> String {
    let shown = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    text.chars().map(shown).collect()
}

/// Answers in their order, for tests; what was said is kept.
#[cfg(test)]
pub struct Script {
    answers: std::collections::VecDeque<String>,
    /// All that was shown.
    pub said: String,
}

#[cfg(test)]
impl Script {
    /// Will answer so; an empty answer takes the default.
    pub fn new(answers: &[&str]) -> Script {
        Script {
            answers: answers.iter().map(|a| (*a).to_owned()).collect(),
            said: String::new(),
        }
    }

    /// Whether all was asked for.
    pub fn is_done(&self) -> bool {
        self.answers.is_empty()
    }
}

#[cfg(test)]
impl Ask for Script {
    fn say(&mut self, text: &str) {
        self.said.push_str(text);
        self.said.push('\n');
    }

    fn ask(&mut self, question: &str, default: &str) -> anyhow::Result<String> {
        self.say(&format!("{question} [{default}]"));
        let answer = self.answers.pop_front().context("nobody answers")?;
        Ok(if answer.is_empty() {
            default.to_owned()
        } else {
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_answers_are_asked_again() {
        let items = ["one".to_owned(), format!("two\x1b[2J{}", "x".repeat(100))];
        let mut who = Script::new(&["0", "three", "2"]);
        assert_eq!(menu(&mut who, "Which?", &items, 0).unwrap(), 1);
        assert!(who.said.contains("from 1 to 2") && !who.said.contains('\x1b'));
        assert!(who.said.lines().all(|line| line.chars().count() <= WIDTH));
        let mut who = Script::new(&["", "maybe", "N"]);
        assert_eq!(menu(&mut who, "Which?", &items, 1).unwrap(), 1);
        assert!(!yes(&mut who, "Really?", true).unwrap());
        assert!(menu(&mut who, "Which?", &items, 0).is_err());
    }
}
