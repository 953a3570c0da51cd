//! What a snapshot says about the host besides layout and files: for people who rebuild it, and for the restore, which
//! has to bring network names to other hardware.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use bundle::document::HostIdentity;
use layout::system::{Cmd, System};
use rescue_image::rescue::network::here;
use serde::Serialize;

use crate::consistency::TreeState;
use crate::proxmox;

/// Facts about the host. What could not be found out is left empty: no fact is worth a failed backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Name.
    pub hostname: String,
    /// `/etc/machine-id`: changes with a fresh installation.
    pub machine_id: String,
    /// `/etc/os-release`.
    pub os_release: BTreeMap<String, String>,
    /// `uname -r`.
    pub kernel: String,
    /// The kernel's command line.
    pub kernel_command_line: String,
    /// Installed Debian packages.
    pub packages: Vec<Package>,
    /// Packages that were asked for, not drawn in by others.
    pub manual_packages: Vec<String>,
    /// Network interfaces.
    pub network: Vec<Interface>,
    /// This program: a restored host has its guests brought back by it.
    pub program: Option<PathBuf>,
    /// Proxmox VE, if this is such a host.
    pub proxmox: Option<proxmox::Node>,
    /// How the files of each tree were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consistency: Vec<TreeState>,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Name, with the architecture where it is a foreign one.
    pub name: String,
    /// Version.
    pub version: String,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Name: `enp3s0`, `vmbr0`.
    pub name: String,
    /// MAC address in use.
    pub mac: String,
    /// MAC address of the hardware, where that is another one (in a bond).
    pub permanent_mac: Option<String>,
    /// Driver; only hardware has one.
    pub driver: Option<String>,
    /// Device below `/sys/devices`; only hardware has one.
    pub device: Option<PathBuf>,
    /// udev's `ID_PATH` and `ID_NET_NAME_*`.
    pub udev: BTreeMap<String, String>,
    /// A virtual function (SR-IOV) of another card: made by the host's configuration, no hardware to look for elsewhere.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub virtual_function: bool,
}

/// Who this host is.
pub fn identity(sys: &dyn System) -> HostIdentity {
    let text = |path: &str| sys.text(Path::new(path)).unwrap_or_default();
    HostIdentity {
        machine_id: text("/etc/machine-id"),
        hostname: text("/proc/sys/kernel/hostname"),
    }
}

/// Asks the host.
pub fn collect(sys: &dyn System) -> Facts {
    let text = |path: &str| sys.text(Path::new(path)).unwrap_or_default();
    let HostIdentity {
        machine_id,
        hostname,
    } = identity(sys);
    let (packages, manual_packages) = packages(sys);
    Facts {
        proxmox: proxmox::collect(sys, &hostname),
        program: std::env::current_exe().ok().filter(|path| path.exists()),
        hostname,
        machine_id,
        os_release: os_release(&text("/etc/os-release")),
        kernel: text("/proc/sys/kernel/osrelease"),
        kernel_command_line: text("/proc/cmdline"),
        packages,
        manual_packages,
        network: network(sys),
        consistency: Vec::new(),
    }
}

/// Output of a command that may be missing or fail: then nothing.
pub fn ask(sys: &dyn System, command: &Cmd) -> Option<String> {
    match sys.run(command) {
        Ok(output) => Some(output.text()),
        Err(error) => {
            tracing::debug!("a fact is left out: {error}");
            None
        }
    }
}

/// os-release(5): shell assignments, of which only plain quoting occurs.
fn os_release(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.trim().split_once('='))
        .filter(|(name, _)| !name.starts_with('#'))
        .map(|(name, value)| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .collect()
}

/// The installed packages, and the names of those that nothing drew in.
fn packages(sys: &dyn System) -> (Vec<Package>, Vec<String>) {
    let query = Cmd::new("dpkg-query").args([
        "-W",
        "-f=${db:Status-Status}\t${binary:Package}\t${Version}\t${Package}\t${Architecture}\n",
    ]);
    let listed = ask(sys, &query).unwrap_or_default();
    // What apt-mark(8) reads; itself it takes most of a second to answer where apt keeps no cache.
    let states = sys
        .text(Path::new("/var/lib/apt/extended_states"))
        .unwrap_or_default();
    installed(&listed, &drawn_in(&states))
}

