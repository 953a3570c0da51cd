//! What has changed on a host since its layout was saved: whether a restore would make what there is now.

use std::collections::BTreeSet;

use crate::capture::lvm::is_guest_volume;
use crate::diff::{ADDED_LATER, Difference, compare, flatten};
use crate::model::{Layout, Mount, Node, NodeId, is_guest_dataset, is_guest_subvolume};

/// Properties that come and go, or follow from others: `(kind, property, reason)`.
const PASSING: &[(&str, &str, &str)] = &[
    ("disk", "device", "kernel names change"),
    ("partition", "device", "kernel names change"),
    ("raid_array", "device", "kernel names change"),
    ("luks", "device", "kernel names change"),
    ("unsupported", "device", "kernel names change"),
    ("luks", "open", "it is opened and closed"),
    ("logical_volume", "active", "it is activated when needed"),
    ("thin_pool", "active", "it is activated when needed"),
    ("swap", "active", "it is switched on and off"),
    ("swap_file", "active", "it is switched on and off"),
    ("volume_group", "free", "it follows from the volumes"),
    ("ext4", "used", "what is in it changes"),
    ("ext4", "inodes_used", "what is in it changes"),
    ("xfs", "used", "what is in it changes"),
    ("vfat", "used", "what is in it changes"),
    ("btrfs", "used", "what is in it changes"),
    ("thin_pool", "used", "what is in it changes"),
    ("zfs_member", "used", "what is in it changes"),
    ("zfs_dataset", "used", "what is in it changes"),
    ("zfs_volume", "used", "what is in it changes"),
];

/// The same of the boot section.
const PASSING_BOOT: &[(&str, &str)] = &[
    (
        "kernel_command_line",
        "it is the one of the last start of the host",
    ),
    ("running_kernel", "kernels come with updates"),
    ("kernels", "kernels come with updates"),
    ("efi_entries", "firmware keeps them, a restore makes them"),
    ("secure_boot", "it is a setting of the firmware"),
    (
        "grub_platforms",
        "what GRUB can be installed for comes with the files",
    ),
];

/// Compares a saved layout with the present one of the same host. What a restore does not depend on is accepted, with the
/// reason; the host has drifted when there is a difference that is not.
pub fn drift(saved: &Layout, now: &Layout) -> Vec<Difference> {
    let mut found = Vec::new();
    for (id, node) in &saved.nodes {
        let before = flatten(node);
        match now.nodes.get(id) {
            None => found.push(whole(id, before.get("kind").cloned(), None)),
            Some(other) => {
                let kind = before.get("kind").cloned().unwrap_or_default();
                compare(&mut found, id, &kind, &before, &flatten(other));
            }
        }
    }
    for (id, node) in &now.nodes {
        if !saved.nodes.contains_key(id) {
            found.push(whole(id, None, flatten(node).get("kind").cloned()));
        }
    }
    mounts(&mut found, saved, now);
    boot(&mut found, saved, now);
    for difference in &mut found {
        if difference.reason.is_none() {
            difference.reason = reason(difference, saved, now);
        }
        difference.accepted = difference.reason.is_some();
    }
    found
}

/// A node as a person calls it, with its device where it has one.
pub fn name(id: &NodeId, layouts: [&Layout; 2]) -> String {
    let node = layouts.iter().find_map(|layout| layout.nodes.get(id));
    let mounted = || {
        let mounts = layouts.iter().flat_map(|layout| &layout.mounts);
        let mut of = mounts.filter(|m| m.node == *id);
        of.next().map(|m| m.mount_point.display().to_string())
    };
    let device = node.and_then(Node::device);
    match (device, mounted()) {
        (Some(device), _) => format!("{} ({id})", device.display()),
        (None, Some(place)) => format!("{place} ({id})"),
        (None, None) => id.to_string(),
    }
}

fn whole(id: &NodeId, saved: Option<String>, now: Option<String>) -> Difference {
    Difference {
        node: id.clone(),
        what: "*".to_owned(),
        saved,
        now,
        accepted: false,
        reason: None,
    }
}

