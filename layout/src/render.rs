//! A layout as a tree, for people.

use std::collections::BTreeSet;

use crate::model::{Layout, Node, NodeId, Segments, Table, mbr_types, types};

/// Draws the layout: disks, what is on them, where it is mounted, how the machine boots.
pub fn tree(layout: &Layout) -> String {
    let mut out = String::new();
    let mut shown = BTreeSet::new();
    for (id, _) in layout.disks() {
        draw(layout, id, "", "", &mut shown, &mut out);
    }
    let rest: Vec<NodeId> = layout
        .nodes
        .keys()
        .filter(|id| !shown.contains(*id))
        .cloned()
        .collect();
    for id in rest {
        if !shown.contains(&id) {
            draw(layout, &id, "", "", &mut shown, &mut out);
        }
    }
    let boot = &layout.boot;
    let mut loaders = Vec::new();
    for grub in &boot.grub_bios {
        let disk = layout.nodes.get(&grub.disk).and_then(Node::device);
        loaders.push(format!(
            "GRUB for BIOS on {}",
            disk.map_or_else(|| grub.disk.to_string(), |d| d.display().to_string())
        ));
    }
    for grub in &boot.grub_efi {
        let shim = if grub.shim { " with shim" } else { "" };
        let fallback = if grub.fallback { ", fallback path" } else { "" };
        loaders.push(format!(
            "GRUB for UEFI as {}{shim}{fallback}",
            grub.bootloader_id
        ));
    }
    let loaders = if loaders.is_empty() {
        "no boot loader found".to_owned()
    } else {
        loaders.join("; ")
    };
    let secure = match boot.secure_boot {
        Some(true) => ", Secure Boot on",
        Some(false) => ", Secure Boot off",
        None => "",
    };
    out.push_str(&format!("boot: {}{secure}; {loaders}\n", layout.firmware));
    if !boot.kernels.is_empty() {
        out.push_str(&format!("kernels: {}\n", boot.kernels.join(" ")));
    }
    for warning in &layout.warnings {
        out.push_str(&format!("warning: {warning}\n"));
    }
    out
}

fn draw(
    layout: &Layout,
    id: &NodeId,
    first: &str,
    rest: &str,
    shown: &mut BTreeSet<NodeId>,
    out: &mut String,
) {
    let Some(node) = layout.nodes.get(id) else {
        return;
    };
    let again = !shown.insert(id.clone());
    out.push_str(first);
    out.push_str(&describe(layout, id, node));
    if again {
        // A group on several disks is drawn below the first.
        out.push_str(" (see above)\n");
        return;
    }
    out.push('\n');
    let mut children: Vec<&NodeId> = layout.children(id).map(|(child, _)| child).collect();
    children.sort_by_key(|child| match layout.nodes.get(*child) {
        Some(Node::Partition(part)) => (part.number, (*child).clone()),
        _ => (0, (*child).clone()),
    });
    for (index, child) in children.iter().enumerate() {
        let last = index + 1 == children.len();
        let (branch, indent) = if last {
            ("└─", "  ")
        } else {
            ("├─", "│ ")
        };
        draw(
            layout,
            child,
            &format!("{rest}{branch}"),
            &format!("{rest}{indent}"),
            shown,
            out,
        );
    }
}

