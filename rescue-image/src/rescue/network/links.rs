//! The `.link` files that give cards the saved names (systemd.link(5)).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::mapping::{Mapping, Pair};
use super::{Card, Mac};
use crate::inside::Inside;

/// Where an administrator's files are; initramfs-tools copies them.
const ETC: &str = "/etc/systemd/network";
/// Where Proxmox VE's pve-network-interface-pinning and its installer put theirs. initramfs-tools of Debian 12 does not copy
/// them: names are given once more when the root filesystem is there, as `Name=` holds for each `add` event.
const LOCAL: &str = "/usr/local/lib/systemd/network";
/// Directories with such files. A name in an earlier one hides the same name in a later one.
const DIRS: [&str; 3] = [ETC, LOCAL, "/usr/lib/systemd/network"];
/// Files that name cards by their addresses, and are not changed.
const NAMING: [&str; 6] = [
    "/etc/network/interfaces",
    "/etc/network/interfaces.d",
    "/etc/systemd/network",
    "/etc/udev/rules.d",
    "/etc/NetworkManager/system-connections",
    "/etc/netplan",
];

/// What was done so that the names hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Files that were written.
    pub written: Vec<PathBuf>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A `.link` file, as far as addresses and names go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    path: PathBuf,
    text: String,
}

/// A line `Key=value`, with the section that it is in.
fn settings(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let mut section = "";
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
            return None;
        }
        let (key, value) = line.split_once('=')?;
        Some((section, key.trim(), value.trim()))
    })
}

fn is_address(section: &str, key: &str) -> bool {
    section == "Match" && (key == "MACAddress" || key == "PermanentMACAddress")
}

impl Link {
    fn addresses(&self) -> BTreeSet<Mac> {
        settings(&self.text)
            .filter(|(section, key, _)| is_address(section, key))
            .flat_map(|(_, _, value)| value.split_whitespace().filter_map(Mac::parse))
            .collect()
    }

    fn name(&self) -> Option<&str> {
        settings(&self.text)
            .filter(|(section, key, _)| *section == "Link" && *key == "Name")
            .map(|(_, _, value)| value)
            .last()
    }

    /// The same text with other addresses in what it matches.
    fn rewritten(&self, new: &BTreeMap<Mac, Mac>) -> String {
        let mut out = String::with_capacity(self.text.len());
        let mut section = String::new();
        for line in self.text.split_inclusive('\n') {
            let trimmed = line.trim();
            if let Some(name) = trimmed.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name.to_owned();
            }
            let key = trimmed.split_once('=').map(|(key, _)| key.trim());
            if !key.is_some_and(|key| is_address(&section, key)) {
                out.push_str(line);
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let words: Vec<String> = value
                .split_whitespace()
                .map(
                    |word| match Mac::parse(word).and_then(|mac| new.get(&mac)) {
                        Some(mac) => mac.to_string(),
                        None => word.to_owned(),
                    },
                )
                .collect();
            out.push_str(&format!("{key}={}", words.join(" ")));
            if line.ends_with('\n') {
                out.push('\n');
            }
        }
        out
    }
}

/// A file that gives a card a name, and further ones.
fn content(mac: Mac, name: &str, aliases: &[String], why: &str) -> String {
    let aliases = aliases
        .iter()
        .map(|alias| format!("AlternativeName={alias}\n"));
    let aliases: String = aliases.collect();
    format!("# {why}\n[Match]\nMACAddress={mac}\nType=ether\n\n[Link]\nName={name}\n{aliases}")
}

/// Whether the card would get the saved name by itself: what names it is what it was.
fn keeps_its_name(saved: &Card, card: &Card) -> bool {
    let same_inputs = match (&saved.policy, &card.policy) {
        (Some(a), Some(b)) => a == b,
        _ => saved.device.is_some() && saved.device == card.device,
    };
    saved.mac == card.mac && (same_inputs || card.policy.as_ref() == Some(&saved.name))
}