fn reason(difference: &Difference, saved: &Layout, now: &Layout) -> Option<String> {
    let id = &difference.node;
    let either = || {
        [saved, now]
            .into_iter()
            .filter_map(|layout| layout.nodes.get(id))
    };
    let node = either().next()?;
    if either().any(is_guests) {
        return Some("it belongs to a guest".to_owned());
    }
    let disks: BTreeSet<NodeId> = [saved, now]
        .into_iter()
        .flat_map(|layout| layout.disks_below(id))
        .collect();
    let system: BTreeSet<NodeId> = [saved, now]
        .into_iter()
        .flat_map(Layout::system_disks)
        .collect();
    if !disks.is_empty() && disks.is_disjoint(&system) {
        return Some("it is on a disk that carries nothing of the system".to_owned());
    }
    if let Some(reason) = of_subvolume(difference, [saved, now]) {
        return Some(reason);
    }
    let kind = flatten(node).remove("kind")?;
    PASSING
        .iter()
        .find(|(k, what, _)| *k == kind && *what == difference.what)
        .map(|(_, _, why)| (*why).to_owned())
}

/// Guests come and go, and a restore brings them back by other ways.
fn is_guests(node: &Node) -> bool {
    match node {
        Node::ThinVolume(volume) => is_guest_volume(&volume.name),
        Node::LogicalVolume(volume) => is_guest_volume(&volume.name),
        Node::ZfsDataset(dataset) => is_guest_dataset(&dataset.name),
        Node::ZfsVolume(volume) => is_guest_dataset(&volume.name),
        _ => false,
    }
}

/// Subvolumes of guests, and snapshots, come and go.
fn of_subvolume(difference: &Difference, layouts: [&Layout; 2]) -> Option<String> {
    let rest = difference.what.strip_prefix("subvolumes.")?;
    let (path, _) = rest.rsplit_once('.')?;
    if is_guest_subvolume(path) {
        return Some("it belongs to a guest".to_owned());
    }
    let nodes = layouts
        .iter()
        .filter_map(|layout| layout.nodes.get(&difference.node));
    let mut subvolumes = nodes.filter_map(|node| match node {
        Node::Btrfs(btrfs) => btrfs.subvolumes.get(path),
        _ => None,
    });
    let snapshot = subvolumes.any(|subvolume| subvolume.snapshot);
    snapshot.then(|| "snapshots come and go".to_owned())
}

fn mounts(found: &mut Vec<Difference>, saved: &Layout, now: &Layout) {
    let place = |mount: &Mount| (mount.node.clone(), mount.mount_point.clone());
    let places: BTreeSet<_> = saved.mounts.iter().chain(&now.mounts).map(place).collect();
    for key in places {
        let of = |layout: &Layout| layout.mounts.iter().find(|m| place(m) == key).cloned();
        let (before, after) = (of(saved), of(now));
        let shown = |mount: &Option<Mount>| {
            let mount = mount.as_ref()?;
            let fstab = mount.fstab.as_ref();
            let line = fstab.map_or_else(String::new, |f| {
                format!(", in fstab {}", f.options.join(","))
            });
            let mounted = match mount.mounted {
                true => "mounted",
                false => "not mounted",
            };
            Some(format!("{mounted}{line}"))
        };
        let (old, new) = (shown(&before), shown(&after));
        let in_fstab = |mount: &Option<Mount>| mount.as_ref().and_then(|m| m.fstab.clone());
        let (old_line, new_line) = (in_fstab(&before), in_fstab(&after));
        let system = [&before, &after]
            .into_iter()
            .flatten()
            .any(Mount::belongs_to_the_system);
        if old == new && old_line == new_line {
            continue;
        }
        let by_itself = [&old_line, &new_line].into_iter().flatten().any(|line| {
            let on_demand = |o: &String| o == "noauto" || o == "x-systemd.automount";
            line.options.iter().any(on_demand)
        });
        // What somebody mounts for a while is no matter of the layout.
        let reason = if old_line != new_line {
            None
        } else if by_itself {
            Some("it is mounted when needed")
        } else if old_line.is_none() && !system {
            Some("it is mounted by hand, not by fstab")
        } else {
            None
        };
        found.push(Difference {
            node: key.0.clone(),
            what: format!("mount {}", key.1.display()),
            saved: old,
            now: new,
            accepted: false,
            reason: reason.map(str::to_owned),
        });
    }
}

