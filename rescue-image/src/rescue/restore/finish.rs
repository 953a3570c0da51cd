//! What restored files need on this machine besides names of disks: network cards, and solitude.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bundle::document::Snapshot;
use layout::plan::Plan;

use super::parts::Parts;
use crate::guests::shared::{self, Hold};
use crate::inside::Inside;
use crate::rescue::cluster::{self, Cluster, Start};
use crate::rescue::events::{Announce, Line};
use crate::rescue::network::{self, Choice, Config, How, Network};

/// Files that are looked at before the plan is confirmed.
const LOOKED_AT: [&str; 2] = ["/etc/network", "/etc/corosync/corosync.conf"];
/// What was found and done, beside the other logs.
const NETWORK_LOG: &str = "network.txt";
const CLUSTER_LOG: &str = "cluster.txt";
/// Guests that are named on a screen; the restored machine names all of them.
pub(in crate::rescue) const SHOWN: usize = 12;

/// What a restore does to the files of the host, once they are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finish {
    /// The cards, and what they are called.
    pub network: Network,
    /// The cluster that the host is a member of.
    pub cluster: Option<Cluster>,
    /// How a member starts.
    pub start: Start,
    /// Guests that must not start by themselves on a member that starts alone.
    pub hold: Hold,
    /// Proxmox VE is installed.
    pub proxmox: bool,
    /// What could not be found out.
    pub warnings: Vec<String>,
}

impl Finish {
    /// Finds out. Only a choice that cannot be is an error: everything else can be put right after the restore.
    pub(super) fn prepare(
        parts: &dyn Parts,
        snapshot: &Snapshot,
        plan: &Plan,
        nics: &BTreeMap<String, Choice>,
        start: Start,
    ) -> Result<Self, String> {
        if !super::fills_root(plan) {
            return match nics.keys().next() {
                Some(name) => Err(format!(
                    "the files of the host are not restored, so that {name} cannot be another network card"
                )),
                None => Ok(Self::default()),
            };
        }
        let mut warnings = Vec::new();
        let facts = &snapshot.facts;
        let looked = look(parts, snapshot).and_then(|dir| Ok((Inside::open(dir.path())?, dir)));
        if let Err(error) = &looked {
            warnings.push(format!(
                "the network's configuration cannot be read before it is restored ({error:#}): which card the host is \
                 reached through is not known"
            ));
        }
        let inside = looked.as_ref().ok().map(|(inside, _)| inside);
        let config = inside.map(Config::read).unwrap_or_default();
        let cluster = Cluster::of(facts, inside);
        if config.draft {
            warnings.push(
                "/etc/network/interfaces.new is in the restore point: Proxmox VE puts it in the place of interfaces at the \
                 first start"
                    .to_owned(),
            );
        }
        let network = Network::new(network::cards(facts), parts.cards(), config, nics)?;
        Ok(Self {
            network,
            cluster,
            start,
            hold: Hold::of(facts),
            proxmox: facts.get("proxmox").is_some_and(|p| !p.is_null()),
            warnings,
        })
    }

    /// The guests of a member whose disks other nodes reach.
    pub fn on_shared(&self) -> Option<&Hold> {
        let asked = self.cluster.is_some() && self.proxmox && !self.hold.is_empty();
        asked.then_some(&self.hold)
    }

    /// Those that are held back, for the plan.
    pub fn render_held(&self) -> Option<String> {
        let hold = self.on_shared().filter(|_| self.start == Start::Isolated)?;
        let mut text =
            "Held back: alone, the node starts NO guests by itself, as other nodes reach\n\
                        disks of these, and may run them:\n"
                .to_owned();
        for line in hold.lines(SHOWN) {
            text.push_str(&format!("  {line}\n"));
        }
        Some(text)
    }

