//! The `.link` files that give cards the saved names (systemd.link(5)).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::mapping::{Mapping, Pair};
use super::{Card, Mac};
use crate::rescue::inside::Inside;

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
                        .is_ok_and(|k| k == Some(crate::rescue::inside::Kind::Link)) =>
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
mod tests {
    use std::fs;

    use super::super::mapping::tests::card;
    use super::super::{Choice, Config, Network};
    use super::*;

    fn saved() -> Vec<Card> {
        vec![card("enp3s0", 1, 3, "igb"), card("enp4s0", 2, 4, "igb")]
    }

    fn mapping(here: Vec<Card>, choices: &[(&str, &str)]) -> Mapping {
        let choices = choices
            .iter()
            .map(|(n, c)| ((*n).to_owned(), Choice::parse(c)));
        let network = Network::new(saved(), here, Config::default(), &choices.collect());
        network.expect("mapped").mapping
    }

    struct Root(tempfile::TempDir);

    impl Root {
        fn new(files: &[(&str, &str)]) -> Self {
            let root = Self(tempfile::tempdir().expect("temporary directory"));
            for (path, text) in files {
                let path = root.0.path().join(path.trim_start_matches('/'));
                fs::create_dir_all(path.parent().expect("a directory")).expect("made");
                fs::write(path, text).expect("written");
            }
            root
        }
        fn write(&self, mapping: &Mapping, proxmox: bool) -> Applied {
            let inside = Inside::open(self.0.path()).expect("opened");
            write(&inside, mapping, proxmox).expect("written")
        }
        fn text(&self, path: &str) -> String {
            fs::read_to_string(self.0.path().join(path.trim_start_matches('/'))).expect(path)
        }
    }

    fn paths(applied: &Applied) -> Vec<String> {
        applied
            .written
            .iter()
            .map(|p| p.display().to_string())
            .collect()
    }

    #[test]
    fn on_the_same_hardware_nothing_is_written() {
        let pinned = "[Match]\nMACAddress=bc:24:11:00:00:01\nType=ether\n[Link]\nName=lan\n";
        let root = Root::new(&[("/etc/systemd/network/10-lan.link", pinned)]);
        let here = vec![card("eth0", 1, 3, "igb"), card("eth1", 2, 4, "igb")];
        assert_eq!(root.write(&mapping(here, &[]), true), Applied::default());
        assert!(!root.0.path().join("usr/local").exists());
        // Nor where the name came from elsewhere, such as net.ifnames=0.
        let mut by_kernel = card("eth0", 1, 3, "igb");
        by_kernel.policy = Some("enp3s0".to_owned());
        assert!(keeps_its_name(&by_kernel, &card("eth5", 1, 3, "igb")));
        // Without udev's properties the device tells.
        let mut bare = card("eth0", 1, 3, "igb");
        bare.policy = None;
        assert!(keeps_its_name(&saved()[0], &bare));
        bare.device = Some("/sys/devices/other".to_owned());
        assert!(!keeps_its_name(&saved()[0], &bare));
    }

    #[test]
    fn other_cards_get_the_old_names_by_the_habit_of_the_host() {
        let here = || vec![card("eth0", 1, 7, "igb"), card("eth1", 9, 8, "x")];
        let mapping = mapping(here(), &[("enp4s0", "eth1")]);
        let root = Root::new(&[]);
        let applied = root.write(&mapping, true);
        let names =
            ["enp3s0", "enp4s0"].map(|n| format!("/usr/local/lib/systemd/network/50-pmx-{n}.link"));
        assert_eq!(paths(&applied), names);
        let text = root.text(&names[1]);
        assert!(
            text.ends_with(
                "\n[Match]\nMACAddress=bc:24:11:00:00:09\nType=ether\n\n[Link]\nName=enp4s0\n"
            ),
            "{text}"
        );
        assert!(text.starts_with("# "), "{text}");
        // Again: nothing is left to do.
        assert_eq!(root.write(&mapping, true), Applied::default());
        let root = Root::new(&[]);
        let applied = root.write(&mapping, false);
        assert_eq!(
            paths(&applied),
            ["enp3s0", "enp4s0"].map(|n| format!("/etc/systemd/network/50-lifeboat-{n}.link"))
        );
    }

    #[test]
    fn files_that_are_there_follow_the_card() {
        let old = "# pinned\n[Match]\nMACAddress=BC-24-11-00-00-01 aa:bb:cc:00:00:01\nType=ether\n\n[Link]\nName=enp3s0\nMACAddress=bc:24:11:00:00:01";
        let wol = "[Match]\nPermanentMACAddress=bc24.1100.0001\n[Link]\nWakeOnLan=magic\n";
        let pve = "/usr/local/lib/systemd/network/50-pve-enp3s0.link";
        let root = Root::new(&[
            (pve, old),
            ("/etc/systemd/network/10-wol.link", wol),
            (
                "/etc/systemd/network/20-lan.network",
                "[Match]\nMACAddress=BC:24:11:00:00:01\n",
            ),
            (
                "/etc/udev/rules.d/70-persistent-net.rules",
                "# bc:24:11:00:00:01\n",
            ),
        ]);
        let mapping = mapping(
            vec![card("eth0", 9, 3, "igb"), card("eth1", 2, 4, "igb")],
            &[],
        );
        let applied = root.write(&mapping, true);
        assert_eq!(paths(&applied), ["/etc/systemd/network/10-wol.link", pve]);
        assert_eq!(
            root.text(pve),
            old.replacen("BC-24-11-00-00-01", "bc:24:11:00:00:09", 1)
        );
        assert!(
            root.text("/etc/systemd/network/10-wol.link")
                .contains("PermanentMACAddress=bc:24:11:00:00:09\n")
        );
        let notes = applied.notes.join("\n");
        assert!(
            notes.contains("20-lan.network has the address bc:24:11:00:00:01 of the saved enp3s0"),
            "{notes}"
        );
        assert!(!notes.contains("70-persistent"), "{notes}");
        let again = root.write(&mapping, true);
        assert!(again.written.is_empty(), "{again:?}");
    }

