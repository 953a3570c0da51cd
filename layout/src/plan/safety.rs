//! Looks at a finished plan: does it stay on its disks, and which tools does it need?

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{Mode, Plan, Step};

impl Plan {
    /// Why this plan may write to a disk that is not assigned, or come before the fence; `None` when it does not.
    pub fn writes_outside(&self) -> Option<String> {
        let assigned: BTreeSet<&Path> = self.disks.iter().map(|d| d.device.as_path()).collect();
        let fenced: BTreeSet<&Path> = self.fence.iter().map(|d| d.device.as_path()).collect();
        if let Some(both) = assigned.intersection(&fenced).next() {
            return Some(format!(
                "{} is a target and fenced at the same time",
                both.display()
            ));
        }
        match self.steps.first() {
            Some(Step::Fence { disks, targets, .. }) => {
                let same = disks.iter().map(PathBuf::as_path).collect::<BTreeSet<_>>() == fenced
                    && targets
                        .iter()
                        .map(PathBuf::as_path)
                        .collect::<BTreeSet<_>>()
                        == assigned;
                if !same {
                    return Some("the fence is not around the assigned disks".to_owned());
                }
            }
            _ => return Some("the first step is not the fence".to_owned()),
        }
        // Devices that the plan itself makes on assigned disks.
        let mut made: BTreeSet<PathBuf> = BTreeSet::new();
        let mut groups: BTreeSet<&str> = BTreeSet::new();
        let mut members: BTreeSet<PathBuf> = BTreeSet::new();
        for step in &self.steps {
            let ok = |device: &Path| assigned.contains(device) || made.contains(device);
            let mut bad: Option<PathBuf> = None;
            for device in step.writes_to() {
                if !ok(&device) {
                    bad = Some(device);
                }
            }
            match step {
                Step::WriteGpt {
                    device, partitions, ..
                }
                | Step::WriteMbr {
                    device, partitions, ..
                } => {
                    for part in partitions {
                        if part.device != super::partition_path(device, part.number) {
                            bad = Some(part.device.clone());
                        }
                    }
                    made.extend(partitions.iter().map(|p| p.device.clone()));
                }
                Step::ZpoolCreate { pool, .. } if !made.insert(PathBuf::from(&pool.name)) => {
                    return Some(format!("two pools are called {}", pool.name));
                }
                Step::ZfsCreate { name, .. } => {
                    // Datasets are mounted by name, as if they were devices.
                    if !pool_of(name).is_some_and(|pool| made.contains(Path::new(pool))) {
                        return Some(format!("{name} is in a pool that the plan does not make"));
                    }
                    made.insert(PathBuf::from(name));
                }
                Step::ZpoolFinish { pool: name, .. }
                | Step::ZfsSet { name, .. }
                | Step::ZpoolExport { pool: name }
                    if !pool_of(name).is_some_and(|pool| made.contains(Path::new(pool))) =>
                {
                    return Some(format!("\"{step}\": the plan does not make that pool"));
                }
                Step::VgCreate { name, .. } | Step::GroupUse { name, .. } => {
                    groups.insert(name);
                }
                Step::KeepOthers {
                    device,
                    used,
                    protect,
                } => {
                    let places = used.iter().map(|u| &u.device);
                    for place in places.chain(protect) {
                        if !is_partition_of(device, place) {
                            bad = Some(place.clone());
                        }
                    }
                    made.extend(used.iter().map(|u| u.device.clone()));
                }
                Step::RestoreTable {
                    device, partitions, ..
                } => {
                    for part in partitions {
                        if part.device != super::partition_path(device, part.number) {
                            bad = Some(part.device.clone());
                        }
                    }
                }
                Step::LuksErase { name } if !made.contains(&super::luks::mapping(name)) => {
                    bad = Some(super::luks::mapping(name));
                }
                Step::VolumeUse { vg, name, .. } => {
                    if !groups.contains(vg.as_str()) {
                        return Some(format!(
                            "{vg}/{name} is in a group that the plan does not check"
                        ));
                    }
                    made.insert(Path::new("/dev").join(vg).join(name));
                }
                Step::LuksOpen { name, .. } | Step::LuksUse { name, .. }
                    if !made.insert(super::luks::mapping(name)) =>
                {
                    return Some(format!("two LUKS containers are called {name}"));
                }
                Step::RaidCreate {
                    device,
                    devices,
                    array,
                }
                | Step::RaidUse {
                    device,
                    devices,
                    array,
                } => {
                    if devices.len() != array.members.len() {
                        return Some(format!(
                            "not every member of array {} has a device",
                            array.name
                        ));
                    }
                    // No number twice, and none that another array may have.
                    if !super::raid::is_ours(device) || !made.insert(device.clone()) {
                        bad = Some(device.clone());
                    }
                    // A member of two arrays would be overwritten by the second.
                    for member in devices {
                        if !members.insert(member.clone()) {
                            return Some(format!("{} is a member of two arrays", member.display()));
                        }
                    }
                }
                Step::LvCreate { vg, name, .. } | Step::ThinPoolCreate { vg, name, .. } => {
                    if !groups.contains(vg.as_str()) {
                        return Some(format!(
                            "{vg}/{name} is in a group that the plan does not make"
                        ));
                    }
                    made.insert(Path::new("/dev").join(vg).join(name));
                }
                Step::CacheCreate { vg, .. }
                | Step::CacheAttach { vg, .. }
                | Step::VgSettings { name: vg, .. }
                    if !groups.contains(vg.as_str()) =>
                {
                    return Some(format!("\"{step}\": the plan does not make the group {vg}"));
                }
                _ => {}
            }
            if let Some(device) = bad {
                return Some(format!(
                    "\"{step}\" would write to {}, which is not assigned",
                    device.display()
                ));
            }
        }
        self.destroys_what_stays()
    }

