//! Guests with disks that other nodes reach, on a node that was restored alone.
//!
//! Such a guest may run on another node by now, and two nodes that run it destroy its disks. So on an isolated node nothing
//! starts guests by itself: a drop-in of `pve-guests.service` starts nothing in its place. That unit refuses to be started by
//! hand, and stays active as before, so that it still stops guests in order when the node goes down. The drop-in also names
//! the guests, for `lifeboat guests restore`, which starts the others; removing it is all that lets them go.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use bundle::document::guest::GuestKind;
use serde_json::Value;

use super::printable;
use crate::inside::Inside;

/// What holds them back, and names them.
pub const HELD: &str = "/etc/systemd/system/pve-guests.service.d/lifeboat-isolated.conf";
/// The unit that starts guests with the node.
const UNIT: &str = "pve-guests.service";
const PACKAGED_UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
/// Plugins whose storages are of one node, unless they say `shared` (pve-storage, `plugindata` of each). All others are reached
/// by network; what is not known is taken for such a one.
const OF_ONE_NODE: [&str; 5] = ["dir", "btrfs", "lvm", "lvmthin", "zfspool"];
/// Line of the drop-in with the numbers. systemd does not read sections whose names begin with `X-`.
const SECTION: &str = "[X-Lifeboat]";
const KEY: &str = "Guests=";
const ALL: &str = "all";

/// A guest with disks that other nodes reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnShared {
    /// Its number.
    pub id: u32,
    /// `VM 100 (web)`.
    pub title: String,
    /// The storages; none where its disks are not known.
    pub storages: Vec<String>,
}

/// What must not be started by itself on an isolated node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// These guests; with none, nothing is held back.
    These(Vec<OnShared>),
    /// The restore point does not tell which guests there are: all.
    All,
}

impl Default for Hold {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl Hold {
    /// What the facts of a host tell. Templates are never started.
    pub fn of(facts: &Value) -> Self {
        let list = |key: &str| facts.get("proxmox")?.get(key)?.as_array();
        let (Some(guests), Some(storages)) = (list("guests"), list("storages")) else {
            return Self::All;
        };
        // A node has one storage at least: they were asked for while /etc/pve was not there.
        if guests.is_empty() && storages.is_empty() {
            return Self::All;
        }
        let mut found = Vec::new();
        for guest in guests {
            let id = guest.get("id").and_then(Value::as_u64);
            let Some(id) = id.and_then(|id| u32::try_from(id).ok()) else {
                return Self::All;
            };
            if guest.get("template").and_then(Value::as_bool) == Some(true) {
                continue;
            }
            let shared = guest
                .get("volumes")
                .and_then(Value::as_array)
                .map(|volumes| {
                    let named = volumes.iter().map(|v| text(v, "storage"));
                    let shared = named.filter(|name| is_shared(name, storages));
                    shared.map(printable).collect::<BTreeSet<String>>()
                });
            if shared.as_ref().is_some_and(BTreeSet::is_empty) {
                continue;
            }
            found.push(OnShared {
                id,
                title: title(guest, id),
                storages: shared.into_iter().flatten().collect(),
            });
        }
        Self::These(found)
    }

    /// There is nothing to hold back.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::These(guests) if guests.is_empty())
    }

    /// Guest by guest, at most so many lines.
    pub fn lines(&self, most: usize) -> Vec<String> {
        let Self::These(guests) = self else {
            return vec!["all: the restore point does not tell its guests".to_owned()];
        };
        let mut lines: Vec<String> = guests
            .iter()
            .take(most)
            .map(|g| match g.storages.as_slice() {
                [] => format!("{}: its disks are not known", g.title),
                storages => format!("{} on {}", g.title, storages.join(", ")),
            })
            .collect();
        if guests.len() > most {
            lines.push(format!("and {} more", guests.len() - most));
        }
        lines
    }

    /// Holds them back in a restored system; nothing is done where there is nothing to hold, or nothing that starts guests.
    /// Says whether it was done.
    pub fn leave_in(&self, inside: &Inside) -> Result<bool> {
        let mut units = PACKAGED_UNITS.iter().map(|dir| Path::new(dir).join(UNIT));
        // Where that cannot be seen, it may be there.
        let installed = units.any(|path| inside.kind(&path).map_or(true, |kind| kind.is_some()));
        if self.is_empty() || !installed {
            return Ok(false);
        }
        inside.put(Path::new(HELD), self.drop_in().as_bytes(), 0o644, 0o755)?;
        Ok(true)
    }

