//! btrfs over several devices: one on each disk where it kept everything twice, with profiles that fewer devices carry.

use super::{Work, refuse};
use crate::model::{Btrfs, Node, NodeId};
use crate::plan::PlanError;
use crate::units::Bytes;

/// Copies or parity: a device may fail.
fn is_redundant(profile: &str) -> bool {
    profile.starts_with("raid1") || matches!(profile, "raid5" | "raid6")
}

/// The profile that comes next to `profile` on `devices` devices.
fn lowered(profile: &str, devices: usize, metadata: bool) -> &str {
    let one = if metadata { "dup" } else { "single" };
    match (profile, devices) {
        ("raid0", 1) => "single",
        (p, 1) if is_redundant(p) => one,
        ("raid1c4", 3) => "raid1c3",
        ("raid1c3" | "raid1c4" | "raid5" | "raid6" | "raid10", 2) => "raid1",
        ("raid10", 3) => "raid1",
        (p, _) => p,
    }
}

/// How much fits with a profile on devices of these sizes, at most.
fn capacity(profile: &str, sizes: &[Bytes]) -> u64 {
    let all = sizes
        .iter()
        .fold(0u64, |sum, size| sum.saturating_add(size.0));
    let most = sizes.iter().map(|size| size.0).max().unwrap_or(0);
    match profile {
        "raid1" | "raid10" => (all / 2).min(all.saturating_sub(most)),
        "raid1c3" => all / 3,
        "raid1c4" => all / 4,
        "dup" => all / 2,
        "raid5" => all.saturating_sub(most),
        "raid6" => all.saturating_sub(most.saturating_mul(2)),
        _ => all,
    }
}

impl Work {
    pub(super) fn btrfs(&mut self) -> Result<(), PlanError> {
        let all: Vec<(NodeId, Btrfs)> = self
            .layout
            .nodes
            .iter()
            .filter_map(|(id, node)| match node {
                Node::Btrfs(fs) if fs.on.len() > 1 && fs.on.len() == fs.sizes.len() => {
                    Some((id.clone(), fs.clone()))
                }
                _ => None,
            })
            .collect();
        for (id, fs) in all {
            self.fewer_devices(&id, fs)?;
        }
        Ok(())
    }

    fn fewer_devices(&mut self, id: &NodeId, saved: Btrfs) -> Result<(), PlanError> {
        // What is striped or simply in a row needs the room of all of its devices.
        let redundant = saved.data.as_deref().is_some_and(is_redundant);
        let dropped = self.surplus(&saved.on, redundant);
        if dropped.is_empty() {
            return Ok(());
        }
        let kept = saved.on.iter().zip(&saved.sizes);
        let (on, sizes): (Vec<NodeId>, Vec<Bytes>) = kept
            .filter(|(on, _)| !dropped.contains(on))
            .map(|(on, size)| (on.clone(), *size))
            .unzip();
        let lower = |profile: &Option<String>, metadata: bool| {
            let profile = profile.as_deref()?;
            Some(lowered(profile, on.len(), metadata).to_owned())
        };
        let (data, metadata) = (lower(&saved.data, false), lower(&saved.metadata, true));
        let room = |profile: &Option<String>, sizes: &[Bytes]| {
            capacity(profile.as_deref().unwrap_or("raid1"), sizes)
        };
        let (before, now) = (room(&saved.data, &saved.sizes), room(&data, &sizes));
        // As for one that shrinks: a tenth more than is in use, and what btrfs keeps back.
        let needed = saved.used.map_or(before, |used| {
            (used.0 + used.0 / 5).saturating_add(544 << 20)
        });
        if on.is_empty() || now < before && now < needed {
            return Err(refuse(
                id,
                format!(
                    "the {} of its devices that are left hold {}, and {} are needed: give all of its disks a place",
                    on.len(),
                    Bytes(now),
                    Bytes(needed.min(before))
                ),
            ));
        }
        let words = |fs: &Btrfs| {
            format!(
                "data {}, metadata {}",
                fs.data.as_deref().unwrap_or("unknown"),
                fs.metadata.as_deref().unwrap_or("unknown")
            )
        };
        let fs = Btrfs {
            size: sizes.iter().fold(Bytes(0), |sum, size| sum.plus(*size)),
            on,
            sizes,
            data,
            metadata,
            ..saved.clone()
        };
        self.notes.push(format!(
            "btrfs {} is made on {} of its {} devices, with {} (it had {}). When there is another disk: btrfs device add, \
             then btrfs balance start -dconvert and -mconvert.",
            fs.uuid,
            fs.on.len(),
            saved.on.len(),
            words(&fs),
            words(&saved)
        ));
        for what in ["on", "sizes", "size", "data", "metadata"] {
            self.accept(id, what, "there are fewer disks, as chosen");
        }
        self.layout.nodes.insert(id.clone(), Node::Btrfs(fs));
        for device in dropped {
            self.drop_down(&device, "there are fewer disks, as chosen");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_follow_the_number_of_devices() {
        for (profile, devices, metadata, expected) in [
            ("raid1", 1, false, "single"),
            ("raid1", 1, true, "dup"),
            ("raid1", 2, true, "raid1"),
            ("raid0", 1, true, "single"),
            ("raid10", 2, false, "raid1"),
            ("raid1c4", 3, true, "raid1c3"),
            ("raid6", 2, false, "raid1"),
            ("raid6", 3, false, "raid6"),
            ("single", 1, false, "single"),
            ("dup", 1, true, "dup"),
        ] {
            assert_eq!(
                lowered(profile, devices, metadata),
                expected,
                "{profile} {devices}"
            );
        }
    }

    #[test]
    fn copies_take_room() {
        let sizes = [Bytes(100), Bytes(100), Bytes(300)];
        assert_eq!(capacity("single", &sizes), 500);
        assert_eq!(capacity("raid1", &sizes), 200);
        assert_eq!(capacity("raid5", &[Bytes(100); 3]), 200);
        assert_eq!(capacity("raid6", &[Bytes(100); 3]), 100);
    }
}
