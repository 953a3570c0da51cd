//! Which network card of this machine takes the place of which saved one.

use std::collections::BTreeMap;

use super::terminal::{Gone, Terminal, words};
use super::{Answers, Screen};
use crate::rescue::network::{Choice, Mapping};

/// Shows the mapping and lets the operator change it. Where every saved card is here there is nothing to ask.
pub fn show(answers: &mut Answers, terminal: &mut dyn Terminal) -> Result<Screen, Gone> {
    let Some(prepared) = &mut answers.prepared else {
        return Ok(Screen::Disks);
    };
    let warnings = &prepared.finish.warnings;
    if !warnings.is_empty() {
        terminal.say(&format!("\nTo know:\n  {}", warnings.join("\n  ")));
    }
    let network = &prepared.finish.network;
    if network.mapping.exact() && answers.nics.is_empty() {
        return Ok(Screen::Cluster);
    }
    terminal.say(&format!("\n{}", network.mapping.render()));
    if let [first, ..] = network.mapping.unreachable()[..] {
        terminal.say(&format!(
            "The restored host will not be reachable: nothing takes the place of {first}."
        ));
    }
    if network.here.is_empty() {
        terminal.say("This machine has no network card that the rescue system knows.");
        return Ok(Screen::Cluster);
    }
    let offers = ["yes", "change", "skip", "back"];
    match words(terminal, "Use these network cards", &offers, "yes")? {
        "yes" => return Ok(Screen::Cluster),
        "change" => change(&mut answers.nics, &network.mapping, terminal)?,
        // Nothing is written, whatever the cards are called then.
        "skip" => {
            let names = network.saved.iter().map(|card| card.name.clone());
            answers.nics = names.map(|name| (name, Choice::Nothing)).collect();
        }
        _ => {
            answers.nics.clear();
            return Ok(Screen::Disks);
        }
    }
    match prepared.finish.network.with(&answers.nics) {
        Ok(network) => {
            prepared.finish.network = network;
            prepared.request.nics.clone_from(&answers.nics);
        }
        Err(reason) => {
            terminal.say(&format!("That cannot be: {reason}"));
            answers.nics.clone_from(&prepared.request.nics);
        }
    }
    Ok(Screen::Network)
}

/// Asks for one assignment.
fn change(
    nics: &mut BTreeMap<String, Choice>,
    mapping: &Mapping,
    terminal: &mut dyn Terminal,
) -> Result<(), Gone> {
    let question = "Number of the saved network card";
    let Some(pair) = number(terminal, question, "1", mapping.pairs.len())? else {
        return Ok(());
    };
    let Some(pair) = mapping.pairs.get(pair) else {
        return Ok(());
    };
    let placed = mapping.pairs.iter().filter_map(|p| p.card.as_ref());
    let cards: Vec<_> = placed.chain(&mapping.rest).collect();
    let mut text = String::from("\nCards of this machine:\n");
    for (n, card) in cards.iter().enumerate() {
        let link = if card.link { ", link" } else { ", no link" };
        text.push_str(&format!("{:>4}) {}{link}\n", n + 1, card.describe()));
    }
    terminal.say(text.trim_end());
    terminal.say("0 for none of them, b to go back.");
    let question = format!("Number of the card that is {} from now on", pair.saved.name);
    loop {
        let answer = terminal.ask(&question, None)?;
        let answer = answer.trim();
        if answer.is_empty() || answer.starts_with(['b', 'B']) {
            return Ok(());
        }
        let chosen = match answer.parse::<usize>() {
            Ok(0) => Choice::Nothing,
            Ok(n) if n <= cards.len() => Choice::Mac(cards[n - 1].mac),
            _ => {
                terminal.say("Please answer with a number above, or b to go back.");
                continue;
            }
        };
        // A card that is taken from another one is free there.
        nics.retain(|_, other| *other == Choice::Nothing || *other != chosen);
        if let Choice::Mac(mac) = chosen {
            let holds =
                |p: &&crate::rescue::network::Pair| p.card.as_ref().is_some_and(|c| c.mac == mac);
            if let Some(other) = mapping
                .pairs
                .iter()
                .find(holds)
                .filter(|p| p.saved.name != pair.saved.name)
            {
                nics.insert(other.saved.name.clone(), Choice::Nothing);
            }
        }
        nics.insert(pair.saved.name.clone(), chosen);
        return Ok(());
    }
}

/// Asks for a number from 1 on; `None`: back.
fn number(
    terminal: &mut dyn Terminal,
    question: &str,
    default: &str,
    count: usize,
) -> Result<Option<usize>, Gone> {
    if count < 2 {
        return Ok(Some(0));
    }
    loop {
        let answer = terminal.ask(question, Some(default))?;
        match answer.trim() {
            "b" | "back" => return Ok(None),
            text => match text.parse::<usize>() {
                Ok(n) if (1..=count).contains(&n) => return Ok(Some(n - 1)),
                _ => terminal.say("Please answer with the number of a saved network card, or b."),
            },
        }
    }
}
