//! Which cards the saved host's configuration names, and which of them the host is reached through.
//!
//! interfaces(5) of ifupdown and ifupdown2, as far as names of interfaces occur in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::inside::Inside;

/// The file that everything else is named by.
const INTERFACES: &str = "/etc/network/interfaces";
/// The Proxmox VE interface's draft, which takes the other's place at the next start (pvenetcommit.service).
const DRAFT: &str = "/etc/network/interfaces.new";
/// Files that name each other in a circle end here.
const DEPTH: usize = 8;

/// Options whose values are interfaces that this one is made of.
const MADE_OF: [&str; 6] = [
    "bridge-ports",
    "bond-slaves",
    "slaves",
    "vlan-raw-device",
    "ovs-ports",
    "ovs-bonds",
];

/// What an interface is made of, and how it is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Interface {
    of: BTreeSet<String>,
    gateway: bool,
    addressed: bool,
    dhcp: bool,
}

/// The configuration of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    interfaces: BTreeMap<String, Interface>,
    words: BTreeSet<String>,
    /// There is a draft that becomes active at the next start.
    pub draft: bool,
}

impl Config {
    /// Reads the configuration of the system below a directory. What is not there says nothing.
    pub fn read(inside: &Inside) -> Self {
        let mut config = Self {
            draft: inside.text(Path::new(DRAFT)).is_some(),
            ..Self::default()
        };
        config.file(inside, Path::new(INTERFACES), DEPTH);
        config
    }

    fn file(&mut self, inside: &Inside, path: &Path, depth: usize) {
        let Some(text) = inside.text(path).filter(|_| depth > 0) else {
            return;
        };
        let mut current: Option<String> = None;
        for line in text.replace("\\\n", " ").lines() {
            let mut words = line.split_whitespace();
            let Some(first) = words.next().filter(|w| !w.starts_with('#')) else {
                continue;
            };
            let rest: Vec<&str> = words.collect();
            match first {
                "source" | "source-directory" => {
                    for pattern in &rest {
                        let dir = path.parent().unwrap_or(Path::new("/"));
                        for name in sourced(inside, first, &dir.join(pattern)) {
                            self.file(inside, &name, depth - 1);
                        }
                    }
                    current = None;
                }
                "iface" => {
                    let name = rest.first().map(|name| without_alias(name));
                    if let Some(name) = name {
                        self.words.insert(name.to_owned());
                        let interface = self.interfaces.entry(name.to_owned()).or_default();
                        interface.dhcp |= rest.get(2) == Some(&"dhcp");
                    }
                    current = name.map(str::to_owned);
                }
                "auto" | "mapping" => {
                    self.words
                        .extend(rest.iter().map(|w| without_alias(w).to_owned()));
                    current = None;
                }
                _ if first.starts_with("allow-") => current = None,
                option => {
                    let Some(interface) = current.as_ref().and_then(|c| self.interfaces.get_mut(c))
                    else {
                        continue;
                    };
                    let option = option.replace('_', "-");
                    match option.as_str() {
                        "gateway" => interface.gateway = true,
                        "address" => interface.addressed = true,
                        made if MADE_OF.contains(&made) => {
                            interface.of.extend(rest.iter().map(|w| (*w).to_owned()));
                        }
                        _ => {}
                    }
                    // Also in what is run before and after, and in `bond-primary`.
                    self.words
                        .extend(rest.iter().map(|w| without_alias(w).to_owned()));
                }
            }
        }
    }

    /// The interface that the host is reached through: the one with the gateway, or else the first that has an address.
    pub fn management(&self) -> Option<&str> {
        let find = |is: fn(&Interface) -> bool| {
            let named = self.interfaces.iter().filter(|(name, _)| *name != "lo");
            named
                .filter(|(_, interface)| is(interface))
                .map(|(name, _)| name.as_str())
                .next()
        };
        find(|i| i.gateway)
            .or_else(|| find(|i| i.dhcp))
            .or_else(|| find(|i| i.addressed))
    }

    /// The interfaces that this one is made of, itself included, down to the cards.
    pub fn below(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(name) = open.pop() {
            if !found.insert(name.clone()) {
                continue;
            }
            // `enp3s0.50` is a VLAN on `enp3s0`.
            if let Some((card, vlan)) = name.rsplit_once('.') {
                if vlan.parse::<u16>().is_ok() {
                    open.push(card.to_owned());
                }
            }
            if let Some(interface) = self.interfaces.get(&name) {
                open.extend(interface.of.iter().cloned());
            }
        }
        found
    }

    /// The interfaces that a card is a part of, for people; its own name where it is configured by itself.
    pub fn uses(&self, card: &str) -> Vec<String> {
        let made = self.interfaces.keys();
        let made = made.filter(|name| *name != card && self.below(name).contains(card));
        let mut uses: Vec<String> = made.cloned().collect();
        if uses.is_empty() && self.names(card) {
            uses.push(card.to_owned());
        }
        uses
    }

    /// Whether the configuration names it.
    pub fn names(&self, card: &str) -> bool {
        let is = |word: &String| {
            word == card
                || word
                    .rsplit_once('.')
                    .is_some_and(|(name, vlan)| name == card && vlan.parse::<u16>().is_ok())
        };
        self.words.iter().any(is)
    }
}

