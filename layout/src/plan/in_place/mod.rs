//! Plans that leave partitions and volumes where they are: table repair, boot repair, system only.
//!
//! What is on the disks now is compared with what was saved, before anything is planned: a partition, group or volume that
//! is not there any more is a refusal that names it. What cannot be seen without a key or a running array is compared when
//! it is open, and before the first write.

mod assign;
mod boot;
mod kept;
mod locate;
mod system;
mod table;

pub(crate) use assign::assign;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::build::{Builder, sound};
use super::fit::Fit;
use super::{Choices, DiskAssignment, Mode, Plan, PlanError, Step};
use crate::inventory::{Inventory, Present};
use crate::model::{Layout, NodeId};
use locate::Ground;

/// What a plan in place makes anew, and what it leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InPlace {
    /// Which of the modes.
    pub mode: Mode,
    /// What is made anew: all that is in it now is lost.
    pub remade: Vec<Remade>,
    /// What stays on the disks that are written to.
    pub kept: Vec<Kept>,
    /// Saved nodes that are compared with the machine at the end; `boot`: the boot loaders.
    pub compared: BTreeSet<NodeId>,
}

/// Something that is made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remade {
    /// On which disk.
    pub disk: PathBuf,
    /// In words: `/: ext4 on logical volume pve/root, 3 GiB`.
    pub what: String,
}

/// What stays on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The disk.
    pub disk: PathBuf,
    /// In words, one for each thing.
    pub what: Vec<String>,
}

/// Computes what a restore in place does.
pub(super) fn plan(
    saved: &Layout,
    inventory: &Inventory,
    choices: &Choices,
) -> Result<Plan, PlanError> {
    let Some(present) = inventory.present.as_deref() else {
        return Err(refusal(
            choices.mode,
            vec!["the inventory does not say what is on the disks".to_owned()],
        ));
    };
    let disks = assign(saved, inventory, choices)?;
    match choices.mode {
        Mode::TableRepair => table::plan(saved, inventory, present, choices, disks),
        Mode::BootRepair => boot::plan(saved, inventory, present, choices, disks),
        Mode::SystemOnly | Mode::BareMetal => {
            system::plan(saved, inventory, present, choices, disks)
        }
    }
}

/// A refusal, with what to do instead.
fn refusal(mode: Mode, reasons: Vec<String>) -> PlanError {
    let instead = match mode {
        Mode::TableRepair => {
            "Nothing was written. Where the table can be read, boot repair or system only help; where the contents are \
             gone, only bare metal does"
        }
        Mode::BootRepair => {
            "Nothing was written. System only makes the system's filesystems anew and keeps guests; table repair brings \
             back a lost partition table; bare metal makes everything anew"
        }
        Mode::SystemOnly | Mode::BareMetal => {
            "Nothing was written. Table repair brings back a lost partition table; bare metal makes everything anew, and \
             guests come back from their own backups"
        }
    };
    PlanError::NotInPlace {
        mode,
        reasons,
        instead: instead.to_owned(),
    }
}

/// What all plans in place begin with: a builder that makes nothing below filesystems, and the ground that they stand on.
struct Draft<'a> {
    builder: Builder<'a>,
    ground: Ground<'a>,
    present: &'a Present,
    mode: Mode,
}

