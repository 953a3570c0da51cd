//! Removing restore points that a policy does not keep, and what only they needed.
//!
//! [`policy`] decides, `mark` finds what the others need, [`Prune::new`] puts both into a [`Plan`] that can be shown,
//! and [`Prune::apply`] does exactly that, in an order in which it may be cut short anywhere.

mod apply;
mod mark;
pub mod policy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

pub use apply::Done;
use mark::{Fate, Marks};
pub use policy::{Policy, Reason};

use crate::document::guest::{GuestKind, KIND};
use crate::document::{GuestName, HostIdentity, Snapshot};
use crate::events::Events;
use crate::store::{DamagedDocument, Store};
use crate::verify::{Verdict, verdicts};
use crate::{Error, Id, Result, parity, time};

/// Whose restore points the policy is applied to. All others stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Those of this host: of the same machine id and the same name. After a fresh installation the machine id is
    /// another one, and what the old one wrote is not touched.
    This(HostIdentity),
    /// Those of hosts of this name, or of the one whose machine id begins like this.
    Named(String),
}

/// What is to be done.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// What stays.
    pub policy: Policy,
    /// What stays of the dumps of each guest.
    pub guests: Policy,
    /// Of whom.
    pub whose: Whose,
}

/// A restore point, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The snapshot.
    pub id: Id,
    /// When its backup began, RFC 3339 in UTC.
    pub time: String,
    /// The machine.
    pub host: HostIdentity,
    /// What it holds.
    pub kind: String,
    /// Of which guest it is the dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestName>,
    /// What its last verification said; nothing where there was none.
    pub verified: Option<bool>,
    /// It is not removed.
    pub stays: bool,
    /// Why it stays; empty when it goes.
    pub why: Vec<Reason>,
    #[serde(skip)]
    file: PathBuf,
}

impl Row {
    /// The time for people: `2026-11-20 20:31:36 UTC`.
    pub fn shown_time(&self) -> String {
        time::shown(&self.time)
    }
}

/// What a prune removes, and why not more.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Plan {
    /// Every restore point of the store, oldest first.
    pub restore_points: Vec<Row>,
    /// Why nothing at all can be removed: a file that has to be read for knowing what is needed.
    pub blocked: Option<DamagedDocument>,
    /// The clock of this machine is before the newest restore point: which one is the newest is in doubt.
    pub clock_behind: bool,
    /// Packs that nobody needs.
    pub dead_packs: u64,
    /// Packs of whose blobs less than half, by size, is needed; that is copied into new ones.
    pub mostly_dead_packs: u64,
    /// Bytes to be copied.
    pub copied: u64,
    /// Bytes that will be free when all of it could be done.
    pub freed: u64,
    /// What else should be known.
    pub notes: Vec<String>,
}

impl Plan {
    /// How many restore points go.
    pub fn going(&self) -> usize {
        self.restore_points.iter().filter(|r| !r.stays).count()
    }

    /// There is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.going() == 0 && self.dead_packs == 0 && self.mostly_dead_packs == 0
    }
}

/// A prune of one store: planned, not yet done. Holds the store, and so its lock, so that the plan stays true.
#[derive(Debug)]
pub struct Prune {
    store: Store,
    marks: Marks,
    plan: Plan,
}

impl Prune {
    /// Plans. A store that was opened for reading only can be planned for and not pruned.
    pub fn new(store: Store, options: &PruneOptions, events: &dyn Events) -> Result<Prune> {
        Prune::at(store, options, &time::rfc3339(time::now()), events)
    }

