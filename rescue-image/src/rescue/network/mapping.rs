//! Which card of this machine takes the place of which saved one: a pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::{Card, Config, Mac};

/// What was decided for a saved card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This card, by its address.
    Mac(Mac),
    /// This card, by its name here and now.
    Name(String),
    /// None.
    Nothing,
}

impl Choice {
    /// An address, a name, or `none`.
    pub fn parse(text: &str) -> Self {
        match (text, Mac::parse(text)) {
            ("none", _) => Self::Nothing,
            (_, Some(mac)) => Self::Mac(mac),
            _ => Self::Name(text.to_owned()),
        }
    }

    fn is(&self, card: &Card) -> bool {
        match self {
            Self::Mac(mac) => card.mac == *mac,
            Self::Name(name) => card.name == *name,
            Self::Nothing => false,
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => mac.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Nothing => f.write_str("none"),
        }
    }
}

/// Why a card takes the place of a saved one, or none does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is the same card.
    SameMac,
    /// It is at the same place and has the same driver, and no other is or has.
    SamePlace,
    /// An operator says so.
    Chosen,
    /// It is the first free one with a link, and the host is reached through the saved one.
    FirstWithLink,
    /// Nothing tells which one it would be.
    Unknown,
}

impl How {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::SameMac => "the same card",
            Self::SamePlace => "same place and driver",
            Self::Chosen => "chosen",
            Self::FirstWithLink => "A GUESS: the first free card with a link",
            Self::Unknown => "nothing tells which card it is here",
        }
    }
}

/// A saved card, and the one in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The saved card. Its name is the one that is kept.
    pub saved: Card,
    /// Its other names that the configuration calls it by, which are kept as well.
    pub aliases: Vec<String>,
    /// Interfaces of the saved host that it is a part of.
    pub uses: Vec<String>,
    /// The host is reached through it.
    pub management: bool,
    /// The card of this machine.
    pub card: Option<Card>,
    /// Why that one.
    pub how: How,
}

/// All saved cards, and all of this machine's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// The saved cards, by name.
    pub pairs: Vec<Pair>,
    /// Cards of this machine that take no saved one's place.
    pub rest: Vec<Card>,
}

impl Mapping {
    /// Every saved card is here, or there is nothing to map.
    pub fn exact(&self) -> bool {
        self.pairs.iter().all(|p| p.how == How::SameMac)
    }

    /// Saved cards through which the host is reached, none of which is here.
    pub fn unreachable(&self) -> Vec<&str> {
        let management = || self.pairs.iter().filter(|p| p.management);
        if management().any(|p| p.card.is_some()) {
            return Vec::new();
        }
        management().map(|p| p.saved.name.as_str()).collect()
    }

    /// For people, in lines that fit a console of 80 columns.
    pub fn render(&self) -> String {
        let mut text =
            String::from("Network cards (the saved names stay, whatever card has them):\n");
        for (n, pair) in self.pairs.iter().enumerate() {
            let mut uses = pair.uses.join(", ");
            if pair.management {
                uses.push_str("; the host is reached through it");
            }
            let uses = match uses.trim_start_matches("; ") {
                "" => String::new(),
                uses => format!(" ({uses})"),
            };
            text.push_str(&format!("{:>4}) {}{uses}\n", n + 1, pair.saved.name));
            text.push_str(&format!("      was  {}\n", pair.saved.describe()));
            let now = match &pair.card {
                Some(card) => format!(
                    "{}{}",
                    card.describe(),
                    if card.link { ", link" } else { "" }
                ),
                None => "no card".to_owned(),
            };
            text.push_str(&format!(
                "      is   {now}\n      because: {}\n",
                pair.how.words()
            ));
        }
        for card in &self.rest {
            let link = if card.link { ", link" } else { "" };
            text.push_str(&format!("      unused: {}{link}\n", card.describe()));
        }
        text.trim_end().to_owned()
    }
}

/// What a mapping is made of, and the mapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The saved host's cards.
    pub saved: Vec<Card>,
    /// This machine's.
    pub here: Vec<Card>,
    /// The saved host's configuration.
    pub config: Config,
    /// What follows from them, and from what was chosen.
    pub mapping: Mapping,
}

