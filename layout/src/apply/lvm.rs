//! LVM, restricted to the planned devices: an old group of the same name on another disk is not even seen.

use std::path::{Path, PathBuf};

use super::{Executor, Outcome, StepError};
use crate::capture::lvm::{Row, parse};
use crate::capture::segments::segment;
use crate::capture::volumes::lv_path;
use crate::model::{Segments, VolumeSettings};
use crate::plan::Step;
use crate::system::{Cmd, Output};
use crate::units::Bytes;

/// What [`segment`] reads.
const TYPE_FIELDS: &str = "lv_size,segtype,stripes,stripe_size,region_size,data_copies,mirror_log";

/// A size as LVM takes it.
pub(super) fn bytes(size: Bytes) -> String {
    format!("{}b", size.0)
}

/// Arguments of `lvcreate` for how the data lies on physical volumes (lvcreate(8), lvmraid(7)).
fn type_args(segments: &Segments) -> Vec<String> {
    let mut args = Vec::new();
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    match segments {
        // Nothing is made of pieces: the planner has put linear in its place. Thin volumes are made in another way.
        Segments::Linear | Segments::Thin | Segments::Mixed { .. } => {
            add("--type", "linear".to_owned())
        }
        Segments::Striped {
            stripes,
            stripe_size,
        } => {
            add("--type", "striped".to_owned());
            add("--stripes", stripes.to_string());
            add("--stripesize", bytes(*stripe_size));
        }
        Segments::Mirror {
            images,
            region_size,
            log,
        } => {
            add("--type", "mirror".to_owned());
            add("--mirrors", images.saturating_sub(1).to_string());
            add("--mirrorlog", log.clone());
            add("--regionsize", bytes(*region_size));
        }
        Segments::Raid {
            level,
            copies,
            stripe_size,
            region_size,
            ..
        } => {
            add("--type", level.clone());
            if *copies > 1 {
                add("--mirrors", copies.saturating_sub(1).to_string());
            }
            if level != "raid1" {
                // Those with data: parity is LVM's to add.
                add("--stripes", segments.parts().to_string());
                if *stripe_size > Bytes(0) {
                    add("--stripesize", bytes(*stripe_size));
                }
            }
            if *region_size > Bytes(0) {
                add("--regionsize", bytes(*region_size));
            }
        }
    }
    args
}

/// Arguments of `lvchange` for tags and for settings that are not LVM's own.
fn setting_args(tags: &[String], settings: &VolumeSettings) -> Vec<String> {
    let mut args = Vec::new();
    let mut add = |flag: &str, value: &str| args.extend([flag.to_owned(), value.to_owned()]);
    for tag in tags {
        add("--addtag", tag);
    }
    if let Some(policy) = &settings.allocation {
        add("--alloc", policy);
    }
    match settings.read_ahead {
        None => {}
        Some(Bytes(0)) => add("--readahead", "none"),
        // In sectors of 512 bytes, without a unit.
        Some(Bytes(bytes)) => add("--readahead", &(bytes / 512).to_string()),
    }
    if !settings.autoactivation {
        add("--setautoactivation", "n");
    }
    if settings.skip_activation {
        add("--setactivationskip", "y");
    }
    args
}

/// The physical volumes that a step makes or uses.
pub(super) fn physical_volumes(step: &Step) -> Vec<&Path> {
    match step {
        Step::PvCreate { device, .. } => vec![device],
        Step::GroupUse { pvs, .. } => pvs.iter().map(|pv| pv.device.as_path()).collect(),
        _ => Vec::new(),
    }
}