    fn at(store: Store, options: &PruneOptions, now: &str, events: &dyn Events) -> Result<Prune> {
        let mut plan = Plan::default();
        let mut documents = Vec::new();
        for (file, document) in store.documents()? {
            match document {
                Ok((id, snapshot)) => documents.push((file, id, snapshot)),
                Err(error) => {
                    plan.blocked.get_or_insert(DamagedDocument {
                        file,
                        reason: error.to_string(),
                    });
                }
            }
        }
        // One that is gone, but not removed on purpose, may come back from another target: what it needs has to stay.
        if let Some(file) = parity::lost_documents(store.root())?.into_iter().next() {
            let reason = "the restore point is missing, only its parity is there: heal it from another target, or \
                          remove the file of the same name with .par"
                .to_string();
            plan.blocked.get_or_insert(DamagedDocument { file, reason });
        }
        documents.sort_by(|a, b| (&a.2.time, a.1).cmp(&(&b.2.time, b.1)));
        plan.restore_points = rows(&store, &documents, options)?;
        let own = plan.restore_points.iter().filter(|r| in_question(r));
        plan.clock_behind = own.map(|r| r.time.as_str()).max().is_some_and(|t| t > now);
        if plan.clock_behind {
            plan.notes.push(
                "the clock of this machine is before the newest restore point: set it right, or the wrong ones count \
                 as the newest"
                    .to_string(),
            );
        }
        let stay: Vec<(Id, &Snapshot)> = documents
            .iter()
            .zip(&plan.restore_points)
            .filter(|(_, row)| row.stays)
            .map(|((_, id, snapshot), _)| (*id, snapshot))
            .collect();
        let newest = documents.last().map(|(_, _, s)| s.time.as_str());
        let mut marks = Marks::default();
        if plan.blocked.is_none() && !stay.is_empty() {
            marks = mark::mark(&store, &stay, newest, events)?;
            plan.blocked = marks.blocked.take();
        }
        count(&store, &marks, &mut plan);
        Ok(Prune { store, marks, plan })
    }

    /// What will be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Gives the store back, untouched.
    pub fn into_store(self) -> Store {
        self.store
    }
}

fn in_question(row: &Row) -> bool {
    !row.why
        .iter()
        .any(|r| matches!(r, Reason::NotInQuestion(_)))
}

/// Fills in what the marks say of packs.
fn count(store: &Store, marks: &Marks, plan: &mut Plan) {
    let packs = store.packs().iter().zip(&marks.fates);
    for ((pack, fate), alive) in packs.zip(&marks.alive_bytes) {
        match fate {
            Fate::Stays => {}
            Fate::Dead => {
                plan.dead_packs += 1;
                plan.freed += pack.size;
            }
            Fate::MostlyDead => {
                plan.mostly_dead_packs += 1;
                plan.copied += alive;
                plan.freed += pack.size.saturating_sub(*alive);
            }
        }
    }
    let mut note = |count: u64, text: &str| {
        if count > 0 {
            plan.notes.push(format!("{count} {text}"));
        }
    };
    note(
        marks.unfinished,
        "packs are of a backup that was cut short; the next one reuses them, so they stay",
    );
    note(
        marks.lost,
        "blobs that restore points need are in no pack: `lifeboat verify` names the files",
    );
    let unreadable = store.problems().iter();
    let unreadable = unreadable.filter(|p| p.file.extension().is_some_and(|e| e == "pack"));
    note(
        unreadable.count() as u64,
        "packs cannot be read and stay: `lifeboat verify` names them",
    );
}

/// The restore points that one policy is applied to: of one host, and of the same things. Otherwise a small backup of
/// one directory in the evening would replace the one of the whole machine in the morning.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Sequence {
    machine_id: String,
    hostname: String,
    kind: String,
    /// Of a host, file systems come and go; of directories, they are what was asked for.
    trees: Vec<String>,
    /// A number that was given to another guest, of the other kind, is another one's.
    guest: Option<(GuestKind, u32)>,
}

impl Sequence {
    fn of(snapshot: &Snapshot) -> Sequence {
        let trees = snapshot.trees.iter().map(|t| t.mount_point.clone());
        Sequence {
            machine_id: snapshot.host.machine_id.clone(),
            hostname: snapshot.host.hostname.clone(),
            kind: snapshot.kind.clone(),
            trees: match snapshot.kind.as_str() {
                "host" | KIND => Vec::new(),
                _ => trees.collect(),
            },
            guest: snapshot.guest.as_ref().map(|g| (g.kind, g.id)),
        }
    }
}

