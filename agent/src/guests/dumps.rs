//! The dumps of guests in stores that are read as one.

use std::cmp::Reverse;

use anyhow::bail;
use bundle::Id;
use bundle::document::Snapshot;
use bundle::document::guest::GuestKind;

use super::archive;
use crate::output::Usage;
use crate::targets::Sources;

/// Which dump of a guest is meant.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The guest's number.
    pub id: u32,
    /// The beginning of the dump's id, or `latest`.
    pub snapshot: &'a str,
    /// The latest one is of this machine.
    pub machine_id: &'a str,
}

/// The dump that is meant.
pub fn find(sources: &Sources, wanted: &Wanted<'_>) -> anyhow::Result<(Id, Snapshot)> {
    let id = wanted.id;
    if wanted.snapshot != "latest" {
        let found = sources.snapshot(wanted.snapshot)?;
        let of = archive::dump(&found.1)?.id;
        if of != id {
            let title = archive::title(&found.1);
            return Err(Usage(format!(
                "restore point {} is a dump of {title}, and none of guest {id}: give that number, and --as {id} if it is to \
                 get this one",
                found.0.short()
            ))
            .into());
        }
        return Ok(found);
    }
    let of_guest = |s: &Snapshot| s.guest.as_ref().is_some_and(|g| g.id == id);
    let all = sources.all_snapshots()?;
    let dumps: Vec<_> = all.into_iter().filter(|(_, s)| of_guest(s)).collect();
    let own = dumps
        .iter()
        .filter(|(_, s)| s.host.machine_id == wanted.machine_id);
    if let Some(found) = own.max_by_key(|(id, s)| (dumped(s), Reverse(*id))) {
        return Ok(found.clone());
    }
    match dumps.last() {
        None => bail!(
            "none of the targets holds a dump of guest {id}; `lifeboat guests list` shows what there is"
        ),
        // Another host's guest of that number is another guest.
        Some((other, snapshot)) => bail!(
            "there is no dump of guest {id} of this host, only of {}: name the dump with --snapshot {}",
            snapshot.host.hostname,
            other.short()
        ),
    }
}

/// The newest dump of a guest of a kind, of a machine.
pub fn newest(
    sources: &Sources,
    kind: GuestKind,
    id: u32,
    machine_id: &str,
) -> anyhow::Result<Option<(Id, Snapshot)>> {
    let all = sources.all_snapshots()?.into_iter();
    let of_guest = all.filter(|(_, s)| {
        let guest = s
            .guest
            .as_ref()
            .is_some_and(|g| (g.kind, g.id) == (kind, id));
        guest && s.host.machine_id == machine_id
    });
    Ok(of_guest.max_by_key(|(id, s)| (dumped(s), Reverse(*id))))
}

fn dumped(snapshot: &Snapshot) -> String {
    let dump = snapshot.guest.as_ref();
    dump.map(|g| g.dumped.clone()).unwrap_or_default()
}

/// Bytes of disks and files.
pub fn size(snapshot: &Snapshot) -> u64 {
    let images = snapshot.images.iter().map(|i| i.size);
    let trees = snapshot.trees.iter().map(|t| t.bytes);
    images.chain(trees).fold(0, u64::saturating_add)
}