    /// Whether a step of a plan in place makes something anew that has to stay.
    fn destroys_what_stays(&self) -> Option<String> {
        self.in_place.as_ref()?;
        let protected: BTreeSet<&PathBuf> = self
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::KeepOthers { protect, .. } => Some(protect),
                _ => None,
            })
            .flatten()
            .collect();
        let writes_to_protected =
            |step: &Step| step.writes_to().iter().any(|d| protected.contains(d));
        let disks: BTreeSet<&PathBuf> = self.disks.iter().map(|d| &d.device).collect();
        // A filesystem on a whole disk is one that was saved like that.
        let whole_disk = |step: &Step| match step {
            Step::Clear { device } => {
                disks.contains(device)
                    && self.steps.iter().any(|s| {
                        matches!(s, Step::KeepOthers { device: of, used, protect }
                            if of == device && !(used.is_empty() && protect.is_empty()))
                    })
            }
            _ => false,
        };
        let mode = self.mode();
        let step = self.steps.iter().find(|step| {
            makes_containers(step)
                || writes_to_protected(step)
                || whole_disk(step)
                || !belongs_to(mode, step)
        });
        step.map(|step| format!("\"{step}\" would destroy what has to stay"))
    }
}

/// Whether a step that writes to disks is one of those that a mode in place is made of.
fn belongs_to(mode: Mode, step: &Step) -> bool {
    match step {
        // Whatever the mode, it looks, opens and closes.
        Step::Fence { .. } => true,
        Step::RestoreTable { .. } => mode == Mode::TableRepair,
        _ if mode == Mode::TableRepair => false,
        Step::Clear { .. }
        | Step::MakeExt4 { .. }
        | Step::MakeXfs { .. }
        | Step::MakeVfat { .. }
        | Step::GrubBios { .. }
        | Step::GrubEfi { .. }
        | Step::ProxmoxBoot { .. }
        | Step::MakeSwapFile { .. } => mode == Mode::SystemOnly,
        Step::KeepVfat { .. } | Step::BootCode { .. } | Step::GrubFromHost { .. } => {
            mode == Mode::BootRepair
        }
        _ => true,
    }
}

/// Steps that belong to bare metal only.
fn makes_containers(step: &Step) -> bool {
    matches!(
        step,
        Step::Wipe { .. }
            | Step::WriteGpt { .. }
            | Step::WriteMbr { .. }
            | Step::LuksHeader { .. }
            | Step::LuksErase { .. }
            | Step::RaidCreate { .. }
            | Step::PvCreate { .. }
            | Step::VgCreate { .. }
            | Step::LvCreate { .. }
            | Step::ThinPoolCreate { .. }
            | Step::CacheCreate { .. }
            | Step::CacheAttach { .. }
            | Step::VgSettings { .. }
            | Step::MakeBtrfs { .. }
            | Step::MakeSubvolumes { .. }
            | Step::ZpoolCreate { .. }
            | Step::ZfsCreate { .. }
            | Step::RestoreImage { .. }
            | Step::MakeSwap { .. }
    )
}