fn boot(found: &mut Vec<Difference>, saved: &Layout, now: &Layout) {
    let (before, after) = (flatten(&saved.boot), flatten(&now.boot));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut add = |what: &str, saved: Option<String>, now: Option<String>| {
        let passing = PASSING_BOOT.iter().find(|(name, _)| *name == what);
        found.push(Difference {
            node: NodeId::new("boot"),
            what: what.to_owned(),
            saved,
            now,
            accepted: false,
            reason: passing.map(|(_, why)| (*why).to_owned()),
        });
    };
    for name in names {
        if before.get(name) == after.get(name) {
            continue;
        }
        // Documents of earlier releases do not have these.
        let earlier = saved.boot.grub_platforms.is_empty() && !before.contains_key(name);
        if earlier && ADDED_LATER.contains(&name.as_str()) {
            continue;
        }
        add(name, before.get(name).cloned(), after.get(name).cloned());
    }
    if saved.firmware != now.firmware {
        let text = |layout: &Layout| Some(layout.firmware.to_string());
        add("firmware", text(saved), text(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    fn case(text: &str) -> Layout {
        let case: serde_json::Value = serde_json::from_str(text).unwrap();
        Layout::from_value(case["layout"].clone()).unwrap()
    }

    fn thin() -> Layout {
        case(include_str!("../../vm-tests/layouts/lvm-thin-host.json"))
    }

    fn plain() -> Layout {
        case(include_str!(
            "../../vm-tests/layouts/gpt-ext4-xfs-swap.json"
        ))
    }

    fn unaccepted(saved: &Layout, now: &Layout) -> Vec<String> {
        let found = drift(saved, now).into_iter().filter(|d| !d.accepted);
        found.map(|d| d.to_string()).collect()
    }

    #[test]
    fn the_same_is_the_same() {
        for layout in [thin(), plain()] {
            assert_eq!(drift(&layout, &layout), []);
        }
    }

    #[test]
    fn what_comes_and_goes_is_no_drift() {
        let saved = plain();
        let mut now = saved.clone();
        for node in now.nodes.values_mut() {
            match node {
                Node::Disk(disk) => disk.device = "/dev/sdz".into(),
                Node::Ext4(fs) => fs.used = Some(Bytes(4711)),
                Node::Swap(swap) => swap.active = !swap.active,
                _ => {}
            }
        }
        now.boot.running_kernel = "99".into();
        now.boot.kernels.push("99".into());
        for mount in &mut now.mounts {
            mount.options.push("lazytime".into());
        }
        let found = drift(&saved, &now);
        assert!(found.len() > 3);
        assert_eq!(unaccepted(&saved, &now), Vec::<String>::new());
    }

    #[test]
    fn what_a_restore_would_make_otherwise_is_drift() {
        let saved = plain();
        let mut now = saved.clone();
        let (id, node) = now
            .nodes
            .iter_mut()
            .find(|(_, node)| matches!(node, Node::Ext4(_)))
            .unwrap();
        let id = id.clone();
        if let Node::Ext4(fs) = node {
            fs.label = Some("new".into());
        }
        let found = unaccepted(&saved, &now);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("label") && found[0].contains("new"));
        assert!(name(&id, [&saved, &now]).contains(&id.to_string()));

        let mut now = saved.clone();
        let swap = now
            .nodes
            .iter()
            .find(|(_, n)| matches!(n, Node::Swap(_)))
            .map(|(id, _)| id.clone())
            .unwrap();
        now.nodes.remove(&swap);
        now.mounts.retain(|m| m.node != swap);
        assert_eq!(unaccepted(&saved, &now).len(), 1);

        let mut now = saved.clone();
        now.mounts[0].fstab.as_mut().unwrap().options = vec!["ro".into()];
        let found = unaccepted(&saved, &now);
        assert!(
            found.len() == 1 && found[0].contains("mount /"),
            "{found:?}"
        );
    }

    #[test]
    fn guests_and_sticks_come_and_go() {
        let saved = thin();
        let mut now = saved.clone();
        let volume = saved
            .nodes
            .iter()
            .find_map(|(_, node)| match node {
                Node::ThinVolume(volume) => Some(volume.clone()),
                _ => None,
            })
            .expect("the case has guests");
        let mut other = volume.clone();
        other.name = "vm-999-disk-0".into();
        now.nodes
            .insert(NodeId::lv(&other.vg, &other.name), Node::ThinVolume(other));
        let disk = saved.disks().next().unwrap().1.clone();
        let stick = NodeId::disk("stick");
        now.nodes.insert(stick.clone(), Node::Disk(disk));
        let found = drift(&saved, &now);
        assert_eq!(found.len(), 2);
        assert_eq!(unaccepted(&saved, &now), Vec::<String>::new());
    }

    #[test]
    fn a_mount_by_hand_is_no_drift() {
        let saved = plain();
        let mut now = saved.clone();
        let mut mount = saved.mounts[0].clone();
        mount.mount_point = "/mnt".into();
        mount.fstab = None;
        now.mounts.push(mount);
        assert_eq!(drift(&saved, &now).len(), 1);
        assert_eq!(unaccepted(&saved, &now), Vec::<String>::new());
    }
}