/// `eth0:1` is another address of `eth0`.
fn without_alias(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// The files that a line names: by a pattern, or all in a directory whose names are plain.
fn sourced(inside: &Inside, how: &str, path: &Path) -> Vec<PathBuf> {
    if how == "source-directory" {
        let plain = |name: &String| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            name.chars().all(allowed)
        };
        let names = inside.names(path).into_iter().filter(plain);
        return names.map(|name| path.join(name)).collect();
    }
    let (Some(dir), Some(pattern)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let pattern = pattern.to_string_lossy();
    if !pattern.contains(['*', '?']) {
        return vec![path.to_owned()];
    }
    let names = inside.names(dir).into_iter();
    let fits = names.filter(|name| !name.starts_with('.') && is_like(&pattern, name));
    fits.map(|name| dir.join(name)).collect()
}

/// `*` and `?` of a shell.
fn is_like(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Row by row: which beginnings of the name fit the beginning of the pattern.
    let mut fits = vec![false; name.len() + 1];
    fits[0] = true;
    for p in pattern {
        let before = fits.clone();
        for n in 0..=name.len() {
            fits[n] = match p {
                '*' => before[n] || (n > 0 && fits[n - 1]),
                '?' => n > 0 && before[n - 1],
                c => n > 0 && before[n - 1] && name[n - 1] == c,
            };
        }
    }
    fits[name.len()]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config(files: &[(&str, &str)]) -> Config {
        let dir = tempfile::tempdir().expect("temporary directory");
        for (name, text) in files {
            let path = dir.path().join("etc/network").join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        }
        Config::read(&Inside::open(dir.path()).expect("opened"))
    }

    fn cards(config: &Config) -> Vec<String> {
        let management = config.management().expect("an interface");
        config.below(management).into_iter().collect()
    }

    #[test]
    fn the_bridge_with_the_gateway() {
        let config = config(&[
            (
                "interfaces",
                "auto lo\niface lo inet loopback\n\niface enp3s0 inet manual\n\nauto vmbr0\niface vmbr0 inet static\n\
                 \taddress 192.0.2.10/24\n\tgateway 192.0.2.1\n\tbridge-ports enp3s0\n\tbridge-stp off\n\n\
                 iface enp4s0 inet manual\n\nauto a0\niface a0 inet static\n\taddress 10.0.0.1/24\n\nsource /etc/network/interfaces.d/*\n",
            ),
            (
                "interfaces.d/sdn",
                "auto vnet1\niface vnet1\n\tbridge_ports enp4s0.7\n",
            ),
        ]);
        assert_eq!(config.management(), Some("vmbr0"));
        assert_eq!(cards(&config), ["enp3s0", "vmbr0"]);
        assert_eq!(config.uses("enp3s0"), ["vmbr0"]);
        assert_eq!(config.uses("enp4s0"), ["vnet1"]);
        assert!(config.uses("enp4s").is_empty() && !config.draft);
    }

    #[test]
    fn through_bonds_and_vlans() {
        let config = config(&[
            (
                "interfaces",
                "# gateway\nsource-directory interfaces.d\nauto bond0\niface bond0 inet manual\n\tbond-slaves eno1 \\\n  eno2\n\
                 \tbond-primary eno1\niface mgmt inet static\n  vlan-raw-device bond0\n  address 1.2.3.4/24\n  gateway 1.2.3.1\n\
                 iface mgmt inet6 auto\nauto eno5:1\niface eno5:1 inet static\n address 1.1.1.1/8\n",
            ),
            (
                "interfaces.d/more",
                "iface vmbr1 inet manual\n bridge-ports eno3.50\n",
            ),
            (
                "interfaces.d/not.this",
                "iface x inet dhcp\n gateway 9.9.9.9\n",
            ),
            ("interfaces.new", ""),
        ]);
        assert_eq!(cards(&config), ["bond0", "eno1", "eno2", "mgmt"]);
        assert_eq!(
            config.uses("eno3"),
            ["eno3.50", "vmbr1"].map(str::to_owned)[1..]
        );
        assert_eq!(config.uses("eno1"), ["bond0", "mgmt"]);
        assert_eq!(config.uses("eno5"), ["eno5"]);
        assert!(config.draft);
    }

    #[test]
    fn without_a_gateway_the_one_that_asks_for_an_address() {
        let one = config(&[(
            "interfaces",
            "iface lo inet loopback\niface a inet static\n address 1.1.1.1/8\niface b inet dhcp\n",
        )]);
        assert_eq!(one.management(), Some("b"));
        let two = config(&[(
            "interfaces",
            "iface a inet static\n address 1.1.1.1/8\nsource interfaces\n",
        )]);
        assert_eq!(two.management(), Some("a"));
        assert_eq!(config(&[]).management(), None);
    }

    #[test]
    fn patterns_of_a_shell() {
        for (pattern, name) in [
            ("*", "sdn"),
            ("*.cfg", "a.cfg"),
            ("a?c*", "abcd"),
            ("**", ""),
        ] {
            assert!(is_like(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.cfg", "a.cf"), ("?", ""), ("a", "b"), ("a*b", "ab c")] {
            assert!(!is_like(pattern, name), "{pattern} {name}");
        }
    }
}
