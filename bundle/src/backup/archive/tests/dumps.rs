//! Archives into a store, and out of it.

use std::fs;
use std::path::Path;

use crate::backup::tests::draft;
use crate::backup::{Backup, BackupOptions, TreeSource};
use crate::document::Snapshot;
use crate::document::guest::{GuestDump, GuestKind, KIND};
use crate::events::Silent;
use crate::exclude::Exclusions;
use crate::store::{Store, StoreOptions};
use crate::{Id, Result};

pub(super) fn begin_backup<'e>(dir: &Path) -> Backup<'e> {
    fs::create_dir_all(dir).unwrap();
    let store = Store::create(dir, &StoreOptions::default()).or_else(|_| Store::open(dir));
    let options = BackupOptions {
        workers: 2,
        ..BackupOptions::default()
    };
    Backup::start(vec![store.unwrap()], options, &Silent).unwrap()
}

/// What a dump cost, and what it is.
#[derive(Debug)]
pub(super) struct Saved {
    pub snapshot: Snapshot,
    pub id: Id,
    pub bytes: u64,
    pub new: u64,
    pub known: u64,
}

fn commit(
    backup: Backup<'_>,
    trees: Vec<crate::document::Tree>,
    guest: Option<GuestDump>,
) -> Saved {
    let mut draft = draft(trees);
    if guest.is_some() {
        draft.kind = KIND.into();
    }
    draft.guest = guest;
    let result = backup.commit(draft).remove(0);
    let dir = result.dir.clone();
    let id = result.snapshot.unwrap();
    let store = Store::open_read_only(&dir).unwrap();
    Saved {
        snapshot: store.snapshot(&id.to_string()).unwrap().1,
        id,
        bytes: result.bytes_written,
        new: result.new_blobs,
        known: result.known_blobs,
    }
}

/// Saves an archive as the dump of a container.
pub(super) fn save_within(dir: &Path, archive: &[u8], limit: usize) -> Result<Saved> {
    let mut backup = begin_backup(dir);
    let (tree, configs) = backup.archive_within(&mut &archive[..], limit)?;
    let guest = GuestDump {
        id: 101,
        kind: GuestKind::Lxc,
        name: None,
        dumped: "2026-11-20T20:31:36.250Z".into(),
        source: "vzdump".into(),
        configs,
        vma: None,
    };
    Ok(commit(backup, vec![tree], Some(guest)))
}

pub(super) fn save(dir: &Path, archive: &[u8]) -> Result<Saved> {
    save_within(dir, archive, super::super::HELD_MAX)
}

/// Saves the files themselves.
pub(super) fn save_files(dir: &Path, root: &Path) -> Saved {
    let mut backup = begin_backup(dir);
    let source = TreeSource {
        root: root.into(),
        mount_point: "/".into(),
        filesystem: None,
        exclude: Exclusions::none(),
        instead: Default::default(),
    };
    let tree = backup.tree(&source).unwrap();
    commit(backup, vec![tree], None)
}

/// The archive of a dump.
pub(super) fn give_back(dir: &Path, saved: &Saved) -> Vec<u8> {
    let store = Store::open_read_only(dir).unwrap();
    let mut out = Vec::new();
    let report = crate::extract::guest_tar(&[&store], &saved.snapshot, &mut out, &Silent).unwrap();
    assert!(report.complete(), "{report:#?}");
    out
}
