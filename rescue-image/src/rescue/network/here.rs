//! This machine's network cards.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use layout::system::{Cmd, System};

use super::{Card, Mac, other_names, policy_name};

const NET: &str = "/sys/class/net";
/// `ARPHRD_ETHER` of the kernel's if_arp.h.
const ETHERNET: &str = "1";
/// Cards and switches take some three seconds to agree on a speed.
const AGREE: Duration = Duration::from_secs(5);

/// The cards, in the kernel's order. Virtual functions are left out: they are made by the host's configuration.
pub fn look(sys: &dyn System) -> Vec<Card> {
    let links = sys.run(&Cmd::new("ip").args(["-j", "link"]));
    let permanent = permanent_macs(&links.map(|o| o.text()).unwrap_or_default());
    let mut found: Vec<(u32, Card)> = sys
        .list_dir(Path::new(NET))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|name| card(sys, name, &permanent))
        .collect();
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, card)| card).collect()
}

fn card(
    sys: &dyn System,
    name: String,
    permanent: &BTreeMap<String, String>,
) -> Option<(u32, Card)> {
    let dir = Path::new(NET).join(&name);
    let text = |file: &str| sys.text(&dir.join(file));
    let there = |file: &str| sys.exists(&dir.join(file));
    if !there("device") || there("device/physfn") || there("phy80211") || there("wireless") {
        return None;
    }
    if text("type").as_deref() != Some(ETHERNET) {
        return None;
    }
    let mac = permanent.get(&name).cloned().or_else(|| text("address"))?;
    let device = sys.canonicalize(&dir.join("device")).ok();
    let driver = device
        .as_ref()
        .and_then(|d| sys.canonicalize(&d.join("driver")).ok());
    let properties = udev_properties(sys, &dir);
    let property = |key: &str| properties.get(key).map(String::as_str);
    let card = Card {
        mac: Mac::parse(&mac)?,
        driver: driver.and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned())),
        path: property("ID_PATH").map(str::to_owned),
        device: device.map(|d| d.display().to_string()),
        policy: policy_name(property),
        others: other_names(
            properties.iter().map(|(k, v)| (k.as_str(), v.as_str())),
            &name,
        ),
        link: text("carrier").as_deref() == Some("1"),
        name,
    };
    let index = text("ifindex").and_then(|t| t.parse().ok());
    Some((index.unwrap_or(u32::MAX), card))
}

/// `ip -j link` names the hardware's address where another one is in use, as in a bond.
pub fn permanent_macs(json: &str) -> BTreeMap<String, String> {
    let links: Vec<serde_json::Value> = serde_json::from_str(json).unwrap_or_default();
    links
        .iter()
        .filter_map(|l| {
            Some((
                l.get("ifname")?.as_str()?.to_owned(),
                l.get("permaddr")?.as_str()?.to_owned(),
            ))
        })
        .collect()
}

/// udev's `ID_PATH` and `ID_NET_NAME_*` of the interface in this directory of sysfs.
pub fn udev_properties(sys: &dyn System, dir: &Path) -> BTreeMap<String, String> {
    let query = Cmd::new("udevadm")
        .args(["info", "--query=property"])
        .arg(format!("--path={}", dir.display()));
    let answer = match sys.run(&query) {
        Ok(output) => output.text(),
        Err(error) => {
            tracing::debug!("nothing is known of {}: {error}", dir.display());
            return BTreeMap::new();
        }
    };
    answer
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name == "ID_PATH" || name.starts_with("ID_NET_NAME"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Switches the cards on, which shows whether something is at the other end of the cable, and waits for that once. Only for
/// the rescue system: elsewhere the network is not ours.
pub fn switch_on(sys: &dyn System) {
    static WAITED: Once = Once::new();
    let cards = look(sys);
    for card in cards.iter().filter(|card| !card.link) {
        // No address is asked for, and none is made up.
        let ipv6 = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", card.name);
        let _ = std::fs::write(ipv6, "1");
        if let Err(error) = up(&card.name) {
            tracing::info!("switching {} on: {error}", card.name);
        }
    }
    WAITED.call_once(|| {
        let start = Instant::now();
        while start.elapsed() < AGREE && look(sys).iter().any(|card| !card.link) {
            std::thread::sleep(Duration::from_millis(250));
        }
    });
}

/// Sets an interface up.
pub fn up(name: &str) -> std::io::Result<()> {
    // SAFETY: a new descriptor that nobody else owns; `ifreq` is plain data, zero is valid, and the last byte of the name
    // stays zero.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let mut request: libc::ifreq = std::mem::zeroed();
        if name.len() >= request.ifr_name.len() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use layout::system::Recorded;

    use super::*;

    const PCI: &str = "/sys/devices/pci0000:00/0000:00:03.0";

    #[test]
    fn cards_are_hardware_with_cables() {
        let net = |name: &str, file: &str| format!("{NET}/{name}/{file}");
        let udev = "udevadm info --query=property --path=/sys/class/net";
        let mut sys = Recorded::new()
            .command(
                "ip -j link",
                r#"[{"ifname":"lo"},{"ifname":"eth1","address":"02:00:00:00:00:01","permaddr":"bc:24:11:00:00:02"}]"#,
            )
            .command(
                &format!("{udev}/eth0"),
                "ID_PATH=pci-0000:00:03.0\nID_NET_NAME_PATH=enp0s3\nID_NET_NAME_SLOT=ens3\nID_VENDOR=x\n",
            )
            .command(&format!("{udev}/eth1"), "")
            .link(net("eth0", "device"), PCI)
            .link(format!("{PCI}/driver"), "/sys/bus/pci/drivers/e1000")
            .file(net("eth0", "carrier"), "1\n")
            .link(net("eth1", "device"), "/sys/devices/x")
            .link(net("vf", "device"), "/sys/devices/y")
            .link(net("vf", "device/physfn"), PCI)
            .link(net("wl", "device"), "/sys/devices/z")
            .link(net("wl", "phy80211"), "/sys/class/ieee80211/phy0");
        for (n, name) in ["lo", "vmbr0", "eth1", "eth0", "vf", "wl"]
            .iter()
            .enumerate()
        {
            sys = sys
                .file(net(name, "type"), "1\n")
                .file(net(name, "address"), format!("bc:24:11:00:00:{n:02x}\n"))
                .file(net(name, "ifindex"), format!("{}\n", 10 - n));
        }
        let found = look(&sys);
        let names: Vec<&str> = found.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["eth0", "eth1"]);
        assert_eq!(found[0].driver.as_deref(), Some("e1000"));
        assert_eq!(found[0].policy.as_deref(), Some("ens3"));
        assert!(found[0].link && !found[1].link);
        assert_eq!(found[1].mac.to_string(), "bc:24:11:00:00:02");
    }

    #[test]
    fn permanent_addresses_of_bonded_cards() {
        let json = r#"[{"ifname":"lo"},{"ifname":"enp3s0","address":"02:00:00:00:00:01","permaddr":"bc:24:11:00:00:01"}]"#;
        assert_eq!(
            permanent_macs(json),
            BTreeMap::from([("enp3s0".into(), "bc:24:11:00:00:01".into())])
        );
        assert!(permanent_macs("").is_empty());
    }
}
