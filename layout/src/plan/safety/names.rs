//! Whether the names in a plan lead where they seem to. They come from the medium as they are.

use std::path::{Component, Path};

use crate::plan::{Plan, Step};

impl Plan {
    /// Why a name in this plan leads elsewhere than to what it names: out of the new system, or to another device. Names
    /// come from the medium as they are. `None` when none does.
    pub fn leads_outside(&self) -> Option<String> {
        let forged = |what: &str, name: &dyn std::fmt::Debug| {
            Some(format!(
                "its {what} {name:?} leads elsewhere, so the saved layout is damaged or forged: choose another restore point"
            ))
        };
        for step in &self.steps {
            match step {
                Step::Mount { mount_point, .. } | Step::RestoreTree { mount_point }
                    if !stays_inside(mount_point) =>
                {
                    return forged("mount point", mount_point);
                }
                Step::GrubEfi { esp, .. } if !stays_inside(esp) => {
                    return forged("mount point", esp);
                }
                Step::GrubEfi { bootloader_id, .. } if !is_name(bootloader_id) => {
                    return forged("boot loader id", bootloader_id);
                }
                Step::UpdateFstab { add, .. } => {
                    if let Some(line) = add.iter().find(|l| !is_fstab_line(l)) {
                        return forged("filesystem", line);
                    }
                }
                Step::MountReadOnly { mount_point, .. } if !stays_inside(mount_point) => {
                    return forged("mount point", mount_point);
                }
                Step::GrubFromHost { esp, .. } if !stays_inside(esp) => {
                    return forged("mount point", esp);
                }
                Step::GrubFromHost { bootloader_id, .. } if !is_name(bootloader_id) => {
                    return forged("boot loader id", bootloader_id);
                }
                Step::GroupUse { name, .. } if !is_lvm_name(name) => {
                    return forged("volume group", name);
                }
                Step::VolumeUse { name, .. } if !is_lvm_name(name) => {
                    return forged("logical volume", name);
                }
                Step::LuksUse { name, .. }
                | Step::LuksKey { name, .. }
                | Step::LuksOpen { name, .. }
                | Step::LuksErase { name }
                | Step::LuksClose { name }
                    if crate::plan::luks::unsound(name) =>
                {
                    return forged("LUKS container", name);
                }
                Step::LuksHeader { luks, .. } if crate::plan::luks::unsound(&luks.name) => {
                    return forged("LUKS container", &luks.name);
                }
                Step::RaidCreate { array, .. } | Step::RaidUse { array, .. } => {
                    if let Some(reason) = crate::plan::raid::unsound(array) {
                        return Some(format!("array {:?}: {reason}", array.name));
                    }
                }
                Step::ZpoolCreate { pool, root, .. } => {
                    if let Some(reason) = crate::plan::zfs::unsound(pool) {
                        return Some(format!("pool {:?}: {reason}", pool.name));
                    }
                    if let Some(name) = root.keys().find(|p| !crate::plan::zfs::is_property(p)) {
                        return forged("property", name);
                    }
                    if let Some((_, place)) =
                        (root.iter()).find(|(p, v)| crate::plan::zfs::leads_outside(p, v))
                    {
                        return forged("mount point", place);
                    }
                }
                Step::ZfsCreate { name, .. } | Step::ZfsSet { name, .. }
                    if !crate::plan::zfs::is_zfs_name(name) =>
                {
                    return forged("dataset", name);
                }
                Step::ZfsCreate { properties, .. } => {
                    if let Some(name) = properties
                        .keys()
                        .find(|p| !crate::plan::zfs::is_property(p))
                    {
                        return forged("property", name);
                    }
                    if let Some((_, place)) =
                        (properties.iter()).find(|(p, v)| crate::plan::zfs::leads_outside(p, v))
                    {
                        return forged("mount point", place);
                    }
                }
                Step::ZfsSet { property, .. } if !crate::plan::zfs::is_property(property) => {
                    return forged("property", property);
                }
                Step::MakeSwapFile { path, .. } if !stays_inside(path) => {
                    return forged("swap file", path);
                }
                Step::MountSubvolume { mount_point, .. } if !stays_inside(mount_point) => {
                    return forged("mount point", mount_point);
                }
                Step::MountSubvolume { subvolume, .. }
                    if !subvolume.is_empty() && !is_subvolume(subvolume) =>
                {
                    return forged("subvolume", subvolume);
                }
                Step::MountSubvolume { options, .. } => {
                    if let Some(option) = options.iter().find(|o| o.contains([',', '\0'])) {
                        return forged("mount option", option);
                    }
                }
                Step::MakeSubvolumes {
                    subvolumes,
                    default,
                    ..
                } => {
                    let mut paths = subvolumes.iter().map(|s| &s.path);
                    if let Some(path) = paths.find(|path| !is_subvolume(path)) {
                        return forged("subvolume", path);
                    }
                    if !default.is_empty() && !is_subvolume(default) {
                        return forged("default subvolume", default);
                    }
                }
                Step::SealSubvolumes { mount_points } => {
                    if let Some(place) = mount_points.iter().find(|p| !stays_inside(p)) {
                        return forged("mount point", place);
                    }
                }
                Step::VgCreate { name, .. } if !is_lvm_name(name) => {
                    return forged("volume group", name);
                }
                Step::LvCreate { name, .. } | Step::ThinPoolCreate { name, .. }
                    if !is_lvm_name(name) =>
                {
                    return forged("logical volume", name);
                }
                Step::LvCreate {
                    pool: Some(pool), ..
                } if !is_lvm_name(pool) => {
                    return forged("thin pool", pool);
                }
                Step::CacheCreate { cache, .. } | Step::CacheAttach { cache, .. }
                    if !is_lvm_name(&cache.name) =>
                {
                    return forged("cache", &cache.name);
                }
                _ => {}
            }
        }
        None
    }
}

/// Is it an absolute path without `..`?
pub(in crate::plan) fn stays_inside(path: &Path) -> bool {
    let down = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(down)
}

/// Is it one line of fstab(5)?
fn is_fstab_line(line: &str) -> bool {
    line.split_whitespace().count() == 6 && !line.contains('\n') && !line.starts_with('#')
}

/// Is it the name of one directory?
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0'])
}

/// Is it a path down from the top of a filesystem? A comma would end the mount option that has it.
fn is_subvolume(path: &str) -> bool {
    let down = |c: Component<'_>| matches!(c, Component::Normal(_));
    !path.is_empty() && !path.contains([',', '\0', '\n']) && Path::new(path).components().all(down)
}

/// What lvm(8) allows under "valid names".
fn is_lvm_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    is_name(name) && !name.starts_with('-') && name.chars().all(allowed)
}
