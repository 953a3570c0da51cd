use std::fs;

use super::*;
use crate::rescue::network::mapping::tests::card;
use crate::rescue::network::{Choice, Config, Network};

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
    assert!(
        root.text(own).ends_with(
            "MACAddress=bc:24:11:00:00:09\nType=ether\n\n[Link]\nName=enxbc2411000009\n"
        )
    );
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
    std::os::unix::fs::symlink(outside.path(), root.0.path().join("etc/systemd")).expect("link");
    let inside = Inside::open(root.0.path()).expect("opened");
    let mapping = mapping(vec![card("eth0", 9, 8, "x")], &[("enp3s0", "eth0")]);
    assert!(write(&inside, &mapping, false).is_err());
    assert_eq!(fs::read_dir(outside.path()).expect("listed").count(), 0);
}
