//! A Proxmox VE node: what it is a part of, its storages, its guests, and the database that all of that is in.

pub mod database;
pub mod guests;
mod saved;
pub mod storages;

use std::path::Path;

use bundle::document::guest::GuestRef;
use layout::system::{Cmd, System};
use serde::Serialize;

use crate::facts::ask;

pub use guests::Guest;
pub use saved::Saved;
pub use storages::Storage;

/// Where pmxcfs shows its database as files.
pub const TREE: &str = "/etc/pve";

/// A Proxmox VE node. What could not be found out is left empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// `pveversion`, for example `pve-manager/8.4.1/2a5fa54a8503f96d (running kernel: 6.8.12-10-pve)`.
    pub version: String,
    /// The node's name: the host's up to the first dot, as pmxcfs takes it.
    pub name: String,
    /// The cluster, if it belongs to one.
    pub cluster: Option<Cluster>,
    /// Status of the subscription, as `pvesubscription get` says it: `active`, `notfound`.
    pub subscription: Option<String>,
    /// Storages of `storage.cfg`.
    pub storages: Vec<Storage>,
    /// Guests of this node, by number.
    pub guests: Vec<Guest>,
}

/// What `corosync.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// Name.
    pub name: String,
    /// Names of its nodes, this one among them.
    pub nodes: Vec<String>,
}

impl Node {
    /// Names the guests of which no dump is known, where there are some.
    pub fn left_out(&self, dumps: &[GuestRef]) -> Option<String> {
        let dumped = |g: &&Guest| !dumps.iter().any(|d| (d.kind, d.id) == (g.kind, g.id));
        let without = self.guests.iter().filter(dumped);
        let ids: Vec<String> = without.map(|g| g.id.to_string()).collect();
        (!ids.is_empty()).then(|| {
            format!(
                "of these guests no target holds a dump, neither their disks nor their files are saved: {}",
                ids.join(", ")
            )
        })
    }
}

/// The node's name, as pmxcfs takes it from the host's.
pub fn node_name(hostname: &str) -> String {
    hostname.split('.').next().unwrap_or_default().to_owned()
}

/// Whether Proxmox VE is installed.
pub fn is_node(sys: &dyn System) -> bool {
    sys.exists(Path::new("/usr/bin/pveversion"))
}

/// Asks a node; `None`: it is none.
pub fn collect(sys: &dyn System, hostname: &str) -> Option<Node> {
    if !is_node(sys) {
        return None;
    }
    let name = node_name(hostname);
    let text = |path: &str| sys.text(Path::new(path));
    Some(Node {
        version: ask(sys, &Cmd::new("/usr/bin/pveversion"))
            .map(|text| text.trim().to_owned())
            .unwrap_or_default(),
        cluster: text("/etc/pve/corosync.conf").map(|t| cluster(&t)),
        subscription: ask(sys, &Cmd::new("pvesubscription").arg("get"))
            .and_then(|text| value(&text, "status")),
        storages: text("/etc/pve/storage.cfg")
            .map(|t| storages::parse(&t))
            .unwrap_or_default(),
        guests: guests::collect(sys, &name),
        name,
    })
}

/// The value of a line `key: value`.
fn value(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// corosync.conf(5): blocks in braces, `key: value` in them. A node without a name is known by its address only.
fn cluster(text: &str) -> Cluster {
    let mut cluster = Cluster::default();
    let mut blocks: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('#') {
            continue;
        }
        if let Some(block) = line.strip_suffix('{') {
            blocks.push(block.trim());
        } else if line == "}" {
            blocks.pop();
        } else if let Some((key, value)) = line.split_once(':') {
            match (blocks.as_slice(), key.trim()) {
                (["totem"], "cluster_name") => value.trim().clone_into(&mut cluster.name),
                (["nodelist", "node"], "name") => cluster.nodes.push(value.trim().to_owned()),
                _ => {}
            }
        }
    }
    cluster
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_and_its_nodes() {
        let text = "logging {\n  debug: off\n}\n\nnodelist {\n  node {\n    name: pve1\n    nodeid: 1\n    ring0_addr: 192.0.2.1\n  }\n  \
                    node {\n    name: pve2\n    nodeid: 2\n  }\n}\n\ntotem {\n  cluster_name: lab\n  config_version: 2\n  \
                    interface {\n    linknumber: 0\n  }\n}\n";
        let found = cluster(text);
        assert_eq!(found.name, "lab");
        assert_eq!(found.nodes, ["pve1", "pve2"]);
    }

    #[test]
    fn a_host_without_proxmox_is_no_node() {
        assert_eq!(collect(&layout::system::Recorded::new(), "pve1"), None);
    }

    #[test]
    fn guests_that_are_not_saved_are_named() {
        let mut node = Node::default();
        assert_eq!(node.left_out(&[]), None);
        for id in [100, 101] {
            node.guests.push(guests::parse(id, guests::Kind::Qemu, ""));
        }
        let dump = GuestRef {
            id: 101,
            kind: guests::Kind::Qemu,
            name: None,
            snapshot: bundle::Id::of(b"101"),
            dumped: String::new(),
            stores: Vec::new(),
        };
        let note = node.left_out(&[dump]).unwrap();
        assert!(note.ends_with(": 100"), "{note}");
    }

    #[test]
    fn values_of_lines() {
        assert_eq!(
            value("level: c\nstatus: active\n", "status").as_deref(),
            Some("active")
        );
        assert_eq!(value("", "status"), None);
    }

    #[test]
    fn a_restore_knows_from_the_facts_which_disks_other_nodes_reach() {
        use rescue_image::guests::shared::Hold;
        let node = Node {
            storages: storages::parse(
                "dir: local\n\tpath /var/lib/vz\n\ndir: mounted\n\tpath /mnt/x\n\tshared 1\n\nrbd: ceph\n\tpool vms\n",
            ),
            guests: [
                (100, "local"),
                (101, "mounted"),
                (102, "ceph"),
                (103, "gone"),
            ]
            .iter()
            .map(|(id, storage)| {
                let conf = format!("name: web\nscsi0: {storage}:{id}/disk,size=1G\n");
                guests::parse(*id, guests::Kind::Qemu, &conf)
            })
            .collect(),
            ..Node::default()
        };
        let facts = serde_json::json!({ "proxmox": node });
        assert_eq!(
            Hold::of(&facts).lines(9),
            [
                "VM 101 (web) on mounted",
                "VM 102 (web) on ceph",
                "VM 103 (web) on gone"
            ]
        );
    }
}
