//! LVM, restricted to the planned devices: an old group of the same name on another disk is not even seen.

use std::path::{Path, PathBuf};

use super::{Executor, Outcome, StepError};
use crate::capture::lvm::{Row, parse};
use crate::capture::volumes::lv_path;
use crate::plan::Step;
use crate::system::{Cmd, Output};
use crate::units::Bytes;

impl Executor<'_> {
    /// An `lvm` command that sees the planned physical volumes only.
    fn lvm(&self, subcommand: &str) -> Cmd {
        let mut config = "devices{scan_lvs=0 filter=[\"a|.*|\"] global_filter=[\"a|.*|\"]} backup{backup=0 archive=0} \
                          activation{monitoring=0}"
            .to_owned();
        if !self.sys.exists(Path::new("/run/udev/control")) {
            // LVM would wait for ever for a udevd that is not there.
            config.push_str(" activation{monitoring=0 udev_sync=0 udev_rules=0}");
        }
        let mut command = Cmd::new("lvm").args([subcommand, "--config"]).arg(config);
        for step in &self.plan.steps {
            if let Step::PvCreate { device, .. } = step {
                command = command.arg("--devices").path(device);
            }
        }
        command
    }

    fn run_lvm(&self, command: Cmd) -> Result<Output, StepError> {
        Ok(self.sys.run(&command)?)
    }

    fn report(
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

    pub(super) fn lv_create(
        &mut self,
        vg: &str,
        name: &str,
        size: Bytes,
        tags: &[String],
    ) -> Result<Outcome, StepError> {
        let mut command =
            self.lvm("lvcreate")
                .args(["--yes", "--wipesignatures", "y", "--zero", "y", "--size"]);
        command = command.arg(format!("{}b", size.0)).args(["--name", name]);
        for tag in tags {
            command = command.args(["--addtag", tag]);
        }
        self.run_lvm(command.arg(vg))?;
        let row = self.report("lvs", "lv", "lv_size", &format!("{vg}/{name}"))?;
        if row.map(|row| row.bytes("lv_size")) != Some(size) {
            return Err(StepError::Verify(format!(
                "{vg}/{name} does not have the size {size}"
            )));
        }
        self.wait_for(&lv_path(vg, name))?;
        Ok(Outcome::Done)
    }

    pub(super) fn thin_pool(&mut self, step: &Step) -> Result<Outcome, StepError> {
        let Step::ThinPoolCreate {
            vg,
            name,
            size,
            chunk_size,
            metadata_size,
            zero,
            discards,
            spare,
            tags,
        } = step
        else {
            return Ok(Outcome::AlreadySo);
        };
        let yes_no = |yes: bool| if yes { "y" } else { "n" };
        let bytes = |bytes: Bytes| format!("{}b", bytes.0);
        let mut command = self
            .lvm("lvcreate")
            .args(["--yes", "--type", "thin-pool"])
            .args([
                "--size".to_owned(),
                bytes(*size),
                "--poolmetadatasize".to_owned(),
                bytes(*metadata_size),
            ])
            .args(["--chunksize".to_owned(), bytes(*chunk_size)])
            .args([
                "--zero",
                yes_no(*zero),
                "--discards",
                discards,
                "--poolmetadataspare",
                yes_no(*spare),
            ])
            .args(["--name", name]);
        for tag in tags {
            command = command.args(["--addtag", tag]);
        }
        self.run_lvm(command.arg(vg))?;
        let row = self.report(
            "lvs",
            "lv",
            "lv_size,chunk_size,lv_metadata_size,discards,zero",
            &format!("{vg}/{name}"),
        )?;
        let row = row.unwrap_or_default();
        let same = row.bytes("lv_size") == *size
            && row.bytes("chunk_size") == *chunk_size
            && row.bytes("lv_metadata_size") == *metadata_size
            && row.text("discards") == discards;
        if !same {
            return Err(StepError::Verify(format!(
                "thin pool {vg}/{name} is not as planned: {row:?}"
            )));
        }
        Ok(Outcome::Done)
    }

    /// Activates a group of the plan, to look at the result.
    pub(super) fn activate(&mut self, vg: &str) -> Result<(), StepError> {
        self.run_lvm(self.lvm("vgchange").args(["--activate", "y", "--yes", vg]))?;
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
            if let Step::LvCreate { vg, name, .. } = step {
                if vgs.contains(vg) && self.sys.exists(&lv_path(vg, name)) {
                    return Err(StepError::Verify(format!("{vg}/{name} is still active")));
                }
            }
        }
        Ok(Outcome::Done)
    }
}