impl Network {
    /// Maps. Fails where what was chosen is not there, or is chosen twice.
    pub fn new(
        saved: Vec<Card>,
        here: Vec<Card>,
        config: Config,
        choices: &BTreeMap<String, Choice>,
    ) -> Result<Self, String> {
        let mapping = map(&saved, &here, &config, choices)?;
        Ok(Self {
            saved,
            here,
            config,
            mapping,
        })
    }

    /// The same with other choices.
    pub fn with(&self, choices: &BTreeMap<String, Choice>) -> Result<Self, String> {
        let (saved, here) = (self.saved.clone(), self.here.clone());
        Self::new(saved, here, self.config.clone(), choices)
    }
}

/// What was chosen first, then the same cards, then cards at the same places, and at last any card with a link for the
/// interface that the host is reached through: a host that answers can be put right from afar.
fn map(
    saved: &[Card],
    here: &[Card],
    config: &Config,
    choices: &BTreeMap<String, Choice>,
) -> Result<Mapping, String> {
    let mut taken: BTreeSet<usize> = BTreeSet::new();
    let mut found: BTreeMap<usize, (Option<usize>, How)> = BTreeMap::new();
    for (name, choice) in choices {
        let Some(s) = saved.iter().position(|card| card.name == *name) else {
            return Err(format!(
                "the saved host has no network card {name}; it has {}",
                list(saved.iter().map(|c| c.name.clone()))
            ));
        };
        if *choice == Choice::Nothing {
            found.insert(s, (None, How::Chosen));
            continue;
        }
        let Some(h) = here.iter().position(|card| choice.is(card)) else {
            return Err(format!(
                "this machine has no network card {choice}, which was chosen for {name}; it has {}",
                list(here.iter().map(|c| format!("{} {}", c.name, c.mac)))
            ));
        };
        if !taken.insert(h) {
            return Err(format!(
                "the network card {choice} was chosen for two saved ones"
            ));
        }
        found.insert(s, (Some(h), How::Chosen));
    }
    for how in [How::SameMac, How::SamePlace] {
        let is = |a: &Card, b: &Card| match how {
            How::SameMac => a.mac == b.mac,
            _ => a.same_place(b),
        };
        for (s, card) in saved.iter().enumerate() {
            // One of several would be a guess, on either side: ports of one device have one place.
            let fits: Vec<usize> = (0..here.len()).filter(|h| is(card, &here[*h])).collect();
            let rivals = saved
                .iter()
                .filter(|other| fits.iter().any(|h| is(other, &here[*h])));
            if let ([h], 1) = (fits.as_slice(), rivals.count()) {
                if !found.contains_key(&s) && taken.insert(*h) {
                    found.insert(s, (Some(*h), how));
                }
            }
        }
    }
    let management = config.management().map(|name| config.below(name));
    let reached: Vec<usize> = (0..saved.len())
        .filter(|s| match &management {
            Some(names) => saved[*s].names().any(|name| names.contains(name)),
            // A configuration that is not understood: any card of the host may be the one.
            None => saved.len() == 1,
        })
        .collect();
    let any = |s: &usize| matches!(found.get(s), Some((Some(_), _)) | Some((None, How::Chosen)));
    if !reached.iter().any(any) {
        let free = (0..here.len()).find(|h| here[*h].link && !taken.contains(h));
        if let (Some(s), Some(h)) = (reached.first(), free) {
            taken.insert(h);
            found.insert(*s, (Some(h), How::FirstWithLink));
        }
    }
    let pairs = saved.iter().enumerate().map(|(s, card)| {
        let (h, how) = found.get(&s).copied().unwrap_or((None, How::Unknown));
        let aliases = card.others.iter().filter(|name| config.names(name));
        let mut uses: Vec<String> = card.names().flat_map(|name| config.uses(name)).collect();
        uses.sort();
        uses.dedup();
        Pair {
            aliases: aliases.cloned().collect(),
            uses,
            management: reached.contains(&s),
            card: h.and_then(|h| here.get(h)).cloned(),
            saved: card.clone(),
            how,
        }
    });
    Ok(Mapping {
        pairs: pairs.collect(),
        rest: here
            .iter()
            .enumerate()
            .filter(|(h, _)| !taken.contains(h))
            .map(|(_, card)| card.clone())
            .collect(),
    })
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

#[cfg(test)]
pub(in crate::rescue) mod tests {
    use super::*;
    use crate::inside::Inside;

    /// A card in slot `slot` with the address `bc:24:11:00:00:<mac>`.
    pub(in crate::rescue) fn card(name: &str, mac: u8, slot: u8, driver: &str) -> Card {
        Card {
            name: name.to_owned(),
            mac: Mac::parse(&format!("bc:24:11:00:00:{mac:02x}")).expect("an address"),
            driver: Some(driver.to_owned()),
            path: Some(format!("pci-0000:{slot:02x}:00.0")),
            device: Some(format!("/sys/devices/pci0000:00/0000:{slot:02x}:00.0")),
            policy: Some(format!("enp{slot}s0")),
            others: Vec::new(),
            link: false,
        }
    }

    fn linked(card: Card) -> Card {
        Card { link: true, ..card }
    }

    pub(in crate::rescue) const BRIDGE: &str = "iface enp3s0 inet manual\niface vmbr0 inet static\n address 192.0.2.10/24\n gateway 192.0.2.1\n bridge-ports enp3s0\n\
         iface vmbr1 inet manual\n bridge-ports enp4s0\n";

    fn config() -> Config {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir_all(dir.path().join("etc/network")).expect("made");
        std::fs::write(dir.path().join("etc/network/interfaces"), BRIDGE).expect("written");
        Config::read(&Inside::open(dir.path()).expect("opened"))
    }

    fn two() -> Vec<Card> {
        vec![card("enp3s0", 1, 3, "igb"), card("enp4s0", 2, 4, "igb")]
    }

    #[test]
    fn cards_by_table() {
        use How::*;
        let eth = |n: u8, mac, slot, driver| card(&format!("eth{n}"), mac, slot, driver);
        type Expected<'a> = [(Option<&'a str>, How); 2];
        type Case<'a> = (&'a str, Vec<Card>, &'a [(&'a str, &'a str)], Expected<'a>);
        let cases: &[Case<'_>] = &[
            (
                "the same machine",
                vec![eth(0, 1, 3, "igb"), eth(1, 2, 4, "igb")],
                &[],
                [(Some("eth0"), SameMac), (Some("eth1"), SameMac)],
            ),
            (
                "cards in other slots",
                vec![eth(0, 2, 3, "igb"), eth(1, 1, 9, "igb")],
                &[],
                [(Some("eth1"), SameMac), (Some("eth0"), SameMac)],
            ),
            (
                "another board of the same kind",
                vec![eth(0, 8, 3, "igb"), eth(1, 9, 4, "igb")],
                &[],
                [(Some("eth0"), SamePlace), (Some("eth1"), SamePlace)],
            ),
            (
                "another driver at the same place",
                vec![eth(0, 8, 3, "e1000")],
                &[],
                [(None, Unknown), (None, Unknown)],
            ),
            (
                "other hardware",
                vec![eth(0, 8, 7, "r8169"), linked(eth(1, 9, 8, "r8169"))],
                &[],
                [(Some("eth1"), FirstWithLink), (None, Unknown)],
            ),
            (
                "no cable",
                vec![eth(0, 8, 7, "r8169")],
                &[],
                [(None, Unknown), (None, Unknown)],
            ),
            (
                "the management card is known, so nothing is guessed",
                vec![eth(0, 1, 7, "igb"), linked(eth(1, 9, 8, "x"))],
                &[],
                [(Some("eth0"), SameMac), (None, Unknown)],
            ),
            (
                "the other card is not taken for it",
                vec![linked(eth(0, 2, 4, "igb"))],
                &[],
                [(None, Unknown), (Some("eth0"), SameMac)],
            ),
            (
                "chosen by name",
                vec![eth(0, 1, 3, "igb"), eth(1, 2, 4, "igb")],
                &[("enp3s0", "eth1")],
                [(Some("eth1"), Chosen), (None, Unknown)],
            ),
            (
                "chosen by address",
                vec![eth(0, 8, 7, "x"), eth(1, 9, 8, "x")],
                &[("enp4s0", "BC-24-11-00-00-09")],
                [(None, Unknown), (Some("eth1"), Chosen)],
            ),
            (
                "chosen to be none",
                vec![linked(eth(0, 8, 7, "x"))],
                &[("enp3s0", "none")],
                [(None, Chosen), (None, Unknown)],
            ),
            (
                "no cards at all",
                vec![],
                &[],
                [(None, Unknown), (None, Unknown)],
            ),
        ];
        for (what, here, chosen, expected) in cases {
            let choices = chosen
                .iter()
                .map(|(name, c)| ((*name).to_owned(), Choice::parse(c)));
            let mapping = map(&two(), here, &config(), &choices.collect()).expect(what);
            let got: Vec<(Option<&str>, How)> = mapping
                .pairs
                .iter()
                .map(|p| (p.card.as_ref().map(|c| c.name.as_str()), p.how))
                .collect();
            assert_eq!(got, expected, "{what}");
            let placed = mapping.pairs.iter().filter(|p| p.card.is_some()).count();
            assert_eq!(placed + mapping.rest.len(), here.len(), "{what}");
            assert!(mapping.pairs[0].management && !mapping.pairs[1].management);
            assert_eq!(mapping.pairs[1].uses, ["vmbr1"]);
            let lost = mapping.pairs[0].card.is_none();
            assert_eq!(mapping.unreachable().is_empty(), !lost, "{what}");
        }
    }

    #[test]
    fn ports_of_one_device_are_not_told_apart_by_their_place() {
        let saved = vec![card("enp3s0", 1, 3, "mlx4"), card("enp3s0d1", 2, 3, "mlx4")];
        let here = vec![card("eth0", 8, 3, "mlx4"), card("eth1", 9, 3, "mlx4")];
        let mapping = map(&saved, &here, &Config::default(), &BTreeMap::new()).expect("mapped");
        assert!(
            mapping.pairs.iter().all(|p| p.how == How::Unknown),
            "{mapping:?}"
        );
        // Nor where one of them is gone.
        let mapping =
            map(&saved, &here[..1], &Config::default(), &BTreeMap::new()).expect("mapped");
        assert!(
            mapping.pairs.iter().all(|p| p.how == How::Unknown),
            "{mapping:?}"
        );
    }

    #[test]
    fn a_configuration_that_is_not_understood_is_no_obstacle_for_the_only_card() {
        let here = vec![card("eth0", 7, 9, "a"), linked(card("eth1", 8, 8, "b"))];
        let none = BTreeMap::new();
        let mapping = map(&two()[..1], &here, &Config::default(), &none).expect("mapped");
        assert_eq!(mapping.pairs[0].how, How::FirstWithLink);
        let mapping = map(&two(), &here, &Config::default(), &none).expect("mapped");
        assert!(mapping.pairs.iter().all(|p| p.how == How::Unknown));
    }

    #[test]
    fn choices_that_cannot_be_are_refused() {
        let here = vec![card("eth0", 8, 7, "x")];
        let refused = |choices: &[(&str, &str)]| {
            let choices = choices
                .iter()
                .map(|(n, c)| ((*n).to_owned(), Choice::parse(c)));
            map(&two(), &here, &config(), &choices.collect()).expect_err("refused")
        };
        assert!(
            refused(&[("enp9s0", "eth0")])
                .contains("no network card enp9s0; it has enp3s0, enp4s0")
        );
        assert!(refused(&[("enp3s0", "eth7")]).contains("no network card eth7"));
        assert!(refused(&[("enp3s0", "eth0"), ("enp4s0", "eth0")]).contains("two saved ones"));
    }

    #[test]
    fn what_is_shown_fits_a_console() {
        let here = vec![
            linked(card("eth0", 8, 7, "virtio_net")),
            card("eth1", 9, 8, "virtio_net"),
        ];
        let mapping = map(&two(), &here, &config(), &BTreeMap::new()).expect("mapped");
        let text = mapping.render();
        for line in text.lines() {
            assert!(line.len() <= 80 && line.is_ascii(), "{line}");
        }
        for part in [
            "enp3s0 (vmbr0; the host is reached through it)",
            "A GUESS",
            "no card",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }
}
