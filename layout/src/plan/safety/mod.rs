//! Looks at a finished plan: does it stay on its disks, and which tools does it need?

mod names;
mod needs;

pub(super) use names::stays_inside;
pub(super) use needs::tools;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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

/// The pool that a dataset is in.
fn pool_of(name: &str) -> Option<&str> {
    name.split('/').next()
}