fn describe(layout: &Layout, id: &NodeId, node: &Node) -> String {
    let mounts = layout.mounts.iter().filter(|m| m.node == *id).map(|m| {
        let not = if m.mounted { "" } else { " (not mounted)" };
        format!("{}{not}", m.mount_point.display())
    });
    let mounts: Vec<String> = mounts.collect();
    let mounted = if mounts.is_empty() {
        String::new()
    } else {
        format!(" on {}", mounts.join(", "))
    };
    if let Some(fs) = node.filesystem() {
        let label = fs.label.map(|l| format!(" '{l}'")).unwrap_or_default();
        let used = fs.used.map(|u| format!(", {u} used")).unwrap_or_default();
        return format!("{}{label} {}{used}{mounted}", fs.fstype, fs.uuid);
    }
    match node {
        Node::Disk(disk) => {
            let model = disk.model.as_deref().unwrap_or("unknown model");
            let serial = disk
                .serial
                .as_deref()
                .map(|s| format!(", serial {s}"))
                .unwrap_or_default();
            let table = match &disk.table {
                Some(Table::Gpt(_)) => ", GPT",
                Some(Table::Mbr(_)) => ", MBR",
                None => "",
            };
            format!(
                "{} {model}{serial}, {}{table}",
                disk.device.display(),
                disk.size
            )
        }
        Node::Partition(part) => {
            let kind = match part.type_guid.as_str() {
                types::ESP | mbr_types::ESP => "EFI system partition",
                types::BIOS_BOOT => "BIOS boot",
                types::LVM | mbr_types::LVM => "Linux LVM",
                types::RAID | mbr_types::RAID => "Linux RAID",
                types::LINUX | mbr_types::LINUX => "Linux filesystem",
                types::SWAP | mbr_types::SWAP => "Linux swap",
                types::ZFS => "ZFS",
                mbr_types::NTFS => "NTFS or exFAT",
                mbr_types::FAT32 => "FAT32",
                _ if part.is_extended() => "extended",
                other => other,
            };
            let name = if part.name.is_empty() {
                String::new()
            } else {
                format!(" '{}'", part.name)
            };
            format!("{} {kind}{name}, {}", part.device.display(), part.size())
        }
        Node::RaidArray(array) => {
            let missing = match array.missing() {
                0 => String::new(),
                n => format!(", {n} MISSING"),
            };
            format!(
                "{} {} of {} devices '{}'{missing}, {}",
                array.device.display(),
                array.level,
                array.raid_devices,
                array.name,
                array.size
            )
        }
        Node::Luks(luks) => format!(
            "LUKS{} container {}, {}{}",
            luks.version,
            luks.name,
            luks.size,
            if luks.open { "" } else { " (not open)" }
        ),
        Node::PhysicalVolume(pv) => format!("LVM physical volume, {}", pv.size),
        Node::VolumeGroup(vg) => format!("volume group {}, {} free", vg.name, vg.free),
        Node::LogicalVolume(lv) => {
            let kind = if lv.segments == Segments::Linear {
                String::new()
            } else {
                format!(", {}", lv.segments)
            };
            let cache = lv.cache.as_ref().map(|c| format!(", cache {}", c.name));
            let cache = cache.unwrap_or_default();
            format!("{}, {}{kind}{cache}", lv.device.display(), lv.size)
        }
        Node::ThinPool(pool) => {
            format!(
                "thin pool {}, {}, chunks of {}, metadata {}",
                pool.name, pool.size, pool.chunk_size, pool.metadata_size
            )
        }
        Node::ThinVolume(volume) => format!("thin volume {}, {}", volume.name, volume.size),
        Node::Swap(swap) => format!(
            "swap {}{}",
            swap.uuid,
            if swap.active { ", in use" } else { "" }
        ),
        Node::SwapFile(swap) => {
            format!("swap file {}, {}", swap.path.display(), swap.size)
        }
        Node::Unsupported(what) => {
            format!("{} {} (NOT SUPPORTED)", what.device.display(), what.what)
        }
        Node::ZfsMember(member) => format!("ZFS {} device of pool {}", member.role, member.pool),
        Node::ZfsPool(pool) => {
            let vdevs: Vec<String> = pool.vdevs.iter().map(|vdev| vdev.to_string()).collect();
            format!(
                "ZFS pool {}, {}, {}",
                pool.name,
                vdevs.join(", "),
                pool.size
            )
        }
        Node::ZfsDataset(dataset) => {
            let used = dataset
                .used
                .map(|u| format!(", {u} used"))
                .unwrap_or_default();
            let encrypted = if dataset.encrypted { ", ENCRYPTED" } else { "" };
            format!("ZFS filesystem {}{used}{encrypted}{mounted}", dataset.name)
        }
        Node::ZfsVolume(volume) => format!("ZFS volume {}, {}", volume.name, volume.size),
        Node::Ext4(_) | Node::Xfs(_) | Node::Vfat(_) | Node::Btrfs(_) => id.to_string(),
    }
}