/// Whether a device node is one of a disk's partitions.
fn is_partition_of(disk: &Path, part: &Path) -> bool {
    (1..=256).any(|n| super::partition_path(disk, n) == part)
}

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
                    if super::luks::unsound(name) =>
                {
                    return forged("LUKS container", name);
                }
                Step::LuksHeader { luks, .. } if super::luks::unsound(&luks.name) => {
                    return forged("LUKS container", &luks.name);
                }
                Step::RaidCreate { array, .. } | Step::RaidUse { array, .. } => {
                    if let Some(reason) = super::raid::unsound(array) {
                        return Some(format!("array {:?}: {reason}", array.name));
                    }
                }
                Step::ZpoolCreate { pool, root, .. } => {
                    if let Some(reason) = super::zfs::unsound(pool) {
                        return Some(format!("pool {:?}: {reason}", pool.name));
                    }
                    if let Some(name) = root.keys().find(|p| !super::zfs::is_property(p)) {
                        return forged("property", name);
                    }
                    if let Some((_, place)) =
                        (root.iter()).find(|(p, v)| super::zfs::leads_outside(p, v))
                    {
                        return forged("mount point", place);
                    }
                }
                Step::ZfsCreate { name, .. } | Step::ZfsSet { name, .. }
                    if !super::zfs::is_zfs_name(name) =>
                {
                    return forged("dataset", name);
                }
                Step::ZfsCreate { properties, .. } => {
                    if let Some(name) = properties.keys().find(|p| !super::zfs::is_property(p)) {
                        return forged("property", name);
                    }
                    if let Some((_, place)) =
                        (properties.iter()).find(|(p, v)| super::zfs::leads_outside(p, v))
                    {
                        return forged("mount point", place);
                    }
                }
                Step::ZfsSet { property, .. } if !super::zfs::is_property(property) => {
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
pub(super) fn stays_inside(path: &Path) -> bool {
    let down = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(down)
}

/// Is it one line of fstab(5)?
fn is_fstab_line(line: &str) -> bool {
    line.split_whitespace().count() == 6 && !line.contains('\n') && !line.starts_with('#')
}

/// The pool that a dataset is in.
fn pool_of(name: &str) -> Option<&str> {
    name.split('/').next()
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

impl Step {
    /// The block devices that a step writes to.
    pub fn writes_to(&self) -> Vec<PathBuf> {
        match self {
            Step::Wipe { device, .. }
            | Step::WriteGpt { device, .. }
            | Step::WriteMbr { device, .. }
            | Step::PvCreate { device, .. }
            | Step::MakeExt4 { device, .. }
            | Step::MakeXfs { device, .. }
            | Step::MakeVfat { device, .. }
            | Step::MakeSwap { device, .. }
            | Step::RestoreImage { device, .. }
            | Step::LuksHeader { device, .. }
            | Step::LuksOpen { device, .. }
            | Step::Mount { device, .. }
            | Step::KeepOthers { device, .. }
            | Step::LuksUse { device, .. }
            | Step::Clear { device }
            | Step::RestoreTable { device, .. }
            | Step::KeepVfat { device, .. }
            | Step::BootCode { device }
            | Step::GrubBios { device, .. }
            | Step::EfiBootEntry { device, .. } => vec![device.clone()],
            Step::MakeBtrfs { devices, .. }
            | Step::MakeSubvolumes { devices, .. }
            | Step::MountSubvolume { devices, .. } => devices.clone(),
            Step::VgCreate { devices, .. }
            | Step::RaidCreate { devices, .. }
            | Step::RaidUse { devices, .. } => devices.clone(),
            Step::GroupUse { pvs, .. } => pvs.iter().map(|pv| pv.device.clone()).collect(),
            Step::RaidStop { device } => vec![device.clone()],
            Step::GrubEfi { device, .. } => device.iter().cloned().collect(),
            Step::ProxmoxBoot { esps } => esps.iter().map(|esp| esp.device.clone()).collect(),
            Step::InitramfsDrivers { .. } => Vec::new(),
            Step::ZpoolCreate { vdevs, .. } => {
                vdevs.iter().flat_map(|v| v.devices.clone()).collect()
            }
            Step::LvCreate { pvs, .. } | Step::CacheCreate { pvs, .. } => pvs.clone(),
            Step::ThinPoolCreate {
                pvs, metadata_pvs, ..
            } => pvs.iter().chain(metadata_pvs).cloned().collect(),
            Step::VgSettings { pvs, .. } => pvs.iter().map(|pv| pv.device.clone()).collect(),
            Step::Fence { .. }
            | Step::CacheAttach { .. }
            | Step::VolumeUse { .. }
            | Step::MountReadOnly { .. }
            | Step::CheckBoot { .. }
            | Step::CheckPlaces { .. }
            | Step::GrubFromHost { .. }
            | Step::LuksKey { .. }
            | Step::LuksErase { .. }
            | Step::LuksClose { .. }
            | Step::UpdateCrypttab { .. }
            | Step::RestoreTree { .. }
            | Step::MakeSwapFile { .. }
            | Step::SealSubvolumes { .. }
            | Step::NameSubvolumes { .. }
            | Step::UpdateFstab { .. }
            | Step::UpdateInitramfs { .. }
            | Step::GrubConfig
            | Step::Unmount
            | Step::ZfsCreate { .. }
            | Step::ZpoolFinish { .. }
            | Step::ZfsSet { .. }
            | Step::ZpoolExport { .. }
            | Step::Deactivate { .. } => Vec::new(),
        }
    }

    /// Programs that must be there in the rescue system (what runs inside the restored host is not listed).
    pub fn tools(&self) -> &'static [&'static str] {
        match self {
            Step::Wipe { .. } => &["wipefs", "blkid", "udevadm"],
            Step::WriteGpt { .. } | Step::WriteMbr { .. } => &["wipefs", "udevadm"],
            Step::PvCreate { .. }
            | Step::VgCreate { .. }
            | Step::LvCreate { .. }
            | Step::VgSettings { .. }
            | Step::CacheCreate { .. }
            | Step::Deactivate { .. } => &["lvm"],
            Step::CacheAttach { cache, .. } if cache.kind == "cache" => &["lvm", "cache_check"],
            Step::CacheAttach { .. } => &["lvm"],
            Step::ThinPoolCreate { .. } => &["lvm", "thin_check"],
            Step::LuksKey { .. }
            | Step::LuksHeader { .. }
            | Step::LuksOpen { .. }
            | Step::LuksErase { .. }
            | Step::LuksUse { .. }
            | Step::LuksClose { .. } => &["cryptsetup", "blkid", "udevadm"],
            Step::RaidCreate { .. } | Step::RaidStop { .. } | Step::RaidUse { .. } => {
                &["mdadm", "udevadm"]
            }
            Step::KeepOthers { .. } | Step::RestoreTable { .. } => &["udevadm"],
            Step::GroupUse { .. } | Step::VolumeUse { .. } => &["lvm"],
            Step::Clear { .. } => &["wipefs"],
            Step::KeepVfat { .. } => &["blkid", "fsck.vfat", "mkfs.vfat", "wipefs"],
            Step::MountReadOnly { .. } | Step::CheckPlaces { .. } => &["blkid"],
            Step::MakeExt4 { .. } => &["mke2fs", "tune2fs", "dumpe2fs"],
            Step::MakeXfs { .. } => &["mkfs.xfs"],
            Step::MakeVfat { .. } => &["mkfs.vfat"],
            Step::MakeSwap { .. } => &["mkswap"],
            Step::ZpoolCreate { .. } => &["zpool", "zfs", "zdb"],
            Step::MakeSwapFile { no_cow: true, .. } => &["chattr", "mkswap"],
            Step::MakeSwapFile { .. } => &["mkswap"],
            Step::MakeBtrfs { .. } => &["btrfs", "mkfs.btrfs"],
            Step::MakeSubvolumes { .. } | Step::SealSubvolumes { .. } => &["btrfs"],
            _ => &[],
        }
    }
}

/// The tools of all steps, sorted.
pub(super) fn tools(steps: &[Step]) -> Vec<String> {
    let all: BTreeSet<&str> = steps
        .iter()
        .flat_map(|step| step.tools())
        .copied()
        .collect();
    all.into_iter().map(str::to_owned).collect()
}
