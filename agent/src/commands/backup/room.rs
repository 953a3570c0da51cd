//! Targets that are full, or nearly: before a backup, and when it ran out of room.

use bundle::document::HostIdentity;
use bundle::events::Events as _;
use bundle::store::{Space, Store};
use nix::sys::statvfs::statvfs;

use super::part::Part;
use super::report::TargetReport;
use super::work::Work;
use crate::config::Config;
use crate::progress::Progress;
use crate::retention::{self, Automatic};
use crate::targets::Opened;
use crate::{signals, values};

/// Below this, not even an index and a document can be written.
const NOTHING: u64 = 1 << 20;
/// What compression usually leaves of a host, as a divisor.
const SHRINKS_TO: u64 = 3;

/// What should be free before a backup. How much is new is only known when it has been read; that a daily one takes more
/// than a hundredth of its target is rare, and for the rare case there is [`after`].
pub fn wanted(space: Space) -> u64 {
    (space.total / 100).clamp(16 << 20, 512 << 20)
}

/// Bytes in use on the file systems that are saved, and on partitions; of single directories that is not known.
fn used(work: &Work) -> u64 {
    let Some(layout) = &work.layout else { return 0 };
    let trees = work.trees.iter().filter_map(|t| statvfs(&t.root).ok());
    let trees = trees.map(|s| {
        let blocks = s.blocks().saturating_sub(s.blocks_free());
        blocks.saturating_mul(s.fragment_size())
    });
    let images = layout.unknown_partitions().into_iter().map(|p| p.size.0);
    let headers = layout.luks_headers().into_iter().map(|h| h.size.0);
    trees
        .chain(images)
        .chain(headers)
        .fold(0, u64::saturating_add)
}

/// Looks whether a target has room, and makes some if that is wanted. Returns the store, unless it is hopeless.
pub fn before(
    config: &Config,
    work: &Work,
    host: &HostIdentity,
    store: Store,
    part: &mut Part,
    progress: &Progress,
) -> Option<Store> {
    let space = match store.space() {
        Ok(space) => space,
        // Whatever is wrong, the backup will meet it.
        Err(error) => {
            tracing::info!(
                "the room on {} is not known: {error}",
                store.dir().display()
            );
            return Some(store);
        }
    };
    let wanted = wanted(space);
    if space.free >= wanted {
        say_if_first_is_large(work, host, &store, space, progress);
        return Some(store);
    }
    drop(store);
    let opened = part.opened.as_ref()?;
    let store = match make(config, host, opened, &mut part.report, progress) {
        Some(store) => Some(store),
        None => match opened.writer() {
            Ok(store) => Some(store),
            Err(error) => {
                part.report.fail(format!("{error:#}"));
                None
            }
        },
    }?;
    let free = store.space().map_or(u64::MAX, |s| s.free);
    if free < NOTHING {
        drop(store);
        let advice = retention::advice(config, opened, host, progress);
        part.report.fail(format!("the target is full: {advice}"));
        return None;
    }
    if free < wanted {
        progress.warn(&format!(
            "{}: only {} of {} are free, which may not be enough for a new restore point",
            opened.named.display(),
            values::bytes(free),
            values::bytes(space.total)
        ));
    }
    Some(store)
}

/// A first restore point takes most: that may be seen to be too much before hours have passed. Only said, as what is
/// left out of it counts as in use here.
fn say_if_first_is_large(
    work: &Work,
    host: &HostIdentity,
    store: &Store,
    space: Space,
    progress: &Progress,
) {
    let first = store
        .snapshots()
        .is_ok_and(|s| !s.iter().any(|s| s.host == *host && s.kind == work.kind));
    let used = used(work);
    if first && used / SHRINKS_TO > space.free {
        progress.say(&format!(
            "{} of this host are in use, and {} are free on {}: that may not be enough, unless much of it is left out",
            values::bytes(used),
            values::bytes(space.free),
            store.dir().display()
        ));
    }
}

/// The stores that failed for lack of room and have some now. Of the others, the report says what can be done.
pub fn after(
    config: &Config,
    host: &HostIdentity,
    parts: &mut [Part],
    progress: &Progress,
) -> Vec<Store> {
    let mut stores = Vec::new();
    for part in parts.iter_mut().filter(|p| p.full) {
        let Some(opened) = &part.opened else { continue };
        if let Some(store) = make(config, host, opened, &mut part.report, progress) {
            part.report.error = None;
            part.full = false;
            stores.push(store);
        }
    }
    say_why_full(config, host, parts, progress);
    stores
}

/// Adds to the errors of full targets what can be done.
pub fn say_why_full(config: &Config, host: &HostIdentity, parts: &mut [Part], progress: &Progress) {
    for part in parts.iter_mut().filter(|p| p.full) {
        // Once is enough.
        part.full = false;
        let (Some(opened), Some(error)) = (&part.opened, &mut part.report.error) else {
            continue;
        };
        let advice = retention::advice(config, opened, host, progress);
        *error = format!("the target is full: {error}; {advice}");
    }
}

/// Prunes by the policy, where that may be done unasked. Returns the store if it has more room than before.
pub fn make(
    config: &Config,
    host: &HostIdentity,
    opened: &Opened,
    report: &mut TargetReport,
    progress: &Progress,
) -> Option<Store> {
    if config.retention.automatic == Automatic::Never || signals::stopped() {
        return None;
    }
    progress.say(&format!("making room on {}", opened.named.display()));
    let pruned = match retention::automatic(config, opened, host, progress) {
        Ok(pruned) => pruned,
        Err(error) => {
            report.problems.push(format!("not pruned: {error:#}"));
            return None;
        }
    };
    let freed = pruned.freed;
    report.pruned(pruned);
    if freed == 0 {
        return None;
    }
    opened.writer().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_a_backup_should_have() {
        let space = |total| Space { free: 0, total };
        assert_eq!(wanted(space(64 << 30)), 512 << 20);
        assert_eq!(wanted(space(20 << 30)), (20 << 30) / 100);
        assert_eq!(wanted(space(100 << 20)), 16 << 20);
    }
}