fn rows(
    store: &Store,
    documents: &[(PathBuf, Id, Snapshot)],
    options: &PruneOptions,
) -> Result<Vec<Row>> {
    let verdicts = verdicts(store)?;
    let hosts = documents.iter().map(|(_, _, s)| &s.host);
    let chosen = Chosen::new(&options.whose, hosts, store)?;
    let mut rows: Vec<Row> = Vec::new();
    let mut sequences: BTreeMap<Sequence, Vec<usize>> = BTreeMap::new();
    for (at, (file, id, snapshot)) in documents.iter().enumerate() {
        let why = match chosen.why_not(&snapshot.host) {
            Some(why) => vec![Reason::NotInQuestion(why)],
            None => {
                let sequence = sequences.entry(Sequence::of(snapshot)).or_default();
                sequence.push(at);
                Vec::new()
            }
        };
        rows.push(Row {
            id: *id,
            time: snapshot.time.clone(),
            host: snapshot.host.clone(),
            kind: snapshot.kind.clone(),
            guest: snapshot.guest.as_ref().map(GuestName::of),
            verified: verdicts.get(id).and_then(Verdict::proof),
            stays: true,
            why,
            file: file.clone(),
        });
    }
    for (of, sequence) in &sequences {
        let policy = match of.guest {
            Some(_) => &options.guests,
            None => &options.policy,
        };
        let points: Vec<_> = sequence
            .iter()
            .map(|at| policy::Point {
                time: rows[*at].time.clone(),
                verified: rows[*at].verified == Some(true),
            })
            .collect();
        for (at, why) in sequence.iter().zip(policy::decide(&points, policy)) {
            rows[*at].stays = !why.is_empty();
            rows[*at].why = why;
        }
    }
    Ok(rows)
}

/// Which hosts are meant.
enum Chosen<'o> {
    This(&'o HostIdentity),
    Machines(BTreeSet<(String, String)>),
}

impl<'o> Chosen<'o> {
    fn new<'h>(
        whose: &'o Whose,
        hosts: impl Iterator<Item = &'h HostIdentity>,
        store: &Store,
    ) -> Result<Chosen<'o>> {
        let wanted = match whose {
            Whose::This(host) => return Ok(Chosen::This(host)),
            Whose::Named(wanted) => wanted,
        };
        let all: BTreeSet<(String, String)> = hosts
            .map(|h| (h.machine_id.clone(), h.hostname.clone()))
            .collect();
        let named = all.iter().filter(|(_, name)| name == wanted);
        let mut found: BTreeSet<_> = named.cloned().collect();
        if found.is_empty() && !wanted.is_empty() {
            let begins = all.iter().filter(|(id, _)| id.starts_with(wanted));
            found.extend(begins.cloned());
            let ids: BTreeSet<_> = found.iter().map(|(id, _)| id).collect();
            if ids.len() > 1 {
                found.clear();
            }
        }
        if found.is_empty() {
            let known: Vec<_> = all
                .iter()
                .map(|(id, name)| format!("{name} ({id})"))
                .collect();
            return Err(Error::NoHost {
                wanted: wanted.clone(),
                dir: store.dir().to_path_buf(),
                known: known.join(", "),
            });
        }
        Ok(Chosen::Machines(found))
    }

    /// Why restore points of this host are not in question.
    fn why_not(&self, host: &HostIdentity) -> Option<String> {
        match self {
            Chosen::Machines(found) => {
                let key = (host.machine_id.clone(), host.hostname.clone());
                (!found.contains(&key)).then(|| "of another host".to_string())
            }
            Chosen::This(this) if this.machine_id.is_empty() => {
                Some("this host has no machine id to tell its own by".to_string())
            }
            Chosen::This(this) if *this == host => None,
            Chosen::This(this) if this.hostname == host.hostname => Some(format!(
                "of {} as it was installed before (--host {})",
                host.hostname, host.machine_id
            )),
            Chosen::This(this) if this.machine_id == host.machine_id => Some(format!(
                "of this host under another name, or a copy of it (--host {})",
                host.hostname
            )),
            Chosen::This(_) => Some("of another host".to_string()),
        }
    }
}