    fn drop_in(&self) -> String {
        let named: String = self
            .lines(usize::MAX)
            .iter()
            .map(|line| format!("#   {line}\n"))
            .collect();
        let numbers = match self {
            Self::All => ALL.to_owned(),
            Self::These(guests) => {
                let ids: Vec<String> = guests.iter().map(|g| g.id.to_string()).collect();
                ids.join(" ")
            }
        };
        let commands: String = lift().iter().map(|c| format!("#   {c}\n")).collect();
        format!(
            "# This node was restored alone. Other nodes reach the disks of these guests, and may run them:\n{named}\
             # So the node starts no guests by itself. When none of them runs elsewhere, let it start them again:\n{commands}\
             [Service]\n\
             ExecStart=\n\
             ExecStart=/bin/echo \"no guests are started on this isolated node, see {HELD}\"\n\n\
             {SECTION}\n{KEY}{numbers}\n"
        )
    }
}

/// The commands that let the node start its guests again.
pub fn lift() -> [String; 3] {
    [
        format!("rm {HELD}"),
        "systemctl daemon-reload".to_owned(),
        // What the unit does at boot, which cannot be started by hand.
        "pvesh create /nodes/localhost/startall".to_owned(),
    ]
}

/// The guests that a drop-in holds back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// `None`: all.
    ids: Option<BTreeSet<u32>>,
}

impl Held {
    /// Reads [`HELD`]. One that does not tell holds all of them.
    pub fn parse(text: &str) -> Self {
        let mut own = text.lines().map(str::trim).skip_while(|l| *l != SECTION);
        let numbers = own.find_map(|line| line.strip_prefix(KEY));
        let ids = numbers.and_then(|numbers| {
            let ids = numbers.split_ascii_whitespace().map(|id| id.parse().ok());
            ids.collect::<Option<BTreeSet<u32>>>()
        });
        Self {
            ids: ids.filter(|ids| !ids.is_empty()),
        }
    }

    /// Whether a guest must not be started.
    pub fn holds(&self, id: u32) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(&id))
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Whether other nodes reach a storage of `storage.cfg`. One that is not in it may be anywhere.
fn is_shared(name: &str, storages: &[Value]) -> bool {
    let find = |name: &str| storages.iter().find(|s| text(s, "id") == name);
    let shared = |storage: &Value| {
        let option = storage.get("options").and_then(|o| o.get("shared"));
        let option = option.and_then(Value::as_str);
        !OF_ONE_NODE.contains(&text(storage, "kind"))
            || option.is_some_and(|o| !matches!(o, "0" | "no" | "off" | "false"))
    };
    let Some(storage) = find(name) else {
        // The node has this one without an entry (Plugin.pm of pve-storage).
        return name != "local";
    };
    // A volume group on a volume of another storage: `base: san:0.0.1.scsi-...`.
    let base = storage.get("options").and_then(|o| o.get("base"));
    let base = base.and_then(Value::as_str).and_then(|b| b.split_once(':'));
    shared(storage) || base.is_some_and(|(base, _)| find(base).is_none_or(shared))
}