    #[test]
    fn cards_that_changed_places_do_not_meet() {
        // The card that is called enp3s0 here is enp4s0, and the other way round.
        let here = vec![card("eth0", 9, 3, "x"), card("eth1", 8, 4, "x")];
        let swapped = mapping(here.clone(), &[("enp3s0", "eth1"), ("enp4s0", "eth0")]);
        let root = Root::new(&[]);
        let applied = root.write(&swapped, true);
        // In the initramfs already.
        assert_eq!(
            paths(&applied),
            ["enp3s0", "enp4s0"].map(|n| format!("/etc/systemd/network/50-lifeboat-{n}.link"))
        );
        // A card without a place that would take a kept name.
        let robbed = mapping(here, &[("enp3s0", "eth1")]);
        let root = Root::new(&[]);
        let applied = root.write(&robbed, true);
        let own = "/etc/systemd/network/50-lifeboat-enxbc2411000009.link";
        assert_eq!(
            paths(&applied),
            ["/etc/systemd/network/50-lifeboat-enp3s0.link", own]
        );
        assert!(root.text(own).ends_with(
            "MACAddress=bc:24:11:00:00:09\nType=ether\n\n[Link]\nName=enxbc2411000009\n"
        ));
        // Files of both that are there are exchanged at once.
        let file = |mac: u8, name: &str| {
            format!("[Match]\nMACAddress=bc:24:11:00:00:{mac:02x}\n[Link]\nName={name}\n")
        };
        let (a, b) = (file(1, "enp3s0"), file(2, "enp4s0"));
        let root = Root::new(&[
            ("/etc/systemd/network/1.link", &a),
            ("/etc/systemd/network/2.link", &b),
        ]);
        let exchanged = mapping(
            vec![card("eth0", 1, 3, "igb"), card("eth1", 2, 4, "igb")],
            &[("enp3s0", "eth1"), ("enp4s0", "eth0")],
        );
        root.write(&exchanged, true);
        assert_eq!(root.text("/etc/systemd/network/1.link"), file(2, "enp3s0"));
        assert_eq!(root.text("/etc/systemd/network/2.link"), file(1, "enp4s0"));
    }

    #[test]
    fn other_names_that_the_configuration_uses_are_kept() {
        let root = Root::new(&[(
            "/etc/network/interfaces",
            "iface vmbr0 inet static\n gateway 1.1.1.1\n bridge-ports enxbc2411000001\n",
        )]);
        let mut saved = card("eno1", 1, 3, "igb");
        saved.policy = Some("eno1".to_owned());
        saved.others = vec!["enp3s0".to_owned(), "enxbc2411000001".to_owned()];
        let config = Config::read(&Inside::open(root.0.path()).expect("opened"));
        let map = |here: Card| {
            let network = Network::new(
                vec![saved.clone()],
                vec![here],
                config.clone(),
                &BTreeMap::new(),
            );
            network.expect("mapped").mapping
        };
        let mut other = card("eth0", 9, 9, "x");
        other.link = true;
        let mapping = map(other);
        assert_eq!(mapping.pairs[0].uses, ["vmbr0"]);
        assert!(mapping.pairs[0].management);
        let applied = root.write(&mapping, false);
        let text = root.text(&paths(&applied)[0]);
        assert!(
            text.ends_with("Name=eno1\nAlternativeName=enxbc2411000001\n"),
            "{text}"
        );
        let mut same = saved.clone();
        same.others = vec!["enxbc2411000001".to_owned()];
        let root = Root::new(&[]);
        assert!(root.write(&map(same), false).written.is_empty());
    }

    #[test]
    fn links_in_the_restored_system_lead_nowhere_outside() {
        let outside = tempfile::tempdir().expect("temporary directory");
        let root = Root::new(&[("/etc/hostname", "x")]);
        std::os::unix::fs::symlink(outside.path(), root.0.path().join("etc/systemd"))
            .expect("link");
        let inside = Inside::open(root.0.path()).expect("opened");
        let mapping = mapping(vec![card("eth0", 9, 8, "x")], &[("enp3s0", "eth0")]);
        assert!(write(&inside, &mapping, false).is_err());
        assert_eq!(fs::read_dir(outside.path()).expect("listed").count(), 0);
    }
}
