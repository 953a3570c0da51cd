//! Guests that come back at the first boot: which dumps of them are attached, and what is left in the restored system.
//!
//! Their disks are not made anew here: Proxmox VE's own tools do that, and they run on a running node only.

use std::path::{Path, PathBuf};

use bundle::Id;
use bundle::crypt::DataKey;
use bundle::document::Snapshot;
use bundle::document::guest::GuestRef;

use super::Prepared;
use crate::guests::{FORMAT, Guest, LIMIT, Pending, Place, State, install, printable};
use crate::rescue::bundles::{Attached, Found, Point, Verified};
use crate::rescue::events::{Announce, Line};

/// The guests of a host that is restored.
#[derive(Debug, Clone)]
pub struct Returning {
    /// What the first boot works off.
    pub list: Pending,
    /// Keys of encrypted stores that hold dumps.
    pub keys: Vec<(String, DataKey)>,
    /// Guests that the host had and that no dump was made of.
    pub without: Vec<String>,
}

/// Looks for the dumps of the guests that a restore point of a host names; `None` where the host had no guests.
pub(super) fn returning(found: &Found, id: Id, snapshot: &Snapshot) -> Option<Returning> {
    let without = without_dump(snapshot);
    if snapshot.guests.is_empty() && without.is_empty() {
        return None;
    }
    let dumps = found.dumps();
    let mut used: Vec<usize> = Vec::new();
    let guests = snapshot.guests.iter().map(|wanted| {
        let (guest, stores) = one(&dumps, snapshot, wanted);
        used.extend(stores);
        guest
    });
    let guests = guests.collect();
    used.sort_unstable();
    used.dedup();
    let used = || used.iter().map(|index| &found.stores[*index]);
    Some(Returning {
        list: Pending {
            format: FORMAT,
            snapshot: id,
            restored: super::now(),
            limit: LIMIT,
            guests,
            stores: used().map(place).collect(),
        },
        keys: used()
            .filter_map(|a| Some((a.store.id().to_owned(), a.store.data_key()?.clone())))
            .collect(),
        without,
    })
}

/// The very dump that the restore point names, else the newest one of that guest of that host; with the stores that hold it.
fn one(dumps: &[Point], host: &Snapshot, wanted: &GuestRef) -> (Guest, Vec<usize>) {
    let mut guest = Guest {
        id: wanted.id,
        kind: wanted.kind,
        name: wanted.name.clone(),
        snapshot: None,
        dumped: None,
        note: None,
        state: State::Waiting,
        attempts: 0,
        error: None,
        was_absent: false,
        left: None,
        onboot: false,
        progress: None,
    };
    if let Some(point) = dumps.iter().find(|p| p.header.id == wanted.snapshot) {
        guest.snapshot = Some(point.header.id);
        guest.dumped = Some(wanted.dumped.clone());
        guest.note = damaged(point);
        return (guest, point.stores.clone());
    }
    let places: Vec<&str> = wanted.stores.iter().map(|s| s.place.as_str()).collect();
    let named = format!(
        "the dump of {} (it was written to {}) is on no attached bundle",
        wanted.dumped,
        places.join(", ")
    );
    // Another host's guest of that number is another guest.
    let same = |p: &&Point| {
        let of = p.header.guest.as_ref();
        of.is_some_and(|g| (g.id, g.kind) == (wanted.id, wanted.kind))
            && p.header.host.machine_id == host.host.machine_id
    };
    let dumped = |p: &&Point| p.header.guest.as_ref().map(|g| g.dumped.clone());
    let best = |p: &&Point| (p.verified != Verified::Damaged, dumped(p));
    let other = dumps.iter().filter(same).max_by_key(best);
    match other {
        Some(point) => {
            let dumped = dumped(&point).unwrap_or_default();
            guest.snapshot = Some(point.header.id);
            let damaged = damaged(point).map_or_else(String::new, |text| format!("; {text}"));
            guest.note = Some(format!("{named}: it comes back as of {dumped}{damaged}"));
            guest.dumped = Some(dumped);
            (guest, point.stores.clone())
        }
        None => {
            guest.state = State::Failed;
            guest.error = Some(format!(
                "no attached bundle holds a dump of it ({named}): attach it and run `lifeboat guests restore {}`",
                wanted.id
            ));
            (guest, Vec::new())
        }
    }
}

/// All stores are read as one, so that what is damaged in one may be whole in another.
fn damaged(point: &Point) -> Option<String> {
    let text = "damage was found in its dump at the last verification";
    (point.verified == Verified::Damaged).then(|| text.to_owned())
}

