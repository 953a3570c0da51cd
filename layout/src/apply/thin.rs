//! Thin pools, caches, and settings of groups: what is made of volumes, or after them.

use std::path::PathBuf;

use super::lvm::bytes;
use super::{Executor, Outcome, StepError};
use crate::model::{Cache, GroupSettings, Segments};
use crate::plan::{PlannedPv, Step};
use crate::system::Cmd;
use crate::units::Bytes;

fn yes_no(yes: bool) -> &'static str {
    if yes { "y" } else { "n" }
}

impl Executor<'_> {
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
            error_when_full,
            segments,
            metadata_segments,
            pvs,
            metadata_pvs,
            settings,
        } = step
        else {
            return Ok(Outcome::AlreadySo);
        };
        let plain = *segments == Segments::Linear
            && *metadata_segments == Segments::Linear
            && pvs.is_empty()
            && metadata_pvs.is_empty();
        let command = if plain {
            self.lvm("lvcreate")
                .args(["--yes", "--type", "thin-pool", "--size"])
                .arg(bytes(*size))
                .arg("--poolmetadatasize")
                .arg(bytes(*metadata_size))
                .args(["--name", name])
        } else {
            // Data and metadata lie each in its own way.
            let metadata = format!("{name}.meta");
            let make = |data: bool| match data {
                true => self.make_volume(vg, name, *size, segments, pvs),
                false => {
                    let (size, segments) = (*metadata_size, metadata_segments);
                    self.make_volume(vg, &metadata, size, segments, metadata_pvs)
                }
            };
            // What has a place of its own comes first, before the other takes it.
            let data_first = metadata_pvs.is_empty();
            make(data_first)?;
            make(!data_first)?;
            self.lvm("lvconvert")
                .args(["--yes", "--type", "thin-pool", "--poolmetadata"])
                .arg(format!("{vg}/{metadata}"))
        };
        let command = command
            .arg("--chunksize")
            .arg(bytes(*chunk_size))
            .args(["--zero", yes_no(*zero), "--discards", discards])
            .args(["--poolmetadataspare", yes_no(*spare)]);
        let of = format!("{vg}/{name}");
        self.run_lvm(command.arg(if plain { vg } else { &of }))?;
        self.settle_volume(vg, name, tags, settings)?;
        if *error_when_full {
            // lvcreate of LVM 2.03.16 has the option and refuses it.
            let command = self.lvm("lvchange").args(["--yes", "--errorwhenfull", "y"]);
            self.run_lvm(command.arg(&of))?;
        }
        let fields = "lv_size,chunk_size,lv_metadata_size,discards,zero,lv_when_full";
        let row = self.report("lvs", "lv", fields, &of)?.unwrap_or_default();
        let same = row.bytes("lv_size") == *size
            && row.bytes("chunk_size") == *chunk_size
            && row.bytes("lv_metadata_size") == *metadata_size
            && row.text("discards") == discards
            && (row.text("lv_when_full") == "error") == *error_when_full;
        if !same {
            return Err(StepError::Verify(format!(
                "thin pool {of} is not as planned: {row:?}"
            )));
        }
        Ok(Outcome::Done)
    }

    /// Makes a fast volume, or a cache pool.
    pub(super) fn cache_create(
        &mut self,
        vg: &str,
        cache: &Cache,
        pvs: &[PathBuf],
    ) -> Result<Outcome, StepError> {
        if cache.pool {
            let mut command = self
                .lvm("lvcreate")
                .args(["--yes", "--type", "cache-pool", "--size"])
                .arg(bytes(cache.size))
                .args(["--name", &cache.name]);
            if cache.metadata_size > Bytes(0) {
                command = command
                    .arg("--poolmetadatasize")
                    .arg(bytes(cache.metadata_size));
            }
            command = cache_args(command, cache).arg(vg);
            for pv in pvs {
                command = command.path(pv);
            }
            self.run_lvm(command)?;
        } else {
            self.make_volume(vg, &cache.name, cache.size, &Segments::Linear, pvs)?;
        }
        Ok(Outcome::Done)
    }

    /// Puts a fast volume in front of a slow one, whose data is written already.
    pub(super) fn cache_attach(
        &mut self,
        vg: &str,
        volume: &str,
        cache: &Cache,
    ) -> Result<Outcome, StepError> {
        self.settle()?;
        if cache.kind == "writecache" {
            // "must be inactive to attach", says LVM.
            let command = self.lvm("lvchange").args(["--yes", "--activate", "n"]);
            self.run_lvm(command.arg(format!("{vg}/{}", cache.name)))?;
        }
        let which = if cache.pool {
            "--cachepool"
        } else {
            "--cachevol"
        };
        let mut command = self
            .lvm("lvconvert")
            .args(["--yes", "--type", &cache.kind, which])
            .arg(format!("{vg}/{}", cache.name));
        if !cache.pool {
            command = cache_args(command, cache);
        }
        let of = format!("{vg}/{volume}");
        self.run_lvm(command.arg(&of))?;
        let row = self
            .report("lvs", "lv", "segtype,cache_mode", &of)?
            .unwrap_or_default();
        let mode = cache.mode.is_empty() || row.text("cache_mode") == cache.mode;
        if row.text("segtype") != cache.kind || !mode {
            return Err(StepError::Verify(format!(
                "{of} does not have the cache {}: {row:?}",
                cache.name
            )));
        }
        Ok(Outcome::Done)
    }

    /// Settings of a group and of its physical volumes, when all volumes are made.
    pub(super) fn vg_settings(
        &mut self,
        name: &str,
        settings: &GroupSettings,
        pvs: &[PlannedPv],
    ) -> Result<Outcome, StepError> {
        let args = group_args(settings);
        if !args.is_empty() {
            self.run_lvm(self.lvm("vgchange").arg("--yes").args(args).arg(name))?;
        }
        for pv in pvs {
            let mut command = self.lvm("pvchange").arg("--yes");
            for tag in &pv.tags {
                command = command.args(["--addtag", tag]);
            }
            if !pv.allocatable {
                command = command.args(["--allocatable", "n"]);
            }
            self.run_lvm(command.path(&pv.device))?;
        }
        Ok(Outcome::Done)
    }
}

