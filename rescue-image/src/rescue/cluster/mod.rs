//! Members of a Proxmox VE cluster, which start alone after a restore unless told otherwise.
//!
//! A restored member is a node of the past. If it was removed from its cluster meanwhile, starting it on the cluster's network with
//! its old configuration can break the cluster (Proxmox's documentation forbids it), and its guests may run elsewhere. So its
//! keys and its configuration of corosync are set aside, and the copy in its database is removed: pmxcfs then works in local
//! mode, in which a node has quorum by itself (pmxcfs.c: "using local mode (corosync.conf does not exist)").

mod database;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::guests::shared::{self, Hold};
use crate::inside::{Inside, Kind};

/// corosync's configuration and key.
const COROSYNC: &str = "/etc/corosync";
const FILES: [&str; 2] = ["corosync.conf", "authkey"];
/// Where they are set aside.
const ASIDE: &str = "/etc/corosync/lifeboat-set-aside";
/// What is said about it there.
pub const README: &str = "/etc/corosync/lifeboat-set-aside/README";
/// Shown at every login.
const MOTD: &str = "/etc/motd.d/60-lifeboat-isolated";
/// The services of Proxmox VE's high availability. They do not need a cluster: all they ask for is quorum (`quorate` in
/// pve-ha-manager's Env/PVE2.pm), which a node in local mode has, and the manager takes the nodes it does not see for failed. So
/// they would start what other nodes run.
const HA: [&str; 2] = ["pve-ha-lrm.service", "pve-ha-crm.service"];
const UNITS: &str = "/etc/systemd/system";
const PACKAGED_UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// How a restored member of a cluster starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// Alone.
    #[default]
    Isolated,
    /// As the member it was.
    Member,
}

impl Start {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Member => "member",
        }
    }
}

/// The cluster of a host, as its restore point tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its name, where that is known.
    pub name: Option<String>,
    /// Other nodes, where they are known.
    pub others: Vec<String>,
}

impl Cluster {
    /// The cluster that the facts tell of, or the files: whichever says so.
    pub fn of(facts: &Value, files: Option<&Inside>) -> Option<Self> {
        let node = facts.get("proxmox");
        let told = node.and_then(|n| n.get("cluster")).filter(|c| !c.is_null());
        let configured = || {
            let path = Path::new(COROSYNC).join(FILES[0]);
            files.is_some_and(|files| files.kind(&path).is_ok_and(|kind| kind.is_some()))
        };
        if told.is_none() && !configured() {
            return None;
        }
        let text = |value: Option<&Value>| {
            let text = value.and_then(Value::as_str).filter(|t| !t.is_empty());
            text.map(str::to_owned)
        };
        let own = text(node.and_then(|n| n.get("name")));
        let nodes = told.and_then(|c| c.get("nodes")).and_then(Value::as_array);
        let nodes = nodes.into_iter().flatten();
        Some(Self {
            name: text(told.and_then(|c| c.get("name"))),
            others: nodes
                .filter_map(|n| text(Some(n)))
                .filter(|n| Some(n) != own.as_ref())
                .collect(),
        })
    }

    /// For people: `cluster lab (with pve2, pve3)`.
    pub fn describe(&self) -> String {
        let name = self
            .name
            .as_ref()
            .map_or(String::new(), |n| format!(" {n}"));
        match self.others.is_empty() {
            true => format!("cluster{name}"),
            false => format!("cluster{name} (with {})", self.others.join(", ")),
        }
    }
}

/// What was done to a member so that it starts alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Isolated {
    /// Files that were set aside.
    pub aside: Vec<String>,
    /// The database had the configuration of a cluster.
    pub in_database: bool,
    /// Services of the high availability that are switched off.
    pub masked: Vec<String>,
    /// Guests that it does not start by itself, with all others, until somebody says so.
    pub held: Hold,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Makes a restored member start alone; `None`: it is no member, and nothing was changed. `scratch` takes a copy of the
/// database meanwhile. It can be repeated. `hold`: the guests whose disks other nodes reach.
pub fn isolate(inside: &Inside, scratch: &Path, hold: &Hold) -> Result<Option<Isolated>> {
    let mut done = Isolated::default();
    // With the key gone corosync does not start, whatever becomes of the rest.
    for name in FILES.iter().rev() {
        let path = Path::new(COROSYNC).join(name);
        if inside.kind(&path)?.is_none() {
            continue;
        }
        inside.make_dir(Path::new(ASIDE))?;
        inside.rename(&path, &Path::new(ASIDE).join(name))?;
        done.aside.push((*name).to_owned());
    }
    let mut ha = false;
    match database::isolate(inside, scratch) {
        Ok(found) => {
            done.in_database = found.cluster;
            ha = found.ha;
        }
        // The key is gone, so that it stays alone, but without quorum.
        Err(error) => done.notes.push(format!(
            "the node's database is as it was saved, and may still have the configuration of a cluster: {error:#}"
        )),
    }
    let was_aside = inside.kind(&Path::new(ASIDE).join(FILES[0]))?.is_some();
    if done.aside.is_empty() && !done.in_database && !was_aside {
        return match done.notes.is_empty() {
            true => Ok(None),
            false => Ok(Some(done)),
        };
    }
    if ha {
        for unit in HA {
            match mask(inside, unit) {
                Ok(true) => done.masked.push(unit.to_owned()),
                Ok(false) => {}
                Err(error) => done.notes.push(format!(
                    "{unit} could not be switched off ({error:#}): guests with high availability may start by themselves"
                )),
            }
        }
    }
    // Without it disks may be destroyed: no success.
    if hold
        .leave_in(inside)
        .context("guests whose disks other nodes reach cannot be held back")?
    {
        done.held = hold.clone();
    }
    inside.make_dir(Path::new(ASIDE))?;
    inside.write(Path::new(README), how_to_go_on(&done).as_bytes())?;
    // Only a help: a host without it starts all the same.
    let motd = inside
        .make_dir(Path::new("/etc/motd.d"))
        .and_then(|()| inside.write(Path::new(MOTD), motd(&done.held).as_bytes()));
    if let Err(error) = motd {
        done.notes
            .push(format!("no message at the login: {error:#}"));
    }
    Ok(Some(done))
}