fn place(attached: &Attached) -> Place {
    let dir = attached.store.dir();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let on_medium = attached.medium.as_ref().and_then(|medium| {
        let below = dir.strip_prefix(&medium.mount_point).ok()?;
        Some((medium, below, medium.uuid.clone()?))
    });
    let (filesystem, fs_type, path) = match on_medium {
        Some((medium, below, uuid)) => (Some(uuid), Some(medium.fs_type.clone()), text(below)),
        None => (None, None, text(dir)),
    };
    Place {
        id: attached.store.id().to_owned(),
        filesystem,
        fs_type,
        path,
        shown: attached.place(),
    }
}

/// Guests in the facts of the host that no dump is named of.
fn without_dump(snapshot: &Snapshot) -> Vec<String> {
    let guests = snapshot.facts.pointer("/proxmox/guests");
    let guests = guests.and_then(|g| g.as_array()).into_iter().flatten();
    let ids = guests.filter_map(|g| u32::try_from(g.get("id")?.as_u64()?).ok());
    ids.filter(|id| snapshot.guests.iter().all(|g| g.id != *id))
        .map(|id| id.to_string())
        .collect()
}

/// Where the restore point says that the program was.
fn program(snapshot: &Snapshot) -> Option<PathBuf> {
    let program = snapshot.facts.get("program")?.as_str()?;
    Some(PathBuf::from(program))
}

impl Returning {
    fn count(&self) -> (usize, usize) {
        let there = self.list.guests.iter().filter(|g| g.snapshot.is_some());
        let there = there.count();
        (there, self.list.guests.len() - there + self.without.len())
    }

    /// In one sentence.
    pub fn summary(&self) -> String {
        let (there, lost) = self.count();
        let places: Vec<&str> = self.list.stores.iter().map(|p| p.shown.as_str()).collect();
        let mut text = match there {
            0 => "No guest comes back by itself".to_owned(),
            n => format!(
                "{n} {} at the first boot, from {}: leave {} attached",
                if n == 1 {
                    "guest comes back"
                } else {
                    "guests come back"
                },
                places.join(", "),
                if places.len() == 1 { "it" } else { "them" },
            ),
        };
        if lost > 0 {
            text.push_str(&format!("; {lost} of the host's guests have no dump here"));
        }
        text.push('.');
        text
    }

    /// Guest by guest, for the plan.
    pub fn render(&self) -> String {
        let mut text = format!("Guests: {}\n", self.summary());
        for guest in &self.list.guests {
            let dumped = guest.dumped.as_deref().unwrap_or("-");
            text.push_str(&match (&guest.error, &guest.note) {
                (Some(error), _) => format!("  {}: LOST: {error}\n", guest.title()),
                (None, Some(note)) => format!("  {}: BUT: {note}\n", guest.title()),
                (None, None) => format!("  {}: as of {dumped}\n", guest.title()),
            });
        }
        if !self.without.is_empty() {
            text.push_str(&format!(
                "  No dump was ever made of {}: their disks do not come back\n",
                self.without.join(", ")
            ));
        }
        if self.count().0 > 0 {
            text.push_str("  Disks of guests that are still there are left as they are.\n");
        }
        text
    }

    pub(super) fn announce(&self, to: &dyn Announce) {
        let (there, lost) = self.count();
        to.line(&Line::new("guests").with("return", there).with("lost", lost));
        for guest in &self.list.guests {
            if let Some(text) = guest.error.as_ref().or(guest.note.as_ref()) {
                let text = format!("{}: {}", guest.title(), printable(text));
                to.line(&Line::new("warning").with("text", text));
            }
        }
    }

    fn leave_in(&self, root: &Path, snapshot: &Snapshot) -> Vec<String> {
        let program = program(snapshot);
        match install::install(root, &self.list, program.as_deref(), &self.keys) {
            Ok(by_hand) => by_hand,
            Err(error) => vec![format!(
                "the guests do not come back by themselves, as what the first boot needs could not be left in the restored \
                 system ({error:#}): restore them with `lifeboat guests restore ID --force`"
            )],
        }
    }
}

/// What is missing of the dumps, as far as their lists tell.
pub(super) fn missing(found: &Found, returning: &Returning) -> Vec<(u32, String)> {
    let stores = found.readers();
    let of = |guest: &Guest| {
        let wanted = guest.snapshot?.to_string();
        let documents = stores.iter().filter_map(|s| s.snapshot(&wanted).ok());
        let text = match documents.map(|(_, document)| document).next() {
            Some(document) => bundle::verify::missing(&stores, &document)?,
            None => "its document cannot be read".to_owned(),
        };
        Some((guest.id, text))
    };
    returning.list.guests.iter().filter_map(of).collect()
}