    /// Says what will be done, before anything is written: nobody may be there to be asked.
    pub(super) fn announce(&self, to: &dyn Announce) {
        for warning in &self.warnings {
            to.line(&Line::new("warning").with("text", warning));
        }
        let mapping = &self.network.mapping;
        for pair in &mapping.pairs {
            let card = pair.card.as_ref().map(|card| card.mac.to_string());
            to.line(
                &Line::new("network")
                    .with("name", &pair.saved.name)
                    .with("was", pair.saved.mac)
                    .with("is", card.as_deref().unwrap_or("-"))
                    .with("because", pair.how.words()),
            );
            if let (How::FirstWithLink, Some(card)) = (pair.how, &pair.card) {
                to.line(&Line::new("warning").with(
                    "text",
                    format!(
                        "the network card {} of the saved host is not in this machine, and the host is reached through it: \
                         the first free one with a link takes its place, {}",
                        pair.saved.name,
                        card.describe()
                    ),
                ));
            }
        }
        if let [first, ..] = mapping.unreachable()[..] {
            to.line(&Line::new("warning").with(
                "text",
                format!("the restored host will not be reachable: nothing takes the place of the network card {first}"),
            ));
        }
        if let Some(cluster) = &self.cluster {
            to.line(
                &Line::new("cluster")
                    .with("member", cluster.describe())
                    .with("start", self.start.word()),
            );
        }
        if let Some(text) = self.render_held() {
            let text = text.trim_end().replace("\n  ", " / ").replace('\n', " ");
            to.line(&Line::new("warning").with("text", text));
        }
    }

    /// Does it, in the files below `root`. Says whether the initramfs may have copies of what was changed, and what a person
    /// should know.
    pub(super) fn files(&self, root: &Path, log_dir: &Path) -> Result<(bool, Vec<String>)> {
        let inside = Inside::open(root)?;
        let mut notes = Vec::new();
        self.solitude(&inside, log_dir, &mut notes)?;
        let changed = self.names(&inside, log_dir, &mut notes);
        Ok((changed, notes))
    }

    /// A member that starts in its cluster against the operator's will is worse than none.
    fn solitude(&self, inside: &Inside, log_dir: &Path, notes: &mut Vec<String>) -> Result<()> {
        if self.start == Start::Member {
            if let Some(cluster) = &self.cluster {
                notes.push(format!(
                    "the node starts as a member of its {}, as it was told to",
                    cluster.describe()
                ));
            }
            return Ok(());
        }
        let scratch = cluster::scratch()?;
        let done = cluster::isolate(inside, scratch.path(), &self.hold)
            .context("the node cannot be kept out of its cluster")?;
        let Some(done) = done else {
            return Ok(());
        };
        notes.extend(done.notes.iter().cloned());
        if !done.held.is_empty() {
            notes.push(format!(
                "the node starts no guests by itself, as other nodes reach disks of these and may run them: {}; when none of \
                 them runs elsewhere: {}",
                done.held.lines(SHOWN).join("; "),
                shared::lift().join(" && ")
            ));
        }
        if done.aside.is_empty() && !done.in_database {
            return Ok(());
        }
        let what = self.cluster.as_ref().map(Cluster::describe);
        notes.push(format!(
            "the node was a member of a {}, and starts alone: how it rejoins is in {} of the restored machine",
            what.as_deref().unwrap_or("cluster"),
            cluster::README
        ));
        keep(log_dir, CLUSTER_LOG, &cluster::how_to_go_on(&done), notes);
        Ok(())
    }

    /// A host whose names are wrong is put right at its console: no reason to have no host at all.
    fn names(&self, inside: &Inside, log_dir: &Path, notes: &mut Vec<String>) -> bool {
        let mapping = &self.network.mapping;
        if mapping.pairs.is_empty() {
            return false;
        }
        let mut text = format!("{}\n", mapping.render());
        let changed = match network::write(inside, mapping, self.proxmox) {
            Ok(applied) => {
                for path in &applied.written {
                    notes.push(format!("{}: names a network card", path.display()));
                }
                notes.extend(applied.notes);
                !applied.written.is_empty()
            }
            Err(error) => {
                notes.push(format!(
                    "the network cards could not be given their saved names ({error:#}): see to it at the console of the \
                     restored machine"
                ));
                true
            }
        };
        for note in notes.iter() {
            text.push_str(&format!("{note}\n"));
        }
        keep(log_dir, NETWORK_LOG, &text, notes);
        changed
    }
}

fn keep(log_dir: &Path, name: &str, text: &str, notes: &mut Vec<String>) {
    let path = log_dir.join(name);
    if let Err(error) = fs::write(&path, text) {
        notes.push(format!("{} could not be written: {error}", path.display()));
    }
}

/// Files of the restore point, below the directory.
fn look(parts: &dyn Parts, snapshot: &Snapshot) -> Result<tempfile::TempDir> {
    let dir = cluster::scratch()?;
    parts.files(snapshot, &LOOKED_AT.map(PathBuf::from), dir.path())?;
    Ok(dir)
}