impl Executor<'_> {
    /// An `lvm` command that sees the planned physical volumes only.
    pub(super) fn lvm(&self, subcommand: &str) -> Cmd {
        let mut config = "devices{scan_lvs=0 filter=[\"a|.*|\"] global_filter=[\"a|.*|\"]} backup{backup=0 archive=0} \
                          activation{monitoring=0}"
            .to_owned();
        if !self.sys.exists(Path::new("/run/udev/control")) {
            // LVM would wait for ever for a udevd that is not there.
            config.push_str(" activation{monitoring=0 udev_sync=0 udev_rules=0}");
        }
        let mut command = Cmd::new("lvm").args([subcommand, "--config"]).arg(config);
        for step in &self.plan.steps {
            for device in physical_volumes(step) {
                command = command.arg("--devices").path(device);
            }
        }
        command
    }

    pub(super) fn run_lvm(&self, command: Cmd) -> Result<Output, StepError> {
        Ok(self.sys.run(&command)?)
    }

    pub(super) fn report(
        &self,
        subcommand: &str,
        key: &str,
        fields: &str,
        of: &str,
    ) -> Result<Option<Row>, StepError> {
        let command = self
            .lvm(subcommand)
            .args([
                "--reportformat",
                "json",
                "--units",
                "b",
                "--nosuffix",
                "-o",
                fields,
                of,
            ])
            .accept(5);
        let text = self.run_lvm(command)?.text();
        let rows = parse(&text, key)
            .map_err(|reason| StepError::Verify(format!("{subcommand} {of}: {reason}")))?;
        Ok(rows.into_iter().next())
    }

    pub(super) fn pv_create(
        &mut self,
        device: &Path,
        uuid: &str,
        pe_start: Bytes,
    ) -> Result<Outcome, StepError> {
        self.run_lvm(
            self.lvm("pvcreate")
                .args([
                    "--yes",
                    "--force",
                    "--force",
                    "--norestorefile",
                    "--uuid",
                    uuid,
                    "--dataalignment",
                ])
                .arg(format!("{}b", pe_start.0))
                .path(device),
        )?;
        let row = self.report("pvs", "pv", "pv_uuid,pe_start", &device.to_string_lossy())?;
        let found = row.map(|row| (row.text("pv_uuid").to_owned(), row.bytes("pe_start")));
        if found != Some((uuid.to_owned(), pe_start)) {
            return Err(StepError::Verify(format!(
                "{} became a physical volume with {found:?} instead of UUID {uuid} and first extent at {pe_start}",
                device.display()
            )));
        }
        Ok(Outcome::Done)
    }

    pub(super) fn vg_create(
        &mut self,
        name: &str,
        devices: &[PathBuf],
        extent_size: Bytes,
        tags: &[String],
    ) -> Result<Outcome, StepError> {
        let mut command = self
            .lvm("vgcreate")
            .args(["--yes", "--physicalextentsize"])
            .arg(format!("{}b", extent_size.0));
        for tag in tags {
            command = command.args(["--addtag", tag]);
        }
        command = command.arg(name);
        for device in devices {
            command = command.path(device);
        }
        self.run_lvm(command)?;
        let row = self.report("vgs", "vg", "vg_extent_size", name)?;
        if row.map(|row| row.bytes("vg_extent_size")) != Some(extent_size) {
            return Err(StepError::Verify(format!(
                "volume group {name} does not have extents of {extent_size}"
            )));
        }
        Ok(Outcome::Done)
    }

    /// Makes a volume and sees to it that it is as planned.
    pub(super) fn lv_create(&mut self, step: &Step) -> Result<Outcome, StepError> {
        let Step::LvCreate {
            vg,
            name,
            size,
            tags,
            pool,
            segments,
            pvs,
            settings,
            ..
        } = step
        else {
            return Ok(Outcome::AlreadySo);
        };
        match pool {
            Some(pool) => self.make_thin(vg, name, *size, pool)?,
            None => self.make_volume(vg, name, *size, segments, pvs)?,
        }
        self.settle_volume(vg, name, tags, settings)?;
        self.wait_for(&lv_path(vg, name))?;
        Ok(Outcome::Done)
    }

    /// `lvcreate`, and a look at the result.
    pub(super) fn make_volume(
        &self,
        vg: &str,
        name: &str,
        size: Bytes,
        segments: &Segments,
        pvs: &[PathBuf],
    ) -> Result<(), StepError> {
        let mut command = self
            .lvm("lvcreate")
            .args(["--yes", "--wipesignatures", "y", "--zero", "y", "--size"])
            .arg(bytes(size))
            .args(["--name", name])
            .args(type_args(segments))
            .arg(vg);
        for pv in pvs {
            command = command.path(pv);
        }
        self.run_lvm(command)?;
        self.verify_volume(vg, name, size, segments)
    }

    fn make_thin(&self, vg: &str, name: &str, size: Bytes, pool: &str) -> Result<(), StepError> {
        let command = self
            .lvm("lvcreate")
            .args(["--yes", "--wipesignatures", "y", "--type", "thin"])
            .arg("--virtualsize")
            .arg(bytes(size))
            .args(["--thinpool", pool, "--name", name, vg]);
        self.run_lvm(command)?;
        self.verify_volume(vg, name, size, &Segments::Thin)
    }

    fn verify_volume(
        &self,
        vg: &str,
        name: &str,
        size: Bytes,
        segments: &Segments,
    ) -> Result<(), StepError> {
        let of = format!("{vg}/{name}");
        let row = self
            .report("lvs", "lv", TYPE_FIELDS, &of)?
            .unwrap_or_default();
        let found = segment(&row);
        if row.bytes("lv_size") != size || found.as_ref() != Ok(segments) {
            return Err(StepError::Verify(format!(
                "{of} is {} of {} rather than {segments} of {size}",
                found.map_or_else(|other| other, |s| format!("{s:?}")),
                row.bytes("lv_size"),
            )));
        }
        Ok(())
    }

    /// Tags and settings. Set afterwards, so that an allocation policy is not in the way of the allocation.
    pub(super) fn settle_volume(
        &self,
        vg: &str,
        name: &str,
        tags: &[String],
        settings: &VolumeSettings,
    ) -> Result<(), StepError> {
        let args = setting_args(tags, settings);
        if args.is_empty() {
            return Ok(());
        }
        let command = self.lvm("lvchange").arg("--yes").args(args);
        self.run_lvm(command.arg(format!("{vg}/{name}")))?;
        Ok(())
    }

    /// Activates a group of the plan, to look at the result.
    pub(super) fn activate(&mut self, group: &str) -> Result<(), StepError> {
        let command = self.lvm("vgchange").args(["--activate", "y"]);
        self.run_lvm(command.args(["--ignoreactivationskip", "--yes", group]))?;
        for step in &self.plan.steps {
            match step {
                Step::LvCreate { vg, name, .. } if vg == group => {
                    self.wait_for(&lv_path(vg, name))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn deactivate(
        &mut self,
        vgs: &[String],
        read_only: &[String],
    ) -> Result<Outcome, StepError> {
        self.settle()?;
        for volume in read_only {
            self.run_lvm(
                self.lvm("lvchange")
                    .args(["--yes", "--permission", "r", volume]),
            )?;
        }
        for vg in vgs {
            self.run_lvm(self.lvm("vgchange").args(["--activate", "n", vg]))?;
        }
        self.settle()?;
        nix::unistd::sync();
        for step in &self.plan.steps {
            if let Step::LvCreate { vg, name, .. } | Step::VolumeUse { vg, name, .. } = step {
                if vgs.contains(vg) && self.sys.exists(&lv_path(vg, name)) {
                    return Err(StepError::Verify(format!("{vg}/{name} is still active")));
                }
            }
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_arguments_of_lvcreate() {
        let raid = |level: &str, images, copies, stripe| Segments::Raid {
            level: level.to_owned(),
            images,
            copies,
            stripe_size: Bytes(stripe),
            region_size: Bytes(524_288),
        };
        for (segments, expected) in [
            (Segments::Linear, "--type linear"),
            (
                Segments::Striped {
                    stripes: 3,
                    stripe_size: Bytes(65536),
                },
                "--type striped --stripes 3 --stripesize 65536b",
            ),
            (
                raid("raid1", 2, 2, 0),
                "--type raid1 --mirrors 1 --regionsize 524288b",
            ),
            (
                raid("raid5_la", 3, 1, 131_072),
                "--type raid5_la --stripes 2 --stripesize 131072b --regionsize 524288b",
            ),
            (
                raid("raid6", 5, 1, 65536),
                "--type raid6 --stripes 3 --stripesize 65536b --regionsize 524288b",
            ),
            (
                raid("raid10", 4, 2, 65536),
                "--type raid10 --mirrors 1 --stripes 2 --stripesize 65536b --regionsize 524288b",
            ),
            (
                Segments::Mirror {
                    images: 3,
                    region_size: Bytes(524_288),
                    log: "core".to_owned(),
                },
                "--type mirror --mirrors 2 --mirrorlog core --regionsize 524288b",
            ),
        ] {
            assert_eq!(type_args(&segments).join(" "), expected);
        }
    }

    #[test]
    fn settings_that_are_usual_are_not_set() {
        assert!(setting_args(&[], &VolumeSettings::default()).is_empty());
        let all = VolumeSettings {
            allocation: Some("contiguous".to_owned()),
            read_ahead: Some(Bytes(131_072)),
            autoactivation: false,
            skip_activation: true,
        };
        assert_eq!(
            setting_args(&["a".to_owned()], &all).join(" "),
            "--addtag a --alloc contiguous --readahead 256 --setautoactivation n --setactivationskip y"
        );
    }
}