fn cache_args(mut command: Cmd, cache: &Cache) -> Cmd {
    if cache.chunk_size > Bytes(0) {
        command = command.arg("--chunksize").arg(bytes(cache.chunk_size));
    }
    for (flag, value) in [
        ("--cachemode", &cache.mode),
        ("--cachepolicy", &cache.policy),
    ] {
        if !value.is_empty() {
            command = command.args([flag, value]);
        }
    }
    command
}

/// Arguments of `vgchange` for settings that are not LVM's own.
fn group_args(settings: &GroupSettings) -> Vec<String> {
    let mut args = Vec::new();
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    if let Some(policy) = &settings.allocation {
        add("--alloc", policy.clone());
    }
    if settings.max_volumes > 0 {
        add("--logicalvolume", settings.max_volumes.to_string());
    }
    if settings.max_physical_volumes > 0 {
        let most = settings.max_physical_volumes.to_string();
        add("--maxphysicalvolumes", most);
    }
    if !settings.autoactivation {
        add("--setautoactivation", "n".to_owned());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_group_are_the_arguments_of_vgchange() {
        assert!(group_args(&GroupSettings::default()).is_empty());
        let all = GroupSettings {
            allocation: Some("cling".to_owned()),
            max_volumes: 20,
            max_physical_volumes: 3,
            autoactivation: false,
        };
        assert_eq!(
            group_args(&all).join(" "),
            "--alloc cling --logicalvolume 20 --maxphysicalvolumes 3 --setautoactivation n"
        );
    }
}
