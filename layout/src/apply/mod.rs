//! Carries a plan out: check, do, verify, journal.

mod boot;
mod btrfs;
mod chroot;
mod disk;
#[cfg(test)]
pub(crate) mod fakes;
mod fs;
pub(crate) mod gpt;
mod in_place;
mod journal;
pub mod luks;
mod lvm;
pub(crate) mod mbr;
mod mount;
mod raid;
mod swap_file;
pub(crate) mod table;
mod thin;
mod zfs;

pub use mount::unmount_below;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::capture::CaptureError;
use crate::model::{Layout, NodeId, Table};
use crate::plan::{Plan, Step};
use crate::system::{System, SystemError};

/// Why content could not be restored.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct ContentError {
    what: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ContentError {
    /// With a text only.
    pub fn new(what: impl Into<String>) -> ContentError {
        ContentError {
            what: what.into(),
            source: None,
        }
    }
    /// With the cause.
    pub fn caused(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ContentError {
        let source = source.into();
        ContentError {
            what: format!("{}: {source}", what.into()),
            source: Some(source),
        }
    }
}

/// Where files and images come from.
pub trait Content {
    /// Restores the files of the filesystem that was mounted at `mount_point` into the directory `into`.
    fn restore_tree(&mut self, mount_point: &Path, into: &Path) -> Result<(), ContentError>;
    /// Writes the image of the saved partition `node`, or the header of the LUKS container `node`, to `device`, which may
    /// be an empty file.
    fn restore_image(&mut self, node: &NodeId, device: &Path) -> Result<(), ContentError>;
    /// All files are there, below `root`, and nothing is made of them yet: what else they need on this machine. Says whether
    /// the initramfs may have copies of what was changed. May be called again, with files that were restored again.
    fn files_complete(&mut self, _root: &Path, _note: &dyn Fn(&str)) -> Result<bool, ContentError> {
        Ok(false)
    }
    /// What opens the LUKS container `node`, called `name`: a passphrase, or the content of a key file. Asked for several
    /// times.
    fn luks_key(&mut self, node: &NodeId, name: &str) -> Result<Vec<u8>, ContentError> {
        Err(ContentError::new(format!(
            "the LUKS container {name} ({node}) needs a passphrase or a key file, and none was given"
        )))
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// Everything was so already.
    AlreadySo,
}

/// Who is told about progress.
pub trait Events: Send + Sync {
    /// A step starts; `index` from 0.
    fn step_started(&self, index: usize, total: usize, step: &Step);
    /// A step ended well.
    fn step_done(&self, index: usize, total: usize, step: &Step, outcome: Outcome, took: Duration);
    /// Something worth knowing.
    fn note(&self, text: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Events for Silent {
    fn step_started(&self, _: usize, _: usize, _: &Step) {}
    fn step_done(&self, _: usize, _: usize, _: &Step, _: Outcome, _: Duration) {}
    fn note(&self, _: &str) {}
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The machine refused.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The machine could not be looked at.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Files or images could not be restored.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// An operation on a device or file failed.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The safety rules forbid to go on.
    #[error("{0}")]
    Refused(String),
    /// The step was done and the result is not as planned.
    #[error("{0}")]
    Verify(String),
}

/// A restore that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A step failed. The restore can be started again once the cause is gone.
    #[error("step {} of {total} failed: {step}: {source}", index + 1)]
    Step {
        /// From 0.
        index: usize,
        /// Number of steps.
        total: usize,
        /// The step.
        step: Box<Step>,
        /// Why.
        source: StepError,
    },
    /// The plan writes to a disk that is not a target.
    #[error("the plan is not safe: {0}")]
    Unsafe(String),
}

/// Carries the plan out. Filesystems are mounted below `root`; `journal` gets a line of JSON per event.
pub fn apply(
    sys: &dyn System,
    plan: &Plan,
    saved: &Layout,
    root: &Path,
    content: &mut dyn Content,
    events: &dyn Events,
    journal: &mut dyn Write,
) -> Result<(), ApplyError> {
    if let Some(reason) = plan.writes_outside() {
        return Err(ApplyError::Unsafe(reason));
    }
    let mut executor = Executor {
        sys,
        plan,
        saved,
        root,
        content,
        events,
        held: Vec::new(),
    };
    let total = plan.steps.len();
    for (index, step) in plan.steps.iter().enumerate() {
        events.step_started(index, total, step);
        journal::line(journal, index, step, "start", "");
        let start = Instant::now();
        match executor.step(step) {
            Ok(outcome) => {
                let word = if outcome == Outcome::Done {
                    "done"
                } else {
                    "already so"
                };
                journal::line(
                    journal,
                    index,
                    step,
                    word,
                    &format!("{} ms", start.elapsed().as_millis()),
                );
                events.step_done(index, total, step, outcome, start.elapsed());
            }
            Err(source) => {
                journal::line(journal, index, step, "failed", &source.to_string());
                // Nothing may stay mounted: the next attempt, or a look from the shell, starts from a clean state.
                if let Err(error) = executor.unmount() {
                    events.note(&format!("could not unmount after the failure: {error}"));
                }
                return Err(ApplyError::Step {
                    index,
                    total,
                    step: Box::new(step.clone()),
                    source,
                });
            }
        }
    }
    Ok(())
}

/// Looks at the result of a restore: opens the containers with the keys that `content` has, activates the volumes, mounts the filesystems read-only below `root`, captures, and
/// takes everything down again. Compare with [`crate::diff::diff`].
pub fn recapture(
    sys: &dyn System,
    plan: &Plan,
    saved: &Layout,
    root: &Path,
    content: &mut dyn Content,
) -> Result<Layout, StepError> {
    let mut executor = Executor {
        sys,
        plan,
        saved,
        root,
        content,
        events: &Silent,
        held: Vec::new(),
    };
    let result = executor.look();
    let down = executor.take_down();
    let layout = result?;
    down?;
    Ok(layout)
}

/// Makes a fenced disk writable again, for the logs on the medium that holds the bundle. Only after the restore.
pub fn lift_fence(sys: &dyn System, device: &Path) -> Result<(), StepError> {
    disk::set_read_only(sys, device, false)
}

/// Carries out steps.
pub(crate) struct Executor<'a> {
    pub sys: &'a dyn System,
    pub plan: &'a Plan,
    pub saved: &'a Layout,
    pub root: &'a Path,
    pub content: &'a mut dyn Content,
    pub events: &'a dyn Events,
    /// The target disks, from the fence to the end.
    pub held: Vec<std::fs::File>,
}

impl Executor<'_> {
    fn step(&mut self, step: &Step) -> Result<Outcome, StepError> {
        match step {
            Step::Fence {
                disks,
                targets,
                vgs,
            } => self.fence(disks, targets, vgs),
            Step::Wipe { device, size } => self.wipe(device, *size),
            Step::WriteGpt {
                device,
                table,
                sector_size,
                sectors,
                partitions,
            } => self.write_table(
                device,
                &gpt::Table {
                    table,
                    sector: *sector_size,
                    sectors: *sectors,
                    partitions,
                },
            ),
            Step::LuksKey {
                node,
                name,
                data_offset,
            } => self.luks_key(node, name, *data_offset),
            Step::LuksHeader { node, device, luks } => self.luks_header(node, device, luks),
            Step::LuksOpen { node, device, name } => self.luks_open(node, device, name),
            Step::LuksErase { name } => self.luks_erase(name),
            Step::LuksClose { name } => self.luks_close(name),
            Step::UpdateCrypttab {
                replace,
                switch_off,
            } => self.update_crypttab(replace, switch_off),
            Step::RaidCreate {
                device,
                devices,
                array,
            } => self.raid_create(device, devices, array),
            Step::WriteMbr {
                device,
                table,
                sector_size,
                sectors,
                partitions,
            } => self.write_table(
                device,
                &mbr::Table {
                    table,
                    sector: *sector_size,
                    sectors: *sectors,
                    partitions,
                },
            ),
            Step::PvCreate {
                device,
                uuid,
                pe_start,
            } => self.pv_create(device, uuid, *pe_start),
            Step::VgCreate {
                name,
                devices,
                extent_size,
                tags,
            } => self.vg_create(name, devices, *extent_size, tags),
            Step::LvCreate { .. } => self.lv_create(step),
            Step::ThinPoolCreate { .. } => self.thin_pool(step),
            Step::CacheCreate { vg, cache, pvs } => self.cache_create(vg, cache, pvs),
            Step::CacheAttach { vg, volume, cache } => self.cache_attach(vg, volume, cache),
            Step::VgSettings {
                name,
                settings,
                pvs,
            } => self.vg_settings(name, settings, pvs),
            Step::MakeExt4 { device, fs, fill } => self.make_ext4(device, fs, *fill),
            Step::MakeXfs { device, fs, fill } => self.make_xfs(device, fs, *fill),
            Step::MakeVfat { device, fs } => self.make_vfat(device, fs),
            Step::MakeBtrfs { devices, fs } => self.make_btrfs(devices, fs),
            Step::MakeSubvolumes {
                devices,
                subvolumes,
                default,
            } => self.make_subvolumes(devices, subvolumes, default),
            Step::MountSubvolume {
                devices,
                subvolume,
                options,
                mount_point,
            } => self.mount_subvolume(devices, subvolume, options, mount_point, false),
            Step::SealSubvolumes { mount_points } => self.seal_subvolumes(mount_points),
            Step::NameSubvolumes { replace } => self.name_subvolumes(replace),
            Step::MakeSwap {
                device,
                uuid,
                label,
                page_size,
            } => self.make_swap(device, uuid, label.as_deref(), *page_size),
            Step::RestoreImage { node, device, .. } => {
                self.content.restore_image(node, device)?;
                Ok(Outcome::Done)
            }
            Step::Mount {
                device,
                fstype,
                mount_point,
            } => self.mount(device, fstype, mount_point, false),
            Step::RestoreTree { mount_point } => {
                let into = self.inside(mount_point);
                self.content.restore_tree(mount_point, &into)?;
                Ok(Outcome::Done)
            }
            Step::MakeSwapFile {
                path,
                size,
                uuid,
                label,
                page_size,
                no_cow,
            } => {
                let wanted = swap_file::header(uuid.as_ref(), label.as_ref(), *page_size, *size);
                self.make_swap_file(path, &wanted, *no_cow)
            }
            Step::UpdateFstab {
                replace,
                switch_off,
                add,
            } => self.update_fstab(replace, switch_off, add),
            Step::InitramfsDrivers { devices } => self.initramfs_drivers(devices),
            Step::UpdateInitramfs { .. } => self.update_initramfs(),
            Step::GrubBios { device, modules } => self.grub_bios(device, modules),
            Step::GrubEfi {
                esp,
                device,
                bootloader_id,
                shim,
            } => self.grub_efi(esp, device.as_deref(), bootloader_id, *shim),
            Step::GrubConfig => self.grub_config(),
            Step::ProxmoxBoot { esps } => self.proxmox_boot(esps),
            Step::EfiBootEntry {
                device,
                partition,
                partuuid,
                label,
                loader,
            } => self.efi_entry(device, *partition, partuuid, label, loader),
            Step::ZpoolCreate { pool, vdevs, root } => self.zpool_create(pool, vdevs, root),
            Step::ZfsCreate { name, properties } => self.zfs_create(name, properties),
            Step::ZpoolFinish { pool, bootfs } => self.zpool_finish(pool, bootfs.as_deref()),
            Step::ZfsSet {
                name,
                property,
                value,
            } => self.zfs_set(name, property, value),
            Step::ZpoolExport { pool } => self.zpool_export(pool),
            Step::Unmount => {
                self.check_names();
                self.unmount()
            }
            Step::Deactivate { vgs, read_only } => self.deactivate(vgs, read_only),
            Step::RaidStop { device } => self.raid_stop(device),
            Step::KeepOthers {
                device,
                used,
                protect,
            } => self.keep_others(device, used, protect),
            Step::LuksUse {
                node,
                device,
                name,
                uuid,
            } => self.luks_use(node, device, name, uuid),
            Step::RaidUse {
                device,
                devices,
                array,
            } => self.raid_use(device, devices, array),
            Step::GroupUse { name, pvs } => self.group_use(name, pvs),
            Step::VolumeUse {
                vg,
                name,
                at_least,
                read_only,
            } => self.volume_use(vg, name, *at_least, *read_only),
            Step::CheckPlaces { devices } => self.check_places(devices),
            Step::Clear { device } => self.clear(device),
            Step::RestoreTable {
                device,
                table,
                sector_size,
                sectors,
                partitions,
            } => match table {
                Table::Gpt(table) => self.restore_table(
                    device,
                    &gpt::Table {
                        table,
                        sector: *sector_size,
                        sectors: *sectors,
                        partitions,
                    },
                ),
                Table::Mbr(table) => self.restore_table(
                    device,
                    &mbr::Table {
                        table,
                        sector: *sector_size,
                        sectors: *sectors,
                        partitions,
                    },
                ),
            },
            Step::KeepVfat { device, fs } => self.keep_vfat(device, fs),
            Step::MountReadOnly {
                device,
                fstype,
                uuid,
                mount_point,
            } => self.mount_read_only(device, fstype, uuid, mount_point),
            Step::CheckBoot { code } => self.check_boot(*code),
            Step::GrubFromHost {
                esp,
                bootloader_id,
                shim,
            } => self.grub_from_host(esp, bootloader_id, *shim),
            Step::BootCode { device } => self.boot_code(device),
        }
    }

    /// A path of the restored host as it is reached from here.
    pub fn inside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Starts everything that the plan made, in the same order.
    fn bring_up(&mut self) -> Result<(), StepError> {
        let plan = self.plan;
        for step in &plan.steps {
            match step {
                Step::RaidCreate {
                    device,
                    devices,
                    array,
                } => self.raid_assemble(device, devices, array)?,
                Step::LuksOpen { node, device, name } => {
                    self.luks_open(node, device, name)?;
                }
                Step::ZpoolCreate { pool, vdevs, .. } => self.zpool_import(pool, vdevs)?,
                Step::VgCreate { name, .. } => self.activate(name)?,
                Step::RaidUse { .. } | Step::LuksUse { .. } | Step::VolumeUse { .. } => {
                    self.step(step)?;
                }
                Step::LvCreate { vg, name, .. } => {
                    self.wait_for(&crate::capture::volumes::lv_path(vg, name))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<Layout, StepError> {
        self.bring_up()?;
        for step in &self.plan.steps {
            if let Step::Mount {
                device,
                fstype,
                mount_point,
            } = step
            {
                self.mount(device, fstype, mount_point, true)?;
            }
            if let Step::MountSubvolume {
                devices,
                subvolume,
                mount_point,
                ..
            } = step
            {
                self.mount_subvolume(devices, subvolume, &[], mount_point, true)?;
            }
        }
        let disks: Vec<PathBuf> = self.plan.disks.iter().map(|d| d.device.clone()).collect();
        Ok(crate::capture::capture_at(
            self.sys,
            self.root,
            Some(&disks),
        )?)
    }

    fn take_down(&mut self) -> Result<(), StepError> {
        self.unmount()?;
        let plan = self.plan;
        for step in &plan.steps {
            match step {
                Step::Deactivate { vgs, .. } => {
                    self.deactivate(vgs, &[])?;
                }
                Step::LuksClose { name } => {
                    self.luks_close(name)?;
                }
                Step::RaidStop { device } => {
                    self.raid_stop(device)?;
                }
                Step::ZpoolExport { pool } => {
                    self.zpool_export(pool)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

pub(crate) fn io_error(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> StepError {
    let path = path.to_owned();
    move |source| StepError::Io { what, path, source }
}
