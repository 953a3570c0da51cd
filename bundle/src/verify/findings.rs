//! Collecting damages, and what suffers from them.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Damage;
use super::packs::PackCheck;
use super::refs::{self, Owner, Visitor};
use crate::document::Snapshot;
use crate::pack::pack_name;
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Id};

/// A damage while its files are being collected.
struct Open {
    damage: Damage,
    files: BTreeSet<String>,
    snapshots: BTreeSet<Id>,
}

/// The damages found so far, and which lost blob belongs to which.
#[derive(Default)]
pub(super) struct Findings {
    open: Vec<Open>,
    pub lost: HashMap<Id, usize>,
}

impl Findings {
    pub(super) fn add(
        &mut self,
        file: String,
        pack: Option<Id>,
        blob: Option<Id>,
        reason: String,
    ) -> usize {
        let damage = Damage {
            file,
            pack,
            blob,
            lost: Vec::new(),
            reason,
            files: Vec::new(),
            snapshots: Vec::new(),
        };
        self.open.push(Open {
            damage,
            files: BTreeSet::new(),
            snapshots: BTreeSet::new(),
        });
        self.open.len() - 1
    }

    /// Names the files and snapshots that need lost blobs, and the references that lead nowhere. Returns notes on
    /// what could not be named.
    pub(super) fn attribute(
        &mut self,
        stores: &[&Store],
        snapshots: &[(Id, Snapshot)],
    ) -> Vec<String> {
        let mut notes = Vec::new();
        for (snapshot_id, snapshot) in snapshots {
            let mut readers = Readers::new(stores);
            let mut attribution = Attribution {
                findings: self,
                stores,
                snapshot: *snapshot_id,
                catalogue_lost: false,
            };
            let malformed = refs::follow(&mut readers, snapshot, &mut attribution);
            let catalogue_lost = attribution.catalogue_lost;
            if catalogue_lost {
                notes.push(format!(
                    "a part of the catalogue of {} is lost: other damage may cost it more files than are named",
                    snapshot_id.short()
                ));
            }
            for (id, reason) in malformed {
                let number = self.add(String::new(), None, Some(id), reason);
                self.open[number].snapshots.insert(*snapshot_id);
            }
        }
        notes
    }

    pub(super) fn finish(self) -> Vec<Damage> {
        let finish = |open: Open| Damage {
            files: open.files.into_iter().collect(),
            snapshots: open.snapshots.into_iter().collect(),
            ..open.damage
        };
        self.open.into_iter().map(finish).collect()
    }
}

/// Names what needs lost blobs.
struct Attribution<'a> {
    findings: &'a mut Findings,
    stores: &'a [&'a Store],
    snapshot: Id,
    catalogue_lost: bool,
}

impl Visitor for Attribution<'_> {
    fn needs(&mut self, id: Id, owner: &Owner<'_>) {
        let findings = &mut *self.findings;
        if !findings.lost.contains_key(&id) {
            if Readers::place(self.stores, &id).is_some() {
                return;
            }
            let reason = "the snapshot needs a blob that no pack holds".to_string();
            let number = findings.add(String::new(), None, Some(id), reason);
            findings.lost.insert(id, number);
        }
        let open = &mut findings.open[findings.lost[&id]];
        open.files.extend(owner.files());
        open.snapshots.insert(self.snapshot);
        self.catalogue_lost |= matches!(owner, Owner::Catalogue { .. });
    }

    /// Only a part of the packs was read before: this one was not, or another reader changed it meanwhile.
    fn broken(&mut self, _: &Id, error: &Error) {
        let Error::Blob { id, reason } = error else {
            return;
        };
        let Some((store, place)) = Readers::place(self.stores, id) else {
            return;
        };
        if !self.findings.lost.contains_key(id) {
            let pack = self.stores[store].packs()[place.pack as usize].id;
            let file = pack_name(&pack);
            let number = self
                .findings
                .add(file, Some(pack), Some(*id), reason.clone());
            self.findings.lost.insert(*id, number);
        }
        let open = &mut self.findings.open[self.findings.lost[id]];
        open.snapshots.insert(self.snapshot);
    }
}

/// One damage per blob that is bad for its own reason; one for all that is lost with the pack itself.
pub(super) fn pack_findings(
    store: &Store,
    number: usize,
    check: PackCheck,
    bad_places: &HashSet<(u32, u32)>,
    findings: &mut Findings,
) {
    let id = store.packs()[number].id;
    let file = pack_name(&id);
    let whole_copy = |blob: &Id| {
        store
            .map()
            .find(blob)
            .iter()
            .any(|l| !bad_places.contains(&(l.pack, l.offset)))
    };
    let own = check.bad.iter().any(|(_, reason)| reason.is_some());
    // The pack's hash is wrong because a blob's is: one of the two is enough to say.
    let with_pack = check.bad.iter().any(|(_, reason)| reason.is_none());
    let mut for_pack = None;
    if let Some(reason) = check.reason.filter(|_| with_pack || !own) {
        for_pack = Some(findings.add(file.clone(), Some(id), None, reason));
    }
    for (place, reason) in check.bad {
        let number = match (reason, for_pack) {
            (Some(reason), _) => findings.add(file.clone(), Some(id), Some(place.id), reason),
            (None, Some(number)) => {
                findings.open[number].damage.lost.push(place.id);
                number
            }
            (None, None) => findings.add(
                file.clone(),
                Some(id),
                Some(place.id),
                "it cannot be read".to_string(),
            ),
        };
        if !whole_copy(&place.id) {
            findings.lost.insert(place.id, number);
        }
    }
}