fn title(guest: &Value, id: u32) -> String {
    let kind = guest.get("kind").cloned().unwrap_or_default();
    let kind = serde_json::from_value::<GuestKind>(kind);
    let kind = kind.map_or_else(|_| "guest".to_owned(), |kind| kind.to_string());
    match text(guest, "name") {
        "" => format!("{kind} {id}"),
        name => format!("{kind} {id} ({})", printable(name)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    /// VM 100 has a disk on an NFS server, container 200 has none.
    pub fn facts() -> Value {
        json!({ "proxmox": {
            "name": "pve1",
            "cluster": { "name": "lab", "nodes": ["pve1", "pve2"] },
            "storages": [storage("local-lvm", "lvmthin", json!({})), storage("nas", "nfs", json!({}))],
            "guests": [
                guest(100, "qemu", &["local-lvm", "nas"]),
                guest(200, "lxc", &["local-lvm"]),
            ],
        } })
    }

    fn storage(id: &str, kind: &str, options: Value) -> Value {
        json!({ "id": id, "kind": kind, "content": ["images"], "options": options })
    }

    fn guest(id: u32, kind: &str, storages: &[&str]) -> Value {
        let volume = |storage: &&str| json!({ "key": "scsi0", "storage": storage, "name": "vm-disk", "size": null, "dumped": true });
        let volumes: Vec<Value> = storages.iter().map(volume).collect();
        json!({ "id": id, "kind": kind, "name": "web", "template": false, "onboot": true, "volumes": volumes })
    }

    fn held(storages: &[Value], guest: Value) -> bool {
        let facts = json!({ "proxmox": { "storages": storages, "guests": [guest] } });
        match Hold::of(&facts) {
            Hold::These(guests) => !guests.is_empty(),
            Hold::All => panic!("the guests are known"),
        }
    }

    #[test]
    fn guests_on_storages_that_other_nodes_reach() {
        let hold = Hold::of(&facts());
        let on = OnShared {
            id: 100,
            title: "VM 100 (web)".to_owned(),
            storages: vec!["nas".to_owned()],
        };
        assert_eq!(hold, Hold::These(vec![on]));
        assert_eq!(hold.lines(9), ["VM 100 (web) on nas"]);
        let one = |kind: &str, options: Value| {
            held(&[storage("s", kind, options)], guest(100, "qemu", &["s"]))
        };
        for kind in ["dir", "btrfs", "lvm", "lvmthin", "zfspool"] {
            assert!(!one(kind, json!({})), "{kind}");
            assert!(!one(kind, json!({ "shared": "0" })), "{kind}");
            assert!(one(kind, json!({ "shared": "1" })), "{kind}");
            // Switched on by its name alone.
            assert!(one(kind, json!({ "shared": "" })), "{kind}");
        }
        for kind in [
            "nfs",
            "cifs",
            "glusterfs",
            "cephfs",
            "rbd",
            "iscsi",
            "iscsidirect",
            "zfs",
            "a-plugin-of-somebody",
        ] {
            assert!(one(kind, json!({})), "{kind}");
        }
        // Not in storage.cfg; but this one is always there.
        let known = [storage("s", "dir", json!({}))];
        assert!(held(&known, guest(100, "qemu", &["gone"])));
        assert!(!held(&known, guest(100, "qemu", &["local"])));
        assert!(held(
            &[storage("local", "nfs", json!({}))],
            guest(100, "lxc", &["local"])
        ));
        // A volume group on a disk of another storage.
        let base = |kind: &str| {
            let lvm = storage("vg", "lvm", json!({ "base": "san:0.0.1.scsi-3" }));
            held(
                &[lvm, storage("san", kind, json!({}))],
                guest(100, "qemu", &["vg"]),
            )
        };
        assert!(base("iscsi") && !base("dir"));
        // A guest without disks, and a template, are not started on two nodes.
        assert!(!held(&known, guest(100, "qemu", &[])));
        let mut template = guest(100, "qemu", &["gone"]);
        template["template"] = json!(true);
        assert!(!held(&known, template));
    }

    #[test]
    fn what_the_facts_do_not_tell_is_held() {
        for facts in [
            json!(null),
            json!({ "proxmox": null }),
            json!({ "proxmox": { "storages": [], "guests": [] } }),
            json!({ "proxmox": { "storages": [], "guests": [{ "id": "x" }] } }),
        ] {
            assert_eq!(Hold::of(&facts), Hold::All, "{facts}");
        }
        let facts = json!({ "proxmox": { "storages": [], "guests": [{ "id": 100 }] } });
        assert_eq!(
            Hold::of(&facts).lines(9),
            ["guest 100: its disks are not known"]
        );
        assert!(!Hold::All.is_empty() && Hold::default().is_empty());
    }

    #[test]
    fn what_is_left_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        let inside = Inside::open(root.path()).unwrap();
        let hold = Hold::of(&facts());
        let path = root.path().join(&HELD[1..]);
        // Nothing there that starts guests.
        assert!(!hold.leave_in(&inside).unwrap());
        fs::create_dir_all(root.path().join("lib/systemd/system")).unwrap();
        fs::write(
            root.path().join("lib/systemd/system/pve-guests.service"),
            "",
        )
        .unwrap();
        assert!(!Hold::default().leave_in(&inside).unwrap());
        assert!(!path.exists());
        assert!(hold.leave_in(&inside).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        // systemd: an empty one takes away what the unit has.
        assert!(text.contains("\n[Service]\nExecStart=\nExecStart=/bin/echo "));
        assert!(text.contains("#   VM 100 (web) on nas\n"), "{text}");
        for command in lift() {
            assert!(text.contains(&command), "{text}");
        }
        let held = Held::parse(&text);
        assert!(held.holds(100) && !held.holds(200));
        assert!(Hold::All.leave_in(&inside).unwrap());
        let held = Held::parse(&fs::read_to_string(&path).unwrap());
        assert!(held.holds(100) && held.holds(200));
        // A name cannot add a line.
        let mut facts = facts();
        facts["proxmox"]["guests"][0]["name"] = json!("a\n[Service]\nExecStart=/bin/x");
        let Hold::These(guests) = Hold::of(&facts) else {
            panic!("known");
        };
        let text = Hold::These(guests).drop_in();
        assert!(!text.contains("\nExecStart=/bin/x"), "{text}");
    }

    #[test]
    fn one_that_does_not_tell_holds_all() {
        for text in [
            "",
            "Guests=100\n",
            "[X-Lifeboat]\n",
            "[X-Lifeboat]\nGuests=\n",
            "[X-Lifeboat]\nGuests=100 x\n",
        ] {
            assert!(Held::parse(text).holds(7), "{text}");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let guests = (100..200).map(|id| OnShared {
            id,
            title: format!("VM {id}"),
            storages: vec!["nas".to_owned()],
        });
        let lines = Hold::These(guests.collect()).lines(2);
        assert_eq!(lines, ["VM 100 on nas", "VM 101 on nas", "and 98 more"]);
    }
}