/// Switches a unit off, where it is installed. Says whether it was on.
fn mask(inside: &Inside, unit: &str) -> Result<bool> {
    let mut packaged = PACKAGED_UNITS.iter().map(|dir| Path::new(dir).join(unit));
    if !packaged.any(|path| inside.kind(&path).is_ok_and(|k| k.is_some())) {
        return Ok(false);
    }
    let path = Path::new(UNITS).join(unit);
    match inside.kind(&path)? {
        None => {
            inside.link(Path::new("/dev/null"), &path)?;
            Ok(true)
        }
        // To /dev/null already, or an alias that is none of ours.
        Some(Kind::Link) => Ok(false),
        Some(_) => bail!("{} is a unit of the host's own", path.display()),
    }
}

fn motd(held: &Hold) -> String {
    let held = match held.is_empty() {
        true => "",
        false => {
            "It starts NO guests by itself: other nodes reach the disks of some, and may run them.\n"
        }
    };
    format!(
        "\nThis node was restored and is ISOLATED: it is not a member of its cluster.\n{held}\
         How to rejoin, or to stay alone: {README}\n\n"
    )
}

/// What the operator is told, on the screen and in the restored system.
pub fn how_to_go_on(done: &Isolated) -> String {
    let mut text = format!(
        "\
This node was a member of a Proxmox VE cluster. It was restored ISOLATED: it works
alone, and does not talk to the other nodes.

Set aside: {aside}, in {ASIDE}
Removed from the database of /etc/pve: {row}

Before anything else: do its guests run on another node, or are their disks on a
storage that other nodes use? Then do not start them here.

To be a member again AS THE SAME NODE, if it was not removed from the cluster
(`pvecm nodes` on another node still lists it), on the cluster's network:

    systemctl stop pve-cluster corosync
    mv /var/lib/pve-cluster/config.db /root/config.db.isolated
    cd {ASIDE} && mv corosync.conf authkey /etc/corosync/
    systemctl start corosync pve-cluster
    pvecm status

The node then takes /etc/pve from the cluster. What was changed while it was alone
is lost; it is in /root/config.db.isolated.

If it was removed from the cluster (`pvecm delnode`), never put these files back:
it joins like a new node, with `pvecm add`, and must not have guests then.

If ALL nodes of the cluster are lost, restore one of them again \"as a member\".

To STAY ALONE nothing has to be done for the cluster: without corosync.conf the node
has quorum by itself. Remove {ASIDE}, and the directories of
the other nodes in /etc/pve/nodes. Do not let it meet the old cluster's shared
storage.

When all is decided: rm {MOTD}
",
        aside = match done.aside.as_slice() {
            [] => "nothing".to_owned(),
            files => files.join(", "),
        },
        row = match done.in_database {
            true => "corosync.conf",
            false => "nothing",
        },
    );
    if !done.held.is_empty() {
        let named: String = done
            .held
            .lines(usize::MAX)
            .iter()
            .map(|line| format!("    {line}\n"))
            .collect();
        let commands: String = shared::lift().map(|c| format!("    {c}\n")).concat();
        text.push_str(&format!(
            "\nGUESTS ARE HELD BACK: this node starts none by itself, at any boot. Disks of these\n\
             are on a storage that other nodes reach, and two nodes that run one destroy them:\n\n{named}\n\
             A first boot that brings guests back starts the others, once; after that, start\n\
             them by hand (`qm start ID`, `pct start ID`). When the node is a member again, or it\n\
             is certain that none of these runs elsewhere, let it start them as before:\n\n{commands}"
        ));
    }
    if !done.masked.is_empty() {
        let units = done.masked.join(" ");
        text.push_str(&format!(
            "\nHigh availability is switched off, or this node would start what other nodes run.\n\
             When the node is a member again, or stays alone for good:\n\n    systemctl unmask {units}\n    systemctl start {units}\n"
        ));
    }
    text
}

/// Where the database is copied to meanwhile: it holds passwords and keys, so it must not be on a disk.
pub fn scratch() -> Result<tempfile::TempDir> {
    let prefix = "lifeboat-node-";
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix);
        builder
    };
    builder()
        .tempdir_in("/run")
        .or_else(|_| builder().tempdir())
        .context("making a directory for the copy of config.db")
}

#[cfg(test)]
mod tests;