/// Leaves the list of the guests that come back in the restored system; gives back what is to be known.
pub(super) fn leave_in(prepared: &Prepared) -> Vec<String> {
    let root = &prepared.request.root;
    let cleared = install::clear(root);
    let mut notes: Vec<String> = cleared.err().iter().map(|e| format!("{e:#}")).collect();
    if let Some(returning) = &prepared.guests {
        if !returning.list.guests.is_empty() {
            notes.extend(returning.leave_in(root, &prepared.snapshot));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use bundle::backup::{Backup, BackupOptions};
    use bundle::crypt::KeyRing;
    use bundle::document::guest::{GuestDump, GuestKind, KIND, StoreRef};
    use bundle::document::{HostIdentity, SnapshotDraft};
    use bundle::events::Silent;
    use bundle::store::{Store, StoreOptions};

    use super::*;

    fn draft(machine: &str, guest: Option<(u32, &str)>) -> SnapshotDraft {
        SnapshotDraft {
            host: HostIdentity {
                machine_id: machine.to_owned(),
                hostname: "pve1".to_owned(),
            },
            tool_version: String::new(),
            kind: if guest.is_some() { KIND } else { "host" }.to_owned(),
            layout: serde_json::Value::Null,
            trees: Vec::new(),
            images: Vec::new(),
            guest: guest.map(|(id, dumped)| GuestDump {
                id,
                kind: GuestKind::Qemu,
                name: None,
                dumped: dumped.to_owned(),
                source: "vzdump".to_owned(),
                configs: Vec::new(),
                vma: None,
            }),
            guests: Vec::new(),
            facts: serde_json::json!({
                "program": "/opt/lifeboat",
                "proxmox": { "guests": [{ "id": 100 }, { "id": 101 }, { "id": 102 }, { "id": 103 }] },
            }),
        }
    }

    fn put(dir: &Path, draft: SnapshotDraft) -> Id {
        std::fs::create_dir_all(dir).unwrap();
        let store = match dir.join("lifeboat").exists() {
            true => Store::open(dir),
            false => Store::create(dir, &StoreOptions::default()),
        };
        let backup = Backup::start(vec![store.unwrap()], BackupOptions::default(), &Silent);
        let mut done = backup.unwrap().commit(draft);
        done.remove(0).snapshot.unwrap()
    }

    fn named(id: u32, snapshot: Id) -> GuestRef {
        GuestRef {
            id,
            kind: GuestKind::Qemu,
            name: None,
            snapshot,
            dumped: "2026-11-20T02:00:00Z".to_owned(),
            stores: vec![StoreRef {
                id: "s".to_owned(),
                place: "/mnt/backup".to_owned(),
            }],
        }
    }

    #[test]
    fn the_named_dump_else_the_newest_of_this_host_else_none() {
        let dir = tempfile::tempdir().unwrap();
        let (stick, drive) = (dir.path().join("stick"), dir.path().join("drive"));
        let first = put(&drive, draft("m", Some((100, "2026-11-20T02:00:00Z"))));
        let older = put(&drive, draft("m", Some((101, "2026-11-18T02:00:00Z"))));
        put(&drive, draft("other", Some((102, "2026-11-19T02:00:00Z"))));
        let gone = Id::of(b"on a drive that is not here");
        let mut host = draft("m", None);
        host.guests = vec![named(100, first), named(101, gone), named(102, gone)];
        put(&stick, host);
        let found = Found::in_directories(&[stick, drive.clone()], &KeyRing::default()).unwrap();
        // A dump is no restore point of a host.
        assert_eq!(found.points().0.len(), 1);
        let (id, snapshot) = found.snapshot("latest").unwrap();
        let returning = returning(&found, id, &snapshot).unwrap();
        let guests = &returning.list.guests;
        assert_eq!(guests[0].snapshot, Some(first));
        assert_eq!((guests[0].state, &guests[0].note), (State::Waiting, &None));
        assert_eq!(guests[1].snapshot, Some(older));
        let note = guests[1].note.as_deref().unwrap();
        assert!(
            note.contains("as of 2026-11-18") && note.contains("/mnt/backup"),
            "{note}"
        );
        assert_eq!((guests[2].snapshot, guests[2].state), (None, State::Failed));
        assert_eq!(returning.without, ["103"]);
        assert_eq!(returning.list.stores.len(), 1);
        assert_eq!(returning.list.stores[0].path, drive.to_string_lossy());
        let text = returning.render();
        for part in [
            "2 guests come back",
            "2 of the host's guests have no dump",
            "LOST",
            "BUT: the dump",
            "103",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // What is written is what the first boot reads.
        let json = serde_json::to_vec(&returning.list).unwrap();
        assert_eq!(Pending::parse(&json).unwrap(), returning.list);
        assert_eq!(missing(&found, &returning), []);
        assert_eq!(program(&snapshot), Some(PathBuf::from("/opt/lifeboat")));
    }

    #[test]
    fn a_host_without_guests_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = draft("m", None);
        host.facts = serde_json::Value::Null;
        put(dir.path(), host);
        let found = Found::in_directories(&[dir.path().to_owned()], &KeyRing::default()).unwrap();
        let (id, snapshot) = found.snapshot("latest").unwrap();
        assert!(returning(&found, id, &snapshot).is_none());
    }
}