impl<'a> Draft<'a> {
    fn new(
        saved: &'a Layout,
        inventory: &'a Inventory,
        present: &'a Present,
        choices: &'a Choices,
        disks: Vec<DiskAssignment>,
        read_only: bool,
    ) -> Draft<'a> {
        let ground = Ground::new(saved, &present.layout, disks.clone(), read_only);
        let builder = Builder {
            saved,
            inventory,
            choices,
            disks,
            merged: Vec::new(),
            switch_off: Vec::new(),
            crypttab_off: Vec::new(),
            names: crate::plan::reshape::device_names(saved),
            relevant: BTreeSet::new(),
            devices: Default::default(),
            fit: Fit::default(),
            steps: Vec::new(),
            sizes: Vec::new(),
            notes: Vec::new(),
            substitutions: Vec::new(),
        };
        Draft {
            builder,
            ground,
            present,
            mode: choices.mode,
        }
    }

    /// The steps up to where everything that is needed is open; refuses when something is not as it was saved.
    fn open(&mut self) -> Result<(), PlanError> {
        if !self.ground.problems.is_empty() {
            return Err(refusal(
                self.mode,
                std::mem::take(&mut self.ground.problems),
            ));
        }
        let fence = self.builder.fence();
        let steps = &mut self.builder.steps;
        steps.push(Step::Fence {
            disks: fence.iter().map(|d| d.device.clone()).collect(),
            targets: self
                .builder
                .disks
                .iter()
                .map(|d| d.device.clone())
                .collect(),
            vgs: self.ground.groups(),
        });
        for disk in &self.builder.disks {
            let used = self.ground.used_on(&disk.device);
            let protect = self.ground.others_on(&disk.device);
            steps.push(Step::KeepOthers {
                device: disk.device.clone(),
                used,
                protect,
            });
        }
        steps.extend(self.ground.uses.iter().cloned());
        if !self.ground.places.is_empty() {
            steps.push(Step::CheckPlaces {
                devices: self.ground.places.clone(),
            });
        }
        self.builder.devices.extend(self.ground.devices());
        for name in &self.ground.hidden_names {
            self.builder.notes.push(format!(
                "What is in {name} is compared with the backup when it is open, before anything is written."
            ));
        }
        Ok(())
    }

    /// Takes down what was opened, in the reverse order.
    fn take_down(&mut self) {
        let mut down: Vec<Step> = Vec::new();
        for step in self.ground.uses.iter().rev() {
            match step {
                Step::GroupUse { name, .. } => down.push(Step::Deactivate {
                    vgs: vec![name.clone()],
                    read_only: Vec::new(),
                }),
                Step::LuksUse { name, .. } => down.push(Step::LuksClose { name: name.clone() }),
                Step::RaidUse { device, .. } => down.push(Step::RaidStop {
                    device: device.clone(),
                }),
                _ => {}
            }
        }
        self.builder.steps.extend(down);
    }

    fn finish(self, remade: Vec<Remade>, compared: BTreeSet<NodeId>) -> Result<Plan, PlanError> {
        let kept = kept::kept(&self.ground, &self.present.layout);
        let in_place = InPlace {
            mode: self.mode,
            remade,
            kept,
            compared,
        };
        finish(self.builder, in_place)
    }
}

fn finish(builder: Builder<'_>, in_place: InPlace) -> Result<Plan, PlanError> {
    let fence = builder.fence();
    let tools = super::safety::tools(&builder.steps);
    sound(Plan {
        disks: builder.disks,
        merged: Vec::new(),
        fence,
        steps: builder.steps,
        sizes: builder.sizes,
        notes: builder.notes,
        tools,
        substitutions: builder.substitutions,
        in_place: Some(in_place),
    })
}

/// Whether a signature is that of a part of something else, which is lost with it: a volume group, an array, a pool. By the
/// words of blkid.
pub(crate) fn is_part_of_more(fstype: &str) -> bool {
    matches!(
        fstype,
        "LVM2_member"
            | "LVM1_member"
            | "LVM2_thinpool"
            | "DM_snapshot_cow"
            | "crypto_LUKS"
            | "BitLocker"
            | "linux_raid_member"
            | "ddf_raid_member"
            | "isw_raid_member"
            | "mpath_member"
            | "zfs_member"
            | "bcache"
            | "bcachefs"
            | "drbd"
            | "stratis"
            | "vdo"
            | "ceph_bluestore"
            | "VMFS_volume_member"
    )
}

/// A place in the host's tree that belongs to its system, and is made anew with it. What is not among them (`/home`,
/// `/srv`, `/var/lib/vz`) is data, and stays.
pub(super) fn is_of_the_system(mount_point: &Path) -> bool {
    const SYSTEM: [&str; 15] = [
        "/",
        "/boot",
        "/boot/efi",
        "/efi",
        "/etc",
        "/opt",
        "/root",
        "/usr",
        "/usr/local",
        "/var",
        "/var/cache",
        "/var/lib",
        "/var/log",
        "/var/spool",
        "/var/tmp",
    ];
    SYSTEM.iter().any(|s| mount_point == Path::new(s))
}