fn installed(listed: &str, drawn_in: &HashSet<(&str, &str)>) -> (Vec<Package>, Vec<String>) {
    let (mut all, mut manual) = (Vec::new(), Vec::new());
    for line in listed.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        // Packages that were removed and left their configuration are listed, too.
        let ["installed", name, version, package, architecture] = fields[..] else {
            continue;
        };
        // apt notes packages for all architectures under its own one.
        let automatic = if architecture == "all" {
            drawn_in.iter().any(|(p, _)| *p == package)
        } else {
            drawn_in.contains(&(package, architecture))
        };
        if !automatic {
            manual.push(name.to_owned());
        }
        all.push(Package {
            name: name.to_owned(),
            version: version.to_owned(),
        });
    }
    (all, manual)
}

/// Package and architecture of what apt installed because other packages want it: paragraphs of `Package`,
/// `Architecture` and `Auto-Installed: 1` (apt's `debDepCache` writes the file).
fn drawn_in(states: &str) -> HashSet<(&str, &str)> {
    fn field<'p>(paragraph: &'p str, name: &str) -> Option<&'p str> {
        let value = |line: &'p str| line.strip_prefix(name)?.strip_prefix(':');
        paragraph.lines().find_map(value).map(str::trim)
    }
    states
        .split("\n\n")
        .filter(|p| field(p, "Auto-Installed") == Some("1"))
        .filter_map(|p| Some((field(p, "Package")?, field(p, "Architecture")?)))
        .collect()
}

/// The network interfaces, except the loopback.
pub fn network(sys: &dyn System) -> Vec<Interface> {
    let permanent =
        here::permanent_macs(&ask(sys, &Cmd::new("ip").args(["-j", "link"])).unwrap_or_default());
    let root = Path::new("/sys/class/net");
    let names = sys.list_dir(root).unwrap_or_default();
    names
        .into_iter()
        .filter(|name| name != "lo")
        // A file there is no interface: the bonding module has `bonding_masters`.
        .filter(|name| sys.exists(&root.join(name).join("ifindex")))
        .map(|name| {
            let dir = root.join(&name);
            let device = sys
                .exists(&dir.join("device"))
                .then(|| sys.canonicalize(&dir.join("device")).ok())
                .flatten();
            let driver = device
                .as_ref()
                .and_then(|d| sys.canonicalize(&d.join("driver")).ok());
            let udev = if device.is_some() {
                here::udev_properties(sys, &dir)
            } else {
                BTreeMap::new()
            };
            Interface {
                mac: sys.text(&dir.join("address")).unwrap_or_default(),
                permanent_mac: permanent.get(&name).cloned(),
                virtual_function: sys.exists(&dir.join("device/physfn")),
                driver: driver.and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned())),
                device,
                udev,
                name,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_unquoted() {
        let map =
            os_release("# comment\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\nID=debian\n\n");
        assert_eq!(map["NAME"], "Debian GNU/Linux");
        assert_eq!(map["VERSION_ID"], "12");
        assert_eq!(map["ID"], "debian");
        assert_eq!(map.len(), 3);
    }

    #[test]
    fn packages_that_were_asked_for() {
        let states = "Package: libc6\nArchitecture: amd64\nAuto-Installed: 1\n\n\
            Package: tzdata\nArchitecture: amd64\nAuto-Installed: 1\n\n\
            Package: vim\nArchitecture: amd64\nAuto-Installed: 0\n";
        let listed = "installed\tlibc6:amd64\t2.36\tlibc6\tamd64\n\
            installed\tlibc6:i386\t2.36\tlibc6\ti386\n\
            installed\ttzdata\t2024a\ttzdata\tall\n\
            config-files\tnano\t7\tnano\tamd64\n\
            installed\tvim\t9\tvim\tamd64\n";
        let (all, manual) = installed(listed, &drawn_in(states));
        let names: Vec<&str> = all.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["libc6:amd64", "libc6:i386", "tzdata", "vim"]);
        assert_eq!(manual, ["libc6:i386", "vim"]);
    }

    /// This very machine answers, whatever it is: a fact that cannot be had is no error.
    #[test]
    fn live_host_answers() {
        let facts = collect(&layout::system::Host);
        assert!(!facts.hostname.is_empty());
        assert!(!facts.kernel.is_empty());
        assert!(!facts.network.iter().any(|i| i.name == "lo"));
    }
}
