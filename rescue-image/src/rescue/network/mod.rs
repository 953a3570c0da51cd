//! Network cards and their names: the saved host's, this machine's, and which takes whose place.
//!
//! The restored host's files name cards (`bridge-ports enp3s0`, firewall rules, SDN). On another machine the same name belongs to
//! another card, or to none. So the names are kept and the cards are given them, by `.link` files of systemd
//! (systemd.link(5)): everything that names a card stays as it is.

pub mod here;
mod interfaces;
mod links;
pub(in crate::rescue) mod mapping;
mod saved;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use interfaces::Config;
pub use links::{Applied, write};
pub use mapping::{Choice, How, Mapping, Network, Pair};
pub use saved::cards;

/// Address of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// As systemd reads it: six bytes with colons or hyphens, or three words with dots. Not an address of a group or of
    /// nobody.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (separator, length) = match text.chars().find(|c| !c.is_ascii_hexdigit())? {
            '.' => ('.', 4),
            c @ (':' | '-') => (c, 2),
            _ => return None,
        };
        let parts: Vec<&str> = text.split(separator).collect();
        if parts.len() * length != 12 || parts.iter().any(|p| p.len() != length) {
            return None;
        }
        let bytes = hex::decode(parts.concat()).ok()?;
        let bytes: [u8; 6] = bytes.try_into().ok()?;
        (bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    /// The name that holds for the card wherever it is (systemd.net-naming-scheme(7), `enx`).
    fn own_name(self) -> String {
        format!("enx{}", hex::encode(self.0))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<String> = self.0.iter().map(|b| format!("{b:02x}")).collect();
        f.write_str(&bytes.join(":"))
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A network card: hardware, for cables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Card {
    /// Name of its interface, there and then.
    pub name: String,
    /// The hardware's address.
    pub mac: Mac,
    /// Its driver.
    pub driver: Option<String>,
    /// Where it is plugged: udev's `ID_PATH`.
    pub path: Option<String>,
    /// The same as a device below `/sys/devices`.
    pub device: Option<String>,
    /// The name that systemd's policy gives it.
    pub policy: Option<String>,
    /// Other names that it answers to (`AlternativeNamesPolicy=`); ifupdown2 of Proxmox VE 9 takes them, too.
    pub others: Vec<String>,
    /// Whether a cable with something at its other end is in it; unknown for saved ones.
    pub link: bool,
}

impl Card {
    /// As a person tells it from others.
    pub fn describe(&self) -> String {
        let driver = self.driver.as_deref().unwrap_or("unknown driver");
        let at = self.path.as_deref().or(self.device.as_deref());
        let at = at.map(|at| format!(", {at}")).unwrap_or_default();
        format!("{} ({driver}{at})", self.mac)
    }

    /// Every name that a configuration may call it by.
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name)
            .chain(&self.others)
            .map(String::as_str)
    }

    /// Same driver, plugged in at the same place.
    fn same_place(&self, other: &Self) -> bool {
        let place = match (&self.path, &other.path) {
            (Some(a), Some(b)) => a == b,
            _ => self.device.is_some() && self.device == other.device,
        };
        place && self.driver.is_some() && self.driver == other.driver
    }
}

/// Whether an interface can have this name, and a file can be named after it.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=15).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
}

/// The name that systemd's policy gives a card with these properties (`NamePolicy=` of 99-default.link).
fn policy_name<'p>(property: impl Fn(&str) -> Option<&'p str>) -> Option<String> {
    let order = [
        "ID_NET_NAME_FROM_DATABASE",
        "ID_NET_NAME_ONBOARD",
        "ID_NET_NAME_SLOT",
        "ID_NET_NAME_PATH",
    ];
    let name = order.iter().find_map(|key| property(key))?;
    is_name(name).then(|| name.to_owned())
}

/// The names that systemd may give a card with these properties, without the one it has.
fn other_names<'p>(
    properties: impl Iterator<Item = (&'p str, &'p str)>,
    name: &str,
) -> Vec<String> {
    let mut names: Vec<String> = properties
        .filter(|(key, _)| key.starts_with("ID_NET_NAME_"))
        .map(|(_, value)| value.to_owned())
        .filter(|other| is_name(other) && other != name)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// What of udev's properties a [`Card`] needs.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
struct Properties(std::collections::BTreeMap<String, String>);

impl Properties {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_every_spelling_of_systemd() {
        let mac = Mac::parse("BC:24:11:0a:00:01").expect("with colons");
        assert_eq!(mac.to_string(), "bc:24:11:0a:00:01");
        assert_eq!(Mac::parse("bc-24-11-0a-00-01"), Some(mac));
        assert_eq!(Mac::parse("bc24.110a.0001"), Some(mac));
        assert_eq!(mac.own_name(), "enxbc24110a0001");
        for wrong in [
            "",
            "bc24110a0001",
            "bc:24:11:0a:00",
            "bc:24:11:0a:00:01:02",
            "b:c24:11:0a:00:01",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "bc:24:11:0a:00:0g",
        ] {
            assert_eq!(Mac::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_that_files_can_be_named_after() {
        for name in ["enp3s0", "eno1np0", "nic0", "enxbc24110a0001", "lan.1"] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "..",
            "../x",
            "a b",
            "a/b",
            "sixteenletters16",
            "-x",
            "x\n",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