/// The texts to write, by path, and notes. `links` are those that hold.
fn decide(
    mapping: &Mapping,
    links: &[Link],
    proxmox: bool,
) -> (BTreeMap<PathBuf, String>, Vec<String>) {
    let mut writes: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut notes = Vec::new();
    let placed: Vec<(&Pair, &Card)> = mapping
        .pairs
        .iter()
        .filter_map(|pair| Some((pair, pair.card.as_ref()?)))
        .collect();
    let moved: BTreeMap<Mac, Mac> = placed
        .iter()
        .filter(|(pair, card)| pair.saved.mac != card.mac)
        .map(|(pair, card)| (pair.saved.mac, card.mac))
        .collect();
    // Files that are there follow the card, all in one go: two cards may have changed places.
    let mut after: Vec<Link> = links.to_vec();
    for link in &mut after {
        let text = link.rewritten(&moved);
        if link.addresses().iter().any(|mac| moved.contains_key(mac)) {
            notes.push(format!(
                "{}: the card's new address is in it",
                link.path.display()
            ));
            writes.insert(link.path.clone(), text.clone());
        }
        link.text = text;
    }
    let pinned = |name: &str, mac: Mac| {
        after
            .iter()
            .any(|link| link.name() == Some(name) && link.addresses().contains(&mac))
    };
    let has_aliases = |pair: &Pair, card: &Card| {
        pair.aliases
            .iter()
            .all(|alias| card.policy.as_ref() == Some(alias) || card.others.contains(alias))
    };
    let needed: Vec<&(&Pair, &Card)> = placed
        .iter()
        .filter(|(pair, card)| {
            let keeps = keeps_its_name(&pair.saved, card) && has_aliases(pair, card);
            !pinned(&pair.saved.name, card.mac) && !keeps
        })
        .collect();
    // A name that the kept names take away from another card. Without a name of its own that card could be first.
    let kept = |name: &str| placed.iter().any(|(pair, _)| pair.saved.name == name);
    let robbed: Vec<(&Card, &str)> = mapping
        .rest
        .iter()
        .filter_map(|card| Some((card, card.policy.as_deref()?)))
        .filter(|(card, name)| {
            kept(name) && !after.iter().any(|l| l.addresses().contains(&card.mac))
        })
        .collect();
    let swapped = placed.iter().any(|(pair, card)| {
        let by_policy = card.policy.as_deref();
        by_policy != Some(pair.saved.name.as_str()) && by_policy.is_some_and(kept)
    });
    // Where names are exchanged they have to be right the first time, in the initramfs.
    let early = !robbed.is_empty() || swapped;
    for (pair, card) in needed {
        let name = &pair.saved.name;
        let path = match (proxmox, early) {
            (true, false) => Path::new(LOCAL).join(format!("50-pmx-{name}.link")),
            _ => Path::new(ETC).join(format!("50-lifeboat-{name}.link")),
        };
        let why = format!(
            "Written by a restore: {name} was {}.",
            pair.saved.describe()
        );
        writes.insert(path, content(card.mac, name, &pair.aliases, &why));
    }
    for (card, name) in robbed {
        let own = card.mac.own_name();
        notes.push(format!(
            "the card {} would be called {name} here, which is the name of a saved one: it is {own}",
            card.mac
        ));
        let path = Path::new(ETC).join(format!("50-lifeboat-{own}.link"));
        let why = format!("Written by a restore: {name} is another card.");
        writes.insert(path, content(card.mac, &own, &[], &why));
    }
    writes.retain(|path, text| !links.iter().any(|l| l.path == *path && l.text == *text));
    (writes, notes)
}

/// The `.link` files that hold, and notes about those that cannot be read.
fn read(inside: &Inside) -> (Vec<Link>, Vec<String>) {
    let mut links: BTreeMap<String, Link> = BTreeMap::new();
    let mut notes = Vec::new();
    for dir in DIRS.map(Path::new) {
        for name in inside
            .names(dir)
            .into_iter()
            .filter(|n| n.ends_with(".link"))
        {
            if links.contains_key(&name) {
                continue;
            }
            let path = dir.join(&name);
            match inside.read(&path, 1 << 16) {
                Ok(text) => {
                    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
                    links.insert(name, Link { path, text });
                }
                // A link to /dev/null: switched off.
                Err(_)
                    if inside
                        .kind(&path)
                        .is_ok_and(|k| k == Some(crate::inside::Kind::Link)) =>
                {
                    links.insert(
                        name,
                        Link {
                            path,
                            text: String::new(),
                        },
                    );
                }
                Err(error) => notes.push(format!("not looked at: {error:#}")),
            }
        }
    }
    // In the order of their names systemd takes the first that matches.
    (links.into_values().collect(), notes)
}

/// Gives this machine's cards the saved names, in the system below a directory. On the same hardware nothing is written.
pub fn write(inside: &Inside, mapping: &Mapping, proxmox: bool) -> Result<Applied> {
    let (links, mut notes) = read(inside);
    let (writes, more) = decide(mapping, &links, proxmox);
    notes.extend(more);
    let mut written = Vec::new();
    for (path, text) in writes {
        if let Some(dir) = path.parent() {
            inside.make_dir(dir)?;
        }
        inside.write(&path, text.as_bytes())?;
        written.push(path);
    }
    notes.extend(stale(inside, mapping));
    Ok(Applied { written, notes })
}

/// Files that still have the address of a card that is gone.
fn stale(inside: &Inside, mapping: &Mapping) -> Vec<String> {
    let gone: Vec<(String, &str)> = mapping
        .pairs
        .iter()
        .filter(|pair| {
            pair.card
                .as_ref()
                .is_none_or(|card| card.mac != pair.saved.mac)
        })
        .map(|pair| (pair.saved.mac.to_string(), pair.saved.name.as_str()))
        .collect();
    let mut notes = Vec::new();
    let files = NAMING.map(Path::new).into_iter().flat_map(|path| {
        let below = inside.names(path).into_iter().map(|name| path.join(name));
        std::iter::once(path.to_owned()).chain(below)
    });
    for path in files.filter(|path| path.extension().is_none_or(|e| e != "link")) {
        let text = inside.text(&path).unwrap_or_default().to_ascii_lowercase();
        let live = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        let live: Vec<&str> = live.collect();
        for (mac, name) in &gone {
            if live.iter().any(|line| line.contains(mac.as_str())) {
                notes.push(format!(
                    "{} has the address {mac} of the saved {name}, whose card is another one now",
                    path.display()
                ));
            }
        }
    }
    notes
}

#[cfg(test)]
mod tests;
