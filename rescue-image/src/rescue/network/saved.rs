//! The saved host's network cards, from the facts in its restore point.

use serde::Deserialize;
use serde_json::Value;

use super::{Card, Mac, Properties, is_name, other_names, policy_name};

/// An interface as `lifeboat backup` wrote it down.
#[derive(Deserialize)]
struct Interface {
    name: String,
    mac: String,
    permanent_mac: Option<String>,
    driver: Option<String>,
    device: Option<String>,
    #[serde(default)]
    udev: Properties,
    #[serde(default)]
    virtual_function: bool,
}

/// The cards among the interfaces of a restore point's facts, by name. What is not understood is left out.
pub fn cards(facts: &Value) -> Vec<Card> {
    let interfaces = facts.get("network").and_then(Value::as_array);
    let mut cards: Vec<Card> = interfaces
        .into_iter()
        .flatten()
        .filter_map(|value| Interface::deserialize(value).ok())
        .filter_map(card)
        .collect();
    cards.sort_by(|a, b| a.name.cmp(&b.name));
    cards.dedup_by(|a, b| a.name == b.name);
    cards
}

fn card(interface: Interface) -> Option<Card> {
    let device = interface.device?;
    let mac = Mac::parse(interface.permanent_mac.as_ref().unwrap_or(&interface.mac))?;
    // Radio is no place for a bridge, and has another type for systemd.
    let wireless = ["wl", "ww"].iter().any(|w| interface.name.starts_with(w));
    if interface.virtual_function || wireless || !is_name(&interface.name) {
        return None;
    }
    Some(Card {
        mac,
        driver: interface.driver,
        path: interface.udev.get("ID_PATH").map(str::to_owned),
        policy: policy_name(|key| interface.udev.get(key)),
        others: other_names(interface.udev.all(), &interface.name),
        device: Some(device),
        link: false,
        name: interface.name,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_hardware_is_a_card() {
        let facts = json!({ "hostname": "pve1", "network": [
            { "name": "vmbr0", "mac": "bc:24:11:00:00:01", "permanent_mac": null, "driver": null, "device": null, "udev": {} },
            { "name": "enp3s0", "mac": "02:00:00:00:00:09", "permanent_mac": "bc:24:11:00:00:01", "driver": "igb",
              "device": "/sys/devices/pci0000:00/0000:03:00.0",
              "udev": { "ID_PATH": "pci-0000:03:00.0", "ID_NET_NAME_PATH": "enp3s0", "ID_NET_NAME_MAC": "enxbc2411000001" } },
            { "name": "enp3s0v0", "mac": "bc:24:11:00:00:02", "permanent_mac": null, "driver": "igbvf",
              "device": "/sys/devices/pci0000:00/0000:03:10.0", "udev": {}, "virtual_function": true },
            { "name": "wlp2s0", "mac": "bc:24:11:00:00:03", "permanent_mac": null, "driver": "iwlwifi", "device": "/sys/devices/x",
              "udev": {} },
            { "name": "../etc", "mac": "bc:24:11:00:00:04", "permanent_mac": null, "driver": "x", "device": "/sys/devices/x", "udev": {} },
            { "name": "ibp1s0", "mac": "80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:00:01", "permanent_mac": null,
              "driver": "mlx4", "device": "/sys/devices/x", "udev": {} },
            "nonsense"
        ] });
        let found = cards(&facts);
        assert_eq!(found.len(), 1, "{found:?}");
        let card = &found[0];
        assert_eq!(card.name, "enp3s0");
        // In a bond the address in use is not the card's.
        assert_eq!(
            card.mac,
            Mac::parse("bc:24:11:00:00:01").expect("an address")
        );
        assert_eq!(card.path.as_deref(), Some("pci-0000:03:00.0"));
        assert_eq!(card.policy.as_deref(), Some("enp3s0"));
        assert_eq!(card.others, ["enxbc2411000001"]);
        assert!(cards(&Value::Null).is_empty());
        assert!(cards(&json!({ "network": 3 })).is_empty());
    }
}
